# The verbs of this repository. Without `just`, run the commands they stand for:
# everything here is cargo or a script.

# List the verbs.
default:
    @just --list

# Does it compile, in seconds.
check:
    cargo check --workspace --all-targets

# The tests; `just test -p keyspace` for one crate.
test *args="--workspace":
    cargo test {{args}}

# Everything CI runs. Writes nothing to the sources.
verify:
    .ci/run

# Rewrite what a tool can rewrite: formatting, lints, generated files, golden replies.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    UPDATE_EXPECT=1 cargo test --workspace

# CPU per operation and memory per key, beside redis-server; `just bench past`
# for another of benches/.
bench name="vs-redis" *args:
    benches/{{name}}.sh {{args}}

# A server on 127.0.0.1:6379; `just run --port 7000`.
run *args:
    cargo run --release --bin alcid -- server {{args}}

# Kill the server under load, again and again, and look for lost writes.
kill9 *args:
    scripts/kill9.py {{args}}

# What years bring, in minutes: branches, tags, backups, restarts with other settings.
soak *args:
    scripts/soak.py {{args}}

# Redis's own Tcl suite against the server; `just tcl unit/type/hash` for one unit.
tcl *units:
    scripts/redis-tcl.sh {{units}}

# redis-py's tests, then real programs, against the server.
compat:
    tests/compat/run-redis-py.sh
    tests/compat/run-programs.sh
