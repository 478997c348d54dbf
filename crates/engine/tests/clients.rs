//! Clients of the bare engine: CLIENT, WAIT and WAITAOF, client-side caching,
//! pauses, and what may wait for a client that does not read.

mod harness;

use std::sync::atomic::Ordering;

use base::{Clock, Frame};
use engine::{Activity, Outcome};
use harness::{Gate, Peer, Server, bulk, error, integer, ok, simple};

/// `>2 invalidate [keys]`.
fn invalidate(keys: &[&str]) -> Frame {
    Frame::Push(vec![bulk("invalidate"), Frame::Array(keys.iter().map(bulk).collect())])
}

fn everything_is_invalid() -> Frame {
    Frame::Push(vec![bulk("invalidate"), Frame::Null])
}

/// A client that tracks, and one that writes.
fn tracker(options: &str) -> (Server, Peer, Peer) {
    let server = Server::new();
    let mut reader = server.resp3();
    let writer = server.connect();
    assert_eq!(reader.run(&format!("CLIENT TRACKING ON {options}")), ok());
    (server, reader, writer)
}

fn fields(line: &str) -> Vec<(&str, &str)> {
    line.trim_end().split(' ').filter_map(|pair| pair.split_once('=')).collect()
}

fn text(frame: Frame) -> String {
    match frame {
        Frame::Verbatim(_, text) => text,
        other => panic!("not a text: {other:?}"),
    }
}

#[test]
fn a_line_of_client_list_has_every_field_in_order() {
    let server = Server::new();
    let mut me = server.resp3();
    me.run("CLIENT SETNAME me");
    me.run("CLIENT SETINFO LIB-NAME lib");
    me.run("CLIENT SETINFO lib-ver 1.2");
    me.run("CLIENT NO-EVICT ON");
    me.run("CLIENT NO-TOUCH ON");
    me.run("SELECT 3");
    me.run("CLIENT TRACKING ON BCAST");
    let mut other = server.connect();
    other.run("MULTI");
    other.run("SET k v");
    server.clock.advance_ms(5_500);
    let lines = text(me.run("CLIENT LIST"));
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 2);
    let mine = fields(lines[0]);
    let names: Vec<&str> = mine.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names.join(" "),
        "id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem multi-mem rbs rbp \
         obl oll omem tot-mem events cmd user redir resp lib-name lib-ver"
    );
    let of = |line: &str, name: &str| {
        fields(line).into_iter().find(|(known, _)| *known == name).expect("a field").1.to_owned()
    };
    for (name, value) in [
        ("name", "me"),
        ("age", "5"),
        ("idle", "0"),
        ("flags", "tBeT"),
        ("db", "3"),
        ("multi", "-1"),
        ("cmd", "client|list"),
        ("user", "default"),
        ("redir", "0"),
        ("resp", "3"),
        ("lib-name", "lib"),
        ("lib-ver", "1.2"),
    ] {
        assert_eq!(of(lines[0], name), value, "{name}");
    }
    for (name, value) in
        [("flags", "x"), ("multi", "1"), ("idle", "5"), ("redir", "-1"), ("cmd", "set")]
    {
        assert_eq!(of(lines[1], name), value, "{name}");
    }
    assert_ne!(of(lines[1], "multi-mem"), "0");
    assert_eq!(text(me.run("CLIENT INFO")).lines().count(), 1);
    let both = format!("CLIENT LIST ID {} 999 -1 {}", other.id(), me.id());
    assert_eq!(text(me.run(&both)).lines().count(), 2);
    assert_eq!(text(me.run("CLIENT LIST TYPE pubsub")), "");
    other.run("DISCARD");
    other.run("SUBSCRIBE c");
    let subscribers = text(me.run("CLIENT LIST TYPE PUBSUB"));
    assert_eq!(of(&subscribers, "id"), other.id().to_string());
    assert_eq!(of(&subscribers, "flags"), "P");
}

#[test]
fn a_killed_client_is_gone_at_once() {
    let server = Server::new();
    let mut me = server.connect();
    let others: Vec<Peer> = (0..3).map(|_| server.connect()).collect();
    assert_eq!(me.run(&format!("CLIENT KILL ID {}", others[0].id())), integer(1));
    assert!(others[0].session.client.is_killed());
    assert_eq!(server.engine.clients.len(), 3);
    assert_eq!(me.run(&format!("CLIENT KILL {}", others[1].session.client.addr)), ok());
    assert_eq!(me.run("CLIENT KILL TYPE normal SKIPME yes"), integer(1));
    assert_eq!(me.run("CLIENT KILL TYPE normal"), integer(0));
    assert_eq!(me.run("CLIENT KILL USER default LADDR nowhere SKIPME no"), integer(0));
    let (reply, outcome) = me.call("CLIENT KILL TYPE normal SKIPME no");
    assert_eq!(reply, [integer(1)], "its own client still hears of it");
    assert!(matches!(outcome, Outcome::Close));
}

#[test]
fn refusals_in_the_words_of_redis() {
    let server = Server::new();
    let mut me = server.connect();
    for (line, words) in [
        ("CLIENT KILL ID x", "ERR client-id should be greater than 0"),
        ("CLIENT KILL ID 0", "ERR No such client"),
        ("CLIENT KILL ID 1 x", "ERR syntax error"),
        ("CLIENT KILL TYPE x SKIPME no", "ERR Unknown client type 'x'"),
        ("CLIENT KILL USER x SKIPME no", "ERR No such user 'x'"),
        ("CLIENT LIST ID x", "ERR Invalid client ID"),
        ("CLIENT LIST ID", "ERR syntax error"),
        ("CLIENT PAUSE x WRITES", "ERR CLIENT PAUSE mode must be WRITE or ALL"),
        ("CLIENT PAUSE x", "ERR timeout is not an integer or out of range"),
        ("CLIENT PAUSE -1", "ERR timeout is negative"),
        ("CLIENT PAUSE 9223372036854775807", "ERR timeout is out of range"),
        (
            "CLIENT PAUSE 1 ALL x",
            "ERR unknown subcommand or wrong number of arguments for 'pause'. Try CLIENT HELP.",
        ),
        (
            "CLIENT SETINFO Lib-Name a\u{7f}b",
            "ERR Lib-Name cannot contain spaces, newlines or special characters.",
        ),
        ("CLIENT SETINFO x y", "ERR Unrecognized option 'x'"),
        ("CLIENT UNBLOCK x SOON", "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
        (
            "CLIENT CACHING maybe",
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode \
             enabled",
        ),
        ("CLIENT TRACKING ON PREFIX a", "ERR PREFIX option requires BCAST mode to be enabled"),
        ("CLIENT TRACKING ON BCAST OPTIN", "ERR OPTIN and OPTOUT are not compatible with BCAST"),
        (
            "CLIENT TRACKING ON OPTIN OPTOUT",
            "ERR You can't specify both OPTIN mode and OPTOUT mode",
        ),
        (
            "CLIENT TRACKING ON REDIRECT 999",
            "ERR The client ID you want redirect to does not exist",
        ),
        (
            "CLIENT TRACKING ON REDIRECT 1 REDIRECT 1",
            "ERR A client can only redirect to a single other client",
        ),
        (
            "CLIENT TRACKING ON BCAST PREFIX ab PREFIX a",
            "ERR Prefix 'ab' overlaps with another provided prefix 'a'. Prefixes for a single client must not \
             overlap.",
        ),
        ("WAIT x 0", "ERR value is not an integer or out of range"),
        ("WAIT 0 x", "ERR timeout is not an integer or out of range"),
        ("WAIT 1 -1", "ERR timeout is negative"),
        ("WAIT 1 9223372036854775807", "ERR timeout is out of range"),
        ("WAITAOF 2 0 0", "ERR value is out of range, value must between 0 and 1"),
        ("WAITAOF 0 -1 0", "ERR value is out of range, must be positive"),
        ("WAITAOF 0 x 0", "ERR value is out of range, must be positive"),
        (
            "WAITAOF 1 0 0",
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ),
    ] {
        // The old form of KILL takes one word.
        let line = line.replace("KILL ID 0", "KILL 127.0.0.1:0");
        assert_eq!(me.run(&line), error(words), "{line}");
    }
    assert_eq!(me.run("CLIENT GETREDIR"), integer(-1), "no refusal has switched tracking on");
}

#[test]
fn replies_are_switched_off_and_skipped() {
    let server = Server::new();
    let mut me = server.connect();
    assert_eq!(me.call("CLIENT REPLY SKIP").0, []);
    assert_eq!(me.session.reply_mode, engine::ReplyMode::SkipNext);
    me.call("PING");
    assert_eq!(me.session.reply_mode, engine::ReplyMode::Skip);
    me.call("PING");
    assert_eq!(me.session.reply_mode, engine::ReplyMode::On);
    assert_eq!(me.call("CLIENT REPLY OFF").0, []);
    me.call("CLIENT REPLY SKIP");
    assert_eq!(me.session.reply_mode, engine::ReplyMode::Off, "off stays off");
    assert_eq!(me.run("CLIENT REPLY ON"), ok());
    // Inside EXEC every command has its place in the reply.
    me.run("MULTI");
    me.run("CLIENT REPLY SKIP");
    me.run("ECHO x");
    assert_eq!(me.run("EXEC"), Frame::Array(vec![ok(), bulk("x")]));
}

#[test]
fn a_read_is_told_of_the_next_change_once() {
    let (_server, mut reader, mut writer) = tracker("");
    reader.run("GET k");
    reader.run("HGETALL h");
    reader.run("SET own v");
    writer.run("SET other v");
    assert_eq!(reader.pushes(), []);
    writer.run("SET k 1");
    assert_eq!(reader.pushes(), [invalidate(&["k"])]);
    writer.run("SET k 2");
    assert_eq!(reader.pushes(), [], "it has been told and has not read since");
    writer.run("HSET h f v");
    assert_eq!(reader.pushes(), [invalidate(&["h"])]);
    // Renaming changes both keys; a miss is remembered as well.
    reader.run("MGET k new");
    writer.run("RENAME k new");
    assert_eq!(reader.pushes(), [invalidate(&["k"]), invalidate(&["new"])]);
    reader.run("GET new");
    reader.run("CLIENT TRACKING OFF");
    writer.run("SET new v");
    assert_eq!(reader.pushes(), []);
}

#[test]
fn a_transaction_tells_of_what_changes_after_its_reads() {
    let (_server, mut me, mut writer) = tracker("");
    for line in ["MULTI", "SET a 1", "GET a", "EXEC"] {
        me.run(line);
    }
    assert_eq!(me.pushes(), [], "what it read is what it wrote");
    writer.run("SET a 2");
    assert_eq!(me.pushes(), [invalidate(&["a"])]);
    for line in ["MULTI", "GET a", "HSET h f 1", "SET a 3", "HSET h f 2", "EXEC"] {
        me.run(line);
    }
    assert_eq!(me.pushes(), [invalidate(&["a"])]);
    // The last key that the transaction changed, changed again.
    for line in ["MULTI", "SET a 1", "GET a", "APPEND a 2", "EXEC"] {
        me.run(line);
    }
    assert_eq!(me.pushes(), [invalidate(&["a"])]);
    // Tracking ends on the way: others still hear.
    let (_server, mut reader, mut writer) = tracker("");
    reader.run("GET k");
    for line in ["CLIENT TRACKING ON", "MULTI", "SET k v", "CLIENT TRACKING OFF", "EXEC"] {
        writer.run(line);
    }
    assert_eq!(reader.pushes(), [invalidate(&["k"])]);
}

#[test]
fn opting_in_and_out() {
    let (_server, mut reader, mut writer) = tracker("OPTIN");
    let told = |reader: &mut Peer, writer: &mut Peer| {
        writer.run("APPEND k v");
        !reader.pushes().is_empty()
    };
    reader.run("GET k");
    assert!(!told(&mut reader, &mut writer));
    reader.run("CLIENT CACHING YES");
    reader.run("CLIENT ID");
    reader.run("GET k");
    assert!(told(&mut reader, &mut writer), "CLIENT commands do not use it up");
    reader.run("GET k");
    assert!(!told(&mut reader, &mut writer), "one command has");
    for line in ["CLIENT CACHING YES", "MULTI", "PING", "GET k", "EXEC"] {
        reader.run(line);
    }
    assert!(told(&mut reader, &mut writer), "it holds for a whole transaction");
    reader.run("GET k");
    assert!(!told(&mut reader, &mut writer));
    assert!(matches!(reader.run("CLIENT CACHING NO"), Frame::Error(_)));
    assert!(matches!(reader.run("CLIENT TRACKING ON OPTOUT"), Frame::Error(_)));
    reader.run("CLIENT TRACKING OFF");
    reader.run("CLIENT TRACKING ON OPTOUT");
    reader.run("GET k");
    assert!(told(&mut reader, &mut writer));
    reader.run("CLIENT CACHING NO");
    reader.run("GET k");
    assert!(!told(&mut reader, &mut writer));
}

#[test]
fn prefixes_hear_of_a_transaction_at_once() {
    let (server, mut follower, mut writer) = tracker("BCAST PREFIX a: PREFIX b:");
    let mut all = server.resp3();
    all.run("CLIENT TRACKING ON BCAST");
    writer.run("MSET b:1 v a:2 v a:1 v c v");
    assert_eq!(follower.pushes(), [invalidate(&["a:1", "a:2"]), invalidate(&["b:1"])]);
    assert_eq!(all.pushes(), [invalidate(&["a:1", "a:2", "b:1", "c"])]);
    assert!(matches!(follower.run("CLIENT TRACKING ON"), Frame::Error(_)));
    assert!(matches!(follower.run("CLIENT TRACKING ON BCAST PREFIX a"), Frame::Error(_)));
    follower.run("CLIENT TRACKING ON BCAST");
    writer.run("SET c v");
    assert_eq!(follower.pushes(), [invalidate(&["c"])], "now it follows every key");
}

#[test]
fn no_loop_keeps_own_changes_quiet_but_not_the_end_of_a_deadline() {
    let (server, mut me, mut writer) = tracker("NOLOOP");
    me.run("MGET a b");
    me.run("SET a v");
    writer.run("SET b v");
    assert_eq!(me.pushes(), [invalidate(&["b"])]);
    let mut follower = server.resp3();
    follower.run("CLIENT TRACKING ON BCAST NOLOOP");
    follower.run("SET gone v PX 10");
    writer.run("SET c v");
    assert_eq!(follower.pushes(), [invalidate(&["c"])]);
    server.clock.advance_ms(20);
    follower.run("GET gone");
    assert_eq!(follower.pushes(), [invalidate(&["gone"])]);
    follower.run("SET soon v PX 10");
    me.run("GET soon");
    server.clock.advance_ms(20);
    assert_eq!(server.engine.expire_cycle(1_000_000), 1);
    assert_eq!(follower.pushes(), [invalidate(&["soon"])]);
    assert_eq!(me.pushes(), [invalidate(&["soon"])]);
}

#[test]
fn a_flush_or_swap_makes_everything_invalid() {
    let (server, mut reader, mut writer) = tracker("");
    let mut follower = server.resp3();
    follower.run("CLIENT TRACKING ON BCAST PREFIX a");
    for line in ["FLUSHALL", "FLUSHDB ASYNC", "SWAPDB 0 1"] {
        reader.run("GET k");
        writer.run(line);
        assert_eq!(reader.pushes(), [everything_is_invalid()], "{line}");
        assert_eq!(follower.pushes(), [everything_is_invalid()], "{line}");
    }
    writer.run("SET k v");
    assert_eq!(reader.pushes(), [], "the table was emptied");
}

#[test]
fn what_a_blocked_client_does_is_told() {
    let (server, mut reader, mut writer) = tracker("");
    reader.run("LRANGE to 0 -1");
    let mut blocked = server.connect();
    let mut waits = blocked.block("BLMOVE from to LEFT LEFT 0");
    writer.run("RPUSH from x");
    assert_eq!(waits.answer.try_recv().expect("it was served").frame(), bulk("x"));
    assert_eq!(reader.pushes(), [invalidate(&["to"])]);
}

#[test]
fn another_client_hears_in_ones_place() {
    let (server, mut reader, mut writer) = tracker("");
    let mut target = server.connect();
    reader.run("CLIENT TRACKING OFF");
    reader.run(&format!("CLIENT TRACKING ON REDIRECT {}", target.id()));
    assert_eq!(reader.run("CLIENT GETREDIR"), integer(target.id() as i64));
    reader.run("GET k");
    writer.run("SET k 1");
    assert_eq!(target.pushes(), [], "RESP2 without a subscription");
    target.run("SUBSCRIBE __redis__:invalidate");
    reader.run("GET k");
    writer.run("SET k 2");
    let keys = Frame::Array(vec![bulk("k")]);
    let message = Frame::Push(vec![bulk("message"), bulk("__redis__:invalidate"), keys]);
    assert_eq!(target.pushes(), [message]);
    assert_eq!(reader.pushes(), []);
    reader.run("GET k");
    let id = target.id() as i64;
    writer.run(&format!("CLIENT KILL ID {id}"));
    writer.run("SET k 3");
    let broken = Frame::Push(vec![bulk("tracking-redir-broken"), integer(id)]);
    assert_eq!(reader.pushes(), [broken]);
    let Frame::Map(info) = reader.run("CLIENT TRACKINGINFO") else { panic!("a map") };
    assert_eq!(info[0].1, Frame::Set(vec![bulk("on"), bulk("broken_redirect")]));
    assert_eq!(info[1].1, integer(id));
}

#[test]
fn the_table_is_bounded_and_what_is_forgotten_is_told() {
    let (server, mut reader, mut writer) = tracker("");
    reader.run("CONFIG SET tracking-table-max-keys 10");
    let mut cached = std::collections::BTreeSet::new();
    let forget = |reader: &mut Peer, cached: &mut std::collections::BTreeSet<String>| {
        for push in reader.pushes() {
            let Frame::Push(items) = push else { panic!("not a push") };
            let Frame::Array(keys) = &items[1] else { panic!("not keys") };
            for key in keys {
                let Frame::Bulk(key) = key else { panic!("not a key") };
                assert!(cached.remove(std::str::from_utf8(key).expect("ours")), "told twice");
            }
        }
    };
    for number in 0..200 {
        reader.run(&format!("GET key:{number}"));
        cached.insert(format!("key:{number}"));
        forget(&mut reader, &mut cached);
        assert!(cached.len() <= 10);
    }
    assert_eq!(cached.len(), 10);
    let mut other = server.resp3();
    other.run("CONFIG SET tracking-table-max-keys 3");
    forget(&mut reader, &mut cached);
    assert_eq!(cached.len(), 3, "a lower limit holds at once");
    let info = text(other.run("INFO stats"));
    assert!(
        info.contains("tracking_total_keys:3\r\n") && info.contains("tracking_total_items:3\r\n")
    );
    // The others are still told of.
    (0..200).for_each(|number| drop(writer.run(&format!("SET key:{number} v"))));
    forget(&mut reader, &mut cached);
    assert!(cached.is_empty());
}

#[test]
fn nothing_is_told_before_it_is_committed() {
    let gate = Gate::shut();
    let server = Server::with(gate.clone());
    let (mut reader, mut writer) = (server.resp3(), server.connect());
    reader.run("CLIENT TRACKING ON");
    reader.run("MGET a b");
    writer.run("SET a v");
    writer.run("SET b v");
    assert_eq!(reader.pushes(), []);
    gate.reach(1);
    server.engine.run_committed();
    assert_eq!(reader.pushes(), [invalidate(&["a"])]);
    gate.reach(2);
    server.engine.run_committed();
    assert_eq!(reader.pushes(), [invalidate(&["b"])]);
}

#[test]
fn wait_has_no_replicas_to_wait_for() {
    let server = Server::new();
    let mut me = server.connect();
    assert_eq!(me.run("WAIT 0 0"), integer(0));
    assert_eq!(me.run("WAIT -1 0"), integer(0));
    let mut waits = me.block("WAIT 1 50");
    assert_eq!(waits.deadline_ms, Some(server.clock.now_ms() + 50));
    server.engine.time_out(waits.id);
    assert_eq!(waits.answer.try_recv().expect("its time is over").frame(), integer(0));
    let forever = me.block("WAIT 1 0");
    assert_eq!(forever.deadline_ms, None);
    assert!(server.engine.cancel_wait(forever.id));
    for line in ["MULTI", "WAIT 1 0", "WAITAOF 0 1 0"] {
        me.run(line);
    }
    let copies = Frame::Array(vec![integer(1), integer(0)]);
    assert_eq!(me.run("EXEC"), Frame::Array(vec![integer(0), copies]));
    let mut waits = me.block("WAIT 1 0");
    assert_eq!(server.connect().run(&format!("CLIENT UNBLOCK {} ERROR", me.id())), integer(1));
    let unblocked = error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
    assert_eq!(waits.answer.try_recv().expect("unblocked").frame(), unblocked);
}

#[test]
fn waitaof_ends_when_the_disk_has_the_clients_writes() {
    let gate = Gate::open();
    let server = Server::with(gate.clone());
    let (mut me, mut other) = (server.connect(), server.connect());
    let copies = |local: i64| Frame::Array(vec![integer(local), integer(0)]);
    assert_eq!(me.run("WAITAOF 1 0 0"), copies(1), "it has written nothing");
    me.run("SET a v");
    other.run("SET b v");
    assert_eq!(me.run("WAITAOF 0 0 0"), copies(0));
    let mut waits = me.block("WAITAOF 1 0 0");
    assert_eq!(gate.syncs_asked(), 1, "it does not wait for the next second");
    let mut others = other.block("WAITAOF 1 0 100");
    gate.sync(1);
    server.engine.run_committed();
    assert_eq!(waits.answer.try_recv().expect("on disk").frame(), copies(1));
    assert!(others.answer.try_recv().is_err(), "its write is later");
    server.engine.time_out(others.id);
    assert_eq!(others.answer.try_recv().expect("its time is over").frame(), copies(0));
    // Replicas never come; what is on disk by the end of the time is told.
    me.run("SET a w");
    let mut waits = me.block("WAITAOF 0 1 100");
    gate.sync(3);
    server.engine.run_committed();
    assert!(waits.answer.try_recv().is_err());
    server.engine.time_out(waits.id);
    assert_eq!(waits.answer.try_recv().expect("its time is over").frame(), copies(1));
    // A disk that has failed will never have it.
    me.run("SET a x");
    let mut waits = me.block("WAITAOF 1 0 0");
    gate.fail();
    server.engine.run_committed();
    assert_eq!(waits.answer.try_recv().expect("no hope").frame(), error("MISCONF broken"));
}

#[test]
fn a_pause_of_writes_holds_what_replicas_would_hear_of() {
    let server = Server::new();
    let (mut me, mut other) = (server.connect(), server.connect());
    other.run("SET k v PX 100");
    other.run("MULTI");
    other.run("SET k w");
    assert_eq!(me.run("CLIENT PAUSE 1000 WRITE"), ok());
    assert!(server.engine.is_paused());
    for (line, is_held) in [
        ("SET k v", true),
        ("PUBLISH c m", true),
        ("GET k", false),
        ("PING", false),
        ("SET k", false),
    ] {
        assert_eq!(matches!(me.call(line).1, Outcome::Paused(_)), is_held, "{line}");
    }
    assert!(matches!(other.call("EXEC").1, Outcome::Paused(_)), "its queue holds a write");
    // What is due is hidden, and stays.
    server.clock.advance_ms(200);
    assert_eq!(me.run("GET k"), Frame::Null);
    for line in ["MULTI", "EXISTS k"] {
        me.run(line);
    }
    assert_eq!(me.run("EXEC"), Frame::Array(vec![integer(0)]));
    assert_eq!(server.engine.expire_cycle(1_000_000), 0);
    assert_eq!(me.run("DBSIZE"), integer(1));
    assert_eq!(server.engine.stats.expired_keys.load(Ordering::Relaxed), 0);
    assert_eq!(me.run("CLIENT UNPAUSE"), ok());
    assert_eq!(me.run("GET k"), Frame::Null);
    assert_eq!(me.run("DBSIZE"), integer(0));
}

#[test]
fn a_pause_of_everything_lasts_its_time_or_until_unpause() {
    let server = Server::new();
    let mut me = server.connect();
    me.run("CLIENT PAUSE 1000");
    for line in ["PING", "GET k", "CLIENT ID", "INFO"] {
        let held = matches!(me.call(line).1, Outcome::Paused(until) if until == server.clock.now_ms() + 1000);
        assert!(held, "{line}");
    }
    let held_up = server.engine.hold_up(me.session.client.clone());
    let blocked = |activity: &Activity| activity.blocked.load(Ordering::Relaxed);
    assert!(blocked(&me.session.client.activity));
    drop(held_up);
    assert!(!blocked(&me.session.client.activity));
    assert_eq!(me.run("CLIENT UNPAUSE"), ok());
    assert_eq!(me.run("PING"), simple("PONG"));
    me.run("CLIENT PAUSE 1000");
    server.clock.advance_ms(1000);
    assert_eq!(me.run("PING"), simple("PONG"));
}

#[test]
fn who_does_not_read_is_disconnected_and_gathers_nothing() {
    let server = Server::new();
    let (mut me, mut slow) = (server.connect(), server.connect());
    me.run("CONFIG SET client-output-buffer-limit pubsub_100000_50000_10");
    slow.run("SUBSCRIBE c");
    let message = format!("PUBLISH c {}", "x".repeat(1000));
    let client = slow.session.client.clone();
    let mut most = 0;
    while me.run(&message) == integer(1) && !client.is_killed() {
        most = most.max(client.outbox.bytes());
    }
    assert!((95_000..=100_000).contains(&most), "{most}");
    (0..100).for_each(|_| drop(me.run(&message)));
    assert_eq!(client.outbox.bytes(), 0);
    let disconnections = &server.engine.stats.output_buffer_limit_disconnections;
    assert_eq!(disconnections.load(Ordering::Relaxed), 1);

    // The soft limit gives it time.
    let mut slow = server.connect();
    slow.run("SUBSCRIBE d");
    let message = format!("PUBLISH d {}", "x".repeat(1000));
    (0..60).for_each(|_| drop(me.run(&message)));
    server.clock.advance_ms(9_000);
    me.run(&message);
    assert!(!slow.session.client.is_killed());
    slow.pushes();
    me.run(&message);
    server.clock.advance_ms(9_000);
    (0..60).for_each(|_| drop(me.run(&message)));
    assert!(!slow.session.client.is_killed(), "it has read meanwhile");
    server.clock.advance_ms(11_000);
    me.run(&message);
    assert!(slow.session.client.is_killed());
    assert_eq!(disconnections.load(Ordering::Relaxed), 2);
}

#[test]
fn misses_are_counted_and_events_on_demand() {
    let server = Server::new();
    let (mut me, mut listener) = (server.connect(), server.resp3());
    listener.run("PSUBSCRIBE __key*");
    me.run("SET k v");
    me.run("RPUSH l v");
    me.run("CONFIG RESETSTAT");
    for (line, hits, misses) in [
        ("GET k", 1, 0),
        ("GET none", 0, 1),
        ("MGET k none other", 1, 2),
        ("GETEX none", 0, 1),
        ("STRLEN k", 1, 0),
        ("SET none2 v", 0, 0),
        ("DEL none", 0, 0),
        ("INCR n", 0, 0),
        ("LRANGE l 0 -1", 1, 0),
    ] {
        let stats = &server.engine.stats;
        let counts = || {
            let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            (load(&stats.keyspace_hits), load(&stats.keyspace_misses))
        };
        let before = counts();
        me.run(line);
        let after = counts();
        assert_eq!((after.0 - before.0, after.1 - before.1), (hits, misses), "{line}");
    }
    me.run("CONFIG SET notify-keyspace-events KEA");
    me.run("GET none");
    assert_eq!(listener.pushes(), [], "A has every class but this");
    me.run("CONFIG SET notify-keyspace-events Km");
    me.run("GET k");
    me.run("DEL none");
    assert_eq!(listener.pushes(), []);
    me.run("GET none");
    let channel = "__keyspace@0__:none";
    let event = Frame::Push(vec![bulk("pmessage"), bulk("__key*"), bulk(channel), bulk("keymiss")]);
    assert_eq!(listener.pushes(), [event]);
}
