use clap::{Args, value_parser};

/// Load a server and measure it; with --verify, check its answers
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  alcid bench -t set,get -n 1000000 -r 100000 -P 16
  alcid bench -t set,get,incr --verify
  alcid bench --duration 30s --json -- HSET user:__rand_int__ name __data__")]
pub struct BenchArgs {
    /// Server to load
    #[arg(short, long, value_name = "HOST:PORT", conflicts_with_all = ["host", "port"])]
    pub addr: Option<String>,

    /// Host of the server [default: 127.0.0.1]
    #[arg(long)]
    pub host: Option<String>,

    /// Port of the server [default: 6379]
    #[arg(short, long, value_parser = value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// User to authenticate as [default: default]
    #[arg(long, requires = "password")]
    pub user: Option<String>,

    /// Password to authenticate with
    #[arg(long, env = "ALCID_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,

    /// Database number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub db: u16,

    /// Parallel connections
    #[arg(short, long, value_name = "COUNT", default_value_t = 50)]
    #[arg(value_parser = value_parser!(u32).range(1..=60_000))]
    pub clients: u32,

    /// Requests of each test
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100_000)]
    #[arg(value_parser = value_parser!(u64).range(1..))]
    pub requests: u64,

    /// Run each test for this long instead: 500ms, 30s, 10m
    #[arg(long, value_name = "TIME", conflicts_with = "requests", value_parser = duration_ms)]
    pub duration: Option<u64>,

    /// Requests a connection sends before it waits for replies
    #[arg(short = 'P', long, value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = value_parser!(u32).range(1..=100_000))]
    pub pipeline: u32,

    /// Draw keys, fields and members from this many at random
    #[arg(short = 'r', long, value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = value_parser!(u32).range(1..))]
    pub keyspace: u32,

    /// Bytes of a value: 3, 1kb, 2mb
    #[arg(short = 'd', long, value_name = "SIZE", default_value = "3", value_parser = value_size)]
    pub size: u64,

    /// Tests to run, separated by commas [default: all]
    #[arg(short, long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "command")]
    pub tests: Vec<String>,

    /// Threads that drive the connections
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    #[arg(value_parser = value_parser!(u32).range(1..=512))]
    pub threads: u32,

    /// Speak RESP3
    #[arg(short = '3', long)]
    pub resp3: bool,

    /// Run this command on every connection first: 'CLIENT REPLYREV ON'
    #[arg(long, value_name = "COMMAND")]
    pub setup: Option<String>,

    /// Start of the random sequence; equal seeds give equal requests
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// Check every answer and the data afterwards; exit with 1 on a mismatch.
    /// Overwrites key:* and empties mylist, myset, myzset and myhash first
    #[arg(long, conflicts_with = "command")]
    pub verify: bool,

    /// Give up when the server is silent for this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration_ms)]
    pub timeout: u64,

    /// One line a test
    #[arg(short, long, conflicts_with_all = ["csv", "json"])]
    pub quiet: bool,

    /// One CSV row a test
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,

    /// One JSON object for the whole run
    #[arg(long)]
    pub json: bool,

    /// Show progress on stderr even when it is no terminal
    #[arg(long)]
    pub progress: bool,

    /// A command to run instead of the tests, after `--`. __rand_int__ stands
    /// for a random number below --keyspace, __data__ for a value
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// The longest value Redis accepts.
const VALUE_BYTES_MAX: u64 = 512 * 1024 * 1024;

fn value_size(text: &str) -> Result<u64, String> {
    let size = base::units::parse_size(text)
        .ok_or("not a size; write bytes or a unit, such as 100, 64kb, 1mb")?;
    if (1..=VALUE_BYTES_MAX).contains(&size) {
        Ok(size)
    } else {
        Err(format!("{size} bytes is not in 1..={VALUE_BYTES_MAX}"))
    }
}

fn duration_ms(text: &str) -> Result<u64, String> {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let ms = base::units::parse_duration_ms(text, 1000)
        .ok_or("not a duration; write seconds or a unit, such as 500ms, 30s, 10m")?;
    if (1..=DAY_MS).contains(&ms) { Ok(ms) } else { Err(format!("{ms}ms is not in 1ms..=1d")) }
}
