//! Ports that stand for branches.

use base::Frame;
use testkit::{Server, TempDir, free_ports, temp_dir};

use crate::run::{alcid, wrapped};
use crate::undo::ok;
use crate::wire::{Wire, eventually};

/// A server with a port for `dev` and one for database 3 of `late`.
struct Ports {
    server: Server,
    dev: u16,
    late: u16,
    _folder: TempDir,
}

impl Ports {
    fn start(arguments: &[&str]) -> Ports {
        let [dev, late] = free_ports();
        let folder = temp_dir();
        let setup = format!("ALCID_SERVER_BRANCH_PORTS='{dev}=dev,{late}=late:3' exec");
        let server = Server::start(wrapped(folder.path(), &setup), arguments);
        Ports { server, dev, late, _folder: folder }
    }

    fn main(&self) -> Wire {
        Wire::connect(self.server.addr())
    }
}

fn by(port: u16) -> Wire {
    Wire::connect(("127.0.0.1", port))
}

fn current(wire: &mut Wire) -> String {
    wire.text(&["BRANCH", "CURRENT"])
}

fn create(wire: &mut Wire, branch: &str) {
    let made = wire.call(&["BRANCH", "CREATE", branch, "FROM", "main"]);
    assert!(!matches!(made, Frame::Error(_)), "{made:?}");
}

/// What a command is answered on a port whose branch does not exist.
fn missing(branch: &str) -> String {
    format!(
        "NOBRANCH this port is for the branch '{branch}', which does not exist; make it, or BRANCH USE another"
    )
}

#[test]
fn clients_begin_on_the_branch_of_their_port() {
    let ports = Ports::start(&[]);
    let mut main = ports.main();
    ok(&mut main, &["SET", "where", "main"]);
    create(&mut main, "dev");
    create(&mut main, "late");

    let (mut dev, mut late) = (by(ports.dev), by(ports.late));
    assert_eq!(dev.text(&["GET", "where"]), "main", "as it began");
    ok(&mut dev, &["SET", "where", "dev"]);
    ok(&mut late, &["SET", "where", "late in 3"]);
    assert_eq!((current(&mut dev), current(&mut late)), ("dev".into(), "late".into()));
    assert!(late.text(&["CLIENT", "INFO"]).contains(" db=3 "), "CLIENT tells the database");
    for (name, db, value) in [
        ("main", "0", "main"),
        ("dev", "0", "dev"),
        ("late", "0", "main"),
        ("late", "3", "late in 3"),
    ] {
        ok(&mut main, &["BRANCH", "USE", name]);
        ok(&mut main, &["SELECT", db]);
        assert_eq!(main.text(&["GET", "where"]), value, "{name} {db}");
    }
    ok(&mut main, &["RESET"]);

    // They count as being on it.
    let busy = main.text(&["BRANCH", "DELETE", "late"]);
    assert!(busy.starts_with("BRANCHBUSY "), "{busy}");
    drop(late);
    eventually("nobody is on it", || main.text(&["BRANCH", "DELETE", "late"]) == "OK");

    // The operator is told.
    let told = format!("{}=dev,{}=late:3", ports.dev, ports.late);
    assert!(main.text(&["INFO", "server"]).contains(&format!("branch_ports:{told}\r\n")));
    let log = ports.server.log();
    for (port, on) in
        [(ports.dev, "branch dev, database 0"), (ports.late, "branch late, database 3")]
    {
        assert!(log.contains(&format!("on 127.0.0.1:{port}, {on}\n")), "{log}");
    }
    let changed = main.text(&["CONFIG", "SET", "branch-ports", "7001=dev"]);
    assert!(changed.starts_with("ERR CONFIG SET failed"), "{changed}");
}

#[test]
fn whatever_moves_a_connection_does_so_and_reset_takes_it_back() {
    let ports = Ports::start(&[]);
    let mut main = ports.main();
    ok(&mut main, &["SET", "where", "main"]);
    create(&mut main, "dev");
    create(&mut main, "late");
    ok(&mut main, &["CONFIG", "SET", "select-branches", "100=dev:1"]);

    let mut wire = by(ports.late);
    let place = |wire: &mut Wire| {
        let info = wire.text(&["CLIENT", "INFO"]);
        let db = info.split(' ').find_map(|field| field.strip_prefix("db=")).expect("it is told");
        (current(wire), db.to_owned())
    };
    let home = ("late".to_owned(), "3".to_owned());
    for (moves, branch, db) in [
        (&["BRANCH", "USE", "dev"][..], "dev", "3"),
        (&["AUTH", "default@main", "any"], "main", "3"),
        (&["HELLO", "2", "AUTH", "default@dev", "any"], "dev", "3"),
        (&["SELECT", "100"], "dev", "1"),
        (&["SELECT", "0"], "late", "0"),
        // Who says no branch stays where it is.
        (&["AUTH", "default", "any"], "late", "3"),
    ] {
        assert_eq!(place(&mut wire), home);
        let reply = wire.call(moves);
        assert_eq!(place(&mut wire), (branch.to_owned(), db.to_owned()), "{moves:?}: {reply:?}");
        assert_eq!(wire.text(&["RESET"]), "RESET");
    }
    assert_eq!(place(&mut wire), home);
    // As ever by the server's own port.
    ok(&mut main, &["BRANCH", "USE", "dev"]);
    assert_eq!(main.text(&["RESET"]), "RESET");
    assert_eq!(current(&mut main), "main");
}

#[test]
fn a_branch_that_does_not_exist_is_not_main() {
    let ports = Ports::start(&[]);
    let (mut main, mut dev) = (ports.main(), by(ports.dev));
    ok(&mut main, &["SET", "where", "main"]);
    let missing = missing("dev");
    for command in [
        &["GET", "where"][..],
        &["SET", "where", "dev"],
        &["FLUSHALL"],
        &["MULTI"],
        &["INFO"],
        &["AT", "r:1", "GET", "where"],
        &["WATCHFROM", "r:1"],
        &["CLIENT", "TRAVEL", "r:1"],
        &["TAG", "CREATE", "v1"],
        &["TAG", "CREATE", "v1", "AT", "r:1"],
        &["BRANCH", "CREATE", "other"],
        &["BRANCH", "CREATE", "other", "AT", "r:1"],
        &["BRANCH", "MERGE", "main"],
    ] {
        assert_eq!(dev.text(command), missing, "{command:?}");
    }
    // Neither of these takes it anywhere else.
    assert_eq!(dev.text(&["PING"]), "PONG");
    assert_eq!(dev.text(&["RESET"]), "RESET");
    ok(&mut dev, &["AUTH", "default", "any"]);
    ok(&mut dev, &["SELECT", "2"]);
    assert_eq!((current(&mut dev), dev.text(&["DBSIZE"])), ("dev".into(), missing.clone()));
    let mut cache = by(ports.dev);
    cache.call(&["HELLO", "3"]);
    let tracking = cache.text(&["CLIENT", "TRACKING", "ON", "BCAST", "FROM", "r:1"]);
    assert!(tracking.starts_with("NOBRANCH "), "{tracking}");
    // A pipeline, which looks ahead, neither.
    (0..20).for_each(|n| assert!(dev.send(&["GET", &n.to_string()])));
    (0..20).for_each(|_| assert_eq!(dev.frame(), Frame::Error(missing.clone())));

    // It can go elsewhere, and is on its branch as soon as there is one.
    ok(&mut dev, &["BRANCH", "USE", "main"]);
    assert_eq!(dev.text(&["GET", "where"]), "(nil)", "in database 2");
    assert_eq!(dev.text(&["RESET"]), "RESET");
    assert_eq!(dev.text(&["GET", "where"]), missing);
    create(&mut dev, "dev");
    ok(&mut dev, &["SET", "where", "dev"]);
    assert_eq!(
        (dev.text(&["GET", "where"]), main.text(&["GET", "where"])),
        ("dev".into(), "main".into())
    );
    assert_eq!(by(ports.dev).text(&["GET", "where"]), "dev");
}

#[test]
fn a_port_is_for_a_name_whatever_becomes_of_the_branch() {
    let mut ports = Ports::start(&["--aof-fsync", "always"]);
    let mut main = ports.main();
    ok(&mut main, &["SET", "where", "main"]);
    create(&mut main, "dev");
    create(&mut main, "late");
    let mut dev = by(ports.dev);
    ok(&mut dev, &["SET", "where", "first"]);
    // On the branch by its name, by the server's port and by another branch's.
    let mut users = [ports.main(), by(ports.late)];
    users.iter_mut().for_each(|user| ok(user, &["BRANCH", "USE", "dev"]));

    // Deleted, and brought back.
    let deleted = "NOBRANCH the branch 'dev' of this connection was deleted; BRANCH USE another";
    ok(&mut main, &["BRANCH", "DELETE", "dev", "FORCE"]);
    assert_eq!(dev.text(&["GET", "where"]), deleted);
    let mut new = by(ports.dev);
    assert_eq!(new.text(&["GET", "where"]), missing("dev"));
    ok(&mut main, &["UNDO"]);
    assert_eq!(
        (dev.text(&["GET", "where"]), new.text(&["GET", "where"])),
        ("first".into(), "first".into())
    );

    // What is watched there is watched in its successor.
    ok(&mut dev, &["WATCH", "where"]);
    ok(&mut dev, &["MULTI"]);
    assert_eq!(dev.text(&["SET", "where", "third"]), "QUEUED");

    // Deleted, and another one made: who has chosen the first has not chosen
    // that one, nor what the port by which it came is for.
    ok(&mut main, &["BRANCH", "DELETE", "dev", "FORCE"]);
    create(&mut main, "dev");
    assert_eq!(dev.call(&["EXEC"]), Frame::NullArray, "it changed");
    assert_eq!(
        (dev.text(&["GET", "where"]), new.text(&["GET", "where"])),
        ("main".into(), "main".into())
    );
    users.iter_mut().for_each(|user| assert_eq!(user.text(&["GET", "where"]), deleted));
    ok(&mut dev, &["SET", "where", "second"]);

    // Renamed: who is on it stays, who comes looks for the name.
    ok(&mut main, &["BRANCH", "RENAME", "dev", "old"]);
    assert_eq!((current(&mut dev), dev.text(&["GET", "where"])), ("old".into(), "second".into()));
    assert_eq!(by(ports.dev).text(&["GET", "where"]), missing("dev"));
    ok(&mut main, &["BRANCH", "RENAME", "old", "dev"]);

    // The server was started anew, by a crash and in order.
    for end in ["KILL", "TERM"] {
        ports.server.signal(end);
        ports.server.wait();
        ports.server.restart();
        assert_eq!(by(ports.dev).text(&["GET", "where"]), "second", "{end}");
        assert_eq!(by(ports.late).text(&["GET", "where"]), "(nil)", "{end}");
    }
}

#[test]
fn what_is_in_the_way_of_a_port_is_named() {
    let ports = Ports::start(&[]);
    let folder = temp_dir();
    let taken = format!("[server]\nport = 0\nbranch_ports = \"{}=dev\"\n", ports.dev);
    std::fs::write(folder.path().join("taken.toml"), taken).expect("ours");
    let ended = alcid(folder.path(), &["server", "--config", "taken.toml", "--data-dir", "data"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains(&format!("listen on 127.0.0.1:{}: ", ports.dev)), "{ended:?}");
    assert!(ended.err.contains("choose another port with server.branch_ports"), "{ended:?}");
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_port_of_a_branch_is_guarded_as_the_servers() {
    let ports = Ports::start(&["--max-connections", "100"]);
    let mut main = ports.main();
    create(&mut main, "dev");
    ok(&mut main, &["CONFIG", "SET", "requirepass", "secret"]);
    let refused = "NOAUTH Authentication required.";
    // An address has one share of connections without a password, wherever
    // they are open.
    let mut guests: Vec<Wire> =
        (0..16).map(|n| if n % 2 == 0 { by(ports.dev) } else { ports.main() }).collect();
    guests.iter_mut().for_each(|guest| assert_eq!(guest.text(&["GET", "k"]), refused));
    for mut guest in [by(ports.dev), by(ports.late), ports.main()] {
        assert_eq!(Frame::Error("ERR max number of clients reached".into()), guest.frame());
    }
    ok(&mut guests[0], &["AUTH", "secret"]);
    assert_eq!(
        (current(&mut guests[0]), guests[0].text(&["GET", "k"])),
        ("dev".into(), "(nil)".into())
    );
    assert_eq!(by(ports.late).text(&["GET", "k"]), refused, "a place is free again");
}

#[test]
fn every_address_has_every_port() {
    let [dev] = free_ports();
    let folder = temp_dir();
    let setup = format!("ALCID_SERVER_BRANCH_PORTS={dev}=dev exec");
    let program = wrapped(folder.path(), &setup);
    let server = Server::start(program, &["--bind", "127.0.0.1 127.0.0.2"]);
    create(&mut Wire::connect(server.addr()), "dev");
    for address in ["127.0.0.1", "127.0.0.2"] {
        assert_eq!(current(&mut Wire::connect((address, dev))), "dev", "{address}");
        assert_eq!(current(&mut Wire::connect((address, server.port()))), "main", "{address}");
    }
}
