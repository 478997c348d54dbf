#!/usr/bin/env bash
# What WHATIF costs beside the command that it tries.
#
#   benches/whatif.sh                     commands on up to 1000 keys or elements; FLUSHALL of a million keys
#   KEYS=10000000 RUNS=500 benches/whatif.sh
#   ONLY="COPY DEL" benches/whatif.sh     commands whose names begin so
#
# whatif-*         a command with WHATIF in front beside the command alone (bar:
#                  1.5). The two take turns, so that what else the machine does hits
#                  both alike, and before each the keys are made what they were.
#                  The figures are medians of RUNS runs, client and loopback
#                  included; what the server itself took is shown beside them
# whatif-flushall  WHATIF FLUSHALL over KEYS keys beside 10 ms, which is the bar for
#                  ten million keys: the counters do not depend on how many there are
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

RUNS=${RUNS:-120}
KEYS=${KEYS:-1000000}
ONLY=${ONLY:-}

need redis-cli
prepare_server
launch server alcid
fill "$server_port" "$KEYS"
python3 - "$HOST" "$server_port" "$RUNS" "$KEYS" "$ONLY" <<'PY'
import sys

from resp import Client, bar, finish, median

host, port = sys.argv[1:3]
runs, keys = map(int, sys.argv[3:5])
only = tuple(sys.argv[5].split())
client = Client(host, port)
elements = [f"element:{n:05d}" for n in range(1000)]
others = [f"element:{n:05d}" for n in range(500, 1500)]
numbers = [str(n * 7919 % 100000) for n in range(1000)]


def pairs(names, value):
    return [word for name in names for word in (name, value)]


def ranked(names):
    return [word for number, name in enumerate(names) for word in (number, name)]


old, new = "v" * 32, "w" * 32
makes = {
    "hash": ["HSET", "hash", *pairs(elements, old)],
    "set": ["SADD", "set", *elements],
    "set2": ["SADD", "set2", *others],
    "zset": ["ZADD", "zset", *ranked(elements)],
    "zset2": ["ZADD", "zset2", *ranked(others)],
    "list": ["RPUSH", "list", *elements],
    "numbers": ["RPUSH", "numbers", *numbers],
    "string": ["SET", "string", "s" * 4000],
    "one": ["SET", "one", "1"],
}
for words in makes.values():
    client.call(*words)
dumped = client.call("DUMP", "hash")

# The command, and the keys that it changes.
cases = {
    "GET": (["GET", "one"], []),
    "SET": (["SET", "one", "2"], ["one"]),
    "INCR": (["INCR", "one"], ["one"]),
    "APPEND": (["APPEND", "string", "x"], ["string"]),
    "EXPIRE": (["EXPIRE", "hash", "100"], ["hash"]),
    "HSET 1 of 1000": (["HSET", "hash", "element:00500", new], ["hash"]),
    "HSET 1000": (["HSET", "hash", *pairs(elements, new)], ["hash"]),
    "HSET 1000 new": (["HSET", "made", *pairs(elements, new)], ["made"]),
    "HGETALL": (["HGETALL", "hash"], []),
    "HDEL 1 of 1000": (["HDEL", "hash", "element:00500"], ["hash"]),
    "SADD 1 to 1000": (["SADD", "set", "another"], ["set"]),
    "SADD 1000 new": (["SADD", "made", *elements], ["made"]),
    "SPOP of 1000": (["SPOP", "set"], ["set"]),
    "SUNIONSTORE": (["SUNIONSTORE", "made", "set", "set2"], ["made"]),
    "SINTERSTORE": (["SINTERSTORE", "made", "set", "set2"], ["made"]),
    "ZADD 1 to 1000": (["ZADD", "zset", "5", "another"], ["zset"]),
    "ZADD 1000 new": (["ZADD", "made", *ranked(elements)], ["made"]),
    "ZUNIONSTORE": (["ZUNIONSTORE", "made", "2", "zset", "zset2"], ["made"]),
    "LPUSH 1 to 1000": (["LPUSH", "list", "another"], ["list"]),
    "LPUSH 1000": (["LPUSH", "list", *elements], ["list"]),
    "LRANGE": (["LRANGE", "list", "0", "-1"], []),
    "SORT STORE": (["SORT", "numbers", "STORE", "made"], ["made"]),
    "COPY hash": (["COPY", "hash", "made"], ["made"]),
    "COPY list": (["COPY", "list", "made"], ["made"]),
    "COPY zset": (["COPY", "zset", "made"], ["made"]),
    "RENAME hash": (["RENAME", "hash", "made"], ["hash", "made"]),
    "RENAME list": (["RENAME", "list", "made"], ["list", "made"]),
    "RESTORE": (["RESTORE", "made", "0", dumped], ["made"]),
}
for count in (1, 100, 1000):
    names = [f"many:{number}" for number in range(count)]
    for name in names:
        makes[name] = ["SET", name, old]
    cases[f"MGET {count}"] = (["MGET", *names], [])
    cases[f"MSET {count}"] = (["MSET", *pairs(names, new)], names)
    cases[f"DEL {count}"] = (["DEL", *names], names)
    cases[f"EXISTS {count}"] = (["EXISTS", *names], [])


def server_us(name):
    """Microseconds of the server and calls of a command so far."""
    line = client.info().get(f"cmdstat_{name.lower()}", "calls=0,usec=0")
    fields = dict(field.split("=") for field in line.split(","))
    return float(fields["usec"]), int(fields["calls"])


def restore(changed):
    if changed:
        strings = [name for name in changed if makes.get(name, [""])[0] == "SET"]
        client.call("DEL", *(name for name in changed if name not in strings), "none")
        if strings:
            client.call("MSET", *(word for name in strings for word in makes[name][1:]))
        for name in changed:
            if name in makes and name not in strings:
                client.call(*makes[name])


for name, (words, changed) in cases.items():
    if only and not name.startswith(only):
        continue
    restore(changed)
    took = {False: [], True: []}
    server = {False: [0.0, 0], True: [0.0, 0]}
    for run in range(runs):
        for tried in (False, True) if run % 2 else (True, False):
            restore(changed)
            client.call("PING")
            asked = ["WHATIF", *words] if tried else words
            before = server_us(asked[0]) if run % 8 == 0 else None
            client.call("PING")
            took[tried].append(client.time_unread(*asked))
            if before:
                after = server_us(asked[0])
                server[tried][0] += after[0] - before[0]
                server[tried][1] += after[1] - before[1]
    restore(changed)
    real, tried = median(took[False]), median(took[True])
    inside = " ".join(f"{us / max(calls, 1):8.1f}" for us, calls in (server[False], server[True]))
    print(f"{name:16} {real:8.1f} us, WHATIF {tried:8.1f} us; in the server {inside} us")
    bar(f"whatif-{name.lower().replace(' ', '-')}", tried / real, "at-most", 1.5)

if not only:
    took = [client.time("WHATIF", "FLUSHALL") for _ in range(20)]
    reply = took[0][1]
    total = reply[reply.index(b"keys_total") + 1]
    if total < keys:
        sys.exit(f"whatif.sh: WHATIF FLUSHALL tells of {total} keys, there are {keys}")
    ms = median([us for us, _ in took]) / 1000
    print(f"WHATIF FLUSHALL of {total} keys: {ms:.2f} ms")
    bar("whatif-flushall", ms / 10, "at-most", 1)
finish()
PY
