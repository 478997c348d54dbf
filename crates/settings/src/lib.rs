//! Every setting of Alcid, in one table.
//!
//! [`SETTINGS`] has one row per setting: its place in the TOML file, its
//! environment variable, its flag, its Redis name, its type and range, whether
//! it changes live, and one line of documentation. Everything else is derived
//! from those rows: reading the layers ([`load`]), `CONFIG GET` and
//! `CONFIG SET` ([`config_get`], [`config_set`]), `CONFIG REWRITE`
//! ([`rewrite`]), the generated file ([`generate`]) and `docs/CONFIG.md`
//! ([`reference()`]).
//!
//! To add a setting: a field in [`Settings`] with its default, and a row in
//! `table.rs`.
//!
//! Pure: this crate takes text and gives text. Who finds and reads the file is
//! the binary; [`search_list`] only names the places.

mod file;
mod load;
mod model;
mod nearest;
mod redis;
mod reference;
mod reload;
mod schedule;
mod setting;
mod special;
mod table;
mod value;

pub use file::{generate, rewrite};
pub use load::{FileLayer, Layers, Loaded, Origin, Problem, SettingError, load, search_list};
pub use model::{
    Accepted, Compression, Encoding, EvictionPolicy, Fsync, LogFormat, LogLevel, LogRotation,
    Logging, SecretString, Settings,
};
pub use redis::{HIDDEN_SECRET, SetError, config_get, config_set};
pub use reference::reference;
pub use reload::{Reloaded, reload};
pub use schedule::{Cron, Schedule};
pub use setting::{Change, Setting};
pub use special::{MappedBranch, OutputLimit, OutputLimits, is_loopback, mapped_branches};
pub use table::{SETTINGS, find};
pub use value::{Kind, Value};
