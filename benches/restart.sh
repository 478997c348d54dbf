#!/usr/bin/env bash
# Seconds from the start of a process, killed before, to its first answer,
# beside redis-server that loads the same keys from its RDB file.
#
#   benches/restart.sh                    a million keys of 16 bytes, values of 32
#   KEYS="1000000 5000000 20000000" benches/restart.sh
#
# restart-<keys>           seconds to one second (bar: 1.0)
# restart-<keys>-vs-redis  alcid to redis (bar: 1.0)
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

KEYS=${KEYS:-1000000}

# first_answer PORT BEGAN: milliseconds from BEGAN, nanoseconds since 1970, until
# a server that is starting answers a GET.
first_answer() {
  python3 - "$HOST" "$1" "$2" <<'PY'
import socket, sys, time
began_ns = int(sys.argv[3])
while True:
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as s:
            s.sendall(b"GET key:000000000007\r\n")
            if s.recv(100).startswith(b"$32"):
                break
    except OSError:
        pass
    time.sleep(0.002)
print(round((time.time_ns() - began_ns) / 1e6))
PY
}

# restart KIND KEYS: prints milliseconds, and bytes on disk.
restart() {
  local kind=$1 keys=$2 bytes pid began_ns
  launch one "$kind"
  fill "$one_port" "$keys"
  redis-cli -h "$HOST" -p "$one_port" SAVE >/dev/null
  kill -KILL "$one_pid"
  wait "$one_pid" 2>/dev/null || true
  if [[ $kind == alcid ]]; then
    bytes=$(du -sb "$one_dir/data/archive" | cut -f1)
    began_ns=$(date +%s%N)
    "$ALCID_BIN" server --port "$one_port" --data-dir "$one_dir/data" >"$one_dir/again.log" 2>&1 &
  else
    bytes=$(stat -c %s "$one_dir/dump.rdb")
    began_ns=$(date +%s%N)
    redis-server --port "$one_port" --dir "$one_dir" --save "" --daemonize no >"$one_dir/again.log" 2>&1 &
  fi
  pid=$!
  pids+=("$pid")
  printf -v "${kind}_ms" %s "$(first_answer "$one_port" "$began_ns")"
  printf -v "${kind}_bytes" %s "$bytes"
  stop_all
}

need redis-server redis-cli python3 awk
SERVER=alcid prepare_server
for keys in $KEYS; do
  restart alcid "$keys"
  restart redis "$keys"
  awk -v k="$keys" -v a="$alcid_ms" -v r="$redis_ms" -v ab="$alcid_bytes" -v rb="$redis_bytes" 'BEGIN {
    printf "%d keys: alcid %.3f s, %.1f bytes on disk per key; redis %.3f s, %.1f\n", k, a / 1000, ab / k, r / 1000, rb / k }'
  bar "restart-$keys" "$(ratio "$alcid_ms" 1000)" at-most 1
  bar "restart-$keys-vs-redis" "$(ratio "$alcid_ms" "$redis_ms")" at-most 1
done
finish
