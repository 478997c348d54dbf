#!/usr/bin/env bash
# What large collections cost on branches.
#
#   benches/collections.sh                    four of a million elements each
#   ELEMENTS=100000 benches/collections.sh
#
# first-*        the first look at an inherited collection through a branch beside
#                10 ms, of which main has changed nothing since (unchanged): the
#                median of ROUNDS branches. Where main has (changed), of one element
#                by its name, beside 10 ms as well, and all of it beside 100 ms
#                (whole); for lists that is told without a bar
# write-*        changes of single elements on a branch beside main (bar: 1.1):
#                the medians that one client sees, in turns. The branch has the
#                collections from main, and the elements are spread over them; so
#                have most pieces to be copied first. p99 is told beside
# main-*         the same changes on main, which shares the collections with the
#                branch: p99 beside 1 ms. The first change of a piece copies it; the
#                medians without any branch are told beside
# disk           bytes on disk that OPERATIONS such changes of each collection on
#                each of ROUNDS branches take, beside those of the collections once
#                (bar: 0.1)
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

ELEMENTS=${ELEMENTS:-1000000}
OPERATIONS=${OPERATIONS:-1000}
ROUNDS=${ROUNDS:-5}

prepare_server
keep_awake
launch server alcid
python3 - "$HOST" "$server_port" "$server_dir" "$ELEMENTS" "$OPERATIONS" "$ROUNDS" <<'PY'
import random, subprocess, sys

from resp import Client, bar, finish, median, percentile

host, port, folder = sys.argv[1:4]
elements, operations, rounds = map(int, sys.argv[4:7])
main, rng = Client(host, port), random.Random(1)

# What fills a collection, looks at one element of it, looks at what takes all of
# it where it has to be put together, and changes one element.
MAKE = {
    "hash": ("HSET", lambda n: (f"field:{n}", f"value:{n:020d}")),
    "set": ("SADD", lambda n: (f"member:{n}",)),
    "zset": ("ZADD", lambda n: (n, f"member:{n}")),
    "list": ("RPUSH", lambda n: (f"element:{n:020d}",)),
}
LOOK = {
    "hash": lambda n: ("HGET", "hash", f"field:{n}"),
    "set": lambda n: ("SISMEMBER", "set", f"member:{n}"),
    "zset": lambda n: ("ZSCORE", "zset", f"member:{n}"),
    "list": lambda n: ("LINDEX", "list", n),
}
WHOLE = {
    "hash": ("HLEN", "hash"),
    "set": ("SCARD", "set"),
    "zset": ("ZRANGE", "zset", 0, 9),
    "list": ("LRANGE", "list", 0, 9),
}
CHANGE = {
    "hash": lambda n, to: ("HSET", "hash", f"field:{n}", f"value:{to:020d}"),
    "set": lambda n, to: ("SREM" if to % 2 else "SADD", "set", f"member:{n}"),
    "zset": lambda n, to: ("ZADD", "zset", n + 0.5 * (to % 2), f"member:{n}"),
    "list": lambda n, to: ("LSET", "list", n, f"element:{to:020d}"),
}


def on(branch):
    client = Client(host, port)
    client.call("BRANCH", "USE", branch)
    return client


def disk():
    main.call("SAVE")
    return int(subprocess.run(["du", "-sb", folder], capture_output=True, text=True).stdout.split()[0])


def changes(clients, to):
    """Microseconds of each change on each of the places, in turns."""
    took = {(place, kind): [] for place in clients for kind in CHANGE}
    for _ in range(operations):
        for kind in CHANGE:
            for place in rng.sample(list(clients), len(clients)):
                words = CHANGE[kind](rng.randrange(elements), to)
                took[place, kind].append(clients[place].time(*words)[0])
    return took


before = disk()
for kind, (command, element) in MAKE.items():
    for begin in range(0, elements, 1000):
        words = [word for n in range(begin, min(begin + 1000, elements)) for word in element(n)]
        main.call(command, kind, *words)
once = disk() - before
print(f"four collections of {elements} elements: {once / 1e6:.0f} MB on disk", flush=True)
# Without a branch, and once more, when the collections are near the processor.
changes({"main": main}, 1)
alone = changes({"main": main}, 2)

first = {(kind, how): [] for kind in LOOK for how in ("unchanged", "changed", "whole")}
here, shared = {}, {}
began = disk()
for turn in range(rounds):
    main.call("BRANCH", "CREATE", f"quiet/{turn}")
    main.call("BRANCH", "CREATE", f"beside/{turn}")
    quiet, beside = on(f"quiet/{turn}"), on(f"beside/{turn}")
    for kind in LOOK:
        first[kind, "unchanged"].append(quiet.time(*LOOK[kind](rng.randrange(elements)))[0])
    for place, took in changes({"branch": quiet, "main": main}, turn).items():
        here.setdefault(place, []).extend(took)
    for kind in LOOK:
        if kind != "list":
            first[kind, "changed"].append(beside.time(*LOOK[kind](rng.randrange(elements)))[0])
        first[kind, "whole"].append(beside.time(*WHOLE[kind])[0])
for (kind, how), took in first.items():
    if took:
        print(f"{kind} {how}: p50 {median(took) / 1000:.2f} max {max(took) / 1000:.2f} ms", flush=True)
        if how != "whole":
            bar(f"first-{how}-{kind}", median(took) / 10000, "at-most", 1)
        elif kind != "list":
            bar(f"first-whole-{kind}", median(took) / 100000, "at-most", 1)
for kind in CHANGE:
    ours, other, before = here["branch", kind], here["main", kind], alone["main", kind]
    shares = [f"p50 {median(it):.1f} p99 {percentile(it, 0.99):.1f} us" for it in (ours, other, before)]
    print(f"{kind}: branch {shares[0]}, main {shares[1]}, without a branch {shares[2]}")
    bar(f"write-{kind}", median(ours) / median(other), "at-most", 1.1)
    bar(f"main-{kind}", percentile(other, 0.99) / 1000, "at-most", 1)
# What main has written of it counts once more for main.
bar("disk", (disk() - began) / once, "at-most", 0.1)
finish()
PY
