"""Redis: one writer beside the driver, and a cluster beside one server; servers of their own, their files in memory.

The plain driver is redis-py used by hand: one connection, and XADD of the same bytes, or a MULTI of two of them.
"""

import shutil
import sys
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis

import turnlog
from scripts.benchmarks.appending import say, take_turns
from scripts.benchmarks.measuring import Figure, Setting, compared, side_by_side, timed
from scripts.benchmarks.reading import TWICE
from scripts.benchmarks.stores import LONG, TEXT, long_session
from tests import servers
from turnlog.adapters.connect import connect


def append(setting: Setting) -> list[Figure]:
    """One message, a turn of two, and the last 50 of 100,000; durability full: the append-only file is synced always.

    Raw: XADD of the same bytes, MULTI of two, XREVRANGE of 50. turnlog's side includes both views, caught up every 256
    appends, and a snapshot every 100 events; its append is one script, which also checks versions and keys.
    """
    n, rounds = setting.pick(500, 20), setting.pick(9, 1)
    with servers.Redis(_binary()) as started:
        url, long = started.new_place(), started.new_place()
        plain = _Plain(url, _contents(started.new_place()))
        with turnlog.open(url) as store:
            session = store.session(user_id="user-1")
            one = side_by_side(rounds, partial(say, session, n), partial(plain.each, n))
            turns = partial(timed, n, partial(take_turns, session, n))
            two = side_by_side(rounds, turns, partial(plain.pairs, n))
        messages = setting.pick(100_000, 2_000)
        long_session(long, messages)
        raw = _Plain(long, ())
        with turnlog.open(long) as store:
            last = side_by_side(
                rounds, partial(_last, store, n), partial(raw.last, f"turnlog:{{default/{LONG}}}:events", n)
            )
    return [
        compared("redis", "Redis: append one message, durability full", one, against="XADD of the same bytes"),
        compared("redis", "Redis: a turn of two messages, durability full", two, against="MULTI, two XADD, EXEC"),
        compared(
            "redis", f"Redis: the last 50 messages of {messages:,}", last, against="XREVRANGE of them", target=TWICE
        ),
    ]


def cluster(setting: Setting) -> list[Figure]:
    """The same on a cluster of three masters, each with a replica, beside one server; both sides are turnlog's.

    With durability full each of the three scripts of an append on a cluster waits for a replica, too.
    """
    n, rounds = setting.pick(200, 10), setting.pick(9, 1)
    figures: list[Figure] = []
    with servers.RedisCluster(_binary()) as several, servers.Redis(_binary()) as single:
        for durability in ("full", "normal"):
            with (
                turnlog.open(several.new_place(), durability=durability) as theirs,
                turnlog.open(single.new_place(), durability=durability) as ours,
            ):
                pair = [store.session(LONG, user_id="user-1") for store in (theirs, ours)]
                appending = side_by_side(rounds, *(partial(say, session, n) for session in pair))
                reading = side_by_side(rounds, *(partial(_last, store, n) for store in (theirs, ours)))
            what = f"Redis Cluster: append one message, durability {durability}"
            figures.append(compared("redis-cluster", what, appending, against="turnlog on one server"))
        what = "Redis Cluster: the last 50 messages of a session"
        figures.append(compared("redis-cluster", what, reading, against="turnlog on one server"))
    return figures


class _Plain:
    """A connection to what ``url`` names; rows are written to a stream of its own, with contents taken in turn."""

    def __init__(self, url: str, contents: Sequence[bytes]) -> None:
        parts = urlsplit(url)
        client: Any = redis.Redis(host=parts.hostname or "", port=parts.port or 0, db=int(parts.path[1:]))
        self._client = client
        self._contents = cycle(contents)

    def each(self, n: int) -> float:
        """Write ``n`` rows; return the seconds one took."""
        rows = [next(self._contents) for _ in range(n)]
        return timed(n, lambda: [self._client.xadd("plain", {"s": row}) for row in rows])

    def pairs(self, n: int) -> float:
        """Write ``n`` times two rows in a transaction; return the seconds it took."""
        rows = [(next(self._contents), next(self._contents)) for _ in range(n)]

        def write() -> None:
            for two in rows:
                transaction = self._client.pipeline(transaction=True)
                for row in two:
                    transaction.xadd("plain", {"s": row})
                transaction.execute()

        return timed(n, write)

    def last(self, key: str, n: int) -> float:
        """Read the last 50 of a stream ``n`` times; return the seconds it took."""
        return timed(n, lambda: [self._client.xrevrange(key, count=50) for _ in range(n)])


def _last(store: turnlog.ConversationStore, n: int) -> float:
    session = store.get(LONG)
    return timed(n, lambda: [session.history(last=50) for _ in range(n)])


def _contents(url: str) -> list[bytes]:
    """Return messages as turnlog stores them, each from a commit of its own."""
    with turnlog.open(url) as store:
        session = store.session(user_id="user-1")
        for _ in range(256):
            session.add_message("user", TEXT)
    recorder = connect(url, durability="full", engine=None, options={}).recorder
    rows = recorder.select_log(after=1, limit=256)
    recorder.close()
    return [row[4] for row in rows]


def _binary() -> Path:
    found = shutil.which("redis-server")
    if found is None:
        sys.exit("bench: Redis is not installed; ./scripts/servers does it where apt may")
    return Path(found)
