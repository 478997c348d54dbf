//! Merges of branches: which were made, and which wait for somebody to decide.

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
    /// What was decided.
    pub settled: Vec<Settled>,
}

/// A decision about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The key's database.
    pub db: DbIndex,
    /// The key.
    pub key: Vec<u8>,
    /// What it becomes.
    pub verdict: Verdict,
    /// A digest of the conflict as it was decided: another one is open again.
    pub digest: u64,
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
        for settled in &self.settled {
            leb128::put(&mut out, u64::from(settled.db));
            put_bytes(&mut out, &settled.key);
            let (kind, value): (u64, &[u8]) = match &settled.verdict {
                Verdict::Ours => (0, b""),
                Verdict::Theirs => (1, b""),
                Verdict::Value(value) => (2, value),
            };
            leb128::put(&mut out, kind);
            put_bytes(&mut out, value);
            leb128::put(&mut out, settled.digest);
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
        left.settled.retain(|settled| !purge.covers(settled.db, &settled.key));
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
        let mut settled = Vec::new();
        for _ in 0..leb128::take(bytes)? {
            settled.push(take_settled(bytes)?);
        }
        at_end(bytes)?;
        Ok(OpenMerge { id, from, into, pattern, message, settled })
    }
}

fn take_db(bytes: &mut &[u8]) -> Result<DbIndex, &'static str> {
    DbIndex::try_from(leb128::take(bytes)?).map_err(|_| "a database number exceeds 65535")
}

fn take_settled(bytes: &mut &[u8]) -> Result<Settled, &'static str> {
    let (db, key) = (take_db(bytes)?, take_bytes(bytes)?.to_vec());
    let (kind, value) = (leb128::take(bytes)?, take_bytes(bytes)?);
    let verdict = match kind {
        0 => Verdict::Ours,
        1 => Verdict::Theirs,
        2 => Verdict::Value(value.to_vec()),
        _ => return Err("an unknown verdict"),
    };
    Ok(Settled { db, key, verdict, digest: leb128::take(bytes)? })
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

    #[test]
    fn decisions_about_erased_keys_go() {
        let (from, into) = (BranchId(7), BranchId::MAIN);
        let settled = |db, key: &[u8]| Settled {
            db,
            key: key.to_vec(),
            verdict: Verdict::Value(b"v".to_vec()),
            digest: 1,
        };
        let settled = vec![settled(0, b"k:1"), settled(1, b"k:1"), settled(0, b"k:2")];
        let open = OpenMerge { id: 1, from, into, pattern: None, message: Vec::new(), settled };
        let left = |branch, db, key: &[u8], is_prefix| {
            let purge = Purge { db, key: key.to_vec(), is_prefix, at: Revision(9) };
            open.without(branch, &purge).map(|open| open.settled)
        };
        assert_eq!(left(from, 0, b"k:1", false), Some(open.settled[1..].to_vec()));
        assert_eq!(left(into, 0, b"k:", true), Some(open.settled[1..2].to_vec()));
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
            let settled = verdicts.map(|verdict| Settled {
                db: 300,
                key: b"k".to_vec(),
                verdict,
                digest: u64::MAX,
            });
            let (message, settled) = (b"why".to_vec(), settled.to_vec());
            let open = OpenMerge { id: 17, from, into, pattern, message, settled };
            let bytes = open.encode();
            assert_eq!(OpenMerge::decode(&bytes), Ok(open));
            assert!((0..bytes.len()).all(|end| OpenMerge::decode(&bytes[..end]).is_err()));
            assert!(OpenMerge::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }
}
