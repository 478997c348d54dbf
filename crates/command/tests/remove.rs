//! What golden scripts cannot see of REMOVE: events, and what is too much.

mod harness;

use command::DataLimits;
use harness::{Harness, text};

#[test]
fn an_event_comes_for_each_key() {
    let mut harness = Harness::new();
    harness.line("MSET a:1 1 a:2 2 b 3");
    assert_eq!(text(&harness.line("REMOVE PREFIX a: DRYRUN")), "2");
    assert_eq!(harness.events, Vec::<String>::new());
    assert_eq!(text(&harness.line("REMOVE PREFIX a:")), "2");
    harness.events.sort();
    assert_eq!(harness.events, ["del a:1", "del a:2"]);
}

#[test]
fn more_than_a_record_takes_is_refused_and_stays() {
    let mut harness = Harness::new();
    // Names of 10 bytes, with 16 more for each.
    harness.data = DataLimits { revision_bytes_max: 3 * 26, ..DataLimits::default() };
    for n in 0..4 {
        harness.line(&format!("SET key:00000{n} v"));
    }
    for line in ["REMOVE PREFIX key:", "REMOVE MATCH *", "REMOVE PREFIX k DRYRUN"] {
        assert_eq!(
            text(&harness.line(line)),
            "!ERR the record of so many keys would exceed 78 bytes, the most that one revision takes; remove \
             them by longer prefixes"
        );
    }
    assert_eq!(text(&harness.line("DBSIZE")), "4");
    assert_eq!(text(&harness.line("REMOVE MATCH key:*[123]")), "3");
    assert_eq!(text(&harness.line("REMOVE PREFIX key:")), "1");
}
