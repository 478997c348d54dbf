#!/usr/bin/env bash
# What CLIENT REPLYREV ON costs: server CPU per operation with it and without
# it, over RESP3, on one server in the same minute.
#
#   benches/replyrev.sh             SET and GET at pipelines 1 and 16
#   RUNS=9 benches/replyrev.sh      more runs of each (default 7)
#   PIPELINES="1 16 64" TESTS="set get incr" benches/replyrev.sh
#   SERVER_FLAGS="--aof-fsync everysec" benches/replyrev.sh   with the log
#
# The two loads take turns, so that what else the machine does hits both alike.
# CPU is user and system time of the server process from /proc; the table shows
# the medians of the runs. The ratio is that of operations per CPU second, ON to
# OFF; the script fails when one is below BAR (default 0.95).
# SERVER_CPU pins the server and LOAD_CPU the load generator (taskset lists).
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

RUNS=${RUNS:-7}
PIPELINES=${PIPELINES:-1 16}
TESTS=${TESTS:-set get}
CLIENTS=${CLIENTS:-50}
# Without the log an operation is cheapest, and what is added to it shows most.
SERVER_FLAGS=${SERVER_FLAGS:---no-log}
BAR=${BAR:-0.95}
# Enough operations for a second or more of CPU, which the kernel counts in
# hundredths.
OPERATIONS_UNPIPELINED=${OPERATIONS_UNPIPELINED:-200000}
OPERATIONS_PIPELINED=${OPERATIONS_PIPELINED:-2000000}

results=$(mktemp -d)
trap 'stop_all; rm -rf "$results"' EXIT

# Microseconds of server CPU per operation in one run.
measure() {
  local mode=$1 test=$2 pipeline=$3 operations=$4 before after
  before=$(cpu_seconds "$server_pid")
  ${LOAD_CPU:+taskset -c "$LOAD_CPU"} "$ALCID_BIN" bench -a "$HOST:$server_port" -3 --setup "CLIENT REPLYREV $mode" \
    -t "$test" -P "$pipeline" -n "$operations" -c "$CLIENTS" -r 100000 -d 32 -q >/dev/null
  after=$(cpu_seconds "$server_pid")
  awk -v a="$before" -v b="$after" -v n="$operations" 'BEGIN { printf "%.4f\n", (b - a) * 1e6 / n }'
}

# Prints a line of the table, and the bar.
compare() {
  local test=$1 pipeline=$2 operations=$3 run mode
  rm -f "$results"/*
  for run in $(seq "$RUNS"); do
    # Neither is always the first.
    for mode in $([[ $((run % 2)) -eq 0 ]] && echo ON OFF || echo OFF ON); do
      measure "$mode" "$test" "$pipeline" "$operations" >>"$results/$mode"
    done
  done
  local off on
  off=$(median <"$results/OFF")
  on=$(median <"$results/ON")
  printf '%-6s pipeline %-3d  OFF %7.3f us/op   ON %7.3f us/op\n' "$test" "$pipeline" "$off" "$on"
  bar "replyrev-$test-pipeline-$pipeline" "$(ratio "$off" "$on")" at-least "$BAR"
}

main() {
  need python3 awk
  SERVER=alcid prepare_server
  # shellcheck disable=SC2086 # flags are documented to split at spaces
  launch server alcid $SERVER_FLAGS
  # Keys are there, so that no run pays for making them.
  "$ALCID_BIN" bench -a "$HOST:$server_port" -t set -P 16 -n 1000000 -c "$CLIENTS" -r 100000 -d 32 -q >/dev/null
  printf 'server CPU per operation, medians of %d runs, %d clients:\n' "$RUNS" "$CLIENTS"
  local pipeline test operations
  for pipeline in $PIPELINES; do
    operations=$([[ $pipeline -gt 1 ]] && echo "$OPERATIONS_PIPELINED" || echo "$OPERATIONS_UNPIPELINED")
    for test in $TESTS; do compare "$test" "$pipeline" "$operations"; done
  done
  finish
}

main "$@"
