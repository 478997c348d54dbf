//! What clients cost that watch and do not read.

use base::Frame;
use testkit::Server;

use crate::ALCID;
use crate::watch::{figure, invalidation, resp3, told, watch};
use crate::wire::{Wire, eventually, field, memory_of};

const WATCHES: [&str; 3] =
    ["WATCHFROM r:1", "WATCHFROM r:1 NEW", "CLIENT TRACKING ON BCAST FROM r:1"];

/// A field of a client's line in CLIENT LIST.
fn listed(wire: &mut Wire, client: &str, name: &str) -> u64 {
    let line = wire.text(&["CLIENT", "LIST", "ID", client]);
    let value = line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {line}"))
}

/// Opens a watch that nobody reads; answers its connection and the client's id.
fn slow(server: &Server, watch: &str) -> (Wire, String) {
    let mut wire = resp3(server);
    let client = wire.text(&["CLIENT", "ID"]);
    wire.raw(format!("{watch}\r\n").as_bytes());
    (wire, client)
}

/// Passes over the answer to WATCHFROM; answers the watch's id.
fn opened(wire: &mut Wire) -> u64 {
    let Frame::Array(items) = wire.frame() else { panic!("the watch is refused") };
    let Frame::Integer(id) = items[0] else { panic!("{items:?}") };
    u64::try_from(id).expect("an id")
}

#[test]
fn a_huge_revision_costs_each_slow_reader_as_little_as_any() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let mut writer = resp3(&server);
    let long = "k".repeat(100);
    let keys: Vec<String> = (0..150_000).map(|n| format!("{n}-{long}")).collect();
    let mut words = vec!["MSET"];
    keys.iter().for_each(|key| words.extend([key.as_str(), "v"]));
    assert_eq!(writer.text(&words), "OK");
    let before = memory_of(server.pid(), "VmHWM");
    let mut slow: Vec<(Wire, String)> =
        (0..40).map(|n| slow(&server, WATCHES[n % WATCHES.len()])).collect();
    assert_eq!(writer.text(&["SET", "after", "v"]), "OK");
    for (_, client) in &slow {
        eventually("much waits for each", || {
            let waits = listed(&mut writer, client, "tot-mem");
            assert!(waits < 2 << 20, "{waits} bytes wait");
            waits >= 250_000
        });
    }
    assert_eq!(figure(&mut writer, "watches_behind"), 40);
    let counted = field(&mut writer, "memory", "mem_clients_normal");
    assert!((40 * 250_000..80 << 20).contains(&counted), "{counted} bytes are counted");
    let grown = memory_of(server.pid(), "VmHWM") - before;
    // A list of all pairs of a key and a watch would take twice that.
    assert!(grown < 240 << 20, "{} MiB for 40 who do not read", grown >> 20);
    // Those who read at last are told the rest of it.
    slow.truncate(WATCHES.len());
    let mut tracking = slow.pop().expect("the last kind").0;
    for (n, (wire, _)) in slow.iter_mut().enumerate() {
        let id = opened(wire);
        for key in keys.iter().map(String::as_str).chain(["after"]) {
            let change = told(&wire.frame(), id).expect("a change");
            let revision = if key == "after" { 2 } else { 1 };
            assert_eq!((change.revision, change.key.as_str()), (revision, key));
            assert_eq!(change.values.len(), n);
        }
    }
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != "after") {
        let frame = tracking.frame();
        if let Frame::Push(_) = frame {
            let (named, _) = invalidation(&frame);
            let named = named.expect("not everything");
            assert!(named.len() <= 1000);
            names.extend(named);
        }
    }
    assert!(names[..keys.len()] == keys, "each key once, in order");
    eventually("they have caught up", || figure(&mut writer, "watches_behind") == 0);
}

#[test]
fn of_long_values_a_slow_reader_is_held_one_change() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut writer, mut reader) = (resp3(&server), resp3(&server));
    let (len, count) = (30 << 20, 4);
    for n in 0..count {
        assert_eq!(writer.text(&["SET", "k", &format!("{n}{}", "x".repeat(len))]), "OK");
    }
    let (mut slow, client) = slow(&server, "WATCHFROM r:1 OLD NEW");
    eventually("the first change waits", || {
        listed(&mut writer, &client, "tot-mem") >= (len / 2) as u64
    });
    // The thread that reads to both has had turns enough for the slow one too.
    let (id, _) = watch(&mut reader, &["WATCHFROM", "r:1", "OLD", "NEW"]);
    let read_all = |wire: &mut Wire, id: u64| {
        for n in 0..count {
            let change = told(&wire.frame(), id).expect("a change");
            let is_of = |value: &str, n: i32| {
                value.len() == len + 1 && value.starts_with(n.to_string().as_str())
            };
            assert_eq!(change.revision, n as u64 + 1);
            assert!(if n == 0 {
                change.values[0] == "(nil)"
            } else {
                is_of(&change.values[0], n - 1)
            });
            assert!(is_of(&change.values[1], n), "the value that was set");
        }
    };
    read_all(&mut reader, id);
    assert_eq!(listed(&mut writer, &client, "omem"), 0, "nothing is read ahead");
    let held = listed(&mut writer, &client, "tot-mem");
    assert!((len as u64 / 2..len as u64 + (1 << 20)).contains(&held), "{held} bytes");
    assert!(field(&mut writer, "memory", "mem_clients_normal") > held - (1 << 20));
    let id = opened(&mut slow);
    read_all(&mut slow, id);
    eventually("it has caught up", || figure(&mut writer, "watches_behind") == 0);
}

#[test]
fn a_purge_moves_nobodys_place_within_a_revision() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let mut writer = resp3(&server);
    let (mut one, _) = slow(&server, "WATCHFROM r:1");
    let (mut other, _) = slow(&server, "WATCHFROM r:1 PREFIX b");
    eventually("they are open", || figure(&mut writer, "watches") == 2);
    let long = "k".repeat(20_000);
    let keys: Vec<String> = (0..3000).map(|n| format!("{}{n}-{long}", ["a", "b"][n % 2])).collect();
    let mut words = vec!["MSET"];
    keys.iter().for_each(|key| words.extend([key.as_str(), "v"]));
    assert_eq!(writer.text(&words), "OK");
    eventually("both wait within the revision", || {
        let clients = field(&mut writer, "memory", "mem_clients_normal");
        figure(&mut writer, "watches_behind") == 2 && clients > 2 * 256 * 1024
    });
    // They have been told of both, and the record goes on without them.
    for key in [&keys[0], &keys[5]] {
        assert_eq!(writer.text(&["HISTORY.PURGE", key, "CONFIRM"]), "1");
    }
    for (wire, of) in [(&mut one, ""), (&mut other, "b")] {
        let id = opened(wire);
        let purged = [&keys[0], &keys[5]];
        let all: Vec<&String> =
            keys.iter().chain(purged).filter(|key| key.starts_with(of)).collect();
        for key in all {
            let change = told(&wire.frame(), id).expect("a change");
            assert!(&change.key == key, "{:.20} and not {key:.20}", change.key);
        }
    }
    eventually("they have caught up", || figure(&mut writer, "watches_behind") == 0);
}
