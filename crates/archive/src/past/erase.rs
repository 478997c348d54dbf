//! Records without what they did to some keys.

use base::{BranchId, DbIndex};
use keyspace::effect::{Cause, Effect, EffectError, Effects, Marked};
use keyspace::{Decision, Merged, OpenMerge, Purge, Stored, dump};

/// What a key was after a record: `dump`'s body of its value, and its deadline.
pub(super) type After = Option<(Vec<u8>, Option<u64>)>;

/// Value and deadline of a key.
pub(super) fn after(stored: Option<Stored>) -> After {
    stored.map(|stored| (dump::encode_body(stored.value.as_ref()), stored.deadline))
}

/// The effects without those on keys to be erased; `None` if there are none.
///
/// What an erased key was renamed to has its value from there. Such an heir,
/// and what it is renamed to in turn, is told by what it was after the record
/// instead, which `heir` answers.
pub(super) fn without(
    effects: &[u8],
    first_db: DbIndex,
    purge: &Purge,
    heir: &mut dyn FnMut(DbIndex, &[u8]) -> After,
) -> Result<Option<Vec<u8>>, EffectError> {
    let mut db = first_db;
    let (mut is_erased, mut is_heir, mut is_changed) = (false, false, false);
    let mut heirs: Vec<(DbIndex, &[u8])> = Vec::new();
    let mut out = Vec::with_capacity(effects.len());
    // Where marks belong, and how many of their deletions are left out.
    let (mut marks, mut marked): (Vec<(usize, Effect<'_>, u64)>, _) =
        (Vec::new(), Marked::default());
    for effect in Effects::new(effects) {
        let effect = effect?;
        if marked.see(&effect)
            && (is_erased || is_heir)
            && let Some((_, _, left_out)) = marks.last_mut()
        {
            *left_out += 1;
        }
        match effect {
            Effect::Undoable { .. } => marks.push((out.len(), effect, 0)),
            Effect::Database(other) => {
                db = other;
                effect.encode(&mut out);
            }
            Effect::Key { key, .. } => {
                is_erased = purge.covers(db, key);
                is_heir = heirs.contains(&(db, key));
                if !is_erased && !is_heir {
                    effect.encode(&mut out);
                }
            }
            Effect::Merged { row } => match without_kept(row, purge) {
                Some(row) => {
                    Effect::Merged { row: &row }.encode(&mut out);
                    is_changed = true;
                }
                None => effect.encode(&mut out),
            },
            effect if !effect.is_on_key() => effect.encode(&mut out),
            Effect::Rename { db: to_db, key: to, .. } => {
                let ends = purge.covers(to_db, to);
                is_changed |= is_erased || ends;
                if !ends && (is_erased || is_heir) && !heirs.contains(&(to_db, to)) {
                    heirs.push((to_db, to));
                }
                if is_erased || is_heir {
                    continue;
                }
                if ends || heirs.contains(&(to_db, to)) {
                    Effect::Delete(Cause::Client).encode(&mut out);
                } else {
                    effect.encode(&mut out);
                }
            }
            _ if is_erased => is_changed = true,
            _ if is_heir => {}
            effect => effect.encode(&mut out),
        }
    }
    if !is_changed {
        return Ok(None);
    }
    put_marks(&mut out, &marks);
    Effect::Erased.encode(&mut out);
    for (db, key) in heirs {
        Effect::Database(db).encode(&mut out);
        Effect::Key { key, existed: None }.encode(&mut out);
        Effect::Erase.encode(&mut out);
        if let Some((body, deadline)) = heir(db, key) {
            Effect::Put { body: &body, deadline }.encode(&mut out);
        }
    }
    Ok(Some(out))
}

/// The effects without what was decided about keys to be erased on a branch, in
/// merges that waited; `None` if that is nothing.
pub(super) fn without_decisions(
    effects: &[u8],
    branch: BranchId,
    purge: &Purge,
) -> Result<Option<Vec<u8>>, EffectError> {
    let (mut out, mut is_changed) = (Vec::new(), false);
    for effect in Effects::new(effects) {
        let effect = effect?;
        let begin = out.len();
        match effect {
            Effect::MergeOpen { row } => {
                let left = OpenMerge::decode(row).ok().and_then(|open| open.without(branch, purge));
                if let Some(open) = left {
                    Effect::MergeOpen { row: &open.encode() }.encode(&mut out);
                }
            }
            Effect::MergeSettled { row }
                if Decision::decode(row)
                    .is_ok_and(|decision| decision.is_erased(branch, purge)) =>
            {
                Effect::Erased.encode(&mut out);
            }
            _ => {}
        }
        if out.len() == begin {
            effect.encode(&mut out);
        } else {
            is_changed = true;
        }
    }
    Ok(is_changed.then_some(out))
}

/// The row of a merge without keys to be erased that it has only looked at;
/// `None` if there are none.
fn without_kept(row: &[u8], purge: &Purge) -> Option<Vec<u8>> {
    let mut merged = Merged::decode(row).ok()?;
    let before = merged.kept.len();
    merged.kept.retain(|(db, key)| !purge.covers(*db, key));
    (merged.kept.len() < before).then(|| merged.encode())
}

/// Puts marks in their places. They speak of as many deletions as there are still;
/// one of which there is none says nothing.
fn put_marks(out: &mut Vec<u8>, marks: &[(usize, Effect<'_>, u64)]) {
    for &(at, mark, left_out) in marks.iter().rev() {
        let Effect::Undoable { keys, bytes, until_ms } = mark else { continue };
        let keys = keys.saturating_sub(left_out);
        if keys > 0 {
            let mut encoded = Vec::new();
            Effect::Undoable { keys, bytes, until_ms }.encode(&mut encoded);
            out.splice(at..at, encoded);
        }
    }
}

#[cfg(test)]
mod tests {
    use base::Revision;
    use keyspace::{Settled, Verdict};

    use super::*;

    fn bytes(effects: &[Effect<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        effects.iter().for_each(|effect| effect.encode(&mut bytes));
        bytes
    }

    fn named(key: &[u8]) -> Effect<'_> {
        Effect::Key { key, existed: Some(true) }
    }

    fn to(key: &[u8]) -> Effect<'_> {
        Effect::Rename { db: 0, key, replaces: Some(true) }
    }

    const ADD: Effect<'static> = Effect::StrAdd { delta: 1 };

    #[track_caller]
    fn check(effects: &[Effect<'_>], expected: Option<&[Effect<'_>]>) {
        let at = Revision(9);
        let purge = Purge { db: 0, key: b"k".to_vec(), is_prefix: false, at };
        let heir = &mut |db, key: &[u8]| {
            assert_eq!(db, 0);
            (key == b"y").then(|| (b"body".to_vec(), Some(7)))
        };
        let found = without(&bytes(effects), 0, &purge, heir).expect("well-formed");
        assert_eq!(found, expected.map(bytes), "{effects:?}");
    }

    #[test]
    fn a_merge_does_not_name_an_erased_key_that_it_only_looked_at() {
        let row = |keys: &[&[u8]]| {
            let kept = keys.iter().map(|key| (0, key.to_vec())).collect();
            let (from, into) = (base::BranchId(1), base::BranchId::MAIN);
            let (revision, since) = (Revision::ZERO, Revision::ZERO);
            Merged { from, into, revision, since, pattern: None, ends: 0, kept }.encode()
        };
        let [before, left, others] = [row(&[b"k", b"x"]), row(&[b"x"]), row(&[b"x", b"y"])];
        let left = [Effect::Merged { row: &left }, named(b"x"), ADD, Effect::Erased];
        check(&[Effect::Merged { row: &before }, named(b"x"), ADD], Some(&left));
        check(&[Effect::Merged { row: &others }, named(b"x"), ADD], None);
    }

    #[test]
    fn decisions_about_erased_keys_are_not_told() {
        let (from, into) = (BranchId(1), BranchId::MAIN);
        let settled = || Settled { verdict: Verdict::Value(b"v".to_vec()), digest: 7 };
        let decision = |key: &[u8]| {
            let key = key.to_vec();
            Decision { merge: 4, from, into, db: 0, key, settled: settled() }.encode()
        };
        let waiting = |keys: &[&[u8]]| {
            let settled = keys.iter().map(|key| ((0, key.to_vec()), settled())).collect();
            let (pattern, message, changed) = (None, Vec::new(), Revision::ZERO);
            OpenMerge { id: 4, from, into, pattern, message, settled, changed }.encode()
        };
        let purge = Purge { db: 0, key: b"k".to_vec(), is_prefix: false, at: Revision(9) };
        let left_of = |effects: &[Effect<'_>], branch| {
            without_decisions(&bytes(effects), branch, &purge).expect("well-formed")
        };
        let origin = Effect::Origin { command: b"c", user: b"u", address: b"a" };
        let [of_k, of_x] = [decision(b"k"), decision(b"x")];
        let [of_k, of_x] = [&of_k, &of_x].map(|row| Effect::MergeSettled { row });
        for branch in [from, into] {
            let left = bytes(&[origin, Effect::Erased]);
            assert_eq!(left_of(&[origin, of_k], branch), Some(left));
            assert_eq!(left_of(&[origin, of_x], branch), None);
        }
        assert_eq!(left_of(&[origin, of_k], BranchId(2)), None);
        let [both, one] = [waiting(&[b"k", b"x"]), waiting(&[b"x"])];
        let [both, one] = [&both, &one].map(|row| Effect::MergeOpen { row });
        assert_eq!(left_of(&[origin, both], from), Some(bytes(&[origin, one])));
        assert_eq!(left_of(&[origin, one], from), None);
    }

    #[test]
    fn nothing_is_left_of_an_erased_key() {
        let origin = Effect::Origin { command: b"c", user: b"u", address: b"a" };
        check(&[origin, named(b"x"), ADD], None);
        check(&[Effect::Database(1), named(b"k"), ADD], None);
        check(&[Effect::Flush { db: 0 }], None);
        check(&[origin, named(b"k"), ADD], Some(&[origin, Effect::Erased]));
        check(
            &[named(b"x"), ADD, named(b"k"), ADD, ADD, Effect::Flush { db: 1 }, named(b"x"), ADD],
            Some(&[named(b"x"), ADD, Effect::Flush { db: 1 }, named(b"x"), ADD, Effect::Erased]),
        );
        let gone = Effect::Delete(Cause::Client);
        check(
            &[named(b"x"), to(b"k"), named(b"k"), ADD],
            Some(&[named(b"x"), gone, Effect::Erased]),
        );
    }

    #[test]
    fn marks_speak_of_the_deletions_that_are_left() {
        let mark = |keys| Effect::Undoable { keys, bytes: 300, until_ms: 9 };
        let gone = Effect::Delete(Cause::Client);
        let three = [mark(3), named(b"a"), gone, named(b"k"), gone, named(b"x"), gone];
        let two = [mark(2), named(b"a"), gone, named(b"x"), gone];
        let other = [named(b"q"), gone];
        check(
            &[&three[..], &other, &[mark(1), named(b"k"), gone]].concat(),
            Some(&[&two[..], &other, &[Effect::Erased]].concat()),
        );
        let flush = [mark(5), Effect::Flush { db: 0 }];
        check(
            &[&[named(b"k"), ADD][..], &flush, &two].concat(),
            Some(&[&flush[..], &two, &[Effect::Erased]].concat()),
        );
    }

    #[test]
    fn what_inherits_from_it_is_told_by_its_value() {
        let heir = |key| [Effect::Database(0), Effect::Key { key, existed: None }, Effect::Erase];
        let put = Effect::Put { body: b"body", deadline: Some(7) };
        let y = [&[Effect::Erased], &heir(b"y")[..], &[put]].concat();
        check(&[named(b"k"), to(b"y"), named(b"y"), ADD], Some(&y));
        // y has gone on to z, and x has taken its place.
        let effects = [named(b"k"), to(b"y"), named(b"y"), to(b"z"), named(b"x"), to(b"y")];
        let gone = [named(b"x"), Effect::Delete(Cause::Client)];
        check(&effects, Some(&[&gone[..], &y, &heir(b"z")].concat()));
    }
}
