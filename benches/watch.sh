#!/usr/bin/env bash
# What WATCHFROM gives and costs.
#
#   benches/watch.sh                      all parts
#   benches/watch.sh latency              or one: latency, idle, behind
#   MESSAGES=50000 RATE=2000 benches/watch.sh latency
#   SERVER_FLAGS="--aof-fsync always" benches/watch.sh latency
#
# watch-latency  how long after it is sent a change (SET) is heard of, beside a
#                message (PUBLISH): their p99 (bar: 1.5). The two take turns, one
#                every 1/RATE s, as often as MESSAGES each, while another client
#                writes LOAD keys a second that nobody watches, so that the log
#                is never idle. One clock of one process sees both ends
# watch-idle-*   SETs per CPU second of the server with IDLE watches, half of
#                them of keys and half of prefixes that nobody writes, beside none
#                (bar: 0.95), at each of PIPELINES; medians of ROUNDS in turns
# watch-behind   seconds from asking for all changes to having the last of EVENTS
#                of them, beside etcd's watch from revision 1 (bar: 1); left out
#                where there is no etcd. Both are read as bytes and not decoded:
#                RESP, and gRPC over HTTP/2 without its JSON gateway. etcd gets
#                PUTS_PER_TXN puts a transaction, or it would take minutes to fill
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

MESSAGES=${MESSAGES:-10000}
RATE=${RATE:-1000}
LOAD=${LOAD:-2000}
IDLE=${IDLE:-10000}
ROUNDS=${ROUNDS:-5}
PIPELINES=${PIPELINES:-1 16}
OPERATIONS_UNPIPELINED=${OPERATIONS_UNPIPELINED:-200000}
OPERATIONS_PIPELINED=${OPERATIONS_PIPELINED:-1000000}
EVENTS=${EVENTS:-1000000}
PUTS_PER_TXN=${PUTS_PER_TXN:-500}
SERVER_FLAGS=${SERVER_FLAGS:---aof-fsync everysec}

latency() {
  python3 - "$HOST" "$server_port" "$MESSAGES" "$RATE" "$LOAD" <<'PY'
import os, signal, sys, time

from resp import Client, bar, finish, median, percentile

host, port = sys.argv[1:3]
messages, rate, load = map(int, sys.argv[3:6])


def write_what_nobody_watches():
    client, n, began = Client(host, port), 0, time.perf_counter()
    while True:
        client.pipeline([("SET", f"noise:{(n + i) % 1000}", "x" * 32) for i in range(10)])
        n += 10
        time.sleep(max(0, began + n / load - time.perf_counter()))


noise = os.fork() if load else None
if noise == 0:
    write_what_nobody_watches()
try:
    writer, watcher, subscriber = (Client(host, port) for _ in range(3))
    watcher.call("WATCHFROM", "NOW", "KEY", "heard", "NEW")
    subscriber.call("SUBSCRIBE", "heard")
    ways = [("PUBLISH", "PUBLISH", subscriber), ("WATCHFROM", "SET", watcher)]
    took = {name: [] for name, _, _ in ways}
    due = time.perf_counter()
    for n in range(2 * messages):
        due = max(due + 1 / rate, time.perf_counter() - 1 / rate)
        time.sleep(max(0, due - time.perf_counter()))
        name, word, listener = ways[n % 2]
        text = b"m%09d" % n
        request, end = writer.encode(word, "heard", text), text + b"\r\n"
        data = b""
        began = time.perf_counter_ns()
        writer.socket.sendall(request)
        while not data.endswith(end):
            data += listener.socket.recv(65536)
        took[name].append((time.perf_counter_ns() - began) / 1000)
        writer.reply()
finally:
    if noise:
        os.kill(noise, signal.SIGKILL)
for name, times in took.items():
    # The first ones find everything cold.
    took[name] = times = times[len(times) // 10:]
    shares = " ".join(f"p{share * 100:g} {percentile(times, share):8.1f}" for share in (0.5, 0.9, 0.99, 0.999))
    print(f"{name:10} {shares} us, {len(times)} heard", flush=True)
print(f"ratio of p50 {median(took['WATCHFROM']) / median(took['PUBLISH']):.3f}")
bar("watch-latency", percentile(took["WATCHFROM"], 0.99) / percentile(took["PUBLISH"], 0.99), "at-most", 1.5)
finish()
PY
}

# Opens the idle watches and keeps them until `let_go`.
hold() {
  exec {held}< <(python3 - "$HOST" "$server_port" "$IDLE" <<'PY'
import signal, sys

from resp import Client

host, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
clients = []
for first in range(0, count, 500):
    client = Client(host, port)
    numbers = range(first, min(first + 500, count))
    client.pipeline(("WATCHFROM", "NOW", ("KEY", "PREFIX")[n % 2], f"idle:{n}") for n in numbers)
    clients.append(client)
print("held", flush=True)
signal.pause()
PY
  )
  holder=$!
  local line
  read -r line <&"$held" && [[ $line == held ]] || die "the watches could not be opened"
}

let_go() {
  kill "$holder"
  exec {held}<&-
  while [[ $(info "$server_port" watches) != 0 ]]; do sleep 0.05; done
}

# The server's CPU seconds for so many SETs at a pipeline.
cost() {
  local before
  before=$(cpu_seconds "$server_pid")
  sets "$server_port" "$2" 100000 "$1"
  awk -v a="$before" -v b="$(cpu_seconds "$server_pid")" 'BEGIN { print b - a }'
}

idle() {
  local pipeline operations round mode results
  results=$(mktemp -d)
  dirs+=("$results")
  sets "$server_port" 300000 100000 16
  for pipeline in $PIPELINES; do
    operations=$OPERATIONS_PIPELINED
    if [[ $pipeline -eq 1 ]]; then operations=$OPERATIONS_UNPIPELINED; fi
    rm -f "$results"/*
    for round in $(seq "$ROUNDS"); do
      # Neither is always the first.
      for mode in $([[ $((round % 2)) -eq 0 ]] && echo with without || echo without with); do
        if [[ $mode == with ]]; then hold; fi
        cost "$pipeline" "$operations" >>"$results/$mode"
        if [[ $mode == with ]]; then let_go; fi
      done
    done
    awk -v p="$pipeline" -v n="$operations" -v k="$IDLE" -v a="$(median <"$results/without")" -v b="$(median <"$results/with")" \
      'BEGIN { printf "SET pipeline %-3d %.3f us of CPU without watches, %.3f us with %d idle ones\n", p, a * 1e6 / n, b * 1e6 / n, k }'
    bar "watch-idle-pipeline-$pipeline" "$(ratio "$(median <"$results/without")" "$(median <"$results/with")")" at-least 0.95
  done
}

behind() {
  local etcd_port=0 etcd_pid=0
  if launch_etcd; then etcd_pid=${pids[-1]}; fi
  launch fresh alcid $SERVER_FLAGS
  python3 - "$HOST" "$fresh_port" "$fresh_pid" "$etcd_port" "$etcd_pid" "$EVENTS" "$PUTS_PER_TXN" <<'PY'
import base64, http.client, json, os, socket, struct, sys, time

from resp import Client, bar, finish, median

host, port, pid, etcd_port, etcd_pid = sys.argv[1:6]
events, puts_per_txn = map(int, sys.argv[6:8])
LAST = b"the-last-one-of-all"


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_on(connection, request):
    """Seconds until the last event is there, and bytes."""
    tail, count = b"", 0
    began = time.perf_counter()
    connection.sendall(request)
    while True:
        data = connection.recv(1 << 20)
        if not data:
            sys.exit("watch.sh: the server closed the connection")
        count += len(data)
        if LAST in tail + data:
            return time.perf_counter() - began, count
        tail = data[-len(LAST):]


def measure(name, pid, open_watch):
    """The median of three times, after one that warms caches."""
    all_took = []
    for _ in range(4):
        connection, request = open_watch()
        cpu = cpu_seconds(pid)
        took, count = read_on(connection, request)
        all_took.append((took, cpu_seconds(pid) - cpu))
        connection.close()
    took, cpu = (median(values) for values in zip(*all_took[1:]))
    print(f"{name:6} {took:6.3f} s, {took * 1e6 / events:.2f} us an event, {cpu:.2f} s of its CPU, {count >> 20} MiB", flush=True)
    return took


def key(n):
    return LAST if n == events - 1 else b"key:%08d" % (n % 100000)


client = Client(host, port)
client.pipeline((("SET", key(n), b"value:%026d" % n) for n in range(events)), at_once=1000)
client.call("SAVE")


def watch_alcid():
    return Client(host, port).socket, Client.encode("WATCHFROM", "r:1", "NEW")


took = measure("alcid", pid, watch_alcid)
if etcd_port == "0":
    print("no etcd to compare with")
    sys.exit()

etcd = http.client.HTTPConnection(host, int(etcd_port))
for first in range(0, events, puts_per_txn):
    puts = [
        {"requestPut": {"key": base64.b64encode(key(n)).decode(), "value": base64.b64encode(b"value:%026d" % n).decode()}}
        for n in range(first, min(events, first + puts_per_txn))
    ]
    etcd.request("POST", "/v3/kv/txn", json.dumps({"success": puts}))
    answer = etcd.getresponse()
    if answer.status != 200:
        sys.exit(f"watch.sh: etcd answers {answer.read()!r}")
    answer.read()


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def field(number, value):
    """Of protobuf: bytes, or a number below 128."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def watch_etcd():
    connection = socket.create_connection((host, int(etcd_port)))
    header = b"".join(
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in [
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/etcdserverpb.Watch/Watch"),
            (b":authority", b"localhost"), (b"content-type", b"application/grpc"), (b"te", b"trailers"),
        ]
    )
    # Windows that take everything, and frames as large as there may be.
    window = 2**31 - 1
    settings = struct.pack(">HIHI", 4, window, 5, 2**24 - 1)
    # WatchRequest { create_request { key: "\0", range_end: "\0", start_revision: 1 } }
    create = field(1, field(1, b"\0") + field(2, b"\0") + field(3, 1))
    request = (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, settings)
        + frame(8, 0, 0, struct.pack(">I", window - 65535)) + frame(4, 1, 0, b"")
        + frame(1, 4, 1, header) + frame(0, 0, 1, b"\0" + struct.pack(">I", len(create)) + create)
    )
    return connection, request


bar("watch-behind", took / measure("etcd", etcd_pid, watch_etcd), "at-most", 1)
finish()
PY
}

part=${1:-all}
case $part in all | latency | idle | behind) ;; *) die "$part: expected latency, idle or behind" ;; esac
need redis-benchmark redis-cli
prepare_server
if [[ $part != behind ]]; then
  # shellcheck disable=SC2086 # flags are documented to split at spaces
  launch server alcid $SERVER_FLAGS
fi
keep_awake
if [[ $part == all || $part == latency ]]; then latency || missed=1; fi
if [[ $part == all || $part == idle ]]; then idle; fi
if [[ $part == all || $part == behind ]]; then behind || missed=1; fi
finish
