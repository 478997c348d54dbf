//! How far branches are from what they began with, what merges do without a
//! history, and who waits for what a branch inherits.

use base::Frame;
use testkit::{Server, temp_dir};

use crate::ALCID;
use crate::run::wrapped;
use crate::wire::{Wire, eventually, text_of};

const ALWAYS: &[&str] = &["--aof-fsync", "always"];

/// A server whose archive moves only when somebody needs it.
const STILL: &str = "ALCID_STORAGE_ARCHIVE_IDLE=0 ALCID_STORAGE_ARCHIVE_INTERVAL=0 exec";

/// One that keeps nothing of the past.
const NO_HISTORY: &str = "ALCID_STORAGE_HISTORY_KEEP=0 exec";

fn on(server: &Server, branch: &str) -> Wire {
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["BRANCH", "USE", branch]), "OK");
    wire
}

/// Fields of a reply that is a map, as texts: those of `names`.
fn fields(reply: Frame, names: &[&str]) -> Vec<String> {
    let Frame::Array(items) = reply else { panic!("no map: {reply:?}") };
    let texts: Vec<String> = items.into_iter().map(text_of).collect();
    let of = |name: &str| {
        let mut pairs = texts.chunks(2);
        pairs.find(|pair| pair[0] == name).expect("it is told")[1].clone()
    };
    names.iter().map(|name| of(name)).collect()
}

/// The base, the newest change and the changed keys of a branch.
fn far(wire: &mut Wire, branch: &str) -> [u64; 3] {
    let told = wire.call(&["BRANCH", "INFO", branch]);
    let numbers = fields(told, &["base_rev", "head_rev", "keys_changed"]);
    let numbers: Vec<u64> = numbers.iter().map(|text| text.parse().expect("a number")).collect();
    numbers.try_into().expect("three were asked for")
}

fn last(wire: &mut Wire) -> u64 {
    wire.text(&["LASTREV"]).parse().expect("it has written")
}

fn set_all(wire: &mut Wire, count: usize, value: &str) {
    (0..count).for_each(|n| assert!(wire.send(&["SET", &format!("key:{n}"), value])));
    (0..count).for_each(|_| assert_eq!(text_of(wire.frame()), "OK"));
}

/// By which way the server comes back.
#[derive(Clone, Copy, Debug)]
enum Again {
    Killed,
    SavedAndKilled,
}

#[test]
fn info_tells_how_far_a_branch_is_from_its_base() {
    let folder = temp_dir();
    let mut server = Server::start(wrapped(folder.path(), STILL), ALWAYS);
    let mut wire = Wire::connect(server.addr());
    assert_eq!(far(&mut wire, "main"), [0, 0, 0]);
    set_all(&mut wire, 50, "old");
    let main = last(&mut wire);
    assert_eq!(far(&mut wire, "main"), [0, main, 50]);
    wire.call(&["BRANCH", "CREATE", "dev"]);
    let [base, head, changed] = far(&mut wire, "dev");
    assert_eq!((head, changed), (base, 0));
    let mut dev = on(&server, "dev");
    // Reading changes nothing, nor does what changes nothing.
    assert_eq!(dev.text(&["GET", "key:9"]), "old");
    assert_eq!(dev.text(&["DEL", "missing"]), "0");
    assert_eq!(far(&mut wire, "dev"), [base, base, 0]);
    // Each counts once, and goes on to count.
    for words in [
        &["SET", "key:1", "dev"][..],
        &["APPEND", "key:1", "!"],
        &["DEL", "key:2"],
        &["SET", "key:2", "old"],
        &["EXPIRE", "key:3", "1000"],
        &["RPUSH", "list", "a", "b"],
        &["RPUSH", "list", "c"],
        &["DEL", "list"],
        &["INCR", "count"],
        &["RENAME", "key:4", "moved"],
    ] {
        dev.call(words);
    }
    let own = last(&mut dev);
    assert_eq!(far(&mut wire, "dev"), [base, own, 7]);
    // One that begins with it has changed nothing.
    dev.call(&["BRANCH", "CREATE", "dev/two"]);
    let [from, head, changed] = far(&mut wire, "dev/two");
    assert_eq!((head, changed), (from, 0));
    let mut two = on(&server, "dev/two");
    assert_eq!(two.text(&["SET", "key:1", "two"]), "OK");
    assert_eq!(two.text(&["SET", "key:1", "two again"]), "OK");
    let newest = last(&mut two);
    for (again, changed) in [(Again::Killed, 1), (Again::SavedAndKilled, 1), (Again::Killed, 2)] {
        assert_eq!(far(&mut wire, "dev/two")[2], changed.min(2), "{again:?}");
        if let Again::SavedAndKilled = again {
            assert_eq!(wire.text(&["SAVE"]), "OK");
        }
        server.kill();
        server.restart();
        wire = Wire::connect(server.addr());
        assert_eq!(far(&mut wire, "dev"), [base, own, 7], "{again:?}");
        let head = far(&mut wire, "dev/two")[1];
        assert!(head >= newest, "{again:?}: {head}, {newest} before");
        assert_eq!(far(&mut wire, "main")[2], 50);
        // What had changed before does not count again, what has not does.
        let mut two = on(&server, "dev/two");
        assert_eq!(two.text(&["SET", "key:1", "two"]), "OK");
        assert_eq!(far(&mut wire, "dev/two")[2], changed);
        if let Again::SavedAndKilled = again {
            assert_eq!(two.text(&["DEL", "key:7"]), "1");
            assert_eq!(far(&mut wire, "dev/two")[1], last(&mut two));
        }
    }
    // All that it had, and what it has.
    let mut dev = on(&server, "dev");
    assert_eq!(dev.text(&["FLUSHALL"]), "OK");
    assert_eq!(dev.text(&["SET", "key:1", "dev"]), "OK");
    let own = last(&mut dev);
    assert_eq!(far(&mut wire, "dev"), [base, own, 51]);
    assert_eq!(wire.text(&["BRANCH", "RESET", "dev", "TO", "PARENT"]), "OK");
    assert_eq!(far(&mut wire, "dev")[2], 0);
}

/// A key that a flush took and that is erased since is no conflict, whatever the
/// archive has reached.
#[test]
fn a_flush_is_taken_back_without_what_was_erased_since() {
    for saves in [false, true] {
        let folder = temp_dir();
        let server = Server::start(wrapped(folder.path(), STILL), ALWAYS);
        let mut wire = Wire::connect(server.addr());
        set_all(&mut wire, 10, "kept");
        assert_eq!(wire.text(&["SET", "secret", "1"]), "OK");
        for command in [&["SAVE"][..], &["FLUSHDB"], &["SAVE"]] {
            if saves || command != ["SAVE"] {
                assert_eq!(wire.text(command), "OK");
            }
        }
        wire.call(&["HISTORY.PURGE", "secret", "CONFIRM"]);
        wire.call(&["UNDO"]);
        assert_eq!(wire.text(&["DBSIZE"]), "10", "saves {saves}");
        assert_eq!(wire.text(&["EXISTS", "secret"]), "0");
    }
}

/// A tag that the archive has not heard of holds what it names: a state made from
/// records, and one that the archive has.
#[test]
fn a_fresh_tag_holds_its_state() {
    for at in ["r:1", "r:2"] {
        let folder = temp_dir();
        let server = Server::start(wrapped(folder.path(), STILL), ALWAYS);
        let mut wire = Wire::connect(server.addr());
        for (key, value) in [("k", "old"), ("x", "1")] {
            assert_eq!(wire.text(&["SET", key, value]), "OK");
        }
        assert_eq!(wire.text(&["SAVE"]), "OK");
        assert_eq!(wire.text(&["SET", "k", "new"]), "OK");
        assert_eq!(wire.text(&["TAG", "CREATE", "t", "AT", at]), at[2..]);
        let oldest: u64 = wire.text(&["HISTORY.COMPACT"]).parse().expect("a revision");
        assert!(oldest <= at[2..].parse().expect("a number"), "{oldest} is kept, not {at}");
        for _ in 0..2 {
            assert_eq!(wire.text(&["AT", "tag:t", "GET", "k"]), "old", "{at}");
            assert_eq!(wire.text(&["SAVE"]), "OK");
            wire.call(&["HISTORY.COMPACT"]);
        }
        assert_eq!(wire.text(&["AT", "tag:t", "GET", "k"]), "old", "{at}");
    }
}

/// A merge where the history is gone, or does not reach the fork: every key is
/// compared, and nobody knows what was counted.
#[test]
fn merges_without_enough_history_compare_everything() {
    for keeps in [false, true] {
        let folder = temp_dir();
        let how = if keeps { STILL } else { NO_HISTORY };
        let server = Server::start(wrapped(folder.path(), how), ALWAYS);
        let mut wire = Wire::connect(server.addr());
        set_all(&mut wire, 30, "old");
        assert_eq!(wire.text(&["SET", "count", "10"]), "OK");
        wire.call(&["BRANCH", "CREATE", "dev"]);
        let mut dev = on(&server, "dev");
        assert_eq!(dev.text(&["SET", "key:1", "dev"]), "OK");
        assert_eq!(dev.text(&["DEL", "key:2"]), "1");
        assert_eq!(dev.text(&["SET", "new", "dev"]), "OK");
        assert_eq!(wire.text(&["SET", "key:3", "main"]), "OK");
        assert_eq!(wire.text(&["HSET", "both", "a", "1"]), "1");
        assert_eq!(dev.text(&["HSET", "both", "b", "2"]), "1");
        if keeps {
            assert_eq!(wire.text(&["SAVE"]), "OK");
            let newest = last(&mut wire).max(last(&mut dev));
            let kept = wire.text(&["HISTORY.COMPACT"]);
            assert!(kept.parse::<u64>().expect("a revision") >= newest, "{kept}");
        }
        let merged = wire.call(&["BRANCH", "MERGE", "dev"]);
        let names = ["merged", "added", "changed", "removed", "auto_merged"];
        assert_eq!(fields(merged, &names), ["4", "1", "2", "1", "1"], "keeps {keeps}");
        for (key, value) in
            [("key:1", "dev"), ("key:2", "(nil)"), ("key:3", "main"), ("new", "dev")]
        {
            assert_eq!(wire.text(&["GET", key]), value);
        }
        assert_eq!(wire.text(&["HGET", "both", "b"]), "2");
        // Both count from what they have in common: who knows that they counted?
        assert_eq!(wire.text(&["INCR", "count"]), "11");
        assert_eq!(dev.text(&["INCRBY", "count", "5"]), "15");
        if keeps {
            assert_eq!(wire.text(&["SAVE"]), "OK");
            wire.call(&["HISTORY.COMPACT"]);
        }
        let refused = wire.text(&["BRANCH", "MERGE", "dev"]);
        assert!(refused.starts_with("MERGECONFLICT 1 key,"), "{refused}");
        assert_eq!(wire.text(&["GET", "count"]), "11");
    }
}

#[test]
fn no_merge_is_called_as_another_was() {
    let mut server = Server::start(crate::ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["SET", "key", "old"]), "OK");
    wire.call(&["BRANCH", "CREATE", "dev"]);
    assert_eq!(wire.text(&["SET", "key", "main"]), "OK");
    assert_eq!(on(&server, "dev").text(&["SET", "key", "dev"]), "OK");
    let mut number = 0;
    for round in 0..3 {
        for how in [&[][..], &["ON", "CONFLICT", "MANUAL"], &[]] {
            // One that is only tried has no name, and takes none from others.
            let tried = wire.text(&["BRANCH", "MERGE", "dev", "DRYRUN"]);
            assert!(tried.starts_with("MERGECONFLICT 1 key (\"key\"): "), "{tried}");
            number += 1;
            let refused = wire.text(&[&["BRANCH", "MERGE", "dev"], how].concat());
            let expected = format!("MERGECONFLICT 1 key, see BRANCH CONFLICTS m{number}");
            assert_eq!(refused, expected, "round {round}, {how:?}");
            if how.len() == 3 {
                assert_eq!(wire.text(&["BRANCH", "ABORT", &format!("m{number}")]), "OK");
            }
        }
        if round == 1 {
            assert_eq!(wire.text(&["SAVE"]), "OK");
        }
        server.kill();
        server.restart();
        wire = Wire::connect(server.addr());
        let unknown = wire.text(&["BRANCH", "CONFLICTS", &format!("m{number}")]);
        assert!(unknown.starts_with("ERR no merge is known"), "{unknown}");
    }
}

/// Whoever asks for what is on its way into the archive, or takes long to read,
/// gets it, in whatever way it asks.
#[test]
fn what_a_branch_inherits_is_there_however_it_is_asked_for() {
    let folder = temp_dir();
    let server = Server::start(wrapped(folder.path(), STILL), ALWAYS);
    let mut wire = Wire::connect(server.addr());
    let fields: Vec<String> = (0..3000).flat_map(|n| [format!("f{n}"), format!("v{n}")]).collect();
    let large: Vec<&str> =
        ["HSET", "large"].into_iter().chain(fields.iter().map(String::as_str)).collect();
    for round in 0..4 {
        set_all(&mut wire, 100, "old");
        assert_eq!(wire.text(&["DEL", "large"]), if round == 0 { "0" } else { "1" });
        assert_eq!(wire.text(&large), "3000");
        let dev = format!("dev{round}");
        let two = format!("two{round}");
        wire.call(&["BRANCH", "CREATE", &dev]);
        // Main goes on at once.
        set_all(&mut wire, 100, "new");
        assert_eq!(wire.text(&["HSET", "large", "f1", "main"]), "0");
        let mut dev_wire = on(&server, &dev);
        dev_wire.call(&["BRANCH", "CREATE", &two]);
        for branch in [&dev, &two] {
            let mut wire = on(&server, branch);
            let words: [&[&str]; 8] = [
                &["WATCH", "key:1", "key:2"],
                &["MULTI"],
                &["GET", "key:1"],
                &["APPEND", "key:2", "er"],
                &["EXEC"],
                &["HSET", "large", "f2", "own"],
                &["MGET", "key:2", "key:3", "missing"],
                &["HMGET", "large", "f1", "f2", "f2999"],
            ];
            words.iter().for_each(|words| assert!(wire.send(words)));
            let replies: Vec<Frame> = words.iter().map(|_| wire.frame()).collect();
            let texts = |frame: &Frame| match frame.clone() {
                Frame::Array(items) => items.into_iter().map(text_of).collect::<Vec<_>>().join(" "),
                other => text_of(other),
            };
            let texts: Vec<String> = replies.iter().map(texts).collect();
            let expected =
                ["OK", "OK", "QUEUED", "QUEUED", "old 5", "0", "older old (nil)", "v1 own v2999"];
            assert_eq!(texts, expected, "{branch}");
            let Frame::Array(all) = wire.call(&["KEYS", "*"]) else { panic!("no array") };
            assert_eq!(all.len(), 101);
            assert_eq!(wire.text(&["HLEN", "large"]), "3000");
        }
        assert_eq!(wire.text(&["HGET", "large", "f2"]), "v2");
        assert_eq!(wire.text(&["GET", "key:2"]), "new");
    }
}

/// What a branch took of memory is free once it is gone.
#[test]
fn the_memory_of_a_branch_comes_back() {
    let server = Server::start(crate::ALCID, &[]);
    let mut wire = Wire::connect(server.addr());
    let used = |wire: &mut Wire| {
        let text = wire.text(&["INFO", "memory"]);
        let field = text.lines().find_map(|line| line.strip_prefix("used_memory:"));
        field.expect("it is told").trim().parse::<u64>().expect("a number")
    };
    set_all(&mut wire, 1000, "old");
    let before = used(&mut wire);
    wire.call(&["BRANCH", "CREATE", "dev"]);
    let mut dev = on(&server, "dev");
    set_all(&mut dev, 5000, &"v".repeat(1000));
    let during = used(&mut wire);
    assert!(during > before + 5_000_000, "{during} bytes, {before} before");
    let told = fields(wire.call(&["BRANCH", "INFO", "dev"]), &["bytes"]);
    assert!(told[0].parse::<u64>().expect("a number") > 5_000_000, "{told:?}");
    assert_eq!(wire.text(&["BRANCH", "DELETE", "dev", "FORCE"]), "OK");
    eventually("the memory comes back", || used(&mut wire) <= before + before / 10);
    let gone = dev.text(&["GET", "key:1"]);
    assert!(gone.starts_with("NOBRANCH"), "{gone}");
}

fn run(wire: &mut Wire, line: &str) -> Frame {
    wire.call(&line.split(' ').collect::<Vec<_>>())
}

fn done(wire: &mut Wire, line: &str) {
    let reply = run(wire, line);
    assert!(!matches!(reply, Frame::Error(_)), "{line}: {reply:?}");
}

/// A record that a start cannot apply is the end of a log.
#[test]
fn a_branch_of_the_past_begins_with_what_a_branch_was_before_it_began_anew() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let mut main = Wire::connect(server.addr());
    done(&mut main, "BRANCH CREATE one");
    done(&mut main, "BRANCH CREATE two FROM one");
    done(&mut main, "BRANCH CREATE three FROM two");
    // Main has a key of the same name, which the branch has never seen.
    done(&mut main, "RPUSH list main");
    done(&mut main, "SET k main");
    done(&mut main, "TAG CREATE t BRANCH one");
    let mut one = on(&server, "one");
    done(&mut one, "SET k one");
    done(&mut one, "RPUSH list first");
    let then = last(&mut one);
    done(&mut one, "RPUSH list second");
    for branch in ["two", "three", "one"] {
        done(&mut main, &format!("BRANCH RESET {branch} TO PARENT"));
    }
    done(&mut main, &format!("BRANCH CREATE late FROM three AT r:{then}"));
    let seen = |server: &Server| {
        let mut late = on(server, "late");
        ["GET k", "LRANGE list 0 -1", "DBSIZE"].map(|line| run(&mut late, line))
    };
    let made = seen(&server);
    let first = Frame::Array(vec![Frame::bulk("first")]);
    assert_eq!(made, [Frame::bulk("one"), first, Frame::Integer(2)]);
    for how in ["kill", "save"] {
        if how == "save" {
            done(&mut main, "SAVE");
        }
        server.kill();
        server.restart();
        main = Wire::connect(server.addr());
        assert_eq!(seen(&server), made, "{how}");
    }
}

#[test]
fn no_branch_begins_with_one_that_was_deleted_for_good() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let mut main = Wire::connect(server.addr());
    done(&mut main, "BRANCH CREATE parent");
    let mut parent = on(&server, "parent");
    done(&mut parent, "SET k parent");
    let then = last(&mut parent);
    drop(parent);
    done(&mut main, "BRANCH CREATE child FROM parent");
    done(&mut main, "BRANCH DELETE parent FORCE NOUNDO");
    let read = run(&mut main, &format!("AT r:{then} BRANCH child GET k"));
    assert_eq!(read, Frame::bulk("parent"));
    let Frame::Error(refused) = run(&mut main, &format!("BRANCH CREATE x FROM child AT r:{then}"))
    else {
        panic!("it was made")
    };
    assert!(refused.starts_with("NOBRANCH what this was at revision"), "{refused}");
    done(&mut main, "SET k main");
    server.kill();
    server.restart();
    main = Wire::connect(server.addr());
    assert_eq!(run(&mut main, "GET k"), Frame::bulk("main"));
    assert_eq!(run(&mut on(&server, "child"), "GET k"), Frame::bulk("parent"));
}

/// What a tag names is kept when all around it is not: branches begin with it.
#[test]
fn branches_begin_with_what_only_a_tag_keeps() {
    let folder = temp_dir();
    let mut server = Server::start(wrapped(folder.path(), STILL), ALWAYS);
    let mut wire = Wire::connect(server.addr());
    set_all(&mut wire, 30, "old");
    assert_eq!(wire.text(&["SET", "k", "tagged"]), "OK");
    let tagged: u64 = wire.text(&["TAG", "CREATE", "t"]).parse().expect("a revision");
    wire.call(&["BRANCH", "CREATE", "dev"]);
    assert_eq!(on(&server, "dev").text(&["SET", "k", "dev"]), "OK");
    for value in ["2", "3"] {
        assert_eq!(wire.text(&["SET", "k", value]), "OK");
        assert_eq!(wire.text(&["DEL", "key:1"]), if value == "2" { "1" } else { "0" });
        assert_eq!(wire.text(&["SET", "new", value]), "OK");
        assert_eq!(wire.text(&["SAVE"]), "OK");
        let kept = wire.text(&["HISTORY.COMPACT"]);
        assert!(kept.parse::<u64>().expect("a revision") > tagged || value == "2", "{kept}");
    }
    let early = wire.text(&["BRANCH", "CREATE", "early", "AT", &format!("r:{}", tagged - 1)]);
    assert!(early.starts_with("COMPACTED "), "{early}");
    let words = ["BRANCH", "CREATE", "b", "FROM", "main", "AT", "tag:t"];
    let made = fields(wire.call(&words), &["name", "base_rev"]);
    assert_eq!(made, ["b".to_owned(), tagged.to_string()]);
    assert_eq!(wire.text(&["BRANCH", "RESET", "dev", "TO", "tag:t"]), "OK");
    let reverted = wire.call(&["WHATIF", "REVERT", "ALL", "TO", "tag:t"]);
    assert!(matches!(reverted, Frame::Array(_)), "{reverted:?}");
    // From now on they keep it.
    assert_eq!(wire.text(&["TAG", "DELETE", "t"]), "OK");
    let gone = |server: &Server, branch: &str| {
        let mut wire = on(server, branch);
        assert_eq!(wire.text(&["GET", "k"]), "tagged", "{branch}");
        assert_eq!(wire.text(&["GET", "key:1"]), "old", "{branch}");
        assert_eq!(wire.text(&["DBSIZE"]), "31", "{branch}");
        assert_eq!(wire.text(&["GET", "new"]), "(nil)", "{branch}");
    };
    for again in [Again::Killed, Again::SavedAndKilled, Again::Killed] {
        ["b", "dev"].into_iter().for_each(|branch| gone(&server, branch));
        if let Again::SavedAndKilled = again {
            let mut wire = Wire::connect(server.addr());
            assert_eq!(wire.text(&["SET", "k", "4"]), "OK");
            assert_eq!(wire.text(&["SAVE"]), "OK");
            wire.call(&["HISTORY.COMPACT"]);
            assert_eq!(wire.text(&["SET", "k", "5"]), "OK");
            assert_eq!(wire.text(&["SAVE"]), "OK");
            wire.call(&["HISTORY.COMPACT"]);
        }
        server.kill();
        server.restart();
    }
    ["b", "dev"].into_iter().for_each(|branch| gone(&server, branch));
    let mut wire = Wire::connect(server.addr());
    let merged = wire.call(&["BRANCH", "MERGE", "b", "INTO", "main", "DRYRUN"]);
    assert_eq!(fields(merged, &["merged"]), ["0"]);
    // Merged from what it began with.
    assert_eq!(on(&server, "b").text(&["SET", "key:2", "b"]), "OK");
    let merged = wire.call(&["BRANCH", "MERGE", "b", "INTO", "main"]);
    assert_eq!(fields(merged, &["merged"]), ["1"]);
    assert_eq!([wire.text(&["GET", "key:2"]), wire.text(&["GET", "k"])], ["b", "5"]);
    assert_eq!(on(&server, "b").text(&["SET", "k", "b"]), "OK");
    let refused = wire.text(&["BRANCH", "MERGE", "b", "INTO", "main"]);
    assert!(refused.starts_with("MERGECONFLICT 1 key,"), "{refused}");
}

#[test]
fn a_tag_is_of_what_its_branch_was_however_often_that_begins_anew() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    done(&mut main, "SET k main");
    done(&mut main, "BRANCH CREATE z");
    let mut z = on(&server, "z");
    done(&mut z, "SET k was");
    done(&mut z, "SET only-z 1");
    done(&mut z, "TAG CREATE t");
    done(&mut z, "SET k later");
    done(&mut main, "SET k main-2");
    done(&mut main, "BRANCH RESET z TO PARENT");
    let tagged = Frame::Array(vec![Frame::bulk("was"), Frame::bulk("1")]);
    for how in ["at once", "kill", "save", "compact", "again"] {
        if how == "save" || how == "compact" {
            done(&mut main, "SAVE");
        }
        if how == "compact" {
            done(&mut main, "SET k main-3");
            done(&mut main, "SAVE");
            let oldest = run(&mut main, "HISTORY.COMPACT");
            assert!(matches!(oldest, Frame::Integer(oldest) if oldest > 7), "{oldest:?}");
        }
        if how == "again" {
            done(&mut main, "BRANCH RESET z TO PARENT");
        }
        if how != "at once" {
            server.kill();
            server.restart();
            main = Wire::connect(server.addr());
        }
        assert_eq!(run(&mut main, "AT tag:t MGET k only-z"), tagged, "{how}");
        done(&mut main, "BRANCH CREATE w FROM z AT tag:t");
        assert_eq!(run(&mut on(&server, "w"), "MGET k only-z"), tagged, "{how}");
        done(&mut main, "BRANCH DELETE w NOUNDO FORCE");
    }
    done(&mut main, "BRANCH RESET z TO tag:t");
    assert_eq!(run(&mut on(&server, "z"), "MGET k only-z"), tagged);
}
