//! Writing config files: `alcid config generate` and `CONFIG REWRITE`.

use toml_edit::{DocumentMut, Item, Table};

use crate::load::{FileLayer, Layers, SettingError, load_each};
use crate::model::Settings;
use crate::setting::Change;
use crate::table::SETTINGS;
use crate::value::{Kind, Value};

/// A file with every setting at its default, each with its documentation.
/// It validates unchanged.
#[must_use]
pub fn generate() -> String {
    let defaults = Settings::default();
    let mut out = String::from(
        "# Alcid settings. Every line shows a default.\n\
         # A flag wins over an environment variable (ALCID_<SECTION>_<KEY>), a variable over\n\
         # this file. Check a change with: alcid config validate --config <this file>\n",
    );
    let mut section = "";
    for setting in SETTINGS.iter().filter(|setting| !setting.is_accepted_only()) {
        if section != setting.section {
            section = setting.section;
            out.push_str(&format!("\n[{section}]\n"));
        }
        let live = match setting.change {
            Change::Live => "Changes live.",
            Change::Restart | Change::Immutable | Change::Protected => "Needs a restart.",
        };
        let range = match setting.kind {
            Kind::Text | Kind::Secret | Kind::Path | Kind::Bool => String::new(),
            kind => format!(" Expects {}.", kind.expected()),
        };
        let value = setting.value(&defaults);
        // An empty value means "none", which a missing line says better.
        let comment = if value == Value::Text(String::new()) { "# " } else { "" };
        out.push('\n');
        wrap_comment(&format!("{}{range} {live}", setting.doc), &mut out);
        out.push_str(&format!("{comment}{} = {}\n", setting.key, setting.kind.to_toml(&value)));
    }
    out
}

/// Writes `text` as comment lines of at most 80 columns.
fn wrap_comment(text: &str, out: &mut String) {
    let mut column = 0;
    for word in text.split(' ') {
        if column == 0 || column + 1 + word.len() > 80 {
            out.push_str(if column == 0 { "#" } else { "\n#" });
            column = 1;
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + word.len();
    }
    out.push('\n');
}

/// The config file `original` with the effective `settings` written into it:
/// `CONFIG REWRITE`. Comments, order and the spelling of values that did not
/// change stay; a setting that is not in the file is added when it differs
/// from its default.
///
/// # Errors
/// When `original` itself is not a valid config file: rewriting would lose
/// what the operator wrote.
pub fn rewrite(original: &str, settings: &Settings) -> Result<String, Vec<SettingError>> {
    let file = FileLayer { name: "config file", text: original };
    // The file may rely on a flag or variable to be complete, so it is not
    // judged as a whole.
    let in_file = load_each(&Layers { file: Some(file), ..Layers::default() })?.settings;
    let mut is_changed = false;
    let mut document: DocumentMut = original.parse().expect("load_each has parsed it");
    for setting in SETTINGS.iter().filter(|setting| !setting.is_accepted_only()) {
        let value = setting.value(settings);
        if value == setting.value(&in_file) {
            continue;
        }
        is_changed = true;
        let section = document
            .as_table_mut()
            .entry(setting.section)
            .or_insert_with(|| Item::Table(Table::new()))
            .as_table_like_mut()
            .expect("load_each has checked that sections are tables");
        let keys = setting.key_aliases.iter().copied().chain([setting.key]);
        let key = keys.into_iter().find(|key| section.contains_key(key)).unwrap_or(setting.key);
        let mut new = setting.kind.to_toml(&value);
        match section.get_mut(key).and_then(Item::as_value_mut) {
            Some(old) => {
                // The decor holds the comment at the end of the line.
                *new.decor_mut() = old.decor().clone();
                *old = new;
            }
            None => {
                section.insert(key, Item::Value(new));
            }
        }
    }
    Ok(if is_changed { document.to_string() } else { original.to_owned() })
}
