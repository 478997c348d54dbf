//! Keys with a deadline that a branch has from its parent go when they are due,
//! though nobody names them.

use base::{Clock, Frame, SystemClock};
use testkit::Server;

use crate::ALCID;
use crate::wire::{Wire, eventually, text_of};

fn on(server: &Server, branch: &str) -> Wire {
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["BRANCH", "USE", branch]), "OK");
    wire
}

fn counts(wire: &mut Wire, keys: &str) {
    eventually(&format!("{keys} keys"), || wire.text(&["DBSIZE"]) == keys);
}

fn create(wire: &mut Wire, words: &[&str]) {
    let made = wire.call(&[&["BRANCH", "CREATE"], words].concat());
    assert!(matches!(made, Frame::Array(_)), "{words:?}: {made:?}");
}

#[test]
fn inherited_keys_go_when_they_are_due() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let mut main = Wire::connect(server.addr());
    main.text(&["CONFIG", "SET", "notify-keyspace-events", "Ex"]);
    main.text(&["MSET", "a", "1", "b", "2"]);
    for (key, ms) in [("soon", "1500"), ("kept", "1500"), ("changed", "1500"), ("late", "600000")] {
        assert_eq!(main.text(&["SET", key, "1", "PX", ms]), "OK");
    }
    create(&mut main, &["dev"]);
    create(&mut main, &["dev/two", "FROM", "dev"]);
    let mut dev = on(&server, "dev");
    let mut events = on(&server, "dev");
    events.call(&["SUBSCRIBE", "__keyevent@0__:expired"]);
    assert_eq!(dev.text(&["PERSIST", "kept"]), "1");
    assert_eq!(dev.text(&["SET", "changed", "dev"]), "OK");
    // main's own go first, and are forgotten there.
    counts(&mut main, "3");
    counts(&mut dev, "5");
    let Frame::Array(event) = events.frame() else { panic!("no event") };
    assert_eq!(event[2], Frame::bulk("soon"));
    assert_eq!(dev.text(&["GET", "kept"]), "1");
    assert_eq!(dev.text(&["GET", "changed"]), "dev");
    // Of the second one nobody has asked anything yet.
    counts(&mut on(&server, "dev/two"), "3");
    // It is in the log, as any key that expires.
    let Frame::Array(versions) = dev.call(&["HISTORY", "soon"]) else { panic!("no history") };
    let Frame::Array(last) = &versions[0] else { panic!("no version") };
    assert_eq!(last[5], Frame::bulk("expire"), "{versions:?}");
}

#[test]
fn inherited_keys_go_after_a_start_and_on_branches_from_an_earlier_time() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let mut main = Wire::connect(server.addr());
    main.text(&["MSET", "a", "1", "b", "2"]);
    assert_eq!(main.text(&["SET", "soon", "1", "PX", "1000"]), "OK");
    create(&mut main, &["now"]);
    create(&mut main, &["then", "AT", "r:2"]);
    main.text(&["DEL", "a", "b"]);
    assert_eq!(main.text(&["SAVE"]), "OK");
    counts(&mut main, "0");
    counts(&mut on(&server, "then"), "2");
    create(&mut main, &["later", "AT", "r:2"]);
    server.terminate();
    server.restart();
    for branch in ["now", "then", "later"] {
        counts(&mut on(&server, branch), "2");
    }
}

#[test]
fn what_is_due_and_inherited_is_brought_back_as_it_was() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let mut main = Wire::connect(server.addr());
    main.text(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    main.text(&["SET", "k", "old"]);
    main.text(&["DEL", "k"]);
    main.text(&["SET", "k", "new", "PX", "50"]);
    let Frame::Integer(due_ms) = main.call(&["PEXPIRETIME", "k"]) else { panic!("no deadline") };
    create(&mut main, &["dev"]);
    create(&mut main, &["two"]);
    eventually("it is due", || i64::try_from(SystemClock.now_ms()).expect("in range") > due_ms);
    let mut dev = on(&server, "dev");
    let tried = format!("{:?}", dev.call(&["WHATIF", "VALUES", "UNDELETE", "k"]));
    assert!(tried.contains(&format!("{:?}", Frame::bulk("new"))), "{tried}");
    for wire in [&mut dev, &mut main] {
        assert!(matches!(wire.call(&["UNDELETE", "k"]), Frame::Integer(_)));
        assert_eq!(wire.text(&["GET", "k"]), "new");
        assert_eq!(wire.text(&["PTTL", "k"]), "-1");
    }
    // What a write finds is told as on main.
    let mut two = on(&server, "two");
    assert_eq!(two.text(&["SET", "k", "2"]), "OK");
    let Frame::Array(versions) = two.call(&["HISTORY", "k"]) else { panic!("no history") };
    let cause = |version: &Frame| match version {
        Frame::Array(items) => text_of(items[5].clone()),
        other => panic!("{other:?}"),
    };
    let causes: Vec<String> = versions[..2].iter().map(cause).collect();
    assert_eq!(causes, ["client", "expire"]);
}
