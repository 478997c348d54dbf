"""The Celery application that job and worker share."""

import os

from celery import Celery

app = Celery("celery_app")


def environment(host, port):
    return dict(os.environ, COMPAT_HOST=host, COMPAT_PORT=str(port))


def configure(host, port):
    app.conf.update(
        broker_url=f"redis://{host}:{port}/0",
        result_backend=f"redis://{host}:{port}/1",
        broker_connection_retry_on_startup=True,
    )
    return app


if "COMPAT_HOST" in os.environ:
    configure(os.environ["COMPAT_HOST"], os.environ["COMPAT_PORT"])


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def fail():
    raise ValueError("expected to fail")
