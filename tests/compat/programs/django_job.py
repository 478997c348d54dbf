"""django-redis: the server as Django's cache."""

import sys
import time

import django
from django.conf import settings


def main(host, port):
    settings.configure(
        CACHES={
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": f"redis://{host}:{port}/2",
                "OPTIONS": {"CLIENT_CLASS": "django_redis.client.DefaultClient"},
            }
        },
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
    )
    django.setup()
    from django.contrib.sessions.backends.cache import SessionStore
    from django.core.cache import cache

    cache.set("a", {"b": [1, 2, 3]}, timeout=60)
    assert cache.get("a") == {"b": [1, 2, 3]}
    assert cache.add("a", 1) is False
    assert cache.add("c", 1) is True
    assert cache.ttl("a") in (59, 60), cache.ttl("a")
    cache.set("brief", "x", timeout=1)
    cache.persist("c")
    assert cache.ttl("c") is None
    cache.set("number", 10)
    assert cache.incr("number", 5) == 15
    assert cache.decr("number") == 14
    cache.set_many({f"m{n}": n for n in range(100)}, timeout=60)
    assert cache.get_many(f"m{n}" for n in range(100)) == {f"m{n}": n for n in range(100)}
    assert cache.get_or_set("made", lambda: 7) == 7
    assert cache.touch("made", 100)
    assert sorted(cache.keys("m?")) == [f"m{n}" for n in range(10)]
    assert sum(1 for _ in cache.iter_keys("m*")) == 101
    assert cache.delete_pattern("m*") == 101
    cache.set("v", 1, version=1)
    assert cache.incr_version("v") == 2
    assert cache.get("v", version=2) == 1
    session = SessionStore()
    session["user"] = "someone"
    session.save()
    assert SessionStore(session_key=session.session_key)["user"] == "someone"
    deadline = time.monotonic() + 10
    while cache.get("brief") is not None:
        assert time.monotonic() < deadline, "a timeout of one second is not over after ten"
        time.sleep(0.05)
    cache.clear()
    assert cache.get("a") is None
    print("cache, versions, patterns, timeouts and a session done")


main(sys.argv[1], int(sys.argv[2]))
