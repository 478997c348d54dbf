//! Branches that were deleted and brought back.

use base::Frame;
use testkit::Server;

use crate::ALCID;
use crate::undo::{ALWAYS, digest, fill, ok, pass};
use crate::wire::{Wire, eventually, field};

fn on(server: &Server, branch: &str) -> Wire {
    let mut wire = Wire::connect(server.addr());
    ok(&mut wire, &["BRANCH", "USE", branch]);
    wire
}

#[test]
fn it_is_what_it_was_wherever_it_stands() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    fill(&mut main, 0);
    ok(&mut main, &["BRANCH", "CREATE", "dev"]);
    // In the log, in the archive; deleted and brought back before a kill or after.
    for (round, [before, between, after]) in
        [["", "", "kill"], ["SAVE", "", "SAVE"], ["", "kill", "kill"], ["SAVE", "SAVE", "kill"]]
            .into_iter()
            .enumerate()
    {
        let mut dev = on(&server, "dev");
        fill(&mut dev, round + 1);
        ok(&mut dev, &["DEL", "string:0:7"]);
        pass(&mut server, &mut main, before);
        let mut dev = on(&server, "dev");
        ok(&mut dev, &["HDEL", &format!("large:{round}"), "7"]);
        let state = digest(&mut dev);
        ok(&mut main, &["BRANCH", "DELETE", "dev", "FORCE"]);
        // Who was on it is told, and is on it again when it is back.
        assert!(dev.text(&["GET", "string:0:8"]).starts_with("NOBRANCH"), "round {round}");
        fill(&mut main, 10 + round);
        let there = digest(&mut main);
        pass(&mut server, &mut main, between);
        ok(&mut main, &["UNDO"]);
        if between != "kill" {
            assert_eq!(digest(&mut dev), state, "round {round}");
        }
        assert_eq!(digest(&mut on(&server, "dev")), state, "round {round}");
        assert_eq!(digest(&mut main), there, "round {round}");
        pass(&mut server, &mut main, after);
        let mut dev = on(&server, "dev");
        assert_eq!(digest(&mut dev), state, "round {round}, later");
        ok(&mut dev, &["SET", "again", &round.to_string()]);
        assert_eq!(dev.call(&["EXISTS", "string:0:7"]), Frame::Integer(0));
    }
}

#[test]
fn when_the_window_is_over_it_is_gone_and_so_is_its_space() {
    let mut server = Server::start(ALCID, &[]);
    let mut main = Wire::connect(server.addr());
    ok(&mut main, &["CONFIG", "SET", "undo-window", "2"]);
    ok(&mut main, &["SET", "k", "v"]);
    ok(&mut main, &["BRANCH", "CREATE", "dev"]);
    let (value, mut dev) = ("v".repeat(1000), on(&server, "dev"));
    (0..5000).for_each(|n| ok(&mut dev, &["SET", &format!("k:{n}"), &value]));
    ok(&mut main, &["SAVE"]);
    let with_branch = field(&mut main, "persistence", "archive_disk_bytes");
    drop(dev);
    ok(&mut main, &["BRANCH", "DELETE", "dev", "FORCE"]);
    eventually(
        "nothing can be undone",
        || matches!(main.call(&["UNDO", "LIST"]), Frame::Array(rows) if rows.is_empty()),
    );
    eventually("it is gone", || {
        main.text(&["BRANCH", "DELETE", "dev", "NOUNDO"]).starts_with("NOBRANCH")
    });
    let mut rounds = 0;
    eventually("the space comes back", || {
        // Batches make room, so there must be some.
        rounds += 1;
        ok(&mut main, &["SET", "k", &rounds.to_string()]);
        ok(&mut main, &["HISTORY.COMPACT"]);
        ok(&mut main, &["SAVE"]);
        field(&mut main, "persistence", "archive_disk_bytes") < with_branch / 2
    });
    server.kill();
    server.restart();
    let mut main = Wire::connect(server.addr());
    assert_eq!(main.call(&["BRANCH", "LIST"]), Frame::Array(vec![Frame::bulk("main")]));
}

#[test]
fn a_shorter_window_counts_for_what_was_deleted_before() {
    let server = Server::start(ALCID, &[]);
    let mut main = Wire::connect(server.addr());
    let newest = |main: &mut Wire| match main.call(&["BRANCH", "INFO", "main"]) {
        Frame::Array(info) => info[5].clone(),
        other => panic!("{other:?}"),
    };
    for window in ["1", "0"] {
        ok(&mut main, &["CONFIG", "SET", "undo-window", "3600"]);
        ok(&mut main, &["BRANCH", "CREATE", "dev"]);
        ok(&mut main, &["BRANCH", "DELETE", "dev"]);
        let mut before = newest(&mut main);
        ok(&mut main, &["CONFIG", "SET", "undo-window", window]);
        if window == "1" {
            eventually("its row is changed", || newest(&mut main) != before);
            before = newest(&mut main);
        }
        eventually("it is gone", || newest(&mut main) != before);
        assert_eq!(main.call(&["UNDO", "LIST"]), Frame::Array(Vec::new()));
        assert!(main.text(&["BRANCH", "DELETE", "dev", "NOUNDO"]).starts_with("NOBRANCH"));
    }
}
