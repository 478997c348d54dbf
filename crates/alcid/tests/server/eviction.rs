//! Keys are deleted where memory is full: what that leaves on branches, in the
//! past and after a kill.

use base::Frame;
use testkit::{Server, temp_dir};

use crate::ALCID;
use crate::wire::{Wire, eventually, field};

const LIMIT: u64 = 2 << 20;

const CONFIG: &str = "[storage]
max_memory = \"2MB\"
eviction_policy = \"lru\"
aof_fsync = \"always\"
";

fn set_many(wire: &mut Wire, prefix: &str, keys: usize) {
    for number in 0..keys {
        let value = format!("{prefix}{number:0>400}");
        assert_eq!(wire.text(&["SET", &format!("{prefix}{number}"), &value]), "OK");
    }
}

fn count(wire: &mut Wire) -> i64 {
    let Frame::Integer(keys) = wire.call(&["DBSIZE"]) else { panic!("a number of keys") };
    keys
}

#[test]
fn what_is_evicted_is_gone_on_its_branch_only_and_can_be_had_back() {
    let folder = temp_dir();
    let config = folder.path().join("alcid.toml");
    std::fs::write(&config, CONFIG).expect("the folder is ours");
    let mut server = Server::start(ALCID, &["--config", &config.display().to_string()]);
    let mut main = Wire::connect(server.addr());
    assert!(main.text(&["INFO", "memory"]).contains("maxmemory_policy:allkeys-lru\r\n"));
    set_many(&mut main, "old", 1000);
    let Frame::Integer(before) = main.call(&["LASTREV"]) else { panic!("a revision") };
    main.call(&["BRANCH", "CREATE", "dev"]);
    set_many(&mut main, "new", 6000);
    let evicted = field(&mut main, "stats", "evicted_keys");
    assert_eq!(count(&mut main), 7000 - evicted as i64);
    let is_gone =
        |wire: &mut Wire, n: usize| wire.call(&["EXISTS", &format!("old{n}")]) == Frame::Integer(0);
    let gone: Vec<usize> = (0..1000).filter(|&n| is_gone(&mut main, n)).collect();
    assert!(gone.len() > 500, "those used longest ago go first: {}", gone.len());
    let (key, value) = (format!("old{}", gone[0]), format!("old{:0>400}", gone[0]));

    // The branch has all that there was, and takes its part of the memory.
    let mut dev = Wire::connect(server.addr());
    assert_eq!(dev.text(&["BRANCH", "USE", "dev"]), "OK");
    assert_eq!(count(&mut dev), 1000);
    for number in 0..1000 {
        let value = dev.call(&["GET", &format!("old{number}")]);
        assert_eq!(value, Frame::bulk(format!("old{number:0>400}")));
    }
    set_many(&mut dev, "own", 500);
    eventually("memory is within the limit", || {
        field(&mut dev, "memory", "used_memory_dataset") <= LIMIT + LIMIT / 64
    });
    // What it has read of its parent's has left memory, and nothing else.
    assert!(!(0..1000).any(|n| is_gone(&mut dev, n)));

    // The log tells of it.
    let then = dev.call(&["AT", &format!("r:{before}"), "GET", &key]);
    assert_eq!(then, Frame::bulk(value.clone()));
    let Frame::Array(events) = main.call(&["HISTORY", &key, "COUNT", "1"]) else {
        panic!("events")
    };
    let Frame::Array(event) = &events[0] else { panic!("an event") };
    assert_eq!(event[5], Frame::bulk("evict"));
    assert!(matches!(main.call(&["UNDELETE", &key]), Frame::Integer(_)));
    assert_eq!(main.call(&["GET", &key]), Frame::bulk(value));

    let digests = |main: &mut Wire, dev: &mut Wire| {
        [main.text(&["DEBUG", "DIGEST"]), dev.text(&["DEBUG", "DIGEST"])]
    };
    let expected = digests(&mut main, &mut dev);
    server.kill();
    server.restart();
    let mut main = Wire::connect(server.addr());
    let mut dev = Wire::connect(server.addr());
    assert_eq!(dev.text(&["BRANCH", "USE", "dev"]), "OK");
    assert_eq!(digests(&mut main, &mut dev), expected, "evicted keys stay gone");
}
