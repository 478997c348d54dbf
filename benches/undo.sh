#!/usr/bin/env bash
# Taking everything away, and bringing it back.
#
#   benches/undo.sh                       200,000 keys
#   KEYS=1000000 ROUNDS=5 benches/undo.sh
#
# flushall         FLUSHALL beside redis-server's FLUSHALL ASYNC (bar: 1.1). Both
#                  have the same KEYS keys each time and the undo window is open;
#                  one client asks each server in turn, and of FLUSH_ROUNDS rounds
#                  the medians count. What is timed is one call on a warm
#                  connection, so the way there and back is in it; that of a PING
#                  is shown beside it
# undo-vs-load-*   UNDO beside redis-server's loading of the same keys from its RDB
#                  file (bar: 1.0): medians of ROUNDS rounds. Its DEBUG RELOAD
#                  NOSAVE on an empty server, which loads and does nothing else.
#                  `fresh`: the keys stand in the log, and their memory waits for
#                  the archive; `freed`: in the log only; `saved`: in the archive;
#                  `beside`: as saved, and clients have written NEW other keys
#                  since, which stay
# Each time the state after UNDO has the digest of the state before FLUSHALL, or
# the script fails. At the end it shows how long another client waited for a SET
# while UNDO ran.
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

KEYS=${KEYS:-200000}
ROUNDS=${ROUNDS:-3}
FLUSH_ROUNDS=${FLUSH_ROUNDS:-9}
NEW=${NEW:-10000}

need redis-server redis-cli
prepare_server
launch server alcid
launch redis redis
python3 - "$HOST" "$server_port" "$redis_port" "$KEYS" "$ROUNDS" "$FLUSH_ROUNDS" "$NEW" <<'PY'
import sys, threading, time

from resp import Client, bar, finish, median

host, port, redis_port = sys.argv[1:4]
keys, rounds, flush_rounds, new = map(int, sys.argv[4:8])
client, redis = Client(host, port), Client(host, redis_port)


def filling(count):
    """Requests that set strings of 32 bytes under keys of 16, as bytes."""
    return [
        b"".join(Client.encode("SET", f"key:{n:012d}", f"value:{n:026d}") for n in range(first, min(first + 500, count)))
        for first in range(0, count, 500)
    ]


requests = filling(keys)


def fill(server):
    for number, request in enumerate(requests):
        server.socket.sendall(request)
        for _ in range(min(500, keys - number * 500)):
            server.reply()


def cpu_seconds(server):
    lines = server.call("INFO", "cpu").decode().splitlines()
    values = dict(line.split(":") for line in lines if ":" in line)
    return float(values["used_cpu_sys"]) + float(values["used_cpu_user"])


def settled(server):
    """Waits until the server has nothing to do in the background, and warms the way to it."""
    before, now = 0, cpu_seconds(server)
    while now - before > 0.02:
        time.sleep(0.3)
        before, now = now, cpu_seconds(server)
    for _ in range(50):
        server.call("PING")


took = {"ours": [], "theirs": [], "our ping": [], "their ping": []}
for _ in range(flush_rounds):
    for server, name, whose, words in (
        (client, "ours", "our", ["FLUSHALL"]),
        (redis, "theirs", "their", ["FLUSHALL", "ASYNC"]),
    ):
        fill(server)
        settled(server)
        took[f"{whose} ping"].append(server.time("PING")[0])
        took[name].append(server.time(*words)[0])
        settled(server)
shown = {name: median(values) for name, values in took.items()}
print(
    f"FLUSHALL {shown['ours']:.0f} us (PING {shown['our ping']:.0f}), redis-server's FLUSHALL ASYNC "
    f"{shown['theirs']:.0f} us (PING {shown['their ping']:.0f})"
)
bar("flushall", shown["ours"] / shown["theirs"], "at-most", 1.1)

fill(redis)
redis.call("SAVE")
loads = []
for _ in range(rounds):
    redis.call("FLUSHALL", "SYNC")
    loads.append(redis.time("DEBUG", "RELOAD", "NOSAVE")[0])
    if redis.call("DBSIZE") != keys:
        sys.exit("undo.sh: redis-server has not loaded all keys")
load = median(loads)
print(f"redis-server loads {keys} keys in {load / 1e6:.3f} s")


def undo(what):
    before = client.call("DEBUG", "DIGEST")
    client.call("FLUSHALL")
    if client.call("DBSIZE") != 0:
        sys.exit("undo.sh: FLUSHALL has left keys")
    if what == "freed":
        client.call("MEMORY", "PURGE")
    written = range(new if what == "beside" else 0)
    for n in written:
        client.call("SET", f"new:{n:012d}", f"value:{n:026d}")
    us, answer = client.time("UNDO")
    if client.call("DBSIZE") != keys + len(written):
        sys.exit(f"undo.sh: UNDO has lost keys that were written since the flush: {answer}")
    for n in written:
        client.call("DEL", f"new:{n:012d}")
    if len(answer[3]) != 1 or client.call("DEBUG", "DIGEST") != before:
        sys.exit(f"undo.sh: UNDO has not brought back what was {what}: {answer}")
    return us


for what in ("fresh", "freed", "saved", "beside"):
    took = []
    for _ in range(rounds):
        client.call("FLUSHALL", "NOUNDO")
        fill(client)
        if what in ("saved", "beside"):
            client.call("SAVE")
        took.append(undo(what))
    print(f"UNDO of {keys} keys, {what}: {median(took) / 1e6:.3f} s")
    bar(f"undo-vs-load-{what}", median(took) / load, "at-most", 1)

is_done, waits = threading.Event(), []


def write():
    other, number = Client(host, port), 0
    while not is_done.is_set():
        number += 1
        waits.append(other.time("SET", f"new:{number}", "x")[0])


client.call("FLUSHALL")
writer = threading.Thread(target=write)
writer.start()
client.call("UNDO")
is_done.set()
writer.join()
print(f"while UNDO ran a SET waited {max(waits) / 1e6:.3f} s at most, {median(waits):.0f} us mostly")
finish()
PY
