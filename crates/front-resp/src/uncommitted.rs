//! Replies that must not leave before a commit, and what leaves instead when the
//! log cannot commit: each such reply is replaced by an error, the others stay,
//! and with them the order that a pipeline relies on.

use std::ops::Range;

use base::{Reply, Revision};
use resp::Encoder;

/// Replies in the buffer that tell of changes that are not committed, oldest
/// first.
#[derive(Debug, Default)]
pub(crate) struct Uncommitted {
    replies: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    /// Where it stands in the buffer.
    bytes: Range<usize>,
    /// What it depends on.
    revision: Revision,
    /// Its command has made a change itself.
    is_write: bool,
}

impl Uncommitted {
    /// A reply that takes these bytes of the buffer depends on `revision`.
    pub(crate) fn note(&mut self, bytes: Range<usize>, revision: Revision, is_write: bool) {
        if !bytes.is_empty() {
            self.replies.push(Pending { bytes, revision, is_write });
        }
    }

    /// To be called when the replies in the buffer may leave.
    pub(crate) fn clear(&mut self) {
        self.replies.clear();
    }

    /// Puts an error in the place of every reply that is still not committed
    /// because of a fault.
    pub(crate) fn refuse(
        &mut self,
        encoder: &mut Encoder,
        is_committed: impl Fn(Revision) -> bool,
        fault: &str,
    ) {
        let out = std::mem::take(&mut encoder.out);
        let mut kept = 0;
        let refused = self.replies.drain(..).filter(|it| !is_committed(it.revision));
        for Pending { bytes, is_write, .. } in refused {
            encoder.out.extend_from_slice(&out[kept..bytes.start]);
            encoder.error(&match is_write {
                true => format!("UNKNOWNRESULT The change may or may not be kept: {fault}"),
                false => {
                    format!("MISCONF The reply tells of a change that is not on disk: {fault}")
                }
            });
            kept = bytes.end;
        }
        encoder.out.extend_from_slice(&out[kept..]);
    }
}

#[cfg(test)]
mod tests {
    use resp::Protocol;

    use super::*;

    #[test]
    fn errors_stand_where_the_replies_stood() {
        let mut encoder = Encoder::new(Protocol::Resp2);
        let mut uncommitted = Uncommitted::default();
        let replies = [("PONG", 0, false), ("OK", 5, true), ("seen", 4, false), ("OK", 6, true)];
        for (text, revision, is_write) in replies {
            let start = encoder.out.len();
            encoder.simple(text);
            uncommitted.note(start..encoder.out.len(), Revision(revision), is_write);
        }
        // One that the client does not want.
        uncommitted.note(7..7, Revision(6), true);
        encoder.simple("push");
        uncommitted.refuse(&mut encoder, |revision| revision < Revision(5), "full");
        let unknown = "-UNKNOWNRESULT The change may or may not be kept: full\r\n";
        let expected = format!("+PONG\r\n{unknown}+seen\r\n{unknown}+push\r\n");
        assert_eq!(String::from_utf8_lossy(&encoder.out), expected);
        uncommitted.note(0..7, Revision(5), false);
        uncommitted.refuse(&mut encoder, |_| false, "full");
        let refused = String::from_utf8_lossy(&encoder.out);
        assert!(refused.starts_with("-MISCONF The reply tells of a change"), "{refused}");
        assert!(refused.ends_with(&expected[7..]), "{refused}");
    }
}
