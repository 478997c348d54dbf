//! Counts replies without building them.
//!
//! A load generator that decoded every reply into an owned tree would measure
//! itself. This one looks at type bytes and lengths only.

use anyhow::{Result, bail, ensure};
use memchr::memchr;

/// Longest line that is kept while its end has not arrived.
const LINE_BYTES_MAX: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skimmed {
    Reply,
    ErrorReply,
    /// Out of band; belongs to no request.
    Push,
}

#[derive(Debug, Default)]
pub(crate) struct Skimmer {
    /// Elements that the current reply still misses; zero between replies.
    missing: u64,
    /// Bytes of a bulk string that have not come.
    bulk: u64,
    /// What has begun.
    top: Option<Top>,
}

#[derive(Clone, Copy, Debug)]
enum Top {
    Item(Skimmed),
    /// Stands in front of a reply and is none.
    Attribute,
}

impl Skimmer {
    /// Goes on with `bytes`: how many are dealt with, and what ended with
    /// them. When nothing ended, the rest must come again with more behind it.
    pub(crate) fn skim(&mut self, bytes: &[u8]) -> Result<(usize, Option<Skimmed>)> {
        let mut at = 0;
        loop {
            if self.bulk > 0 {
                let here = self.bulk.min((bytes.len() - at) as u64);
                self.bulk -= here;
                at += here as usize;
                if self.bulk > 0 {
                    return Ok((at, None));
                }
            }
            if self.missing == 0
                && let Some(Top::Item(kind)) = self.top.take()
            {
                return Ok((at, Some(kind)));
            }
            let Some(end) = memchr(b'\n', &bytes[at..]) else {
                ensure!(bytes.len() - at <= LINE_BYTES_MAX, "the server sends an endless line");
                return Ok((at, None));
            };
            self.line(&bytes[at..at + end])?;
            at += end + 1;
        }
    }

    /// Takes one line, without its LF.
    fn line(&mut self, line: &[u8]) -> Result<()> {
        let [kind, text @ .., b'\r'] = line else {
            bail!("the server does not answer in RESP: \"{}\"", line.escape_ascii());
        };
        if self.top.is_none() {
            self.missing = u64::from(*kind != b'|');
            self.top = Some(match kind {
                b'|' => Top::Attribute,
                b'-' | b'!' => Top::Item(Skimmed::ErrorReply),
                b'>' => Top::Item(Skimmed::Push),
                _ => Top::Item(Skimmed::Reply),
            });
        }
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => self.missing -= 1,
            b'$' | b'!' | b'=' => {
                self.missing -= 1;
                self.bulk = length(text)?.map_or(0, |len| len + 2);
            }
            b'*' | b'~' | b'>' => {
                self.missing = self.missing - 1 + length(text)?.unwrap_or(0);
            }
            b'%' => self.missing = self.missing - 1 + length(text)?.unwrap_or(0) * 2,
            // An attribute inside a reply is no element of it.
            b'|' => self.missing += length(text)?.unwrap_or(0) * 2,
            _ => bail!("the server does not answer in RESP: \"{}\"", line.escape_ascii()),
        }
        Ok(())
    }
}

/// A length; `None` for a null.
fn length(text: &[u8]) -> Result<Option<u64>> {
    if text == b"-1" {
        return Ok(None);
    }
    // The limit keeps the sums far from overflow.
    match base::number::parse_i64(text).map(u64::try_from) {
        Some(Ok(len)) if len <= 1 << 32 => Ok(Some(len)),
        _ => bail!("the server sends an invalid length: \"{}\"", text.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Frame;
    use proptest::prelude::*;
    use resp::{ReplyDecoder, ReplyLimits};

    fn skim_in_steps(input: &[u8], step: usize) -> Vec<Skimmed> {
        let (mut skimmer, mut buffer, mut found) = (Skimmer::default(), Vec::new(), Vec::new());
        for piece in input.chunks(step) {
            buffer.extend_from_slice(piece);
            loop {
                let (consumed, end) = skimmer.skim(&buffer).expect("valid");
                buffer.drain(..consumed);
                match end {
                    Some(kind) => found.push(kind),
                    None => break,
                }
            }
        }
        assert!(buffer.is_empty());
        found
    }

    #[test]
    fn replies_errors_and_pushes() {
        use Skimmed::{ErrorReply, Push, Reply};
        let input = b"+OK\r\n-ERR\r\n$3\r\na\nb\r\n$-1\r\n*-1\r\n*0\r\n*2\r\n*1\r\n:1\r\n$0\r\n\r\n\
            >2\r\n+x\r\n_\r\n!3\r\nERR\r\n%1\r\n+k\r\n~1\r\n#t\r\n|1\r\n+a\r\n:1\r\n*1\r\n|1\r\n+b\r\n\
            %0\r\n,1.5\r\n(12\r\n=5\r\ntxt:a\r\n";
        let expected = [
            Reply, ErrorReply, Reply, Reply, Reply, Reply, Reply, Push, ErrorReply, Reply, Reply,
            Reply, Reply,
        ];
        for step in 1..=input.len() {
            assert_eq!(skim_in_steps(input, step), expected, "in steps of {step}");
        }
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        for input in [
            &b"HTTP/1.1 400\r\n"[..],
            b"\r\n",
            b"+OK\n",
            b"$x\r\n",
            b"*-2\r\n",
            b"$99999999999\r\n",
        ] {
            assert!(Skimmer::default().skim(input).is_err(), "{}", input.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_agrees_with_the_decoder(
            input in prop::collection::vec(
                prop_oneof![
                    Just(b"*1\r\n".to_vec()), Just(b"%1\r\n".to_vec()), Just(b"|1\r\n".to_vec()),
                    Just(b":7\r\n".to_vec()), Just(b"$2\r\nab\r\n".to_vec()), Just(b"_\r\n".to_vec()),
                    Just(b">2\r\n".to_vec()), Just(b"-E\r\n".to_vec()), Just(b"$1\r\n".to_vec()),
                ],
                0..20,
            ),
        ) {
            let input = input.concat();
            let mut decoder = ReplyDecoder::new(ReplyLimits::default());
            let (mut at, mut decoded, mut valid) = (0, 0, true);
            loop {
                match decoder.decode(&input[at..]) {
                    Ok(progress) => {
                        at += progress.consumed;
                        match progress.frame {
                            Some(Frame::Attribute(_)) => {}
                            Some(_) => decoded += 1,
                            None => break,
                        }
                    }
                    Err(_) => {
                        valid = false;
                        break;
                    }
                }
            }
            let (mut skimmer, mut at, mut skimmed) = (Skimmer::default(), 0, 0);
            while let Ok((consumed, Some(_))) = skimmer.skim(&input[at..]) {
                at += consumed;
                skimmed += 1;
            }
            if valid {
                prop_assert_eq!(skimmed, decoded);
            }
        }
    }
}
