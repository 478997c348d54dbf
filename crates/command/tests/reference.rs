//! `docs/COMMANDS.md` fits the command table.

use std::path::Path;

#[test]
fn docs_are_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/COMMANDS.md");
    let expected = command::reference();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &expected).expect("docs/ can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/COMMANDS.md does not fit the command table: run UPDATE_EXPECT=1 cargo test -p command --test reference"
    );
}
