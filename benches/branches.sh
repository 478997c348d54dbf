#!/usr/bin/env bash
# What branches cost.
#
#   benches/branches.sh                       a million keys on main
#   KEYS=10000000 benches/branches.sh
#   KEYS=100000 OPERATIONS=50000 benches/branches.sh
#
# create-*       BRANCH CREATE beside 1 ms, with no key on main and with KEYS: the
#                median of CREATED; create-records: log records of each (bar: 1)
# get-*          GET of keys that a branch inherits and nobody has changed, beside
#                the same on main: through one branch, and through eight (each
#                made from the one before). `first` reads each key for the first
#                time, which takes it into the branch's memory; `again` reads it
#                once more. The bars (1.2 and 2) are about the medians that one
#                client sees, asking for one key after another, all in turns; the
#                server's CPU for them, pipelined, is told beside
# write-*        SETs on a branch beside main (bar: 1.1), of keys that are new, of
#                inherited ones (on a fresh branch, each for the first time), and
#                of the same once more, each place with keys of its own: who came
#                second would find the other one's near the processor. `latency`
#                is the median that one client sees, one SET after another, in
#                turns; the others are the server's CPU, pipelined 16: `serving`
#                what clients wait for, and `all` with it what the archive does to
#                take the keys into a batch. Of those main and branch take turns,
#                part by part. Before each part the base is merged:
#                else the merge that every fourth batch makes, of everything, would
#                fall to one of them by chance. A branch's table grows from nothing
#                while main's may have just done so, which depends on KEYS: that
#                is not levelled out
# diff-*         BRANCH DIFF of a branch with CHANGES changes beside 50 ms: with
#                main as it was (quiet), and of two such branches after main has
#                had BUSY more writes (beside); `first` the first time
# merge-records  records that merging CHANGES changes makes (bar: 1). How long that
#                takes, and merging into main after its BUSY writes, is told beside
# merge-wait     the longest that another client waited for a SET on main while a
#                branch with MERGED changed keys was merged into it, beside 200 ms:
#                the worst of three
# space-*        bytes on disk, and of memory, after a branch with OWN keys of
#                its own was deleted, beside before it was made (bar: 1.1)
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

KEYS=${KEYS:-1000000}
OPERATIONS=${OPERATIONS:-100000}
OWN=${OWN:-200000}
READS=${READS:-5000}
CHANGES=${CHANGES:-1000}
CREATED=${CREATED:-50}
BUSY=${BUSY:-$OPERATIONS}
MERGED=${MERGED:-100000}
ROUNDS=${ROUNDS:-4}

prepare_server
launch server alcid
python3 - "$HOST" "$server_port" "$server_pid" "$server_dir" \
  "$KEYS" "$OPERATIONS" "$READS" "$CHANGES" "$CREATED" "$BUSY" "$ROUNDS" "$OWN" "$MERGED" <<'PY'
import os, random, subprocess, sys, threading, time

from resp import Client, bar, finish, median, percentile

host, port, pid, folder = sys.argv[1:5]
keys, operations, reads, changes, created, busy, rounds, own, merged = map(int, sys.argv[5:14])
main, rng = Client(host, port), random.Random(1)
reads, operations, changes = min(reads, keys // 2), min(operations, keys // 2), min(changes, keys)
merged = min(merged, keys)


def key(n):
    return f"key:{n:012d}"


def on(branch):
    client = Client(host, port)
    client.call("BRANCH", "USE", branch)
    return client


def cpu_seconds(name=None):
    """Of the server, or of its threads of a name."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as comm:
            is_it = name is None or comm.read().strip() == name
        if is_it:
            # To the nanosecond; `stat` has hundredths of a second.
            with open(f"/proc/{pid}/task/{task}/schedstat") as schedstat:
                total += int(schedstat.read().split()[0])
    return total / 1e9


def share_processor():
    """From here on this client and the server's threads, but for the archive's,
    run on one processor: waking a thread on another one can cost as much as
    sixteen SETs in a virtual machine, and whether it happens is chance."""
    one = {min(os.sched_getaffinity(0))}
    os.sched_setaffinity(0, one)
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as comm:
            if comm.read().strip() != "archive":
                os.sched_setaffinity(int(task), one)


def newest():
    return int(main.info()["log_newest_revision"])


def memory():
    return int(main.info()["used_memory"])


def disk():
    return int(subprocess.run(["du", "-sb", folder], capture_output=True, text=True).stdout.split()[0])


def settle():
    """Until the archive has everything."""
    main.call("SAVE")


def pipeline(client, commands, at_once=16):
    """Runs encoded commands, so many in one go."""
    for begin in range(0, len(commands), at_once):
        batch = commands[begin : begin + at_once]
        client.socket.sendall(b"".join(batch))
        for _ in batch:
            client.reply()


def merge():
    """Until the base is one run, but for two of one key."""
    settle()
    main.call("HISTORY.COMPACT")
    for _ in range(2):
        main.call("SET", "tick", time.time())
        settle()


def cpu_of(client, commands):
    """Microseconds of the server's CPU per command: of its serving threads, and
    of all, until the archive has it."""
    merge()
    # Of the process, with threads that have ended: the archive has some.
    process = ~int(pid) << 3 | 2
    began, before, archive = time.clock_gettime(process), cpu_seconds(), cpu_seconds("archive")
    pipeline(client, commands)
    serving = cpu_seconds() - before - (cpu_seconds("archive") - archive)
    settle()
    return serving / len(commands) * 1e6, (time.clock_gettime(process) - began) / len(commands) * 1e6


def create(name, *words):
    took, answer = main.time("BRANCH", "CREATE", name, *words)
    return took


def creations(name):
    before = newest()
    took = [create(f"{name}/{n}") for n in range(created)]
    records = (newest() - before) / created
    for n in range(created):
        main.call("BRANCH", "DELETE", f"{name}/{n}", "NOUNDO")
    print(f"BRANCH CREATE, {main.call('DBSIZE')} keys: p50 {median(took):.0f} p99 {percentile(took, 0.99):.0f} us")
    bar(f"create-{main.call('DBSIZE')}", median(took) / 1000, "at-most", 1)
    bar("create-records", records, "at-most", 1)


creations("empty")
filled = time.monotonic()
value = "value:%026d"
main.pipeline((("SET", key(n), value % n) for n in range(keys)), at_once=1000)
print(f"{keys} keys set in {time.monotonic() - filled:.1f} s", flush=True)
creations("full")
settle()

# Reads, in turns: of main, and through branches.
chain = ["main"]
for depth in range(1, 9):
    create(f"deep/{depth}", "FROM", chain[-1])
    chain.append(f"deep/{depth}")
readers = {0: on("main"), 1: on("deep/1"), 8: on("deep/8")}
chosen = rng.sample(range(keys), reads + min(operations, keys - reads))
took = {(depth, again): [] for depth in readers for again in (False, True)}
for again in (False, True):
    for n in chosen[:reads]:
        # In any order: who comes first finds the key cold in the processor.
        for depth in rng.sample(list(readers), len(readers)):
            us, found = readers[depth].time("GET", key(n))
            if found != (value % n).encode():
                sys.exit(f"branches.sh: {key(n)} of {chain[depth]} is {found!r}")
            took[depth, again].append(us)
for depth, again in took:
    word = "again" if again else "first"
    shares = " ".join(f"p{s * 100:g} {percentile(took[depth, again], s):7.1f}" for s in (0.5, 0.9, 0.99))
    print(f"GET through {depth} {word:6} {shares} us", flush=True)
for depth, limit in ((1, 1.2), (8, 2)):
    for again in (False, True):
        word = "again" if again else "first"
        ratio = median(took[depth, again]) / median(took[0, again])
        bar(f"get-{depth}-{word}", ratio, "at-most", limit)
# Before the pipelined ones, what main has is brought near once.
pipeline(main, [Client.encode("GET", key(n)) for n in chosen[reads:]])
for depth in readers:
    gets = [Client.encode("GET", key(n)) for n in chosen[reads:]]
    cpu = []
    for _ in range(2):
        settle()
        before = cpu_seconds()
        pipeline(readers[depth], gets)
        cpu.append((cpu_seconds() - before) / len(gets) * 1e6)
    print(f"GET through {depth} pipelined: first {cpu[0]:.2f} again {cpu[1]:.2f} us of CPU")

# Writes, in turns: what one client sees, and then CPU.
parts = ("new", "inherited", "again")
create("seen")
writers = {"main": main, "branch": on("seen")}
chosen = rng.sample(range(keys), 2 * reads)
of = {"main": chosen[:reads], "branch": chosen[reads:]}
for part in parts:
    took = {place: [] for place in writers}
    for n in range(reads):
        for place in rng.sample(list(writers), len(writers)):
            name = f"seen:{place}:{n:09d}" if part == "new" else key(of[place][n])
            took[place].append(writers[place].time("SET", name, value % n)[0])
    for place in writers:
        shares = " ".join(f"p{s * 100:g} {percentile(took[place], s):7.1f}" for s in (0.5, 0.9, 0.99))
        print(f"SET {part:10} {place:6} {shares} us", flush=True)
    bar(f"write-{part}-latency", median(took["branch"]) / median(took["main"]), "at-most", 1.1)
pipeline(main, [Client.encode("DEL", f"seen:main:{n:09d}") for n in range(reads)])
writers["branch"].socket.close()
main.call("BRANCH", "DELETE", "seen", "FORCE", "NOUNDO")
share_processor()
places = {"main": [], "branch": []}
for turn in range(rounds):
    create(f"write/{turn}")
    clients = {"main": main, "branch": on(f"write/{turn}")}
    targets = rng.sample(range(keys), 2 * operations)
    commands = {}
    for place, chosen in (("main", targets[:operations]), ("branch", targets[operations:])):
        new = [Client.encode("SET", f"new:{turn}:{place}:{n:09d}", value % n) for n in range(operations)]
        old = [Client.encode("SET", key(n), value % n) for n in chosen]
        commands[place] = (new, old, old)
        places[place].append([])
    for at in range(len(parts)):
        for place in sorted(places, reverse=(turn + at) % 2 == 0):
            places[place][-1].append(cpu_of(clients[place], commands[place][at]))
    pipeline(main, [Client.encode("DEL", f"new:{turn}:main:{n:09d}") for n in range(operations)])
    clients["branch"].socket.close()
    main.call("BRANCH", "DELETE", f"write/{turn}", "FORCE", "NOUNDO")
for at, part in enumerate(parts):
    for which, name in enumerate(("serving", "all")):
        ours, other = (median([row[at][which] for row in places[place]]) for place in ("branch", "main"))
        print(f"SET {part:10} {name:8} branch {ours:.2f} main {other:.2f} us of CPU")
        bar(f"write-{part}-{name}", ours / other, "at-most", 1.1)


# Differences and merges.
def diff_ms(a, b, expected):
    took = []
    for _ in range(9):
        us, answer = main.time("BRANCH", "DIFF", a, b, "SUMMARY")
        if answer is None or sum(answer[1::2]) != expected:
            sys.exit(f"branches.sh: DIFF {a} {b} counts {answer}, not {expected} keys")
        took.append(us / 1000)
    rows = main.time("BRANCH", "DIFF", a, b, "COUNT", 2 * changes)[0] / 1000
    print(f"DIFF {a} {b}: first {took[0]:.1f} then {median(took):.1f} ms, all rows {rows:.1f} ms", flush=True)
    return took[0], median(took)


def change(branch, targets):
    client = on(branch)
    client.pipeline(("SET", key(n), f"of {branch}") for n in targets)
    client.socket.close()


one, two = (rng.sample(range(keys // 2), changes), rng.sample(range(keys // 2, keys), changes))
create("one")
create("two")
change("one", one)
change("two", two)
first, again = diff_ms("main", "one", changes)
bar("diff-quiet-first", first / 50, "at-most", 1)
bar("diff-quiet", again / 50, "at-most", 1)
main.pipeline(((("SET", key(rng.randrange(keys)), "busy")) for _ in range(busy)), at_once=1000)
first, again = diff_ms("one", "two", 2 * changes)
bar("diff-beside-first", first / 50, "at-most", 1)
bar("diff-beside", again / 50, "at-most", 1)
before = newest()
us, answer = main.time("BRANCH", "MERGE", "one", "INTO", "two")
print(f"MERGE of {changes} changes: {us / 1000:.1f} ms")
bar("merge-records", newest() - before, "at-most", 1)
us, answer = main.time("BRANCH", "MERGE", "two", "INTO", "main", "ON", "CONFLICT", "THEIRS")
print(f"MERGE of {2 * changes} changes into main after {busy} writes there: {us / 1000:.1f} ms")
for name in ("one", "two", *reversed(chain[1:])):
    main.call("BRANCH", "DELETE", name, "FORCE", "NOUNDO")

# What a merge holds up.
waits = []
for turn in range(3):
    create("large")
    pipeline(on("large"), [Client.encode("SET", key(n), f"{turn} of large") for n in range(merged)], 1000)
    settle()
    is_done = threading.Event()

    def write():
        client = Client(host, port)
        while not is_done.is_set():
            waits.append((client.time("SET", "tick", "v")[0], turn))

    writer = threading.Thread(target=write)
    writer.start()
    us, answer = main.time("BRANCH", "MERGE", "large", "INTO", "main")
    is_done.set()
    writer.join()
    longest = max(took for took, at in waits if at == turn) / 1000
    print(f"MERGE of {merged} changes: {us / 1000:.1f} ms, a SET on main waited {longest:.1f} ms at most", flush=True)
    main.call("BRANCH", "DELETE", "large", "FORCE", "NOUNDO")
bar("merge-wait", max(waits)[0] / 2e5, "at-most", 1)

# Space.
def stand_still():
    main.call("SAVE")
    main.call("HISTORY.COMPACT")
    last = None
    for _ in range(60):
        time.sleep(1)
        # Batches make room, so there must be some.
        main.call("SET", "tick", time.time())
        main.call("SAVE")
        main.call("HISTORY.COMPACT")
        now = disk()
        if last is not None and abs(now - last) < (1 << 20):
            break
        last = now
    return disk(), memory()


before = stand_still()
create("own")
pipeline(on("own"), [Client.encode("SET", f"own:{n:09d}", value % n) for n in range(own)], 1000)
settle()
during = disk(), memory()
main.call("BRANCH", "DELETE", "own", "FORCE", "NOUNDO")
after = stand_still()
for at, name in enumerate(("disk", "memory")):
    print(f"{name}: {before[at]} bytes, {during[at]} with {own} own keys, {after[at]} after")
    bar(f"space-{name}", after[at] / before[at], "at-most", 1.1)
finish()
PY
