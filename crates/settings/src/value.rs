//! The types a setting can have: how each is read from text, in Alcid's words
//! and in Redis's, and how it is written.

use base::number::parse_i64;
use base::units::{parse_duration_ms, parse_size};

use crate::model::{EvictionPolicy, LogLevel};
use crate::schedule::Schedule;
use crate::special;

/// The value of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Bytes.
    Size(u64),
    /// Anything else, in its canonical spelling.
    Text(String),
}

impl Value {
    pub(crate) fn bool(&self) -> bool {
        matches!(self, Value::Bool(true))
    }

    /// # Panics
    /// When a row pairs an integer field with another kind; the table test
    /// visits every row.
    pub(crate) fn integer(&self) -> i64 {
        let Value::Integer(number) = self else { panic!("an integer setting holds {self:?}") };
        *number
    }

    /// # Panics
    /// As [`Value::integer`].
    pub(crate) fn size(&self) -> u64 {
        let Value::Size(bytes) = self else { panic!("a size setting holds {self:?}") };
        *bytes
    }

    /// # Panics
    /// As [`Value::integer`].
    pub(crate) fn text(&self) -> &str {
        let Value::Text(text) = self else { panic!("a text setting holds {self:?}") };
        text
    }
}

/// The type of a setting, with its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`; Redis's `yes` or `no`.
    Bool,
    /// A whole number.
    Integer {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
    },
    /// Bytes, with a unit (`64kb`, `1GB`) or bare.
    Size {
        /// The least value.
        min: u64,
        /// The greatest value.
        max: u64,
    },
    /// Bytes, with a unit; bare it is megabytes, except in Redis's words, where
    /// a bare number always is bytes.
    Megabytes {
        /// The least value.
        min: u64,
        /// The greatest value.
        max: u64,
    },
    /// Whole seconds, with a unit (`30s`, `5m`) or bare.
    Seconds {
        /// The greatest value.
        max: i64,
    },
    /// One of some words.
    Word(&'static [&'static str]),
    /// A [`LogLevel`]; Redis has other names for the levels.
    LogLevel,
    /// An [`EvictionPolicy`].
    EvictionPolicy,
    /// Any text.
    Text,
    /// The path of a file or folder.
    Path,
    /// A password.
    Secret,
    /// IP addresses and host names to bind.
    Addresses,
    /// Numbers and the databases of branches that they stand for, as
    /// [`crate::mapped_branches`] reads them.
    MappedBranches {
        /// What the numbers are.
        number: &'static str,
        /// The least number.
        min: u32,
        /// The greatest number.
        max: u32,
    },
    /// A [`Schedule`], or nothing.
    Schedule,
    /// Letters of `notify-keyspace-events`.
    Events,
    /// `class hard soft seconds` for some classes of clients.
    OutputBuffers,
    /// Redis's snapshot schedule.
    SavePoints,
}

/// Redis's word for each level. Redis has none for [`LogLevel::Trace`].
const REDIS_LEVELS: &[(&str, LogLevel)] = &[
    ("debug", LogLevel::Debug),
    ("notice", LogLevel::Info),
    ("warning", LogLevel::Warn),
    ("nothing", LogLevel::Error),
    // Between notice and debug; Alcid has no level there.
    ("verbose", LogLevel::Debug),
];

/// Short words for policies.
const SHORT_POLICIES: &[(&str, EvictionPolicy)] = &[
    ("lru", EvictionPolicy::AllKeysLru),
    ("lfu", EvictionPolicy::AllKeysLfu),
    ("random", EvictionPolicy::AllKeysRandom),
    ("ttl", EvictionPolicy::VolatileTtl),
];

/// What a word stands for in a list of words.
fn found<T: Copy>(words: &[(&str, T)], word: &str) -> Option<T> {
    words.iter().find(|(other, _)| other.eq_ignore_ascii_case(word)).map(|&(_, it)| it)
}

impl Kind {
    /// What is allowed, to finish the sentence "expected …".
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Kind::Bool => "true or false".to_owned(),
            Kind::Integer { min, max: i64::MAX } => format!("a whole number, at least {min}"),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Size { min: 0, .. } => "a size such as 512MB or 1GB".to_owned(),
            Kind::Size { min, .. } => format!("a size of at least {}", show_size(min)),
            Kind::Megabytes { min, .. } => {
                format!("megabytes, or a size of at least {} such as 1GB", show_size(min))
            }
            Kind::Seconds { max } => {
                format!("whole seconds from 0 to {max}, or a duration such as \"30s\" or \"5m\"")
            }
            Kind::Word([only]) => format!("{only:?}, the only choice so far"),
            Kind::Word(words) => format!("one of {}", words.join(", ")),
            Kind::LogLevel => format!("one of {}", LogLevel::WORDS.join(", ")),
            Kind::EvictionPolicy => {
                let short: Vec<&str> = SHORT_POLICIES.iter().map(|(word, _)| *word).collect();
                format!("one of {}, or {} for short", EvictionPolicy::WORDS.join(", "), short.join(", "))
            }
            Kind::Text | Kind::Secret => "text without control characters".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Addresses => "IP addresses or host names".to_owned(),
            Kind::MappedBranches { number, min, max } => format!(
                "{number}=branch or {number}=branch:database, with spaces in between and each {number} from {min} \
                 to {max} once"
            ),
            Kind::Schedule => {
                "an empty text, a duration of a second or more with its unit, such as \"6h\", a cron line of \
                 five fields such as \"30 3 * * *\", or @hourly, @daily, @weekly, @monthly"
                    .to_owned()
            }
            Kind::Events => "letters out of Ag$lshzxeKEtmdn".to_owned(),
            Kind::OutputBuffers => {
                "\"class hard soft seconds\", class being normal, replica or pubsub".to_owned()
            }
            Kind::SavePoints => "an empty text, or seconds and changes in turn".to_owned(),
        }
    }

    /// Reads a value as the file, the environment and flags spell it; `None`
    /// when it is not what [`Kind::expected`] says.
    #[must_use]
    pub fn parse(self, text: &str) -> Option<Value> {
        match self {
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(Value::Bool(true)),
                "false" | "no" | "off" | "0" => Some(Value::Bool(false)),
                _ => None,
            },
            Kind::Integer { min, max } => parse_i64(text.as_bytes())
                .filter(|number| (min..=max).contains(number))
                .map(Value::Integer),
            Kind::Size { min, max } => {
                parse_size(text).filter(|bytes| (min..=max).contains(bytes)).map(Value::Size)
            }
            Kind::Megabytes { min, max } => match text.parse::<u64>() {
                Ok(megabytes) => megabytes.checked_mul(1 << 20),
                Err(_) => parse_size(text),
            }
            .filter(|bytes| (min..=max).contains(bytes))
            .map(Value::Size),
            Kind::Seconds { max } => {
                let ms = parse_duration_ms(text, 1000).filter(|ms| ms.is_multiple_of(1000))?;
                within(seconds(ms), 0, max).ok()
            }
            Kind::Word(words) => {
                let word = words.iter().find(|word| word.eq_ignore_ascii_case(text))?;
                Some(Value::Text((*word).to_owned()))
            }
            Kind::LogLevel => {
                let level = LogLevel::from_word(text).or_else(|| found(REDIS_LEVELS, text))?;
                Some(Value::Text(level.as_str().to_owned()))
            }
            Kind::EvictionPolicy => {
                let policy =
                    EvictionPolicy::from_word(text).or_else(|| found(SHORT_POLICIES, text))?;
                Some(Value::Text(policy.as_str().to_owned()))
            }
            Kind::Text | Kind::Secret | Kind::Path => {
                (!text.chars().any(char::is_control)).then(|| Value::Text(text.to_owned()))
            }
            Kind::Addresses => Some(Value::Text(special::addresses(text)?.join(" "))),
            Kind::MappedBranches { min, max, .. } => {
                let mapped = special::mapped_branches(text)?;
                let are_in_range = mapped.iter().all(|one| (min..=max).contains(&one.number));
                are_in_range.then(|| Value::Text(text.to_owned()))
            }
            Kind::Schedule => {
                let words: Vec<&str> = text.split_ascii_whitespace().collect();
                let text = words.join(" ");
                let is_one = text.is_empty() || Schedule::parse(&text).is_some();
                is_one.then_some(Value::Text(text))
            }
            Kind::Events => Some(Value::Text(special::canonical_events(text)?)),
            Kind::OutputBuffers => {
                special::OutputLimits::default().merge(text).ok()?;
                Some(Value::Text(text.to_owned()))
            }
            Kind::SavePoints => {
                let points: Vec<&str> = text.split_ascii_whitespace().collect();
                special::are_save_points(text).then(|| Value::Text(points.join(" ")))
            }
        }
    }

    /// Reads a value as `CONFIG SET` spells it.
    ///
    /// # Errors
    /// What is wrong with it, in Redis's words where Redis has some.
    pub fn parse_redis(self, bytes: &[u8]) -> Result<Value, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "argument must be UTF-8".to_owned())?;
        match self {
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "yes" => Ok(Value::Bool(true)),
                "no" => Ok(Value::Bool(false)),
                _ => Err("argument must be 'yes' or 'no'".to_owned()),
            },
            Kind::Integer { min, max } => integer_between(bytes, min, max),
            Kind::Seconds { max } => match parse_duration_ms(text, 1000) {
                Some(ms) if ms.is_multiple_of(1000) => within(seconds(ms), 0, max),
                _ => integer_between(bytes, 0, max),
            },
            Kind::Size { min, max } | Kind::Megabytes { min, max } => match parse_size(text) {
                None => Err("argument must be a memory value".to_owned()),
                Some(bytes) if (min..=max).contains(&bytes) => Ok(Value::Size(bytes)),
                Some(_) => Err(format!("argument must be between {min} and {max} inclusive")),
            },
            Kind::Word(words) => self.parse(text).ok_or_else(|| one_of(words)),
            Kind::EvictionPolicy => self.parse(text).ok_or_else(|| one_of(EvictionPolicy::WORDS)),
            Kind::LogLevel => self.parse(text).ok_or_else(|| {
                one_of(&["debug", "verbose", "notice", "warning", "nothing", "trace"])
            }),
            Kind::OutputBuffers => special::OutputLimits::default()
                .merge(text)
                .map(|_| Value::Text(text.to_owned()))
                .map_err(str::to_owned),
            Kind::Events => self
                .parse(text)
                .ok_or_else(|| "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned()),
            Kind::SavePoints => {
                self.parse(text).ok_or_else(|| "Invalid save parameters".to_owned())
            }
            Kind::Text
            | Kind::Path
            | Kind::Secret
            | Kind::Addresses
            | Kind::MappedBranches { .. }
            | Kind::Schedule => {
                self.parse(text).ok_or_else(|| format!("expected {}", self.expected()))
            }
        }
    }

    /// Writes a value as `CONFIG GET` shows it.
    #[must_use]
    pub fn show_redis(self, value: &Value) -> String {
        match (self, value) {
            (_, Value::Bool(true)) => "yes".to_owned(),
            (_, Value::Bool(false)) => "no".to_owned(),
            (_, Value::Integer(number)) => number.to_string(),
            (_, Value::Size(bytes)) => bytes.to_string(),
            (Kind::LogLevel, Value::Text(word)) => REDIS_LEVELS
                .iter()
                .find(|(_, level)| level.as_str() == word)
                .map_or_else(|| word.clone(), |(redis, _)| (*redis).to_owned()),
            (_, Value::Text(text)) => text.clone(),
        }
    }

    /// The value as it stands in a TOML file.
    pub(crate) fn to_toml(self, value: &Value) -> toml_edit::Value {
        match value {
            Value::Bool(yes) => (*yes).into(),
            Value::Integer(seconds) if matches!(self, Kind::Seconds { .. }) && *seconds > 0 => {
                format!("{seconds}s").into()
            }
            Value::Integer(number) => (*number).into(),
            Value::Size(0) => 0.into(),
            Value::Size(bytes) => show_size(*bytes).into(),
            Value::Text(text) if self == Kind::OutputBuffers => show_output_buffers(text).into(),
            Value::Text(text) => text.as_str().into(),
        }
    }
}

/// Output buffer limits for people: units, and `replica` where Redis's layout
/// says `slave`.
fn show_output_buffers(text: &str) -> String {
    let words = text.split(' ').enumerate().map(|(i, word)| match (i % 4, word) {
        (0, "slave") => "replica".to_owned(),
        (1 | 2, bytes) => {
            parse_size(bytes).filter(|&b| b > 0).map_or_else(|| bytes.to_owned(), show_size)
        }
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Bytes in the largest unit that loses nothing.
fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TB"), (30, "GB"), (20, "MB"), (10, "KB")] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

fn integer_between(bytes: &[u8], min: i64, max: i64) -> Result<Value, String> {
    match parse_i64(bytes) {
        None => Err("argument couldn't be parsed into an integer".to_owned()),
        Some(number) => within(number, min, max),
    }
}

fn within(number: i64, min: i64, max: i64) -> Result<Value, String> {
    match (min..=max).contains(&number) {
        true => Ok(Value::Integer(number)),
        false => Err(format!("argument must be between {min} and {max} inclusive")),
    }
}

/// Whole seconds of so many milliseconds.
fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).expect("a thousandth of 64 bits fits")
}

fn one_of(words: &[&str]) -> String {
    format!("argument(s) must be one of the following: {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_expects() {
        let int = Kind::Integer { min: 0, max: 10 };
        let size = Kind::Size { min: 0, max: u64::MAX };
        let seconds = Kind::Seconds { max: 1000 };
        let megabytes = Kind::Megabytes { min: 1 << 20, max: u64::MAX };
        let word = Kind::Word(&["always", "no"]);
        for (kind, text, expected) in [
            (Kind::Bool, "yes", Some(Value::Bool(true))),
            (Kind::Bool, "FALSE", Some(Value::Bool(false))),
            (Kind::Bool, "maybe", None),
            (int, "10", Some(Value::Integer(10))),
            (int, "11", None),
            (int, "-1", None),
            (int, "1.5", None),
            (size, "1GB", Some(Value::Size(1 << 30))),
            (size, "1 parsec", None),
            (megabytes, "512", Some(Value::Size(512 << 20))),
            (megabytes, "1GB", Some(Value::Size(1 << 30))),
            (megabytes, "1048576B", Some(Value::Size(1 << 20))),
            (megabytes, "1kb", None),
            (megabytes, "18446744073709551615", None),
            (seconds, "5m", Some(Value::Integer(300))),
            (seconds, "300", Some(Value::Integer(300))),
            (seconds, "1500ms", None),
            (seconds, "1h", None),
            (word, "ALWAYS", Some(Value::Text("always".to_owned()))),
            (word, "never", None),
            (Kind::LogLevel, "warning", Some(Value::Text("warn".to_owned()))),
            (Kind::Path, "a\nb", None),
        ] {
            assert_eq!(kind.parse(text), expected, "{kind:?} {text:?}");
        }
    }

    #[test]
    fn speaks_redis() {
        let words = |kind: Kind, text: &str| kind.parse_redis(text.as_bytes()).unwrap_err();
        assert_eq!(words(Kind::Bool, "1"), "argument must be 'yes' or 'no'");
        let int = Kind::Integer { min: 1, max: 10 };
        assert_eq!(words(int, "x"), "argument couldn't be parsed into an integer");
        assert_eq!(words(int, "0"), "argument must be between 1 and 10 inclusive");
        let size = Kind::Size { min: 0, max: u64::MAX };
        assert_eq!(words(size, "-1"), "argument must be a memory value");
        assert_eq!(
            words(Kind::Word(&["always", "everysec"]), "x"),
            "argument(s) must be one of the following: always, everysec"
        );
        let seconds = Kind::Seconds { max: 1000 };
        for (text, expected) in [("300", 300), ("5m", 300), ("1m30s", 90), ("2000ms", 2)] {
            assert_eq!(
                seconds.parse_redis(text.as_bytes()),
                Ok(Value::Integer(expected)),
                "{text}"
            );
        }
        assert_eq!(words(seconds, "1h"), "argument must be between 0 and 1000 inclusive");
        assert_eq!(words(seconds, "-1"), "argument must be between 0 and 1000 inclusive");
        for bad in ["1500ms", "5 m", "5M", ""] {
            assert_eq!(words(seconds, bad), "argument couldn't be parsed into an integer", "{bad}");
        }
        assert_eq!(Kind::LogLevel.show_redis(&Value::Text("info".to_owned())), "notice");
        assert_eq!(Kind::Bool.parse_redis(b"\xff"), Err("argument must be UTF-8".to_owned()));
    }

    #[test]
    fn sizes_lose_nothing() {
        for bytes in [0, 1, 1023, 1024, 1 << 20, (1 << 20) + 1, 3 << 30, 1 << 40, u64::MAX] {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
    }
}
