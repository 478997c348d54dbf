//! `alcid cli` against a server in this process: what it prints, where, and
//! its exit status.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base::Reply;
use clap::Parser;
use cli::{CliArgs, Terminal, run_on};
use resp::{Decoder, Encoder, Limits, Protocol};

type Store = Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>;

/// A server with a handful of commands; answers its address.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let store = Store::default();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let store = Arc::clone(&store);
            std::thread::spawn(move || connection(stream.unwrap(), &store));
        }
    });
    address
}

fn connection(mut stream: TcpStream, store: &Store) {
    let mut decoder = Decoder::new(Limits::default());
    let mut encoder = Encoder::new(Protocol::Resp2);
    let mut buffer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = stream.read(&mut chunk).unwrap_or(0);
        if count == 0 {
            return;
        }
        buffer.extend_from_slice(&chunk[..count]);
        let mut done = 0;
        let mut is_open = true;
        while let Some(request) = decoder.decode(&buffer[done..]).unwrap() {
            done += request.consumed;
            let words: Vec<Vec<u8>> = request.iter().map(<[u8]>::to_vec).collect();
            is_open &= answer(&words, store, &mut encoder);
        }
        buffer.drain(..done);
        if stream.write_all(&std::mem::take(&mut encoder.out)).is_err() || !is_open {
            return;
        }
    }
}

/// Answers one request; whether the connection stays open.
fn answer(words: &[Vec<u8>], store: &Store, reply: &mut Encoder) -> bool {
    let mut store = store.lock().unwrap();
    let name = String::from_utf8_lossy(&words[0]).to_uppercase();
    match name.as_str() {
        "PING" => reply.simple("PONG"),
        "ECHO" => reply.bulk(&words[1]),
        "CLIENT" => {
            let start = reply.out.len();
            reply.ok();
            reply.put_attributes_before(start, &[("rev", 7)]);
        }
        "SET" => {
            store.insert(words[1].clone(), words[2].clone());
            reply.ok();
        }
        "GET" => reply.optional_bulk(store.get(&words[1]).map(Vec::as_slice)),
        "DEL" | "DELETE" => reply.count(usize::from(store.remove(&words[1]).is_some())),
        "HELLO" => {
            reply.protocol = Protocol::Resp3;
            reply.map(1);
            reply.bulk(b"proto");
            reply.integer(3);
        }
        "AUTH" if words[words.len() - 1] == b"right" => reply.ok(),
        "AUTH" => reply.error("WRONGPASS invalid username-password pair or user is disabled."),
        "SELECT" => reply.ok(),
        "HGETALL" => {
            reply.map(1);
            reply.bulk(b"f");
            reply.double(0.5);
        }
        "BLPOP" => reply.null_array(),
        "SUBSCRIBE" => {
            for message in ["one", "two"] {
                reply.push(3);
                reply.bulk(b"message");
                reply.bulk(&words[1]);
                reply.bulk(message.as_bytes());
            }
            return false;
        }
        "FLUSHALL" => {
            store.clear();
            reply.ok();
        }
        "LASTREV" => reply.integer(12),
        "UNDO" => {
            assert_eq!(words[1..], [b"LIST".to_vec(), b"COUNT".to_vec(), b"1".to_vec()]);
            reply.array(1);
            reply.array(6);
            reply.integer(12);
            reply.integer(1000);
            reply.bulk(b"flushall");
            reply.integer(3);
            reply.integer(99);
            reply.integer(61_000);
        }
        "HANG" => {}
        "DROP" => return false,
        _ => reply.error(&format!("ERR unknown command '{name}', with args beginning with: ")),
    }
    true
}

#[derive(Parser)]
#[command(no_binary_name = true)]
struct Probe {
    #[command(flatten)]
    cli: CliArgs,
}

#[derive(Debug, PartialEq)]
struct Outcome {
    status: u8,
    out: String,
    err: String,
}

fn outcome(status: u8, out: &str, err: &str) -> Outcome {
    Outcome { status, out: out.to_owned(), err: err.to_owned() }
}

fn cli_with(address: &str, words: &[&str], input: &[u8]) -> Outcome {
    cli_at(address, words, input, false)
}

fn cli_at(address: &str, words: &[&str], input: &[u8], input_is_terminal: bool) -> Outcome {
    let words = ["--addr", address].into_iter().chain(words.iter().copied());
    let args = Probe::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).cli;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut input = input;
    let mut terminal =
        Terminal { input: &mut input, input_is_terminal, out: &mut out, err: &mut err };
    let status = run_on(&mut terminal, &args, &[]);
    Outcome {
        status,
        out: String::from_utf8_lossy(&out).into_owned(),
        err: String::from_utf8_lossy(&err).into_owned(),
    }
}

fn cli(address: &str, words: &[&str]) -> Outcome {
    cli_with(address, words, b"")
}

#[test]
fn one_shot_prints_raw_and_tells_failure() {
    let server = serve();
    assert_eq!(cli(&server, &["ping"]), outcome(0, "PONG\n", ""));
    assert_eq!(cli(&server, &["set", "a", "two words"]), outcome(0, "OK\n", ""));
    assert_eq!(cli(&server, &["get", "a"]), outcome(0, "two words\n", ""));
    assert_eq!(cli(&server, &["get", "b"]), outcome(1, "", "ERROR: Key not found\n"));
    assert_eq!(cli(&server, &["-e", "get b"]), outcome(1, "", "ERROR: Key not found\n"));
    assert_eq!(cli(&server, &["delete", "a"]), outcome(0, "OK\n", ""));
    assert_eq!(cli(&server, &["delete", "a"]), outcome(1, "", "ERROR: Key not found\n"));
    assert_eq!(cli(&server, &["del", "a"]), outcome(0, "0\n", ""));
    // Nil that does not mean a missing key.
    assert_eq!(cli(&server, &["blpop", "l", "1"]), outcome(0, "\n", ""));
    let unknown = cli(&server, &["nope"]);
    assert_eq!((unknown.status, unknown.out.as_str()), (1, ""));
    assert!(unknown.err.starts_with("ERROR: ERR unknown command 'NOPE'"), "{unknown:?}");
}

#[test]
fn what_stands_beside_a_reply_is_shown_to_people_only() {
    let server = serve();
    let both = ["-3", "client replyrev on", "ping"];
    assert_eq!(cli(&server, &both).out, "1| \"rev\" => (integer) 7\nOK\nPONG\n");
    for (format, out) in [("raw", "OK\nPONG\n"), ("json", "\"OK\"\n\"PONG\"\n")] {
        let words = [&["--format", format], &both[..]].concat();
        assert_eq!(cli(&server, &words), outcome(0, out, ""), "{format}");
    }
    assert_eq!(cli(&server, &["-3", "client", "replyrev", "on"]), outcome(0, "OK\n", ""));
}

#[test]
fn a_person_is_told_how_to_take_a_flush_back() {
    let server = serve();
    let hint = "UNDO takes it back within 1m (3 keys, revision 12)\n";
    assert_eq!(cli_at(&server, &["flushall"], b"", true), outcome(0, "OK\n", hint));
    let lines = ["-e", "set a 1", "-e", "FLUSHALL", "-e", "flushall"];
    let told = cli_at(&server, &lines, b"", true);
    assert_eq!(told, outcome(0, "OK\nOK\nOK\n", hint), "the same revision once");
    assert_eq!(cli(&server, &["flushall"]), outcome(0, "OK\n", ""), "a script is not");
}

#[cfg(unix)]
#[test]
fn arguments_need_not_be_text() {
    use std::os::unix::ffi::OsStringExt;
    let server = serve();
    let word = std::ffi::OsString::from_vec(b"\xff\x01".to_vec());
    let words = ["--addr", &server, "--format", "redis", "echo"].map(Into::into);
    let args = Probe::try_parse_from(words.into_iter().chain([word])).unwrap().cli;
    let mut out = Vec::new();
    let mut terminal = Terminal {
        input: &mut std::io::empty(),
        input_is_terminal: false,
        out: &mut out,
        err: &mut Vec::new(),
    };
    assert_eq!(run_on(&mut terminal, &args, &[]), 0);
    assert_eq!(out, b"\"\\xff\\x01\"\n");
}

#[test]
fn formats_override() {
    let server = serve();
    cli(&server, &["set", "a", "1"]);
    assert_eq!(cli(&server, &["--format", "redis", "get", "a"]).out, "\"1\"\n");
    assert_eq!(cli(&server, &["--format", "json", "get", "a"]).out, "\"1\"\n");
    assert_eq!(
        cli(&server, &["--format", "json", "get", "b"]),
        outcome(1, "null\n", "ERROR: Key not found\n")
    );
    // JSON asks for RESP3, which knows maps and doubles.
    assert_eq!(cli(&server, &["--format", "json", "hgetall", "h"]).out, "{\"f\":0.5}\n");
    assert_eq!(cli(&server, &["hgetall", "h"]).out, "f\n0.5\n");
    assert_eq!(
        cli(&server, &["-3", "--format", "redis", "hgetall", "h"]).out,
        "1# \"f\" => (double) 0.5\n"
    );
    let table = cli(&server, &["--format", "table", "hgetall", "h"]).out;
    assert!(table.contains("| f   | 0.5   |"), "{table}");
}

#[test]
fn several_commands_print_as_the_prompt_does() {
    let server = serve();
    let expected = outcome(0, "OK\n\"x y\"\n(nil)\n", "");
    assert_eq!(cli(&server, &["set a 'x y'", "get a", "get b"]), expected);
    assert_eq!(cli(&server, &["-e", "set a 'x y'", "-e", "get a", "-e", "get b"]), expected);
    let one_fails = cli(&server, &["-e", "nope", "-e", "ping"]);
    assert_eq!(one_fails.status, 1);
    assert!(one_fails.out.starts_with("(error) ERR unknown command"), "{one_fails:?}");
    assert!(one_fails.out.ends_with("PONG\n"), "the next command still runs: {one_fails:?}");
    assert_eq!(
        cli(&server, &["-e", "get 'a", "-e", "ping"]),
        outcome(1, "PONG\n", "quotes do not match in: get 'a\n")
    );
}

#[test]
fn lines_of_a_file_and_of_standard_input() {
    let server = serve();
    let script = b"# a comment\n\nSET a 1\r\nGET a";
    let expected = outcome(0, "OK\n\"1\"\n", "");
    assert_eq!(cli_with(&server, &[], script), expected);
    assert_eq!(cli_with(&server, &["--file", "-"], script), expected);
    let path = std::env::temp_dir().join(format!("alcid-cli-{}.txt", std::process::id()));
    std::fs::write(&path, script).unwrap();
    assert_eq!(cli(&server, &["--file", path.to_str().unwrap()]), expected);
    std::fs::remove_file(&path).unwrap();
    let missing = cli(&server, &["--file", path.to_str().unwrap()]);
    assert_eq!(missing.status, 2);
    assert!(missing.err.starts_with("ERROR: open "), "{missing:?}");
}

#[test]
fn pipe_counts_replies_and_errors() {
    let server = serve();
    let mut input = Vec::new();
    for i in 0..2500 {
        input.extend_from_slice(
            format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n{i:04}\r\n").as_bytes(),
        );
    }
    input.extend_from_slice(b"SET inline yes\nNOPE\nGET k");
    let piped = cli_with(&server, &["--pipe"], &input);
    assert_eq!((piped.status, piped.out.as_str()), (1, "errors: 1, replies: 2503\n"));
    assert!(piped.err.starts_with("request 2502: ERR unknown command"), "{piped:?}");
    assert_eq!(cli(&server, &["get", "k"]).out, "2499\n");
    assert_eq!(cli(&server, &["get", "inline"]).out, "yes\n");
    assert_eq!(cli_with(&server, &["-p"], b""), outcome(0, "errors: 0, replies: 0\n", ""));
    let torn = cli_with(&server, &["-p"], b"*2\r\n$4\r\nECHO\r\n");
    assert_eq!((torn.status, torn.err.as_str()), (2, "ERROR: request 1 ends in the middle\n"));
    let broken = cli_with(&server, &["-p"], b"PING\n*x\r\n");
    assert_eq!(broken.status, 2);
    assert!(broken.err.starts_with("ERROR: request 2 is not RESP: "), "{broken:?}");
}

#[test]
fn subscriptions_stream_until_the_connection_ends() {
    let server = serve();
    let streamed = cli(&server, &["subscribe", "c"]);
    assert_eq!(streamed.out, "message\nc\none\nmessage\nc\ntwo\n");
    assert_eq!(streamed.status, 2);
    assert!(streamed.err.contains("is closed"), "{streamed:?}");
    let json = cli(&server, &["--format", "json", "subscribe", "c"]);
    assert_eq!(json.out, "[\"message\",\"c\",\"one\"]\n[\"message\",\"c\",\"two\"]\n");
}

#[test]
fn passwords() {
    let server = serve();
    assert_eq!(cli(&server, &["--password", "right", "ping"]).status, 0);
    let wrong = cli(&server, &["--password", "marker-secret", "ping"]);
    assert_eq!(wrong.status, 1);
    assert!(wrong.err.starts_with("ERROR: WRONGPASS"), "{wrong:?}");
    assert!(!wrong.err.contains("marker"), "{wrong:?}");
}

#[test]
fn no_answer_is_another_status() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unused = listener.local_addr().unwrap().to_string();
    drop(listener);
    let refused = cli(&unused, &["ping"]);
    assert_eq!(refused.status, 2);
    assert!(refused.err.contains("refused"), "{refused:?}");
    let server = serve();
    let slow = cli(&server, &["--timeout", "50ms", "hang"]);
    assert_eq!(slow.status, 2);
    assert!(slow.err.contains("50ms"), "{slow:?}");
    assert_eq!(cli(&server, &["drop"]).status, 2);
}

#[test]
fn a_lost_connection_is_made_again_for_the_next_line() {
    let server = serve();
    // `drop` ends the script: what it did is unknown. A new run goes on.
    let dropped = cli(&server, &["-e", "set a 1", "-e", "drop", "-e", "get a"]);
    assert_eq!((dropped.status, dropped.out.as_str()), (2, "OK\n"));
    assert!(dropped.err.contains("unknown"), "{dropped:?}");
    assert_eq!(cli(&server, &["get", "a"]).out, "1\n");
}
