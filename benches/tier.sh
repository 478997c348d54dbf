#!/usr/bin/env bash
# Hot and cold reads of a data set ten times the memory it may take, beside a
# server that holds everything.
#
#   scripts/bench-tier.sh                 100 MiB of memory, 1 GiB of data
#   LIMIT_MB=32 READS=50000 scripts/bench-tier.sh
#
# Both servers hold the same keys and are asked in turn. One client asks one key
# after another, most of them of a small hot set, the others of all keys, which
# are cold nearly always; the table shows percentiles of each kind in
# microseconds. What the client and the loopback cost is in them: the column of
# the server that holds everything says how much.
# The files of the archive stay in the system's page cache unless the machine
# is short of memory: a disk adds its own time to each cold read.
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

LIMIT_MB=${LIMIT_MB:-100}
VALUE_BYTES=${VALUE_BYTES:-1000}
HOT_KEYS=${HOT_KEYS:-1000}
COLD_PERCENT=${COLD_PERCENT:-10}
READS=${READS:-200000}

pids=()
dirs=()
stop_all() {
  local pid
  for pid in "${pids[@]}"; do
    kill -KILL "$pid" 2>/dev/null || true
    # Reaped here, the shell does not report it as killed.
    wait "$pid" 2>/dev/null || true
  done
  if [[ ${#dirs[@]} -gt 0 ]]; then rm -rf "${dirs[@]}"; fi
}
trap stop_all EXIT

# Starts a server and sets NAME_port and NAME_pid.
launch() {
  local name=$1
  start_server alcid
  pids+=("$SERVER_PID")
  dirs+=("$SERVER_DIR")
  printf -v "${name}_port" %s "$PORT"
  printf -v "${name}_pid" %s "$SERVER_PID"
}

prepare_server
launch tiered
launch whole
python3 - "$HOST" "$tiered_port" "$tiered_pid" "$whole_port" "$whole_pid" \
  "$LIMIT_MB" "$VALUE_BYTES" "$HOT_KEYS" "$COLD_PERCENT" "$READS" <<'PY'
import random, socket, sys, time

host = sys.argv[1]
ports = {"tier": (int(sys.argv[2]), int(sys.argv[3])), "all in memory": (int(sys.argv[4]), int(sys.argv[5]))}
limit_mb, value_bytes, hot_keys, cold_percent, reads = map(int, sys.argv[6:11])
keys = 10 * (limit_mb << 20) // value_bytes


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, *words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            word = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
        return b"".join(parts)

    def reply(self):
        line = self.file.readline()
        if line[:1] == b"-":
            sys.exit(f"bench-tier.sh: {line.decode().strip()}")
        if line[:1] == b"$" and line != b"$-1\r\n":
            return self.file.read(int(line[1:]) + 2)[:-2]
        return line[:-2]

    def call(self, *words):
        self.socket.sendall(self.send(*words))
        return self.reply()

    def info(self):
        lines = self.call("INFO", "everything").decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)


def filling(n):
    return random.Random(n).randbytes(value_bytes)


def load(client):
    began = time.monotonic()
    for first in range(0, keys, 500):
        batch = range(first, min(first + 500, keys))
        client.socket.sendall(b"".join(client.send("SET", f"key:{n}", filling(n)) for n in batch))
        for _ in batch:
            client.reply()
    return time.monotonic() - began


def read(client, count, rng):
    took = {"hot": [], "cold": []}
    for _ in range(count):
        kind = "cold" if rng.randrange(100) < cold_percent else "hot"
        n = rng.randrange(hot_keys) if kind == "hot" else rng.randrange(hot_keys, keys)
        request = client.send("GET", f"key:{n}")
        began = time.perf_counter_ns()
        client.socket.sendall(request)
        value = client.reply()
        took[kind].append((time.perf_counter_ns() - began) / 1000)
        if len(value) != value_bytes:
            sys.exit(f"bench-tier.sh: key:{n} has {len(value)} bytes")
    return took


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


clients = {name: Client(port) for name, (port, _) in ports.items()}
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
PY
