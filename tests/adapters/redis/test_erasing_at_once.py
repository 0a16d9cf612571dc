"""Erasures at once on Redis, where one waits for whoever decides by what it would erase."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event
from typing import Any

import turnlog
from tests.projections.log import STARTED, Log
from turnlog.adapters.redis.writing import Appending, Sweeper
from turnlog.domain.recorder import Batch, Reader

ERASERS, ROUNDS, SESSIONS = 6, 3, 20
SHORT_S, LONG_S = 0.2, 60.0


def test_all_come_to_their_ends(redis_url: str) -> None:
    """Each is decided anew while others create and erase sessions of the same user."""

    def erase(n: int) -> None:
        with turnlog.open(redis_url) as store:
            for round_ in range(ROUNDS):
                for i in range(SESSIONS):
                    said = [{"role": "user", "content": "hello"}]
                    store.session(f"{n}-{round_}-{i}", user_id="alice", history=said)
                store.erase_user("alice")

    with ThreadPoolExecutor(ERASERS) as pool:
        list(pool.map(erase, range(ERASERS)))
    with turnlog.open(redis_url) as store:
        assert store.sessions(user_id="alice").items == []
        assert store.verify().ok


def test_who_erases_decides_in_his_turn(redis_url: str) -> None:
    """Nor reads before it: those who have read, and wait for their turns, would keep each other busy."""
    has_begun = Event()

    def again(reader: Reader) -> Sequence[Batch]:
        has_begun.set()
        reader.select_stream("default/s")
        return []

    with closing(Log(redis_url)) as log, ThreadPoolExecutor(1) as pool:
        log.with_views().append("s", STARTED)
        recorder: Any = log.recorder
        appending = Appending(recorder.log, log.views, Sweeper(recorder.log, log.views))
        with log.views.erasing():
            asked = pool.submit(appending.ask, again, [Batch("default/s", (), erase=True)], 1)
            assert not has_begun.wait(SHORT_S)
        assert asked.result(LONG_S) == []
        assert has_begun.is_set()
