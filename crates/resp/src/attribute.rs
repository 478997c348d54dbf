//! Attributes in front of replies.

use base::Reply;

use crate::encode::{Encoder, Protocol};

/// The attribute of one number that was encoded last. Mostly the next one is the
/// same, or counts one more: a client that is shown revisions has one in front of
/// every reply.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latest {
    name: &'static str,
    value: i64,
    /// Encoded; empty where there was none.
    bytes: Vec<u8>,
}

impl Latest {
    /// The attribute of this number, encoded.
    pub(crate) fn of(&mut self, name: &'static str, value: i64) -> &[u8] {
        // Where one name stands in two places, it is encoded again.
        let is_alike = !self.bytes.is_empty() && std::ptr::eq(self.name, name);
        let is_it = is_alike && (value == self.value || self.counts_up_to(value));
        if !is_it {
            let mut encoder = Encoder::new(Protocol::Resp3);
            encoder.attribute(1);
            encoder.bulk(name.as_bytes());
            encoder.integer(value);
            (self.name, self.bytes) = (name, encoder.out);
        }
        self.value = value;
        &self.bytes
    }

    /// Makes the number one more if that is `value` and takes as many digits;
    /// otherwise the bytes mean nothing any more.
    fn counts_up_to(&mut self, value: i64) -> bool {
        if self.value < 0 || self.value.checked_add(1) != Some(value) {
            return false;
        }
        let line_end = self.bytes.len() - 2;
        for digit in self.bytes[..line_end].iter_mut().rev() {
            match digit {
                b'9' => *digit = b'0',
                b'0'..=b'8' => {
                    *digit += 1;
                    return true;
                }
                _ => return false,
            }
        }
        false
    }
}
