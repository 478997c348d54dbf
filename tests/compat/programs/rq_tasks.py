"""What the RQ jobs do; a worker imports it by name."""


def add(a, b):
    return a + b


def fail():
    raise ValueError("expected to fail")
