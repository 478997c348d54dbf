#!/usr/bin/env bash
# Hot and cold reads of a data set ten times the memory it may take, beside a
# server that holds everything.
#
#   benches/tier.sh                 100 MiB of memory, 1 GiB of data
#   LIMIT_MB=32 READS=50000 benches/tier.sh
#
# Both servers hold the same keys and are asked in turn. One client asks one key
# after another, most of them of a small hot set, the others of all keys, which
# are cold nearly always; the table shows percentiles of each kind in
# microseconds. What the client and the loopback cost is in them: the column of
# the server that holds everything says how much. The bar is the ratio of the hot
# keys' medians (tier-hot-p50: 1.2).
# The files of the archive stay in the system's page cache unless the machine
# is short of memory: a disk adds its own time to each cold read.
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

LIMIT_MB=${LIMIT_MB:-100}
VALUE_BYTES=${VALUE_BYTES:-1000}
HOT_KEYS=${HOT_KEYS:-1000}
COLD_PERCENT=${COLD_PERCENT:-10}
READS=${READS:-200000}

prepare_server
launch tiered alcid
launch whole alcid
python3 - "$HOST" "$tiered_port" "$tiered_pid" "$whole_port" "$whole_pid" \
  "$LIMIT_MB" "$VALUE_BYTES" "$HOT_KEYS" "$COLD_PERCENT" "$READS" <<'PY'
import random, sys, time

from resp import Client, bar, finish, percentile

host = sys.argv[1]
ports = {"tier": (int(sys.argv[2]), int(sys.argv[3])), "all in memory": (int(sys.argv[4]), int(sys.argv[5]))}
limit_mb, value_bytes, hot_keys, cold_percent, reads = map(int, sys.argv[6:11])
keys = 10 * (limit_mb << 20) // value_bytes


def filling(n):
    return random.Random(n).randbytes(value_bytes)


def load(client):
    began = time.monotonic()
    client.pipeline(("SET", f"key:{n}", filling(n)) for n in range(keys))
    return time.monotonic() - began


def read(client, count, rng):
    took = {"hot": [], "cold": []}
    for _ in range(count):
        kind = "cold" if rng.randrange(100) < cold_percent else "hot"
        n = rng.randrange(hot_keys) if kind == "hot" else rng.randrange(hot_keys, keys)
        us, value = client.time("GET", f"key:{n}")
        took[kind].append(us)
        if len(value) != value_bytes:
            sys.exit(f"tier.sh: key:{n} has {len(value)} bytes")
    return took


clients = {name: Client(host, port) for name, (port, _) in ports.items()}
clients["tier"].call("CONFIG", "SET", "maxmemory", limit_mb << 20)
clients["tier"].call("CONFIG", "SET", "maxmemory-policy", "tier")
print(f"{keys} keys of {value_bytes} bytes, memory for {limit_mb} MiB, {hot_keys} hot keys, "
      f"{cold_percent} % of the reads cold")
for name, client in clients.items():
    seconds = load(client)
    print(f"{name}: loaded in {seconds:.1f} s, {keys / seconds:.0f} keys/s")
took = {name: {"hot": [], "cold": []} for name in clients}
rng = random.Random(1)
for name, client in clients.items():
    read(client, reads // 10, rng)
before = clients["tier"].info()
for turn in range(10):
    for name, client in clients.items():
        for kind, values in read(client, reads // 10, rng).items():
            took[name][kind] += values
print(f"{'':14} {'':5} {'p50':>8} {'p90':>8} {'p99':>8} {'p99.9':>8} us")
for name, kinds in took.items():
    for kind, values in kinds.items():
        shown = " ".join(f"{percentile(values, share):8.1f}" for share in (0.5, 0.9, 0.99, 0.999))
        print(f"{name:14} {kind:5} {shown}")
after = clients["tier"].info()
loaded = int(after["tier_loaded_keys"]) - int(before["tier_loaded_keys"])
us = int(after["tier_load_us"]) - int(before["tier_load_us"])
print(f"tier: {loaded} keys came back for {len(took['tier']['cold'])} cold reads, {us / max(loaded, 1):.1f} us each")
for name, client in clients.items():
    info = client.info()
    with open(f"/proc/{ports[name][1]}/status") as status:
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    print(f"{name}: {int(info['used_memory_dataset']) / 2**20:.1f} MiB of data in memory, "
          f"{resident / 1024:.0f} MiB resident, {info['tier_keys']} keys in the archive only")
hot = {name: percentile(kinds["hot"], 0.5) for name, kinds in took.items()}
bar("tier-hot-p50", hot["tier"] / hot["all in memory"], "at-most", 1.2)
finish()
PY
