"""A client for the benchmarks: one connection, and times of single calls."""

import socket
import sys
import time


class Client:
    def __init__(self, host, port):
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    @staticmethod
    def encode(*words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            word = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
        return b"".join(parts)

    def reply(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            sys.exit(f"{sys.argv[0]}: {rest.decode()}")
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest
        sys.exit(f"{sys.argv[0]}: an answer that begins with {line[:40]!r}")

    def call(self, *words):
        self.socket.sendall(self.encode(*words))
        return self.reply()

    def pipeline(self, commands, at_once=500):
        """Runs commands, each a tuple of words, many in one go."""
        batch = []

        def flush():
            self.socket.sendall(b"".join(batch))
            for _ in batch:
                self.reply()
            batch.clear()

        for command in commands:
            batch.append(self.encode(*command))
            if len(batch) == at_once:
                flush()
        flush()

    def time(self, *words):
        """Microseconds that a call takes, and its reply."""
        request = self.encode(*words)
        began = time.perf_counter_ns()
        self.socket.sendall(request)
        reply = self.reply()
        return (time.perf_counter_ns() - began) / 1000, reply

    def time_unread(self, *words):
        """Microseconds until all of a reply is there, which is not looked at:
        to read a long one takes Python longer than the server to write it."""
        request = self.encode(*words) + self.encode("PING")
        tail = b""
        began = time.perf_counter_ns()
        self.socket.sendall(request)
        while tail != b"+PONG\r\n":
            tail = (tail + self.socket.recv(1 << 20))[-7:]
        return (time.perf_counter_ns() - began) / 1000

    def info(self):
        lines = self.call("INFO", "everything").decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def median(values):
    return percentile(values, 0.5)


missed = False


def bar(name, ratio, which, limit):
    """The line that a benchmark is for; `which` is at-most or at-least."""
    global missed
    print(f"bar: {name} ratio {ratio:.3f} (limit {which} {limit:g})", flush=True)
    missed |= ratio > limit if which == "at-most" else ratio < limit


def finish():
    """Ends the benchmark, with status 1 when a bar was missed."""
    sys.exit(1 if missed else 0)
