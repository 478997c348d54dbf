#!/usr/bin/env bash
# How long writers wait while a checkpoint runs: SETs of one client on a server
# of many keys, without a checkpoint, and while SAVE after SAVE writes
# what has changed: all the keys at first.
#
#   benches/stalls.sh                     500,000 keys
#   KEYS=5000000 SECONDS_EACH=60 benches/stalls.sh
#
# checkpoint-p99.9  the wait that one in a thousand SETs exceeds, with
#                   checkpoints to without (bar: 2.0)
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

KEYS=${KEYS:-500000}
SECONDS_EACH=${SECONDS_EACH:-10}

need redis-cli python3 awk
SERVER=alcid prepare_server
launch server alcid
keep_awake
fill "$server_port" "$KEYS"
redis-cli -h "$HOST" -p "$server_port" SAVE >/dev/null
python3 - "$HOST" "$server_port" "$KEYS" "$SECONDS_EACH" <<'PY'
import random, subprocess, sys, time

from resp import Client, bar, finish, percentile

host, port = sys.argv[1:3]
keys, seconds = int(sys.argv[3]), float(sys.argv[4])
writer, rng = Client(host, port), random.Random(1)


def waits(is_over):
    took = []
    while not is_over():
        took.append(writer.time("SET", f"key:{rng.randrange(keys):012d}", f"value:{rng.randrange(keys):026d}")[0])
    return took


def show(name, took):
    shares = " ".join(f"p{share * 100:g} {percentile(took, share):.1f}" for share in (0.5, 0.99, 0.999))
    print(f"{name:20} {shares} max {max(took):.1f} us, {len(took)} SETs", flush=True)
    return percentile(took, 0.999)


def spell():
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


spells = {"quiet": [], "with checkpoints": []}
counts = []
for _ in range(3):
    spells["quiet"] += waits(spell())
    # Everything changes, so that the checkpoint has all of it to write.
    writer.pipeline(("SET", f"key:{n:012d}", f"value:{n:026d}") for n in range(keys))
    before = int(writer.info()["archive_batches"])
    # A process of its own, so that it takes no turns with the writer.
    saver = subprocess.Popen(
        ["redis-cli", "-h", host, "-p", port, "-r", "-1", "SAVE"], stdout=subprocess.DEVNULL
    )
    spells["with checkpoints"] += waits(spell())
    saver.kill()
    saver.wait()
    counts.append(int(writer.info()["archive_batches"]) - before)
found = {name: show(name, took) for name, took in spells.items()}
print(f"checkpoints in each spell: {counts}")
bar("checkpoint-p99.9", found["with checkpoints"] / found["quiet"], "at-most", 2)
finish()
PY
