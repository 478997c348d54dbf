//! Deadlines: how arguments become absolute times, and the EXPIRE family.

use crate::error::{Error, Result};

/// The deadline, in milliseconds since 1970, that a command's argument names.
///
/// # Errors
/// `ERR invalid expire time in 'x' command` when it leaves the range of times,
/// or, with `must_be_positive`, when the argument is zero or below.
pub(crate) fn deadline_from(
    value: i64,
    seconds: bool,
    absolute: bool,
    now_ms: u64,
    must_be_positive: bool,
    command: &str,
) -> Result<u64> {
    let invalid = || Error::invalid_expire(command);
    if must_be_positive && value <= 0 {
        return Err(invalid());
    }
    let ms = if seconds { value.checked_mul(1000).ok_or_else(invalid)? } else { value };
    let base_ms = if absolute { 0 } else { now_ms as i64 };
    let at = base_ms.checked_add(ms).ok_or_else(invalid)?;
    // A time before 1970 has passed like any other in the past.
    Ok(at.max(0) as u64)
}
