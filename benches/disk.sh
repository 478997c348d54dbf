#!/usr/bin/env bash
# What writes take of the disk, without history and with it.
#
#   benches/disk.sh                       2 million SETs of 32 bytes, 500,000 keys
#   OPERATIONS=20000000 KEYS=5000000 benches/disk.sh
#   COMPRESSION=none benches/disk.sh      the log as it is by default; zstd if
#                                         you do not say
#
# history-bytes        bytes of log and index that the history keeps to the bytes
#                      of the write stream, the commands as clients send them,
#                      compressed alike (bar: 1.5)
# write-amplification  bytes handed to the disk to the bytes of the write
#                      stream, without history and with it
# bytes-per-key        bytes of the data folder, after SAVE, for each key
# The last two have no bar of their own: their ratio is history to none.
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

OPERATIONS=${OPERATIONS:-2000000}
KEYS=${KEYS:-500000}
COMPRESSION=${COMPRESSION:-zstd}

need redis-benchmark redis-cli python3 awk
SERVER=alcid prepare_server

# What redis-benchmark sends for a SET of ours.
stream=$((OPERATIONS * (4 + 9 + 5 + 16 + 2 + 5 + 32 + 2)))
if [[ $COMPRESSION == zstd ]]; then
  need zstd
  # In blocks as the log's are, of random keys as redis-benchmark's are.
  stream=$(python3 - "$OPERATIONS" "$KEYS" <<'PY'
import random, subprocess, sys
operations, keys = int(sys.argv[1]), int(sys.argv[2])
sample, rng = 20000, random.Random(1)
packed, part = 0, 700
for _ in range(0, sample, part):
    text = b"".join(
        b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$32\r\n%s\r\n" % (rng.randrange(keys), b"x" * 32) for _ in range(part)
    )
    packed += len(subprocess.run(["zstd", "-1", "-c", "-q"], input=text, capture_output=True, check=True).stdout)
print(packed * operations // (-(-sample // part) * part))
PY
  )
fi
for kind in off on; do
  keep=$([[ $kind == off ]] && echo 0 || echo 24h)
  ALCID_STORAGE_HISTORY_KEEP=$keep ALCID_STORAGE_AOF_COMPRESSION=$COMPRESSION launch one alcid
  sets "$one_port" "$OPERATIONS" "$KEYS"
  redis-cli -h "$HOST" -p "$one_port" SAVE >/dev/null
  keys=$(redis-cli -h "$HOST" -p "$one_port" DBSIZE)
  printf -v "${kind}_log" %s "$(info "$one_port" log_bytes_written)"
  printf -v "${kind}_index" %s "$(du -sb "$one_dir/data/archive/history" 2>/dev/null | cut -f1)"
  printf -v "${kind}_written" %s "$(written_bytes "$one_pid")"
  printf -v "${kind}_disk" %s "$(du -sb "$one_dir/data" | cut -f1)"
  log=${kind}_log written=${kind}_written disk=${kind}_disk
  awk -v k="$kind" -v n="$OPERATIONS" -v s="$stream" -v l="${!log}" -v w="${!written}" -v d="${!disk}" -v keys="$keys" 'BEGIN {
    printf "history %-3s  stream %.1f, log %.1f, handed to the disk %.1f bytes per SET; %.1f bytes on disk per key\n", k, s / n, l / n, w / n, d / keys }'
  stop_all
done
bar history-bytes "$(ratio $((on_log + ${on_index:-0})) "$stream")" at-most 1.5
printf 'write amplification, history off %s, on %s\n' "$(ratio "$off_written" "$stream")" "$(ratio "$on_written" "$stream")"
printf 'disk bytes, history on to off: %s\n' "$(ratio "$on_disk" "$off_disk")"
finish
