//! The checksums of the tree's manifest, which the tree itself does not check,
//! and of the files that it names.
//!
//! `current` names the manifest in force: its number (u64), the XXH3-128 of
//! the file `v<number>` (u128), both little-endian, and a zero byte. Every
//! table file has a checksum in each block, which the tree checks whenever it
//! reads one, and the manifest has one of the whole file.
//!
//! The manifest, as a table, is sections and a table of contents, of which its last
//! bytes tell the place. The section `tables` has a count of levels (u8), for each a count of
//! runs (u8), and for each of these a count of tables (u32) and them: the number
//! that is the file's name (u64), a zero byte, the file's XXH3-128 (u128) and a
//! number (u64) that is of no interest here.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::table_file::damaged_block;

/// Bytes of what stands behind a manifest's table of contents.
const TRAILER_BYTES: usize = 38;

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Checks the manifest in force; a folder without one, and without tables, is new.
///
/// # Errors
/// The file that is damaged, and how.
pub(crate) fn check(dir: &Path) -> Result<(), (PathBuf, String)> {
    let current = dir.join("current");
    let bytes = match fs::read(&current) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // A start that was cut short leaves a manifest without tables.
            let has_tables =
                fs::read_dir(dir.join("tables")).is_ok_and(|mut tables| tables.next().is_some());
            let what = "it is not there, and says which of the tables beside it are in force; put the file back";
            return if has_tables { Err((current, what.to_owned())) } else { Ok(()) };
        }
        Err(error) => return Err((current, error.to_string())),
        Ok(bytes) => bytes,
    };
    let (name, expected) = named(&bytes).map_err(|what| (current.clone(), what))?;
    let path = dir.join(&name);
    let (is_there, what) = match fs::read(&path) {
        Ok(bytes) if xxh3_128(&bytes) == expected => return Ok(()),
        Ok(_) => (true, format!("its checksum is not the one that `current` has of {name}")),
        Err(error) if error.kind() == ErrorKind::NotFound => (false, "it is not there".to_owned()),
        Err(error) => return Err((path, error.to_string())),
    };
    Err(match manifest_with(dir, expected) {
        Some(other) => (current, format!("it names {name}, and has the checksum of {other}")),
        None if is_there => (path, format!("{what}; one of these two files is damaged")),
        None => (path, format!("{what}, and `current` names it")),
    })
}

/// The number of the manifest in force.
pub(crate) fn in_force(dir: &Path) -> Option<u64> {
    let (name, _) = named(&fs::read(dir.join("current")).ok()?).ok()?;
    name.strip_prefix('v')?.parse().ok()
}

/// The manifest in a folder that has this checksum.
fn manifest_with(dir: &Path, checksum: u128) -> Option<String> {
    let names =
        fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut manifests = names.filter(|name| name.starts_with('v'));
    manifests.find(|name| fs::read(dir.join(name)).is_ok_and(|bytes| xxh3_128(&bytes) == checksum))
}

/// A table that the manifest in force names and that is not what was written, and
/// how it is not. Reads tables until one is found.
pub(crate) fn damaged_table(dir: &Path) -> Option<(PathBuf, String)> {
    let (name, _) = named(&fs::read(dir.join("current")).ok()?).ok()?;
    let tables = tables(&fs::read(dir.join(name)).ok()?)?;
    let path = |number: u64| dir.join("tables").join(number.to_string());
    // What is seen without reading first.
    let missing = tables.iter().map(|(number, _)| path(*number)).find(|path| !path.exists());
    if let Some(path) = missing {
        return Some((path, "it is not there".to_owned()));
    }
    tables.into_iter().find_map(|(number, expected)| {
        let path = path(number);
        let what = match checksum_of(&path) {
            Ok(found) if found == expected => return None,
            Ok(_) => {
                let place =
                    damaged_block(&path).map_or(String::new(), |at| format!("at byte {at} "));
                format!("{place}its content is not what was written")
            }
            Err(error) => error.to_string(),
        };
        Some((path, what))
    })
}

fn checksum_of(path: &Path) -> std::io::Result<u128> {
    let (mut file, mut sum, mut chunk) = (File::open(path)?, Xxh3::new(), vec![0; CHUNK_BYTES]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(sum.digest128()),
            count => sum.update(&chunk[..count]),
        }
    }
}

/// The numbers of a manifest's tables and the XXH3-128 of each.
fn tables(manifest: &[u8]) -> Option<Vec<(u64, u128)>> {
    let mut section = manifest.get(section(manifest, b"tables")?)?;
    let rest = &mut section;
    let mut tables = Vec::new();
    for _ in 0..number::<1>(rest)? {
        for _ in 0..number::<1>(rest)? {
            for _ in 0..number::<4>(rest)? {
                let (table, _) = (number::<8>(rest)?, number::<1>(rest)?);
                tables.push((u64::try_from(table).ok()?, number::<16>(rest)?));
                number::<8>(rest)?;
            }
        }
    }
    Some(tables)
}

/// Where a section of a manifest is, or of another file of the tree.
pub(crate) fn section(file: &[u8], wanted: &[u8]) -> Option<Range<usize>> {
    let trailer = file.len().checked_sub(TRAILER_BYTES)?;
    let contents = number::<8>(&mut file.get(trailer + 22..)?)?;
    let mut rest = file.get(usize::try_from(contents).ok()?..trailer)?.strip_prefix(b"TOC!")?;
    for _ in 0..number::<4>(&mut rest)? {
        let [at, len] = [number::<8>(&mut rest)?, number::<8>(&mut rest)?].map(usize::try_from);
        let name_bytes = number::<2>(&mut rest)? as usize;
        let (name, behind) = rest.split_at_checked(name_bytes)?;
        if name == wanted {
            let at = at.ok()?;
            return Some(at..at.checked_add(len.ok()?)?);
        }
        rest = behind;
    }
    None
}

/// Takes a little-endian number of `N` bytes.
fn number<const N: usize>(bytes: &mut &[u8]) -> Option<u128> {
    let (number, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(number.iter().rev().fold(0, |sum, byte| sum << 8 | u128::from(*byte)))
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
