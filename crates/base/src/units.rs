//! Sizes and durations with units, as settings and commands spell them.

/// Reads a size in bytes. Redis's units: `k` = 1000, `kb` = 1024 and so on up
/// to `g`/`gb` (and `t`/`tb`), in any case; a bare number is bytes.
///
/// ```
/// use base::units::parse_size;
/// assert_eq!(parse_size("64kb"), Some(65_536));
/// assert_eq!(parse_size("1G"), Some(1_000_000_000));
/// assert_eq!(parse_size("12 parsecs"), None);
/// ```
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" | "kib" => 1 << 10,
        "m" => 1_000_000,
        "mb" | "mib" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" | "gib" => 1 << 30,
        "t" => 1_000_000_000_000,
        "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Reads a duration in milliseconds: `500ms 30s 10m 2h 7d`, or several behind
/// each other, which add up. A bare number is taken in `bare_unit_ms`
/// milliseconds; it stands alone.
///
/// ```
/// use base::units::parse_duration_ms;
/// assert_eq!(parse_duration_ms("2h30m", 1), Some(9_000_000));
/// assert_eq!(parse_duration_ms("5", 1000), Some(5_000));
/// ```
#[must_use]
pub fn parse_duration_ms(text: &str, bare_unit_ms: u64) -> Option<u64> {
    match text.parse::<u64>() {
        Ok(number) if !text.starts_with('+') => number.checked_mul(bare_unit_ms),
        _ => parse_durations(text),
    }
}

/// Reads a duration in milliseconds, each number with its unit: `30s`, `2h30m`.
///
/// ```
/// assert_eq!(base::units::parse_durations("1m30s"), Some(90_000));
/// assert_eq!(base::units::parse_durations("90"), None);
/// ```
#[must_use]
pub fn parse_durations(text: &str) -> Option<u64> {
    let (mut sum, mut rest) = take_duration(text)?;
    while !rest.is_empty() {
        let (one, tail) = take_duration(rest)?;
        sum = sum.checked_add(one)?;
        rest = tail;
    }
    Some(sum)
}

/// A number with its unit, and what comes after it.
fn take_duration(text: &str) -> Option<(u64, &str)> {
    let (number, rest) = split_unit(text)?;
    let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let factor = match &rest[..end] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some((number.checked_mul(factor)?, &rest[end..]))
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// A size for people: `512B`, `1.50K`, `3.20M`, as INFO's `_human` fields.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["K", "M", "G", "T"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        assert_eq!(parse_size("1gb"), Some(1 << 30));
        assert_eq!(parse_size("99999999999tb"), None);
        assert_eq!(parse_size(""), None);
        assert_eq!(parse_size("-1"), None);
        assert_eq!(parse_duration_ms("1.5s", 1), None);
        assert_eq!(parse_duration_ms("7d", 1), Some(604_800_000));
        assert_eq!(parse_duration_ms("1h30m5ms", 1), Some(5_400_005));
        for bad in [
            "",
            "+5",
            "-5",
            "1h30",
            "h",
            "1 h",
            "1hm",
            "18446744073709551615d",
            "213503982334d86400000s",
        ] {
            assert_eq!(parse_duration_ms(bad, 1), None, "{bad}");
        }
        assert_eq!(human_size(1536), "1.50K");
    }
}
