//! Checks of what only the inside shows.

use base::{Rng, SeededRng};

use super::*;

const TINY: EncodingLimits = EncodingLimits {
    zset_max_listpack_entries: 4,
    zset_max_listpack_value: 8,
    listpack_lists_and_sets: false,
    hash_max_listpack_entries: 4,
    hash_max_listpack_value: 8,
    list_max_listpack_size: 4,
    set_max_intset_entries: 4,
    set_max_listpack_entries: 4,
    set_max_listpack_value: 8,
};

fn check(zset: &Zset) {
    match &zset.0 {
        Form::Compact { compact, .. } => assert_eq!(compact.entries().count(), compact.len()),
        Form::Indexed(indexed) => indexed.check(),
    }
}

/// Adds or removes something.
fn change(zset: &mut Zset, grows: bool, rng: &mut SeededRng) {
    // Some names are too long for a slot.
    let number = rng.below(9000);
    let name = format!("{number:0width$}", width = number as usize % 40);
    if grows || rng.below(8) == 0 {
        zset.insert(name.as_bytes(), rng.below(50) as f64, &TINY);
    } else if zset.remove(name.as_bytes()).is_none() && !zset.is_empty() {
        let rank = rng.below(zset.len() as u64) as usize;
        zset.remove_rank_range(rank..rank + 2, |_, _| ());
    }
}

#[test]
fn parts_agree_while_a_set_swells_and_shrinks() {
    let mut rng = SeededRng::new(5);
    let mut zset = Zset::new(9);
    for round in 0u64..8 {
        let grows = round % 4 < 2;
        (0..4000).for_each(|_| change(&mut zset, grows, &mut rng));
        check(&zset);
        check(&zset.clone());
        assert_eq!(zset, zset.clone());
    }
    zset.remove_rank_range(0..usize::MAX, |_, _| ());
    check(&zset);
    assert!(zset.is_empty());
}

#[test]
fn copies_share_and_do_not_notice_each_other() {
    type Pairs = Vec<(Vec<u8>, f64)>;
    let pairs = |zset: &Zset| -> Pairs {
        zset.iter().map(|(member, score)| (member.to_vec(), score)).collect()
    };
    let mut rng = SeededRng::new(6);
    let mut zset = Zset::new(9);
    let mut copies: Vec<(Zset, Pairs)> = Vec::new();
    for round in 0u64..60 {
        let grows = round % 10 < 7;
        (0..600).for_each(|_| change(&mut zset, grows, &mut rng));
        check(&zset);
        let mut copy = zset.clone();
        if rng.below(2) == 0 {
            copy.own_outline();
        }
        copies.push((copy, pairs(&zset)));
        if rng.below(4) == 0 {
            // On with an older one.
            zset = copies[rng.below(copies.len() as u64) as usize].0.clone();
        }
    }
    for (copy, then) in &copies {
        let others = copies.iter().filter(|(other, _)| other == copy);
        assert_eq!(others.count(), copies.iter().filter(|(_, other)| other == then).count());
    }
    for (copy, then) in &mut copies {
        check(copy);
        assert_eq!(pairs(copy), *then);
        copy.unshare();
        check(copy);
        assert_eq!(pairs(copy), *then);
    }
}

#[test]
fn many_short_members_stay_small() {
    let count = 200_000;
    let mut rng = SeededRng::new(3);
    let mut zset = Zset::new(1);
    for at in 0..count {
        let name = format!("member:{at:013}");
        zset.insert(name.as_bytes(), rng.below(1 << 40) as f64, &EncodingLimits::default());
    }
    check(&zset);
    let each = zset.memory_bytes() as f64 / f64::from(count);
    assert!(each < 66.0, "{each} bytes a member of 20 bytes");
}

#[test]
fn a_scan_shows_every_member_that_stays() {
    let mut rng = SeededRng::new(17);
    let mut zset = Zset::new(2);
    let limits = EncodingLimits { zset_max_listpack_entries: 0, ..EncodingLimits::default() };
    let name = |kind: &str, at: u64| format!("{kind}{at}").into_bytes();
    for at in 0..3000 {
        zset.insert(&name("stays", at), at as f64, &limits);
        zset.insert(&name("goes", at), at as f64, &limits);
    }
    let mut seen = std::collections::HashSet::new();
    let mut cursor = 0;
    loop {
        cursor = zset.scan(cursor, 10, |member, _| {
            seen.insert(member.to_vec());
        });
        if cursor == 0 {
            break;
        }
        for _ in 0..5 {
            zset.remove(&name("goes", rng.below(3000)));
        }
        zset.insert(&name("comes", rng.below(3000)), 0.0, &limits);
    }
    assert!((0..3000).all(|at| seen.contains(&name("stays", at))));
}
