//! The checksum of the tree's manifest, which the tree itself does not check.
//!
//! `current` names the manifest in force: its number (u64), the XXH3-128 of
//! the file `v<number>` (u128), both little-endian, and a zero byte. Every
//! table file has a checksum in each block, which the tree checks whenever it
//! reads one, and the manifest has one of the whole file.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

/// Checks the manifest in force; a folder without one is new.
///
/// # Errors
/// The file that is damaged, and how.
pub(crate) fn check(dir: &Path) -> Result<(), (PathBuf, String)> {
    let current = dir.join("current");
    let bytes = match fs::read(&current) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err((current, error.to_string())),
        Ok(bytes) => bytes,
    };
    let (name, expected) = named(&bytes).map_err(|what| (current, what))?;
    let path = dir.join(name);
    match fs::read(&path) {
        Err(error) => Err((path, error.to_string())),
        Ok(bytes) if xxh3_128(&bytes) != expected => {
            Err((path, "its checksum does not match".to_owned()))
        }
        Ok(_) => Ok(()),
    }
}

/// The file that `current` names, and the XXH3-128 that it must have.
///
/// # Errors
/// How the bytes of `current` are malformed.
pub(crate) fn named(current: &[u8]) -> Result<(String, u128), String> {
    let (Some(id), Some(expected)) = (current.get(..8), current.get(8..24)) else {
        return Err(format!("it has {} bytes instead of 25", current.len()));
    };
    let id = u64::from_le_bytes(id.try_into().expect("eight bytes"));
    let expected = u128::from_le_bytes(expected.try_into().expect("sixteen bytes"));
    Ok((format!("v{id}"), expected))
}
