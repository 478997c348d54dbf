//! Security defaults, each test named after its row of RELIABILITY 6. Time
//! limits (S3, S17) are in `patience.rs`, where time is the test's; decoders
//! that take hostile bytes (S4, S24) have `tests/fuzz*.rs` in their crates.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::Frame;
use testkit::{Server, temp_dir};

use crate::ALCID;
use crate::run::{alcid, command, end, wrapped};
use crate::wire::{Came, PATIENCE, Wire, eventually, memory_of, text_of};

const PASSWORD: &str = "marker-of-the-password";

/// A server with a password, which it has from its environment.
fn with_password(arguments: &[&str]) -> Server {
    let folder = temp_dir();
    let program = wrapped(folder.path(), &format!("ALCID_SECURITY_PASSWORD={PASSWORD} exec"));
    Server::start(program, arguments)
}

fn authenticated(server: &Server) -> Wire {
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["AUTH", PASSWORD]), "OK");
    wire
}

/// What the server says to these bytes before it closes the connection.
fn last_words(server: &Server, bytes: &[u8]) -> String {
    let mut wire = Wire::connect(server.addr());
    wire.raw(bytes);
    match wire.read(PATIENCE) {
        Came::Frame(frame) => {
            let words = text_of(frame);
            assert!(wire.ends(), "{:?} left the connection open", bytes.escape_ascii());
            words
        }
        Came::Closed => "closed".to_owned(),
        Came::Nothing => panic!("{} was swallowed", bytes.escape_ascii()),
    }
}

#[test]
fn s1_a_bind_beyond_loopback_needs_a_password_or_an_explicit_word() {
    let folder = temp_dir();
    for address in ["0.0.0.0", "::", "127.0.0.1 0.0.0.0"] {
        let ended = alcid(folder.path(), &["server", "--port", "0", "--bind", address]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains("--insecure-no-auth"), "{ended:?}");
        assert!(!folder.path().join("alcid-data").exists(), "nothing was begun");
    }
    let server = Server::start(ALCID, &["--bind", "0.0.0.0", "--insecure-no-auth"]);
    assert_eq!(Wire::connect(server.addr()).text(&["PING"]), "PONG");
    assert!(server.log().contains("WARN"), "{}", server.log());
    let server = with_password(&["--bind", "0.0.0.0"]);
    assert!(Wire::connect(server.addr()).text(&["PING"]).starts_with("NOAUTH"));
}

#[test]
fn s3_a_client_without_a_password_gets_little() {
    let server = with_password(&[]);
    let before = memory_of(server.pid(), "VmRSS");
    assert!(last_words(&server, b"*1000000\r\n").contains("unauthenticated multibulk length"));
    assert!(last_words(&server, b"*11\r\n").contains("unauthenticated multibulk length"));
    let long = b"*2\r\n$4\r\nAUTH\r\n$536870912\r\n";
    assert!(last_words(&server, long).contains("unauthenticated bulk length"));
    let mut wire = Wire::connect(server.addr());
    for words in [&["GET", "k"][..], &["SET", "k", "v"], &["CONFIG", "GET", "*"], &["MONITOR"]] {
        assert_eq!(wire.text(words), "NOAUTH Authentication required.");
    }
    // A million requests whose replies nobody reads.
    let mut greedy = Wire::connect(server.addr());
    greedy.stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    let pings = b"PING\r\n".repeat(10_000);
    let mut sent = 0;
    while sent < 1_000 && greedy.stream.write_all(&pings).is_ok() {
        sent += 1;
    }
    assert!(sent < 1_000, "it was never cut off");
    let grown = memory_of(server.pid(), "VmHWM").saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes");
    assert_eq!(wire.text(&["AUTH", PASSWORD]), "OK");
    assert_eq!(wire.text(&["SET", "k", "v"]), "OK");
}

#[test]
fn s3_one_address_holds_a_share_of_the_connections_without_a_password() {
    let server = with_password(&["--max-connections", "200"]);
    let mut waiting: Vec<Wire> = Vec::new();
    // The one that asked whether the server is up may hold a place still.
    eventually("25 have a place", || {
        let mut wire = Wire::connect(server.addr());
        wire.send(&["PING"]);
        if matches!(wire.read(PATIENCE), Came::Frame(Frame::Error(text)) if text.starts_with("NOAUTH"))
        {
            waiting.push(wire);
        }
        waiting.len() == 25
    });
    let mut refused = Wire::connect(server.addr());
    assert_eq!(text_of(refused.frame()), "ERR max number of clients reached");
    assert!(refused.ends());
    // Authenticated clients do not count, and places come back.
    for wire in &mut waiting {
        assert_eq!(wire.text(&["AUTH", PASSWORD]), "OK");
    }
    let more: Vec<Wire> = (0..25).map(|_| Wire::connect(server.addr())).collect();
    drop(more);
    eventually("places come back", || {
        let mut wire = Wire::connect(server.addr());
        wire.send(&["AUTH", PASSWORD]);
        matches!(wire.read(PATIENCE), Came::Frame(Frame::Simple(_)))
    });
}

#[test]
fn s4_lengths_are_checked_before_anything_is_allocated() {
    let server = Server::start(ALCID, &[]);
    let before = memory_of(server.pid(), "VmRSS");
    for count in
        ["+5", "05", "99999999999999999999", "9223372036854775808", "2147483648", "1x", " 1", ""]
    {
        let words = last_words(&server, format!("*{count}\r\n").as_bytes());
        assert_eq!(words, "ERR Protocol error: invalid multibulk length", "*{count}");
    }
    for length in
        ["-1", "+5", "05", "-0", "9999999999999999999", "536870913", "1x", "0x10", " 1", ""]
    {
        let words = last_words(&server, format!("*1\r\n${length}\r\n").as_bytes());
        assert_eq!(words, "ERR Protocol error: invalid bulk length", "${length}");
    }
    for (bytes, words) in [
        (&b"*1\r\n:5\r\n"[..], "ERR Protocol error: expected '$', got ':'"),
        (b"*1\r\n*1\r\n$4\r\nPING\r\n", "ERR Protocol error: expected '$', got '*'"),
        (b"*1\r\n$4\r\nPINGxx", "ERR Protocol error: invalid bulk length"),
        (b"*1\r$4\r\nPING\r\n", "ERR Protocol error: invalid multibulk length"),
        (b"SET \"unbalanced\r\n", "ERR Protocol error: unbalanced quotes in request"),
    ] {
        assert_eq!(last_words(&server, bytes), words, "{}", bytes.escape_ascii());
    }
    // Allowed, and nothing is taken for what has not come.
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut wire = Wire::connect(server.addr());
        wire.raw(b"*2147483647\r\n$536870912\r\nxx");
        waiting.push(wire);
    }
    assert_eq!(Wire::connect(server.addr()).text(&["PING"]), "PONG");
    let grown = memory_of(server.pid(), "VmHWM").saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
}

#[test]
fn s5_every_class_has_an_output_limit() {
    let server = Server::start(ALCID, &["--no-log"]);
    let mut operator = Wire::connect(server.addr());
    let limits = "normal 4mb 0 0 pubsub 2mb 0 0";
    assert_eq!(operator.text(&["CONFIG", "SET", "client-output-buffer-limit", limits]), "OK");
    let cut_off = |operator: &mut Wire| {
        let stats = operator.text(&["INFO", "stats"]);
        let name = "client_output_buffer_limit_disconnections:";
        let line = stats.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
        line.trim().parse::<u64>().expect("a number")
    };

    let mut subscriber = Wire::connect(server.addr());
    subscriber.call(&["SUBSCRIBE", "channel"]);
    let message = "x".repeat(100_000);
    eventually("the subscriber is cut off", || {
        operator.call(&["PUBLISH", "channel", &message]);
        cut_off(&mut operator) == 1
    });
    assert!(subscriber.ends());

    let mut monitor = Wire::connect(server.addr());
    monitor.call(&["MONITOR"]);
    eventually("the monitor is cut off", || {
        operator.call(&["SET", "k", &message]);
        cut_off(&mut operator) == 2
    });
    assert!(monitor.ends());

    // One reply of 10 MB, and nobody reads it.
    for _ in 0..100 {
        operator.call(&["RPUSH", "list", &message]);
    }
    let mut reader = Wire::connect(server.addr());
    reader.send(&["LRANGE", "list", "0", "-1"]);
    eventually("the reader is cut off", || cut_off(&mut operator) == 3);
    assert!(reader.ends());

    // The soft limit counts from when it is first exceeded.
    let limits = "normal 0 1mb 1";
    assert_eq!(operator.text(&["CONFIG", "SET", "client-output-buffer-limit", limits]), "OK");
    let mut reader = Wire::connect(server.addr());
    reader.send(&["LRANGE", "list", "0", "-1"]);
    eventually("the reader is cut off", || cut_off(&mut operator) == 4);
    assert!(reader.ends());
    assert!(server.log().contains("soft limit of client-output-buffer-limit normal"));
}

#[test]
fn s5_all_clients_together_have_a_limit() {
    let server = Server::start(ALCID, &["--no-log"]);
    let mut operator = Wire::connect(server.addr());
    assert_eq!(operator.text(&["CONFIG", "SET", "maxmemory-clients", "20mb"]), "OK");
    // Most of a request of 30 MB, and a MULTI that only grows.
    let mut large = Wire::connect(server.addr());
    large.raw(b"*2\r\n$3\r\nGET\r\n$30000000\r\n");
    large.raw(&vec![b'x'; 25_000_000]);
    assert!(large.ends());
    let mut queue = Wire::connect(server.addr());
    queue.call(&["MULTI"]);
    let value = "x".repeat(100_000);
    let mut queued = 0;
    while queued < 250
        && queue.send(&["SET", "k", &value])
        && matches!(queue.read(PATIENCE), Came::Frame(_))
    {
        queued += 1;
    }
    assert!(queue.ends());
    let stats = operator.text(&["INFO", "stats"]);
    assert!(stats.contains("evicted_clients:2"), "{stats}");
    assert_eq!(operator.text(&["EXISTS", "k"]), "0", "nothing of the MULTI ran");
}

#[test]
fn s8_an_inline_command_is_one_line_of_64_kb() {
    let server = Server::start(ALCID, &[]);
    let mut wire = Wire::connect(server.addr());
    wire.raw(&[&b"SET k "[..], &b"x".repeat(60_000), b"\r\n"].concat());
    assert_eq!(text_of(wire.frame()), "OK");
    let words = last_words(&server, &[&b"SET long "[..], &b"x".repeat(70_000), b"\r\n"].concat());
    assert_eq!(words, "ERR Protocol error: too big inline request");
    let words = last_words(&server, &b"x".repeat(70_000));
    assert_eq!(words, "ERR Protocol error: too big inline request");
    assert_eq!(wire.text(&["EXISTS", "long"]), "0");
}

/// Every file below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(files_below(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn s13_secrets_show_nowhere() {
    let server = with_password(&["--log-level", "trace"]);
    let mut wire = authenticated(&server);
    let mut monitor = authenticated(&server);
    monitor.call(&["MONITOR"]);
    let (new, value) = ("marker-of-a-new-password", "marker-of-a-value".repeat(100));
    wire.call(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    wire.call(&["AUTH", PASSWORD]);
    wire.call(&["AUTH", "default", PASSWORD]);
    wire.call(&["HELLO", "2", "AUTH", "default", PASSWORD]);
    assert!(wire.text(&["AUTH", "marker-of-a-wrong-password"]).starts_with("WRONGPASS"));
    wire.call(&["CONFIG", "SET", "requirepass", new]);
    wire.call(&["SET", "k", &value]);
    wire.call(&["SET", "k", &value, "NONSENSE"]);
    wire.call(&["EVAL", &value]);
    wire.call(&["ECHO", "end"]);
    let mut shown = String::new();
    for words in [
        &["CONFIG", "GET", "*"][..],
        &["INFO", "everything"],
        &["SLOWLOG", "GET", "-1"],
        &["CLIENT", "LIST"],
        &["CLIENT", "INFO"],
        &["COMMAND", "DOCS", "auth"],
        &["MEMORY", "DOCTOR"],
        &["LATENCY", "DOCTOR"],
        &["DEBUG", "OBJECT", "k"],
    ] {
        let reply = format!("{:?}", wire.call(words));
        // Frames show bytes as numbers.
        let text = match wire.call(words) {
            Frame::Array(items) => items.into_iter().map(flat).collect::<Vec<_>>().join(" "),
            frame => text_of(frame),
        };
        shown += &format!("{words:?}: {text} {reply}\n");
    }
    let mut monitored = String::new();
    loop {
        let line = text_of(monitor.frame());
        monitored += &line;
        if line.contains("\"end\"") {
            break;
        }
    }
    let log = server.log();
    for secret in [PASSWORD, new, "marker-of-a-wrong-password"] {
        for (place, text) in [("replies", &shown), ("MONITOR", &monitored), ("log", &log)] {
            assert!(!text.contains(secret), "{secret} in {place}: {text}");
        }
    }
    // Values are cut in the slow log, and absent everywhere else.
    assert!(!log.contains("marker-of-a-value"), "{log}");
    let longest = "marker-of-a-value".repeat(10);
    assert!(!shown.contains(&longest), "{shown}");
    // Nor do the files of the log hold a password.
    for path in files_below(&server.data_dir()).iter().filter(|path| path.is_file()) {
        let bytes = fs::read(path).expect("ours");
        let found = bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
        assert!(!found, "{}", path.display());
    }
}

/// All words of a nested reply.
fn flat(frame: Frame) -> String {
    match frame {
        Frame::Array(items) => items.into_iter().map(flat).collect::<Vec<_>>().join(" "),
        frame => text_of(frame),
    }
}

#[test]
fn s13_a_failed_authentication_is_logged_with_its_address() {
    let server = with_password(&[]);
    let mut wire = Wire::connect(server.addr());
    wire.call(&["AUTH", "wrong"]);
    let address = wire.stream.local_addr().expect("bound").to_string();
    eventually("it is logged", || {
        server
            .log()
            .lines()
            .any(|line| line.contains("authentication failed") && line.contains(&address))
    });
}

#[test]
fn s17_connections_are_probed_and_slow_ones_hurt_nobody() {
    let server = Server::start(ALCID, &["--no-log"]);
    let mut wire = Wire::connect(server.addr());
    wire.call(&["PING"]);
    if let Ok(sockets) = fs::read_to_string("/proc/net/tcp") {
        let local = wire.stream.local_addr().expect("bound").port();
        let (here, there) = (format!(":{:04X} ", server.port()), format!(":{local:04X} "));
        let ours = sockets.lines().find(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.len() > 5
                && format!("{} ", fields[1]).ends_with(&here)
                && format!("{} ", fields[2]).ends_with(&there)
        });
        let fields: Vec<&str> = ours.expect("our connection").split_whitespace().collect();
        // Timer 2 is the keepalive timer.
        assert!(fields[5].starts_with("02:"), "{fields:?}");
    }
    // Many that send a byte now and then; everybody else is served.
    let mut slow: Vec<Wire> = (0..500).map(|_| Wire::connect(server.addr())).collect();
    for byte in b"*2\r\n$3\r\nGE" {
        for wire in &mut slow {
            assert!(wire.raw(&[*byte]));
        }
        assert_eq!(wire.text(&["SET", "k", "v"]), "OK");
    }
    for wire in &mut slow {
        wire.raw(b"T\r\n$1\r\nk\r\n");
        assert_eq!(text_of(wire.frame()), "v");
    }
}

#[test]
fn s17_out_of_descriptors_refuses_new_clients_and_serves_the_others() {
    let folder = temp_dir();
    let program = wrapped(folder.path(), "ulimit -n 64; exec");
    let server = Server::start(program, &["--aof-fsync", "always"]);
    assert!(server.log().contains("limit on open files leaves room for 32"), "{}", server.log());
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.call(&["CONFIG", "GET", "maxclients"]), {
        Frame::Array(vec![Frame::bulk("maxclients"), Frame::bulk("32")])
    });
    let refusal = wire.text(&["CONFIG", "SET", "maxclients", "1000"]);
    assert!(refusal.contains("not able to handle the specified number of clients"), "{refusal}");
    let mut others: Vec<Wire> = (0..60).map(|_| Wire::connect(server.addr())).collect();
    let mut refused = 0;
    for other in &mut others {
        other.send(&["PING"]);
        match other.read(PATIENCE) {
            Came::Frame(Frame::Simple(_)) => {}
            Came::Frame(frame) => {
                assert_eq!(text_of(frame), "ERR max number of clients reached");
                refused += 1;
            }
            // The refusal was overtaken by the reset that our PING caused.
            Came::Closed => refused += 1,
            Came::Nothing => panic!("a client hangs"),
        }
    }
    assert_eq!(refused, 60 - 31);
    assert_eq!(wire.text(&["SET", "k", "v"]), "OK");
    drop(others);
    eventually("the places are free again", || {
        let mut wire = Wire::connect(server.addr());
        wire.send(&["PING"]);
        matches!(wire.read(PATIENCE), Came::Frame(Frame::Simple(_)))
    });
}

#[test]
fn s18_patterns_take_bounded_time() {
    let server = Server::start(ALCID, &["--no-log"]);
    let mut wire = Wire::connect(server.addr());
    let key = "a".repeat(2_000);
    wire.call(&["SET", &key, "v"]);
    wire.call(&["SADD", "set", &key]);
    for pattern in [
        format!("{}b", "a*".repeat(30_000)),
        "*?".repeat(32_000),
        format!("{}b", "*a".repeat(1_000)),
        format!("{}{}", "[".repeat(30_000), "*".repeat(30_000)),
        "\\".repeat(60_001),
        format!("{}c", "[a-z]*".repeat(10_000)),
    ] {
        let none = Frame::Array(Vec::new());
        assert_eq!(wire.call(&["KEYS", &pattern]), none);
        let nothing = Frame::Array(vec![Frame::bulk("0"), none.clone()]);
        assert_eq!(wire.call(&["SCAN", "0", "MATCH", &pattern, "COUNT", "100"]), nothing);
        assert_eq!(wire.call(&["SSCAN", "set", "0", "MATCH", &pattern]), nothing);
        assert_eq!(wire.call(&["CONFIG", "GET", &pattern]), none);
        wire.call(&["DEBUG", "STRINGMATCH-LEN", "2000", &pattern]);
        let mut subscriber = Wire::connect(server.addr());
        subscriber.call(&["PSUBSCRIBE", &pattern]);
        assert_eq!(wire.call(&["PUBLISH", &key, "m"]), Frame::Integer(0));
    }
}

#[test]
fn s19_files_are_the_owners_alone() {
    let folder = temp_dir();
    let diagnostics = folder.path().join("logs").join("alcid.log");
    fs::create_dir(folder.path().join("logs")).expect("ours");
    let config = folder.path().join("test.toml");
    fs::write(&config, format!("[logging]\nfile = {:?}\n", diagnostics.display().to_string()))
        .expect("ours");
    // A generous mask, as some service managers set it.
    let program = wrapped(folder.path(), "umask 000; exec");
    let arguments = ["--aof-fsync", "always", "--config", config.to_str().expect("text")];
    let server = Server::start(program, &arguments);
    let mut wire = Wire::connect(server.addr());
    wire.call(&["SET", "k", "v"]);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    let mut files = files_below(&server.data_dir());
    files.push(server.data_dir());
    assert!(files.len() >= 4, "{files:?}");
    for path in files {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    for path in files_below(&folder.path().join("logs")) {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    for name in ["dir", "dbfilename", "logfile", "aof-path", "appendfilename", "appenddirname"] {
        let refusal = wire.text(&["CONFIG", "SET", name, "/etc"]);
        assert!(refusal.starts_with("ERR"), "{name}: {refusal}");
    }
}

#[test]
fn s19_a_folder_of_somebody_else_is_refused() {
    let folder = temp_dir();
    let data = folder.path().join("data").join("log");
    fs::create_dir_all(&data).expect("ours");
    if fs::metadata(&data).expect("ours").uid() != 0 || chown(&data, Some(65534), None).is_err() {
        eprintln!("not run: giving a folder away takes root");
        return;
    }
    let ended = alcid(folder.path(), &["server", "--port", "0", "--data-dir", "data"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.err.contains("belongs to another user") && ended.err.contains("data/log"),
        "{ended:?}"
    );
    assert_eq!(files_below(&data), Vec::<PathBuf>::new(), "nothing was begun");
}

#[test]
fn s23_unsafe_code_is_forbidden_and_overflow_checked() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the workspace");
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    let release = manifest.split("[profile.release]").nth(1).expect("a release profile");
    assert!(release.split("\n[").next().expect("its part").contains("overflow-checks = true"));
    for entry in fs::read_dir(root.join("crates")).expect("crates") {
        let path = entry.expect("readable").path().join("Cargo.toml");
        let manifest = fs::read_to_string(&path).expect("a manifest");
        // `entry` holds the one place with unsafe code and says so itself.
        let inherits = manifest.contains("[lints]\nworkspace = true");
        assert!(inherits || path.ends_with("entry/Cargo.toml"), "{}", path.display());
    }
}

#[test]
fn s23_a_panic_ends_the_process_and_a_restart_has_everything() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let mut wire = Wire::connect(server.addr());
    wire.call(&["SET", "k", "v"]);
    wire.send(&["DEBUG", "PANIC"]);
    assert!(wire.ends());
    assert!(!server.wait().success());
    assert!(server.log().contains("asked for by DEBUG PANIC"), "{}", server.log());
    server.restart();
    assert_eq!(Wire::connect(server.addr()).text(&["GET", "k"]), "v");
}

#[test]
fn s24_no_payload_of_restore_harms() {
    let server = Server::start(ALCID, &["--no-log"]);
    let mut wire = Wire::connect(server.addr());
    wire.call(&["RPUSH", "list", "a", "b", "c"]);
    let Frame::Bulk(payload) = wire.call(&["DUMP", "list"]) else { panic!("DUMP") };
    for offset in 0..payload.len() {
        for bit in 0..8 {
            let mut damaged = payload.clone();
            damaged[offset] ^= 1 << bit;
            let reply = text_of(wire.call(&[&b"RESTORE"[..], b"copy", b"0", &damaged]));
            assert!(reply.starts_with("ERR "), "byte {offset} bit {bit}: {reply}");
        }
    }
    assert_eq!(wire.text(&["EXISTS", "copy"]), "0");
}

#[test]
fn s25_errors_carry_no_line_ends_of_clients() {
    let server = Server::start(ALCID, &[]);
    let mut wire = Wire::connect(server.addr());
    let evil = "x\r\n+OK\r\n\0$3\r\nfoo";
    for words in [
        &[evil][..],
        &[evil, evil],
        &["CONFIG", evil],
        &["CONFIG", "SET", evil, evil],
        &["CONFIG", "SET", "maxmemory", evil],
        &["CONFIG", "SET", "notify-keyspace-events", evil],
        &["CLIENT", evil],
        &["CLIENT", "KILL", evil],
        &["CLIENT", "SETNAME", evil],
        &["HELLO", "3", evil],
        &["HELLO", evil],
        &["SET", evil, evil, evil],
        &["INCRBY", "k", evil],
        &["SELECT", evil],
        &["OBJECT", evil, evil],
        &["DEBUG", evil],
        &["COMMAND", "GETKEYS", evil],
        &["RESTORE", "k", "0", evil],
        &["SUBSCRIBE"],
        &["AUTH", evil],
    ] {
        // One reply for each, and the next one is where it belongs.
        let reply = wire.call(words);
        assert!(matches!(reply, Frame::Error(_)), "{words:?}: {reply:?}");
        let text = text_of(reply);
        assert!(!text.contains(['\r', '\n', '\0']), "{words:?}: {text:?}");
        assert_eq!(wire.text(&["PING"]), "PONG", "after {words:?}");
        assert_eq!(wire.read(Duration::ZERO), Came::Nothing, "after {words:?}");
    }
    // Nor does the diagnostics' log get lines of their making.
    let mut run = command(server.data_dir().as_path(), &["server", "--config", "a\nFORGED b"]);
    let ended = end(run.spawn().expect("it starts"));
    assert_eq!(ended.code, Some(1), "{ended:?}");
}
