//! `docs/CONFIG.md`, made from the table.

use std::path::Path;

use crate::load::search_list;
use crate::model::Settings;
use crate::setting::{Change, Setting};
use crate::table::SETTINGS;
use crate::value::Value;

/// The text of `docs/CONFIG.md`.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(INTRO);
    for (i, place) in search_list(Some(Path::new("~"))).iter().enumerate() {
        let shown = place.display().to_string();
        let prefix = if shown.starts_with(['~', '/']) { "" } else { "./" };
        out.push_str(&format!("{}. `{prefix}{shown}`\n", i + 1));
    }
    out.push_str(UNITS);
    let mut section = "";
    for setting in SETTINGS.iter().filter(|setting| !setting.is_accepted_only()) {
        if section != setting.section {
            section = setting.section;
            out.push_str(&format!("\n## [{section}]\n"));
        }
        describe(setting, &mut out);
    }
    out.push_str(ACCEPTED);
    let defaults = Settings::default();
    for setting in SETTINGS.iter().filter(|setting| setting.is_accepted_only()) {
        let names = code_list(setting.redis.iter().copied());
        let value = setting.kind.show_redis(&setting.value(&defaults));
        out.push_str(&format!("| {names} | `{}` | {} |\n", quoted(&value), setting.doc));
    }
    out
}

fn describe(setting: &Setting, out: &mut String) {
    let value = setting.value(&Settings::default());
    let default = if value == Value::Text(String::new()) {
        "none".to_owned()
    } else {
        format!("`{}`", setting.kind.to_toml(&value))
    };
    let change = match setting.change {
        Change::Live => "live, by `CONFIG SET`",
        Change::Restart | Change::Immutable => "after a restart",
        Change::Protected => "after a restart; a client may never set it",
    };
    let long_env = setting.env().unwrap_or_default();
    let env = code_list([long_env.as_str()].into_iter().chain(setting.short_env));
    out.push_str(&format!("\n### {}\n\n{}\n\n", setting.name(), setting.doc));
    out.push_str(&format!("- Value: {}; default {default}\n", setting.kind.expected()));
    out.push_str(&format!("- Environment: {env}\n"));
    if let Some(flag) = setting.flag {
        out.push_str(&format!("- Flag: `--{flag}`\n"));
    }
    if !setting.redis.is_empty() {
        out.push_str(&format!("- Redis: {}\n", code_list(setting.redis.iter().copied())));
    }
    if !setting.key_aliases.is_empty() {
        let aliases = code_list(setting.key_aliases.iter().copied());
        out.push_str(&format!("- Also written: {aliases}\n"));
    }
    out.push_str(&format!("- Changes: {change}\n"));
}

fn code_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn quoted(value: &str) -> &str {
    if value.is_empty() { "\"\"" } else { value }
}

const INTRO: &str = "\
# Settings

<!-- Made from crates/settings/src/table.rs. After a change there:
     UPDATE_EXPECT=1 cargo test -p settings --test generated -->

Every setting can be given in four places. The first of these that names it wins:

1. a flag of `alcid server`
2. an environment variable: `ALCID_<SECTION>_<KEY>`, and a short name for a few
3. the config file, in TOML
4. the default

`alcid config generate alcid.toml` writes a file with every setting and its default,
`alcid config validate --show` prints the effective values and where each came from, and
`alcid config paths` prints the places where a config file is looked for. `--config FILE`
or `ALCID_CONFIG` names one; otherwise the first of these that exists is read:

";

const UNITS: &str = "
Sizes take a unit: `B`, `K` (1000), `KB` (1024), `M`, `MB`, `G`, `GB`, `T`, `TB`; a bare number
is bytes, or megabytes where a setting says so. Durations take `ms`, `s`, `m`, `h` or `d`; a bare number is seconds.

`CONFIG GET` and `CONFIG SET` know each setting by its Redis name, or by `section.key` where
Redis has no such setting. `CONFIG REWRITE` writes the values in force into the config file and
keeps its comments.
";

const ACCEPTED: &str = "
## Accepted from Redis's clients

Programs and test suites set these. Alcid stores the value and answers it; it changes nothing,
for the reason given. They have no place in the config file.

| Name | Default | Meaning here |
| --- | --- | --- |
";
