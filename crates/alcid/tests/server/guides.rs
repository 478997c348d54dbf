//! The examples of the guides in `docs`: pasted into a shell in order, they
//! answer what the guides say.

use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::{Server, temp_dir};

use crate::ALCID;
use crate::run::wrapped;

/// An example: a command line and what it prints.
#[derive(Debug)]
struct Example {
    command: String,
    printed: Vec<String>,
}

/// The examples of a guide: in blocks of text, each from a line with `$`.
fn examples(guide: &str) -> Vec<Example> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(guide);
    let text = fs::read_to_string(&path).expect("the guide is there");
    let mut found: Vec<Example> = Vec::new();
    let mut is_example = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_example = false;
        } else if let Some(command) = line.strip_prefix("$ ") {
            is_example = true;
            found.push(Example { command: command.to_owned(), printed: Vec::new() });
        } else if let Some(example) = found.last_mut().filter(|_| is_example) {
            example.printed.push(line.to_owned());
        }
    }
    found
}

/// What a command line prints, run in `folder` by a shell.
fn print(command: &str, server: &Server, folder: &Path) -> Vec<String> {
    let (addr, port) = (server.addr(), server.port());
    let line = command
        .replace("alcid cli", &format!("{ALCID} cli --addr {addr}"))
        .replace("alcid backup --to", &format!("{ALCID} backup -p {port} --to"));
    let line = match line.strip_prefix("alcid ") {
        Some(rest) => format!("{ALCID} {rest}"),
        None => line,
    };
    let output = Command::new("sh").args(["-c", &line]).current_dir(folder).output();
    let output = output.expect("there is a shell");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).expect("text");
    text.replace(&folder.display().to_string(), "/srv/alcid").lines().map(str::to_owned).collect()
}

/// A line without what differs from run to run: times, ports, sizes, checksums.
fn settled(line: &str) -> String {
    let is_part = |byte: char| byte.is_ascii_alphanumeric() || ".:-".contains(byte);
    let mut words = Vec::new();
    for word in line.split_inclusive(|byte| !is_part(byte)) {
        let name = word.trim_end_matches(|byte| !is_part(byte) || ".:".contains(byte));
        let rest = &word[name.len()..];
        let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let is_size =
            name.ends_with(['B', 'K', 'M']) && name.starts_with(|it: char| it.is_ascii_digit());
        let is_decimal = name.split('.').count() == 2
            && name.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit());
        let is_time = name.len() > 18 && name.starts_with("20") && name.contains('T');
        let is_sum = name.len() >= 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let stands_for = match name {
            _ if is_decimal || is_number && name.len() > 6 => "N",
            _ if is_size => "SIZE",
            _ if is_time => "TIME",
            _ if is_sum => "SUM",
            _ if name.starts_with("127.0.0.1:") => "ADDRESS",
            name => name,
        };
        words.push(format!("{stands_for}{rest}"));
    }
    let line = words.concat();
    // How long it took.
    match line.split_once(" It took ") {
        Some((before, _)) => before.to_owned(),
        None => line,
    }
}

/// Runs a guide's examples on a new server, but for those that `is_left_out`.
/// Answers what differs.
fn run(guide: &str, is_left_out: &dyn Fn(&Example) -> bool) -> Result<usize, String> {
    let folder = temp_dir();
    // What the archive has by then would depend on how long the examples take.
    let program = wrapped(folder.path(), "ALCID_STORAGE_ARCHIVE_IDLE=0 exec");
    let server = Server::start(program, &[]);
    let mut count = 0;
    for example in examples(guide).iter().filter(|example| !is_left_out(example)) {
        let printed = print(&example.command, &server, folder.path());
        let settle = |lines: &[String]| lines.iter().map(|line| settled(line)).collect::<Vec<_>>();
        if settle(&printed) != settle(&example.printed) {
            let (now, said) = (printed.join("\n"), example.printed.join("\n"));
            return Err(format!("{guide}: $ {}\n{now}\n\nThe guide says\n{said}", example.command));
        }
        count += 1;
    }
    Ok(count)
}

/// Another hour may begin within an example, so a guide has a second try.
fn check(guide: &str, least: usize, is_left_out: &dyn Fn(&Example) -> bool) {
    let count = run(guide, is_left_out).or_else(|_| run(guide, is_left_out));
    match count {
        Ok(count) => assert!(count >= least, "{guide} has only {count} examples"),
        Err(differs) => panic!("{differs}"),
    }
}

#[test]
fn history_answers_what_its_guide_says() {
    check("HISTORY.md", 15, &|_| false);
}

#[test]
fn branches_answer_what_their_guide_says() {
    check("BRANCHES.md", 12, &|_| false);
}

#[test]
fn backups_answer_what_their_guide_says() {
    // These are about another server, a damaged backup, a schedule or times.
    let elsewhere = ["alcid cli \"MGET user:1", "alcid cli \"INFO", "alcid cli BACKUP TO"];
    check("BACKUP.md", 8, &|example| {
        elsewhere.iter().any(|begin| example.command.starts_with(begin))
            || example.printed.iter().any(|line| line.contains("are damaged"))
    });
}

#[test]
fn what_differs_from_run_to_run_is_left_out() {
    for (line, expected) in [
        ("   2) (integer) 1795259596530", "   2) (integer) N"),
        ("   5) (integer) 963", "   5) (integer) 963"),
        ("   5) \"127.0.0.1:59664\"", "   5) \"ADDRESS\""),
        (
            "5 files, 2.19K; 1 of them, 299B, were new. It took 2 ms.",
            "5 files, SIZE; 1 of them, SIZE, were new.",
        ),
        (
            "Database 45e4859054f6075fd97484bc2b6acc52, newest of 2026-11-21T10:51:53.584Z.",
            "Database SUM, newest of TIME.",
        ),
        ("5 files, 2.23K: all are whole.", "5 files, SIZE: all are whole."),
        ("Restored revision 2", "Restored revision 2"),
    ] {
        assert_eq!(settled(line), expected);
    }
}
