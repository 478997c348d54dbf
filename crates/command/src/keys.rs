//! Which arguments are keys.

use smallvec::SmallVec;

use crate::args::is_word;
use crate::flags::Flags;

/// Flags of a key specification, as `COMMAND INFO` shows them.
pub mod key_flags {
    use super::Flags;

    /// Read only.
    pub const RO: Flags = Flags(1);
    /// Read and written.
    pub const RW: Flags = Flags(1 << 1);
    /// Overwritten without being read.
    pub const OW: Flags = Flags(1 << 2);
    /// Removed.
    pub const RM: Flags = Flags(1 << 3);
    /// The value is returned, copied or used in another way.
    pub const ACCESS: Flags = Flags(1 << 4);
    /// The value is changed.
    pub const UPDATE: Flags = Flags(1 << 5);
    /// Data is added, none changed or removed.
    pub const INSERT: Flags = Flags(1 << 6);
    /// Data is removed.
    pub const DELETE: Flags = Flags(1 << 7);
    /// Not a key, but routed as one (shard channels).
    pub const NOT_KEY: Flags = Flags(1 << 8);
    /// There may be further keys that this does not find.
    pub const INCOMPLETE: Flags = Flags(1 << 9);
    /// The flags depend on arguments.
    pub const VARIABLE_FLAGS: Flags = Flags(1 << 10);

    /// The names `COMMAND` uses.
    pub const NAMES: &[(Flags, &str)] = &[
        (RW, "RW"),
        (RO, "RO"),
        (OW, "OW"),
        (RM, "RM"),
        (ACCESS, "access"),
        (UPDATE, "update"),
        (INSERT, "insert"),
        (DELETE, "delete"),
        (NOT_KEY, "not_key"),
        (INCOMPLETE, "incomplete"),
        (VARIABLE_FLAGS, "variable_flags"),
    ];
}

/// A rule that finds keys among a command's arguments. Indices count from the
/// command's name, which is 0.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// What the command does with these keys.
    pub flags: Flags,
    /// Where to begin.
    pub begin: Begin,
    /// How to go on from there.
    pub find: Find,
}

/// Where the search for keys begins.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    /// At this argument.
    Index(usize),
    /// After this word; the search for it starts at argument `from`, counted
    /// from the end when negative.
    Keyword {
        /// The word, in any case.
        word: &'static str,
        /// Where to look for it first.
        from: isize,
    },
}

/// How keys follow the beginning.
#[derive(Clone, Copy, Debug)]
pub enum Find {
    /// Every `step`-th argument up to `last`, relative to the beginning;
    /// negative: counted from the last argument (-1). With `limit` above 1,
    /// only the first of that many equal parts of the arguments are keys.
    Range {
        /// The last key.
        last: isize,
        /// Arguments from key to key.
        step: usize,
        /// 0 or 1: no limit; 2: half, and so on.
        limit: usize,
    },
    /// The number of keys stands at `count`, the first key at `first`, both
    /// relative to the beginning.
    Count {
        /// Where the number stands.
        count: usize,
        /// Where the first key stands.
        first: usize,
        /// Arguments from key to key.
        step: usize,
    },
    /// A rule of its own: answers the indices of the keys.
    Custom(fn(&[&[u8]]) -> SmallVec<[KeyRef; 4]>),
}

/// An argument that is a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// Which argument; 0 is the command's name.
    pub index: usize,
    /// What the command does with it.
    pub flags: Flags,
}

impl KeySpec {
    /// One key at `index`.
    #[must_use]
    pub const fn one(index: usize, flags: Flags) -> KeySpec {
        KeySpec::range(index, 0, 1, flags)
    }

    /// Keys from `index` to `last`, which counts from `index`, or from the end
    /// when negative.
    #[must_use]
    pub const fn range(index: usize, last: isize, step: usize, flags: Flags) -> KeySpec {
        KeySpec { flags, begin: Begin::Index(index), find: Find::Range { last, step, limit: 0 } }
    }

    /// `numkeys key [key …]` with the number at `index`.
    #[must_use]
    pub const fn counted(index: usize, flags: Flags) -> KeySpec {
        let find = Find::Count { count: 0, first: 1, step: 1 };
        KeySpec { flags, begin: Begin::Index(index), find }
    }

    /// Appends the keys of `argv` (name included). Wrong arguments give fewer
    /// keys or none, never a panic: the handler reports them.
    pub fn collect(&self, argv: &[&[u8]], keys: &mut SmallVec<[KeyRef; 4]>) {
        let Some(begin) = self.begin(argv) else { return };
        match self.find {
            Find::Range { last, step, limit } => {
                let end = argv.len() as isize - 1;
                let mut last = if last >= 0 { begin as isize + last } else { end + 1 + last };
                if limit > 1 {
                    last = begin as isize + (end - begin as isize + 1) / limit as isize - 1;
                }
                let last = last.min(end);
                for index in (begin as isize..=last).step_by(step.max(1)) {
                    keys.push(KeyRef { index: index as usize, flags: self.flags });
                }
            }
            Find::Count { count, first, step } => {
                let number = argv.get(begin + count).and_then(|arg| base::number::parse_i64(arg));
                let Some(number) = number.and_then(|n| usize::try_from(n).ok()) else { return };
                let first = begin + first;
                let keys_end = number.checked_mul(step).and_then(|n| n.checked_add(first));
                // More keys than arguments: the handler answers the error.
                let Some(end) = keys_end.filter(|&end| end < argv.len() + step) else {
                    return;
                };
                for index in (first..end).step_by(step) {
                    keys.push(KeyRef { index, flags: self.flags });
                }
            }
            Find::Custom(find) => keys.extend(find(argv)),
        }
    }

    fn begin(&self, argv: &[&[u8]]) -> Option<usize> {
        match self.begin {
            Begin::Index(index) => (index < argv.len()).then_some(index),
            Begin::Keyword { word, from } => {
                let found = if from >= 0 {
                    (from as usize..argv.len()).find(|&i| is_word(argv[i], word))
                } else {
                    let start = argv.len().checked_sub(from.unsigned_abs())?;
                    (1..=start).rev().find(|&i| is_word(argv[i], word))
                };
                found.map(|i| i + 1).filter(|&i| i < argv.len())
            }
        }
    }
}
