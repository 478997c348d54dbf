//! The keys in the code, in the generated file and in the docs are the same.

use std::path::Path;

use settings::{FileLayer, Layers, Origin, SETTINGS, Settings, generate, load, reference, rewrite};

/// Compares a committed file with what the table says it should be;
/// `UPDATE_EXPECT=1` writes it instead.
fn expect_file(path: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{} does not fit the table of settings: run UPDATE_EXPECT=1 cargo test -p settings",
        path.display()
    );
}

#[test]
fn docs_are_up_to_date() {
    expect_file("docs/CONFIG.md", &reference());
}

#[test]
fn example_with_every_default_is_up_to_date() {
    expect_file("examples/configs/defaults.toml", &generate());
}

#[test]
fn other_examples_validate() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/configs");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.display().to_string();
        let file = Some(FileLayer { name: &name, text: &text });
        let loaded = load(&Layers { file, ..Layers::default() });
        assert!(loaded.is_ok(), "{loaded:?}");
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn keys_agree_everywhere() {
    let (file, docs) = (generate(), reference());
    let mut section = String::new();
    let mut in_file = Vec::new();
    for line in file.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ")
            && !key.contains(' ')
        {
            in_file.push(format!("{section}.{key}"));
        }
    }
    let in_docs: Vec<String> =
        docs.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect();
    let in_code: Vec<String> =
        SETTINGS.iter().filter(|row| !row.is_accepted_only()).map(|row| row.name()).collect();
    assert_eq!(in_file, in_code);
    assert_eq!(in_docs, in_code);
}

#[test]
fn generated_file_validates_unchanged_and_means_the_defaults() {
    let text = generate();
    let file = Some(FileLayer { name: "generated.toml", text: &text });
    let loaded = load(&Layers { file, ..Layers::default() }).unwrap();
    assert_eq!(loaded.settings, Settings::default());
    let from_file =
        loaded.iter().filter(|(_, _, origin)| matches!(origin, Origin::File { .. })).count();
    assert!(from_file > 30, "{from_file} keys came from the file");
    // Rewriting what already holds is a no-op, to the byte.
    assert_eq!(rewrite(&text, &loaded.settings).unwrap(), text);
}
