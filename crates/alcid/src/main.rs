//! The `alcid` binary: configuration, wiring and sub-commands.

mod archiving;
mod args;
mod backup;
mod config_cmd;
mod descriptors;
mod disk;
mod forest;
mod lag;
mod listeners;
mod logging;
mod past;
mod pins;
mod rotation;
mod server;
mod signals;
mod storage;
#[cfg(test)]
mod testing;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::args::ServerArgs;
use crate::backup::{BackupArgs, RestoreArgs};
use crate::config_cmd::{ConfigCommand, ConfigError, Surroundings};

/// Small values come and go by the million: mimalloc keeps them denser and
/// serves them faster than the system's allocator (docs/decisions/0001).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A key-value database that speaks Redis and keeps what it acknowledged.
#[derive(Parser)]
#[command(name = "alcid", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a database.
    Server(ServerArgs),
    /// Talk to a server.
    Cli(cli::CliArgs),
    /// Measure a server.
    Bench(bench::BenchArgs),
    /// Write a shell's completions to standard output.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Back a running server up, or check a backup.
    Backup(BackupArgs),
    /// Make a data folder from a backup.
    Restore(RestoreArgs),
    /// Inspect and mend the append-only log.
    #[command(subcommand)]
    Log(storage::LogCommand),
    /// Make, check and find config files.
    #[command(subcommand)]
    Config(ConfigCommand),
}

fn main() -> ExitCode {
    let surroundings = Surroundings::of_process();
    let done = match Cli::parse().command {
        Command::Config(command) => config_cmd::run(&command, &surroundings, &mut io::stdout())
            .map_err(|error| error.to_string()),
        Command::Server(args) => server(args, &surroundings),
        Command::Cli(args) => return cli::run(&args, &hints()),
        Command::Bench(args) => match bench::run(args) {
            Ok(code) => return code,
            Err(error) => Err(format!("{error:#}")),
        },
        Command::Backup(args) => backup::back_up(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Log(command) => storage::run(&command),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "alcid", &mut io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn server(args: ServerArgs, surroundings: &Surroundings) -> Result<(), String> {
    let text = |error: ConfigError| error.to_string();
    let named = args.config.as_deref();
    if args.list_config_paths {
        print!("{}", config_cmd::paths(surroundings, named));
        return Ok(());
    }
    if let Some(file) = &args.generate_config {
        print!("{}", config_cmd::generate(file, args.force).map_err(text)?);
        return Ok(());
    }
    let load = || config_cmd::load_settings(surroundings, named, args.settings.0.clone());
    let found = load().map_err(text)?;
    if args.validate_config {
        print!("{}", config_cmd::validated(&found, false));
        return Ok(());
    }
    let surroundings = surroundings.clone();
    let (named, flags) = (args.config.clone(), args.settings.0);
    let load_again = move || {
        let found = config_cmd::load_settings(&surroundings, named.as_deref(), flags.clone());
        found.map(|found| found.loaded).map_err(text)
    };
    server::run(found, Box::new(load_again))
}

/// What the prompt completes and explains, from the command table.
fn hints() -> Vec<cli::CommandHint> {
    command::table()
        .all()
        .map(|command| cli::CommandHint {
            name: command.full_name.replace('|', " "),
            arguments: command.spec.syntax.to_owned(),
            summary: command.spec.summary.to_owned(),
        })
        .collect()
}
