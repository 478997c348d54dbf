//! `alcid backup` and `alcid restore`.

use std::path::{Path, PathBuf};

use archive::backup::{self, Goal, Wanted};
use base::units::human_size;
use base::when::{When, utc};
use base::{Clock, Frame, Revision, SeededRng, SystemClock};
use clap::{ArgAction, Args, Subcommand};
use client::{Client, ClientError, Options};

/// `alcid backup …`
// -h is the host, as in redis-cli.
#[derive(Args)]
#[command(
    disable_help_flag = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct BackupArgs {
    #[command(subcommand)]
    command: Option<BackupCommand>,

    /// The folder of the backup, on the server's machine: empty, not there yet, or with an older backup of the same
    /// database, of which only what has changed since is copied.
    #[arg(long, value_name = "PATH", required = true)]
    to: Option<PathBuf>,

    /// Leave the history out: then only states from the archive's on can be restored.
    #[arg(long)]
    no_history: bool,

    /// The server's host.
    #[arg(short = 'h', long, default_value = "127.0.0.1")]
    host: String,

    /// The server's port.
    #[arg(short, long, default_value_t = 6379)]
    port: u16,

    /// User to authenticate as.
    #[arg(long, requires = "password")]
    user: Option<String>,

    /// Password; the variable keeps it out of the list of processes.
    #[arg(short = 'a', long, env = "ALCID_PASSWORD", hide_env_values = true)]
    password: Option<String>,

    /// Print help.
    #[arg(long, action = ArgAction::Help, global = true)]
    help: Option<bool>,
}

#[derive(Subcommand)]
#[command(disable_help_subcommand = true)]
enum BackupCommand {
    /// Read every file of a backup and compare it with its checksum. Status 1 if anything is wrong.
    Verify {
        /// The folder of the backup.
        #[arg(value_name = "PATH")]
        dir: PathBuf,
    },
}

/// `alcid restore …`
#[derive(Args)]
pub struct RestoreArgs {
    /// The folder of the backup.
    #[arg(long, value_name = "PATH")]
    from: PathBuf,

    /// The data folder to make: empty, or not there yet.
    #[arg(long, value_name = "PATH")]
    data_dir: PathBuf,

    /// The state to restore: a revision (r:12345), a time (2026-11-21T03:12:00Z, or milliseconds since 1970), so long
    /// before the backup was made (-10m, -2h30m), or the revision that a tag names (tag:v1). [default: the newest]
    #[arg(long, value_name = "WHEN", value_parser = parse_at, allow_hyphen_values = true)]
    at: Option<At>,

    /// Restore this branch alone, as main of the new folder.
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,

    /// Restore only keys that begin with this, of all databases of one branch: the one that --branch names, or the
    /// tag's, or main.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,

    /// Leave the history out: then of what came before only states that tags and branches keep can be read.
    #[arg(long)]
    no_history: bool,
}

/// What `--at` names.
#[derive(Clone)]
enum At {
    When(When),
    Tag(String),
}

fn parse_at(text: &str) -> Result<At, String> {
    if let Some(name) = text.strip_prefix("tag:") {
        return Ok(At::Tag(name.to_owned()));
    }
    // Beside an argument's name, the first word says nothing.
    let when = command::parse_when(text.as_bytes()).map(At::When);
    when.map_err(|error| error.text().trim_start_matches("ERR ").to_owned())
}

/// Runs `alcid backup …`.
///
/// # Errors
/// Why there is no backup, or what is wrong with the one that was checked.
pub fn back_up(args: &BackupArgs) -> Result<(), String> {
    if let Some(BackupCommand::Verify { dir }) = &args.command {
        return verify(dir);
    }
    let to = args.to.as_deref().unwrap_or(Path::new(""));
    let to = std::path::absolute(to).map_err(|error| format!("{}: {error}", to.display()))?;
    let folder = to.to_str().ok_or_else(|| format!("{} is not UTF-8", to.display()))?;
    let host = args.host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let mut options = Options::new(format!("{host}:{}", args.port));
    options.user.clone_from(&args.user);
    options.password.clone_from(&args.password);
    let text = |error: ClientError| error.root().to_string();
    let mut client = Client::connect(options).map_err(text)?;
    let mut words = vec!["BACKUP", "TO", folder];
    words.extend(args.no_history.then_some("NOHISTORY"));
    let reply = client.command(&words).map_err(text)?;
    let field = |name: &str| -> Result<u64, String> {
        let Frame::Array(items) = &reply else { return Err(format!("an odd reply: {reply:?}")) };
        let found = items.chunks_exact(2).find_map(|pair| match pair {
            [Frame::Bulk(field), Frame::Integer(value)] if field == name.as_bytes() => {
                u64::try_from(*value).ok()
            }
            _ => None,
        });
        found.ok_or_else(|| format!("the reply has no {name}: {reply:?}"))
    };
    println!(
        "Every state from revision {} to {} is in {}.",
        field("oldest")?,
        field("revision")?,
        to.display()
    );
    println!(
        "{} files, {}; {} of them, {}, were new. It took {} ms.",
        field("files")?,
        human_size(field("bytes")?),
        field("copied")?,
        human_size(field("copied_bytes")?),
        field("ms")?
    );
    Ok(())
}

fn verify(dir: &Path) -> Result<(), String> {
    let verified = backup::verify(dir).map_err(|error| error.to_string())?;
    let contents = &verified.contents;
    println!(
        "Database {}, every state from revision {} to {}, the newest of {}.",
        contents.database,
        contents.oldest(),
        contents.newest(),
        contents.newest_time
    );
    if verified.unnamed > 0 {
        println!(
            "Files that an interrupted backup left: {}; the next backup removes them.",
            verified.unnamed
        );
    }
    let (files, size) = (contents.files.len(), human_size(contents.bytes()));
    if verified.problems.is_empty() {
        println!("{files} files, {size}: all are whole.");
        return Ok(());
    }
    let problems = verified.problems.join("\n");
    Err(format!(
        "{problems}\n{} of {files} files are damaged: no state can be restored that needs them.",
        verified.problems.len()
    ))
}

/// Runs `alcid restore …`.
///
/// # Errors
/// Why nothing was restored.
pub fn restore(args: &RestoreArgs) -> Result<(), String> {
    // What is restored is its owner's alone, as what a server makes.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let began_ns = SystemClock.monotonic_ns();
    let contents = backup::Contents::read(&args.from).map_err(|error| error.to_string())?;
    let goal = match &args.at {
        None => Goal::Newest,
        Some(At::When(When::Revision(revision))) => Goal::Revision(*revision),
        Some(At::When(When::Time(ms))) => Goal::Time(*ms),
        Some(At::When(When::Ago(ms))) => Goal::Time(contents.newest_ms.saturating_sub(*ms)),
        Some(At::Tag(name)) => Goal::Tag(name.clone().into_bytes()),
    };
    let bytes = |text: &Option<String>| text.clone().map(String::into_bytes);
    let (branch, prefix) = (bytes(&args.branch), bytes(&args.prefix));
    let wanted = Wanted { goal, branch, prefix, history: !args.no_history };
    let mut rng = SeededRng::from_system();
    let restored = backup::restore(&args.from, &args.data_dir, &wanted, &SystemClock, &mut rng)
        .map_err(|error| error.to_string())?;
    let seconds = (SystemClock.monotonic_ns() - began_ns) as f64 / 1e9;
    let time = match restored.revision {
        Revision::ZERO => "the empty database".to_owned(),
        _ => format!("of {}", utc(restored.time_ms)),
    };
    let of = match restored.branch.as_deref().filter(|name| *name != "main") {
        Some(name) => format!(" of the branch '{name}'"),
        None => String::new(),
    };
    println!(
        "Restored revision {}{of}, {time}: {} keys in {seconds:.1} s.",
        restored.revision, restored.keys
    );
    match restored.oldest == restored.revision {
        true => {
            println!("Of what came before, only states that tags and branches keep can be read.")
        }
        false => println!("Every state from revision {} on can be read.", restored.oldest),
    }
    println!("Serve it with `alcid server --data-dir {}`.", args.data_dir.display());
    Ok(())
}
