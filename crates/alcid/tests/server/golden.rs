//! Every golden script over a socket.

use std::io;
use std::path::Path;

use base::Frame;
use testkit::{Outcome, Server, SocketTarget, Target, run_dir};

#[test]
fn every_script_over_a_socket() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/scripts");
    run_dir(scripts, &mut || {
        // A server for each: a script may change settings.
        let server = Server::start(crate::ALCID, &["--aof-fsync", "no"]);
        let target = SocketTarget::connect(server.addr())?;
        Ok(Held { target, _server: server })
    });
}

/// A target that ends with its server.
struct Held {
    target: SocketTarget,
    _server: Server,
}

impl Target for Held {
    fn exec(&mut self, client: &str, args: &[Vec<u8>]) -> io::Result<Outcome> {
        self.target.exec(client, args)
    }

    fn next(&mut self, client: &str) -> io::Result<Frame> {
        self.target.next(client)
    }

    fn is_blocked(&mut self, client: &str) -> io::Result<bool> {
        self.target.is_blocked(client)
    }

    fn is_quiet(&mut self, client: &str) -> io::Result<bool> {
        self.target.is_quiet(client)
    }

    fn has_manual_clock(&self) -> bool {
        false
    }

    fn advance_ms(&mut self, ms: u64) -> io::Result<()> {
        self.target.advance_ms(ms)
    }
}
