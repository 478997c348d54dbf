//! What disk remembers.

pub mod history;
