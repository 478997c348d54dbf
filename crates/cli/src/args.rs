use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use base::units::parse_duration_ms;
use clap::{Args, ValueEnum};

/// How replies are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// As redis-cli on a terminal: `"text"`, `(integer) 1`, `(nil)`.
    Redis,
    /// The bytes themselves, one element a line.
    Raw,
    /// One JSON value a reply.
    Json,
    /// Aggregates as a table.
    Table,
}

/// What `alcid cli` can be told.
#[derive(Args, Clone, Debug)]
pub struct CliArgs {
    /// The server; an address as first argument does the same.
    /// [default: 127.0.0.1:6379]
    #[arg(short, long = "addr", visible_alias = "address", value_name = "HOST:PORT")]
    pub addr: Option<String>,

    /// User to authenticate as.
    #[arg(long, requires = "password")]
    pub user: Option<String>,

    /// Password; the variable keeps it out of the list of processes.
    #[arg(long, env = "ALCID_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,

    /// Database number.
    #[arg(short = 'n', long = "db", default_value_t = 0, value_name = "NUM")]
    pub db: u16,

    /// Speak RESP3. JSON and tables do so by themselves where the server can.
    #[arg(short = '3', long = "resp3")]
    pub resp3: bool,

    /// Give up on a connection or a reply after this time; bare numbers are
    /// seconds.
    #[arg(long, value_name = "SECONDS", value_parser = parse_timeout)]
    pub timeout: Option<Duration>,

    /// How replies are printed. [default: redis; raw for a single command]
    #[arg(long, value_enum)]
    pub format: Option<Format>,

    /// A command in one argument, as typed at the prompt; may be repeated.
    #[arg(short = 'e', long = "eval", value_name = "COMMAND", conflicts_with = "pipe")]
    pub eval: Vec<String>,

    /// Read commands from a file, one a line; `-` is standard input. Empty
    /// lines and lines that begin with # are passed over.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["eval", "pipe"])]
    pub file: Option<PathBuf>,

    /// Send many requests fast: RESP or lines from standard input, answered
    /// with their number and their errors.
    #[arg(short, long)]
    pub pipe: bool,

    /// One command, a word an argument, behind HOST:PORT if wanted; or several,
    /// each a quoted argument. Nothing: a prompt, or lines of standard input.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub words: Vec<OsString>,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    parse_duration_ms(text, 1000)
        .filter(|&ms| ms > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| "expected seconds or a duration such as 500ms or 2m".to_owned())
}

/// Where the commands come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// One command, already split into words.
    One(Vec<Vec<u8>>),
    /// Command lines.
    Lines(Vec<Vec<u8>>),
    /// Lines of a file.
    File(PathBuf),
    /// Raw requests on standard input.
    Pipe,
    /// The prompt, or lines of standard input when that is no terminal.
    Interactive,
}

impl CliArgs {
    /// The server's address.
    pub(crate) fn address(&self) -> &str {
        let named = self.addr.as_deref().or_else(|| self.leading_address());
        named.unwrap_or("127.0.0.1:6379")
    }

    /// The address in the place of the first word.
    fn leading_address(&self) -> Option<&str> {
        let first = self.words.first()?.to_str()?;
        (self.addr.is_none() && is_address(first)).then_some(first)
    }

    pub(crate) fn work(&self) -> Work {
        let words = &self.words[usize::from(self.leading_address().is_some())..];
        if self.pipe {
            return Work::Pipe;
        }
        if let Some(file) = &self.file {
            return Work::File(file.clone());
        }
        let bytes = |word: &OsString| word.clone().into_encoded_bytes();
        let mut lines: Vec<Vec<u8>> =
            self.eval.iter().map(|line| line.clone().into_bytes()).collect();
        // No command has a blank in its name: the arguments are whole lines.
        let holds_lines =
            words.first().is_some_and(|first| bytes(first).iter().any(u8::is_ascii_whitespace));
        if holds_lines {
            lines.extend(words.iter().map(bytes));
        } else if !words.is_empty() {
            let words: Vec<Vec<u8>> = words.iter().map(bytes).collect();
            if lines.is_empty() {
                return Work::One(words);
            }
            lines.push(words.join(&b' '));
        }
        if lines.is_empty() { Work::Interactive } else { Work::Lines(lines) }
    }
}

/// Whether `word` is `host:port`. No command has a colon in its name.
fn is_address(word: &str) -> bool {
    word.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    #[command(no_binary_name = true)]
    struct Probe {
        #[command(flatten)]
        cli: CliArgs,
    }

    fn parse(words: &[&str]) -> CliArgs {
        Probe::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).cli
    }

    fn one(words: &[&str]) -> Work {
        Work::One(words.iter().map(|word| word.as_bytes().to_vec()).collect())
    }

    #[test]
    fn addresses_in_every_spelling() {
        for words in [
            &["-a", "h:1", "ping"][..],
            &["--addr", "h:1", "ping"],
            &["--address", "h:1", "ping"],
            &["h:1", "ping"],
        ] {
            let args = parse(words);
            assert_eq!((args.address(), args.work()), ("h:1", one(&["ping"])), "{words:?}");
        }
        assert_eq!(parse(&[]).address(), "127.0.0.1:6379");
        assert_eq!(parse(&["[::1]:7000"]).address(), "[::1]:7000");
        // With an address given, a first word with a colon is a command.
        assert_eq!(parse(&["-a", "h:1", "x:1"]).work(), one(&["x:1"]));
    }

    #[test]
    fn where_commands_come_from() {
        assert_eq!(parse(&[]).work(), Work::Interactive);
        assert_eq!(parse(&["h:1"]).work(), Work::Interactive);
        assert_eq!(parse(&["set", "a", "b c"]).work(), one(&["set", "a", "b c"]));
        assert_eq!(parse(&["lrange", "l", "0", "-1"]).work(), one(&["lrange", "l", "0", "-1"]));
        assert_eq!(parse(&["--", "-weird"]).work(), one(&["-weird"]));
        let lines = |lines: &[&str]| {
            Work::Lines(lines.iter().map(|line| line.as_bytes().to_vec()).collect())
        };
        assert_eq!(parse(&["set a 1", "get a"]).work(), lines(&["set a 1", "get a"]));
        assert_eq!(parse(&["-e", "set a 1", "-e", "get a"]).work(), lines(&["set a 1", "get a"]));
        assert_eq!(parse(&["-e", "ping", "get", "a"]).work(), lines(&["ping", "get a"]));
        assert_eq!(parse(&["--file", "x"]).work(), Work::File("x".into()));
        assert_eq!(parse(&["-p"]).work(), Work::Pipe);
    }

    #[test]
    fn timeouts() {
        assert_eq!(parse(&["--timeout", "2", "ping"]).timeout, Some(Duration::from_secs(2)));
        assert_eq!(parse(&["--timeout", "50ms"]).timeout, Some(Duration::from_millis(50)));
        for bad in ["0", "-1", "soon"] {
            assert!(Probe::try_parse_from(["--timeout", bad]).is_err(), "{bad}");
        }
        assert!(Probe::try_parse_from(["--user", "ada"]).is_err());
    }
}
