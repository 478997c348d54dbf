"""A server under test and connections to it, for the scripts of this folder."""

import os
import pathlib
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATIENCE_S = 60


class Closed(Exception):
    """The server went away."""


class Connection:
    """A client that speaks RESP2. An error is answered as a RuntimeError."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, commands):
        out = []
        for command in commands:
            out.append(b"*%d\r\n" % len(command))
            for word in command:
                word = str(word).encode()
                out.append(b"$%d\r\n%s\r\n" % (len(word), word))
        try:
            self.socket.sendall(b"".join(out))
        except OSError as error:
            raise Closed from error

    def reply(self):
        try:
            line = self.file.readline()
            if not line.endswith(b"\r\n"):
                raise Closed
            kind, rest = line[:1], line[1:-2]
            if kind == b"+":
                return rest.decode()
            if kind == b":":
                return int(rest)
            if kind == b"-":
                return RuntimeError(rest.decode())
            if kind == b"$":
                if int(rest) < 0:
                    return None
                body = self.file.read(int(rest) + 2)
                if len(body) != int(rest) + 2:
                    raise Closed
                return body[:-2].decode()
            if kind == b"*":
                return None if int(rest) < 0 else [self.reply() for _ in range(int(rest))]
        except OSError as error:
            raise Closed from error
        raise AssertionError(f"unknown reply {line!r}")

    def call(self, *command):
        self.send([command])
        return self.reply()


class Server:
    """A server whose data is in `folder/data`, and its log in `folder/server.log`.

    `settings` are variables of its environment.
    """

    def __init__(self, binary, folder, fsync="always", settings=None):
        self.binary = binary
        self.folder = folder
        self.fsync = fsync
        self.settings = settings or {}
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        self.process = None

    def start(self):
        if os.environ.get("SERVER", "alcid") == "redis":
            command = ["redis-server", "--port", self.port, "--dir", self.folder, "--save", "",
                       "--appendonly", "yes", "--appendfsync", self.fsync]
        else:
            command = [self.binary, "server", "--port", self.port,
                       "--data-dir", f"{self.folder}/data", "--aof-fsync", self.fsync,
                       *os.environ.get("ALCID_ARGS", "").split()]
        with open(f"{self.folder}/server.log", "ab") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log,
                                            env={**os.environ, **self.settings})

    def wait_ready(self):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                self.fail(f"the server ended with status {self.process.returncode} at start")
            try:
                if Connection(self.port).call("PING") == "PONG":
                    return
            except (OSError, Closed):
                pass
            time.sleep(0.01)
        self.fail(f"the server was not ready after {PATIENCE_S} s")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        status = self.process.wait(PATIENCE_S)
        if status != 0:
            self.fail(f"the server ended with status {status} when it was asked to")

    def fail(self, why):
        log = pathlib.Path(self.folder, "server.log").read_text(errors="replace")
        raise AssertionError(f"{why}; the end of its log:\n{log[-3000:]}")


def find_binary():
    """ALCID_BIN, or a release build of this checkout."""
    if os.environ.get("SERVER", "alcid") == "redis":
        return "redis-server"
    if "ALCID_BIN" in os.environ:
        return os.environ["ALCID_BIN"]
    subprocess.run(["cargo", "build", "--release", "--bin", "alcid"], cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return str(pathlib.Path(target, "release", "alcid"))
