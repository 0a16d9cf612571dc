"""Waking readers in other processes: soon after the commit, and without a word where nobody listens."""

import threading
from collections.abc import Iterator
from time import monotonic

import psycopg
import pytest
from psycopg.types.numeric import Int8

from turnlog.adapters.connect import connect
from turnlog.adapters.postgresql import news
from turnlog.adapters.postgresql.connection import run
from turnlog.domain.recorder import Recorder
from turnlog.testing.contracts.rows import grow

S = "default/s"
LONG_S = 60.0


@pytest.fixture
def both(postgresql_url: str) -> Iterator[tuple[Recorder, Recorder]]:
    """Two recorders on one log, as two processes have them."""
    opened = [connect(postgresql_url, durability="full", engine=None, options={}) for _ in range(2)]
    yield opened[0].recorder, opened[1].recorder
    for each in opened:
        each.recorder.close()
        each.views.close()


def waits(recorder: Recorder, after: int) -> float:
    """Return how long it took until there was an event above ``after``."""
    began = monotonic()
    assert recorder.wait_for_news(after, LONG_S)
    return monotonic() - began


def test_others_are_told(both: tuple[Recorder, Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting reader hears of each append of another process: it need not look for it when its ceiling is reached."""
    monkeypatch.setattr(news, "CEILING_S", LONG_S)
    writer, reader = both
    position = 0
    for _ in range(10):
        later = threading.Timer(0.1, grow, (writer, S, 1))
        later.start()
        assert waits(reader, position) < LONG_S / 2
        later.join()
        position = reader.position()


def test_who_begins_to_listen_need_not_be_known_yet(
    both: tuple[Recorder, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer who found nobody listening does not ask again for a while: who listens since then looks by himself."""
    for patience in ("QUIET_S", "CEILING_S"):
        monkeypatch.setattr(news, patience, 2 * LONG_S)
    writer, reader = both
    grow(writer, S, 1)
    later = threading.Timer(0.1, grow, (writer, S, 1))
    later.start()
    waited = waits(reader, 1)
    later.join()
    assert waited < LONG_S / 2


def test_writers_do_not_take_each_other_for_listeners(postgresql_url: str) -> None:
    """A writer who has looked whether anybody listens is not found by the next one, though his transaction is open."""
    key = Int8(1)
    with psycopg.connect(postgresql_url) as one, psycopg.connect(postgresql_url) as other:
        heard = [run(each, news.TELL, (key, key, "turnlog_1")).fetchall() for each in (one, other)]
        assert heard == [[(False,)], [(False,)]]
        run(one, "SELECT pg_advisory_lock_shared(%b)", (key,))
        assert run(other, news.TELL, (key, key, "turnlog_1")).fetchall() == [(True,)]


def test_a_notification_that_is_lost_costs_half_a_second(both: tuple[Recorder, Recorder], postgresql_url: str) -> None:
    """What was written by somebody who tells nobody is found by looking again."""
    writer, reader = both
    grow(writer, S, 1)

    def silently() -> None:
        with psycopg.connect(postgresql_url) as connection:
            connection.execute(
                "INSERT INTO turnlog_events (originator_id, originator_version, topic, state) VALUES (%s, 2, 't', '')",
                (S,),
            )

    later = threading.Timer(0.1, silently)
    later.start()
    waited = waits(reader, 1)
    later.join()
    assert waited < LONG_S / 2


def test_listening_goes_on_when_it_was_cut(both: tuple[Recorder, Recorder], postgresql_url: str) -> None:
    """A reader whose connections were killed is told again."""
    writer, reader = both
    assert not reader.wait_for_news(0, 0.05)
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    grow(writer, S, 1)
    assert waits(reader, 0) < LONG_S / 2
