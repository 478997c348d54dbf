//! Mutates the seed corpus and feeds both decoders, in the ordinary toolchain.
//!
//! `FUZZ_ROUNDS` sets how many mutants are tried (default 20,000)
//! and `FUZZ_SEED` where the random sequence starts. A failure prints
//! the input; add it to `corpus/` so that every later run starts from it.

use base::{Frame, Reply, Rng, SeededRng};
use resp::{Decoder, Encoder, Limits, Protocol, ReplyDecoder, ReplyLimits, encode_command};

fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("corpus folder")
        .map(|entry| entry.expect("corpus entry").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 10, "the corpus is in the repository");
    paths.iter().map(|path| std::fs::read(path).expect("corpus file")).collect()
}

const TOKENS: [&[u8]; 22] = [
    b"\r\n",
    b"*",
    b"$",
    b"-1",
    b"0",
    b"1",
    b"+",
    b"?",
    b"\0",
    b"\"",
    b"'",
    b"\\x",
    b"%1\r\n",
    b"|1\r\n",
    b">2\r\n",
    b"=4\r\ntxt:\r\n",
    b"2147483647",
    b"9223372036854775808",
    b"536870912",
    b"*1\r\n$4\r\nPING\r\n",
    b"_\r\n",
    b"\r",
];

fn mutate(rng: &mut SeededRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut pick = |bound: usize| rng.below(bound.max(1) as u64) as usize;
    let mut bytes = corpus[pick(corpus.len())].clone();
    for _ in 0..=pick(5) {
        let at = pick(bytes.len() + 1);
        match pick(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << pick(8),
            1 => bytes.truncate(at),
            2 => {
                let end = (at + pick(8)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let token = TOKENS[pick(TOKENS.len())];
                bytes.splice(at..at, token.iter().copied());
            }
            4 => {
                let other = &corpus[pick(corpus.len())];
                let from = pick(other.len() + 1);
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => bytes.insert(at, pick(256) as u8),
        }
    }
    bytes
}

/// What the requests of `input` are, read in pieces of `step`, as text.
fn requests(input: &[u8], step: usize) -> String {
    let limits = Limits { inline_bytes_max: 4096, bulk_len_max: 1 << 20, ..Limits::default() };
    let mut decoder = Decoder::new(limits);
    let (mut buffer, mut log) = (Vec::new(), String::new());
    for piece in input.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            let consumed = match decoder.decode(&buffer) {
                Ok(None) => break,
                Err(error) => return format!("{log}{error}"),
                Ok(Some(request)) => {
                    let args = request.args();
                    log += &format!("{args:?}\n");
                    check_round_trip(&args);
                    request.consumed
                }
            };
            buffer.drain(..consumed);
        }
    }
    log
}

/// What was understood must mean the same once it is encoded again.
fn check_round_trip(args: &[&[u8]]) {
    if args.is_empty() {
        return;
    }
    let mut bytes = Vec::new();
    encode_command(&mut bytes, args);
    let mut decoder = Decoder::new(Limits::default());
    let again = decoder.decode(&bytes).expect("valid").expect("complete");
    assert_eq!(again.args()[..], *args);
    assert_eq!(again.consumed, bytes.len());
}

fn replies(input: &[u8], step: usize) -> String {
    let mut decoder = ReplyDecoder::new(ReplyLimits::default());
    let (mut buffer, mut log) = (Vec::new(), String::new());
    for piece in input.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&buffer) {
                Err(error) => return format!("{log}{error}"),
                Ok(progress) => {
                    buffer.drain(..progress.consumed);
                    let Some(frame) = progress.frame else { break };
                    log += &format!("{frame:?}\n");
                    encode_both(&frame);
                }
            }
        }
    }
    log
}

/// Encoding a frame that came from the wire never panics.
fn encode_both(frame: &Frame) {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        Encoder::new(protocol).frame(frame);
    }
}

#[test]
fn mutated_bytes_never_panic_and_decode_the_same_however_split() {
    let iterations = from_env("FUZZ_ROUNDS", 20_000);
    let mut rng = SeededRng::new(from_env("FUZZ_SEED", 1));
    let corpus = corpus();
    for round in 0..iterations {
        let input = if (round as usize) < corpus.len() {
            corpus[round as usize].clone()
        } else {
            mutate(&mut rng, &corpus)
        };
        let step = 1 + rng.below(7) as usize;
        let whole = input.len().max(1);
        let shown = input.escape_ascii();
        assert_eq!(requests(&input, step), requests(&input, whole), "steps of {step}: {shown}");
        assert_eq!(replies(&input, step), replies(&input, whole), "steps of {step}: {shown}");
    }
}
