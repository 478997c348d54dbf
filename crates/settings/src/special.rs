//! Settings whose values have a grammar of their own.

use std::fmt;
use std::net::IpAddr;

/// When a client that does not read its replies is disconnected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// Bytes at which it is disconnected at once; 0 without limit.
    pub hard_bytes: u64,
    /// Bytes it may not exceed for `soft_seconds`; 0 without limit.
    pub soft_bytes: u64,
    /// Seconds above the soft limit.
    pub soft_seconds: u64,
}

/// [`OutputLimit`]s of the three classes of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    /// Clients that only send commands, `MONITOR` included.
    pub normal: OutputLimit,
    /// Followers.
    pub replica: OutputLimit,
    /// Clients with a subscription.
    pub pubsub: OutputLimit,
}

impl Default for OutputLimits {
    fn default() -> OutputLimits {
        OutputLimits {
            // Redis leaves normal clients without a limit; one client that
            // does not read could then take all memory.
            normal: OutputLimit { hard_bytes: 1 << 30, soft_bytes: 256 << 20, soft_seconds: 60 },
            replica: OutputLimit { hard_bytes: 256 << 20, soft_bytes: 64 << 20, soft_seconds: 60 },
            pubsub: OutputLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_seconds: 60 },
        }
    }
}

impl OutputLimits {
    /// Reads `class hard soft seconds …` over `self`; classes that are not
    /// named keep their limits.
    ///
    /// # Errors
    /// Redis's words for what is wrong.
    pub(crate) fn merge(mut self, text: &str) -> Result<OutputLimits, &'static str> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        if words.is_empty() || !words.len().is_multiple_of(4) {
            return Err("Wrong number of arguments in buffer limit configuration.");
        }
        for group in words.chunks_exact(4) {
            let class = match group[0].to_ascii_lowercase().as_str() {
                "normal" => &mut self.normal,
                "replica" | "slave" => &mut self.replica,
                "pubsub" => &mut self.pubsub,
                _ => return Err("Invalid client class specified in buffer limit configuration."),
            };
            let size = base::units::parse_size;
            let (Some(hard_bytes), Some(soft_bytes), Ok(soft_seconds)) =
                (size(group[1]), size(group[2]), group[3].parse::<u32>())
            else {
                return Err(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
                );
            };
            *class = OutputLimit { hard_bytes, soft_bytes, soft_seconds: u64::from(soft_seconds) };
        }
        Ok(self)
    }
}

/// Redis's layout; followers are called `slave` there to this day.
impl fmt::Display for OutputLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let classes = [("normal", self.normal), ("slave", self.replica), ("pubsub", self.pubsub)];
        for (i, (name, limit)) in classes.into_iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            let OutputLimit { hard_bytes, soft_bytes, soft_seconds } = limit;
            write!(f, "{space}{name} {hard_bytes} {soft_bytes} {soft_seconds}")?;
        }
        Ok(())
    }
}

/// Every class that `A` stands for, in Redis's order.
const ALL_CLASSES: &str = "g$lshzxetd";
/// Every other letter, in Redis's order.
const MORE_CLASSES: &str = "KEmn";

/// The letters of `notify-keyspace-events` in Redis's canonical order; `None`
/// when one is unknown.
pub(crate) fn canonical_events(text: &str) -> Option<String> {
    if !text.chars().all(|c| c == 'A' || ALL_CLASSES.contains(c) || MORE_CLASSES.contains(c)) {
        return None;
    }
    let has = |c: char| text.contains(c) || (text.contains('A') && ALL_CLASSES.contains(c));
    let mut out = String::new();
    if ALL_CLASSES.chars().all(has) {
        out.push('A');
    } else {
        out.extend(ALL_CLASSES.chars().filter(|&c| has(c)));
        if has('n') {
            out.push('n');
        }
    }
    out.extend(['K', 'E', 'm'].into_iter().filter(|&c| has(c)));
    // Redis forgets `n` beside `A`; the setting would then not survive
    // CONFIG REWRITE, so it is kept here.
    if out.starts_with('A') && has('n') {
        out.push('n');
    }
    Some(out)
}

/// A number that stands for a database of a branch: a port, or what `SELECT`
/// takes beyond the numbers of databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedBranch {
    /// The number.
    pub number: u32,
    /// The branch's name. It need not exist.
    pub branch: String,
    /// The branch's database.
    pub db: u16,
}

/// Reads `number=branch` and `number=branch:database`, separated by spaces or
/// commas. `None` when one is neither, or a number comes twice.
#[must_use]
pub fn mapped_branches(text: &str) -> Option<Vec<MappedBranch>> {
    let mut found: Vec<MappedBranch> = Vec::new();
    for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
        let (number, place) = word.split_once('=')?;
        let (branch, db) = match place.split_once(':') {
            Some((branch, db)) => (branch, db.parse().ok()?),
            None => (place, 0),
        };
        let number = number.parse().ok()?;
        let is_new = found.iter().all(|other| other.number != number);
        if !base::is_name(branch.as_bytes()) || !is_new {
            return None;
        }
        found.push(MappedBranch { number, branch: branch.to_owned(), db });
    }
    Some(found)
}

/// Splits addresses to bind; `*` is every IPv4 address. `None` when one is
/// neither an IP address nor a host name.
pub(crate) fn addresses(text: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    for word in text.split(|c: char| c.is_ascii_whitespace() || c == ',') {
        match word {
            "" => continue,
            "*" => out.push("0.0.0.0".to_owned()),
            _ => {
                let bare = word.strip_prefix('[').and_then(|w| w.strip_suffix(']')).unwrap_or(word);
                let is_host_name = bare.len() <= 253
                    && bare.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && bare.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
                // "300.0.0.1" is a mistyped address, not a host.
                let is_number = bare.chars().all(|c| c.is_ascii_digit() || c == '.');
                if bare.parse::<IpAddr>().is_err() && (!is_host_name || is_number) {
                    return None;
                }
                out.push(bare.to_owned());
            }
        }
    }
    (!out.is_empty()).then_some(out)
}

/// Takes the port off `host:port` and `[v6]:port`; `None` when there is none.
pub(crate) fn split_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_v6 = host.starts_with('[') && host.ends_with(']');
    let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    (is_port && !host.is_empty() && (is_v6 || !host.contains(':'))).then_some((host, port))
}

/// Whether only this machine can reach a listener on `host`.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// Whether `text` is a list of Redis's save points: seconds of at least 1 and
/// changes of at least 0, in turn.
pub(crate) fn are_save_points(text: &str) -> bool {
    let numbers: Option<Vec<u64>> =
        text.split_ascii_whitespace().map(|word| word.parse().ok()).collect();
    numbers.is_some_and(|numbers| {
        numbers.len().is_multiple_of(2) && numbers.iter().step_by(2).all(|&seconds| seconds >= 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_limits_merge_by_class() {
        let base = OutputLimits::default();
        let merged = base.merge("pubsub 1kb 512 5 slave 0 0 0").unwrap();
        assert_eq!(merged.normal, base.normal);
        assert_eq!(merged.replica, OutputLimit::default());
        assert_eq!(
            merged.pubsub,
            OutputLimit { hard_bytes: 1024, soft_bytes: 512, soft_seconds: 5 }
        );
        assert_eq!(base.merge(&merged.to_string()), Ok(merged));
        for bad in ["", "normal 1 2", "master 1 2 3", "normal x 2 3", "normal 1 2 -3"] {
            assert!(base.merge(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn events_are_put_in_order() {
        for (given, canonical) in [
            ("", Some("")),
            ("KEA", Some("AKE")),
            ("Elg", Some("glE")),
            ("g$lshzxetd", Some("A")),
            ("KEAn", Some("AKEn")),
            ("Kn", Some("nK")),
            ("KEZ", None),
        ] {
            assert_eq!(canonical_events(given).as_deref(), canonical, "{given}");
        }
    }

    #[test]
    fn addresses_and_ports() {
        assert_eq!(addresses("127.0.0.1 ::1").unwrap(), ["127.0.0.1", "::1"]);
        assert_eq!(addresses("*").unwrap(), ["0.0.0.0"]);
        assert_eq!(addresses("[::]").unwrap(), ["::"]);
        assert_eq!(addresses("db-1.example.org").unwrap(), ["db-1.example.org"]);
        for bad in ["", "300.0.0.1", "a b/c", "-x", "host:1"] {
            assert_eq!(addresses(bad), None, "{bad:?}");
        }
        assert_eq!(split_port("0.0.0.0:7000"), Some(("0.0.0.0", "7000")));
        assert_eq!(split_port("[::1]:7000"), Some(("[::1]", "7000")));
        for bare in ["::1", "localhost", "host:", "host:x", ":80"] {
            assert_eq!(split_port(bare), None, "{bare}");
        }
        assert!(is_loopback("127.8.8.8") && is_loopback("::1") && is_loopback("LocalHost"));
        assert!(is_loopback("::ffff:127.0.0.1"));
        assert!(!is_loopback("0.0.0.0") && !is_loopback("localhost.example.org"));
    }

    #[test]
    fn numbers_of_branches() {
        let mapped = |number, branch: &str, db| MappedBranch { number, branch: branch.into(), db };
        assert_eq!(mapped_branches(""), Some(Vec::new()));
        assert_eq!(
            mapped_branches("100=dev, 101=dev:1 4294967295=a/b-c_1.2"),
            Some(vec![
                mapped(100, "dev", 0),
                mapped(101, "dev", 1),
                mapped(u32::MAX, "a/b-c_1.2", 0)
            ])
        );
        let long = format!("1={}", "x".repeat(base::NAME_BYTES_MAX + 1));
        for bad in [
            "dev",
            "1=",
            "=dev",
            "x=dev",
            "-1=dev",
            "4294967296=dev",
            "1=dev:",
            "1=dev:65536",
            "1=-dev",
            "1=d ev",
            "1=d@v",
            "1=a 1=b",
            &long,
        ] {
            assert_eq!(mapped_branches(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn save_points() {
        assert!(are_save_points("") && are_save_points("3600 1 300 100"));
        assert!(!are_save_points("3600") && !are_save_points("0 1") && !are_save_points("x 1"));
    }
}
