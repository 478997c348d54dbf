//! Deletions of keys that can be taken back.

use super::{Cause, Effect};

/// Follows the effects of a record, in order, for the deletions of keys that a
/// mark before them says can be taken back ([`Effect::Undoable`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct Marked {
    /// So many of the next ones.
    to_come: u64,
}

impl Marked {
    /// Sees the next effect; answers whether it is such a deletion.
    pub fn see(&mut self, effect: &Effect<'_>) -> bool {
        match effect {
            Effect::Undoable { keys, .. } => self.to_come = *keys,
            // The mark spoke of that.
            Effect::Leaves { .. } | Effect::Flush { .. } => self.to_come = 0,
            Effect::Delete(Cause::Client) if self.to_come > 0 => {
                self.to_come -= 1;
                return true;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use base::SpaceId;

    use super::*;

    #[test]
    fn a_mark_speaks_of_what_comes_after_it() {
        let key = |key| Effect::Key { key, existed: Some(true) };
        let mark = |keys| Effect::Undoable { keys, bytes: 9, until_ms: 9 };
        let gone = Effect::Delete(Cause::Client);
        let flush = Effect::Flush { db: 0 };
        let marked = |effects: &[Effect<'_>]| -> Vec<usize> {
            let mut marked = Marked::default();
            (0..effects.len()).filter(|&at| marked.see(&effects[at])).collect()
        };
        assert_eq!(marked(&[key(b"a"), gone]), []);
        assert_eq!(marked(&[mark(2), key(b"a"), gone, key(b"b"), gone, key(b"c"), gone]), [2, 4]);
        // Others had been due.
        let expired = Effect::Delete(Cause::Expired);
        assert_eq!(marked(&[mark(1), key(b"a"), expired, key(b"b"), gone]), [4]);
        let space = SpaceId::first_of(0);
        let leaves = Effect::Leaves { space, keys: b"" };
        for flushed in [&[mark(2), flush][..], &[mark(2), leaves, flush]] {
            assert_eq!(marked(&[flushed, &[key(b"a"), gone]].concat()), []);
            let at = flushed.len() + 2;
            assert_eq!(marked(&[flushed, &[mark(1), key(b"a"), gone, gone]].concat()), [at]);
        }
    }
}
