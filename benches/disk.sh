#!/usr/bin/env bash
# What writes take of the disk, without history and with it.
#
#   benches/disk.sh                       a million SETs of 32 bytes, 250,000 keys
#   OPERATIONS=20000000 KEYS=5000000 benches/disk.sh
#   COMPRESSION=none benches/disk.sh      the log as it is by default; zstd when
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

OPERATIONS=${OPERATIONS:-1000000}
KEYS=${KEYS:-250000}
COMPRESSION=${COMPRESSION:-zstd}

need redis-cli python3 awk
SERVER=alcid prepare_server

work=$(mktemp -d)
trap 'stop_all; rm -rf "$work"' EXIT

# The write stream: random keys, values of 32 random hexadecimal digits.
python3 - "$OPERATIONS" "$KEYS" >"$work/stream" <<'PY'
import random, sys

operations, keys = int(sys.argv[1]), int(sys.argv[2])
rng, out = random.Random(1), sys.stdout
for _ in range(operations):
    out.write(f"*3\r\n$3\r\nSET\r\n$16\r\nkey:{rng.randrange(keys):012d}\r\n$32\r\n{rng.getrandbits(128):032x}\r\n")
PY
stream=$(stat -c %s "$work/stream")
if [[ $COMPRESSION == zstd ]]; then
  need zstd
  # In pieces as large as the log's blocks.
  # shellcheck disable=SC2016 # split's own shell expands it
  stream=$(split --bytes=64K --filter='zstd -1 -c -q | wc -c' "$work/stream" | awk '{ sum += $1 } END { print sum }')
fi
for kind in off on; do
  keep=$([[ $kind == off ]] && echo 0 || echo 24h)
  ALCID_STORAGE_HISTORY_KEEP=$keep ALCID_STORAGE_AOF_COMPRESSION=$COMPRESSION launch one alcid
  redis-cli -h "$HOST" -p "$one_port" --pipe <"$work/stream" >/dev/null
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
