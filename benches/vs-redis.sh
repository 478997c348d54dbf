#!/usr/bin/env bash
# Server CPU per operation and memory per key, beside redis-server on the same
# machine in the same minute, persistence off on both.
#
#   benches/vs-redis.sh             SET and GET at pipelines 1 and 16; memory
#   RUNS=9 benches/vs-redis.sh      more runs of each (default 5)
#   PIPELINES="1 16 64" TESTS="set get incr" benches/vs-redis.sh
#
# Both servers run all the time; redis-benchmark loads them in turn, so that
# what else the machine does hits both alike. CPU is user and system time of
# the server process from /proc; the table shows the medians of the runs.
# SERVER_CPU pins the servers and LOAD_CPU the load generator (taskset lists).
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

RUNS=${RUNS:-5}
PIPELINES=${PIPELINES:-1 16}
TESTS=${TESTS:-set get}
CLIENTS=${CLIENTS:-50}
KEYS=${KEYS:-1000000}
# Enough operations for a second or more of CPU, which the kernel counts in
# hundredths.
OPERATIONS_UNPIPELINED=${OPERATIONS_UNPIPELINED:-200000}
OPERATIONS_PIPELINED=${OPERATIONS_PIPELINED:-2000000}

load() {
  ${LOAD_CPU:+taskset -c "$LOAD_CPU"} redis-benchmark -h "$HOST" -p "$1" -t "$2" -P "$3" -n "$4" \
    -c "$CLIENTS" -r 100000 -d 32 -q >/dev/null
}

# Microseconds of server CPU per operation in one run.
measure() {
  local kind=$1 test=$2 pipeline=$3 operations=$4 pid=${1}_pid port=${1}_port before after
  before=$(cpu_seconds "${!pid}")
  load "${!port}" "$test" "$pipeline" "$operations"
  after=$(cpu_seconds "${!pid}")
  awk -v a="$before" -v b="$after" -v n="$operations" 'BEGIN { printf "%.4f\n", (b - a) * 1e6 / n }'
}

compare_cpu() {
  local test=$1 pipeline=$2 operations=$3 run kind results
  results=$(mktemp -d)
  dirs+=("$results")
  for run in $(seq "$RUNS"); do
    for kind in redis alcid; do
      measure "$kind" "$test" "$pipeline" "$operations" >>"$results/$kind"
    done
  done
  local redis alcid
  redis=$(median <"$results/redis")
  alcid=$(median <"$results/alcid")
  printf '%-6s pipeline %-3d  redis %7.3f us/op   alcid %7.3f us/op   ratio %s\n' \
    "$test" "$pipeline" "$redis" "$alcid" "$(ratio "$alcid" "$redis")"
}

# Bytes of resident memory per key for KEYS keys of 16 bytes with 32-byte values.
bytes_per_key() {
  local pid=${1}_pid port=${1}_port before after
  redis-cli -h "$HOST" -p "${!port}" flushall >/dev/null
  before=$(resident_bytes "${!pid}")
  fill "${!port}" "$KEYS"
  after=$(resident_bytes "${!pid}")
  awk -v a="$before" -v b="$after" -v n="$KEYS" 'BEGIN { printf "%.1f\n", (b - a) / n }'
}

main() {
  need redis-server redis-benchmark redis-cli python3 awk
  SERVER=alcid prepare_server
  local pipeline test operations redis alcid
  # Memory first, each in a process that has served nothing else.
  launch redis redis
  launch alcid alcid --no-log
  redis=$(bytes_per_key redis)
  alcid=$(bytes_per_key alcid)
  awk -v k="$KEYS" -v r="$redis" -v a="$alcid" \
    'BEGIN { printf "memory, %d keys of 16 B with 32 B values: redis %.1f B/key   alcid %.1f B/key   ratio %.2f\n", k, r, a, a / r }'
  stop_all
  launch redis redis
  launch alcid alcid --no-log
  printf 'server CPU per operation, medians of %d runs, %d clients:\n' "$RUNS" "$CLIENTS"
  for pipeline in $PIPELINES; do
    operations=$([[ $pipeline -gt 1 ]] && echo "$OPERATIONS_PIPELINED" || echo "$OPERATIONS_UNPIPELINED")
    for test in $TESTS; do compare_cpu "$test" "$pipeline" "$operations"; done
  done
}

main "$@"
