//! `<when>`: how commands name a point in the past.

use base::Revision;
use base::units::parse_duration_ms;

use crate::error::{Error, Result};

/// A point in the past, as it is named. What it comes to depends on the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// `r:42`: the state right after this revision.
    Revision(Revision),
    /// `2026-11-21T03:12:00Z`, or milliseconds since 1970: the last revision
    /// stamped at or before it.
    Time(u64),
    /// `-10m`, `-2h30m`: as a time, so many milliseconds before now.
    Ago(u64),
}

/// The last millisecond of the year 9999, the last that has a form in ISO 8601.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

const MS_PER_DAY: u64 = 86_400_000;

impl When {
    /// Reads one argument.
    ///
    /// # Errors
    /// When it has none of the forms, with all of them in the text.
    pub fn parse(arg: &[u8]) -> Result<When> {
        let text = std::str::from_utf8(arg).ok();
        if text.is_some_and(|text| text.starts_with("tag:")) {
            return Err(Error::new(format!(
                "ERR '{}' names a tag, and there are none yet: name a revision (r:42) or a time",
                shown(arg)
            )));
        }
        text.and_then(When::read).ok_or_else(|| {
            Error::new(format!(
                "ERR '{}' is no point in time; say r:42 for a revision, 2026-11-21T03:12:00Z or milliseconds \
                 since 1970 (up to {TIME_MS_MAX}) for a time, -10m or -2h30m (ms, s, m, h, d) for how long ago",
                shown(arg)
            ))
        })
    }

    fn read(text: &str) -> Option<When> {
        if let Some(number) = text.strip_prefix("r:") {
            let number = digits(number)?;
            return (number <= i64::MAX as u64).then_some(When::Revision(Revision(number)));
        }
        if let Some(durations) = text.strip_prefix('-') {
            return ago_ms(durations).map(When::Ago);
        }
        let ms = if text.ends_with('Z') { iso_ms(text)? } else { digits(text)? };
        (ms <= TIME_MS_MAX).then_some(When::Time(ms))
    }

    /// The time that it names, at most now; `None` for a revision.
    #[must_use]
    pub fn time_ms(self, now_ms: u64) -> Option<u64> {
        match self {
            When::Revision(_) => None,
            When::Time(ms) => Some(ms.min(now_ms)),
            When::Ago(ms) => Some(now_ms.saturating_sub(ms)),
        }
    }
}

/// At most 64 bytes of what a client sent, for a message.
fn shown(arg: &[u8]) -> String {
    String::from_utf8_lossy(&arg[..arg.len().min(64)]).into_owned()
}

/// A number of digits alone: no sign, no blank.
fn digits(text: &str) -> Option<u64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

/// One duration with its unit after the other.
fn ago_ms(text: &str) -> Option<u64> {
    let mut sum = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit())?;
        let end =
            rest[unit..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| unit + at);
        sum = sum.checked_add(parse_duration_ms(&rest[..end], 1)?)?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(sum)
}

/// `YYYY-MM-DDTHH:MM:SS[.fraction]Z` in milliseconds since 1970; a fraction is
/// cut to milliseconds.
fn iso_ms(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let (clock, fraction) = match time.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (time, None),
    };
    let [hour, minute, second] = fields(clock, ':', [2, 2, 2])?;
    let is_valid = year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !is_valid {
        return None;
    }
    let ms = match fraction {
        None => 0,
        Some(fraction) => {
            digits(fraction)?;
            let three: String = fraction.chars().chain("000".chars()).take(3).collect();
            digits(&three)?
        }
    };
    let days = days_since_1970(year, month, day);
    Some(days * MS_PER_DAY + ((hour * 60 + minute) * 60 + second) * 1000 + ms)
}

/// Three numbers of exactly these lengths.
fn fields(text: &str, separator: char, lengths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; 3];
    for (number, length) in numbers.iter_mut().zip(lengths) {
        let part = parts.next().filter(|part| part.len() == length)?;
        *number = digits(part)?;
    }
    parts.next().is_none().then_some(numbers)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let before = |year: u64| year * 365 + year / 4 - year / 100 + year / 400;
    let years = before(year - 1) - before(1969);
    years + (1..month).map(|month| days_in(year, month)).sum::<u64>() + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("r:0", When::Revision(Revision(0))),
            ("r:12345", When::Revision(Revision(12345))),
            ("r:9223372036854775807", When::Revision(Revision(i64::MAX as u64))),
            ("0", When::Time(0)),
            ("1700000000000", When::Time(1_700_000_000_000)),
            ("1970-01-01T00:00:00Z", When::Time(0)),
            ("2000-02-29T23:59:59Z", When::Time(951_868_799_000)),
            ("2023-11-14T22:13:20Z", When::Time(1_700_000_000_000)),
            ("2023-11-14T22:13:20.5Z", When::Time(1_700_000_000_500)),
            ("2023-11-14T22:13:20.0019Z", When::Time(1_700_000_000_001)),
            ("2026-11-21T03:12:00Z", When::Time(1_795_230_720_000)),
            ("9999-12-31T23:59:59.999Z", When::Time(TIME_MS_MAX)),
            ("-10m", When::Ago(600_000)),
            ("-2h30m", When::Ago(9_000_000)),
            ("-1d", When::Ago(86_400_000)),
            ("-1d2h3m4s5ms", When::Ago(93_784_005)),
            ("-0s", When::Ago(0)),
        ] {
            assert_eq!(When::parse(text.as_bytes()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_forms_are_named_with_those_that_are_right() {
        for text in [
            "",
            "r:",
            "r:-1",
            "r:+1",
            "r:1x",
            "r:9223372036854775808",
            "R:1",
            "now",
            "-",
            "-10",
            "-m",
            "-10x",
            "-10m5",
            "--10m",
            "-18446744073709551615d",
            "10m",
            "1.5",
            " 1",
            "253402300800000",
            "2026-11-21",
            "2026-11-21T03:12:00",
            "2026-11-21T03:12Z",
            "1969-12-31T23:59:59Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T00:60:00Z",
            "2026-11-21T00:00:60Z",
            "2026-11-21T00:00:00.Z",
            "2026-11-21T00:00:00.1xZ",
            "26-11-21T00:00:00Z",
            "2026-11-21-01T00:00:00Z",
            "Z",
            "TZ",
            "\u{e9}Z",
        ] {
            let error = When::parse(text.as_bytes()).expect_err(text);
            assert!(error.text().starts_with(&format!("ERR '{text}' is no point")), "{error}");
            assert!(error.text().contains("r:42") && error.text().contains("-2h30m"), "{error}");
        }
        let error = When::parse(b"\xff\xfe").expect_err("no text");
        assert!(error.text().starts_with("ERR '"), "{error}");
    }

    #[test]
    fn tags_do_not_exist_yet() {
        let error = When::parse(b"tag:v1").expect_err("no tags");
        assert!(error.text().contains("'tag:v1' names a tag"), "{error}");
    }

    #[test]
    fn times_end_now() {
        for (when, expected) in [
            (When::Revision(Revision(7)), None),
            (When::Time(500), Some(500)),
            (When::Time(2000), Some(1000)),
            (When::Ago(300), Some(700)),
            (When::Ago(3000), Some(0)),
        ] {
            assert_eq!(when.time_ms(1000), expected, "{when:?}");
        }
    }

    #[test]
    fn calendars_agree_with_counting() {
        let mut days = 0;
        for year in 1970..2110 {
            for month in 1..=12 {
                for day in 1..=days_in(year, month) {
                    assert_eq!(days_since_1970(year, month, day), days, "{year}-{month}-{day}");
                    days += 1;
                }
            }
        }
    }
}
