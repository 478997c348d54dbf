#!/usr/bin/env python3
"""Runs a database through what years bring, in a minute, and looks for a state that changed.

Writes of every type on main and on branches, SWAPDB, flushes and UNDO; branches
made of the present and of the past, merged, reset and deleted; tags of both;
purges and compactions; backups, verified and restored whole and in part, and
gone on with; kills and clean stops, after which the server starts with other
settings: with a history, a short one or none, in memory or larger than it, with
another compression, other sizes, threads and encodings.

What is compared is the digest of all keys of a branch (DEBUG DIGEST):

* a branch is after a restart, and in a restored folder, what it was before;
* every state that has not been let go of reads the same for ever, by its
  revision and by a tag;
* no purge changes what is there, and nothing is let go of unasked.

One client does it all, so each revision is known. The binary is ALCID_BIN, or a
release build of this checkout. The exit status is 0 when every run held. A seed
repeats the choices, not the timing.
"""

import argparse
import collections
import dataclasses
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

from served import Connection, Server, find_binary

BRANCHES_MAX = 6
TAGS_MAX = 8
LARGE = "large"
VALUES = ("1", "x" * 30, "y" * 3000, "z" * 120_000)

# What a start may choose anew.
CHOICES = {
    "ALCID_STORAGE_AOF_COMPRESSION": ("none", "lz4", "zstd"),
    "ALCID_STORAGE_LOG_SEGMENT_SIZE": ("1MB", "8MB"),
    "ALCID_STORAGE_ARCHIVE_IDLE": ("0", "1s"),
    "ALCID_STORAGE_ARCHIVE_INTERVAL": ("1s", "60s", "0"),
    "ALCID_STORAGE_ARCHIVE_LAG": ("1MB", "256MB"),
    "ALCID_STORAGE_WRITE_BUFFER_SIZE": ("1MB", "256MB"),
    "ALCID_STORAGE_BLOCK_CACHE_SIZE": ("1MB", "32MB"),
    "ALCID_STORAGE_UNDO_WINDOW": ("0", "1s", "3600s"),
    "ALCID_SERVER_THREADS": ("1", "4"),
    "ALCID_ENCODING_HASH_MAX_LISTPACK_ENTRIES": ("0", "128", "5000"),
    "ALCID_ENCODING_LIST_MAX_LISTPACK_SIZE": ("-2", "3"),
    "ALCID_ENCODING_ZSET_MAX_LISTPACK_ENTRIES": ("0", "128"),
}
# Branches keep the databases that they have used: there may only be more of them.
DATABASES = "ALCID_SERVER_DATABASES"
TIER = {"ALCID_STORAGE_MAX_MEMORY": "6MB", "ALCID_STORAGE_EVICTION_POLICY": "tier"}
# How long the past is kept; None: a day.
KEEP = "ALCID_STORAGE_HISTORY_KEEP"
KEPT = (None, None, "2s", "0")


@dataclasses.dataclass
class Branch:
    name: str
    # The oldest state that is its own, and has all its keys.
    since: int = 0
    # Revisions and what it was from then on, oldest first.
    states: list = dataclasses.field(default_factory=list)

    def at(self, revision):
        found = [digest for at, digest in self.states if at <= revision]
        return found[-1] if found else None


@dataclasses.dataclass
class Tag:
    branch: Branch
    revision: int
    digest: str
    made: int
    # Made of an earlier revision: it is read by means of the history alone.
    is_earlier: bool


def fields(reply):
    assert isinstance(reply, list), reply
    return dict(zip(reply[::2], reply[1::2]))


def expect(reply):
    if isinstance(reply, RuntimeError):
        raise AssertionError(f"refused: {reply}")
    return reply


class World:
    def __init__(self, binary, folder, seed):
        self.binary = binary
        self.folder = pathlib.Path(folder)
        self.chance = random.Random(seed)
        self.server = Server(binary, folder)
        self.connections = {}
        self.branches = {"main": Branch("main")}
        self.tags = {}
        self.made = 0
        self.compacted = 0
        # States before it have lost keys on some branch.
        self.purged = 0
        # What only the history had from before is gone.
        self.has_gap = False
        self.done = collections.Counter()
        self.choose_settings()
        self.server.start()
        self.server.wait_ready()
        self.note(self.branches["main"])

    # -- what is asked ------------------------------------------------------

    def on(self, branch, db=0):
        if (branch.name, db) not in self.connections:
            connection = Connection(self.server.port)
            expect(connection.call("SELECT", db))
            expect(connection.call("BRANCH", "USE", branch.name))
            self.connections[branch.name, db] = connection
        return self.connections[branch.name, db]

    def main(self, *command):
        return self.on(self.branches["main"]).call(*command)

    def newest(self):
        return int(expect(self.main("WAITREV", 0, 0)))

    def history(self):
        """How long the past is kept."""
        return self.server.settings.get(KEEP)

    def oldest(self):
        """The oldest state that can be read; beyond all if none can."""
        if self.history() == "0":
            return sys.maxsize
        return fields(expect(self.main("HISTORY.STATS")))["oldest_rev"]

    def note(self, branch):
        digest, revision = expect(self.on(branch).call("DEBUG", "DIGEST")), self.newest()
        if not branch.states or branch.states[-1][1] != digest:
            assert not branch.states or branch.states[-1][0] < revision, \
                f"{branch.name} changed at {revision} without a revision"
            branch.states.append((revision, digest))
        return revision

    def any_branch(self, but_main=False):
        others = [branch for branch in self.branches.values() if branch.name != "main"]
        return self.chance.choice(others if but_main else list(self.branches.values()))

    def any_state(self, branch):
        """A revision that can be read, with its digest."""
        begin, newest = max(self.oldest(), branch.since), self.newest()
        if begin > newest:
            return None
        revision = self.chance.randint(begin, newest)
        digest = branch.at(revision)
        return digest and (revision, digest)

    def is_gone(self, reply):
        """Whether a short history has let go of what was asked for just now."""
        return isinstance(reply, RuntimeError) and self.history() == "2s" \
            and str(reply).startswith("COMPACTED")

    # -- what is done -------------------------------------------------------

    def write(self):
        chance, branch = self.chance, self.any_branch()
        connection = self.on(branch, chance.choice((0, 0, 1)))
        n, member = chance.randrange(25), f"m{chance.randrange(2000)}"
        value = chance.choices(VALUES, (10, 10, 5, 1))[0]
        many = [f"m{n}" for n in range(1500)]
        expect(connection.call(*chance.choice((
            ("SET", f"s{n}", value),
            ("SET", f"s{n}", value, "EX", 10_000),
            ("INCR", f"n{n}"),
            ("DEL", f"s{n}", f"h{n}", f"l{n}"),
            ("HSET", f"h{n}", member, value),
            ("RPUSH", f"l{n}", value, "v"),
            ("LPOP", f"l{n}"),
            ("ZADD", f"z{n}", chance.randrange(99), member),
            ("SADD", f"S{n}", member),
            ("HSET", LARGE, member, value),
            ("HDEL", LARGE, member),
            ("HSET", LARGE, *(word for name in many for word in (name, chance.randrange(99)))),
            ("SADD", f"{LARGE}-set", *many),
            ("MSET", *(word for n in range(200) for word in (f"k{chance.randrange(3000)}", n))),
        ))))
        self.note(branch)

    def turn_over(self):
        branch = self.any_branch()
        for command in self.chance.choice((
            [["FLUSHDB"]], [["FLUSHALL"], ["UNDO"]], [["SWAPDB", 0, 1]], [["UNDO"]],
            [["REMOVE", "PREFIX", "k"]],
        )):
            reply = self.on(branch).call(*command)
            if command[0] != "UNDO":
                expect(reply)
            self.note(branch)

    def make_branch(self):
        if len(self.branches) >= BRANCHES_MAX:
            return
        self.made += 1
        parent, branch = self.any_branch(), Branch(f"b{self.made}")
        state = self.any_state(parent) if self.chance.random() < 0.4 else None
        at = ("AT", f"r:{state[0]}") if state else ()
        reply = self.main("BRANCH", "CREATE", branch.name, "FROM", parent.name, *at)
        if self.is_gone(reply):
            return
        expect(reply)
        self.branches[branch.name] = branch
        branch.since = self.note(branch)
        digest = state[1] if state else parent.at(branch.since)
        assert branch.states[-1][1] == digest, f"{branch.name} of {parent.name} {at}"

    def delete_branch(self):
        if len(self.branches) < 3:
            return
        branch = self.any_branch(but_main=True)
        for db in (0, 1):
            self.connections.pop((branch.name, db), None)
        undo = self.chance.choice(((), ("NOUNDO",)))
        if isinstance(self.main("BRANCH", "DELETE", branch.name, *undo), RuntimeError):
            return  # others begin with it
        del self.branches[branch.name]
        self.tags = {name: tag for name, tag in self.tags.items() if tag.branch is not branch}

    def reset_branch(self):
        if len(self.branches) < 2:
            return
        branch = self.any_branch(but_main=True)
        if self.chance.random() < 0.5:
            if not isinstance(self.main("BRANCH", "RESET", branch.name, "TO", "PARENT"),
                              RuntimeError):
                branch.states.clear()
                branch.since = self.note(branch)
            return  # its parent is gone
        state = self.any_state(branch)
        if not state:
            return
        reply = self.main("BRANCH", "RESET", branch.name, "TO", f"r:{state[0]}")
        if not self.is_gone(reply):
            expect(reply)
            self.note(branch)
            assert branch.states[-1][1] == state[1], f"RESET {branch.name} TO r:{state[0]}"

    def merge(self):
        one, other = self.any_branch(), self.any_branch()
        if one is not other:
            # Refused where what both have in common is gone.
            self.main("BRANCH", "MERGE", one.name, "INTO", other.name, "ON", "CONFLICT",
                      self.chance.choice(("OURS", "THEIRS")))
            self.note(other)

    def tag(self):
        if len(self.tags) >= TAGS_MAX:
            name = self.chance.choice(list(self.tags))
            expect(self.main("TAG", "DELETE", name))
            del self.tags[name]
            return
        self.made += 1
        name, branch = f"t{self.made}", self.any_branch()
        state = self.any_state(branch) if self.chance.random() < 0.6 else None
        at = ("AT", f"r:{state[0]}") if state else ()
        revision = self.main("TAG", "CREATE", name, "BRANCH", branch.name, *at)
        if self.is_gone(revision):
            return
        expect(revision)
        digest = state[1] if state else branch.states[-1][1]
        self.tags[name] = Tag(branch, revision, digest, self.newest(), bool(state))

    def compact(self):
        if self.history() != "0":
            before = max(1, self.newest() - self.chance.randrange(300))
            reply = self.main("HISTORY.COMPACT", "BEFORE", f"r:{before}")
            if isinstance(reply, int):
                self.compacted = max(self.compacted, reply)

    def purge(self):
        branch, n = self.any_branch(), self.chance.randrange(25)
        words = self.chance.choice(((LARGE,), (f"s{n}",), (f"h{n}",), ("PREFIX", f"l{n}")))
        before = branch.states[-1]
        reply = self.on(branch, self.chance.choice((0, 1))).call("HISTORY.PURGE", *words, "CONFIRM")
        # Nobody can read it then, but some file has it still.
        is_done = "nobody can read the past" in str(reply)
        if isinstance(reply, RuntimeError) and not is_done:
            # Others read it; SWAPDB came between; no history is kept.
            known = ("BRANCHBUSY", "changed places", "no history is kept")
            assert any(why in str(reply) for why in known), f"purging {words}: {reply}"
            return
        branch.since = self.purged = self.note(branch)
        assert branch.at(branch.since) == before[1], f"purging {words} changed {branch.name}"
        branch.states = [(branch.since, before[1])]

    def save(self):
        expect(self.main("SAVE"))

    def restart(self):
        oldest_before, kept_before = self.oldest(), self.history()
        for connection in self.connections.values():
            connection.socket.close()
        self.connections.clear()
        self.chance.choice((self.server.kill, self.server.stop))()
        self.choose_settings()
        self.server.start()
        self.server.wait_ready()
        self.has_gap |= self.history() is not None
        if kept_before is None and self.history() is None:
            assert self.oldest() <= max(oldest_before, self.compacted), \
                f"states up to {self.oldest()} are gone; {oldest_before} was the oldest"
        self.look()

    def choose_settings(self):
        chance, settings = self.chance, self.server.settings
        for name, values in CHOICES.items():
            if name not in settings or chance.random() < 0.3:
                settings[name] = chance.choice(values)
        if chance.random() < 0.3:
            settings[DATABASES] = str(int(settings.get(DATABASES, "2")) + chance.randrange(3))
        if chance.random() < 0.3:
            for name, value in TIER.items():
                if settings.pop(name, None) is None:
                    settings[name] = value
        if chance.random() < 0.4:
            settings.pop(KEEP, None)
            kept = chance.choice(KEPT)
            settings.update({KEEP: kept} if kept else {})

    # -- what is compared ---------------------------------------------------

    def look(self):
        """Compares what there is now, and some of what was."""
        for branch in self.branches.values():
            now = expect(self.on(branch).call("DEBUG", "DIGEST"))
            assert now == branch.states[-1][1], f"{branch.name} is not what it was"
        self.look_back()

    def look_back(self):
        if self.history() == "0":
            return
        for branch in self.branches.values():
            for _ in range(12):
                state = self.any_state(branch)
                if state:
                    reply = self.main("AT", f"r:{state[0]}", "BRANCH", branch.name, "DEBUG", "DIGEST")
                    assert reply == state[1] or self.is_gone(reply), \
                        f"{branch.name} at {state[0]}: {reply}, was {state[1]}"
        self.look_at_beginnings(self.on(self.branches["main"]))
        for name, tag in self.tags.items():
            if tag.revision >= tag.branch.since or not self.is_erased(tag):
                reply = self.main("AT", f"tag:{name}", "DEBUG", "DIGEST")
                is_lost = tag.is_earlier and self.has_gap and str(reply).startswith("COMPACTED")
                assert reply == tag.digest or is_lost, f"{name}, {tag}: {reply}"

    def look_at_beginnings(self, connection):
        """Compares states that branches begin with, on all of them: they are what they
        were, or cannot be read."""
        told = [connection.call("BRANCH", "INFO", name) for name in self.branches]
        for reply in told:
            # One that is younger than what was restored, or was deleted then.
            revision = 0 if isinstance(reply, RuntimeError) else fields(reply)["base_rev"]
            for branch in self.branches.values():
                if max(branch.since, self.purged) <= revision:
                    now = connection.call("AT", f"r:{revision}", "BRANCH", branch.name,
                                          "DEBUG", "DIGEST")
                    known = ("COMPACTED", "NOBRANCH", "ERR revision")
                    assert now == branch.at(revision) or str(now).startswith(known), \
                        f"{branch.name} at {revision}, with which a branch begins: {now}"

    def is_erased(self, tag):
        """Whether a purge has left holes in what a tag names."""
        return tag.revision < self.purged

    def back_up(self):
        backup, restored = self.folder / "backup", self.folder / "restored"
        with_history = self.history() != "0" and self.chance.random() < 0.8
        told = fields(expect(self.main("BACKUP", "TO", backup, *(() if with_history else ("NOHISTORY",)))))
        self.run("backup", "verify", backup)
        goal, upto, tag = self.choose_goal(told["oldest"], told["revision"], with_history)
        part = self.chance.choice(list(self.branches.values())) if self.chance.random() < 0.2 else None
        if part and (part.since > upto or tag):
            part = None
        if self.chance.random() < 0.2:
            goal, with_history = [*goal, "--no-history"], False
        words = [*goal, *(["--branch", part.name] if part else [])]
        restored.mkdir()
        self.run("restore", "--from", backup, "--data-dir", restored / "data", *words)
        there = Server(self.binary, restored, settings=self.server.settings)
        there.start()
        try:
            there.wait_ready()
            oldest = max(told["oldest"], self.purged) if with_history and not part else upto
            self.look_at_restored(there, upto, oldest, part, tag)
            goes_on = not words and self.chance.random() < 0.5
            if not goes_on:
                expect(Connection(there.port).call("SET", "after", "1"))
        except AssertionError as error:
            raise AssertionError(f"restored by {words}: {error}") from error
        finally:
            there.kill()
        if goes_on:
            self.go_on_with(restored, with_history)
        shutil.rmtree(restored)

    def choose_goal(self, oldest, newest, with_history):
        """What to restore: the arguments, the revision, and the tag if it is one."""
        tags = [(name, tag) for name, tag in self.tags.items()
                if tag.revision >= self.purged and tag.revision <= newest
                and not (tag.is_earlier and (self.has_gap or not with_history))]
        begin = max(oldest, self.purged)
        how = self.chance.random()
        if how < 0.3 and begin <= newest:
            revision = self.chance.randint(begin, newest)
            return ["--at", f"r:{revision}"], revision, None
        if how < 0.6 and tags:
            name, tag = self.chance.choice(tags)
            return ["--at", f"tag:{name}"], tag.revision, tag
        return [], newest, None

    def look_at_restored(self, there, upto, oldest, part, of_tag):
        connection = Connection(there.port)
        if not part and self.history() != "0":
            self.look_at_beginnings(connection)
        for branch in [part] if part else self.branches.values():
            digest = branch.at(upto) if branch.since <= upto else None
            if of_tag and of_tag.branch is branch:
                digest = of_tag.digest
            if digest is None:
                continue
            expect(connection.call("BRANCH", "USE", "main" if part else branch.name))
            now = connection.call("DEBUG", "DIGEST")
            assert now == digest, f"{branch.name} is {now}, was {digest} at {upto}"
            if part or self.history() == "0":
                continue
            for _ in range(4):
                revision = self.chance.randint(min(max(oldest, branch.since), upto), upto)
                then = connection.call("AT", f"r:{revision}", "DEBUG", "DIGEST")
                assert then == branch.at(revision) or self.is_gone(then) or branch.at(revision) is None, \
                    f"{branch.name} at {revision}: {then}"

    def go_on_with(self, restored, with_history):
        """Serves what was restored, in the place of what was backed up."""
        self.done["gone on with"] += 1
        for connection in self.connections.values():
            connection.socket.close()
        self.connections.clear()
        self.server.kill()
        shutil.rmtree(self.folder / "data")
        shutil.rmtree(self.folder / "backup")
        os.rename(restored / "data", self.folder / "data")
        self.has_gap |= not with_history
        self.server.start()
        self.server.wait_ready()
        self.compacted = max(self.compacted, 0 if self.history() == "0" else self.oldest())
        self.look()

    def run(self, *words):
        command = [self.binary, *(str(word) for word in words)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"

    # -- all of it ----------------------------------------------------------

    def play(self, seconds):
        actions = {
            self.write: 200, self.turn_over: 5, self.make_branch: 5, self.delete_branch: 1,
            self.reset_branch: 3, self.merge: 4, self.tag: 3, self.compact: 1, self.purge: 2,
            self.save: 2, self.look_back: 1, self.back_up: 2, self.restart: 1.5,
        }
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            action = self.chance.choices(list(actions), list(actions.values()))[0]
            self.done[action.__name__] += 1
            action()
        self.restart()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=40, help="of each run")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of the first run")
    options = parser.parse_args()
    binary = find_binary()
    for seed in range(options.seed, options.seed + options.runs):
        print(f"--seed {seed}", flush=True)
        folder = tempfile.mkdtemp(prefix="alcid-soak-")
        world = World(binary, folder, seed)
        try:
            world.play(options.seconds)
        except AssertionError as error:
            print(f"FAILED: {error}\nkept: {folder}", file=sys.stderr)
            return 1
        finally:
            world.server.kill()
        shutil.rmtree(folder)
        print(", ".join(f"{count} {name}" for name, count in world.done.most_common()), flush=True)
    print(f"{options.runs} runs held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
