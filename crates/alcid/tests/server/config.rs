//! Settings from flags, environment and file, and what the program says when
//! they are wrong.

use std::fs;

use base::{Clock, Frame, SystemClock};
use testkit::{Server, temp_dir};

use crate::ALCID;
use crate::run::{Ended, alcid, command, end, wrapped};
use crate::wire::{PATIENCE, Wire};

/// Runs `alcid server --config file` on a file with this text.
fn with_file(text: &str) -> Ended {
    let folder = temp_dir();
    fs::write(folder.path().join("test.toml"), text).expect("ours");
    let ended = alcid(folder.path(), &["server", "--config", "test.toml"]);
    let checked = alcid(folder.path(), &["config", "validate", "--config", "test.toml"]);
    assert_eq!((checked.code, &checked.err), (ended.code, &ended.err), "both say the same");
    assert!(!folder.path().join("alcid-data").exists(), "nothing was begun");
    ended
}

#[test]
fn an_unknown_key_names_the_nearest() {
    for (text, line, unknown, nearest) in [
        ("[server]\n\nprot = 1\n", 3, "server.prot", "server.port"),
        ("[storage]\naof_fsink = \"no\"\n", 2, "storage.aof_fsink", "storage.aof_fsync"),
        ("[sever]\nport = 1\n", 1, "sever", "server"),
    ] {
        let ended = with_file(text);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains(&format!("test.toml:{line}: ")), "{ended:?}");
        assert!(ended.err.contains(unknown) && ended.err.contains(nearest), "{ended:?}");
    }
    let folder = temp_dir();
    let mut run = command(folder.path(), &["server"]);
    let ended = end(run.env("ALCID_SERVER_PROT", "1").spawn().expect("it starts"));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("ALCID_SERVER_PORT"), "{ended:?}");
}

#[test]
fn a_bad_value_names_key_value_line_and_range() {
    for (text, message) in [
        (
            "[server]\nport = 70000\n",
            "test.toml:2: server.port = 70000: expected a whole number from 0 to 65535",
        ),
        (
            "[storage]\n\naof_fsync = \"often\"\n",
            "test.toml:3: storage.aof_fsync = \"often\": expected one of always, everysec, no",
        ),
        ("[server]\nbind_address = \"no such host!\"\n", "test.toml:2: server.bind_address"),
        ("[server]\nport = \n", "test.toml:2: not TOML"),
    ] {
        let ended = with_file(text);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains(message), "{ended:?}");
    }
    // All of them at once.
    let ended = with_file("[server]\nport = -1\nhz = 0\nprot = 1\n");
    assert_eq!(ended.err.trim().lines().count(), 3, "{ended:?}");
}

#[test]
fn bad_ports_and_addresses_on_the_command_line() {
    let folder = temp_dir();
    for (arguments, message) in [
        (["--port", "x"], "--port: server.port = \"x\": expected a whole number from 0 to 65535"),
        (["--port", "65536"], "from 0 to 65535"),
        (["--bind", "999.1.1.1"], "--bind: server.bind_address = \"999.1.1.1\""),
        (["--max-memory", "lots"], "--max-memory"),
    ] {
        let ended = alcid(folder.path(), &[&["server"][..], &arguments].concat());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains(message), "{ended:?}");
    }
    let ended = alcid(folder.path(), &["server", "--config", "none.toml"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("none.toml"), "{ended:?}");
    let ended = alcid(folder.path(), &["server", "--prot", "1"]);
    assert!(ended.code != Some(0) && ended.err.contains("'--port'"), "{ended:?}");
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let folder = temp_dir();
    let file = folder.path().join("test.toml");
    fs::write(&file, "[storage]\naof_fsync = \"no\"\n").expect("ours");
    let file = ["--config", file.to_str().expect("text")];
    let flag = ["--aof-fsync", "always"];
    let environment = "ALCID_STORAGE_AOF_FSYNC=everysec";
    for (environment, arguments, value) in [
        ("", vec![], "everysec"),
        ("", file.to_vec(), "no"),
        (environment, file.to_vec(), "everysec"),
        (environment, [file, flag].concat(), "always"),
        ("", [file, flag].concat(), "always"),
    ] {
        let program = wrapped(folder.path(), &format!("{environment} exec"));
        let server = Server::start(program, &arguments);
        let log = server.log();
        assert!(
            log.contains(&format!("Durability {value}:")),
            "{environment} {arguments:?}: {log}"
        );
        let reply = Wire::connect(server.addr()).call(&["CONFIG", "GET", "appendfsync"]);
        assert!(matches!(reply, Frame::Array(items) if items[1] == Frame::bulk(value)));
    }
}

#[test]
fn the_running_server_has_the_settings_it_was_given() {
    let server = Server::start(ALCID, &["--aof-fsync", "no", "--max-memory", "64MB"]);
    let mut wire = Wire::connect(server.addr());
    for (name, value) in
        [("appendfsync", "no"), ("maxmemory", "67108864"), ("port", &server.port().to_string())]
    {
        let reply = format!("{:?}", wire.call(&["CONFIG", "GET", name]));
        let expected = format!("{:?}", [Frame::bulk(name), Frame::bulk(value)]);
        assert!(reply.contains(&expected), "{reply}");
    }
}

#[test]
fn generate_validate_paths() {
    let folder = temp_dir();
    let ended = alcid(folder.path(), &["config", "generate", "made.toml"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = alcid(folder.path(), &["config", "generate", "made.toml"]);
    assert_eq!(ended.code, Some(1), "it never replaces a file: {ended:?}");
    assert!(ended.err.contains("made.toml") && ended.err.contains("--force"), "{ended:?}");
    assert_eq!(alcid(folder.path(), &["config", "generate", "made.toml", "--force"]).code, Some(0));
    let ended = alcid(folder.path(), &["config", "validate", "--config", "made.toml"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = alcid(folder.path(), &["config", "paths"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.lines().count() >= 5 && ended.out.contains("alcid.toml"), "{ended:?}");
    // The file is found where the paths say, without being named.
    fs::write(folder.path().join("alcid.toml"), "[server]\nport = \"?\"\n").expect("ours");
    let ended = alcid(folder.path(), &["server"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("alcid.toml:2: server.port"), "{ended:?}");
}

#[test]
fn help_of_every_subcommand() {
    let folder = temp_dir();
    let help = alcid(folder.path(), &["--help"]);
    assert_eq!(help.code, Some(0), "{help:?}");
    let mut shown = 0;
    let mut open = vec![Vec::new()];
    while let Some(words) = open.pop() {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = alcid(folder.path(), &arguments);
        assert_eq!(help.code, Some(0), "{arguments:?}: {help:?}");
        assert!(help.out.contains("Usage: alcid"), "{arguments:?}: {help:?}");
        shown += 1;
        let commands = help.out.split("\nCommands:\n").nth(1).unwrap_or_default();
        for line in commands.lines().take_while(|line| line.starts_with("  ")) {
            let name = line.split_whitespace().next().expect("a line with a name");
            // Lines that go on with a long summary are indented further.
            if !line.starts_with("   ") && name != "help" {
                open.push([words.clone(), vec![name.to_owned()]].concat());
            }
        }
    }
    assert!(shown >= 9, "{shown}");
    let version = alcid(folder.path(), &["--version"]);
    assert!(version.out.contains(env!("CARGO_PKG_VERSION")), "{version:?}");
}

/// Asks until the setting has the value, which another process brings about.
fn await_setting(wire: &mut Wire, name: &str, value: &str) {
    let end_ns = SystemClock.monotonic_ns() + PATIENCE.as_nanos() as u64;
    let expected = format!("{:?}", [Frame::bulk(name), Frame::bulk(value)]);
    loop {
        let reply = format!("{:?}", wire.call(&["CONFIG", "GET", name]));
        if reply.contains(&expected) {
            return;
        }
        assert!(SystemClock.monotonic_ns() < end_ns, "{name} is not {value}: {reply}");
        std::thread::yield_now();
    }
}

#[test]
fn sighup_reads_the_file_again() {
    let folder = temp_dir();
    let file = folder.path().join("alcid.toml");
    let write = |text: &str| fs::write(&file, text).expect("ours");
    write("[storage]\nmax_memory = \"64MB\"\n");
    let server = Server::start(ALCID, &["--config", file.to_str().expect("ASCII")]);
    let mut wire = Wire::connect(server.addr());
    wire.call(&["CONFIG", "SET", "timeout", "99"]);

    write("[storage]\nmax_memory = \"32MB\"\n[server]\nmax_connections = 77\ndatabases = 3\n");
    server.signal("HUP");
    await_setting(&mut wire, "maxmemory", "33554432");
    await_setting(&mut wire, "maxclients", "77");
    // What the file says nothing about stays, and what needs a restart waits.
    await_setting(&mut wire, "timeout", "99");
    await_setting(&mut wire, "databases", "16");
    assert!(server.log().contains("server.databases"), "{}", server.log());

    write("[storage]\nmax_memory = \"lots\"\n");
    server.signal("HUP");
    let end_ns = SystemClock.monotonic_ns() + PATIENCE.as_nanos() as u64;
    while !server.log().contains("the settings stay as they are") {
        assert!(SystemClock.monotonic_ns() < end_ns, "{}", server.log());
        std::thread::yield_now();
    }
    await_setting(&mut wire, "maxmemory", "33554432");
}

#[test]
fn the_level_of_diagnostics_changes_at_once() {
    let mut server = Server::start(ALCID, &["--log-level", "error"]);
    let mut wire = Wire::connect(server.addr());
    wire.call(&["CONFIG", "SET", "loglevel", "notice"]);
    server.terminate();
    assert!(server.log().contains("shutting down"), "{}", server.log());
}
