//! Times as people read them.

const DAY_MS: u64 = 86_400_000;

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
