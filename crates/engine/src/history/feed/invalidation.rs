//! What CLIENT TRACKING … FROM pushes: `invalidate`, keys and a revision.

use base::{Frame, Revision};

use crate::history::number;

/// Keys that one push names; a client gets them as soon as they are there.
pub(super) const KEYS_MAX: usize = 1000;

/// The push for keys that a transaction changed; `None` is a whole database,
/// beside which the rest is superfluous.
pub(super) fn of_keys<'k>(
    keys: impl IntoIterator<Item = Option<&'k [u8]>>,
    revision: Revision,
) -> Frame {
    let keys: Option<Vec<Frame>> = keys.into_iter().map(|key| key.map(Frame::bulk)).collect();
    match keys {
        None => of_all(revision),
        Some(keys) => push(Frame::Array(keys), revision),
    }
}

/// Every key may be another.
pub(super) fn of_all(revision: Revision) -> Frame {
    push(Frame::Null, revision)
}

/// Nothing up to a revision is missing.
pub(super) fn none(revision: Revision) -> Frame {
    push(Frame::Array(Vec::new()), revision)
}

fn push(keys: Frame, revision: Revision) -> Frame {
    Frame::Push(vec![Frame::bulk("invalidate"), keys, number(revision.0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_database_makes_the_rest_superfluous() {
        let keys: [Option<&[u8]>; 2] = [Some(b"a"), None];
        assert_eq!(of_keys(keys, Revision(7)), of_all(Revision(7)));
    }
}
