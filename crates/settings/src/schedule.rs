//! When something is done again and again: every so often, or by a cron line.

use base::units::parse_duration_ms;
use base::when::civil;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;

/// Days in which every date comes that there is: 29 February on each day of the
/// week takes 40 years where a leap year is left out.
const DAYS_MAX: u64 = 366 * 41;

/// Lines that have names.
const NAMED: &[(&str, &str)] = &[
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
];

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// So many milliseconds after the last time.
    Every(u64),
    /// At the minutes that a cron line names, in UTC.
    Cron(Cron),
}

/// The minutes that a cron line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    /// Bit n stands for n, in each of these.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Sunday is 0.
    weekdays: u64,
    /// Of days of the month and of the week, one of which is given: else all
    /// are meant, and it is the other that counts.
    either: bool,
}

impl Schedule {
    /// Reads a duration with its unit (`6h`), or `minute hour day month weekday`
    /// as cron does, or `@daily` and the like.
    #[must_use]
    pub fn parse(text: &str) -> Option<Schedule> {
        let text = text.trim();
        if text.ends_with(|last: char| last.is_ascii_alphabetic()) && !text.starts_with('@') {
            return parse_duration_ms(text, 1).filter(|&ms| ms >= 1000).map(Schedule::Every);
        }
        let named = NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        Cron::parse(named.map_or(text, |(_, line)| line)).map(Schedule::Cron)
    }

    /// When it is due after `now_ms`, in milliseconds since 1970, the last time
    /// having been `last_ms`. That may be now or have been before.
    #[must_use]
    pub fn next_ms(&self, last_ms: Option<u64>, now_ms: u64) -> Option<u64> {
        match self {
            Schedule::Every(ms) => Some(last_ms.map_or(now_ms, |last| last.saturating_add(*ms))),
            Schedule::Cron(cron) => cron.next_ms(now_ms),
        }
    }
}

impl Cron {
    fn parse(line: &str) -> Option<Cron> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else { return None };
        let mut cron = Cron {
            minutes: numbers(minutes, 0, 59)?,
            hours: numbers(hours, 0, 23)?,
            days: numbers(days, 1, 31)?,
            months: numbers(months, 1, 12)?,
            weekdays: numbers(weekdays, 0, 7)?,
            either: !days.starts_with('*') && !weekdays.starts_with('*'),
        };
        // Sunday is 7 too.
        cron.weekdays |= (cron.weekdays >> 7) & 1;
        // A line that never comes, such as 31 April, is none.
        cron.next_ms(0).map(|_| cron)
    }

    fn next_ms(&self, now_ms: u64) -> Option<u64> {
        // The current minute has begun.
        let first = (now_ms / MINUTE_MS).checked_add(1)?.checked_mul(MINUTE_MS)?;
        let mut from_minute = first % DAY_MS / MINUTE_MS;
        let today = first / DAY_MS;
        for day in today..today + DAYS_MAX {
            if self.has_day(day) {
                let mut minutes = from_minute..24 * 60;
                let is_named = |at: &u64| has(self.hours, at / 60) && has(self.minutes, at % 60);
                if let Some(at) = minutes.find(is_named) {
                    return Some(day * DAY_MS + at * MINUTE_MS);
                }
            }
            from_minute = 0;
        }
        None
    }

    /// Whether a day, counted from 1970 on, is named.
    fn has_day(&self, day: u64) -> bool {
        let (_, month, of_month) = civil(day);
        // 1970 began on a Thursday.
        let (by_date, by_week) = (has(self.days, of_month), has(self.weekdays, (day + 4) % 7));
        let is_day = if self.either { by_date || by_week } else { by_date && by_week };
        has(self.months, month) && is_day
    }
}

fn has(bits: u64, number: u64) -> bool {
    (bits >> number) & 1 == 1
}

/// The numbers of a field, as bits: `*`, `5`, `1-5`, `*/15`, `1-5/2`, and several
/// of them with commas in between.
fn numbers(field: &str, min: u64, max: u64) -> Option<u64> {
    let number = |text: &str| {
        let is_number = text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| is_number && (min..=max).contains(number))
    };
    let mut bits = 0;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse().ok().filter(|&step| step > 0)?),
            None => (part, 1),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (min, max),
            Some((first, last)) => (number(first)?, number(last)?),
            // What a step follows goes on to the end.
            None if part.contains('/') => (number(range)?, max),
            None => (number(range)?, number(range)?),
        };
        if first > last {
            return None;
        }
        (first..=last).step_by(step).for_each(|number| bits |= 1 << number);
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use base::when::{When, utc};

    use super::*;

    fn ms(time: &str) -> u64 {
        match When::parse(time) {
            Some(When::Time(ms)) => ms,
            other => panic!("{time}: {other:?}"),
        }
    }

    #[track_caller]
    fn next(line: &str, now: &str, expected: &str) {
        let schedule = Schedule::parse(line).unwrap_or_else(|| panic!("{line}"));
        let found = schedule.next_ms(None, ms(now)).map(utc);
        assert_eq!(found.as_deref(), Some(expected), "{line} after {now}");
    }

    #[test]
    fn cron_lines_name_minutes() {
        // A Saturday.
        let now = "2026-11-21T10:30:00Z";
        next("* * * * *", now, "2026-11-21T10:31:00.000Z");
        next("* * * * *", "2026-11-21T10:30:59.999Z", "2026-11-21T10:31:00.000Z");
        next("*/15 * * * *", now, "2026-11-21T10:45:00.000Z");
        next("30 3 * * *", now, "2026-11-22T03:30:00.000Z");
        next("0 12-18/3 * * *", now, "2026-11-21T12:00:00.000Z");
        next("5/20 * * * *", now, "2026-11-21T10:45:00.000Z");
        next("0 0 * * 1-5", now, "2026-11-23T00:00:00.000Z");
        next("0 0 * * 7", now, "2026-11-22T00:00:00.000Z");
        next("0 0 * * 0,3", "2026-11-22T00:00:00Z", "2026-11-25T00:00:00.000Z");
        next("0 0 29 2 *", now, "2028-02-29T00:00:00.000Z");
        // Either of both days.
        next("0 0 13 * 5", now, "2026-11-27T00:00:00.000Z");
        next("@monthly", now, "2026-12-01T00:00:00.000Z");
        next("@Daily", "2026-12-31T23:59:30Z", "2027-01-01T00:00:00.000Z");
    }

    #[test]
    fn what_comes_every_so_often_is_counted_from_the_last_time() {
        let every = Schedule::parse("6h").expect("a duration");
        assert_eq!(every, Schedule::Every(6 * 3_600_000));
        assert_eq!(every.next_ms(Some(1000), 5000), Some(6 * 3_600_000 + 1000));
        assert_eq!(every.next_ms(None, 5000), Some(5000));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "6",
            "0h",
            "999ms",
            "h",
            "sometimes",
            "@never",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "1- * * * *",
            "-1 * * * *",
            "+1 * * * *",
            "0 0 31 4 *",
            "a * * * *",
            "1,, * * * *",
        ] {
            assert_eq!(Schedule::parse(bad), None, "{bad:?}");
        }
    }
}
