#!/usr/bin/env bash
# How long other clients wait while large collections are read that stand in the
# archive only: the longest GET of a client of a small key, on a server of one
# thread.
#
#   benches/cold.sh                    four of a million elements each
#   ELEMENTS=100000 benches/cold.sh
#
# start          after a start, while all is loaded beside the clients, with 50 ms
#                (bar: 1.0)
# touch-*        larger than memory, while another client asks for what needs all of
#                a collection, ROUNDS times, with 50 ms (bar: 1.0); how long that
#                client waits is told beside
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

ELEMENTS=${ELEMENTS:-1000000}
ROUNDS=${ROUNDS:-3}

SERVER=alcid prepare_server
keep_awake
launch server alcid --threads 1
python3 - "$HOST" "$server_port" "$ELEMENTS" <<'PY'
import sys

from resp import Client

elements = int(sys.argv[3])
client = Client(*sys.argv[1:3])
MAKE = {
    "hash": ("HSET", lambda n: (f"field:{n}", f"value:{n:020d}")),
    "set": ("SADD", lambda n: (f"member:{n}",)),
    "zset": ("ZADD", lambda n: (n, f"member:{n}")),
    "list": ("RPUSH", lambda n: (f"element:{n:020d}",)),
}
client.call("SET", "small", "value")
for kind, (command, element) in MAKE.items():
    for begin in range(0, elements, 1000):
        words = [word for n in range(begin, min(begin + 1000, elements)) for word in element(n)]
        client.call(command, kind, *words)
client.call("SAVE")
PY
kill -KILL "$server_pid"
wait "$server_pid" 2>/dev/null || true
"$ALCID_BIN" server --port "$server_port" --data-dir "$server_dir/data" --threads 1 >"$server_dir/again.log" 2>&1 &
pids+=("$!")
python3 - "$HOST" "$server_port" "$ROUNDS" <<'PY'
import multiprocessing, sys, time

from resp import Client, bar, finish, percentile

host, port, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
BAR_US = 50_000

# What takes all of a collection and tells little of it.
WHOLE = {
    "hash": ("OBJECT", "ENCODING", "hash"),
    "set": ("SRANDMEMBER", "set"),
    "zset": ("ZRANGE", "zset", 0, 9),
    "list": ("LRANGE", "list", 0, 9),
}


def connect():
    while True:
        try:
            client = Client(host, port)
            client.call("PING")
            return client
        except OSError:
            time.sleep(0.002)


def look(is_over, told):
    """Asks for a small key all the time, and tells how long that took."""
    client, took = connect(), []
    told.send(None)
    while not is_over.is_set():
        took.append(client.time("GET", "small")[0])
        time.sleep(0.0005)
    told.send(took)


def beside(work):
    """What a client of a process of its own waits meanwhile."""
    is_over, (here, there) = multiprocessing.Event(), multiprocessing.Pipe()
    other = multiprocessing.Process(target=look, args=(is_over, there))
    other.start()
    here.recv()
    work()
    is_over.set()
    took = here.recv()
    other.join()
    return took


def show(name, took):
    shares = " ".join(f"p{share * 100:g} {percentile(took, share):.0f}" for share in (0.5, 0.99))
    print(f"{name:12} {shares} max {max(took):.0f} us, {len(took)} GETs", flush=True)
    return max(took)


def load():
    """All is loaded after a start when memory has not grown for a second."""
    client, last, still = connect(), -1, 0
    while still < 10:
        now = int(client.info()["used_memory_dataset"])
        still = still + 1 if now == last and now > 1 << 20 else 0
        last = now
        time.sleep(0.1)


longest = show("start", beside(load))
bar("start", longest / BAR_US, "at-most", 1)

client = connect()
client.call("CONFIG", "SET", "maxmemory-policy", "tier")
client.call("CONFIG", "SET", "maxmemory", "16mb")


def gone():
    while int(client.info()["used_memory_dataset"]) > 32 << 20:
        time.sleep(0.02)


for kind, words in WHOLE.items():
    took, own = [], []
    for _ in range(rounds):
        gone()
        took += beside(lambda: own.append(client.time(*words)[0]))
    longest = show(kind, took)
    print(f"{kind:12} the command itself: {min(own) / 1000:.0f} to {max(own) / 1000:.0f} ms", flush=True)
    bar(f"touch-{kind}", longest / BAR_US, "at-most", 1)
finish()
PY
