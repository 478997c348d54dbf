//! WATCHFROM of branches: each change of a branch's line once, while watches
//! and branches come and go.

use std::sync::mpsc::channel;

use base::{Frame, Rng, SeededRng};
use resp::encode_command;
use testkit::Server;

use crate::ALCID;
use crate::watch::{Told, by_changes, number, resp3, take, told, watch};
use crate::wire::{Wire, text_of};

fn without_values(told: Vec<Told>) -> Vec<Told> {
    told.into_iter().map(|told| Told { values: Vec::new(), ..told }).collect()
}

fn on(server: &Server, branch: &str) -> Wire {
    let mut wire = resp3(server);
    assert_eq!(wire.text(&["BRANCH", "USE", branch]), "OK");
    wire
}

/// The next push, which ends a watch: why.
fn closed(wire: &mut Wire, id: u64) -> String {
    let frame = wire.frame();
    assert_eq!(told(&frame, id), None);
    let Frame::Push(items) = frame else { panic!("{frame:?}") };
    assert_eq!(text_of(items[0].clone()), "closed");
    text_of(items[2].clone())
}

#[test]
fn a_branch_is_told_with_what_it_was_made_of() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut main, mut live) = (resp3(&server), resp3(&server));
    main.call(&["SET", "old", "1"]);
    main.call(&["BRANCH", "CREATE", "dev"]);
    main.call(&["SET", "only:main", "1"]);
    let mut dev = on(&server, "dev");
    let (id, from) = watch(&mut live, &["WATCHFROM", "NOW", "BRANCH", "dev", "OLD", "NEW"]);
    dev.call(&["SET", "old", "2"]);
    main.call(&["SET", "old", "3"]);
    dev.call(&["BRANCH", "CREATE", "fix", "FROM", "dev"]);
    let mut fix = on(&server, "fix");
    fix.call(&["DEL", "old"]);
    dev.call(&["SET", "last", "x"]);
    let heard = take(&mut live, id, 2);
    assert_eq!(heard[0].revision, from);
    let seen: Vec<(&str, &[String])> =
        heard.iter().map(|it| (it.key.as_str(), &it.values[..])).collect();
    let text =
        |words: &[&str]| -> Vec<String> { words.iter().map(|it| (*it).to_owned()).collect() };
    assert_eq!(seen, [("old", &text(&["1", "2"])[..]), ("last", &text(&["(nil)", "x"])[..])]);
    // From the beginning on, a branch's branch is told as CHANGES tells it.
    for branch in ["dev", "fix", "main"] {
        let mut late = on(&server, branch);
        let expected = by_changes(&mut late, 1);
        let (id, _) = watch(&mut late, &["WATCHFROM", "r:1", "OLD", "NEW"]);
        let heard = take(&mut late, id, expected.len());
        assert_eq!(without_values(heard.clone()), expected, "{branch}");
        for change in heard.iter().filter(|it| it.key == "old") {
            let at = |revision: u64| {
                ["AT".to_owned(), format!("r:{revision}"), "GET".into(), "old".into()]
            };
            let [old, new] = [change.revision - 1, change.revision]
                .map(|revision| text_of(on(&server, branch).call(&at(revision))));
            assert_eq!(change.values, [old, new], "{branch} {change:?}");
        }
    }
}

#[test]
fn a_watch_begins_at_a_tag() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let mut wire = resp3(&server);
    wire.call(&["SET", "a", "1"]);
    wire.call(&["SET", "b", "1"]);
    let at = number(&wire.call(&["TAG", "CREATE", "v1"]));
    wire.call(&["SET", "c", "1"]);
    let (id, from) = watch(&mut wire, &["WATCHFROM", "tag:v1"]);
    assert_eq!(from, at);
    assert_eq!(take(&mut wire, id, 1)[0].key, "c");
    let refused = text_of(wire.call(&["WATCHFROM", "tag:v2"]));
    assert!(refused.starts_with("ERR no tag is named 'v2'"), "{refused}");
}

#[test]
fn a_watch_ends_with_its_branch() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut main, mut live, mut slow) = (resp3(&server), resp3(&server), resp3(&server));
    main.call(&["BRANCH", "CREATE", "dev"]);
    let mut dev = on(&server, "dev");
    let (id, _) = watch(&mut live, &["WATCHFROM", "NOW", "BRANCH", "dev"]);
    let (slow_id, _) = watch(&mut slow, &["WATCHFROM", "NOW", "BRANCH", "dev", "NEW"]);
    let (other, _) = watch(&mut slow, &["WATCHFROM", "NOW", "KEY", "last"]);
    // More than waits for a client: the slow one is behind when it happens.
    let value = "x".repeat(100_000);
    for n in 0..200 {
        dev.call(&["SET", &format!("k:{n}"), &value]);
    }
    take(&mut live, id, 200);
    dev.call(&["BRANCH", "USE", "main"]);
    assert_eq!(main.text(&["BRANCH", "RESET", "dev", "TO", "PARENT"]), "OK");
    let reason = closed(&mut live, id);
    assert!(
        reason.starts_with("NOBRANCH the branch 'dev' was made anew from its parent"),
        "{reason}"
    );
    // The branch goes on, and those who watch it now hear of nothing before.
    let (id, _) = watch(&mut live, &["WATCHFROM", "NOW", "BRANCH", "dev"]);
    let mut again = on(&server, "dev");
    again.call(&["SET", "anew", "1"]);
    assert_eq!(take(&mut live, id, 1)[0].key, "anew");
    again.call(&["BRANCH", "USE", "main"]);
    assert_eq!(main.text(&["BRANCH", "DELETE", "dev"]), "OK");
    let reason = closed(&mut live, id);
    assert!(reason.starts_with("NOBRANCH the branch 'dev' was deleted at revision "), "{reason}");
    assert_eq!(
        live.text(&["WATCHFROM", "NOW", "BRANCH", "dev"]),
        "NOBRANCH no branch is named 'dev'; BRANCH LIST names those that there are"
    );
    // Who was behind hears all of it first.
    let heard = take(&mut slow, slow_id, 200);
    assert!((0..).zip(&heard).all(|(n, told)| told.key == format!("k:{n}")));
    let reason = closed(&mut slow, slow_id);
    assert!(reason.contains("was made anew"), "{reason}");
    main.call(&["SET", "last", "1"]);
    assert_eq!(take(&mut slow, other, 1)[0].key, "last");
}

/// What a parent had can be read on its branch, and is told with values, when the
/// parent itself is gone for good.
#[test]
fn values_of_a_parent_that_is_gone_are_told() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let mut main = resp3(&server);
    main.call(&["SET", "a", "1"]);
    main.call(&["BRANCH", "CREATE", "parent"]);
    let mut parent = on(&server, "parent");
    parent.call(&["SET", "a", "2"]);
    parent.call(&["RPUSH", "list", "x"]);
    parent.call(&["RPUSH", "list", "y"]);
    parent.call(&["BRANCH", "CREATE", "child", "FROM", "parent"]);
    on(&server, "child").call(&["SET", "a", "3"]);
    parent.call(&["SET", "a", "elsewhere"]);
    parent.call(&["BRANCH", "USE", "main"]);
    assert_eq!(main.text(&["BRANCH", "DELETE", "parent", "FORCE", "NOUNDO"]), "OK");
    for when in ["at once", "after a start"] {
        let mut wire = resp3(&server);
        let (id, _) = watch(&mut wire, &["WATCHFROM", "r:1", "OLD", "NEW", "BRANCH", "child"]);
        let told: Vec<Vec<String>> =
            take(&mut wire, id, 5).into_iter().map(|it| it.values).collect();
        let list = |elements: &[&str]| {
            let elements = elements.iter().map(|element| Frame::bulk(*element)).collect();
            text_of(Frame::Array(elements))
        };
        let (one, two) = (list(&["x"]), list(&["x", "y"]));
        let (one, two) = (one.as_str(), two.as_str());
        let expected = [["(nil)", "1"], ["1", "2"], ["(nil)", one], [one, two], ["2", "3"]];
        assert_eq!(told, expected, "{when}");
        server.kill();
        server.restart();
    }
}

/// Nothing happened on a branch between its end and its return.
#[test]
fn a_watch_goes_on_over_a_deletion_that_was_taken_back() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let mut main = resp3(&server);
    main.call(&["BRANCH", "CREATE", "dev"]);
    on(&server, "dev").call(&["SET", "a", "1"]);
    let (mut live, mut late) = (resp3(&server), resp3(&server));
    let (id, _) = watch(&mut live, &["WATCHFROM", "NOW", "BRANCH", "dev"]);
    assert_eq!(main.text(&["BRANCH", "DELETE", "dev", "FORCE"]), "OK");
    assert!(closed(&mut live, id).contains("was deleted"));
    main.call(&["UNDO"]);
    let mut dev = on(&server, "dev");
    dev.call(&["SET", "a", "2"]);
    let (id, _) = watch(&mut late, &["WATCHFROM", "r:1", "OLD", "NEW", "BRANCH", "dev"]);
    let told: Vec<Vec<String>> = take(&mut late, id, 2).into_iter().map(|it| it.values).collect();
    assert_eq!(told, [["(nil)", "1"], ["1", "2"]]);
    // It ends with the next one.
    dev.call(&["BRANCH", "USE", "main"]);
    assert_eq!(main.text(&["BRANCH", "DELETE", "dev"]), "OK");
    assert!(closed(&mut late, id).contains("was deleted"));
}

/// A watch, and what it should be told.
struct Open {
    wire: Wire,
    id: u64,
    from: u64,
    branch: String,
    /// `PREFIX`, `KEY` or nothing, and what it says.
    selection: Option<(&'static str, String)>,
    /// What came so far.
    heard: Vec<Told>,
}

impl Open {
    fn new(server: &Server, rng: &mut SeededRng, branch: &str, newest: u64, made: u64) -> Open {
        let mut wire = resp3(server);
        let selection = match rng.below(3) {
            0 => None,
            1 => Some(("PREFIX", format!("k:{}", rng.below(4)))),
            _ => Some(("KEY", format!("k:{}", rng.below(40)))),
        };
        let when = match rng.below(3) {
            0 => "NOW".to_owned(),
            1 => format!("r:{}", made + 1 + rng.below(newest - made)),
            _ => format!("r:{}", newest + 1 - rng.below(50).min(newest - 1)),
        };
        let mut words = vec!["WATCHFROM", &when, "BRANCH", branch];
        // What the keys of a branch were goes with it.
        if branch != "brief" && rng.below(2) == 0 {
            words.push("NEW");
        }
        if let Some((word, name)) = &selection {
            words.extend(["KEY", "end", word, name]);
        }
        let (id, from) = watch(&mut wire, &words);
        let heard = Vec::new();
        Open { wire, id, from, branch: branch.to_owned(), selection, heard }
    }

    fn wants(&self, told: &Told) -> bool {
        told.revision >= self.from
            && (told.key == "(nil)"
                || told.key == "end"
                || match &self.selection {
                    None => true,
                    Some(("PREFIX", name)) => told.key.starts_with(name),
                    Some((_, name)) => told.key == *name,
                })
    }

    /// Reads a few, or nothing: some clients are slow.
    fn read_some(&mut self, count: u64) {
        for _ in 0..count {
            match self.wire.read(std::time::Duration::from_millis(1)) {
                crate::wire::Came::Frame(frame) => self.heard.extend(told(&frame, self.id)),
                _ => return,
            }
        }
    }

    fn check(self, expected: &[Told]) {
        let expected: Vec<Told> =
            expected.iter().filter(|told| self.wants(told)).cloned().collect();
        let heard = without_values(self.heard);
        let first = heard.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(
            (first, heard.len()),
            (None, expected.len()),
            "watch {} of {} from {} for {:?}: {:?}",
            self.id,
            self.branch,
            self.from,
            self.selection,
            first.map(|at| (&heard[at], &expected[at])),
        );
    }

    /// Reads up to `end`, a revision that it is told of, and compares.
    fn check_upto(mut self, end: u64, by_changes: &[Told]) {
        while self.heard.last().is_none_or(|last| last.revision < end) {
            let frame = self.wire.frame();
            let next = told(&frame, self.id).unwrap_or_else(|| panic!("{frame:?}"));
            self.heard.push(next);
        }
        let expected: Vec<Told> =
            by_changes.iter().filter(|told| told.revision <= end).cloned().collect();
        self.check(&expected);
    }

    /// Reads until it is closed, and compares.
    fn check_closed(mut self, by_changes: &[Told]) {
        loop {
            let frame = self.wire.frame();
            match told(&frame, self.id) {
                Some(next) => self.heard.push(next),
                None => {
                    let Frame::Push(items) = frame else { panic!("{frame:?}") };
                    let why = text_of(items[2].clone());
                    assert!(why.starts_with("NOBRANCH the branch"), "{why}");
                    return self.check(by_changes);
                }
            }
        }
    }
}

/// So many commands, in pipelines of a depth.
fn scribble(wire: &mut Wire, rng: &mut SeededRng, count: usize, depth: usize) {
    let long = "v".repeat(1500);
    let mut left = count;
    while left > 0 {
        let batch = left.min(depth);
        let (mut bytes, mut replies) = (Vec::new(), 0);
        for _ in 0..batch {
            let [a, b] = [rng.below(40), rng.below(40)].map(|n| format!("k:{n}"));
            let commands: &[&[&str]] = match rng.below(8) {
                0 => &[&["SET", &a, &long]],
                1 => &[&["HSET", &a, "f", "v"]],
                2 => &[&["DEL", &a, &b]],
                3 => &[&["RENAME", &a, &b]],
                4 => &[&["MULTI"], &["SET", &a, "1"], &["SADD", &b, "1"], &["DEL", &a], &["EXEC"]],
                5 if rng.below(40) == 0 => &[&["FLUSHDB"]],
                _ => &[&["SET", &a, "v"]],
            };
            commands.iter().for_each(|command| encode_command(&mut bytes, command));
            replies += commands.len();
        }
        assert!(wire.raw(&bytes), "the server closed the connection");
        (0..replies).for_each(|_| drop(wire.frame()));
        left -= batch;
    }
}

/// A change that every watch of the wire's branch is told of: its revision.
fn end(wire: &mut Wire) -> u64 {
    wire.call(&["SET", "end", "x"]);
    number(&wire.call(&["LASTREV"]))
}

fn come_and_go(depth: usize, fsync: &str) {
    let server = Server::start(ALCID, &["--aof-fsync", fsync]);
    let mut rng = SeededRng::new(depth as u64);
    let mut main = resp3(&server);
    scribble(&mut main, &mut rng, 200, depth);
    main.call(&["BRANCH", "CREATE", "steady"]);
    // Others write to main and a branch at the same time.
    let writers = ["main", "steady"].map(|branch| {
        let (turns, begun) = channel::<()>();
        let (mut wire, mut rng) = (on(&server, branch), SeededRng::new(branch.len() as u64));
        let thread = std::thread::spawn(move || {
            begun.iter().for_each(|()| scribble(&mut wire, &mut rng, 60, depth));
        });
        (turns, thread)
    });
    let mut asker = on(&server, "steady");
    let mut open: Vec<Open> = Vec::new();
    // The branch that comes and goes, with who is on it and what made it.
    let mut brief: Option<(Wire, u64)> = None;
    let mut ended = 0;
    for _ in 0..60 {
        let newest = end(&mut main);
        writers.iter().for_each(|(turns, _)| turns.send(()).expect("it writes to the end"));
        for branch in ["main", "steady"] {
            open.push(Open::new(&server, &mut rng, branch, newest, 0));
        }
        match &mut brief {
            None => {
                let parent = ["main", "steady"][rng.below(2) as usize];
                main.call(&["BRANCH", "CREATE", "brief", "FROM", parent]);
                let made = number(&main.call(&["LASTREV"]));
                brief = Some((on(&server, "brief"), made));
            }
            Some((wire, made)) => {
                scribble(wire, &mut rng, 50, depth);
                let newest = end(wire);
                open.push(Open::new(&server, &mut rng, "brief", newest, *made));
                scribble(wire, &mut rng, 50, depth);
            }
        }
        if let Some((wire, _)) = &mut brief
            && rng.below(4) == 0
        {
            let expected = by_changes(wire, 1);
            wire.call(&["BRANCH", "USE", "main"]);
            match rng.below(2) {
                0 => {
                    assert_eq!(main.text(&["BRANCH", "DELETE", "brief"]), "OK");
                    brief = None;
                }
                _ => {
                    assert_eq!(main.text(&["BRANCH", "RESET", "brief", "TO", "PARENT"]), "OK");
                    let made = number(&main.call(&["LASTREV"]));
                    brief = Some((on(&server, "brief"), made));
                }
            }
            let (of_it, others): (Vec<_>, Vec<_>) =
                open.into_iter().partition(|watch| watch.branch == "brief");
            open = others;
            for watch in of_it {
                watch.check_closed(&expected);
                ended += 1;
            }
        }
        for watch in &mut open {
            let count = rng.below(60);
            watch.read_some(if count < 20 { 0 } else { count });
        }
        while open.len() > 8 {
            let watch = open.swap_remove(rng.below(open.len() as u64) as usize);
            let wire = match watch.branch.as_str() {
                "main" => &mut main,
                "steady" => &mut asker,
                _ => &mut brief.as_mut().expect("its watches end with it").0,
            };
            let last = end(wire);
            let expected = by_changes(wire, watch.from);
            watch.check_upto(last, &expected);
        }
    }
    assert!(ended > 0, "no watch has ended with its branch");
    for (turns, writer) in writers {
        drop(turns);
        writer.join().expect("it writes to the end");
    }
    for watch in open {
        let wire = match watch.branch.as_str() {
            "main" => &mut main,
            "steady" => &mut asker,
            _ => &mut brief.as_mut().expect("its watches end with it").0,
        };
        let last = end(wire);
        let expected = by_changes(wire, watch.from);
        watch.check_upto(last, &expected);
    }
}

#[test]
fn nothing_is_lost_or_told_twice_one_by_one() {
    come_and_go(1, "everysec");
}

#[test]
fn nothing_is_lost_or_told_twice_in_short_pipelines() {
    come_and_go(16, "no");
}

#[test]
fn nothing_is_lost_or_told_twice_in_long_pipelines() {
    come_and_go(200, "everysec");
}

#[test]
fn nothing_is_lost_or_told_twice_when_all_is_durable() {
    come_and_go(16, "always");
}
