//! Merges of branches: which were made, and which wait for somebody to decide.

use std::collections::BTreeMap;

use base::{BranchId, DbIndex, Revision, leb128};

use super::{branch_id, put_bytes, take_bytes};
use crate::past_rules::Purge;

/// A merge that was made: since `revision` the one branch has what the other
/// had then. What both had in common is what `from` had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Whose changes were taken.
    pub from: BranchId,
    /// Who took them.
    pub into: BranchId,
    /// When. In the record that makes it 0 stands for that record's.
    pub revision: Revision,
    /// When the first was made of those that it stands for. Of what was taken
    /// in between, and when, nothing is known any more. 0 in its record.
    pub since: Revision,
    /// Which keys alone, as a glob; `None`: all.
    pub pattern: Option<Vec<u8>>,
    /// The open merge that it ends; 0 for none.
    pub ends: u64,
    /// Keys that were looked at and are not what `from` has, though nothing is
    /// written for them. In its record only: later merges find them there.
    pub kept: Vec<(DbIndex, Vec<u8>)>,
}

/// A merge that waits for decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenMerge {
    /// Never given to another.
    pub id: u64,
    /// Whose changes are to be taken.
    pub from: BranchId,
    /// Who takes them.
    pub into: BranchId,
    /// Which keys alone, as a glob; `None`: all.
    pub pattern: Option<Vec<u8>>,
    /// What its record will say.
    pub message: Vec<u8>,
    /// What was decided, by database and key.
    pub settled: BTreeMap<(DbIndex, Vec<u8>), Settled>,
    /// The newest record about it; 0 of one that was read from the archive, which
    /// does not keep it. Tells its states apart.
    pub changed: Revision,
}

/// What was decided about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What it becomes.
    pub verdict: Verdict,
    /// A digest of the conflict as it was decided: another one is open again.
    pub digest: u64,
}

/// A decision about a key in a merge that waits, in the place of an earlier one
/// about the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The merge's number.
    pub merge: u64,
    /// Whose changes it takes.
    pub from: BranchId,
    /// Who takes them.
    pub into: BranchId,
    /// The key's database.
    pub db: DbIndex,
    /// The key.
    pub key: Vec<u8>,
    /// What was decided about it.
    pub settled: Settled,
}

/// What becomes of a key in conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Ours,
    /// It becomes what the other branch has.
    Theirs,
    /// It becomes this.
    Value(Vec<u8>),
}

impl Merged {
    /// The bytes that records and the archive keep of it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let Merged { from, into, revision, since, ends, ref kept, .. } = *self;
        for number in [u64::from(from.0), u64::from(into.0), revision.0, ends] {
            leb128::put(&mut out, number);
        }
        put_optional(&mut out, self.pattern.as_deref());
        if since != revision || !kept.is_empty() {
            leb128::put(&mut out, since.0);
        }
        for (db, key) in kept {
            leb128::put(&mut out, u64::from(*db));
            put_bytes(&mut out, key);
        }
        out
    }

    /// Reads [`Merged::encode`], which need not be trusted.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(mut bytes: &[u8]) -> Result<Merged, &'static str> {
        let bytes = &mut bytes;
        let (from, into) = two_branches(bytes)?;
        let (revision, ends) = (Revision(leb128::take(bytes)?), leb128::take(bytes)?);
        let pattern = take_optional(bytes)?;
        let since = if bytes.is_empty() { revision } else { Revision(leb128::take(bytes)?) };
        if since > revision {
            return Err("a merge stands for one before it only");
        }
        let mut kept = Vec::new();
        while !bytes.is_empty() {
            kept.push((take_db(bytes)?, take_bytes(bytes)?.to_vec()));
        }
        Ok(Merged { from, into, revision, since, pattern, ends, kept })
    }
}

impl OpenMerge {
    /// The bytes that records and the archive keep of it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [self.id, u64::from(self.from.0), u64::from(self.into.0)] {
            leb128::put(&mut out, number);
        }
        put_optional(&mut out, self.pattern.as_deref());
        put_bytes(&mut out, &self.message);
        leb128::put(&mut out, self.settled.len() as u64);
        for ((db, key), settled) in &self.settled {
            put_settled(&mut out, *db, key, settled);
        }
        out
    }

    /// It without what was decided about keys that are erased on a branch; `None` if
    /// that is nothing.
    #[must_use]
    pub fn without(&self, branch: BranchId, purge: &Purge) -> Option<OpenMerge> {
        if branch != self.from && branch != self.into {
            return None;
        }
        let mut left = self.clone();
        left.settled.retain(|(db, key), _| !purge.covers(*db, key));
        (left.settled.len() < self.settled.len()).then_some(left)
    }

    /// Reads [`OpenMerge::encode`], which need not be trusted.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(mut bytes: &[u8]) -> Result<OpenMerge, &'static str> {
        let bytes = &mut bytes;
        let id = leb128::take(bytes)?;
        let (from, into) = two_branches(bytes)?;
        let pattern = take_optional(bytes)?;
        let message = take_bytes(bytes)?.to_vec();
        let mut settled = BTreeMap::new();
        for _ in 0..leb128::take(bytes)? {
            let (db, key, decided) = take_settled(bytes)?;
            settled.insert((db, key), decided);
        }
        at_end(bytes)?;
        Ok(OpenMerge { id, from, into, pattern, message, settled, changed: Revision::ZERO })
    }
}

fn take_db(bytes: &mut &[u8]) -> Result<DbIndex, &'static str> {
    DbIndex::try_from(leb128::take(bytes)?).map_err(|_| "a database number exceeds 65535")
}

impl Decision {
    /// The bytes that its record keeps of it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [self.merge, u64::from(self.from.0), u64::from(self.into.0)] {
            leb128::put(&mut out, number);
        }
        put_settled(&mut out, self.db, &self.key, &self.settled);
        out
    }

    /// Reads [`Decision::encode`], which need not be trusted.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(mut bytes: &[u8]) -> Result<Decision, &'static str> {
        let bytes = &mut bytes;
        let merge = leb128::take(bytes)?;
        let (from, into) = two_branches(bytes)?;
        let (db, key, settled) = take_settled(bytes)?;
        at_end(bytes)?;
        Ok(Decision { merge, from, into, db, key, settled })
    }

    /// Whether it is about a key that is erased on a branch.
    #[must_use]
    pub fn is_erased(&self, branch: BranchId, purge: &Purge) -> bool {
        (branch == self.from || branch == self.into) && purge.covers(self.db, &self.key)
    }
}

fn put_settled(out: &mut Vec<u8>, db: DbIndex, key: &[u8], settled: &Settled) {
    leb128::put(out, u64::from(db));
    put_bytes(out, key);
    let (kind, value): (u64, &[u8]) = match &settled.verdict {
        Verdict::Ours => (0, b""),
        Verdict::Theirs => (1, b""),
        Verdict::Value(value) => (2, value),
    };
    leb128::put(out, kind);
    put_bytes(out, value);
    leb128::put(out, settled.digest);
}

fn take_settled(bytes: &mut &[u8]) -> Result<(DbIndex, Vec<u8>, Settled), &'static str> {
    let (db, key) = (take_db(bytes)?, take_bytes(bytes)?.to_vec());
    let (kind, value) = (leb128::take(bytes)?, take_bytes(bytes)?);
    let verdict = match kind {
        0 => Verdict::Ours,
        1 => Verdict::Theirs,
        2 => Verdict::Value(value.to_vec()),
        _ => return Err("an unknown verdict"),
    };
    Ok((db, key, Settled { verdict, digest: leb128::take(bytes)? }))
}

fn two_branches(bytes: &mut &[u8]) -> Result<(BranchId, BranchId), &'static str> {
    let (from, into) = (branch_id(leb128::take(bytes)?)?, branch_id(leb128::take(bytes)?)?);
    if from == into { Err("a branch merged with itself") } else { Ok((from, into)) }
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    leb128::put(out, u64::from(bytes.is_some()));
    bytes.into_iter().for_each(|bytes| put_bytes(out, bytes));
}

fn take_optional(bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    match leb128::take(bytes)? {
        0 => Ok(None),
        1 => Ok(Some(take_bytes(bytes)?.to_vec())),
        _ => Err("neither there nor not"),
    }
}

fn at_end(bytes: &[u8]) -> Result<(), &'static str> {
    if bytes.is_empty() { Ok(()) } else { Err("bytes after a merge's end") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(
        from: BranchId,
        into: BranchId,
        settled: BTreeMap<(DbIndex, Vec<u8>), Settled>,
    ) -> OpenMerge {
        let (message, changed) = (Vec::new(), Revision::ZERO);
        OpenMerge { id: 1, from, into, pattern: None, message, settled, changed }
    }

    #[test]
    fn decisions_about_erased_keys_go() {
        let (from, into) = (BranchId(7), BranchId::MAIN);
        let places = [(0, "k:1"), (0, "k:2"), (1, "k:1")].map(|(db, key)| (db, key.as_bytes()));
        let settled = Settled { verdict: Verdict::Value(b"v".to_vec()), digest: 1 };
        let about = |(db, key): (DbIndex, &[u8])| ((db, key.to_vec()), settled.clone());
        let settled = places.map(about).into();
        let open = waiting(from, into, settled);
        let left = |branch, db, key: &[u8], is_prefix| {
            let purge = Purge { db, key: key.to_vec(), is_prefix, at: Revision(9) };
            let left = open.without(branch, &purge).map(|open| open.settled);
            // One by one they are erased alike.
            for ((db, key), settled) in open.settled.clone() {
                let is_left = left.as_ref().is_none_or(|it| it.contains_key(&(db, key.clone())));
                let decision = Decision { merge: 1, from, into, db, key, settled };
                assert_eq!(decision.is_erased(branch, &purge), !is_left, "{decision:?} {purge:?}");
            }
            left
        };
        let expected = |at: &[usize]| Some(at.iter().map(|&at| about(places[at])).collect());
        assert_eq!(left(from, 0, b"k:1", false), expected(&[1, 2]));
        assert_eq!(left(into, 0, b"k:", true), expected(&[2]));
        assert_eq!(left(BranchId(8), 0, b"k:1", false), None);
        assert_eq!(left(into, 2, b"k:1", false), None);
    }

    #[test]
    fn merges_survive_the_round_trip_and_refuse_less() {
        let (from, into) = (BranchId(7), BranchId::MAIN);
        for pattern in [None, Some(b"user:*".to_vec())] {
            let revision = Revision(1 << 40);
            let since = revision;
            let kept = Vec::new();
            let merged =
                Merged { from, into, revision, since, pattern: pattern.clone(), ends: 17, kept };
            let bytes = merged.encode();
            assert_eq!(Merged::decode(&bytes).as_ref(), Ok(&merged));
            assert!((0..bytes.len()).all(|end| Merged::decode(&bytes[..end]).is_err()));
            let merged = Merged { since: Revision(1 << 30), ..merged };
            let more = merged.encode();
            assert_eq!(Merged::decode(&more).as_ref(), Ok(&merged));
            assert!((bytes.len() + 1..more.len()).all(|end| Merged::decode(&more[..end]).is_err()));
            assert!(Merged::decode(&[&more[..], &[0]].concat()).is_err());
            let kept = vec![(0, b"one".to_vec()), (300, b"".to_vec())];
            for merged in [
                Merged { kept: kept.clone(), ..merged.clone() },
                Merged { kept, since: merged.revision, ..merged },
            ] {
                let bytes = merged.encode();
                assert_eq!(Merged::decode(&bytes).as_ref(), Ok(&merged));
                assert!(Merged::decode(&bytes[..bytes.len() - 1]).is_err());
                assert!(Merged::decode(&[&bytes[..], &[0]].concat()).is_err());
            }

            let verdicts = [Verdict::Ours, Verdict::Theirs, Verdict::Value(b"v".to_vec())];
            let settled = verdicts.map(|verdict| Settled { verdict, digest: u64::MAX });
            for settled in &settled {
                let (db, key, settled) = (300, b"k".to_vec(), settled.clone());
                let decision = Decision { merge: 17, from, into, db, key, settled };
                let bytes = decision.encode();
                assert_eq!(Decision::decode(&bytes), Ok(decision));
                assert!((0..bytes.len()).all(|end| Decision::decode(&bytes[..end]).is_err()));
                assert!(Decision::decode(&[&bytes[..], &[0]].concat()).is_err());
            }
            let of_key = |(at, settled)| ((300 - at, b"k".to_vec()), settled);
            let settled = (0_u16..).zip(settled).map(of_key).collect();
            let open = waiting(from, into, settled);
            let open = OpenMerge { id: 17, pattern, message: b"why".to_vec(), ..open };
            let bytes = open.encode();
            assert_eq!(OpenMerge::decode(&bytes), Ok(open));
            assert!((0..bytes.len()).all(|end| OpenMerge::decode(&bytes[..end]).is_err()));
            assert!(OpenMerge::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn the_bytes_of_decisions_are_those_of_the_document() {
        let (from, into) = (BranchId(7), BranchId::MAIN);
        let settled = Settled { verdict: Verdict::Value(b"v".to_vec()), digest: 5 };
        let one = [&[3, 1][..], b"k", &[2, 1], b"v", &[5]].concat();
        let decision =
            Decision { merge: 9, from, into, db: 3, key: b"k".to_vec(), settled: settled.clone() };
        assert_eq!(decision.encode(), [&[9, 7, 0][..], &one].concat());
        let settled = BTreeMap::from([((3, b"k".to_vec()), settled)]);
        let open = OpenMerge { id: 9, ..waiting(from, into, settled) };
        assert_eq!(open.encode(), [&[9, 7, 0, 0, 0, 1][..], &one].concat());
        // Older builds had them in the order in which they were made.
        let other = [&[0, 1][..], b"a", &[0, 0, 5]].concat();
        let row = [&[9, 7, 0, 0, 0, 2][..], &one, &other].concat();
        let decided = OpenMerge::decode(&row).expect("it is whole").settled;
        assert_eq!(decided.keys().map(|(db, _)| *db).collect::<Vec<_>>(), [0, 3]);
    }
}
