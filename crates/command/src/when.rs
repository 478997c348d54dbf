//! `<when>`: points in the past, as commands take them.

use base::when::When;

use crate::args::shown;
use crate::error::{Error, Result};

/// The last millisecond of the year 9999, the last that has a form in ISO 8601.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// Reads an argument; tags are for those who know which there are.
///
/// # Errors
/// When it has none of the forms, with all of them in the text.
pub fn parse_when(arg: &[u8]) -> Result<When> {
    let text = std::str::from_utf8(arg).ok();
    if tag_name(arg).is_some() {
        return Err(Error::new(format!(
            "ERR '{}' names a tag, which is not known here: name a revision (r:42) or a time",
            shown(arg)
        )));
    }
    if text.is_some_and(is_beyond_revisions) {
        return Err(Error::new(format!(
            "ERR '{}' is beyond r:{}, the greatest revision that there can be",
            shown(arg),
            u64::MAX
        )));
    }
    text.and_then(When::parse).filter(|when| is_in_range(*when)).ok_or_else(|| {
        Error::new(format!(
            "ERR '{}' is no point in time; say r:42 for a revision, 2026-11-21T03:12:00Z or milliseconds since \
             1970 (up to {TIME_MS_MAX}) for a time, -10m or -2h30m (ms, s, m, h, d) for how long ago",
            shown(arg)
        ))
    })
}

/// The name behind `tag:`, if it names a tag.
#[must_use]
pub fn tag_name(arg: &[u8]) -> Option<&[u8]> {
    let (prefix, name) = arg.split_at_checked(b"tag:".len())?;
    prefix.eq_ignore_ascii_case(b"tag:").then_some(name)
}

/// Whether it is a revision as far as its form goes, but too large.
fn is_beyond_revisions(text: &str) -> bool {
    let is_number =
        |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    text.strip_prefix("r:").or(text.strip_prefix("R:")).is_some_and(is_number)
        && When::parse(text).is_none()
}

fn is_in_range(when: When) -> bool {
    match when {
        When::Time(ms) => ms <= TIME_MS_MAX,
        When::Revision(_) | When::Ago(_) => true,
    }
}

/// The time that is named, at most now; `None` for a revision.
#[must_use]
pub fn time_named(when: When, now_ms: u64) -> Option<u64> {
    match when {
        When::Revision(_) => None,
        When::Time(ms) => Some(ms.min(now_ms)),
        When::Ago(ms) => Some(now_ms.saturating_sub(ms)),
    }
}

#[cfg(test)]
mod tests {
    use base::Revision;

    use super::*;

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("r:0", When::Revision(Revision(0))),
            ("R:1", When::Revision(Revision(1))),
            ("r:9223372036854775808", When::Revision(Revision(1 << 63))),
            ("r:18446744073709551615", When::Revision(Revision(u64::MAX))),
            ("0", When::Time(0)),
            ("1700000000000", When::Time(1_700_000_000_000)),
            ("2023-11-14T22:13:20.5Z", When::Time(1_700_000_000_500)),
            ("9999-12-31T23:59:59.999Z", When::Time(TIME_MS_MAX)),
            ("-10m", When::Ago(600_000)),
            ("-1d2h3m4s5ms", When::Ago(93_784_005)),
            ("-0s", When::Ago(0)),
        ] {
            assert_eq!(parse_when(text.as_bytes()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_forms_are_answered_with_those_that_are_right() {
        for text in ["", "r:", "r:+1", "now", "-10", "10m", "253402300800000"] {
            let error = parse_when(text.as_bytes()).expect_err(text);
            assert!(error.text().starts_with(&format!("ERR '{text}' is no point")), "{error}");
            assert!(error.text().contains("r:42") && error.text().contains("-2h30m"), "{error}");
        }
        let error = parse_when(b"\xff\xfe").expect_err("no text");
        assert!(error.text().starts_with("ERR '"), "{error}");
        let error = parse_when(b"r:18446744073709551616").expect_err("no such revision");
        assert!(error.text().contains("'r:18446744073709551616' is beyond"), "{error}");
        let error = parse_when(&[b'x'; 1000]).expect_err("no time");
        assert!(error.text().len() < 400, "{error}");
    }

    #[test]
    fn tags_are_for_those_who_know_them() {
        let error = parse_when(b"tag:v1").expect_err("no tags");
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
            assert_eq!(time_named(when, 1000), expected, "{when:?}");
        }
    }
}
