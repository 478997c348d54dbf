//! The addresses that the server listens on: its port, and the ports that stand
//! for branches, on every address to bind.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use engine::Home;
use front_resp::{Listener, Unauthenticated};
use settings::{MappedBranch, Settings};

/// A listener that serves nobody yet.
#[derive(Debug)]
pub struct Bound {
    /// Its address, with the port that the system chose for port 0.
    pub address: SocketAddr,
    /// Where its clients begin.
    home: Arc<Home>,
    pub listener: Listener,
}

/// Binds everything that the settings name, the server's own port first.
///
/// # Errors
/// What is in the way, and which setting to change.
pub fn bind(settings: &Settings) -> Result<Vec<Bound>, String> {
    let addresses = addresses(settings)?;
    let all_clients = Unauthenticated::default();
    let mut bound = Vec::new();
    let mut port = settings.port;
    for &address in &addresses {
        let here = Bound::at(address, port, Arc::default(), &all_clients, "--port")?;
        // With port 0 the system chooses once, for every address.
        port = here.address.port();
        bound.push(here);
    }
    let branch_ports = settings::mapped_branches(&settings.branch_ports);
    for MappedBranch { number, branch, db } in branch_ports.expect("the table checks it") {
        let port = u16::try_from(number).expect("the table checks it");
        let home = Arc::new(Home { branch: branch.into_bytes(), db });
        for &address in &addresses {
            let setting = "server.branch_ports";
            bound.push(Bound::at(address, port, home.clone(), &all_clients, setting)?);
        }
    }
    Ok(bound)
}

/// The addresses to bind, without ports.
fn addresses(settings: &Settings) -> Result<Vec<SocketAddr>, String> {
    let mut found = Vec::new();
    for host in &settings.bind {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = (bare, 0)
            .to_socket_addrs()
            .map_err(|error| format!("resolve the address {host:?} to bind: {error}"))?;
        found.extend(addresses);
    }
    Ok(found)
}

impl Bound {
    /// Binds one address; `setting` is where its port can be changed.
    fn at(
        mut address: SocketAddr,
        port: u16,
        home: Arc<Home>,
        all_clients: &Unauthenticated,
        setting: &str,
    ) -> Result<Bound, String> {
        address.set_port(port);
        let listener =
            Listener::bind(address, home.clone(), all_clients.clone()).map_err(|error| {
                let advice = match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        format!("choose another port with {setting}, or stop what uses it")
                    }
                    io::ErrorKind::PermissionDenied => {
                        format!("choose a port above 1023 with {setting}")
                    }
                    _ => "choose an address of this machine with --bind".to_owned(),
                };
                format!("listen on {address}: {error}; {advice}")
            })?;
        let address =
            listener.address().map_err(|error| format!("listen on {address}: {error}"))?;
        Ok(Bound { address, home, listener })
    }

    /// Tells the operator where it is.
    pub fn announce(&self) {
        print!("Listening for the Redis protocol on {}", self.address);
        if *self.home != Home::default() {
            let Home { branch, db } = &*self.home;
            print!(", branch {}, database {db}", String::from_utf8_lossy(branch));
        }
        println!();
    }
}
