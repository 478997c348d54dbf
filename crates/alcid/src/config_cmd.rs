//! `alcid config generate|validate|paths`, and finding the config file.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use settings::{FileLayer, Layers, Loaded, SettingError, search_list};

/// Names a config file, as `--config` does.
const CONFIG_VARIABLE: &str = "ALCID_CONFIG";

/// What `alcid config` can do.
#[derive(Subcommand, Clone, Debug)]
pub enum ConfigCommand {
    /// Write a config file with every setting at its default ("-" prints it).
    Generate {
        /// The file to write.
        file: PathBuf,
        /// Replace the file if it exists.
        #[arg(long)]
        force: bool,
    },
    /// Check the config file and the environment.
    Validate {
        /// Check this file and no other.
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print each effective value and where it came from.
        #[arg(long)]
        show: bool,
    },
    /// Print where config files are looked for; a star marks the one in use.
    Paths {
        /// As `alcid server --config` would be given.
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named is not there or cannot be read.
    #[error("read config file {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("write config file {path}: {source}{hint}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// What to do about it, or nothing.
        hint: &'static str,
    },
    /// A variable holds something that is not text.
    #[error("environment variable {0} is not UTF-8")]
    NotText(String),
    /// Settings are wrong, one line each.
    #[error("{}", lines(.0))]
    Settings(Vec<SettingError>),
}

fn lines(errors: &[SettingError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The effective settings and the file they came from.
#[derive(Debug)]
pub struct Found {
    /// The settings with their origins.
    pub loaded: Loaded,
    /// The config file in use; `CONFIG REWRITE` needs it.
    pub path: Option<PathBuf>,
}

/// Where to look, apart from flags.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The process' environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The folder that relative names of the search list start from; empty for
    /// the working directory.
    pub folder: PathBuf,
}

impl Surroundings {
    /// The environment and the working directory of this process.
    #[must_use]
    pub fn of_process() -> Surroundings {
        Surroundings { environment: std::env::vars_os().collect(), folder: PathBuf::new() }
    }

    fn variable(&self, name: &str) -> Option<PathBuf> {
        let found =
            self.environment.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| PathBuf::from(value))
    }

    /// The places a config file may be, first match wins.
    fn places(&self, named: Option<&Path>) -> Vec<PathBuf> {
        if let Some(path) = named {
            return vec![path.to_owned()];
        }
        if let Some(path) = self.variable(CONFIG_VARIABLE) {
            return vec![path];
        }
        let home = self.variable("HOME").or_else(|| self.variable("USERPROFILE"));
        search_list(home.as_deref()).iter().map(|place| self.folder.join(place)).collect()
    }

    fn is_named(&self, named: Option<&Path>) -> bool {
        named.is_some() || self.variable(CONFIG_VARIABLE).is_some()
    }

    fn file_in_use(&self, named: Option<&Path>) -> Option<PathBuf> {
        let is_named = self.is_named(named);
        // A file that was named must be there; its absence is an error when it
        // is read, not a reason to run with defaults.
        self.places(named).into_iter().find(|path| is_named || path.is_file())
    }

    fn alcid_variables(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let is_ours = |name: &OsString| name.to_string_lossy().starts_with("ALCID_");
        let ours = self.environment.iter().filter(|(name, _)| is_ours(name));
        ours.map(|(name, value)| match (name.to_str(), value.to_str()) {
            (Some(name), Some(value)) => Ok((name.to_owned(), value.to_owned())),
            _ => Err(ConfigError::NotText(name.to_string_lossy().into_owned())),
        })
        .collect()
    }
}

/// Reads file, environment and flags. `named` is the value of `--config`.
///
/// # Errors
/// When a file that was named cannot be read, or any setting is wrong.
pub fn load_settings(
    surroundings: &Surroundings,
    named: Option<&Path>,
    flags: Vec<(&'static str, String)>,
) -> Result<Found, ConfigError> {
    let path = surroundings.file_in_use(named);
    let text = match &path {
        None => String::new(),
        Some(path) => fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?,
    };
    let name = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let layers = Layers {
        file: path.as_ref().map(|_| FileLayer { name: &name, text: &text }),
        environment: surroundings.alcid_variables()?,
        flags,
    };
    let loaded = settings::load(&layers).map_err(ConfigError::Settings)?;
    Ok(Found { loaded, path })
}

/// CONFIG REWRITE: brings the file up to date with the settings in force,
/// keeping its comments. The file may hold a password, so only its owner reads it.
///
/// # Errors
/// When the file cannot be read or replaced, or is no valid config file.
pub fn rewrite(path: &Path, settings: &settings::Settings) -> Result<(), ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let original = fs::read_to_string(path).map_err(read)?;
    let text = settings::rewrite(&original, settings).map_err(ConfigError::Settings)?;
    let fresh = path.with_extension("toml.new");
    let write = |source| ConfigError::Write { path: fresh.clone(), source, hint: "" };
    write_private(&fresh, &text).map_err(write)?;
    fs::rename(&fresh, path).map_err(write)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Runs `alcid config …`, writing what it answers to `out`.
///
/// # Errors
/// What stands in the way; the caller prints it and exits with status 1.
pub fn run(
    command: &ConfigCommand,
    surroundings: &Surroundings,
    out: &mut impl io::Write,
) -> Result<(), ConfigError> {
    let answer = match command {
        ConfigCommand::Generate { file, force } => generate(file, *force)?,
        ConfigCommand::Validate { config, show } => {
            let found = load_settings(surroundings, config.as_deref(), Vec::new())?;
            validated(&found, *show)
        }
        ConfigCommand::Paths { config } => paths(surroundings, config.as_deref()),
    };
    // A closed pipe (`| head`) is not an error of ours.
    let _ = out.write_all(answer.as_bytes());
    Ok(())
}

/// Writes the generated file and says so; `-` answers its text.
///
/// # Errors
/// When the file exists and `force` is not set, or cannot be written.
pub fn generate(file: &Path, force: bool) -> Result<String, ConfigError> {
    let text = settings::generate();
    if file == Path::new("-") {
        return Ok(text);
    }
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    #[cfg(unix)]
    {
        // The file is where a password will be written.
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let written = options.open(file).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| {
        let exists = source.kind() == io::ErrorKind::AlreadyExists;
        let hint = if exists { "; --force replaces it" } else { "" };
        ConfigError::Write { path: file.to_owned(), source, hint }
    })?;
    Ok(format!("wrote {}\n", file.display()))
}

/// What `validate` answers when nothing is wrong.
#[must_use]
pub fn validated(found: &Found, show: bool) -> String {
    let mut out = String::new();
    if show {
        out.push_str(&found.loaded.show());
        out.push('\n');
    }
    for warning in &found.loaded.warnings {
        let _ = writeln!(out, "# warning: {warning}");
    }
    let _ = match &found.path {
        Some(path) => writeln!(out, "# {} is valid", path.display()),
        None => writeln!(out, "# no config file; the environment and the defaults are valid"),
    };
    out
}

/// The search list, one place a line, with a star at the file in use.
#[must_use]
pub fn paths(surroundings: &Surroundings, named: Option<&Path>) -> String {
    let in_use = surroundings.file_in_use(named);
    let mut out = String::new();
    for place in surroundings.places(named) {
        let mark = if in_use.as_ref() == Some(&place) { '*' } else { ' ' };
        let _ = writeln!(out, "{mark} {}", place.display());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    fn surroundings(folder: &Folder, pairs: &[(&str, &str)]) -> Surroundings {
        Surroundings {
            environment: pairs.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            folder: folder.path.clone(),
        }
    }

    fn answer(command: &ConfigCommand, around: &Surroundings) -> Result<String, String> {
        let mut out = Vec::new();
        run(command, around, &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn generate_writes_a_valid_file_once() {
        let folder = Folder::new("generate");
        let file = folder.path.join("alcid.toml");
        let generate = |force| ConfigCommand::Generate { file: file.clone(), force };
        let around = surroundings(&folder, &[]);
        assert!(answer(&generate(false), &around).unwrap().starts_with("wrote "));
        let refused = answer(&generate(false), &around).unwrap_err();
        assert!(refused.ends_with("; --force replaces it"), "{refused}");
        fs::write(&file, "longer than nothing ".repeat(2000)).unwrap();
        answer(&generate(true), &around).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), settings::generate());
        let validate = ConfigCommand::Validate { config: Some(file.clone()), show: false };
        assert!(answer(&validate, &around).unwrap().ends_with("alcid.toml is valid\n"));
    }

    #[test]
    fn the_first_file_of_the_list_is_used() {
        let folder = Folder::new("search");
        let home = folder.path.join("home");
        fs::create_dir_all(home.join(".config/alcid")).unwrap();
        fs::create_dir_all(folder.path.join("config")).unwrap();
        let around = surroundings(&folder, &[("HOME", home.to_str().unwrap())]);
        let port = |around: &Surroundings, named: Option<&Path>| {
            load_settings(around, named, Vec::new()).unwrap().loaded.settings.port
        };
        let put = |path: PathBuf, port: u16| {
            fs::write(path, format!("[server]\nport = {port}\n")).unwrap();
        };
        put(home.join(".alcid.toml"), 5);
        assert_eq!(port(&around, None), 5);
        put(home.join(".config/alcid/config.toml"), 4);
        assert_eq!(port(&around, None), 4);
        put(home.join(".config/alcid/alcid.toml"), 3);
        assert_eq!(port(&around, None), 3);
        put(folder.path.join("config/alcid.toml"), 2);
        assert_eq!(port(&around, None), 2);
        put(folder.path.join("alcid.toml"), 1);
        assert_eq!(port(&around, None), 1);
        let shown = paths(&around, None);
        let starred: Vec<&str> = shown.lines().filter(|line| line.starts_with('*')).collect();
        assert_eq!(starred, [format!("* {}", folder.path.join("alcid.toml").display())]);
        assert_eq!(shown.lines().count(), 7);
        // A named file is the only one looked at.
        let other = folder.path.join("other.toml");
        put(other.clone(), 9);
        assert_eq!(port(&around, Some(&other)), 9);
        let mut by_variable = around.clone();
        by_variable.environment.push((CONFIG_VARIABLE.into(), other.clone().into()));
        assert_eq!(port(&by_variable, None), 9);
        assert_eq!(paths(&by_variable, None), format!("* {}\n", other.display()));
    }

    #[test]
    fn errors_name_the_file() {
        let folder = Folder::new("errors");
        let missing = folder.path.join("missing.toml");
        let around = surroundings(&folder, &[]);
        let error = load_settings(&around, Some(&missing), Vec::new()).unwrap_err().to_string();
        assert!(
            error.starts_with("read config file ") && error.contains("missing.toml"),
            "{error}"
        );
        fs::write(folder.path.join("alcid.toml"), "[server]\nport = -5\nprot = 1\n").unwrap();
        let validate = ConfigCommand::Validate { config: None, show: false };
        let error = answer(&validate, &around).unwrap_err();
        let wrong: Vec<&str> = error.lines().collect();
        assert_eq!(wrong.len(), 2);
        assert!(wrong[0].contains("alcid.toml:2: server.port = -5: expected"), "{error}");
        assert!(wrong[1].contains("alcid.toml:3: unknown key \"server.prot\""), "{error}");
        fs::write(folder.path.join("alcid.toml"), b"port = \"\xff\"").unwrap();
        assert!(answer(&validate, &around).unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn show_names_origins_and_hides_secrets() {
        let folder = Folder::new("show");
        fs::write(folder.path.join("alcid.toml"), "[server]\nport = 7001\n").unwrap();
        let around = surroundings(
            &folder,
            &[("ALCID_MAX_MEMORY", "1GB"), ("ALCID_SECURITY_PASSWORD", "marker")],
        );
        let shown = answer(&ConfigCommand::Validate { config: None, show: true }, &around).unwrap();
        assert!(shown.contains("alcid.toml:2\n"), "{shown}");
        assert!(shown.contains("max_memory = \"1GB\"  # ALCID_MAX_MEMORY\n"), "{shown}");
        assert!(shown.contains("timeout = 0  # default\n"), "{shown}");
        assert!(!shown.contains("marker"), "{shown}");
    }

    #[cfg(unix)]
    #[test]
    fn variables_must_be_text() {
        use std::os::unix::ffi::OsStringExt;
        let folder = Folder::new("variables");
        let mut around = surroundings(&folder, &[]);
        around.environment.push(("ALCID_PORT".into(), OsString::from_vec(vec![0xff])));
        let error = load_settings(&around, None, Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "environment variable ALCID_PORT is not UTF-8");
    }
}
