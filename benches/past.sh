#!/usr/bin/env bash
# Reading and undoing the past: latencies that one client sees, after one
# another on one connection.
#
#   benches/past.sh                       400,000 writes to 100,000 keys
#   WRITES=2000000 KEYS=500000 READS=20000 benches/past.sh
#
# at-get-*       AT r:<revision> GET beside GET (bar: 2.0), of keys at random:
#                `newest` of the newest revision, `ago` of a second ago, `recent`
#                of one of the last RECENT revisions, `changed` of revisions since
#                which every key has changed
# travel-get-*   GET on a connection that CLIENT TRAVEL has taken there
# at-get-counter AT r:<revision> GET beside GET (bar: 2.0), of COUNTERS counters that
#                were incremented INCREMENTS times each, at revisions of the last
#                RECENT; the same of fields of hashes and members of sorted sets, and
#                of counters that are no integers
# at-get-etcd    AT r:<revision> GET beside etcd's get at a revision (bar: 1.0),
#                by its gRPC interface and from its own state (`serializable`);
#                left out where there is no etcd
# history-100    HISTORY of 100 versions beside 1 ms: of versions next to one
#                another, and of versions a thousand writes apart; VALUES of a
#                hash that each of them changed in part. `first` is when nobody
#                has asked for the key before
# revert-prefix  REVERT PREFIX of REVERTED keys beside 1 s
# revert-wait    the longest that another client waited for a SET meanwhile, beside
#                100 ms
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

WRITES=${WRITES:-400000}
KEYS=${KEYS:-100000}
RECENT=${RECENT:-50000}
READS=${READS:-5000}
REVERTED=${REVERTED:-100000}
COUNTERS=${COUNTERS:-10}
INCREMENTS=${INCREMENTS:-20000}

prepare_server
launch server alcid
etcd_port=0
launch_etcd || true
keep_awake
python3 - "$HOST" "$server_port" "$server_pid" "$etcd_port" "$WRITES" "$KEYS" "$RECENT" "$READS" "$REVERTED" "$COUNTERS" "$INCREMENTS" <<'PY'
import os, random, sys, threading, time

from etcd import Etcd
from resp import Client, bar, finish, median, percentile

# Keys that are asked for their history the first time.
FIRSTS = 5

host, port, pid, etcd_port = sys.argv[1:5]
writes, keys, recent, reads, reverted, counters, increments = map(int, sys.argv[5:12])
client, rng = Client(host, port), random.Random(1)


def key():
    return f"key:{rng.randrange(keys)}"


def cpu_seconds():
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def newest():
    return int(client.info()["log_newest_revision"])


def show(name, took):
    shares = " ".join(f"p{share * 100:g} {percentile(took, share):8.1f}" for share in (0.5, 0.9, 0.99))
    print(f"{name:24} {shares} us", flush=True)
    return median(took)


def beside_get(name, words, reader=client):
    """The median of these calls to that of GETs, which take turns with them: how
    the machine wakes processes at the moment is then the same for both."""
    gets, took = [], []
    for _ in range(reads):
        gets.append(client.time("GET", key())[0])
        took.append(reader.time(*words())[0])
    get = show("GET", gets)
    return show(name, took) / get


client.pipeline(("SET", f"key:{n % keys}", f"value:{n:026d}") for n in range(writes))
now = newest()
at = {
    "newest": lambda: ("AT", f"r:{now}", "GET", key()),
    "recent": lambda: ("AT", f"r:{now - rng.randrange(recent)}", "GET", key()),
    "ago": lambda: ("AT", "-1s", "GET", key()),
    # The writes go through all keys in turn.
    "changed": lambda: ("AT", f"r:{now - keys - rng.randrange(recent)}", "GET", key()),
}
for name, words in at.items():
    bar(f"at-get-{name}", beside_get(f"AT GET {name}", words), "at-most", 2)
for name, back in (("recent", recent // 2), ("old", min(writes - 1, 2 * keys))):
    traveller = Client(host, port)
    traveller.call("CLIENT", "TRAVEL", f"r:{now - back}")
    took = beside_get(f"TRAVEL GET {name}", lambda: ("GET", key()), traveller)
    bar(f"travel-get-{name}", took, "at-most", 2)

counted = {
    "": (("INCR", "hits:{}"), ("GET", "hits:{}")),
    "-field": (("HINCRBY", "visits:{}", "f", 1), ("HGET", "visits:{}", "f")),
    "-member": (("ZINCRBY", "scores:{}", 1, "m"), ("ZSCORE", "scores:{}", "m")),
    "-float": (("INCRBYFLOAT", "sum:{}", "0.5"), ("GET", "sum:{}")),
}
for name, (add, read) in counted.items():
    add, read = (lambda n, words=words: [str(word).format(n) for word in words] for words in (add, read))
    client.pipeline(add(n % counters) for n in range(counters * increments))
    now = newest()
    words = lambda: ("AT", f"r:{now - rng.randrange(recent)}", *read(rng.randrange(counters)))
    bar(f"at-get-counter{name}", beside_get(f"AT counter{name}", words), "at-most", 2)

if etcd_port != "0":
    etcd = Etcd(host, etcd_port)
    values = [(f"key:{n % 1000}", f"value:{n:026d}") for n in range(5000)]
    revisions = [etcd.put(*pair) for pair in values]
    theirs, ours = [], []
    for _ in range(min(reads, 2000)):
        chosen = rng.randrange(4000)
        request = etcd.get_at(values[chosen][0], revisions[chosen + rng.randrange(1000)])
        began = time.perf_counter_ns()
        answer = etcd.answer(request)
        theirs.append((time.perf_counter_ns() - began) / 1000)
        ours.append(client.time(*at["recent"]())[0])
        if etcd.value(answer) != values[chosen][1]:
            sys.exit(f"past.sh: etcd answered {etcd.value(answer)}")
    etcd_median = show("etcd get at a revision", theirs)
    bar("at-get-etcd", show("AT GET recent", ours) / etcd_median, "at-most", 1)

between = [("SET", f"other:{n}", f"value:{n:026d}") for n in range(100)]
for version in range(100):
    # A thousand writes until it is the same key's turn again; between any two
    # more than a block of the log.
    for number in range(FIRSTS):
        client.call("SET", f"far:{number}", version)
        client.pipeline(between)
        client.call("HSET", f"hash:{number}", f"field:{version % 10}", version)
        client.pipeline(between)
for number in range(FIRSTS):
    for version in range(100):
        client.call("SET", f"near:{number}", version)
for name, options in {"near": (), "far": (), "hash": ("VALUES",)}.items():
    keys_of_kind = [("HISTORY", f"{name}:{number}", *options) for number in range(FIRSTS)]
    first = [client.time_unread(*words) for words in keys_of_kind]
    for words in keys_of_kind:
        rows = client.call(*words)
        if len(rows) != 100:
            sys.exit(f"past.sh: {len(rows)} versions of {words[1]}")
    name += "-values" if options else ""
    again = [client.time_unread(*words) for words in keys_of_kind * 60]
    print(f"HISTORY {name:16} p50 {median(again):8.1f} us, the first time {' '.join(f'{took:.0f}' for took in first)}")
    bar(f"history-100-{name}", median(again) / 1000, "at-most", 1)
    bar(f"history-100-{name}-first", median(first) / 1000, "at-most", 1)

client.pipeline(("SET", f"p:{n}", f"value:{n:026d}") for n in range(reverted))
before = newest()
client.pipeline(("SET", f"p:{n}", f"wrong:{n:026d}") for n in range(reverted))
is_done, waits = threading.Event(), []


def write():
    other = Client(host, port)
    while not is_done.is_set():
        waits.append(other.time("SET", "other", "x")[0])


writer = threading.Thread(target=write)
writer.start()
cpu = cpu_seconds()
took, answer = client.time("REVERT", "PREFIX", "p:", "TO", f"r:{before}")
cpu = cpu_seconds() - cpu
is_done.set()
writer.join()
if answer[3] != reverted:
    sys.exit(f"past.sh: REVERT restored {answer[3]} keys of {reverted}")
print(f"REVERT PREFIX of {reverted} keys: {took / 1e6:.3f} s, {cpu:.2f} s of the server's CPU; a SET waited {max(waits) / 1e6:.3f} s at most, "
      f"{median(waits):.0f} us mostly")
bar("revert-prefix", took / 1e6, "at-most", 1)
bar("revert-wait", max(waits) / 1e5, "at-most", 1)
finish()
PY
