#!/usr/bin/env bash
# What WATCHFROM gives and costs: how long after it is made a change is told,
# beside PUBLISH, and SET throughput with and without idle watches.
#
#   scripts/bench-watch.sh                    both parts
#   scripts/bench-watch.sh latency            or one
#   IDLE=10000 RUNS=9 scripts/bench-watch.sh idle
#   SERVER_FLAGS="--aof-fsync always" scripts/bench-watch.sh latency
#
# Latency: a client writes (SET, or PUBLISH) and another hears of it, one at a
# time, as often as MESSAGES; the time is from before the write is sent to after
# the push has arrived, by one clock in one process. A third client writes keys
# that nobody watches at LOAD commands a second (default 2000; 0 for none), so
# that the log is never idle. The two take turns. LATENCY_BAR (default 1.5) is
# the most that WATCHFROM's p99 may be of PUBLISH's.
# Idle: IDLE watches, half of them of keys and half of prefixes that nobody
# writes, on connections of 500 each. The loads with and without them take
# turns; the table shows medians of operations a second. IDLE_BAR (default 0.95)
# is the least that the ratio may be.
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

RUNS=${RUNS:-7}
MESSAGES=${MESSAGES:-5000}
LOAD=${LOAD:-2000}
IDLE=${IDLE:-10000}
PIPELINES=${PIPELINES:-1 16}
CLIENTS=${CLIENTS:-50}
SERVER_FLAGS=${SERVER_FLAGS:---aof-fsync everysec}
LATENCY_BAR=${LATENCY_BAR:-1.5}
IDLE_BAR=${IDLE_BAR:-0.95}
OPERATIONS_UNPIPELINED=${OPERATIONS_UNPIPELINED:-200000}
OPERATIONS_PIPELINED=${OPERATIONS_PIPELINED:-2000000}

results=$(mktemp -d)
holder=
trap 'let_go; stop_server; rm -rf "$results"' EXIT

# Prints p50 and p99 of both in microseconds; fails above the bar.
latency() {
  python3 - "$HOST" "$PORT" "$MESSAGES" "$LOAD" "$LATENCY_BAR" <<'PY'
import socket, sys, threading, time

host, port, messages, load, bar = sys.argv[1], *map(float, sys.argv[2:])
port, messages = int(port), int(messages)

def connect():
    s = socket.create_connection((host, port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s

def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)

def until(s, ending):
    data = b""
    while not data.endswith(ending):
        got = s.recv(65536)
        if not got:
            sys.exit("the server closed the connection")
        data += got
    return data

def background(stop):
    s, n = connect(), 0
    while not stop.wait(1 / load * 10):
        s.sendall(b"".join(command(b"SET", b"noise:%d" % ((n + i) % 1000), b"x" * 32) for i in range(10)))
        left = 10
        while left:
            left -= s.recv(4096).count(b"+OK\r\n")
        n += 10

writer, watcher, subscriber = connect(), connect(), connect()
watcher.sendall(command(b"WATCHFROM", b"NOW", b"KEY", b"heard", b"NEW"))
until(watcher, b"\r\n")
subscriber.sendall(command(b"SUBSCRIBE", b"heard"))
until(subscriber, b":1\r\n")
times = {"PUBLISH": [], "WATCHFROM": []}
stop = threading.Event()
noise = threading.Thread(target=background, args=(stop,), daemon=True)
if load:
    noise.start()
for n in range(2 * messages):
    name, word, listener = (("PUBLISH", b"PUBLISH", subscriber), ("WATCHFROM", b"SET", watcher))[n % 2]
    text = b"m%09d" % n
    began = time.perf_counter()
    writer.sendall(command(word, b"heard", text))
    until(listener, b"\r\n%s\r\n" % text)
    times[name].append((time.perf_counter() - began) * 1e6)
    writer.recv(4096)
stop.set()
p99 = {}
for name, all_times in times.items():
    # The first ones find everything cold.
    warm = sorted(all_times[len(all_times) // 10:])
    p99[name] = warm[int(len(warm) * 0.99)]
    print(f"{name:<10} p50 {warm[len(warm) // 2]:8.1f} us   p99 {p99[name]:8.1f} us   {len(warm)} messages")
ratio = p99["WATCHFROM"] / p99["PUBLISH"]
print(f"ratio of p99 {ratio:.2f}, bar {bar}")
sys.exit(ratio > bar)
PY
}

# Opens the idle watches and keeps them until `let_go`.
hold() {
  python3 - "$HOST" "$PORT" "$IDLE" >"$results/held" <<'PY' &
import signal, socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
connections = []
for first in range(0, count, 500):
    s = socket.create_connection((host, port))
    numbers = range(first, min(first + 500, count))
    s.sendall(b"".join(
        b"WATCHFROM NOW %s idle:%d\r\n" % ((b"KEY", b"PREFIX")[n % 2], n) for n in numbers))
    data = b""
    while data.count(b"*2\r\n") < len(numbers) or not data.endswith(b"\r\n"):
        data += s.recv(65536)
        if b"-" in data:
            sys.exit(data[data.index(b"-"):].split(b"\r\n")[0].decode())
    connections.append(s)
print("held", flush=True)
signal.pause()
PY
  holder=$!
  until grep -q held "$results/held"; do
    kill -0 "$holder" 2>/dev/null || die "the watches could not be opened"
    sleep 0.1
  done
}

let_go() {
  if [[ -n $holder ]]; then
    kill "$holder" 2>/dev/null || true
    wait "$holder" 2>/dev/null || true
    holder=
  fi
}

# Operations a second of one run.
measure() {
  local pipeline=$1 operations=$2 began ended
  began=$(date +%s%N)
  "$ALCID_BIN" bench -a "$HOST:$PORT" -t set -P "$pipeline" -n "$operations" -c "$CLIENTS" -r 100000 -d 32 -q >/dev/null
  ended=$(date +%s%N)
  awk -v n="$operations" -v ns=$((ended - began)) 'BEGIN { printf "%.0f\n", n * 1e9 / ns }'
}

# Prints a line of the table; fails when the ratio is below the bar.
idle() {
  local pipeline=$1 operations=$2 run mode
  rm -f "$results"/with "$results"/without
  for run in $(seq "$RUNS"); do
    # Neither is always the first.
    for mode in $([[ $((run % 2)) -eq 0 ]] && echo with without || echo without with); do
      if [[ $mode == with ]]; then hold; fi
      measure "$pipeline" "$operations" >>"$results/$mode"
      let_go
    done
  done
  awk -v p="$pipeline" -v n="$IDLE" -v off="$(median <"$results/without")" -v on="$(median <"$results/with")" \
    -v bar="$IDLE_BAR" 'BEGIN {
      printf "SET pipeline %-3d  no watches %9.0f op/s   %d idle %9.0f op/s   ratio %.3f\n", p, off, n, on, on / off
      exit on / off < bar
    }'
}

main() {
  local part=${1:-all} pipeline operations status=0
  case $part in all | latency | idle) ;; *) die "$part: expected latency or idle" ;; esac
  need python3 awk
  SERVER=alcid prepare_server
  # shellcheck disable=SC2086 # flags are documented to split at spaces
  start_server alcid $SERVER_FLAGS
  if [[ $part != idle ]]; then
    latency || status=1
  fi
  if [[ $part != latency ]]; then
    # Keys are there, so that no run pays for making them.
    measure 16 "$((OPERATIONS_PIPELINED / 2))" >/dev/null
    for pipeline in $PIPELINES; do
      operations=$OPERATIONS_PIPELINED
      if [[ $pipeline -eq 1 ]]; then operations=$OPERATIONS_UNPIPELINED; fi
      idle "$pipeline" "$operations" || status=1
    done
  fi
  return "$status"
}

main "$@"
