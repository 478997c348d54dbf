//! What one side of a merge has changed by counting only.

use std::collections::BTreeMap;

use crate::effect::Effect;

/// The counters of one key: what a side's effects since the base have changed
/// by additions and in no other way. Without effects to look at, nothing counts
/// as counted.
///
/// ```
/// use keyspace::effect::Effect;
/// use keyspace::merge::Counted;
///
/// let mut counted = Counted::default();
/// counted.note(&Effect::HashAdd { field: b"visits", delta: 2 });
/// counted.note(&Effect::HashAdd { field: b"score", delta: 1 });
/// counted.note(&Effect::HashSet { field: b"score", value: b"0" });
/// assert!(counted.field(b"visits") && !counted.field(b"score"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// The key was made, removed or overwritten by other means.
    rewritten: bool,
    /// There were additions to a string.
    string: bool,
    /// Whether additions were all that happened to the field.
    fields: BTreeMap<Box<[u8]>, bool>,
    /// The other side may have a part of them, too.
    is_shared: bool,
}

static NOTHING: Counted =
    Counted { rewritten: false, string: false, fields: BTreeMap::new(), is_shared: false };

/// What one side has only counted of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// Nothing, or there was more to it.
    None,
    /// All of the change, by itself.
    Own,
    /// All of the change, of which the other side may have a part.
    Shared,
}

impl Counted {
    /// Nothing was counted, or nobody knows.
    #[must_use]
    pub fn nothing() -> &'static Counted {
        &NOTHING
    }

    /// Notes an effect on the key: of each since the base, in order. A value
    /// that comes from another key has no effect here; see [`Counted::rewrite`].
    pub fn note(&mut self, effect: &Effect<'_>) {
        match *effect {
            Effect::StrAdd { .. } => self.string = true,
            Effect::HashAdd { field, .. } => {
                if !self.fields.contains_key(field) {
                    self.fields.insert(field.into(), true);
                }
            }
            Effect::HashSet { field, .. } | Effect::HashDelete { field } => {
                self.fields.insert(field.into(), false);
            }
            Effect::Flush { .. } | Effect::Swap { .. } | Effect::Return { .. } | Effect::Erased => {
                self.rewrite()
            }
            effect if !effect.is_on_key() => {}
            // Nothing counts in these types, and a deadline is no value.
            Effect::Deadline(_)
            | Effect::ListPushFront { .. }
            | Effect::ListPushBack { .. }
            | Effect::ListPopFront { .. }
            | Effect::ListPopBack { .. }
            | Effect::ListSet { .. }
            | Effect::ListInsert { .. }
            | Effect::ListRemove { .. }
            | Effect::SetAdd { .. }
            | Effect::SetRemove { .. }
            | Effect::ZsetSet { .. }
            | Effect::ZsetRemove { .. } => {}
            // Anything else replaces the value.
            _ => self.rewrite(),
        }
    }

    /// Notes that the key was replaced or removed: another key was renamed to
    /// it, its database was emptied or exchanged. Nothing of it is a mere count
    /// from then on.
    pub fn rewrite(&mut self) {
        *self = Counted { rewritten: true, ..Counted::default() };
    }

    /// Notes an effect of a merge on the key. What that has taken from another
    /// branch is no change of this one, and counts there. Where this one had
    /// counted, the merge adds, or somebody has decided against a count.
    pub fn note_merged(&mut self, effect: &Effect<'_>) {
        let is_decided = match *effect {
            Effect::StrAdd { .. } | Effect::HashAdd { .. } => false,
            Effect::HashSet { field, .. } | Effect::HashDelete { field } => {
                self.fields.contains_key(field)
            }
            _ => self.string || !self.fields.is_empty(),
        };
        if is_decided {
            self.note(effect);
        }
    }

    /// As [`Counted::note_merged`], where nobody knows whether what was taken is
    /// counted where it comes from: then it is here.
    pub fn note_taken(&mut self, effect: &Effect<'_>) {
        match effect {
            Effect::StrAdd { .. } | Effect::HashAdd { .. } => self.note(effect),
            _ => self.note_merged(effect),
        }
    }

    /// Adds what another branch did to the key, which this one contains too.
    pub fn join(&mut self, other: &Counted) {
        self.rewritten |= other.rewritten;
        self.string |= other.string;
        for (field, counts) in &other.fields {
            let all = self.fields.entry(field.clone()).or_insert(true);
            *all &= counts;
        }
    }

    /// What counts in one of the two, or in both.
    #[must_use]
    pub fn or(&self, other: &Counted) -> Counted {
        let sides = [self, other];
        let fields = sides.into_iter().filter(|side| !side.rewritten).flat_map(|side| {
            side.fields
                .iter()
                .filter(|(_, counts)| **counts)
                .map(|(field, _)| (field.clone(), true))
        });
        Counted {
            rewritten: false,
            string: sides.iter().any(|side| side.string()),
            fields: fields.collect(),
            is_shared: false,
        }
    }

    /// The same, of which the other side may have a part that the base lacks.
    #[must_use]
    pub fn shared(self) -> Counted {
        Counted { is_shared: true, ..self }
    }

    fn count(&self, is_counted: bool) -> Count {
        match is_counted {
            false => Count::None,
            true if self.is_shared => Count::Shared,
            true => Count::Own,
        }
    }

    /// What is counted of a string.
    pub(super) fn of_string(&self) -> Count {
        self.count(self.string())
    }

    /// What is counted of a hash's field.
    pub(super) fn of_field(&self, field: &[u8]) -> Count {
        self.count(self.field(field))
    }

    /// Whether the key is a string that was only added to.
    #[must_use]
    pub fn string(&self) -> bool {
        self.string && !self.rewritten
    }

    /// Whether the hash's field was only added to.
    #[must_use]
    pub fn field(&self, field: &[u8]) -> bool {
        !self.rewritten && self.fields.get(field) == Some(&true)
    }

    /// Whether any field was only added to.
    #[must_use]
    pub fn has_fields(&self) -> bool {
        !self.rewritten && self.fields.values().any(|&counts| counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::Cause;

    #[test]
    fn whatever_rewrites_the_key_ends_the_count() {
        for effect in [
            Effect::StrSet { value: b"1", deadline: None },
            Effect::StrWrite { offset: 0, bytes: b"1" },
            Effect::Put { body: b"", deadline: None },
            Effect::Delete(Cause::Expired),
            Effect::Emptied,
            Effect::Rename { db: 0, key: b"to", replaces: Some(false) },
            Effect::Flush { db: 0 },
            Effect::Swap { a: 0, b: 1 },
        ] {
            let mut counted = Counted::default();
            let counts = [Effect::StrAdd { delta: 1 }, Effect::HashAdd { field: b"f", delta: 1 }];
            counts.iter().for_each(|count| counted.note(count));
            counted.note(&Effect::Deadline(Some(1)));
            assert!(counted.string() && counted.field(b"f") && counted.has_fields());
            counted.note(&effect);
            counts.iter().for_each(|count| counted.note(count));
            assert!(!counted.string() && !counted.field(b"f") && !counted.has_fields());
        }
    }

    #[test]
    fn what_a_merge_took_counts_where_nobody_knows_where_it_comes_from() {
        let (mut merged, mut taken) = (Counted::default(), Counted::default());
        for effect in [
            Effect::StrAdd { delta: 1 },
            Effect::HashAdd { field: b"a", delta: 1 },
            Effect::HashSet { field: b"b", value: b"1" },
        ] {
            merged.note_merged(&effect);
            taken.note_taken(&effect);
        }
        assert_eq!([&merged, &taken].map(Counted::of_string), [Count::None, Count::Own]);
        assert!(taken.field(b"a") && !taken.field(b"b"));
        assert_eq!(taken.shared().of_field(b"a"), Count::Shared);
    }

    #[test]
    fn a_field_that_was_set_or_removed_is_no_count() {
        let mut counted = Counted::default();
        for effect in [
            Effect::HashDelete { field: b"a" },
            Effect::HashAdd { field: b"a", delta: 1 },
            Effect::HashAdd { field: b"b", delta: 1 },
            Effect::HashSet { field: b"b", value: b"7" },
        ] {
            counted.note(&effect);
        }
        assert!(!counted.field(b"a") && !counted.field(b"b") && !counted.field(b"c"));
        assert!(!counted.has_fields());
        let mut other = Counted::default();
        other.note(&Effect::HashAdd { field: b"a", delta: 1 });
        for both in [counted.or(&other), other.or(&counted)] {
            assert!(both.field(b"a") && !both.field(b"b") && !both.string());
        }
        other.rewrite();
        assert!(!counted.or(&other).has_fields());
    }
}
