//! What is known of a setting.

use crate::model::Settings;
use crate::value::{Kind, Value};

/// Whether and how a setting changes while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `CONFIG SET` changes it at once.
    Live,
    /// A change needs a restart. `CONFIG SET` accepts the value it has, as
    /// tools that save and restore settings send it, and no other.
    Restart,
    /// No start changes it either: `CONFIG SET` is always refused, in Redis's
    /// words.
    Immutable,
    /// Never set by a client: that would let it write where it likes.
    Protected,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Section of the TOML file; empty for what is accepted from Redis's
    /// clients without having an effect.
    pub section: &'static str,
    /// Key in that section.
    pub key: &'static str,
    /// Other spellings of the key.
    pub key_aliases: &'static [&'static str],
    /// Environment variable beside `ALCID_<SECTION>_<KEY>`.
    pub short_env: Option<&'static str>,
    /// Flag of `alcid server`, without the dashes.
    pub flag: Option<&'static str>,
    /// Names for `CONFIG GET` and `CONFIG SET`, the usual one first.
    pub redis: &'static [&'static str],
    /// Type and range.
    pub kind: Kind,
    /// Whether it changes live.
    pub change: Change,
    /// One line of documentation.
    pub doc: &'static str,
    /// Reads the value out of [`Settings`].
    pub(crate) read: fn(&Settings) -> Value,
    /// Stores a value that [`Setting::kind`] has accepted.
    pub(crate) write: fn(&mut Settings, &Value),
}

impl Setting {
    /// `section.key`, or Redis's name where the setting has no effect.
    #[must_use]
    pub fn name(&self) -> String {
        if self.is_accepted_only() {
            self.key.to_owned()
        } else {
            format!("{}.{}", self.section, self.key)
        }
    }

    /// Whether it is stored and answered and has no effect.
    #[must_use]
    pub fn is_accepted_only(&self) -> bool {
        self.section.is_empty()
    }

    /// Whether its value must not be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.kind == Kind::Secret
    }

    /// `ALCID_<SECTION>_<KEY>`; `None` when it has no effect.
    #[must_use]
    pub fn env(&self) -> Option<String> {
        let name = || format!("ALCID_{}_{}", self.section, self.key).to_uppercase();
        (!self.is_accepted_only()).then(name)
    }

    /// The effective value.
    #[must_use]
    pub fn value(&self, settings: &Settings) -> Value {
        (self.read)(settings)
    }

    pub(crate) const fn redis(mut self, names: &'static [&'static str]) -> Setting {
        self.redis = names;
        self
    }

    pub(crate) const fn flag(mut self, flag: &'static str) -> Setting {
        self.flag = Some(flag);
        self
    }

    pub(crate) const fn short_env(mut self, name: &'static str) -> Setting {
        self.short_env = Some(name);
        self
    }

    pub(crate) const fn key_aliases(mut self, keys: &'static [&'static str]) -> Setting {
        self.key_aliases = keys;
        self
    }

    pub(crate) const fn change(mut self, change: Change) -> Setting {
        self.change = change;
        self
    }
}

/// How a setting is read and written.
pub(crate) type Access = (fn(&Settings) -> Value, fn(&mut Settings, &Value));

/// A setting with nothing but what each needs; the builders add the rest.
pub(crate) const fn row(
    section: &'static str,
    key: &'static str,
    kind: Kind,
    access: Access,
    doc: &'static str,
) -> Setting {
    Setting {
        section,
        key,
        key_aliases: &[],
        short_env: None,
        flag: None,
        redis: &[],
        kind,
        change: Change::Live,
        doc,
        read: access.0,
        write: access.1,
    }
}
