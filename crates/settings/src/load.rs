//! Reading the layers: flag > environment > file > default.

use std::cmp::Ordering;
use std::fmt;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike};

use crate::model::{EvictionPolicy, Settings};
use crate::nearest::nearest;
use crate::setting::Setting;
use crate::special::{self, MappedBranch};
use crate::table::SETTINGS;
use crate::value::Kind;

/// A config file that has been read.
#[derive(Clone, Copy, Debug)]
pub struct FileLayer<'a> {
    /// Its path, for messages.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// Everything that may hold a setting.
#[derive(Clone, Debug, Default)]
pub struct Layers<'a> {
    /// The config file.
    pub file: Option<FileLayer<'a>>,
    /// The process' environment; variables that do not begin with `ALCID_`
    /// are passed over.
    pub environment: Vec<(String, String)>,
    /// Flags by long name without dashes, with their values.
    pub flags: Vec<(&'static str, String)>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The config file.
    File {
        /// Its path.
        name: String,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag, without dashes.
    Flag(&'static str),
}

impl Origin {
    fn precedence(&self) -> u8 {
        match self {
            Origin::Default => 0,
            Origin::File { .. } => 1,
            Origin::Environment(_) => 2,
            Origin::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { name, line } => write!(f, "{name}:{line}"),
            Origin::Environment(name) => f.write_str(name),
            Origin::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// No setting has this name.
    #[error("unknown {what} {name:?}{}", did_you_mean(.nearest))]
    Unknown {
        /// `key`, `section` or `variable`.
        what: &'static str,
        /// The name that was given.
        name: String,
        /// The known name that is nearest.
        nearest: Option<String>,
    },
    /// The value is outside what is allowed.
    #[error("{name} = {value}: expected {expected}")]
    BadValue {
        /// `section.key`.
        name: String,
        /// The value as it was given; hidden when it is a secret.
        value: String,
        /// What is allowed.
        expected: String,
    },
    /// One setting under two spellings.
    #[error("{name} is given twice, also as {other}")]
    Twice {
        /// `section.key`.
        name: String,
        /// The other spelling.
        other: String,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Conflict(String),
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

/// A problem and where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {problem}")]
pub struct SettingError {
    /// File and line, variable or flag.
    pub origin: Origin,
    /// What is wrong there.
    pub problem: Problem,
}

/// The effective settings and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The effective settings.
    pub settings: Settings,
    /// What is odd and yet no reason to refuse.
    pub warnings: Vec<String>,
    /// One origin per row of [`SETTINGS`].
    origins: Vec<Origin>,
}

impl Loaded {
    /// Each setting with its effective value and its origin, in table order.
    /// Secrets are hidden; what only Redis's clients set is left out.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Setting, String, &Origin)> {
        SETTINGS
            .iter()
            .zip(&self.origins)
            .filter(|(row, _)| !row.is_accepted_only())
            .map(|(setting, origin)| (setting, show(setting, &self.settings), origin))
    }

    /// The lines of `alcid config validate --show`: a TOML file of its own,
    /// with each origin as a comment.
    #[must_use]
    pub fn show(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for (setting, value, origin) in self.iter() {
            if section != setting.section {
                let gap = if section.is_empty() { "" } else { "\n" };
                out.push_str(&format!("{gap}[{}]\n", setting.section));
                section = setting.section;
            }
            out.push_str(&format!("{} = {value}  # {origin}\n", setting.key));
        }
        out
    }
}

fn show(setting: &Setting, settings: &Settings) -> String {
    if setting.is_secret() && !settings.requirepass.is_empty() {
        return "\"(hidden)\"".to_owned();
    }
    setting.kind.to_toml(&setting.value(settings)).to_string()
}

/// One value out of one layer.
struct Assignment {
    row: usize,
    text: String,
    origin: Origin,
}

/// Reads the layers over the defaults.
///
/// # Errors
/// Every problem of every layer, in the order file, environment, flags.
pub fn load(layers: &Layers<'_>) -> Result<Loaded, Vec<SettingError>> {
    let loaded = load_each(layers)?;
    let errors: Vec<SettingError> = conflicts(&loaded.settings)
        .into_iter()
        .map(|(row, conflict)| SettingError {
            origin: loaded.origins[row].clone(),
            problem: Problem::Conflict(conflict),
        })
        .collect();
    if errors.is_empty() { Ok(loaded) } else { Err(errors) }
}

/// As [`load`], without judging whether the values go together.
pub(crate) fn load_each(layers: &Layers<'_>) -> Result<Loaded, Vec<SettingError>> {
    let mut errors = Vec::new();
    let mut loaded = Loaded {
        settings: Settings::default(),
        warnings: Vec::new(),
        origins: vec![Origin::Default; SETTINGS.len()],
    };
    if let Some(file) = layers.file {
        let assignments = from_file(file, &mut errors);
        loaded.apply(assignments, &mut errors);
        errors.sort_by_key(|error| match error.origin {
            Origin::File { line, .. } => line,
            _ => 0,
        });
    }
    let assignments = from_environment(&layers.environment, &mut loaded.warnings, &mut errors);
    loaded.apply(assignments, &mut errors);
    loaded.apply(from_flags(&layers.flags), &mut errors);
    loaded.path_turns_log_on(&mut errors);
    if errors.is_empty() { Ok(loaded) } else { Err(errors) }
}

impl Loaded {
    fn apply(&mut self, assignments: Vec<Assignment>, errors: &mut Vec<SettingError>) {
        let port_is_given = assignments.iter().any(|a| a.row == index("server", "port"));
        for Assignment { row, text, origin } in assignments {
            let setting = &SETTINGS[row];
            let (text, port) = match special::split_port(text.trim()) {
                Some((host, port)) if setting.kind == Kind::Addresses => {
                    (host.to_owned(), Some(port.to_owned()))
                }
                _ => (text, None),
            };
            if let Some(port) = port
                && !port_is_given
            {
                self.assign(index("server", "port"), &port, &origin, errors);
            }
            self.assign(row, &text, &origin, errors);
        }
    }

    fn assign(&mut self, row: usize, text: &str, origin: &Origin, errors: &mut Vec<SettingError>) {
        let setting = &SETTINGS[row];
        match setting.kind.parse(text) {
            Some(value) => {
                (setting.write)(&mut self.settings, &value);
                self.origins[row] = origin.clone();
            }
            None => errors.push(bad_value(setting, &quoted(text), origin.clone())),
        }
    }

    /// A path for the log in a stronger layer than the one that turned the log
    /// off means that the log is wanted. In the same one, both cannot be meant;
    /// but a file may keep the path while the log is off.
    fn path_turns_log_on(&mut self, errors: &mut Vec<SettingError>) {
        let (path, enabled) = (index("storage", "aof_path"), index("storage", "aof_enabled"));
        if self.settings.log_path.is_none() || self.settings.log_enabled {
            return;
        }
        let (of_path, of_log) = (&self.origins[path], &self.origins[enabled]);
        match of_path.precedence().cmp(&of_log.precedence()) {
            Ordering::Less => {}
            Ordering::Equal if matches!(of_path, Origin::File { .. }) => {}
            Ordering::Equal => errors.push(SettingError {
                origin: of_path.clone(),
                problem: Problem::Conflict(format!(
                    "storage.aof_path names a folder for the log, and {of_log} turns the log off: leave one of them out"
                )),
            }),
            Ordering::Greater => {
                self.settings.log_enabled = true;
                self.origins[enabled] = of_path.clone();
            }
        }
    }
}

fn index(section: &str, key: &str) -> usize {
    let row = SETTINGS.iter().position(|row| row.section == section && row.key == key);
    row.expect("callers name rows of the table")
}

/// What is wrong with the settings as a whole: the row to blame, and why.
pub(crate) fn conflicts(settings: &Settings) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let open_to_all = settings.requirepass.is_empty() && !settings.insecure_no_auth;
    if let Some(host) = settings.bind.iter().find(|host| !special::is_loopback(host))
        && open_to_all
    {
        found.push((
            index("server", "bind_address"),
            format!(
                "server.bind_address = {host:?} is reachable from other machines and there is no \
                 password: set security.password (ALCID_SECURITY_PASSWORD), bind 127.0.0.1, or \
                 say --insecure-no-auth"
            ),
        ));
    }
    let select_branches = special::mapped_branches(&settings.select_branches);
    for MappedBranch { number, branch, db } in select_branches.expect("checked by the row's kind") {
        let databases = settings.databases;
        if db >= databases {
            let conflict = format!(
                "server.select_branches has {number}={branch}:{db}, and server.databases is {databases}: give a \
                 database from 0 to {}",
                databases - 1
            );
            found.push((index("server", "select_branches"), conflict));
        }
        if number < u32::from(databases) {
            let conflict = format!(
                "server.select_branches has {number} for the branch {branch:?}, and server.databases is \
                 {databases}: SELECT {number} is a database of the client's own branch; give a number from \
                 {databases} on"
            );
            found.push((index("server", "select_branches"), conflict));
        }
    }
    let branch_ports = special::mapped_branches(&settings.branch_ports);
    for MappedBranch { number, branch, db } in branch_ports.expect("checked by the row's kind") {
        let row = index("server", "branch_ports");
        if number == u32::from(settings.port) {
            let conflict = format!(
                "server.branch_ports gives port {number} to the branch {branch:?}, and server.port is {number}: \
                 choose another for one of them"
            );
            found.push((row, conflict));
        }
        if db >= settings.databases {
            let conflict = format!(
                "server.branch_ports has {number}={branch}:{db}, and server.databases is {}: give a database from \
                 0 to {}",
                settings.databases,
                settings.databases - 1
            );
            found.push((row, conflict));
        }
    }
    if settings.policy == EvictionPolicy::Tier && !settings.log_enabled {
        found.push((
            index("storage", "eviction_policy"),
            "storage.eviction_policy is tier, which takes values out of memory that the archive has, and \
             storage.aof_enabled is false, so there is no archive: turn the log on, or choose noeviction"
                .to_owned(),
        ));
    }
    if !settings.backup_schedule.is_empty() {
        let missing = if settings.backup_folder.is_none() {
            Some("backup.folder names no folder for the backups: name one in the config file")
        } else if !settings.log_enabled {
            Some("storage.aof_enabled is false, so there is nothing to back up: turn the log on")
        } else {
            None
        };
        found.extend(missing.map(|why| {
            let schedule = &settings.backup_schedule;
            let why =
                format!("backup.schedule is {schedule:?} and {why}, or leave the schedule empty");
            (index("backup", "schedule"), why)
        }));
    }
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let log_dir = absolute(settings.log_dir());
    if settings.log_enabled && absolute(settings.archive_dir()) == log_dir {
        found.push((
            index("storage", "archive_path"),
            format!(
                "storage.archive_path and the log's folder are the same, {}: give each a folder of its own",
                log_dir.display()
            ),
        ));
    }
    let (lag, lag_max) = (settings.archive_lag_bytes, settings.archive_lag_bytes_max);
    if lag_max > 0 && lag_max < lag {
        found.push((
            index("storage", "archive_lag_max"),
            format!(
                "storage.archive_lag_max is {lag_max} bytes and storage.archive_lag {lag}: writers would wait \
                 before the archive catches up; make it as large at least, or 0 for no limit"
            ),
        ));
    }
    found
}

fn from_file(file: FileLayer<'_>, errors: &mut Vec<SettingError>) -> Vec<Assignment> {
    let reader = FileReader { file };
    let mut assignments = Vec::new();
    match Document::parse(file.text) {
        Ok(document) => reader.document(document.as_table(), &mut assignments, errors),
        Err(error) => {
            let line = error.span().map_or(1, |span| reader.line(span.start));
            let message = error.message().lines().next().unwrap_or("not TOML").to_owned();
            errors.push(reader.error(line, Problem::Syntax(format!("not TOML: {message}"))));
        }
    }
    assignments
}

struct FileReader<'a> {
    file: FileLayer<'a>,
}

impl FileReader<'_> {
    fn document(
        &self,
        root: &dyn TableLike,
        assignments: &mut Vec<Assignment>,
        errors: &mut Vec<SettingError>,
    ) {
        let is_section = |name: &str| SETTINGS.iter().any(|row| row.section == name);
        for (section, item) in root.iter() {
            let line = self.key_line(root, section);
            if section.is_empty() || !is_section(section) {
                errors.push(self.error(line, unknown_section(section)));
            } else if let Some(table) = item.as_table_like() {
                self.section(section, table, assignments, errors);
            } else {
                let message = format!("{section} is a section: write [{section}] on its own line");
                errors.push(self.error(line, Problem::Syntax(message)));
            }
        }
    }

    fn section(
        &self,
        section: &str,
        table: &dyn TableLike,
        assignments: &mut Vec<Assignment>,
        errors: &mut Vec<SettingError>,
    ) {
        for (key, item) in table.iter() {
            let line = self.key_line(table, key);
            let found = SETTINGS.iter().position(|row| {
                row.section == section && (row.key == key || row.key_aliases.contains(&key))
            });
            let Some(row) = found else {
                errors.push(self.error(line, unknown_key(section, key)));
                continue;
            };
            let setting = &SETTINGS[row];
            let name = setting.name();
            if assignments.iter().any(|earlier| earlier.row == row) {
                let other = format!("{section}.{key}");
                errors.push(self.error(line, Problem::Twice { name, other }));
                continue;
            }
            let origin = self.origin(line);
            match text_of(setting.kind, item) {
                Ok(text) => assignments.push(Assignment { row, text, origin }),
                Err(shown) => errors.push(bad_value(setting, &shown, origin)),
            }
        }
    }

    fn origin(&self, line: usize) -> Origin {
        Origin::File { name: self.file.name.to_owned(), line }
    }

    fn error(&self, line: usize, problem: Problem) -> SettingError {
        SettingError { origin: self.origin(line), problem }
    }

    fn key_line(&self, table: &dyn TableLike, key: &str) -> usize {
        let span = table.get_key_value(key).and_then(|(key, item)| key.span().or(item.span()));
        span.map_or(1, |span| self.line(span.start))
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.file.text.as_bytes().get(..offset).unwrap_or_default();
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }
}

/// The text of a TOML value that fits `kind`, or how to show it in an error.
fn text_of(kind: Kind, item: &Item) -> Result<String, String> {
    let takes_numbers = matches!(
        kind,
        Kind::Integer { .. } | Kind::Size { .. } | Kind::Megabytes { .. } | Kind::Seconds { .. }
    );
    let Some(value) = item.as_value() else { return Err("a table".to_owned()) };
    match value {
        toml_edit::Value::String(text) => Ok(text.value().clone()),
        toml_edit::Value::Integer(number) if takes_numbers => Ok(number.value().to_string()),
        toml_edit::Value::Boolean(yes) if kind == Kind::Bool => Ok(yes.value().to_string()),
        toml_edit::Value::Array(items) if kind == Kind::Addresses => {
            let words: Option<Vec<&str>> = items.iter().map(toml_edit::Value::as_str).collect();
            words.map(|words| words.join(" ")).ok_or_else(|| shorten(&value.to_string()))
        }
        _ => Err(shorten(value.to_string().trim())),
    }
}

fn from_environment(
    environment: &[(String, String)],
    warnings: &mut Vec<String>,
    errors: &mut Vec<SettingError>,
) -> Vec<Assignment> {
    let names: Vec<(usize, String)> = SETTINGS
        .iter()
        .enumerate()
        .flat_map(|(row, setting)| {
            let long = setting.env().into_iter();
            long.chain(setting.short_env.map(str::to_owned)).map(move |name| (row, name))
        })
        .collect();
    let mut assignments = Vec::new();
    for (name, text) in environment {
        if !name.starts_with("ALCID_") || NOT_SETTINGS.contains(&name.as_str()) {
            continue;
        }
        let origin = Origin::Environment(name.clone());
        // Kubernetes sets these for a Service called alcid.
        if text.starts_with("tcp://") || name.starts_with("ALCID_SERVICE_") {
            warnings.push(format!("{name} is not a setting: it describes a Kubernetes service"));
        } else if let Some(&(row, _)) = names.iter().find(|(_, known)| known == name) {
            assignments.push(Assignment { row, text: text.clone(), origin });
        } else if name.starts_with("ALCID_PORT_") {
            warnings.push(format!("{name} is not a setting: it describes a Kubernetes service"));
        } else {
            let near = nearest(name, names.iter().map(|(_, known)| known.as_str()));
            let problem = Problem::Unknown {
                what: "variable",
                name: name.clone(),
                nearest: near.map(|(known, _)| known.to_owned()),
            };
            // A variable meant for something else is none of our business; a
            // mistyped one must not pass silently.
            match near {
                Some((_, 0..=2)) => errors.push(SettingError { origin, problem }),
                _ => warnings.push(format!("environment: {problem}")),
            }
        }
    }
    // The long name is the more specific one: it goes last and wins.
    assignments.sort_by_key(|a| {
        let Origin::Environment(name) = &a.origin else { return false };
        SETTINGS[a.row].env().as_ref() == Some(name)
    });
    assignments
}

/// Variables that begin with `ALCID_` and are read elsewhere.
const NOT_SETTINGS: [&str; 2] = ["ALCID_CONFIG", "ALCID_PASSWORD"];

fn from_flags(flags: &[(&'static str, String)]) -> Vec<Assignment> {
    flags
        .iter()
        .map(|(flag, text)| {
            let row = SETTINGS.iter().position(|row| row.flag == Some(*flag));
            Assignment {
                row: row.unwrap_or_else(|| panic!("flag --{flag} has no row in the table")),
                text: text.clone(),
                origin: Origin::Flag(flag),
            }
        })
        .collect()
}

fn unknown_section(section: &str) -> Problem {
    let sections = SETTINGS.iter().map(|row| row.section).filter(|name| !name.is_empty());
    Problem::Unknown {
        what: "section",
        name: shorten(section),
        nearest: nearest(section, sections).map(|(name, _)| name.to_owned()),
    }
}

fn unknown_key(section: &str, key: &str) -> Problem {
    let name = format!("{section}.{key}");
    let known: Vec<String> =
        SETTINGS.iter().filter(|row| !row.is_accepted_only()).map(Setting::name).collect();
    // The same key in another section is nearer than its letters say.
    let elsewhere = SETTINGS.iter().find(|row| row.key == key && !row.is_accepted_only());
    let by_redis_name = SETTINGS
        .iter()
        .filter(|row| !row.is_accepted_only())
        .find(|row| row.redis.iter().any(|redis| redis.replace('-', "_") == key.replace('-', "_")));
    let nearest = elsewhere
        .or(by_redis_name)
        .map(Setting::name)
        .or_else(|| nearest(&name, known.iter().map(String::as_str)).map(|(n, _)| n.to_owned()));
    Problem::Unknown { what: "key", name: shorten(&name), nearest }
}

fn bad_value(setting: &Setting, shown: &str, origin: Origin) -> SettingError {
    let value = if setting.is_secret() { "(hidden)".to_owned() } else { shown.to_owned() };
    SettingError {
        origin,
        problem: Problem::BadValue {
            name: setting.name(),
            value,
            expected: setting.kind.expected(),
        },
    }
}

fn quoted(text: &str) -> String {
    if base::number::parse_i64(text.as_bytes()).is_some() {
        return text.to_owned();
    }
    shorten(&format!("{text:?}"))
}

fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    if text.chars().count() <= CHARS_MAX {
        text.to_owned()
    } else {
        text.chars().take(CHARS_MAX).chain("…".chars()).collect()
    }
}

/// Where a config file is looked for when neither `--config` nor
/// `ALCID_CONFIG` names one, first match wins. `home` is the user's folder.
#[must_use]
pub fn search_list(home: Option<&Path>) -> Vec<PathBuf> {
    let mut list = vec![PathBuf::from("alcid.toml"), PathBuf::from("config/alcid.toml")];
    if let Some(home) = home {
        list.push(home.join(".config/alcid/alcid.toml"));
        list.push(home.join(".config/alcid/config.toml"));
        list.push(home.join(".alcid.toml"));
    }
    list.push(PathBuf::from("/etc/alcid/alcid.toml"));
    list.push(PathBuf::from("/etc/alcid/config.toml"));
    list
}
