//! What CLIENT TRACKING … FROM pushes: `invalidate`, keys and a revision.

use base::{Frame, Revision};

use crate::history::number;

/// Keys that one push names; a client gets them as soon as they are there.
const KEYS_MAX: usize = 1000;

/// The pushes for keys that a transaction changed; `None` is a whole database.
pub(super) fn of_keys<'k>(
    keys: impl IntoIterator<Item = Option<&'k [u8]>>,
    revision: Revision,
) -> Vec<Frame> {
    let keys: Option<Vec<Frame>> = keys.into_iter().map(|key| key.map(Frame::bulk)).collect();
    match keys {
        None => vec![of_all(revision)],
        Some(keys) => {
            keys.chunks(KEYS_MAX).map(|keys| push(Frame::Array(keys.to_vec()), revision)).collect()
        }
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
    fn many_keys_are_told_in_parts() {
        let names: Vec<Vec<u8>> = (0..2500).map(|n: u32| n.to_be_bytes().to_vec()).collect();
        let keys = |frame: &Frame| match frame {
            Frame::Push(items) => match &items[1] {
                Frame::Array(keys) => keys.len(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let frames = of_keys(names.iter().map(|name| Some(&name[..])), Revision(7));
        assert_eq!(frames.iter().map(keys).collect::<Vec<_>>(), [1000, 1000, 500]);
    }

    #[test]
    fn a_whole_database_makes_the_rest_superfluous() {
        let keys: [Option<&[u8]>; 2] = [Some(b"a"), None];
        assert_eq!(of_keys(keys, Revision(7)), [of_all(Revision(7))]);
    }
}
