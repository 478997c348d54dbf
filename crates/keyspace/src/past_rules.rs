//! What is kept of the past of which keys: rules that clients make, and what
//! they had erased. Control state: every change of it is an effect of the log,
//! and the archive keeps it beside the keys.

use std::sync::Arc;

use base::{DbIndex, Revision, glob, leb128};

use crate::effect::Effect;
use crate::shard::Keyspace;

/// How much of a key's past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// What is younger than so many milliseconds.
    Age(u64),
    /// The newest so many versions.
    Versions(u64),
    /// All of it.
    Forever,
    /// None of it.
    Nothing,
}

impl Keep {
    /// Its bytes in effects and in the archive's directory.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        let (kind, number) = match self {
            Keep::Age(ms) => (0, Some(ms)),
            Keep::Versions(count) => (1, Some(count)),
            Keep::Forever => (2, None),
            Keep::Nothing => (3, None),
        };
        out.push(kind);
        number.into_iter().for_each(|number| leb128::put(out, number));
    }

    /// Reads what [`Keep::encode`] writes from the beginning of `bytes`.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Result<Keep, &'static str> {
        let (&kind, rest) = bytes.split_first().ok_or("it ends early")?;
        *bytes = rest;
        Ok(match kind {
            0 => Keep::Age(leb128::take(bytes)?),
            1 => Keep::Versions(leb128::take(bytes)?),
            2 => Keep::Forever,
            3 => Keep::Nothing,
            _ => return Err("an unknown way to keep the past"),
        })
    }
}

/// What is kept of the past of the keys that a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The pattern, as in KEYS.
    pub glob: Vec<u8>,
    /// How much.
    pub keep: Keep,
    /// The oldest revision that could be read when the rule was made.
    pub oldest: Revision,
}

/// The past of a key, or of all keys with a prefix, was erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// The database.
    pub db: DbIndex,
    /// The key or the prefix.
    pub key: Vec<u8>,
    /// Which of the two.
    pub is_prefix: bool,
    /// The transaction that did. What was before it is not to be read.
    pub at: Revision,
}

impl Purge {
    /// Whether it is about this key.
    #[must_use]
    pub fn covers(&self, db: DbIndex, key: &[u8]) -> bool {
        self.db == db && if self.is_prefix { key.starts_with(&self.key) } else { key == self.key }
    }
}

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastRules {
    /// Oldest first; the newest that matches a key is the one in force.
    rules: Vec<Rule>,
    purges: Vec<Purge>,
}

impl PastRules {
    /// No rules, and what was erased, oldest first.
    #[must_use]
    pub fn of_purges(purges: Vec<Purge>) -> PastRules {
        PastRules { rules: Vec::new(), purges }
    }

    /// The same rules where nothing was erased.
    #[must_use]
    pub fn without_purges(&self) -> PastRules {
        PastRules { rules: self.rules.clone(), purges: Vec::new() }
    }

    /// The rules, oldest first.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What was erased, oldest first.
    #[must_use]
    pub fn purges(&self) -> &[Purge] {
        &self.purges
    }

    /// Whether the past of every key is kept alike.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.purges.is_empty()
    }

    /// The rule in force for a key: the newest one that matches it.
    #[must_use]
    pub fn rule_of(&self, key: &[u8]) -> Option<&Rule> {
        self.rules.iter().rev().find(|rule| glob::matches(&rule.glob, key))
    }

    /// The transaction that erased a key's past, the newest one.
    #[must_use]
    pub fn purged(&self, db: DbIndex, key: &[u8]) -> Option<Revision> {
        self.purges.iter().rev().find(|purge| purge.covers(db, key)).map(|purge| purge.at)
    }

    /// Takes in an effect; others than those on rules change nothing.
    pub(crate) fn apply(&mut self, revision: Revision, effect: &Effect<'_>) {
        match *effect {
            Effect::KeepRule { glob, keep, oldest } => {
                self.rules.retain(|rule| rule.glob != glob);
                self.rules.push(Rule { glob: glob.to_vec(), keep, oldest });
            }
            Effect::KeepRuleGone { glob } => self.rules.retain(|rule| rule.glob != glob),
            Effect::Purge { db, key, is_prefix, oldest } => {
                // Nobody can ask any more for what is older than that.
                self.purges.retain(|purge| purge.at > oldest);
                self.purges.push(Purge { db, key: key.to_vec(), is_prefix, at: revision });
            }
            _ => {}
        }
    }

    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let put_bytes = |out: &mut Vec<u8>, bytes: &[u8]| {
            leb128::put(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        };
        leb128::put(out, self.rules.len() as u64);
        for Rule { glob, keep, oldest } in &self.rules {
            put_bytes(out, glob);
            keep.encode(out);
            leb128::put(out, oldest.0);
        }
        leb128::put(out, self.purges.len() as u64);
        for Purge { db, key, is_prefix, at } in &self.purges {
            leb128::put(out, u64::from(*db));
            out.push(u8::from(*is_prefix));
            put_bytes(out, key);
            leb128::put(out, at.0);
        }
    }

    /// Reads what [`PastRules::encode`] writes from the beginning of `bytes`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &mut &[u8]) -> Result<PastRules, &'static str> {
        let take_bytes = |bytes: &mut &[u8]| {
            let len = usize::try_from(leb128::take(bytes)?).map_err(|_| "it ends early")?;
            let (taken, rest) = bytes.split_at_checked(len).ok_or("it ends early")?;
            *bytes = rest;
            Ok::<_, &'static str>(taken.to_vec())
        };
        let mut read = PastRules::default();
        for _ in 0..leb128::take(bytes)? {
            let glob = take_bytes(bytes)?;
            let keep = Keep::decode(bytes)?;
            read.rules.push(Rule { glob, keep, oldest: Revision(leb128::take(bytes)?) });
        }
        for _ in 0..leb128::take(bytes)? {
            let db = DbIndex::try_from(leb128::take(bytes)?)
                .map_err(|_| "a database number exceeds 65535")?;
            let (&is_prefix, rest) = bytes.split_first().ok_or("it ends early")?;
            *bytes = rest;
            let key = take_bytes(bytes)?;
            let at = Revision(leb128::take(bytes)?);
            read.purges.push(Purge { db, key, is_prefix: is_prefix != 0, at });
        }
        Ok(read)
    }
}

impl Keyspace {
    /// What is kept of the past of which keys.
    #[must_use]
    pub fn past_rules(&self) -> Arc<PastRules> {
        self.past_rules_cell().read().clone()
    }

    /// Takes rules over, as they stood in storage.
    pub fn set_past_rules(&self, rules: Arc<PastRules>) {
        *self.past_rules_cell().write() = rules;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(glob: &[u8], keep: Keep) -> Effect<'_> {
        Effect::KeepRule { glob, keep, oldest: Revision(300) }
    }

    fn sample() -> PastRules {
        let mut rules = PastRules::default();
        let effects = [
            rule(b"*", Keep::Age(86_400_000)),
            rule(b"cache:*", Keep::Nothing),
            rule(b"doc:*", Keep::Versions(3)),
            rule(b"law:*", Keep::Forever),
            Effect::Purge { db: 3, key: b"user:1", is_prefix: false, oldest: Revision(0) },
            Effect::Purge { db: 0, key: b"user:", is_prefix: true, oldest: Revision(0) },
        ];
        (1..).zip(&effects).for_each(|(at, effect)| rules.apply(Revision(at), effect));
        rules
    }

    #[test]
    fn the_newest_rule_that_matches_is_in_force() {
        let mut rules = sample();
        let keep = |rules: &PastRules, key: &[u8]| rules.rule_of(key).map(|rule| rule.keep);
        assert_eq!(keep(&rules, b"doc:7"), Some(Keep::Versions(3)));
        assert_eq!(keep(&rules, b"k"), Some(Keep::Age(86_400_000)));
        // Made again it is the newest.
        rules.apply(Revision(9), &rule(b"*", Keep::Forever));
        assert_eq!(keep(&rules, b"doc:7"), Some(Keep::Forever));
        assert_eq!(rules.rules().len(), 4);
        rules.apply(Revision(10), &Effect::KeepRuleGone { glob: b"*" });
        assert_eq!(keep(&rules, b"k"), None);
        assert_eq!(keep(&rules, b"doc:7"), Some(Keep::Versions(3)));
    }

    #[test]
    fn a_purge_is_about_its_keys_until_nothing_is_as_old() {
        let mut rules = sample();
        assert_eq!(rules.purged(3, b"user:1"), Some(Revision(5)));
        assert_eq!(rules.purged(3, b"user:12"), None);
        assert_eq!(rules.purged(0, b"user:12"), Some(Revision(6)));
        assert_eq!(rules.purged(1, b"user:1"), None);
        let oldest = Revision(5);
        rules.apply(Revision(7), &Effect::Purge { db: 0, key: b"k", is_prefix: false, oldest });
        assert_eq!(rules.purges().len(), 2);
        assert_eq!(rules.purged(3, b"user:1"), None);
    }

    #[test]
    fn survives_the_round_trip_and_hostile_bytes() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        let mut rest = &bytes[..];
        assert_eq!(PastRules::decode(&mut rest), Ok(sample()));
        assert!(rest.is_empty());
        for end in 0..bytes.len() {
            assert!(PastRules::decode(&mut &bytes[..end]).is_err(), "{end}");
        }
        assert!(PastRules::decode(&mut &[1, 0, 9][..]).is_err());
    }
}
