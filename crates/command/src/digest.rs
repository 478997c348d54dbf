//! Fingerprints of values, for tests that compare states: DEBUG DIGEST. Equal
//! values have equal fingerprints whatever order their members are kept in.

use std::fmt;

use keyspace::ValueRef;

/// Not for adversaries: it tells states apart that differ by accident.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest {
    lanes: [u64; 3],
}

impl Digest {
    /// Takes in bytes; their order matters.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for (lane, number) in self.lanes.iter_mut().zip(1u64..) {
            // FNV-1a, a lane each with an offset of its own.
            let mut hash = *lane ^ 0xcbf2_9ce4_8422_2325u64.wrapping_mul(number);
            for &byte in bytes {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
            *lane = scramble(hash ^ bytes.len() as u64);
        }
    }

    /// Takes in another fingerprint; the order does not matter.
    pub(crate) fn unite(&mut self, other: &Digest) {
        for (lane, theirs) in self.lanes.iter_mut().zip(other.lanes) {
            *lane = lane.wrapping_add(scramble(theirs));
        }
    }

    pub(crate) fn add_value(&mut self, value: ValueRef<'_>) {
        let mut unordered = Digest::default();
        let mut member = |parts: &[&[u8]]| {
            let mut one = Digest::default();
            parts.iter().for_each(|part| one.add(part));
            unordered.unite(&one);
        };
        match value {
            ValueRef::Str(bytes) => self.add(bytes),
            ValueRef::List(list) => list.iter().for_each(|element| self.add(element)),
            ValueRef::Set(set) => set.iter().for_each(|name| member(&[&name])),
            ValueRef::Hash(hash) => hash.iter().for_each(|(field, value)| member(&[field, value])),
            ValueRef::Zset(zset) => zset
                .iter()
                .for_each(|(name, score)| member(&[name, &score.to_bits().to_be_bytes()])),
        }
        self.unite(&unordered);
    }
}

/// The finalizer of splitmix64.
fn scramble(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Forty digits, as Redis's SHA-1 has.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.lanes;
        write!(f, "{a:016x}{b:016x}{:08x}", c >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_matters_only_where_it_should() {
        let of = |parts: &[&[u8]]| {
            let mut digest = Digest::default();
            parts.iter().for_each(|part| digest.add(part));
            digest
        };
        assert_ne!(of(&[b"a", b"b"]), of(&[b"b", b"a"]));
        assert_ne!(of(&[b"ab"]), of(&[b"a", b"b"]));
        let (mut ab, mut ba) = (of(&[b"a"]), of(&[b"b"]));
        ab.unite(&of(&[b"b"]));
        ba.unite(&of(&[b"a"]));
        assert_eq!(of(&[]).to_string(), "0".repeat(40));
        assert_eq!(ab.to_string().len(), 40);
        let (mut left, mut right) = (Digest::default(), Digest::default());
        for part in [b"a", b"b", b"c"] {
            left.unite(&of(&[part]));
        }
        for part in [b"c", b"a", b"b"] {
            right.unite(&of(&[part]));
        }
        assert_eq!(left, right);
    }
}
