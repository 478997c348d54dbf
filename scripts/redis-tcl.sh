#!/usr/bin/env bash
# Runs Redis's own Tcl suite, in external-server mode, for the units that
# Alcid's commands cover.
#
#   scripts/redis-tcl.sh                     every unit of the list below
#   scripts/redis-tcl.sh unit/type/string …  these units
#   SERVER=redis scripts/redis-tcl.sh        the same against redis-server
#
# The suite comes from REDIS_SRC (an unpacked Redis source tree), or else from
# Debian's source package, kept in $CACHE. Each unit gets a fresh server and at
# most UNIT_SECONDS (default 300). Tests in tests/compat/tcl-skip.txt are left
# out; each has its reason there. LOGS (default: a temporary folder) keeps the
# output of every unit. The exit status is 0 when every unit that ran passed,
# 1 when a test failed, a unit ran out of time or the server died.
# Further settings: scripts/lib.sh.

. "$(dirname "$0")/lib.sh"

UNITS=(
  unit/type/string unit/type/incr unit/type/hash unit/type/list unit/type/list-2
  unit/type/list-3 unit/type/set unit/type/zset
  unit/keyspace unit/expire unit/scan unit/sort unit/dump unit/multi
  unit/pubsub unit/pubsubshard unit/tracking
  unit/auth unit/protocol unit/querybuf unit/pendingquerybuf unit/limits unit/quit
  unit/obuf-limits unit/replybufsize unit/networking unit/pause unit/wait
  unit/info unit/info-command unit/introspection unit/introspection-2 unit/slowlog
  unit/latency-monitor unit/lazyfree unit/maxmemory unit/memefficiency unit/other
)
UNIT_SECONDS=${UNIT_SECONDS:-300}
SKIP=${SKIP:-$ROOT/tests/compat/tcl-skip.txt}
# Replication and cluster are not offered over Redis's protocol.
TAGS=${TAGS:--needs:repl -cluster}

find_suite() {
  if [[ -n ${REDIS_SRC:-} ]]; then
    [[ -f $REDIS_SRC/tests/test_helper.tcl ]] ||
      die "REDIS_SRC=$REDIS_SRC holds no tests/test_helper.tcl; name an unpacked Redis source tree"
    printf '%s\n' "$REDIS_SRC"
    return
  fi
  local found
  mkdir -p "$CACHE"
  found=$(find "$CACHE" -maxdepth 1 -type d -name 'redis-[0-9]*' | sort | tail -1)
  if [[ -z $found ]]; then
    need apt-get dpkg-source
    (cd "$CACHE" && apt-get source -qq redis >apt.log 2>&1) ||
      die "'apt-get source redis' failed (see $CACHE/apt.log): enable deb-src lines, or set REDIS_SRC"
    found=$(find "$CACHE" -maxdepth 1 -type d -name 'redis-[0-9]*' | sort | tail -1)
  fi
  printf '%s\n' "$found"
}

# The suite writes beside itself and calls FUNCTION before every unit, which a
# server without scripting refuses: work on a copy where that call may fail.
copy_suite() {
  mkdir -p "$2"
  cp -r "$1/tests" "$1/runtest" "$2/"
  mkdir -p "$2/tests/tmp"
  sed -i 's/^\( *\)r function flush$/\1catch {r function flush}/' "$2/tests/support/server.tcl"
}

count() { grep -c "$1" "$2" || true; }

main() {
  need tclsh timeout
  local -a units=("$@")
  if [[ ${#units[@]} -eq 0 ]]; then units=("${UNITS[@]}"); fi
  prepare_server
  local source work logs unit log status verdict failed=0
  local total_ok=0 total_err=0 ok err
  source=$(find_suite)
  work=$(mktemp -d)
  logs=${LOGS:-$(mktemp -d)}
  mkdir -p "$logs"
  copy_suite "$source" "$work"
  list_of "$SKIP" >"$work/skip"
  for unit in "${units[@]}"; do
    [[ -f $work/tests/$unit.tcl ]] || die "no unit '$unit' in $source/tests; see its tests/unit folder"
    log=$logs/${unit//\//-}.log
    start_server
    status=0
    (cd "$work" && timeout --kill-after=10 "$UNIT_SECONDS" ./runtest --host "$HOST" --port "$PORT" \
      --clients 1 --durable --skipfile "$work/skip" --tags "$TAGS" --single "$unit") \
      >"$log" 2>&1 </dev/null || status=$?
    sed -i 's/\x1b\[[0-9;]*m//g' "$log"
    ok=$(count '^\[ok\]' "$log")
    err=$(count '^\[err\]' "$log")
    verdict=pass
    if [[ $status -eq 124 || $status -eq 137 ]]; then
      verdict="FAIL (no end after $UNIT_SECONDS s)"
    elif ! server_is_alive; then
      verdict="FAIL (the server died)"
      cp "$SERVER_DIR/server.log" "$log.server"
    elif [[ $err -gt 0 || $status -ne 0 ]]; then
      verdict=FAIL
    fi
    [[ $verdict == pass ]] || failed=$((failed + 1))
    total_ok=$((total_ok + ok))
    total_err=$((total_err + err))
    printf '%-24s %4d ok %4d failed  %s\n' "$unit" "$ok" "$err" "$verdict"
    sed -n 's/^\[err\]: /    /p' "$log"
    stop_server
  done
  rm -rf "$work"
  printf '%d units, %d tests passed, %d failed, %d units not clean; logs in %s\n' \
    "${#units[@]}" "$total_ok" "$total_err" "$failed" "$logs"
  [[ $failed -eq 0 ]]
}

main "$@"
