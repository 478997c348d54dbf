#!/usr/bin/env bash
# What WHATIF costs beside the command that it tries.
#
#   scripts/bench-whatif.sh               DEL and MSET of 1, 100, 1000 keys; FLUSHALL of a million
#   KEYS=10000000 RUNS=500 scripts/bench-whatif.sh
#
# One client asks one command after another; the two take turns, so that what
# else the machine does hits both alike. The table shows the medians, client and
# loopback included, and the ratio of WHATIF to the command. The script fails
# when a ratio is above BAR (default 1.5), or WHATIF FLUSHALL takes more than
# FLUSH_MS milliseconds (default 10).
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

RUNS=${RUNS:-300}
KEYS=${KEYS:-1000000}
VALUE_BYTES=${VALUE_BYTES:-32}
BAR=${BAR:-1.5}
FLUSH_MS=${FLUSH_MS:-10}

trap stop_server EXIT
SERVER=alcid prepare_server
start_server alcid --no-log
python3 - "$HOST" "$PORT" "$RUNS" "$KEYS" "$VALUE_BYTES" "$BAR" "$FLUSH_MS" <<'PY'
import socket, statistics, sys, time

host, port = sys.argv[1], int(sys.argv[2])
runs, keys, value_bytes = map(int, sys.argv[3:6])
bar, flush_ms = map(float, sys.argv[6:8])
connection = socket.create_connection((host, port))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
replies = connection.makefile("rb")


def encode(*words):
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(parts)


def read():
    line = replies.readline()
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        sys.exit(f"the server answers {rest.decode()}")
    if kind == b"$":
        return None if rest == b"-1" else replies.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return [read() for _ in range(int(rest))]
    return int(rest) if kind == b":" else rest


def ask(request):
    began = time.perf_counter()
    connection.sendall(request)
    reply = read()
    return time.perf_counter() - began, reply


# To take a long reply apart costs this client more than the server: it is not
# looked at, and ends where that of a PING does.
def measure(request):
    began = time.perf_counter()
    connection.sendall(request + b"*1\r\n$4\r\nPING\r\n")
    tail = b""
    while not tail.endswith(b"+PONG\r\n"):
        tail = tail[-16:] + connection.recv(1 << 20)
    return time.perf_counter() - began


value = b"v" * value_bytes
failed = False
for count in (1, 100, 1000):
    names = [f"key:{number}" for number in range(count)]
    fill = ["MSET"] + [word for name in names for word in (name, value)]
    for words in (["DEL", *names], ["MSET"] + [word for name in names for word in (name, b"w" * value_bytes)]):
        real, tried = encode(*words), encode("WHATIF", *words)
        took = {real: [], tried: []}
        for run in range(runs):
            for request in (real, tried) if run % 2 else (tried, real):
                ask(encode(*fill))
                took[request].append(measure(request))
        real_us, tried_us = (statistics.median(took[request]) * 1e6 for request in (real, tried))
        ratio = tried_us / real_us
        failed |= ratio > bar
        print(f"{words[0]:5} of {count:4} keys: {real_us:8.1f} us   WHATIF {tried_us:8.1f} us   ratio {ratio:.2f}")

batch = 1000
for first in range(0, keys, batch):
    ask(encode("MSET", *(word for number in range(first, first + batch) for word in (f"many:{number}", value))))
took = [ask(encode("WHATIF", "FLUSHALL")) for _ in range(20)]
reply = took[0][1]
total = reply[reply.index(b"keys_total") + 1]
if total < keys:
    sys.exit(f"WHATIF FLUSHALL tells of {total} keys, there are {keys}")
ms = statistics.median(seconds for seconds, _ in took) * 1e3
failed |= ms > flush_ms
print(f"FLUSHALL of {total} keys: WHATIF {ms:.2f} ms")
sys.exit(failed)
PY
