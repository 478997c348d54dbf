# Shared by the scripts of this folder and of tests/compat: finds a free port,
# starts a server under test, stops it. Source it, do not run it.
#
# Settings, from the environment:
#   ALCID_BIN   the alcid binary; by default a release build of this checkout
#   ALCID_ARGS  further flags of `alcid server`, split at spaces
#   SERVER      alcid (default), or redis: the redis-server on PATH, to tell a
#               suite's own noise from a difference between the two
#   REDIS_CONF  a configuration file for that redis-server, for instance one
#               that renames commands away to see which tests need them
#   CACHE       where downloads are kept; default ~/.cache/alcid-compat

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SERVER=${SERVER:-alcid}
CACHE=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/alcid-compat}
HOST=127.0.0.1
SERVER_PID=
SERVER_DIR=
PORT=

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 2
}

need() {
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null || die "needs '$tool'; install it and run again"
  done
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Builds the server once, unless ALCID_BIN names one.
prepare_server() {
  need python3
  case $SERVER in
    alcid)
      if [[ -z ${ALCID_BIN:-} ]]; then
        (cd "$ROOT" && cargo build --release --bin alcid)
        ALCID_BIN=${CARGO_TARGET_DIR:-$ROOT/target}/release/alcid
      fi
      [[ -x $ALCID_BIN ]] || die "ALCID_BIN=$ALCID_BIN is not an executable file"
      ALCID_BIN=$(realpath "$ALCID_BIN")
      ;;
    redis) need redis-server ;;
    *) die "SERVER=$SERVER: expected alcid or redis" ;;
  esac
}

accepts_connections() {
  python3 - "$HOST" "$1" <<'PY'
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1) as s:
        s.sendall(b"PING\r\n")
        sys.exit(0 if s.recv(64) else 1)
except OSError:
    sys.exit(1)
PY
}

# start_server [KIND [FLAG…]]: a fresh server of KIND (default $SERVER) on a
# free port in an empty folder. Sets PORT, SERVER_PID, SERVER_DIR.
start_server() {
  local kind=${1:-$SERVER}
  shift || true
  PORT=$(free_port)
  SERVER_DIR=$(mktemp -d)
  local -a command
  case $kind in
    alcid)
      # shellcheck disable=SC2206 # ALCID_ARGS is documented to split at spaces
      command=("$ALCID_BIN" server --port "$PORT" --data-dir "$SERVER_DIR/data" ${ALCID_ARGS:-})
      ;;
    redis)
      command=(redis-server ${REDIS_CONF:+"$REDIS_CONF"} --port "$PORT" --dir "$SERVER_DIR" --save "" --daemonize no
        --enable-debug-command yes --enable-protected-configs yes)
      ;;
  esac
  "${command[@]}" "$@" >"$SERVER_DIR/server.log" 2>&1 &
  SERVER_PID=$!
  local tries
  for tries in $(seq 100); do
    if accepts_connections "$PORT"; then return 0; fi
    if ! kill -0 "$SERVER_PID" 2>/dev/null; then break; fi
    sleep 0.1
  done
  cat "$SERVER_DIR/server.log" >&2
  die "$kind did not answer on port $PORT (after $tries tries): see its log above"
}

# Whether the server under test is still the process that was started.
server_is_alive() {
  [[ -n $SERVER_PID ]] && kill -0 "$SERVER_PID" 2>/dev/null
}

stop_server() {
  if [[ -n $SERVER_PID ]]; then
    kill -TERM "$SERVER_PID" 2>/dev/null || true
    local _
    for _ in $(seq 50); do
      kill -0 "$SERVER_PID" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$SERVER_PID" 2>/dev/null || true
    wait "$SERVER_PID" 2>/dev/null || true
    SERVER_PID=
  fi
  if [[ -n $SERVER_DIR ]]; then
    rm -rf "$SERVER_DIR"
    SERVER_DIR=
  fi
}

trap stop_server EXIT

# CPU seconds a process has used, user and system.
cpu_seconds() {
  local ticks_per_second
  ticks_per_second=$(getconf CLK_TCK)
  # The name in field 2 may hold spaces: count fields after its parenthesis.
  sed 's/^.*) //' "/proc/$1/stat" | awk -v hz="$ticks_per_second" '{ print ($12 + $13) / hz }'
}

# The median of the numbers on standard input, one a line.
median() {
  sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# list_of FILE: its lines without comments (lines that start with `#`) and
# blank lines.
list_of() {
  sed -e '/^[[:space:]]*#/d' -e '/^[[:space:]]*$/d' "$1"
}
