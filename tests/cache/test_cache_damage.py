"""Damaged entries are dropped, and nothing in them is ever run."""

import os
import pickle
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import turnlog.cache
from tests import servers
from tests.cache.conftest import ANSWER, REQUEST, Model, opened
from turnlog.cache import CacheStats
from turnlog.cache.entries import sealed
from turnlog.cache.keys import Key

Change = Callable[[Callable[[bytes], object]], None]
"""Change the one stored entry."""


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    """A cache whose bytes can be got at."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def change(url: str, request: pytest.FixtureRequest) -> Change:
    """Change the one stored entry behind the cache's back."""

    def in_sqlite(damage: Callable[[bytes], object]) -> None:
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            ((entry,),) = connection.execute("SELECT entry FROM turnlog_cache_1").fetchall()
            connection.execute("UPDATE turnlog_cache_1 SET entry = ?", (damage(entry),))
        connection.close()

    def in_redis(damage: Callable[[bytes], Any]) -> None:
        server: servers.Redis = request.getfixturevalue("redis")
        database = int(url.rpartition("/")[2])
        (name,) = server.execute("KEYS", "*", database=database)
        entry = server.execute("GET", name, database=database)
        server.execute("SET", name, damage(entry), "KEEPTTL", database=database)

    return in_sqlite if url.startswith("sqlite") else in_redis


TRACE = Path(tempfile.gettempdir(), f"turnlog-cache-unpickled-{os.getpid()}")


class Evil:
    """What must not be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (TRACE,)


KEY = Key(bytes.fromhex(turnlog.cache.key(REQUEST)), "")
DAMAGES: dict[str, Callable[[bytes], object]] = {
    "a bit of the answer": lambda entry: entry[:-1] + bytes([entry[-1] ^ 1]),
    "a bit of the checksum": lambda entry: bytes([entry[0] ^ 1]) + entry[1:],
    "cut": lambda entry: entry[:-1],
    "cut short": lambda entry: entry[:10],
    "empty": lambda _: b"",
    "text": lambda _: "text",
    "another's": lambda _: sealed(Key(bytes(32), ""), b'"another\'s"'),
    "no JSON": lambda _: sealed(KEY, pickle.dumps(Evil())),
    "too deep": lambda _: sealed(KEY, b"[" * 100_000 + b"]" * 100_000),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_dropped_and_made_again(
    url: str, change: Change, model: Model, damage: Callable[[bytes], object]
) -> None:
    """It is one miss, no hit (the seeds counted it as both), and the model is called."""
    with opened(url) as cache:
        cache.put(REQUEST, ANSWER)
        change(damage)
        assert cache.get(REQUEST) is None
        assert cache.stats() == CacheStats(stores=1, misses=1, corrupt=1)
        assert cache.get(REQUEST) is None
        assert cache.stats().corrupt == 1, "it was not deleted"
        assert cache.get_or_call(REQUEST, model) == ANSWER
        change(damage)
        assert cache.get_or_call(REQUEST, model) == ANSWER
        assert cache.get_or_call(REQUEST, model) == ANSWER
        stats = cache.stats()
        assert (stats.hits, stats.misses, stats.corrupt, len(model.asked)) == (1, 4, 2, 2)
    assert not TRACE.exists()


def test_what_was_forgotten_is_in_no_byte_of_the_file(sqlite_url: str) -> None:
    """Neither in the database nor in its write-ahead log, while others go on using them."""
    path = sqlite_url.removeprefix("sqlite:///")
    with opened(sqlite_url) as cache, opened(sqlite_url) as other:
        for n in range(20):
            cache.put({"n": n}, "marker-of-alice " * 400, scope=("acme", "alice"))
            other.put({"n": n}, "marker-of-bob", scope=("acme", "bob"))
        cache.forget(("acme", "alice"))
        found = b"".join(each.read_bytes() for each in Path(path).parent.glob(f"{Path(path).name}*"))
        assert b"marker-of-bob" in found
        assert b"marker-of-alice" not in found
        assert other.get({"n": 1}, scope=("acme", "bob")) == "marker-of-bob"


def test_a_stores_file_can_hold_the_cache_too(sqlite_url: str) -> None:
    """They share a file, and keep out of each other's tables."""
    with turnlog.open(sqlite_url) as store, opened(sqlite_url) as cache:
        cache.put(REQUEST, ANSWER)
        store.session("s").add_message("user", "hello")
        assert cache.clear() == 1
        assert store.verify().ok
