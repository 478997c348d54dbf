//! The committed golden scripts are complete, whatever they run against.

use std::fs;
use std::path::Path;

use testkit::script::{Action, Block, Script};

#[test]
fn every_script_parses_and_expects_something() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut scripts = 0;
    for family in fs::read_dir(&folder).expect("the scripts are here").flatten() {
        for file in fs::read_dir(family.path()).expect("a folder per family").flatten() {
            let path = file.path();
            let text = fs::read_to_string(&path).expect("a readable script");
            let script =
                Script::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(script.to_text(), text, "{} changes when rewritten", path.display());
            for block in &script.blocks {
                let Block::Step(step) = block else { continue };
                if matches!(step.action, Action::Command { .. } | Action::Await(_)) {
                    let place = format!("{}:{}", path.display(), step.line);
                    assert!(!step.expected.is_empty(), "{place}: no reply recorded");
                }
            }
            scripts += 1;
        }
    }
    assert!(scripts > 0, "no script in {}", folder.display());
}
