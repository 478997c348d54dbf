#!/usr/bin/env bash
# Runs redis-py's own tests against the server, over RESP2 and RESP3.
#
#   tests/compat/run-redis-py.sh                  the modules listed below
#   tests/compat/run-redis-py.sh tests/test_lock.py -k acquire
#                                                 anything pytest takes
#   SERVER=redis tests/compat/run-redis-py.sh     the same against redis-server
#
# The tests come from redis-py's source distribution and run in a virtual
# environment, both kept in $CACHE. Tests in redis-py-deselect.txt are left
# out; each has its reason there. PROTOCOLS (default "2 3") and TEST_SECONDS
# (default 60, for one test) bound the run. The exit status is 0 when every
# test passed. Further settings: scripts/lib.sh.

. "$(dirname "$0")/../../scripts/lib.sh"

VERSION=5.0.8
PROTOCOLS=${PROTOCOLS:-2 3}
TEST_SECONDS=${TEST_SECONDS:-60}
RUN_SECONDS=${RUN_SECONDS:-900}
DESELECT=$ROOT/tests/compat/redis-py-deselect.txt
MODULES=(
  tests/test_commands.py tests/test_pipeline.py tests/test_pubsub.py
  tests/test_connection.py tests/test_connection_pool.py tests/test_encoding.py
  tests/test_monitor.py tests/test_multiprocessing.py tests/test_retry.py
  tests/test_credentials.py
  tests/test_asyncio/test_commands.py tests/test_asyncio/test_pipeline.py
  tests/test_asyncio/test_pubsub.py tests/test_asyncio/test_connection.py
  tests/test_asyncio/test_connection_pool.py tests/test_asyncio/test_encoding.py
  tests/test_asyncio/test_monitor.py
)

install() {
  local venv=$CACHE/redis-py-venv
  mkdir -p "$CACHE"
  if [[ ! -f $venv/installed-$VERSION ]]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "redis==$VERSION" 'pytest<9' 'pytest-asyncio<0.24' \
      'pytest-timeout<3' 'packaging' 'cachetools<6'
    touch "$venv/installed-$VERSION"
  fi
  if [[ ! -d $CACHE/redis-$VERSION-py ]]; then
    local download
    download=$(mktemp -d)
    "$venv/bin/pip" download --quiet --no-binary :all: --no-deps --dest "$download" "redis==$VERSION"
    tar -xzf "$download/redis-$VERSION.tar.gz" -C "$download"
    mv "$download/redis-$VERSION" "$CACHE/redis-$VERSION-py"
    rm -rf "$download"
  fi
}

main() {
  need timeout tar
  prepare_server
  install
  local protocol test status failed=0
  local -a what=("$@") deselect=()
  if [[ ${#what[@]} -eq 0 ]]; then what=("${MODULES[@]}"); fi
  while IFS= read -r test; do deselect+=(--deselect "$test"); done < <(list_of "$DESELECT")
  cd "$CACHE/redis-$VERSION-py"
  for protocol in $PROTOCOLS; do
    printf -- '--- RESP%s\n' "$protocol"
    start_server
    status=0
    # The tests import the installed redis-py; the folder redis/ beside them
    # is the same version.
    timeout --kill-after=10 "$RUN_SECONDS" "$CACHE/redis-py-venv/bin/python" -m pytest -q -rfE \
      --tb=short -p no:cacheprovider -o asyncio_mode=auto --timeout "$TEST_SECONDS" --protocol "$protocol" \
      --redis-url "redis://$HOST:$PORT/0" \
      -m "not onlycluster and not redismod and not ssl and not replica" \
      "${deselect[@]}" "${what[@]}" || status=$?
    if ! server_is_alive; then
      printf 'the server died; its log:\n'
      tail -50 "$SERVER_DIR/server.log"
      status=1
    fi
    stop_server
    [[ $status -eq 0 ]] || failed=1
  done
  return "$failed"
}

main "$@"
