#!/usr/bin/env bash
# Deleting keys where memory is full: what it costs, and whether the right ones
# go, beside redis-server with the same policy.
#
#   benches/eviction.sh
#   KEYS=100000 RUNS=9 POLICIES="allkeys-lru" benches/eviction.sh
#
# Both servers may hold about KEYS keys of 32 bytes and are asked in turn; both
# log (Redis with its append-only file, both with a sync every second).
#
# Cost: SETs of new keys at pipeline 16, each of which lets another key go, and
# SETs of the same keys again, for which nothing goes. CPU is microseconds per SET
# of the process, and of Alcid also without the thread that keeps its archive and
# its history (serving), which Redis has nothing to compare with: the bar is on that.
#
# Choice: a cache before something slow. Keys are asked for by Zipf's law out of
# ten times as many as there is room for, and set where they are missing; the
# ratio is that of the misses.
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

KEYS=${KEYS:-200000}
RUNS=${RUNS:-5}
OPERATIONS=${OPERATIONS:-1000000}
READS=${READS:-600000}
EXPONENT=${EXPONENT:-1.0}
POLICIES=${POLICIES:-allkeys-lru allkeys-lfu allkeys-random}

# limit PORT POLICY: empties a server and lets it hold KEYS keys.
limit() {
  local used=used_memory full
  redis-cli -h "$HOST" -p "$1" config set maxmemory 0 >/dev/null
  redis-cli -h "$HOST" -p "$1" flushall >/dev/null
  if [[ $1 == "$alcid_port" ]]; then used=used_memory_dataset; fi
  fill "$1" "$KEYS"
  full=$(info "$1" "$used")
  redis-cli -h "$HOST" -p "$1" config set maxmemory "$full" maxmemory-policy "$2" >/dev/null
}

# cpu_of PID COMMAND…: microseconds of its CPU per operation while that runs, all
# and without the archive's thread.
cpu_of() {
  local pid=$1 before archive
  shift
  before=$(cpu_seconds "$pid") archive=$(thread_seconds "$pid" archive)
  "$@"
  awk -v a="$before" -v b="$(cpu_seconds "$pid")" -v c="$archive" -v d="$(thread_seconds "$pid" archive)" \
    -v n="$OPERATIONS" 'BEGIN { all = (b - a) * 1e6 / n; printf "%.4f %.4f\n", all, all - (d - c) * 1e6 / n }'
}

cost() {
  local policy=$1 results kind run pid port
  results=$(mktemp -d)
  dirs+=("$results")
  for kind in redis alcid; do
    port=${kind}_port
    limit "${!port}" "$policy"
    # Full of keys of the load's own before the clock runs.
    sets "${!port}" "$((KEYS * 2))" 100000000
  done
  for run in $(seq "$RUNS"); do
    for kind in redis alcid; do
      pid=${kind}_pid port=${kind}_port
      cpu_of "${!pid}" sets "${!port}" "$OPERATIONS" 100000000 >>"$results/$kind.evicting"
      cpu_of "${!pid}" sets "${!port}" "$OPERATIONS" "$((KEYS / 10))" >>"$results/$kind.again"
    done
  done
  local what redis alcid serving
  for what in evicting again; do
    redis=$(awk '{ print $1 }' "$results/redis.$what" | median)
    alcid=$(awk '{ print $1 }' "$results/alcid.$what" | median)
    serving=$(awk '{ print $2 }' "$results/alcid.$what" | median)
    printf '%-15s SET %-9s redis %6.3f us   alcid %6.3f us, serving %6.3f us\n' \
      "$policy" "$what" "$redis" "$alcid" "$serving"
    if [[ $what == evicting ]]; then bar "evict-cpu-$policy" "$(ratio "$serving" "$redis")" at-most 1.0; fi
  done
}

choice() {
  local policy=$1
  limit "$redis_port" "$policy"
  limit "$alcid_port" "$policy"
  python3 - "$HOST" "$redis_port" "$alcid_port" "$policy" "$KEYS" "$READS" "$EXPONENT" <<'PY'
import bisect, itertools, random, sys

from resp import Client, bar, finish

host, ports, policy = sys.argv[1], sys.argv[2:4], sys.argv[4]
keys, reads, exponent = int(sys.argv[5]), int(sys.argv[6]), float(sys.argv[7])
sums = list(itertools.accumulate(1 / rank**exponent for rank in range(1, keys * 10 + 1)))


def asked_for(rng):
    return bisect.bisect_left(sums, rng.random() * sums[-1])


def misses(client):
    rng, missed = random.Random(1), 0
    for turn in range(0, reads * 2, 100):
        names = [f"z{asked_for(rng)}" for _ in range(100)]
        absent = [name for name, value in zip(names, client.call("MGET", *names)) if value is None]
        client.pipeline(("SET", name, "value:%026d" % 0) for name in absent)
        # The first half of the reads fills it.
        missed += len(absent) if turn >= reads else 0
    return missed / reads


shares = {}
for kind, port in zip(("redis", "alcid"), ports):
    client = Client(host, port)
    shares[kind] = misses(client)
    print(f"{policy:15} {kind}: {shares[kind]:.4f} of {reads} reads missed, {client.call('DBSIZE')} keys")
bar(f"evict-misses-{policy}", shares["alcid"] / shares["redis"], "at-most", 1.05)
finish()
PY
}

main() {
  need redis-server redis-benchmark redis-cli python3 awk
  SERVER=alcid prepare_server
  launch redis redis --appendonly yes --appendfsync everysec
  launch alcid alcid
  local policy
  for policy in $POLICIES; do
    cost "$policy"
    choice "$policy" || missed=1
  done
  finish
}

main "$@"
