#!/usr/bin/env bash
# Runs small real jobs of programs that are built on Redis against the server.
#
#   tests/compat/run-programs.sh               rq django node-redis
#   tests/compat/run-programs.sh celery        by name; also those that need
#                                              commands Alcid does not offer yet:
#                                              celery bullmq rq-streams
#   SERVER=redis tests/compat/run-programs.sh  the same against redis-server
#
# The programs are installed from PyPI and npm into $CACHE. Each gets a fresh
# server and at most PROGRAM_SECONDS (default 120). The exit status is 0 when
# every program did its job. Further settings: scripts/lib.sh.

. "$(dirname "$0")/../../scripts/lib.sh"

PROGRAM_SECONDS=${PROGRAM_SECONDS:-120}
HERE=$ROOT/tests/compat/programs
VENV=$CACHE/programs-venv
# From 1.12 on RQ keeps results in streams; this one keeps them in hashes.
RQ_WITHOUT_STREAMS=1.11.1
PROGRAMS=(rq django node-redis)
NODE=$CACHE/programs-node

install_python() {
  local wanted=$HERE/requirements.txt
  if ! cmp -s "$wanted" "$VENV/installed.txt"; then
    mkdir -p "$CACHE"
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install --quiet -r "$wanted"
    cp "$wanted" "$VENV/installed.txt"
  fi
}

install_node() {
  need node npm
  if ! cmp -s "$HERE/package.json" "$NODE/installed.json"; then
    mkdir -p "$NODE"
    cp "$HERE/package.json" "$NODE/package.json"
    (cd "$NODE" && npm install --silent --no-audit --no-fund)
    cp "$HERE/package.json" "$NODE/installed.json"
  fi
  cp "$HERE"/*.mjs "$NODE/"
}

run_python() {
  install_python
  (cd "$HERE" && PATH="$VENV/bin:$PATH" PYTHONDONTWRITEBYTECODE=1 \
    timeout --kill-after=10 "$PROGRAM_SECONDS" python "$1" "$HOST" "$PORT")
}

run_node() {
  install_node
  (cd "$NODE" && timeout --kill-after=10 "$PROGRAM_SECONDS" node "$1" "$HOST" "$PORT")
}

run_program() {
  case $1 in
    rq)
      install_python
      local old=$CACHE/rq-$RQ_WITHOUT_STREAMS
      [[ -d $old ]] || "$VENV/bin/pip" install --quiet --no-deps --target "$old" "rq==$RQ_WITHOUT_STREAMS"
      PYTHONPATH=$old run_python rq_job.py
      ;;
    rq-streams) run_python rq_job.py ;;
    celery) run_python celery_job.py ;;
    django) run_python django_job.py ;;
    bullmq) run_node bullmq_job.mjs ;;
    node-redis) run_node node_redis_job.mjs ;;
    *) die "unknown program '$1'; known are: rq django node-redis celery bullmq rq-streams" ;;
  esac
}

main() {
  need timeout cmp
  local program status failed=0 log
  local -a programs=("$@")
  if [[ ${#programs[@]} -eq 0 ]]; then programs=("${PROGRAMS[@]}"); fi
  prepare_server
  for program in "${programs[@]}"; do
    start_server
    log=$SERVER_DIR/program.log
    status=0
    run_program "$program" >"$log" 2>&1 || status=$?
    if ! server_is_alive; then
      echo 'the server died; its log:' >>"$log"
      tail -50 "$SERVER_DIR/server.log" >>"$log"
      status=1
    fi
    if [[ $status -eq 0 ]]; then
      printf '%-12s pass  %s\n' "$program" "$(tail -1 "$log")"
    else
      printf '%-12s FAIL (status %d)\n' "$program" "$status"
      sed 's/^/    /' "$log" | tail -60
      failed=1
    fi
    stop_server
  done
  return "$failed"
}

main "$@"
