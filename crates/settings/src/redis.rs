//! `CONFIG GET` and `CONFIG SET`, in Redis's words.

use crate::load::conflicts;
use crate::model::Settings;
use crate::setting::{Change, Setting};
use crate::table::{SETTINGS, find};
use crate::value::{Kind, Value};

/// What `CONFIG GET` shows instead of a password. An empty answer means that
/// there is none.
pub const HIDDEN_SECRET: &str = "(hidden)";

/// Why `CONFIG SET` changed nothing. `Display` is the whole error reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// No setting has this name.
    #[error("ERR Unknown option or number of arguments for CONFIG SET - '{0}'")]
    Unknown(String),
    /// The setting has refused the value.
    #[error("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}")]
    Refused {
        /// The argument to blame.
        name: String,
        /// Why.
        reason: String,
    },
}

const PROTECTED: &str = "can't set protected config";

/// Names and values that match any of `patterns`: names or globs, in any case.
/// A setting that Redis does not have goes by `section.key`.
#[must_use]
pub fn config_get(settings: &Settings, patterns: &[&[u8]]) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut push = |name: String, setting: &Setting| {
        if !found.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            found.push((name, show(setting, settings)));
        }
    };
    for pattern in patterns {
        let is_glob = pattern.iter().any(|byte| b"[*?".contains(byte));
        if is_glob {
            for setting in SETTINGS {
                for name in names(setting) {
                    if base::glob::matches_ignore_case(pattern, name.as_bytes()) {
                        push(name, setting);
                    }
                }
            }
        } else if let Ok(name) = std::str::from_utf8(pattern)
            && let Some(setting) = find(name)
        {
            push(name.to_owned(), setting);
        }
    }
    found
}

fn names(setting: &Setting) -> Vec<String> {
    if setting.redis.is_empty() {
        vec![setting.name()]
    } else {
        setting.redis.iter().map(|name| (*name).to_owned()).collect()
    }
}

fn show(setting: &Setting, settings: &Settings) -> String {
    let value = setting.value(settings);
    if setting.is_secret() && value != Value::Text(String::new()) {
        return HIDDEN_SECRET.to_owned();
    }
    setting.kind.show_redis(&value)
}

/// Sets every pair or, when one is refused, none. Answers the settings whose
/// value is another one now, for the engine to apply.
///
/// # Errors
/// The error reply for the first pair that is refused.
pub fn config_set(
    settings: &mut Settings,
    pairs: &[(&[u8], &[u8])],
) -> Result<Vec<&'static Setting>, SetError> {
    let rows = rows_of(pairs)?;
    let mut next = settings.clone();
    let mut changed = Vec::new();
    for (&setting, (name, text)) in rows.iter().zip(pairs) {
        let refused = |reason: String| SetError::Refused { name: lossy(name), reason };
        let value = setting.kind.parse_redis(text).map_err(refused)?;
        if setting.is_secret() && value == Value::Text(HIDDEN_SECRET.to_owned()) {
            return Err(refused(format!(
                "'{HIDDEN_SECRET}' is what CONFIG GET shows instead of a password"
            )));
        }
        let before = setting.value(&next);
        (setting.write)(&mut next, &value);
        if setting.value(&next) == before {
            continue;
        }
        if setting.change == Change::Protected {
            return Err(refused(PROTECTED.to_owned()));
        }
        if setting.change == Change::Restart {
            return Err(refused(format!(
                "needs a restart: set {} in the config file",
                setting.name()
            )));
        }
        changed.push(setting);
    }
    check_together(settings, &next, &rows, pairs)?;
    *settings = next;
    Ok(changed)
}

/// Looks every name up and refuses those no client may set, before any value
/// is looked at.
fn rows_of(pairs: &[(&[u8], &[u8])]) -> Result<Vec<&'static Setting>, SetError> {
    let mut rows: Vec<&'static Setting> = Vec::with_capacity(pairs.len());
    for (name, _) in pairs {
        let text = lossy(name);
        let Some(setting) = find(&text) else { return Err(SetError::Unknown(text)) };
        let reason = match setting.change {
            Change::Immutable => "can't set immutable config",
            // A name that Redis does not know may be given the value it has, as
            // tools do that save and restore everything.
            Change::Protected if !setting.redis.is_empty() => PROTECTED,
            _ if rows.iter().any(|&row| std::ptr::eq(row, setting)) => "duplicate parameter",
            Change::Live | Change::Restart | Change::Protected => {
                rows.push(setting);
                continue;
            }
        };
        return Err(SetError::Refused { name: text, reason: reason.to_owned() });
    }
    Ok(rows)
}

/// Refuses values that are fine by themselves and not with the others.
fn check_together(
    before: &Settings,
    next: &Settings,
    rows: &[&'static Setting],
    pairs: &[(&[u8], &[u8])],
) -> Result<(), SetError> {
    let refused = |named: Option<usize>, reason: String| SetError::Refused {
        name: lossy(pairs[named.unwrap_or(0)].0),
        reason,
    };
    let of_kind = |kind: Kind| rows.iter().position(|row| row.kind == kind);
    // A conflict that was there before is not this command's fault.
    if conflicts(before).is_empty()
        && let Some((row, conflict)) = conflicts(next).into_iter().next()
    {
        let named = rows.iter().position(|&given| std::ptr::eq(given, &SETTINGS[row]));
        return Err(refused(named.or_else(|| of_kind(Kind::Secret)), conflict));
    }
    let wants_snapshots = rows
        .iter()
        .any(|row| row.kind == Kind::SavePoints && row.value(next) != Value::Text(String::new()));
    if wants_snapshots && !next.log_enabled {
        let reason = "there are no snapshots and the log is off: start with \
                      storage.aof_enabled = true"
            .to_owned();
        return Err(refused(of_kind(Kind::SavePoints), reason));
    }
    Ok(())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
