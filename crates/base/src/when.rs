//! Moments as people write them: revisions, times, times ago.

use crate::Revision;
use crate::units::parse_durations;

const DAY_MS: u64 = 86_400_000;

/// A moment in the life of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// `r:12345`: right after that transaction.
    Revision(Revision),
    /// `2026-11-21T03:12:00Z`, or milliseconds since 1970.
    Time(u64),
    /// `-10m`, `-2h30m`: so many milliseconds ago.
    Ago(u64),
}

impl When {
    /// Reads any of the forms.
    ///
    /// ```
    /// use base::{Revision, when::When};
    /// assert_eq!(When::parse("r:120"), Some(When::Revision(Revision(120))));
    /// assert_eq!(When::parse("1970-01-02T00:00:01.5Z"), Some(When::Time(86_401_500)));
    /// assert_eq!(When::parse("86401500"), Some(When::Time(86_401_500)));
    /// assert_eq!(When::parse("-1h30m"), Some(When::Ago(5_400_000)));
    /// assert_eq!(When::parse("yesterday"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<When> {
        if let Some(digits) = text.strip_prefix(['r', 'R']).and_then(|it| it.strip_prefix(':')) {
            return digits_only(digits).map(|number| When::Revision(Revision(number)));
        }
        if let Some(durations) = text.strip_prefix('-') {
            return parse_durations(durations).map(When::Ago);
        }
        digits_only(text).or_else(|| parse_utc(text)).map(When::Time)
    }
}

fn digits_only(text: &str) -> Option<u64> {
    // The parser alone takes a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Milliseconds since 1970 as UTC: `2026-11-21T03:12:00.000Z`.
///
/// ```
/// assert_eq!(base::when::utc(951_782_400_001), "2000-02-29T00:00:00.001Z");
/// ```
#[must_use]
pub fn utc(ms: u64) -> String {
    let (year, month, day) = civil(ms / DAY_MS);
    let second = ms % DAY_MS / 1000;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        ms % 1000
    )
}

/// Milliseconds since 1970 of a time in UTC, with or without a fraction of the
/// second, of which only milliseconds count.
fn parse_utc(text: &str) -> Option<u64> {
    let text = text.strip_suffix(['Z', 'z'])?;
    let (date, time) = text.split_once(['T', 't'])?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    if fraction.is_empty() {
        return None;
    }
    digits_only(fraction)?;
    let milli: u64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    let is_time = hour < 24 && minute < 60 && second < 60;
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || !is_time {
        return None;
    }
    let days = days(year, month, day);
    // A day that the month does not have would be one of the next.
    (civil(days) == (year, month, day)).then_some(())?;
    Some(days * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1000 + milli)
}

/// Three numbers of so many digits each.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut found = [0; 3];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        *number = digits_only(part)?;
    }
    parts.next().is_none().then_some(found)
}

/// Days since 1970 of a date, by Howard Hinnant's `days_from_civil`
/// (<https://howardhinnant.github.io/date_algorithms.html>): years begin in
/// March, so that a leap day is a year's last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let (era, year_of_era) = (year / 400, year % 400);
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a number of days since 1970, by Howard Hinnant's
/// `civil_from_days` (<https://howardhinnant.github.io/date_algorithms.html>):
/// years begin in March, so that a leap day is a year's last.
///
/// ```
/// assert_eq!(base::when::civil(11_016), (2000, 2, 29));
/// ```
#[must_use]
pub fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_round_trip() {
        // Every day of two centuries, at another time of the day each.
        for day in 0..73_000 {
            let ms = day * DAY_MS + day * 1_234_567 % DAY_MS;
            assert_eq!(When::parse(&utc(ms)), Some(When::Time(ms)), "{}", utc(ms));
        }
        assert_eq!(utc(1_794_796_320_000), "2026-11-16T02:32:00.000Z");
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "-",
            "r:",
            "r:-1",
            "r:18446744073709551616",
            "-10",
            "-m",
            "-10m5",
            "-99999999999999999999d",
            "+5",
            "2026-11-21",
            "2026-11-21T03:12:00",
            "2026-11-21T03:12Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "1969-12-31T23:59:59Z",
            "26-01-01T00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.xZ",
            "2026-01-01-01T00:00:00Z",
            "ä",
            "-ä",
        ] {
            assert_eq!(When::parse(text), None, "{text}");
        }
    }
}
