//! A bounded fuzzer for decoders, in the ordinary toolchain.
//!
//! It mutates the files of a seed corpus, without coverage feedback: a good
//! corpus does what coverage would find. A test in a file `tests/fuzz….rs` calls
//! [`run`]; `cargo test` gives it a moment, and
//! `FUZZ_ROUNDS=1000000 cargo test --test 'fuzz*'` more. An input that panics is written into the corpus, so that it fails every run
//! until it is mended, and guards the mend afterwards.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use base::{Rng, SeededRng};

/// Mutations tried when `FUZZ_ROUNDS` is not set.
const ROUNDS_DEFAULT: u64 = 2_000;

/// Longest input made.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// Numbers at the borders of what length fields can hold.
const BORDER_NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "127",
    "128",
    "255",
    "256",
    "32767",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "1e308",
    "-0",
    "007",
];

const BORDER_BYTES: &[u8] =
    &[0, 1, 0x7f, 0x80, 0xfe, 0xff, b'\r', b'\n', b'"', b'\\', b'-', b'*', b'$'];

/// Hands every file of `corpus`, then mutations of them, to `target`, which
/// panics when it finds a fault.
///
/// `FUZZ_ROUNDS` is the number of mutations (2000 without it) and `FUZZ_SEED`
/// chooses them: the same seed gives the same inputs.
///
/// # Panics
/// When `target` does, after writing the input into `corpus`; when the corpus
/// is empty or cannot be read.
pub fn run(corpus: impl AsRef<Path>, target: impl Fn(&[u8])) {
    let corpus = corpus.as_ref();
    let seeds = read_corpus(corpus);
    assert!(!seeds.is_empty(), "{}: a fuzz target needs seeds", corpus.display());
    let rounds = number_from_env("FUZZ_ROUNDS").unwrap_or(ROUNDS_DEFAULT);
    let mut rng = SeededRng::new(number_from_env("FUZZ_SEED").unwrap_or(1));
    for input in &seeds {
        check(corpus, input, &target);
    }
    for _ in 0..rounds {
        let input = mutated(&seeds, &mut rng);
        check(corpus, &input, &target);
    }
}

fn number_from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a whole number")))
}

fn read_corpus(corpus: &Path) -> Vec<Vec<u8>> {
    let entries =
        fs::read_dir(corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
    let mut paths: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    // The order of a folder's entries is arbitrary; a seed's runs are not.
    paths.sort();
    let read = |path| fs::read(path).expect("a file of the corpus is readable");
    paths.iter().map(read).collect()
}

fn check(corpus: &Path, input: &[u8], target: &impl Fn(&[u8])) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) else { return };
    // FNV-1a: a stable name for the same input.
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = corpus.join(format!("found-{hash:016x}"));
    match fs::write(&path, input) {
        Ok(()) => eprintln!("the input that failed: {}", path.display()),
        Err(error) => eprintln!("{}: {error}; the input: {}", path.display(), input.escape_ascii()),
    }
    resume_unwind(panic);
}

/// A seed with one to eight changes.
fn mutated(seeds: &[Vec<u8>], rng: &mut impl Rng) -> Vec<u8> {
    let mut input = seeds[index(rng, seeds.len())].clone();
    for _ in 0..=rng.below(8) {
        mutate(&mut input, seeds, rng);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut impl Rng) {
    if input.is_empty() {
        input.push(rng.next_u64() as u8);
        return;
    }
    let at = index(rng, input.len());
    match rng.below(9) {
        0 => input[at] ^= 1 << rng.below(8),
        1 => input[at] = rng.next_u64() as u8,
        2 => input[at] = BORDER_BYTES[index(rng, BORDER_BYTES.len())],
        3 => input.insert(at, BORDER_BYTES[index(rng, BORDER_BYTES.len())]),
        4 => {
            let end = (at + 1 + index(rng, 16)).min(input.len());
            input.drain(at..end);
        }
        5 => input.truncate(at),
        6 => {
            let end = (at + 1 + index(rng, 64)).min(input.len());
            let piece = input[at..end].to_vec();
            let to = index(rng, input.len());
            input.splice(to..to, piece);
        }
        7 => {
            let other = &seeds[index(rng, seeds.len())];
            let from = index(rng, other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => replace_number(input, at, rng),
    }
}

/// Puts a border number where the next digits after `at` stand.
fn replace_number(input: &mut Vec<u8>, at: usize, rng: &mut impl Rng) {
    let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|offset| at + offset)
    else {
        return;
    };
    let digits = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = BORDER_NUMBERS[index(rng, BORDER_NUMBERS.len())];
    input.splice(start..start + digits, number.bytes());
}

fn index(rng: &mut impl Rng, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).expect("below a usize")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::temp_dir;

    #[test]
    fn a_seed_repeats_its_inputs() {
        let seeds = vec![b"*1\r\n$4\r\nPING\r\n".to_vec(), Vec::new()];
        let inputs = |seed| {
            let mut rng = SeededRng::new(seed);
            (0..100).map(|_| mutated(&seeds, &mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
    }

    #[test]
    fn a_planted_fault_is_found_and_kept() {
        let corpus = temp_dir();
        fs::write(corpus.path().join("seed"), b"len=12;").expect("writable");
        let tried = RefCell::new(0);
        let target = |input: &[u8]| {
            *tried.borrow_mut() += 1;
            assert!(!input.starts_with(b"len=-1"), "planted");
        };
        let found = catch_unwind(AssertUnwindSafe(|| run(corpus.path(), target)));
        assert!(found.is_err(), "{} inputs did not find it", tried.borrow());
        let kept = read_corpus(corpus.path());
        assert_eq!(kept.len(), 2);
        assert!(kept.iter().any(|input| input.starts_with(b"len=-1")));
    }
}
