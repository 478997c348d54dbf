//! The repository's own tools. `cargo xtask` lists them.

mod tidy;

use std::path::Path;
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask tidy    check what a program can check of the repository's taste:
                    crate dependencies, leftovers, links, generated files
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["tidy"] => tidy::run(root()),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        other => {
            eprint!("xtask: unknown arguments {other:?}; known are:\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the checkout this binary was built from.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("xtask lies in crates/xtask of the checkout")
}
