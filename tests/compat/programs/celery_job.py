"""Celery: the server as broker and result backend of a real worker process."""

import subprocess
import sys

from celery import chain, chord, group

import celery_app


def main(host, port):
    app = celery_app.configure(host, port)
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_app", "worker",
         "--concurrency", "2", "--loglevel", "INFO"],
        env=celery_app.environment(host, port),
    )
    try:
        results = [celery_app.add.delay(n, 1) for n in range(20)]
        assert [r.get(timeout=60) for r in results] == list(range(1, 21))
        assert chain(celery_app.add.s(1, 2), celery_app.add.s(3))().get(timeout=30) == 6
        assert group(celery_app.add.s(n, n) for n in range(5))().get(timeout=30) == [0, 2, 4, 6, 8]
        assert chord(celery_app.add.s(n, n) for n in range(5))(celery_app.total.s()).get(timeout=30) == 20
        assert celery_app.add.apply_async((1, 1), countdown=0.2).get(timeout=30) == 2
        failed = celery_app.fail.delay()
        try:
            failed.get(timeout=30)
            raise AssertionError("the failing task did not fail")
        except ValueError as error:
            assert "expected to fail" in str(error)
        assert app.control.ping(timeout=5), "no worker answers a broadcast"
    finally:
        worker.terminate()
        worker.wait(timeout=30)
    print("20 tasks, a chain, a group, a chord, a countdown, a failure, a broadcast done")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
