//! Sorted sets beside a sorted vector.

use base::SeededRng;
use keyspace::EncodingLimits;
use keyspace::types::{LexBound, ScoreBound, Zset};
use proptest::prelude::*;

/// The obvious sorted set.
#[derive(Clone, Debug, Default)]
struct Model(Vec<(Vec<u8>, f64)>);

impl Model {
    fn insert(&mut self, member: &[u8], score: f64) -> Option<f64> {
        // -0 becomes 0.
        let score = score + 0.0;
        let old = self.0.iter_mut().find(|(other, _)| other == member);
        let result = match old {
            Some((_, old)) if *old == score => Some(*old),
            Some((_, old)) => Some(std::mem::replace(old, score)),
            None => {
                self.0.push((member.to_vec(), score));
                None
            }
        };
        self.0.sort_by(|a, b| a.1.partial_cmp(&b.1).unwrap().then_with(|| a.0.cmp(&b.0)));
        result
    }

    fn rank(&self, member: &[u8]) -> Option<usize> {
        self.0.iter().position(|(other, _)| other == member)
    }

    fn remove(&mut self, member: &[u8]) -> Option<f64> {
        self.rank(member).map(|rank| self.0.remove(rank).1)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(Vec<u8>, f64),
    Remove(Vec<u8>),
    RemoveRanks(usize, usize),
}

fn member() -> impl Strategy<Value = Vec<u8>> {
    // Few enough to collide; some too long for the compact form or for a slot.
    prop_oneof![
        8 => "[a-e]{0,3}".prop_map(String::into_bytes),
        1 => (0u8..4).prop_map(|byte| vec![byte; 20]),
        1 => (0u8..4).prop_map(|byte| vec![255 - byte; 300]),
    ]
}

fn score() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-3i32..3).prop_map(f64::from),
        1 => prop::sample::select(vec![
            0.0, -0.0, 0.5, 127.0, 128.0, -128.0, -129.0, 32767.0, 32768.0, -32769.0,
            2_147_483_647.0, 2_147_483_648.0, -2_147_483_648.0, f64::MIN_POSITIVE,
            f64::MAX, f64::INFINITY, f64::NEG_INFINITY,
        ]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (member(), score()).prop_map(|(member, score)| Op::Insert(member, score)),
        3 => member().prop_map(Op::Remove),
        1 => (0usize..40, 0usize..4).prop_map(|(start, len)| Op::RemoveRanks(start, start + len)),
    ]
}

fn limits(entries: usize) -> EncodingLimits {
    EncodingLimits {
        zset_max_listpack_entries: entries,
        zset_max_listpack_value: 64,
        ..EncodingLimits::default()
    }
}

fn bound(kind: usize, text: &str) -> LexBound<'_> {
    match kind {
        0 => LexBound::Min,
        1 => LexBound::Max,
        2 => LexBound::Incl(text.as_bytes()),
        _ => LexBound::Excl(text.as_bytes()),
    }
}

fn bits(pairs: &[(Vec<u8>, f64)]) -> Vec<(&[u8], u64)> {
    pairs.iter().map(|(member, score)| (&member[..], score.to_bits())).collect()
}

fn agree(zset: &Zset, model: &Model) {
    assert_eq!(zset.len(), model.0.len());
    assert_eq!(zset.is_empty(), model.0.is_empty());
    let seen: Vec<_> = zset.iter().map(|(member, score)| (member, score.to_bits())).collect();
    assert_eq!(seen, bits(&model.0));
    assert!(zset.iter_rev().eq(model.0.iter().rev().map(|(member, score)| (&member[..], *score))));
    for (rank, (member, score)) in model.0.iter().enumerate() {
        assert_eq!(zset.rank(member), Some(rank));
        assert_eq!(zset.score(member), Some(*score));
        assert_eq!(zset.by_rank(rank), Some((&member[..], *score)));
    }
    assert_eq!(zset.by_rank(model.0.len()), None);
    assert_eq!(zset.rank(b"absent"), None);
    assert_eq!(zset.score(b"absent"), None);
}

fn agree_on_ranges(zset: &Zset, model: &Model, min: ScoreBound, max: ScoreBound) {
    let inside = |score: f64| {
        (score > min.value || !min.exclusive && score == min.value)
            && (score < max.value || !max.exclusive && score == max.value)
    };
    let expected: Vec<_> =
        model.0.iter().filter(|(_, score)| inside(*score)).map(|(member, _)| &member[..]).collect();
    let ranks = zset.rank_range_by_score(min, max);
    let seen: Vec<_> = zset.range_by_rank(ranks.clone(), false).map(|(member, _)| member).collect();
    assert_eq!(seen, expected, "{min:?}..{max:?}");
    let back: Vec<_> = zset.range_by_rank(ranks, true).map(|(member, _)| member).collect();
    assert!(back.iter().rev().eq(&expected));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn behaves_as_a_sorted_vector(
        entries in prop::sample::select(vec![0usize, 3, 20, 1000]),
        ops in prop::collection::vec(op(), 1..120),
        min in score(), min_exclusive: bool, max in score(), max_exclusive: bool,
    ) {
        let limits = limits(entries);
        let mut zset = Zset::new(7);
        let mut model = Model::default();
        let mut large = false;
        for op in ops {
            match op {
                Op::Insert(member, score) => {
                    let new = model.rank(&member).is_none();
                    large |= new && (model.0.len() >= entries || member.len() > 64);
                    let old = zset.insert(&member, score, &limits);
                    prop_assert_eq!(old, model.insert(&member, score));
                }
                Op::Remove(member) => {
                    prop_assert_eq!(zset.remove(&member), model.remove(&member));
                }
                Op::RemoveRanks(start, end) => {
                    let len = model.0.len();
                    let gone: Vec<_> = model.0.drain(start.min(len)..end.min(len)).collect();
                    let mut shown = Vec::new();
                    let count = zset.remove_rank_range(start..end, |member, score| {
                        shown.push((member.to_vec(), score));
                    });
                    prop_assert_eq!(count, gone.len());
                    prop_assert_eq!(shown, gone);
                }
            }
            prop_assert_eq!(zset.encoding(), if large { "skiplist" } else { "listpack" });
        }
        agree(&zset, &model);
        agree_on_ranges(
            &zset,
            &model,
            ScoreBound { value: min, exclusive: min_exclusive },
            ScoreBound { value: max, exclusive: max_exclusive },
        );
        let copy = zset.clone();
        prop_assert_eq!(&copy, &zset);
        let mut other = Zset::new(8);
        for (member, score) in &zset {
            other.insert(member, score, &EncodingLimits::default());
        }
        prop_assert_eq!(&other, &zset);
        if let Some((member, score)) = zset.by_rank(0) {
            let member = member.to_vec();
            other.insert(&member, if score == 77.0 { 78.0 } else { 77.0 }, &limits);
            prop_assert_ne!(&other, &zset);
        }
    }

    #[test]
    fn ranges_by_member(
        entries in prop::sample::select(vec![0usize, 1000]),
        members in prop::collection::btree_set("[a-d]{1,2}", 0..20),
        min in 0usize..4, low in "[a-d]{0,2}", max in 0usize..4, high in "[a-d]{0,2}",
    ) {
        let mut zset = Zset::new(1);
        for member in &members {
            zset.insert(member.as_bytes(), 1.0, &limits(entries));
        }
        let expected: Vec<_> = members
            .iter()
            .filter(|member| match min {
                0 => true,
                1 => false,
                2 => **member >= low,
                _ => **member > low,
            })
            .filter(|member| match max {
                0 => false,
                1 => true,
                2 => **member <= high,
                _ => **member < high,
            })
            .map(|member| member.as_bytes())
            .collect();
        let ranks = zset.rank_range_by_lex(bound(min, &low), bound(max, &high));
        let seen: Vec<_> = zset.range_by_rank(ranks, false).map(|(member, _)| member).collect();
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn every_member_is_drawn_about_equally_often() {
    for entries in [0, 1000] {
        let mut zset = Zset::new(4);
        for at in 0..10u8 {
            zset.insert(&[at], 0.0, &limits(entries));
        }
        let mut rng = SeededRng::new(6);
        let mut drawn = [0; 10];
        for _ in 0..10_000 {
            let (member, _) = zset.random(&mut rng).expect("not empty");
            drawn[usize::from(member[0])] += 1;
        }
        assert!(drawn.iter().all(|&count| (800..1200).contains(&count)), "{drawn:?}");
    }
    assert_eq!(Zset::new(4).random(&mut SeededRng::new(6)), None);
}

#[test]
fn memory_comes_back_when_members_go() {
    let limits = EncodingLimits::default();
    let mut zset = Zset::new(4);
    for at in 0..50_000u32 {
        zset.insert(format!("{at:030}").as_bytes(), f64::from(at % 100), &limits);
    }
    let full = zset.memory_bytes();
    zset.remove_rank_range(10..usize::MAX, |_, _| ());
    assert_eq!(zset.len(), 10);
    assert!(zset.memory_bytes() < full / 100, "{} of {full}", zset.memory_bytes());
    let copy = zset.clone();
    assert!(copy.memory_bytes() <= zset.memory_bytes());
}
