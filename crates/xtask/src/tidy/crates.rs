//! The direction of dependencies between crates, and what each may bring in.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use toml_edit::{DocumentMut, Item};

use super::Report;

/// Each crate and the workspace crates it may depend on, lowest first. A crate
/// is named by its folder below `crates/`. A new crate gets a row, so that the
/// picture of the house is changed on purpose.
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("entry", &["base"]),
    ("settings", &["base"]),
    ("resp", &["base"]),
    ("keyspace", &["base", "entry"]),
    ("command", &["base", "keyspace"]),
    ("log", &["base"]),
    ("archive", &["base", "keyspace", "log"]),
    ("engine", &["base", "settings", "keyspace", "command", "log"]),
    ("front-resp", &["base", "settings", "resp", "command", "engine"]),
    ("client", &["base", "resp"]),
    ("cli", &["base", "settings", "resp", "command", "client"]),
    ("bench", &["base", "resp", "client"]),
    ("testkit", &["base", "resp", "keyspace", "command", "log", "engine", "client"]),
    ("xtask", &[]),
    (
        "alcid",
        &[
            "base",
            "settings",
            "resp",
            "keyspace",
            "command",
            "log",
            "archive",
            "engine",
            "front-resp",
            "client",
            "cli",
            "bench",
        ],
    ),
];

/// What tests of any crate may use besides the crate's own dependencies.
const TESTS_MAY_USE: &[&str] = &["base", "client", "resp", "testkit"];

/// Crates without I/O, async runtime, clock or global random source.
pub const PURE: &[&str] = &["base", "entry", "resp", "keyspace", "command"];

/// Libraries that a pure crate must not link.
const IMPURE_LIBRARIES: &[&str] = &["tokio", "rand", "getrandom", "fastrand", "socket2", "tracing"];

/// The one crate with unsafe code; it states its lints itself.
const UNSAFE_CRATE: &str = "entry";

/// Reads every manifest below `crates/`.
pub fn check(root: &Path, report: &mut Report) {
    let folder = Path::new("crates");
    let Ok(entries) = fs::read_dir(root.join(folder)) else {
        return report.problem(folder, None, "cannot be read: run from a checkout");
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    for name in &names {
        let path = folder.join(name).join("Cargo.toml");
        let text = match fs::read_to_string(root.join(&path)) {
            Ok(text) => text,
            Err(error) => {
                report.problem(&path, None, format!("cannot be read: {error}"));
                continue;
            }
        };
        match text.parse::<DocumentMut>() {
            Ok(manifest) => check_manifest(name, &manifest, &names, &path, report),
            Err(error) => report.problem(&path, None, format!("is not TOML: {error}")),
        }
    }
}

fn check_manifest(
    name: &str,
    manifest: &DocumentMut,
    crates: &[String],
    path: &Path,
    report: &mut Report,
) {
    let rules: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let Some(allowed) = rules.get(name) else {
        let advice = "is not in MAY_USE of crates/xtask/src/tidy/crates.rs: add a row that says what it may use";
        return report.problem(path, None, advice);
    };
    for dependency in names_in(manifest, "dependencies") {
        if crates.iter().any(|known| known == dependency) && !allowed.contains(&dependency) {
            report.problem(
                path,
                None,
                format!(
                    "{name} may not use {dependency}: arrows point down only (allowed: {allowed:?})"
                ),
            );
        }
        if PURE.contains(&name) && IMPURE_LIBRARIES.contains(&dependency) {
            report.problem(path, None, format!("{name} is pure and may not use {dependency}"));
        }
    }
    for dependency in names_in(manifest, "dev-dependencies") {
        let fine = allowed.contains(&dependency) || TESTS_MAY_USE.contains(&dependency);
        if crates.iter().any(|known| known == dependency) && !fine {
            report.problem(path, None, format!("the tests of {name} may not use {dependency}"));
        }
    }
    let inherits =
        manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Item::as_bool);
    if inherits != Some(true) && name != UNSAFE_CRATE {
        report.problem(path, None, "lacks `[lints] workspace = true`");
    }
}

fn names_in<'a>(manifest: &'a DocumentMut, table: &str) -> Vec<&'a str> {
    manifest
        .get(table)
        .and_then(Item::as_table_like)
        .map(|table| table.iter().map(|(name, _)| name).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, manifest: &str) -> Vec<String> {
        let crates: Vec<String> = MAY_USE.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut report = Report::default();
        let manifest = manifest.parse().expect("test manifests are TOML");
        check_manifest(name, &manifest, &crates, Path::new("Cargo.toml"), &mut report);
        report.problems
    }

    #[test]
    fn rows_only_name_crates_above_them() {
        for (position, (name, allowed)) in MAY_USE.iter().enumerate() {
            for used in *allowed {
                assert!(
                    MAY_USE[..position].iter().any(|(below, _)| below == used),
                    "{name} may use {used}, which stands below it or nowhere"
                );
            }
        }
    }

    #[test]
    fn arrows_point_down() {
        let lints = "[lints]\nworkspace = true\n";
        for (name, manifest, expected) in [
            ("keyspace", "[dependencies]\nbase.workspace = true\nthiserror.workspace = true\n", ""),
            ("keyspace", "[dependencies]\nengine.workspace = true\n", "may not use engine"),
            ("keyspace", "[dev-dependencies]\ntestkit.workspace = true\n", ""),
            ("keyspace", "[dev-dependencies]\nengine.workspace = true\n", "may not use engine"),
            ("command", "[dependencies]\ntokio = \"1\"\n", "is pure"),
            ("engine", "[dependencies]\ntokio = \"1\"\n", ""),
            ("surprise", "", "MAY_USE"),
        ] {
            let found = problems(name, &format!("{manifest}{lints}")).join("\n");
            assert_eq!(found.is_empty(), expected.is_empty(), "{name}: {found}");
            assert!(found.contains(expected), "{name}: {found}");
        }
    }

    #[test]
    fn lints_are_inherited() {
        assert_eq!(problems("base", "[lints]\nworkspace = true\n"), Vec::<String>::new());
        assert!(problems("base", "").join("").contains("workspace = true"));
        assert_eq!(problems(UNSAFE_CRATE, ""), Vec::<String>::new());
    }
}
