//! What records make of branches, tags and merges, and what the archive keeps.

use super::*;

/// Applies an effect as the record of the revision `at` would.
pub(super) fn note(branches: &mut Branches, at: u64, effect: &Effect<'_>) {
    let mut bytes = Vec::new();
    effect.encode(&mut bytes);
    branches.apply(Revision(at), 5, &bytes).expect("it fits");
}

fn branch(id: u32, parent: u32, name: &str) -> Branch {
    Branch {
        base: Revision(300),
        created_ms: 1_700_000_000_000,
        created_by: b"default".to_vec(),
        deadline_ms: Some(0),
        quota_bytes: 1 << 40,
        is_readonly: true,
        is_merge_only: true,
        ..Branch::new(BranchId(id), name.as_bytes(), BranchId(parent))
    }
}

fn record(effect: &Effect<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Effect::Origin { command: b"branch|create", user: b"ann", address: b"" }.encode(&mut bytes);
    effect.encode(&mut bytes);
    bytes
}

fn sample() -> Branches {
    let mut branches = Branches::default();
    for (id, parent, name) in [(1, 0, "dev"), (2, 1, "dev/a.b-c_d")] {
        let row = branch(id, parent, name).encode();
        let state = (id == 2).then_some(Revision(0));
        let record = record(&Effect::Fork { row: &row, state });
        let turn = branches.apply(Revision(u64::from(id) * 10), 5, &record).expect("it fits");
        let forked = Revision(u64::from(id) * 10);
        let expected = Branch { forked, ..branch(id, parent, name) };
        assert_eq!(turn, Some(Turn::Fork { branch: expected, state }));
    }
    let tag = Effect::Tag { name: b"v1", branch: BranchId(2), revision: Revision(7), time_ms: 0 };
    assert_eq!(branches.apply(Revision(30), 99, &record(&tag)), Ok(Some(Turn::Tagged)));
    branches
}

/// What the archive keeps of it: all but which record changed a merge last.
fn archived(branches: &Branches) -> Vec<u8> {
    let mut bytes = Vec::new();
    branches.encode(&mut bytes);
    bytes
}

fn open(id: u64, from: u32) -> OpenMerge {
    OpenMerge {
        id,
        from: BranchId(from),
        into: BranchId::MAIN,
        pattern: None,
        message: b"why".to_vec(),
        settled: BTreeMap::new(),
        changed: Revision::ZERO,
    }
}

fn merged(from: u32, into: u32, pattern: Option<&str>) -> Merged {
    let pattern = pattern.map(|pattern| pattern.as_bytes().to_vec());
    let (from, into) = (BranchId(from), BranchId(into));
    let (revision, since) = (Revision::ZERO, Revision::ZERO);
    Merged { from, into, revision, since, pattern, ends: 4, kept: Vec::new() }
}

#[test]
fn the_last_merge_of_two_branches_counts() {
    let mut branches = sample();
    let mut at = 40;
    let mut merge = |branches: &mut Branches, it: &Merged| {
        at += 1;
        let row = it.encode();
        branches.apply(Revision(at), 5, &record(&Effect::Merged { row: &row }))
    };
    for id in [4, 5] {
        let row = open(id, 1).encode();
        let opened = record(&Effect::MergeOpen { row: &row });
        assert_eq!(branches.apply(Revision(40), 5, &opened), Ok(None));
    }
    assert_eq!(branches.next_merge(), 6);
    for it in [
        merged(1, 0, None),
        merged(2, 0, None),
        merged(1, 0, Some("a*")),
        merged(1, 0, Some("b*")),
        merged(1, 0, Some("a*")),
    ] {
        assert_eq!(merge(&mut branches, &it), Ok(Some(Turn::Tagged)));
    }
    assert_eq!(branches.open_merges().keys().collect::<Vec<_>>(), [&5], "the other has ended");
    let revisions = |branches: &Branches| -> Vec<u64> {
        branches.merged().iter().map(|merged| merged.revision.0).collect()
    };
    assert_eq!(revisions(&branches), [41, 42, 44, 45]);
    // One of all keys stands for those before it.
    assert!(merge(&mut branches, &merged(1, 0, None)).is_ok());
    assert_eq!(revisions(&branches), [42, 46]);
    // Unless somebody took over what was there in between.
    assert!(merge(&mut branches, &merged(0, 2, None)).is_ok());
    assert!(merge(&mut branches, &merged(1, 0, None)).is_ok());
    assert_eq!(revisions(&branches), [42, 46, 47, 48]);
    let mut pins: Vec<u64> = branches.pins().map(|revision| revision.0).collect();
    pins.sort_unstable();
    assert_eq!(pins, [7, 10, 20, 42, 46, 47, 48]);

    let bytes = archived(&branches);
    let read = Branches::take(&mut &bytes[..]).expect("its own bytes");
    assert_eq!(archived(&read), bytes);
    assert!((0..bytes.len()).all(|end| Branches::take(&mut &bytes[..end]).is_err()));

    // What a branch was before it began anew waits for no decision.
    let row = branch(1, 0, "dev").encode();
    let anew = record(&Effect::Fork { row: &row, state: None });
    assert!(branches.apply(Revision(50), 5, &anew).is_ok());
    assert_eq!(revisions(&branches), [42, 46, 47, 48], "others have what it was");
    assert!(branches.open_merges().is_empty());
    let gone = record(&Effect::MergeGone { id: 5 });
    assert!(branches.apply(Revision(51), 5, &gone).is_err());
    // One that failed uses its number up.
    let failed = record(&Effect::MergeGone { id: branches.next_merge() + 2 });
    assert_eq!(branches.apply(Revision(51), 5, &failed), Ok(None));
    assert_eq!(branches.next_merge(), 9);
    assert!(branches.apply(Revision(51), 5, &failed).is_err());
    assert!(merge(&mut branches, &merged(9, 0, None)).is_err());
}

fn decision(merge: u64, key: &str, value: &str) -> Decision {
    let (from, into) = (BranchId(1), BranchId::MAIN);
    let settled = Settled { verdict: Verdict::Value(value.as_bytes().to_vec()), digest: 7 };
    Decision { merge, from, into, db: 3, key: key.as_bytes().to_vec(), settled }
}

#[test]
fn decisions_are_added_and_replaced_wherever_the_archive_stands() {
    let mut branches = sample();
    let purge = Purge { db: 3, key: b"b".to_vec(), is_prefix: false, at: Revision(99) };
    note(&mut branches, 40, &Effect::MergeOpen { row: &open(4, 1).encode() });
    let made = [("b", "1"), ("a", "2"), ("b", "3"), ("c", "4"), ("a", "5")];
    let rows = made.map(|(key, value)| decision(4, key, value).encode());
    let records = rows.each_ref().map(|row| record(&Effect::MergeSettled { row }));
    let apply = |branches: &mut Branches, records: &[Vec<u8>]| {
        for record in records {
            assert_eq!(branches.apply(Revision(41), 5, record), Ok(None));
        }
    };
    let begun = branches.clone();
    apply(&mut branches, &records);
    let decided = |branches: &Branches| -> Vec<(Vec<u8>, Settled)> {
        let settled = branches.open_merges()[&4].settled.clone();
        settled.into_iter().map(|((_, key), settled)| (key, settled)).collect()
    };
    let expected = [("a", "5"), ("b", "3"), ("c", "4")];
    let expected = expected.map(|(key, value)| decision(4, key, value));
    let expected: Vec<_> = expected.into_iter().map(|it| (it.key, it.settled)).collect();
    assert_eq!(decided(&branches), expected);
    for at in 0..=records.len() {
        let mut ahead = begun.clone();
        apply(&mut ahead, &records[..at]);
        let mut read = Branches::take(&mut &archived(&ahead)[..]).expect("its own bytes");
        apply(&mut read, &records[at..]);
        assert_eq!(archived(&read), archived(&branches), "the archive has {at} of them");
    }
    // One record of all, as older builds made for each decision, says the same.
    let mut at_once = begun;
    let row = branches.open_merges()[&4].encode();
    note(&mut at_once, 41, &Effect::MergeOpen { row: &row });
    assert_eq!(archived(&at_once), archived(&branches));
    assert!(branches.forget_decisions(BranchId::MAIN, &purge));
    assert_eq!(decided(&branches), [expected[0].clone(), expected[2].clone()]);
    // Without it, all else is the same.
    let rest = branches.without_open_merges();
    note(&mut branches, 42, &Effect::MergeGone { id: 4 });
    assert_eq!(rest, branches);
}

#[test]
fn decisions_about_merges_that_do_not_wait_are_refused() {
    let mut branches = sample();
    note(&mut branches, 40, &Effect::MergeOpen { row: &open(4, 1).encode() });
    let before = branches.clone();
    let other = Decision { into: BranchId(2), ..decision(4, "k", "v") };
    for refused in [decision(3, "k", "v"), decision(5, "k", "v"), other] {
        let row = refused.encode();
        let record = record(&Effect::MergeSettled { row: &row });
        assert!(branches.apply(Revision(41), 5, &record).is_err(), "{refused:?}");
    }
    let malformed = record(&Effect::MergeSettled { row: b"" });
    assert!(branches.apply(Revision(41), 5, &malformed).is_err());
    assert_eq!(branches, before);
    note(&mut branches, 42, &Effect::MergeGone { id: 4 });
    let late = decision(4, "k", "v").encode();
    let late = record(&Effect::MergeSettled { row: &late });
    assert!(branches.apply(Revision(43), 5, &late).is_err());
}

#[test]
fn records_make_and_change_and_remove() {
    let mut branches = sample();
    assert_eq!(branches.named(b"dev"), Some(BranchId(1)));
    assert_eq!(branches.named(b"main"), Some(BranchId::MAIN));
    assert_eq!(branches.name_of(BranchId(3)), None);
    assert_eq!(branches.next_id(), BranchId(3));
    let tag = &branches.tags()[&b"v1"[..]];
    assert_eq!((tag.time_ms, &tag.created_by[..]), (99, &b"ann"[..]));
    let row = Branch { is_kept: true, ..branch(1, 0, "prod") }.encode();
    assert_eq!(branches.apply(Revision(31), 5, &record(&Effect::Branch { row: &row })), Ok(None));
    let renamed = branches.get(BranchId(1)).expect("it is there");
    assert_eq!((&renamed.name[..], renamed.forked), (&b"prod"[..], Revision(10)));
    let gone = record(&Effect::BranchGone { branch: BranchId(2) });
    assert_eq!(branches.apply(Revision(32), 5, &gone), Ok(Some(Turn::Gone(BranchId(2)))));
    assert!(branches.tags().is_empty());
    assert_eq!(branches.next_id(), BranchId(3), "a number is given once");
    assert!(branches.apply(Revision(33), 5, &gone).is_err());
    assert_eq!(branches.apply(Revision(34), 5, &record(&Effect::Flush { db: 0 })), Ok(None));
}

#[test]
fn a_tag_names_the_present_or_the_empty_database() {
    let mut branches = sample();
    for (name, time_ms, expected) in [(b"now", 0, (40, 5)), (b"r:0", 9, (0, 0))] {
        let (branch, revision) = (BranchId::MAIN, Revision::ZERO);
        note(&mut branches, 40, &Effect::Tag { name, branch, revision, time_ms });
        let tag = &branches.tags()[&name[..]];
        assert_eq!((tag.revision.0, tag.time_ms), expected);
    }
}

#[test]
fn survives_the_round_trip_and_refuses_less() {
    let mut bytes = Vec::new();
    sample().encode(&mut bytes);
    let mut rest = &bytes[..];
    assert_eq!(Branches::take(&mut rest), Ok(sample()));
    assert!(rest.is_empty());
    for end in 0..bytes.len() {
        assert!(Branches::take(&mut &bytes[..end]).is_err(), "{end}");
    }
}
