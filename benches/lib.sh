# Shared by the benchmarks of this folder: several servers at a time, what they
# use of the machine, and the line that says how a figure stands to its bar.
# Source it, do not run it. Settings: scripts/lib.sh.

BENCHES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$BENCHES/../scripts/lib.sh"

# What the Python parts import.
export PYTHONPATH=$BENCHES${PYTHONPATH:+:$PYTHONPATH}

pids=()
dirs=()
missed=0

# Keeps every processor from sleeping until the benchmark ends, with loops that
# give way to anything else (SCHED_IDLE). On a machine that has nothing to do but
# answer one client, a wake-up costs more than most commands, and whatever else
# runs takes that cost away: latencies would fall under load.
keep_awake() {
  local _
  for _ in $(seq "$(nproc)"); do
    chrt --idle 0 bash -c 'while :; do :; done' &
    pids+=($!)
  done
}

# Ends every server that `launch` started, and removes what they wrote.
stop_all() {
  local pid
  for pid in "${pids[@]}"; do
    kill -KILL "$pid" 2>/dev/null || true
    # Reaped here, the shell does not report it as killed.
    wait "$pid" 2>/dev/null || true
  done
  if [[ ${#dirs[@]} -gt 0 ]]; then rm -rf "${dirs[@]}"; fi
  pids=()
  dirs=()
  # One that did not get as far as to be ours.
  stop_server
}
trap stop_all EXIT

# launch NAME KIND [FLAG…]: a server beside those that run already. Sets
# NAME_pid, NAME_port and NAME_dir.
launch() {
  local name=$1
  shift
  start_server "$@"
  pids+=("$SERVER_PID")
  dirs+=("$SERVER_DIR")
  if [[ -n ${SERVER_CPU:-} ]]; then taskset -a -p -c "$SERVER_CPU" "$SERVER_PID" >/dev/null; fi
  printf -v "${name}_pid" %s "$SERVER_PID"
  printf -v "${name}_port" %s "$PORT"
  printf -v "${name}_dir" %s "$SERVER_DIR"
}

# Starts an etcd and sets etcd_port; fails where there is none.
launch_etcd() {
  command -v etcd >/dev/null || return 1
  etcd_port=$(free_port)
  local peers dir
  peers=$(free_port)
  dir=$(mktemp -d)
  dirs+=("$dir")
  etcd --data-dir "$dir" --max-txn-ops 10000 --log-level error --listen-client-urls "http://$HOST:$etcd_port" \
    --advertise-client-urls "http://$HOST:$etcd_port" --listen-peer-urls "http://$HOST:$peers" \
    --initial-advertise-peer-urls "http://$HOST:$peers" --initial-cluster "default=http://$HOST:$peers" >"$dir.log" 2>&1 &
  pids+=($!)
  dirs+=("$dir.log")
  local _
  for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/$HOST/$etcd_port") 2>/dev/null; then return 0; fi
    sleep 0.1
  done
  die "etcd did not answer on port $etcd_port"
}

# bar NAME RATIO at-most|at-least LIMIT: the line that a benchmark is for.
bar() {
  printf 'bar: %s ratio %s (limit %s %s)\n' "$1" "$2" "$3" "$4"
  awk -v r="$2" -v w="$3" -v l="$4" 'BEGIN { exit w == "at-most" ? r > l : r < l }' || missed=1
}

# The exit status of a benchmark: 1 when a bar was missed.
finish() {
  exit "$missed"
}

# The quotient of two numbers, to three places.
ratio() {
  awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f\n", a / b }'
}

# CPU seconds of a process's threads with this name.
thread_seconds() {
  local task sum=0
  for task in /proc/"$1"/task/*; do
    [[ $(<"$task/comm") == "$2" ]] || continue
    sum=$(awk -v a="$sum" -v b="$(sed 's/^.*) //' "$task/stat" | awk -v hz="$(getconf CLK_TCK)" '{ print ($12 + $13) / hz }')" 'BEGIN { print a + b }')
  done
  printf '%s\n' "$sum"
}

resident_bytes() {
  awk '/^VmRSS:/ { print $2 * 1024 }' "/proc/$1/status"
}

# Bytes that a process has handed to the kernel to be written to files.
written_bytes() {
  awk '/^write_bytes:/ { print $2 }' "/proc/$1/io"
}

# info PORT FIELD: a number of INFO.
info() {
  redis-cli -h "$HOST" -p "$1" info everything | tr -d '\r' | sed -n "s/^$2://p"
}

# fill PORT KEYS: strings of 32 bytes under keys of 16.
fill() {
  awk -v n="$2" 'BEGIN {
    for (i = 0; i < n; i++) printf "*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$32\r\nvalue:%026d\r\n", i, i
  }' | redis-cli -h "$HOST" -p "$1" --pipe >/dev/null
}

# sets PORT OPERATIONS KEYS [PIPELINE]: SETs of 32 bytes on random keys.
sets() {
  ${LOAD_CPU:+taskset -c "$LOAD_CPU"} redis-benchmark -h "$HOST" -p "$1" -t set -P "${4:-16}" -n "$2" -c 50 -r "$3" -d 32 -q >/dev/null
}
