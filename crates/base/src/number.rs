//! Numbers as Redis reads and writes them.

/// Reads a decimal integer with Redis's strictness: no spaces, no `+`, no
/// leading zeros, no `-0`, within 64 bits.
///
/// ```
/// use base::number::parse_i64;
/// assert_eq!(parse_i64(b"-12"), Some(-12));
/// assert_eq!(parse_i64(b"012"), None);
/// assert_eq!(parse_i64(b"9223372036854775808"), None);
/// ```
#[must_use]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [] => return None,
        [b'0', ..] => return (digits.len() == 1 && !negative).then_some(0),
        _ if digits.len() > 19 => return None,
        _ => {}
    }
    let mut magnitude = 0u64;
    for &digit in digits {
        let value = digit.wrapping_sub(b'0');
        if value > 9 {
            return None;
        }
        // 19 digits stay below 10^19, which fits in a u64.
        magnitude = magnitude * 10 + u64::from(value);
    }
    if negative {
        (magnitude <= 1 << 63).then(|| (magnitude as i64).wrapping_neg())
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Reads a double as Redis does: decimal or exponent form, `inf`, `+inf`,
/// `-infinity` in any case; no spaces, no NaN, no overflow to infinity.
#[must_use]
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let spelled_infinity =
        unsigned.eq_ignore_ascii_case("inf") || unsigned.eq_ignore_ascii_case("infinity");
    let value: f64 = text.parse().ok()?;
    (!value.is_nan() && (value.is_finite() || spelled_infinity)).then_some(value)
}

/// Writes a double in the shortest form that reads back equal, in Redis's
/// layout: `3`, `-0.1`, `1e+21`, `inf`, `-inf`, `nan`.
#[must_use]
pub fn format_f64(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    // Redis prints whole numbers in the 64-bit range as integers.
    if value.trunc() == value && value.abs() < 4_503_599_627_370_496.0 {
        return itoa::Buffer::new().format(value as i64).to_owned();
    }
    // `{:e}` gives the shortest digits: "-1.2345e-7".
    let scientific = format!("{:e}", value.abs());
    let (mantissa, exponent) = scientific.split_once('e').expect("{:e} writes an exponent");
    let exponent: i32 = exponent.parse().expect("{:e} writes a whole exponent");
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let count = i32::try_from(digits.len()).expect("17 digits at most");
    let sign = if value < 0.0 { "-" } else { "" };
    // The layout of fpconv, which Redis prints doubles with: plain digits while
    // they stay short, else an exponent.
    let after_point = count - 1 - exponent;
    let body = if after_point <= 0 && exponent < count + 7 {
        let zeros = usize::try_from(-after_point).expect("checked");
        digits + &"0".repeat(zeros)
    } else if after_point > 0 && (after_point < 7 || exponent.abs() < 4) {
        if exponent < 0 {
            let zeros = usize::try_from(-exponent - 1).expect("checked");
            format!("0.{}{digits}", "0".repeat(zeros))
        } else {
            let point = usize::try_from(exponent + 1).expect("checked");
            format!("{}.{}", &digits[..point], &digits[point..])
        }
    } else {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        format!("{first}{point}{rest}e{exponent_sign}{}", exponent.abs())
    };
    format!("{sign}{body}")
}

/// Decimal places that [`add_decimal`] keeps, as in Redis's `%.17Lf`.
const PLACES: u32 = 17;

/// `value + delta` for INCRBYFLOAT and HINCRBYFLOAT, with Redis's text: up to
/// 17 decimal places, no exponent, no trailing zeros.
///
/// Redis adds with 80-bit floats; this adds decimals exactly, which prints the
/// same for what an 80-bit float holds exactly enough, and falls back to
/// doubles beyond 10^20. `None` when either text is no number or the sum is
/// not finite.
///
/// ```
/// use base::number::add_decimal;
/// assert_eq!(add_decimal(b"0.1", b"0.2").as_deref(), Some("0.3"));
/// assert_eq!(add_decimal(b"5.0e3", b"2.0e2").as_deref(), Some("5200"));
/// ```
#[must_use]
pub fn add_decimal(value: &[u8], delta: &[u8]) -> Option<String> {
    let (a, b) = (parse_f64(value)?, parse_f64(delta)?);
    if let (Some(a), Some(b)) = (parse_fixed(value), parse_fixed(delta)) {
        return Some(format_fixed(a + b));
    }
    let sum = a + b;
    sum.is_finite().then(|| {
        let text = format!("{sum:.17}");
        trim_zeros(&text).to_owned()
    })
}

/// A number in `[-10^20, 10^20]` as a multiple of 10^-17; digits beyond the
/// 17th decimal place are rounded off.
fn parse_fixed(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let point = i32::try_from(fraction.len()).ok()?;
    let shift = exponent.checked_sub(point)?.checked_add(i32::try_from(PLACES).ok()?)?;
    let length = i32::try_from(digits.len()).ok()?;
    if length.checked_add(shift)? > 37 {
        return None;
    }
    let magnitude = if shift >= 0 {
        digits.parse::<i128>().ok()?.checked_mul(10i128.checked_pow(u32::try_from(shift).ok()?)?)?
    } else {
        let keep = length + shift;
        if keep < 0 {
            0
        } else {
            let (kept, dropped) = digits.split_at(usize::try_from(keep).ok()?);
            let kept = if kept.is_empty() { 0 } else { kept.parse::<i128>().ok()? };
            kept + i128::from(dropped.as_bytes()[0] >= b'5')
        }
    };
    Some(if negative { -magnitude } else { magnitude })
}

fn format_fixed(value: i128) -> String {
    let scale = 10u128.pow(PLACES);
    let magnitude = value.unsigned_abs();
    let text = format!("{}.{:017}", magnitude / scale, magnitude % scale);
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", trim_zeros(&text))
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0", None),
            ("", None),
            ("-", None),
            ("+1", None),
            (" 1", None),
            ("00", None),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775809", None),
            ("9999999999999999999", None),
            ("1a", None),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn doubles_read() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("+1.5e3", Some(1500.0)),
            (".5", Some(0.5)),
            ("inf", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("nan", None),
            ("1e999", None),
            (" 1", None),
            ("", None),
            ("1x", None),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn doubles_print_as_redis_does() {
        for (value, expected) in [
            (3.0, "3"),
            (-0.1, "-0.1"),
            (1.5, "1.5"),
            (0.000_001, "0.000001"),
            (1e21, "1e+21"),
            (1e-10, "1e-10"),
            (17_179_869_184.5, "17179869184.5"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
            (f64::NEG_INFINITY, "-inf"),
            (std::f64::consts::PI, "3.141592653589793"),
        ] {
            assert_eq!(format_f64(value), expected);
            assert_eq!(parse_f64(expected.as_bytes()), Some(value));
        }
    }

    #[test]
    fn decimals_add_without_surprise() {
        for (a, b, expected) in [
            ("0.1", "0.2", Some("0.3")),
            ("10.50", "0.1", Some("10.6")),
            ("1", "-1", Some("0")),
            ("3.0e3", "200", Some("3200")),
            ("-0.5", "0.25", Some("-0.25")),
            ("1e300", "1e300", None),
            ("inf", "1", None),
            ("abc", "1", None),
        ] {
            let sum = add_decimal(a.as_bytes(), b.as_bytes());
            if let Some(expected) = expected {
                assert_eq!(sum.as_deref(), Some(expected), "{a} + {b}");
            } else if a == "1e300" {
                assert!(sum.expect("finite").len() > 300);
            } else {
                assert_eq!(sum, None, "{a} + {b}");
            }
        }
    }
}
