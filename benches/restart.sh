#!/usr/bin/env bash
# What the archive costs and gives, beside redis-server in the same minute.
#
#   scripts/bench-archive.sh              everything, with a million keys
#   KEYS=5000000 scripts/bench-archive.sh restart
#   PARTS="cost sets" OPERATIONS=20000000 scripts/bench-archive.sh
#
# cost     CPU of the archive's thread as a share of what serving the same
#          pipelined SETs costs, without and with history (bars: 0.5 and 1.0)
# sets     CPU per SET with everything on, beside redis-server with its
#          append-only file, everysec and automatic rewrites
# restart  seconds from the start of the process to its first answer, beside
#          redis-server that loads the same keys from its RDB file; bytes on
#          disk per key
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

PARTS=${*:-${PARTS:-cost sets restart}}
KEYS=${KEYS:-1000000}
# Several batches of the archive, so that compaction has its part.
OPERATIONS=${OPERATIONS:-16000000}

need redis-benchmark redis-cli

# CPU seconds of the threads with this name.
thread_seconds() {
  local task sum=0
  for task in /proc/"$1"/task/*; do
    [[ $(<"$task/comm") == "$2" ]] || continue
    sum=$(awk -v a="$sum" -v b="$(sed 's/^.*) //' "$task/stat" | awk -v hz="$(getconf CLK_TCK)" '{ print ($12 + $13) / hz }')" 'BEGIN { print a + b }')
  done
  printf '%s\n' "$sum"
}

load_sets() {
  redis-benchmark -h "$HOST" -p "$PORT" -t set -P 16 -n "$OPERATIONS" -c 50 -r "$KEYS" -d 32 -q >/dev/null
}

cost() {
  local keep archive all
  for keep in 0 24h; do
    ALCID_STORAGE_HISTORY_KEEP=$keep start_server alcid
    load_sets
    redis-cli -p "$PORT" SAVE >/dev/null
    archive=$(thread_seconds "$SERVER_PID" archive)
    all=$(cpu_seconds "$SERVER_PID")
    awk -v a="$archive" -v s="$all" -v n="$OPERATIONS" -v k="$keep" 'BEGIN {
      printf "history_keep %-4s serving %.3f us/SET  archive %.3f us/SET  ratio %.2f\n", k, (s - a) * 1e6 / n, a * 1e6 / n, a / (s - a) }'
    stop_server
  done
}

sets() {
  local kind cpu
  for kind in alcid redis; do
    if [[ $kind == redis ]]; then start_server redis --appendonly yes; else start_server alcid; fi
    load_sets
    cpu=$(cpu_seconds "$SERVER_PID")
    awk -v k="$kind" -v c="$cpu" -v n="$OPERATIONS" 'BEGIN { printf "%-6s %.3f us of CPU per SET, log and archive included\n", k, c * 1e6 / n }'
    stop_server
  done
}

# Fills a server with $KEYS strings of 32 bytes.
fill() {
  redis-cli -p "$PORT" --pipe >/dev/null < <(awk -v n="$KEYS" 'BEGIN {
    for (i = 0; i < n; i++) printf "*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$32\r\n%032d\r\n", i, i }')
}

# Milliseconds until a server that is starting answers a GET.
first_answer() {
  python3 - "$HOST" "$PORT" <<'PY'
import socket, sys, time
began = time.monotonic()
while True:
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as s:
            s.sendall(b"GET key:000000000007\r\n")
            if s.recv(100).startswith(b"$32"):
                break
    except OSError:
        pass
    time.sleep(0.002)
print(round((time.monotonic() - began) * 1000))
PY
}

restart() {
  local kind dir bytes ms
  for kind in alcid redis; do
    start_server "$kind"
    fill
    redis-cli -p "$PORT" SAVE >/dev/null
    kill -KILL "$SERVER_PID"
    wait "$SERVER_PID" 2>/dev/null || true
    dir=$SERVER_DIR
    if [[ $kind == alcid ]]; then
      bytes=$(du -sb "$dir/data/archive" | cut -f1)
      "$ALCID_BIN" server --port "$PORT" --data-dir "$dir/data" >"$dir/again.log" 2>&1 &
    else
      bytes=$(stat -c %s "$dir/dump.rdb")
      redis-server --port "$PORT" --dir "$dir" --save "" --daemonize no >"$dir/again.log" 2>&1 &
    fi
    SERVER_PID=$!
    ms=$(first_answer)
    awk -v k="$kind" -v n="$KEYS" -v ms="$ms" -v b="$bytes" 'BEGIN {
      printf "%-6s %d keys: first answer after %.3f s, %.1f bytes on disk per key\n", k, n, ms / 1000, b / n }'
    stop_server
  done
}

prepare_server
for part in $PARTS; do
  case $part in
    cost | sets | restart) "$part" ;;
    *) die "PARTS=$part: expected cost, sets or restart" ;;
  esac
done
