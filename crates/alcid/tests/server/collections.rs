//! Large collections on branches and in the past: shared, lying over each other,
//! made from what they are now.

use base::Frame;
use testkit::Server;

use crate::ALCID;
use crate::wire::Wire;

const ELEMENTS: usize = 6000;

const KEYS: [&str; 4] = ["hash", "set", "zset", "list"];

fn on(server: &Server, branch: &str) -> Wire {
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["BRANCH", "USE", branch]), "OK");
    wire
}

/// Sends words that have numbers in them.
fn run(wire: &mut Wire, line: &str) -> Frame {
    let words: Vec<&str> = line.split(' ').collect();
    match wire.call(&words) {
        Frame::Error(error) => panic!("{line}: {error:?}"),
        reply => reply,
    }
}

fn fill(wire: &mut Wire) {
    for begin in (0..ELEMENTS).step_by(1000) {
        let each = |word: &dyn Fn(usize) -> String| -> String {
            (begin..begin + 1000).map(word).collect::<Vec<_>>().join(" ")
        };
        run(wire, &format!("HSET hash {}", each(&|n| format!("f{n} value-{n}"))));
        run(wire, &format!("SADD set {}", each(&|n| format!("m{n}"))));
        run(wire, &format!("ZADD zset {}", each(&|n| format!("{n} m{n}"))));
        run(wire, &format!("RPUSH list {}", each(&|n| format!("e{n}"))));
    }
}

/// A few changes of every collection, with numbers from `n` on.
fn change(wire: &mut Wire, n: usize) {
    let (a, b, c) = (n, n + 1, n + 2);
    run(wire, &format!("HSET hash f{a} changed new{n} x"));
    run(wire, &format!("HDEL hash f{b}"));
    run(wire, &format!("HINCRBY hash count{c} {n}"));
    run(wire, &format!("SADD set new{n} m{a}"));
    run(wire, &format!("SREM set m{b}"));
    run(wire, &format!("ZADD zset 0.5 m{a} -1 new{n}"));
    run(wire, &format!("ZREM zset m{b}"));
    run(wire, &format!("LSET list {a} changed{n}"));
    run(wire, "LPOP list 3");
    run(wire, &format!("RPUSH list new{n}"));
    run(wire, "PEXPIREAT zset 99999999999999");
}

/// Everything of every collection, in an order of its own.
fn contents(wire: &mut Wire, before: &str) -> Vec<Vec<Vec<u8>>> {
    let reads = [
        ("HGETALL hash", 2),
        ("SMEMBERS set", 1),
        ("ZRANGE zset 0 -1 WITHSCORES", 0),
        ("LRANGE list 0 -1", 0),
    ];
    let of = |(read, pair): (&str, usize)| {
        let Frame::Array(frames) = run(wire, &format!("{before}{read}")) else {
            panic!("{read} answers a list")
        };
        let words: Vec<Vec<u8>> = frames
            .into_iter()
            .map(|frame| match frame {
                Frame::Bulk(bytes) => bytes.to_vec(),
                other => panic!("{read}: {other:?}"),
            })
            .collect();
        if pair == 0 {
            return words;
        }
        let mut words: Vec<Vec<u8>> = words.chunks(pair).map(|it| it.join(&b' ')).collect();
        words.sort_unstable();
        words
    };
    reads.map(of).into()
}

fn sizes(wire: &mut Wire) -> [Frame; 4] {
    ["HLEN hash", "SCARD set", "ZCARD zset", "LLEN list"].map(|line| run(wire, line))
}

#[test]
fn they_are_what_they_were_on_every_branch_and_at_every_time() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let mut main = Wire::connect(server.addr());
    fill(&mut main);
    let filled = main.text(&["LASTREV"]);
    let began = contents(&mut main, "");
    for branch in ["early", "late"] {
        run(&mut main, &format!("BRANCH CREATE {branch}"));
    }
    // One branch takes them while main has not changed them, the other one later.
    let mut early = on(&server, "early");
    assert_eq!(sizes(&mut early), sizes(&mut main));
    assert_eq!(contents(&mut early, ""), began);
    change(&mut early, 100);
    let on_early = contents(&mut early, "");
    assert_eq!(contents(&mut main, ""), began, "main notices nothing");
    change(&mut main, 200);
    change(&mut main, 300);
    let on_main = contents(&mut main, "");
    assert_ne!(on_main, began);
    assert_eq!(contents(&mut early, ""), on_early, "nor does the branch");
    let mut late = on(&server, "late");
    assert_eq!(run(&mut late, "HGET hash f200"), Frame::Bulk(b"value-200"[..].into()));
    assert_eq!(run(&mut late, "SISMEMBER set new200"), Frame::Integer(0));
    assert_eq!(contents(&mut late, ""), began);
    assert_eq!(run(&mut late, "TTL zset"), Frame::Integer(-1));
    for key in KEYS {
        let line = format!("OBJECT REVISION {key}");
        assert_eq!(
            run(&mut late, &line),
            run(&mut main, &format!("AT r:{filled} {line}")),
            "{key}"
        );
    }
    change(&mut late, 400);
    let on_late = contents(&mut late, "");
    // A branch of a branch, which changes on.
    run(&mut early, "BRANCH CREATE deep FROM early");
    let mut deep = on(&server, "deep");
    change(&mut early, 500);
    assert_eq!(contents(&mut deep, ""), on_early);
    change(&mut deep, 600);
    let (on_early, on_deep) = (contents(&mut early, ""), contents(&mut deep, ""));

    let check = |server: &Server| {
        let at = format!("AT r:{filled} ");
        for (branch, expected) in
            [("main", &on_main), ("early", &on_early), ("late", &on_late), ("deep", &on_deep)]
        {
            let mut wire = on(server, branch);
            assert_eq!(contents(&mut wire, ""), *expected, "{branch}");
            assert_eq!(contents(&mut wire, &at), began, "{branch} then");
        }
    };
    check(&server);
    server.kill();
    server.restart();
    check(&server);
    let mut main = Wire::connect(server.addr());
    assert_eq!(main.text(&["SAVE"]), "OK");
    server.kill();
    server.restart();
    check(&server);
    // Who inherits keeps what it has when its parent is gone, or has others.
    let mut main = Wire::connect(server.addr());
    run(&mut main, "FLUSHALL");
    run(&mut main, "BRANCH DELETE early FORCE NOUNDO");
    assert_eq!(main.text(&["SAVE"]), "OK");
    for _ in 0..2 {
        let (mut deep, mut late) = (on(&server, "deep"), on(&server, "late"));
        assert_eq!(contents(&mut deep, ""), on_deep);
        assert_eq!(contents(&mut late, ""), on_late);
        server.kill();
        server.restart();
    }
}

#[test]
fn what_both_sides_changed_of_them_is_merged_element_by_element() {
    let server = Server::start(ALCID, &[]);
    let mut main = Wire::connect(server.addr());
    fill(&mut main);
    run(&mut main, "BRANCH CREATE dev");
    let mut dev = on(&server, "dev");
    run(&mut dev, "HSET hash f1000 theirs");
    run(&mut dev, "HINCRBY hash count 5");
    run(&mut dev, "HDEL hash f1001");
    run(&mut dev, "SADD set theirs");
    run(&mut dev, "SREM set m1001");
    run(&mut dev, "ZADD zset 0.5 theirs 1.5 m1000");
    run(&mut dev, "ZREM zset m1001");
    run(&mut main, "HSET hash f2000 ours");
    run(&mut main, "HINCRBY hash count 7");
    run(&mut main, "SREM set m2000");
    run(&mut main, "ZADD zset 2.5 m2000");
    let pairs = |frame: Frame| match frame {
        Frame::Array(rows) => rows,
        other => panic!("{other:?}"),
    };
    let summary = pairs(run(&mut main, "BRANCH DIFF main dev SUMMARY"));
    assert_eq!(summary[3], Frame::Integer(3), "{summary:?}");
    let merged = pairs(run(&mut main, "BRANCH MERGE dev INTO main"));
    assert_eq!(merged[3], Frame::Integer(3), "{merged:?}");
    let bulk = |text: &str| Frame::Bulk(text.as_bytes().to_vec());
    for (line, expected) in [
        ("HGET hash f1000", bulk("theirs")),
        ("HGET hash f2000", bulk("ours")),
        ("HGET hash count", bulk("12")),
        ("HEXISTS hash f1001", Frame::Integer(0)),
        ("HLEN hash", Frame::Integer(6000)),
        ("SISMEMBER set theirs", Frame::Integer(1)),
        ("SISMEMBER set m1001", Frame::Integer(0)),
        ("SISMEMBER set m2000", Frame::Integer(0)),
        ("SCARD set", Frame::Integer(5999)),
        ("ZSCORE zset theirs", bulk("0.5")),
        ("ZSCORE zset m1000", bulk("1.5")),
        ("ZSCORE zset m2000", bulk("2.5")),
        ("ZSCORE zset m1001", Frame::Null),
        ("ZCARD zset", Frame::Integer(6000)),
    ] {
        assert_eq!(run(&mut main, line), expected, "{line}");
    }
    // Both sides changed one field each in their way: nobody decides that silently.
    run(&mut dev, "HSET hash f3000 theirs");
    run(&mut main, "HSET hash f3000 ours");
    let said = main.text(&["BRANCH", "MERGE", "dev", "INTO", "main"]);
    assert!(said.starts_with("MERGECONFLICT"), "{said}");
}
