/// When a collection leaves its compact encoding: Redis's `*-max-listpack-*`
/// and `set-max-intset-entries` settings, with Redis's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodingLimits {
    /// Fields of a hash kept as a listpack.
    pub hash_max_listpack_entries: usize,
    /// Bytes of the longest field or value of such a hash.
    pub hash_max_listpack_value: usize,
    /// Positive: elements of one list node. Negative: its size class, -1 = 4 KiB,
    /// -2 = 8 KiB, -3 = 16 KiB, -4 = 32 KiB, -5 = 64 KiB.
    pub list_max_listpack_size: i64,
    /// Members of a set kept as an intset.
    pub set_max_intset_entries: usize,
    /// Members of a set kept as a listpack.
    pub set_max_listpack_entries: usize,
    /// Bytes of the longest member of such a set.
    pub set_max_listpack_value: usize,
    /// Members of a sorted set kept as a listpack.
    pub zset_max_listpack_entries: usize,
    /// Bytes of the longest member of such a sorted set.
    pub zset_max_listpack_value: usize,
    /// Whether small lists and sets say that they are listpacks, as in Redis
    /// 7.2, or quicklist and hashtable as in 7.0. A name only.
    pub listpack_lists_and_sets: bool,
}

impl Default for EncodingLimits {
    fn default() -> EncodingLimits {
        EncodingLimits {
            hash_max_listpack_entries: 128,
            hash_max_listpack_value: 64,
            list_max_listpack_size: -2,
            set_max_intset_entries: 512,
            set_max_listpack_entries: 128,
            set_max_listpack_value: 64,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
            listpack_lists_and_sets: false,
        }
    }
}
