//! LZF, the compression of strings in Redis payloads (Marc Lehmann's libLZF).
//!
//! A control byte below 32 is followed by that many literal bytes and one
//! more. Any other refers back: its upper three bits are the length less two
//! (7: the next byte adds to it), its lower five and one more byte the
//! distance less one.

/// Furthest a reference reaches.
const DISTANCE_MAX: usize = 1 << 13;

/// Longest copy: 7 + 255 + 2.
const COPY_MAX: usize = 264;

/// Longest run of literals.
const LITERALS_MAX: usize = 32;

/// Longest string that is compressed or accepted compressed, so that a small
/// payload cannot ask for more. Redis's own limit of a string by default.
pub(super) const STRING_BYTES_MAX: usize = 512 << 20;

const HASH_BITS: u32 = 14;

/// Compresses `input` if that saves more than four bytes, as Redis asks for.
pub(super) fn compress(input: &[u8]) -> Option<Vec<u8>> {
    if input.len() > STRING_BYTES_MAX {
        return None;
    }
    let limit = input.len().checked_sub(5)?;
    let mut out = Vec::with_capacity(input.len() / 2);
    // Position plus one of the last three bytes with that hash.
    let mut last_seen = vec![0u32; 1 << HASH_BITS];
    let mut literals = 0;
    let mut at = 0;
    while let Some(&[a, b, c]) = input.get(at..at + 3).and_then(|bytes| bytes.as_array()) {
        let three = u32::from_le_bytes([a, b, c, 0]);
        let hash = three.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS);
        let seen = std::mem::replace(&mut last_seen[hash as usize], at as u32 + 1) as usize;
        let matches =
            |&from: &usize| at - from <= DISTANCE_MAX && input[from..from + 3] == input[at..at + 3];
        let Some(from) = seen.checked_sub(1).filter(matches) else {
            at += 1;
            continue;
        };
        put_literals(&mut out, &input[literals..at]);
        let ahead = input[at..].iter().zip(&input[from..]).take(COPY_MAX);
        let len = ahead.take_while(|(new, old)| new == old).count();
        let distance = at - from - 1;
        let high = (distance >> 8) as u8;
        match u8::try_from(len - 2) {
            Ok(short @ ..7) => out.push(short << 5 | high),
            _ => out.extend([7 << 5 | high, (len - 2 - 7) as u8]),
        }
        out.push(distance as u8);
        at += len;
        literals = at;
        if out.len() > limit {
            return None;
        }
    }
    put_literals(&mut out, &input[literals..]);
    (out.len() <= limit).then_some(out)
}

fn put_literals(out: &mut Vec<u8>, literals: &[u8]) {
    for run in literals.chunks(LITERALS_MAX) {
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
}

/// Decompresses to exactly `len` bytes, or not at all.
pub(super) fn decompress(input: &[u8], len: usize) -> Option<Vec<u8>> {
    // Three bytes make 264 at most: what claims more is refused before any
    // memory is taken for it.
    if len > STRING_BYTES_MAX || len > input.len().saturating_mul(COPY_MAX / 3) {
        return None;
    }
    let mut out = Vec::with_capacity(len);
    let mut rest = input;
    while let Some((&control, after)) = rest.split_first() {
        rest = after;
        if usize::from(control) < LITERALS_MAX {
            let (run, after) = rest.split_at_checked(usize::from(control) + 1)?;
            out.extend_from_slice(run);
            rest = after;
        } else {
            let mut count = usize::from(control >> 5) + 2;
            if count == 7 + 2 {
                let (&more, after) = rest.split_first()?;
                count += usize::from(more);
                rest = after;
            }
            let (&low, after) = rest.split_first()?;
            rest = after;
            let distance = (usize::from(control & 31) << 8 | usize::from(low)) + 1;
            let from = out.len().checked_sub(distance)?;
            if count > len - out.len() {
                return None;
            }
            // What is copied may be what was just written.
            for at in from..from + count {
                out.push(out[at]);
            }
        }
        if out.len() > len {
            return None;
        }
    }
    (out.len() == len).then_some(out)
}

#[cfg(test)]
mod tests {
    use base::{Rng, SeededRng};

    use super::*;

    #[test]
    fn compressible_bytes_survive() {
        let mut rng = SeededRng::new(1);
        for round in 0..300u64 {
            // Runs of few different bytes, at many lengths.
            let mut input = Vec::new();
            while (input.len() as u64) < round * round / 4 {
                let byte = rng.below(3) as u8;
                let run = rng.below(1 + round * 3) as usize;
                input.resize(input.len() + run, byte);
                input.push(rng.below(256) as u8);
            }
            if let Some(compressed) = compress(&input) {
                assert!(compressed.len() + 4 < input.len());
                assert_eq!(decompress(&compressed, input.len()), Some(input.clone()));
                assert_eq!(decompress(&compressed, input.len() + 1), None);
                assert_eq!(decompress(&compressed, input.len() - 1), None);
            }
        }
        let zeros = vec![0; 100_000];
        let compressed = compress(&zeros).expect("compressible");
        assert!(compressed.len() < 1200);
        assert_eq!(decompress(&compressed, zeros.len()), Some(zeros));
    }

    #[test]
    fn distant_repeats_are_found_up_to_the_limit() {
        for (gap, shrinks) in [(DISTANCE_MAX - 300, true), (DISTANCE_MAX + 300, false)] {
            let mut rng = SeededRng::new(2);
            let mut noise = |len| (0..len).map(|_| rng.next_u64() as u8).collect::<Vec<u8>>();
            let (repeated, between) = (noise(300), noise(gap - 300));
            let input = [&repeated[..], &between, &repeated].concat();
            let compressed = compress(&input);
            // Literals cost one byte in 32, so only a found repeat can save.
            assert_eq!(compressed.is_some(), shrinks && gap < 9000, "gap {gap}");
            if let Some(compressed) = compressed {
                assert_eq!(decompress(&compressed, input.len()), Some(input));
            }
        }
    }

    #[test]
    fn malformed_input_is_refused() {
        for (input, len) in [
            (&[][..], 1),
            (&[31, 1, 2], 32),
            (&[0x20], 3),
            (&[0xe0, 1], 10),
            (&[0x20, 0], 3),
            (&[0, b'a', 0x20, 1], 4),
            (&[0, b'a', 0x20, 0], 3),
            (&[0, b'a'], 2),
            (&[0, b'a'], usize::MAX),
        ] {
            assert_eq!(decompress(input, len), None, "{input:?} {len}");
        }
        assert_eq!(decompress(&[0, b'a', 0x20, 0], 4), Some(b"aaaa".to_vec()));
        assert_eq!(decompress(&[], 0), Some(Vec::new()));
    }
}
