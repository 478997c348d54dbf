//! The `alcid` binary: configuration, wiring and sub-commands.

mod args;
mod config_cmd;
mod logging;
mod rotation;
#[cfg(test)]
mod testing;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::args::ServerArgs;
use crate::config_cmd::{ConfigCommand, ConfigError, Surroundings};

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
    let found = config_cmd::load_settings(surroundings, named, args.settings.0).map_err(text)?;
    if args.validate_config {
        print!("{}", config_cmd::validated(&found, false));
        return Ok(());
    }
    let rust_log = std::env::var("RUST_LOG").ok();
    let log = logging::start(&found.loaded.settings.logging, rust_log.as_deref())
        .map_err(|error| error.to_string())?;
    log.set_level(found.loaded.settings.logging.level);
    Err("this build has no listener".to_owned())
}
