//! How values look from outside: `OBJECT ENCODING`.

use base::number;
use keyspace::{EncodingLimits, ValueRef};

/// Longest string that Redis embeds in its object.
const EMBEDDED_BYTES_MAX: usize = 44;

/// What `OBJECT ENCODING` says. `is_raw` marks a string that was changed in
/// place, which Redis never embeds again.
#[must_use]
pub(crate) fn encoding_of(
    value: ValueRef<'_>,
    is_raw: bool,
    limits: &EncodingLimits,
) -> &'static str {
    match value {
        ValueRef::Str(_) if is_raw => "raw",
        ValueRef::Str(bytes) if number::parse_i64(bytes).is_some() => "int",
        ValueRef::Str(bytes) if bytes.len() <= EMBEDDED_BYTES_MAX => "embstr",
        ValueRef::Str(_) => "raw",
        ValueRef::List(_) if !limits.listpack_lists_and_sets => "quicklist",
        ValueRef::List(list) => list.encoding(),
        ValueRef::Set(set) => match set.encoding() {
            "listpack" if !limits.listpack_lists_and_sets => "hashtable",
            encoding => encoding,
        },
        ValueRef::Hash(hash) => hash.encoding(),
        ValueRef::Zset(zset) => zset.encoding(),
    }
}
