#!/usr/bin/env bash
# What keeping everything costs a stream of SETs: CPU of the server, with the
# log, the archive and the history, on one server after another.
#
#   benches/writes.sh                     4 million SETs of 32 bytes, 100,000 keys
#   OPERATIONS=16000000 KEYS=1000000 ROUNDS=5 benches/writes.sh
#
# history-throughput  operations per second that the clients get, with history to
#                     without (bar: 0.9)
# history-cpu         the same per CPU second of the whole server, archive
#                     included: what it is when nothing runs beside (bar: 0.9)
# archive-cost        CPU of the archive's thread to that of serving, without
#                     history and with it (bars: 0.5 and 1.0)
# set-vs-redis-aof    CPU per SET with everything on, beside redis-server with
#                     its append-only file, everysec and automatic rewrites
#                     (bar: 1.0)
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

OPERATIONS=${OPERATIONS:-4000000}
KEYS=${KEYS:-100000}
ROUNDS=${ROUNDS:-3}

results=$(mktemp -d)
trap 'stop_all; rm -rf "$results"' EXIT

# One round of a kind: CPU of all and of the archive, and time, in microseconds
# per SET.
round() {
  local kind=$1 all archive=0 began ended
  case $kind in
    redis) launch one redis --appendonly yes ;;
    off) ALCID_STORAGE_HISTORY_KEEP=0 launch one alcid ;;
    on) launch one alcid ;;
  esac
  began=$EPOCHREALTIME
  sets "$one_port" "$OPERATIONS" "$KEYS"
  ended=$EPOCHREALTIME
  if [[ $kind == redis ]]; then
    while [[ $(info "$one_port" aof_rewrite_in_progress) != 0 ]]; do sleep 0.2; done
  else
    redis-cli -h "$HOST" -p "$one_port" SAVE >/dev/null
    archive=$(thread_seconds "$one_pid" archive)
  fi
  # Redis rewrites its file in a child, which counts once it has ended.
  all=$(sed 's/^.*) //' "/proc/$one_pid/stat" | awk -v hz="$(getconf CLK_TCK)" '{ print ($12 + $13 + $14 + $15) / hz }')
  awk -v a="$all" -v b="$archive" -v t0="$began" -v t1="$ended" -v n="$OPERATIONS" \
    'BEGIN { print a * 1e6 / n, b * 1e6 / n, (t1 - t0) * 1e6 / n }' >>"$results/$kind"
  stop_all
}

of() {
  awk -v f="$2" '{ print $f }' "$results/$1" | median
}

need redis-server redis-benchmark redis-cli awk
SERVER=alcid prepare_server
for _ in $(seq "$ROUNDS"); do
  for kind in off on redis; do round "$kind"; done
done
for kind in off on redis; do
  printf '%-5s %s us per SET, %s us of CPU, %s of them of the archive\n' \
    "$kind" "$(of "$kind" 3)" "$(of "$kind" 1)" "$(of "$kind" 2)"
done
bar history-throughput "$(ratio "$(of off 3)" "$(of on 3)")" at-least 0.9
bar history-cpu "$(ratio "$(of off 1)" "$(of on 1)")" at-least 0.9
for kind in off on; do
  serving=$(awk -v a="$(of "$kind" 1)" -v b="$(of "$kind" 2)" 'BEGIN { print a - b }')
  limit=$([[ $kind == off ]] && echo 0.5 || echo 1)
  bar "archive-cost-history-$kind" "$(ratio "$(of "$kind" 2)" "$serving")" at-most "$limit"
done
bar set-vs-redis-aof "$(ratio "$(of on 1)" "$(of redis 1)")" at-most 1
finish
