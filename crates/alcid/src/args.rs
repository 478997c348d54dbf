//! The flags of `alcid server`.
//!
//! A flag that gives a setting is made from its row in [`settings::SETTINGS`],
//! so help, file, environment and `CONFIG` say the same about it.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use settings::{Kind, SETTINGS, Setting, Settings, Value};

/// Everything `alcid server` can be told.
#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// Read this config file and no other.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Flags that give settings.
    #[command(flatten)]
    pub settings: SettingFlags,

    /// Print where config files are looked for, and exit.
    #[arg(long, help_heading = "Config files")]
    pub list_config_paths: bool,

    /// Write a config file with every setting at its default, and exit.
    #[arg(long, value_name = "FILE", help_heading = "Config files")]
    pub generate_config: Option<PathBuf>,

    /// Let --generate-config replace a file.
    #[arg(long, requires = "generate_config", help_heading = "Config files")]
    pub force: bool,

    /// Check the settings of file, environment and flags, and exit.
    #[arg(long, help_heading = "Config files")]
    pub validate_config: bool,
}

/// Flags that give settings, by long name, with their values as given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingFlags(pub Vec<(&'static str, String)>);

fn with_flags() -> impl Iterator<Item = (&'static Setting, &'static str)> {
    SETTINGS.iter().filter_map(|setting| setting.flag.map(|flag| (setting, flag)))
}

fn short(flag: &str) -> Option<char> {
    match flag {
        "port" => Some('p'),
        "bind" => Some('b'),
        _ => None,
    }
}

/// The flag of a switch says the opposite of its default: `--no-log` turns off
/// what is on.
fn is_on_by_default(setting: &Setting) -> bool {
    setting.value(&Settings::default()) == Value::Bool(true)
}

fn value_name(kind: Kind) -> String {
    match kind {
        Kind::Integer { .. } => "NUM".to_owned(),
        Kind::Size { .. } => "SIZE".to_owned(),
        Kind::Path => "PATH".to_owned(),
        Kind::Addresses => "ADDRESS".to_owned(),
        Kind::Word(words) => words.join("|"),
        Kind::LogLevel => settings::LogLevel::WORDS.join("|"),
        _ => "VALUE".to_owned(),
    }
}

fn argument(setting: &'static Setting, flag: &'static str) -> Arg {
    let default = setting.kind.show_redis(&setting.value(&Settings::default()));
    let mut arg = Arg::new(flag).long(flag);
    if let Some(letter) = short(flag) {
        arg = arg.short(letter);
    }
    if flag == "aof-path" {
        arg = arg.visible_alias("log-path");
    }
    if setting.kind == Kind::Bool {
        let help = if is_on_by_default(setting) {
            format!("Turn off: {}", setting.doc)
        } else {
            setting.doc.to_owned()
        };
        return arg.action(ArgAction::SetTrue).help(help);
    }
    let shown = match setting.kind {
        // Redis calls the levels by other names.
        Kind::LogLevel => match setting.value(&Settings::default()) {
            Value::Text(word) => word,
            other => setting.kind.show_redis(&other),
        },
        _ => default,
    };
    let help = if shown.is_empty() {
        setting.doc.to_owned()
    } else {
        format!("{} [default: {shown}]", setting.doc)
    };
    // Values that begin with a dash reach the settings, whose error names the
    // allowed range.
    arg.value_name(value_name(setting.kind)).help(help).allow_hyphen_values(true)
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        with_flags().fold(command, |command, (setting, flag)| command.arg(argument(setting, flag)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        SettingFlags::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<SettingFlags, clap::Error> {
        let given = with_flags().filter_map(|(setting, flag)| {
            if setting.kind == Kind::Bool {
                let value = !is_on_by_default(setting);
                matches.get_flag(flag).then(|| (flag, value.to_string()))
            } else {
                matches.get_one::<String>(flag).map(|value| (flag, value.clone()))
            }
        });
        Ok(SettingFlags(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = SettingFlags::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    #[command(no_binary_name = true)]
    struct Probe {
        #[command(flatten)]
        server: ServerArgs,
    }

    fn parse(line: &str) -> ServerArgs {
        Probe::try_parse_from(line.split_whitespace()).unwrap_or_else(|e| panic!("{e}")).server
    }

    #[test]
    fn clap_accepts_the_definition() {
        <Probe as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn every_documented_flag_feeds_its_setting() {
        let mut args = parse(
            "-p 7000 -b 0.0.0.0 -c x.toml --log-path logs --data-dir d --max-connections 5 \
             --log-level debug --format json --threads 3 --aof-fsync always --max-memory 1GB --insecure-no-auth --no-log",
        );
        assert_eq!(args.config, Some(PathBuf::from("x.toml")));
        let load = |flags| settings::load(&settings::Layers { flags, ..Default::default() });
        // These two contradict each other.
        let contradiction = load(args.settings.0.clone()).unwrap_err();
        assert!(contradiction[0].to_string().contains("--no-log turns the log off"));
        args.settings.0.retain(|(flag, _)| *flag != "no-log");
        let loaded = load(args.settings.0).unwrap();
        let from_flags = loaded
            .iter()
            .filter(|(_, _, origin)| matches!(origin, settings::Origin::Flag(_)))
            .count();
        assert_eq!(from_flags, with_flags().count() - 1, "{}", loaded.show());
        assert_eq!(loaded.settings.port, 7000);
        assert_eq!(loaded.settings.log_dir(), PathBuf::from("logs"));
        assert!(loaded.settings.insecure_no_auth);
    }

    #[test]
    fn nothing_given_is_nothing_set() {
        let args = parse("");
        assert_eq!(args.settings, SettingFlags::default());
        assert!(!args.validate_config && !args.list_config_paths && args.config.is_none());
    }

    #[test]
    fn bad_values_reach_the_settings() {
        let layers = settings::Layers {
            flags: parse("--port -1").settings.0,
            ..settings::Layers::default()
        };
        assert_eq!(
            settings::load(&layers).unwrap_err()[0].to_string(),
            "--port: server.port = -1: expected a whole number from 0 to 65535"
        );
        assert!(Probe::try_parse_from(["--force"]).is_err());
        assert!(Probe::try_parse_from(["--prot", "1"]).unwrap_err().to_string().contains("--port"));
    }
}
