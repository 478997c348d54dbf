//! Decisions about merges that wait: what they cost, that they last, and who wins.

use std::fs;
use std::thread;

use base::Frame;
use testkit::Server;

use crate::ALCID;
use crate::wire::Wire;

const ALWAYS: &[&str] = &["--aof-fsync", "always"];

fn key(n: usize) -> String {
    format!("key:{n:04}")
}

/// A merge into main that waits for decisions about so many keys, and its name.
fn waiting_for(keys: usize) -> (Server, String) {
    let server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    main.call(&["BRANCH", "CREATE", "dev"]);
    let mut dev = Wire::connect(server.addr());
    assert_eq!(dev.text(&["BRANCH", "USE", "dev"]), "OK");
    for (wire, value) in [(&mut main, "ours"), (&mut dev, "theirs")] {
        let mut words = vec!["MSET".to_owned()];
        words.extend((0..keys).flat_map(|n| [key(n), value.to_owned()]));
        assert!(!matches!(wire.call(&words), Frame::Error(_)));
    }
    let said = main.text(&["BRANCH", "MERGE", "dev", "ON", "CONFLICT", "MANUAL"]);
    let id = said.rsplit(' ').next().expect("it names the merge").to_owned();
    (server, id)
}

fn decide(wire: &mut Wire, id: &str, n: usize, value: &str) -> Frame {
    wire.call(&["BRANCH", "RESOLVE", id, &key(n), "VALUE", value])
}

fn left(count: usize) -> Frame {
    Frame::Integer(i64::try_from(count).expect("a few"))
}

fn log_bytes(server: &Server) -> u64 {
    let files = fs::read_dir(server.data_dir().join("log")).expect("the log's folder");
    files.map(|file| file.and_then(|file| file.metadata()).expect("readable").len()).sum()
}

#[test]
fn a_decision_costs_the_log_no_more_for_those_before_it() {
    const KEYS: usize = 200;
    let (server, id) = waiting_for(KEYS + 1);
    let mut main = Wire::connect(server.addr());
    let value = "v".repeat(500);
    let mut bytes = vec![log_bytes(&server)];
    for n in 0..KEYS {
        assert_eq!(decide(&mut main, &id, n, &value), left(KEYS - n));
        if (n + 1) % (KEYS / 2) == 0 {
            bytes.push(log_bytes(&server));
        }
    }
    let [first, second] = [bytes[1] - bytes[0], bytes[2] - bytes[1]];
    assert!(first >= (KEYS / 2 * value.len()) as u64, "{first} bytes hold no values");
    assert!(second < first + first / 2, "{first} bytes, then {second}");
}

#[test]
fn decisions_are_there_after_a_kill_wherever_the_archive_stands() {
    const KEYS: usize = 12;
    let (mut server, id) = waiting_for(KEYS);
    for n in 0..KEYS - 1 {
        let mut main = Wire::connect(server.addr());
        assert_eq!(decide(&mut main, &id, n, "never"), left(KEYS - 1 - n));
        // Decided anew: the last word counts.
        assert_eq!(decide(&mut main, &id, n, &format!("v{n}")), left(KEYS - 1 - n));
        if n % 3 == 1 {
            assert_eq!(main.text(&["SAVE"]), "OK");
        }
        if n % 2 == 0 {
            server.kill();
            server.restart();
        }
    }
    let mut main = Wire::connect(server.addr());
    assert_eq!(decide(&mut main, &id, KEYS - 1, "last"), left(0));
    for n in 0..KEYS - 1 {
        assert_eq!(main.text(&["GET", &key(n)]), format!("v{n}"));
    }
    assert_eq!(main.text(&["GET", &key(KEYS - 1)]), "last");
}

#[test]
fn what_two_decide_at_once_is_merged_or_refused() {
    const KEYS: usize = 60;
    let (server, id) = waiting_for(KEYS);
    let addr = server.addr();
    // Each has keys of its own, and both decide about the last ones.
    let shared = KEYS - 10;
    let decider = |own: usize| {
        let (addr, id) = (addr.clone(), id.clone());
        thread::spawn(move || {
            let mut wire = Wire::connect(addr);
            for n in (0..KEYS).filter(|n| n % 2 == own || *n >= shared) {
                let value = format!("{own}");
                loop {
                    match decide(&mut wire, &id, n, &value) {
                        Frame::Error(why) if why.starts_with("TRYAGAIN") => {}
                        Frame::Integer(_) => break,
                        // The other one ended the merge.
                        Frame::Error(why) if n >= shared && why.contains("no merge is known") => {
                            return;
                        }
                        other => panic!("{n}: {other:?}"),
                    }
                }
            }
        })
    };
    let deciders = [decider(0), decider(1)];
    deciders.into_iter().for_each(|decider| decider.join().expect("it decided"));
    let mut main = Wire::connect(server.addr());
    for n in 0..shared {
        assert_eq!(main.text(&["GET", &key(n)]), format!("{}", n % 2), "{n}");
    }
    for n in shared..KEYS {
        let value = main.text(&["GET", &key(n)]);
        assert!(value == "0" || value == "1", "{n}: {value}");
    }
}
