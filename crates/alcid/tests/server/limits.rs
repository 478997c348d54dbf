//! Clients that are slow, silent, greedy or many: memory stays bounded and
//! nobody else notices.

use std::fs;
use std::net::Shutdown;
use std::time::Duration;

use base::Frame;
use testkit::Server;

use crate::ALCID;
use crate::wire::{Came, PATIENCE, Wire, eventually, memory_of, text_of};

const NO_LOG: &[&str] = &["--no-log"];

#[test]
fn a_slow_reader_holds_up_itself_alone() {
    let server = Server::start(ALCID, NO_LOG);
    let mut wire = Wire::connect(server.addr());
    let megabyte = "x".repeat(1 << 20);
    wire.call(&["SET", "big", &megabyte]);
    let before = memory_of(server.pid(), "VmRSS");
    // Asks for 200 MB in one go, and reads nothing.
    let mut slow = Wire::connect(server.addr());
    let mut pipeline = Vec::new();
    for number in 0..200 {
        resp::encode_command(&mut pipeline, &["GET", "big"]);
        resp::encode_command(&mut pipeline, &["ECHO", &number.to_string()]);
    }
    slow.raw(&pipeline);
    for _ in 0..100 {
        assert_eq!(wire.text(&["PING"]), "PONG");
    }
    let grown = memory_of(server.pid(), "VmHWM").saturating_sub(before);
    assert!(grown < 20 << 20, "{grown} bytes for a client that does not read");
    // It gets everything once it reads, in order.
    for number in 0..200 {
        assert_eq!(slow.frame(), Frame::bulk(&megabyte));
        assert_eq!(text_of(slow.frame()), number.to_string());
    }
}

#[test]
fn a_pipeline_of_any_depth_is_answered_in_order() {
    let server = Server::start(ALCID, NO_LOG);
    let mut wire = Wire::connect(server.addr());
    let mut sender = wire.stream.try_clone().expect("a socket");
    let writing = std::thread::spawn(move || {
        use std::io::Write;
        let mut pipeline = Vec::new();
        for _ in 0..200_000 {
            resp::encode_command(&mut pipeline, &["INCR", "n"]);
        }
        sender.write_all(&pipeline).expect("taken");
    });
    for number in 1..=200_000 {
        assert_eq!(wire.frame(), Frame::Integer(number));
    }
    writing.join().expect("written");
}

#[test]
fn a_client_that_says_all_and_stops_gets_its_replies() {
    let server = Server::start(ALCID, NO_LOG);
    let mut wire = Wire::connect(server.addr());
    wire.raw(b"SET k v\r\nGET k\r\nPING\r\n");
    wire.stream.shutdown(Shutdown::Write).expect("a socket");
    assert_eq!(text_of(wire.frame()), "OK");
    assert_eq!(text_of(wire.frame()), "v");
    assert_eq!(text_of(wire.frame()), "PONG");
    assert!(wire.ends());
}

#[test]
fn a_byte_at_a_time_is_a_request_in_the_end() {
    let server = Server::start(ALCID, NO_LOG);
    let mut wire = Wire::connect(server.addr());
    let mut other = Wire::connect(server.addr());
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n" {
        assert!(wire.raw(&[*byte]));
        assert_eq!(other.text(&["PING"]), "PONG");
    }
    assert_eq!(text_of(wire.frame()), "OK");
}

fn connected(wire: &mut Wire) -> u64 {
    let clients = wire.text(&["INFO", "clients"]);
    let line = clients.lines().find_map(|line| line.strip_prefix("connected_clients:"));
    line.expect("a field").trim().parse().expect("a number")
}

/// More than any run of these tests has threads that serve.
const THREADS_MAX: u64 = 4;

#[test]
fn idle_connections_cost_little() {
    let limits = fs::read_to_string("/proc/self/limits").expect("Linux");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let files: usize = line.split_whitespace().nth(3).expect("a number").parse().unwrap_or(1 << 20);
    // Half a limit for the tests that run at the same time.
    let count = if files / 2 > 10_100 { 9_900 } else { (files / 2).min(1_000) };
    let server = Server::start(ALCID, NO_LOG);
    let mut wire = Wire::connect(server.addr());
    let before = memory_of(server.pid(), "VmRSS");
    let mut idle: Vec<Wire> = (0..count).map(|_| Wire::connect(server.addr())).collect();
    for wire in &mut idle {
        assert!(wire.raw(b"PING\r\n"));
    }
    for wire in &mut idle {
        assert_eq!(text_of(wire.frame()), "PONG");
    }
    assert_eq!(connected(&mut wire), count as u64 + 1);
    // A little for every connection, and for each thread its buffers and arenas.
    let grown = memory_of(server.pid(), "VmRSS").saturating_sub(before);
    let expected = 6 * 1024 * count as u64 + THREADS_MAX * 1024 * 1024;
    assert!(grown < expected, "{grown} bytes for {count} idle connections");
    for _ in 0..100 {
        assert_eq!(wire.text(&["SET", "k", "v"]), "OK");
    }
    drop(idle);
    eventually("all are gone", || connected(&mut wire) == 1);
}

#[test]
fn announced_lengths_take_no_memory() {
    let server = Server::start(ALCID, NO_LOG);
    let before = memory_of(server.pid(), "VmRSS");
    let mut greedy: Vec<Wire> = (0..100)
        .map(|_| {
            let mut wire = Wire::connect(server.addr());
            wire.raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n");
            wire.raw(&[b'x'; 1000]);
            wire
        })
        .collect();
    let mut wire = Wire::connect(server.addr());
    eventually("all of it has arrived", || {
        let clients = wire.text(&["INFO", "memory"]);
        assert!(!clients.is_empty());
        connected(&mut wire) == 101
    });
    let grown = memory_of(server.pid(), "VmHWM").saturating_sub(before);
    assert!(grown < 30 << 20, "{grown} bytes for 50 GB that were announced");
    for wire in &mut greedy {
        assert_eq!(wire.read(Duration::ZERO), Came::Nothing, "still waiting for the rest");
    }
}

#[test]
fn input_has_a_limit() {
    let server = Server::start(ALCID, NO_LOG);
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["CONFIG", "SET", "client-query-buffer-limit", "1mb"]), "OK");
    // A request, the commands of a MULTI, and what a client sends while it waits.
    let mut large = Wire::connect(server.addr());
    large.raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2000000\r\n");
    assert!(large.ends());
    let mut queue = Wire::connect(server.addr());
    queue.call(&["MULTI"]);
    let value = "x".repeat(300_000);
    let mut queued = 0;
    while queue.send(&["SET", "k", &value]) && matches!(queue.read(PATIENCE), Came::Frame(_)) {
        queued += 1;
        assert!(queued < 10, "MULTI grows without limit");
    }
    let mut blocked = Wire::connect(server.addr());
    blocked.send(&["BLPOP", "list", "0"]);
    let ahead = vec![b'x'; 100_000];
    let mut sent = 0;
    while blocked.raw(&ahead) {
        sent += ahead.len();
        assert!(sent < 100 << 20, "input ahead of a blocked command grows without limit");
    }
    let stats = wire.text(&["INFO", "stats"]);
    let line =
        stats.lines().find(|line| line.starts_with("client_query_buffer_limit")).expect("one");
    assert!(line.trim().ends_with(":2") || line.trim().ends_with(":3"), "{line}");
    assert_eq!(wire.text(&["EXISTS", "k"]), "0");
}

#[test]
fn one_client_too_many_is_told_so() {
    let server = Server::start(ALCID, &["--no-log", "--max-connections", "3"]);
    // The one that asked whether the server is up may not be gone yet.
    let mut clients: Vec<Wire> = Vec::new();
    eventually("three are connected", || {
        let mut wire = Wire::connect(server.addr());
        wire.send(&["PING"]);
        if matches!(wire.read(PATIENCE), Came::Frame(Frame::Simple(_))) {
            clients.push(wire);
        }
        clients.len() == 3
    });
    let mut refused = Wire::connect(server.addr());
    assert_eq!(text_of(refused.frame()), "ERR max number of clients reached");
    assert!(refused.ends());
    assert_eq!(clients[0].text(&["CONFIG", "SET", "maxclients", "4"]), "OK");
    assert_eq!(Wire::connect(server.addr()).text(&["PING"]), "PONG");
    let stats = clients[0].text(&["INFO", "stats"]);
    assert!(!stats.contains("rejected_connections:0"), "{stats}");
}

#[test]
fn a_silent_client_is_disconnected_after_the_timeout() {
    let server = Server::start(ALCID, NO_LOG);
    let mut wire = Wire::connect(server.addr());
    let mut subscriber = Wire::connect(server.addr());
    subscriber.call(&["SUBSCRIBE", "channel"]);
    let mut blocked = Wire::connect(server.addr());
    blocked.send(&["BLPOP", "list", "0"]);
    assert_eq!(wire.text(&["CONFIG", "SET", "timeout", "1"]), "OK");
    let mut silent = Wire::connect(server.addr());
    assert_eq!(silent.text(&["PING"]), "PONG");
    assert!(silent.ends());
    assert_eq!(subscriber.read(Duration::ZERO), Came::Nothing, "subscribers may be silent");
    assert_eq!(blocked.read(Duration::ZERO), Came::Nothing, "so may those who wait");
    let mut other = Wire::connect(server.addr());
    assert_eq!(other.call(&["PUBLISH", "channel", "m"]), Frame::Integer(1));
    assert_eq!(other.call(&["RPUSH", "list", "v"]), Frame::Integer(1));
    assert!(matches!(blocked.frame(), Frame::Array(_)));
}

#[test]
fn data_has_a_limit_and_reads_go_on() {
    let server = Server::start(ALCID, &["--no-log", "--max-memory", "3MB"]);
    let mut wire = Wire::connect(server.addr());
    let value = "x".repeat(10_000);
    let refused = (0..10_000).find_map(|number| {
        let reply = wire.text(&["SET", &format!("k{number}"), &value]);
        (reply != "OK").then_some(reply)
    });
    let refused = refused.expect("the limit was reached");
    assert_eq!(refused, "OOM command not allowed when used memory > 'maxmemory'.");
    assert_eq!(wire.text(&["STRLEN", "k0"]), "10000");
    assert_eq!(wire.text(&["DEL", "k0", "k1", "k2"]), "3");
    assert_eq!(wire.text(&["SET", "small", "v"]), "OK");
}
