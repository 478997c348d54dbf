#!/usr/bin/env python3
"""Kills the server under load, again and again, and looks for lost writes.

Every round starts the server, lets clients write, kills it with SIGKILL at a
random moment, starts it again (now and then killing it during recovery, too)
and compares what it holds with what it acknowledged:

* every acknowledged operation is there (under --fsync always);
* of the unacknowledged ones of a client, the first few are there and the rest
  is not: the state is a prefix of what the client sent;
* both halves and the list entry of a MULTI are there, or none;
* nothing that was there or gone after an earlier round has changed;
* with --branches: every client is on a branch of its own and goes on to a
  branch of that one now and then; those that it left are what they were then.

The binary is ALCID_BIN, or a release build of this checkout. SERVER=redis
tests a redis-server with an append-only file instead. The exit status is 0
when every round held. A seed repeats the choices, not the timing.
"""

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time

from served import PATIENCE_S, Closed, Connection, Server, find_binary

BATCH = 5000
LEFT_MAX = 8


class Client:
    """Writes numbered operations; knows which must be there afterwards.

    Operation n is a SET, an RPUSH or a MULTI, by n modulo 3.
    """

    def __init__(self, number, seed):
        self.name = f"c{number}"
        self.random = random.Random(f"{seed}/{number}")
        self.next = 1
        self.acknowledged = 0
        # Whether operations that were in doubt turned out to be there.
        self.settled = {}
        self.settled_to = 0
        self.branch = "main"
        # Branches that it went on from, and the last operation on each.
        self.left = []
        # A branch that may have been made.
        self.doubtful_branch = None
        self.made = 0

    def commands(self, n):
        if n % 3 == 0:
            return [("SET", f"{self.name}:s:{n}", n)]
        if n % 3 == 1:
            return [("RPUSH", f"{self.name}:list", n)]
        return [("MULTI",), ("SET", f"{self.name}:a", n), ("RPUSH", f"{self.name}:pairs", n),
                ("SET", f"{self.name}:b", n), ("EXEC",)]

    def go_on(self, connection):
        """Makes a branch of its branch, and writes there from now on."""
        self.made += 1
        name = f"{self.name}/{self.next}.{self.made}"
        self.doubtful_branch = name
        self.expect(connection.call("BRANCH", "CREATE", name, "FROM", self.branch))
        self.expect(connection.call("BRANCH", "USE", name))
        self.left.append((self.branch, self.next - 1))
        self.branch = name
        self.doubtful_branch = None
        if len(self.left) > LEFT_MAX:
            # main stays, whatever begins with it.
            old, _ = self.left.pop(1)
            self.expect(connection.call("BRANCH", "DELETE", old, "FORCE"))

    def expect(self, reply):
        if isinstance(reply, RuntimeError):
            raise AssertionError(f"{self.name}: {reply}")

    def run(self, port, with_branches):
        try:
            connection = Connection(port)
            if with_branches:
                self.expect(connection.call("BRANCH", "USE", self.branch))
            while True:
                if with_branches and self.random.random() < 0.02:
                    self.go_on(connection)
                batch = range(self.next, self.next + self.random.choice((1, 1, 2, 8, 32)))
                self.next = batch.stop
                connection.send([command for n in batch for command in self.commands(n)])
                for n in batch:
                    for _ in self.commands(n):
                        reply = connection.reply()
                        if isinstance(reply, RuntimeError):
                            raise AssertionError(f"operation {n} of {self.name}: {reply}")
                    self.acknowledged = n
        except (Closed, OSError):
            pass

    def verify(self, connection, losses_allowed):
        """Settles what was in doubt; returns how many operations were."""
        sent = self.next - 1
        acknowledged = self.settled_to if losses_allowed else self.acknowledged
        there = self.read_back(connection, sent)
        for n in range(1, self.settled_to + 1):
            expected = self.settled.get(n, True)
            assert (n in there) == expected, \
                f"{self.name}: operation {n} was {'there' if expected else 'gone'}, now it is not"
        for n in range(self.settled_to + 1, acknowledged + 1):
            assert n in there, f"{self.name}: operation {n} was acknowledged and is missing"
        doubtful = range(acknowledged + 1, sent + 1)
        present = [n in there for n in doubtful]
        assert present == sorted(present, reverse=True), \
            f"{self.name}: not a prefix of what was sent: {dict(zip(doubtful, present))}"
        for n, is_there in zip(doubtful, present):
            if not is_there:
                self.settled[n] = False
        self.settled_to = self.acknowledged = sent
        return len(doubtful), sum(present)

    def verify_branches(self, connection):
        """Looks at the branches that it left, and goes where it was."""
        if self.doubtful_branch in connection.call("BRANCH", "LIST", "MATCH", f"{self.name}/*"):
            self.left.append((self.doubtful_branch, self.next - 1))
        self.doubtful_branch = None
        for branch, upto in self.random.sample(self.left, min(3, len(self.left))):
            self.expect(connection.call("BRANCH", "USE", branch))
            there = self.read_back(connection, upto)
            expected = {n for n in range(1, upto + 1) if self.settled.get(n, True)}
            assert there == expected, f"{branch}: {sorted(there ^ expected)[:20]} are not as they were"
        self.expect(connection.call("BRANCH", "USE", self.branch))

    def read_back(self, connection, sent):
        """The operations the server holds."""
        there = set()
        singles = [n for n in range(1, sent + 1) if n % 3 == 0]
        for start in range(0, len(singles), BATCH):
            some = singles[start:start + BATCH]
            values = connection.call("MGET", *(f"{self.name}:s:{n}" for n in some))
            for n, value in zip(some, values):
                assert value in (None, str(n)), f"{self.name}:s:{n} holds {value!r}"
                if value is not None:
                    there.add(n)
        for key, remainder in (("list", 1), ("pairs", 2)):
            numbers = [int(text) for text in connection.call("LRANGE", f"{self.name}:{key}", 0, -1)]
            assert numbers == sorted(set(numbers)), f"{self.name}:{key} is out of order or doubled"
            assert all(n % 3 == remainder and n <= sent for n in numbers), \
                f"{self.name}:{key} holds what was never sent"
            there.update(numbers)
            if key == "pairs":
                last = str(numbers[-1]) if numbers else None
                halves = connection.call("MGET", f"{self.name}:a", f"{self.name}:b")
                assert halves == [last, last], \
                    f"{self.name}: half a transaction: pairs ends with {last}, a and b are {halves}"
        return there


def play_round(server, clients, options, chance):
    server.wait_ready()
    threads = [threading.Thread(target=client.run, args=(server.port, options.branches), daemon=True)
               for client in clients]
    for thread in threads:
        thread.start()
    time.sleep(chance.uniform(0.01, options.round_seconds))
    server.kill()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "a client hangs after the server was killed"
    while chance.random() < 0.3:
        server.start()
        time.sleep(chance.uniform(0, 0.1))
        server.kill()
    server.start()
    server.wait_ready()
    connection = Connection(server.port)
    doubts = []
    for client in clients:
        if options.branches:
            client.expect(connection.call("BRANCH", "USE", client.branch))
        doubts.append(client.verify(connection, options.fsync != "always"))
        if options.branches:
            client.verify_branches(connection)
    return sum(d for d, _ in doubts), sum(p for _, p in doubts)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--round-seconds", type=float, default=1.0, help="longest time until a kill")
    parser.add_argument("--fsync", choices=("always", "everysec", "no"), default="always",
                        help="other than always: acknowledged operations may be lost, but only "
                             "the newest, and no half ones")
    parser.add_argument("--branches", action="store_true", help="clients work on branches")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    if options.branches and options.fsync != "always":
        parser.error("--branches needs --fsync always: else the branch itself may be lost")
    print(f"--seed {options.seed} --fsync {options.fsync}", flush=True)
    chance = random.Random(options.seed)
    clients = [Client(number, options.seed) for number in range(options.clients)]
    folder = tempfile.mkdtemp(prefix="alcid-kill9-")
    server = Server(find_binary(), folder, options.fsync)
    server.start()
    try:
        for number in range(1, options.rounds + 1):
            doubtful, present = play_round(server, clients, options, chance)
            operations = sum(client.next - 1 for client in clients)
            print(f"round {number}: {operations} operations sent so far, "
                  f"{doubtful} in doubt, {present} of them there", flush=True)
    except AssertionError as error:
        print(f"FAILED: {error}\nkept: {folder}", file=sys.stderr)
        return 1
    finally:
        server.kill()
    shutil.rmtree(folder)
    print(f"{options.rounds} rounds held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
