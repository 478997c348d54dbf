use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use base::{Clock, SystemClock};

use crate::temp::{TempDir, temp_dir};

/// Longest wait for a server to answer or to exit.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a state of another process is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How often another port is tried when one was taken in between.
const PORTS_TRIED: usize = 5;

/// An `alcid server` process on a free port of 127.0.0.1, with a data folder
/// of its own. Killed with its guard.
#[derive(Debug)]
pub struct Server {
    binary: PathBuf,
    arguments: Vec<String>,
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Server {
    /// Starts `binary` (in a test of the crate `alcid`:
    /// `env!("CARGO_BIN_EXE_alcid")`) as `server --port … --data-dir …`
    /// followed by `arguments`, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start; the message holds its log.
    #[must_use]
    pub fn start(binary: impl AsRef<Path>, arguments: &[&str]) -> Server {
        let binary = binary.as_ref().to_owned();
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let folder = temp_dir();
        let mut port = free_port();
        let mut tries = 1;
        loop {
            match launch(&binary, &arguments, folder.path(), port) {
                Ok(child) => return Server { binary, arguments, folder, port, child },
                Err(log) if log.contains("in use") && tries < PORTS_TRIED => {
                    port = free_port();
                    tries += 1;
                }
                Err(log) => panic!("{} did not start on port {port}:\n{log}", binary.display()),
            }
        }
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port it listens on; stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it keeps its data.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        data_dir_in(self.folder.path())
    }

    /// What it has written to standard output and standard error, over all
    /// starts.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(self.folder.path())
    }

    /// Ends it as a crash would (SIGKILL).
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// Asks it to end (SIGTERM) and waits for that.
    ///
    /// # Panics
    /// When it goes on running.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Sends a signal by name, as in `kill -STOP`.
    ///
    /// # Panics
    /// When the signal cannot be sent.
    pub fn signal(&self, name: &str) {
        // The standard library sends SIGKILL only, and tests may not use
        // unsafe code to call libc.
        let mut kill = Command::new("kill");
        let status = kill.arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name} {} failed", self.pid());
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it goes on running.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for(|| self.child.try_wait().expect("a child can be waited for"))
            .unwrap_or_else(|| panic!("still running after {PATIENCE:?}:\n{}", self.log()))
    }

    /// Starts it again on the same port and data, after [`Server::kill`],
    /// [`Server::terminate`] or its own end.
    ///
    /// # Panics
    /// When it does not start; the message holds its log.
    pub fn restart(&mut self) {
        if let Err(log) = self.try_restart() {
            panic!("did not start again:\n{log}");
        }
    }

    /// As [`Server::restart`], for starts that may be refused.
    ///
    /// # Errors
    /// Its log, when it does not start.
    pub fn try_restart(&mut self) -> Result<(), String> {
        // Stops one that still runs; one that has ended is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.child = launch(&self.binary, &self.arguments, self.folder.path(), self.port)?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

fn data_dir_in(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn log_in(folder: &Path) -> PathBuf {
    folder.join("server.log")
}

fn read_log(folder: &Path) -> String {
    fs::read(log_in(folder)).map_or_else(
        |error| format!("(no log: {error})"),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}

/// Ports nobody listens on right now, all different.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until the last is found.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a bound socket has an address").port())
}

fn free_port() -> u16 {
    let [port] = free_ports();
    port
}

/// Starts the process and waits until it answers; its log when it does not.
fn launch(binary: &Path, arguments: &[String], folder: &Path, port: u16) -> Result<Child, String> {
    let failed = |error: io::Error| format!("{}: {error}", binary.display());
    let log = File::options().create(true).append(true).open(log_in(folder)).map_err(failed)?;
    let mut child = Command::new(binary)
        .arg("server")
        .args(["--port", &port.to_string()])
        .arg("--data-dir")
        .arg(data_dir_in(folder))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let ready = wait_for(|| match child.try_wait() {
        Ok(None) if answers(port) => Some(true),
        Ok(None) => None,
        Ok(Some(_)) | Err(_) => Some(false),
    });
    if ready == Some(true) {
        return Ok(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(read_log(folder))
}

/// Whether something on the port answers a PING, with whatever reply.
fn answers(port: u16) -> bool {
    let ping = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"PING\r\n")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(true)
    };
    ping().unwrap_or(false)
}

/// Calls `look` until it has an answer; `None` when patience ends.
fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let clock = SystemClock;
    let end_ns = clock.monotonic_ns() + PATIENCE.as_nanos() as u64;
    loop {
        if let Some(answer) = look() {
            return Some(answer);
        }
        if clock.monotonic_ns() > end_ns {
            return None;
        }
        // Another process's state has no event to wait for in std.
        std::thread::park_timeout(LOOK_AGAIN);
    }
}

/// Writes a script that can be executed at once.
///
/// Another process writes it: what this one has open for writing, a child that
/// a test beside this one is starting holds too until it runs its program, and
/// nobody can execute the file meanwhile (`ETXTBSY`).
///
/// # Panics
/// When it cannot be written.
pub fn write_program(path: &Path, text: &str) {
    let written = Command::new("sh")
        .args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", text])
        .arg(path)
        .status()
        .expect("a shell is there");
    assert!(written.success(), "{}: {written}", path.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does what `Server` needs of a server, with the tools of any machine:
    /// answers one line per connection until a signal ends it.
    const STAND_IN: &str = r#"#!/usr/bin/env python3
import socket, sys
if "refuse" in sys.argv:
    sys.exit("refused: as asked")
port = int(sys.argv[sys.argv.index("--port") + 1])
s = socket.create_server(("127.0.0.1", port))
print("started with", *sys.argv[1:], flush=True)
while True:
    c, _ = s.accept()
    c.recv(64)
    c.sendall(b"+PONG\r\n")
    c.close()
"#;

    fn stand_in(folder: &TempDir) -> PathBuf {
        let path = folder.path().join("stand-in");
        write_program(&path, STAND_IN);
        path
    }

    #[test]
    fn starts_kills_and_starts_again() {
        let folder = temp_dir();
        let mut server = Server::start(stand_in(&folder), &["--more"]);
        let (port, pid) = (server.port(), server.pid());
        assert!(answers(port));
        assert!(server.log().contains("--more"), "{}", server.log());
        server.kill();
        assert!(!answers(port));
        server.restart();
        assert!(answers(port));
        assert_ne!(server.pid(), pid);
        assert!(!server.terminate().success());
        assert!(!answers(port));
    }

    #[test]
    fn a_refused_start_shows_the_log() {
        let folder = temp_dir();
        let mut server = Server::start(stand_in(&folder), &[]);
        server.arguments.push("refuse".to_owned());
        let log = server.try_restart().expect_err("refused");
        assert!(log.contains("refused: as asked"), "{log}");
    }
}
