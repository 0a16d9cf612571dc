"""Poisonous events: what cannot be applied parks its session, visibly and alone, until it can."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.projections.log import START, STARTED, Log, Words, said, words
from turnlog.domain.errors import StoreUnavailable
from turnlog.domain.values import RecordedEvent


@pytest.fixture
def view() -> Words:
    """``Words`` that cannot count one word."""
    view = Words()
    view.poison = "poison"
    return view


@pytest.fixture
def poisoned(log: Log, view: Words) -> Log:
    """Three sessions, in the second of which is a word that cannot be counted."""
    log.engine.add(view)
    log.append("a", STARTED, said("one"))
    log.append("b", STARTED, said("one"), said("poison"), said("two"))
    log.append("c", STARTED, said("one"))
    assert log.engine.catch_up()
    return log


def parked(log: Log) -> list[tuple[str, int, int]]:
    """Return what ``words`` has parked: (session, version, attempts)."""
    return [(one.session_id, one.version, one.attempts) for one in log.engine.parked("words")]


def test_only_the_affected_session_is_parked(poisoned: Log) -> None:
    """Others go on; what the session said before stays, the half-applied event and what follows is left out."""
    assert words(poisoned) == [("a", "one", 1), ("b", "one", 1), ("c", "one", 1)]
    poisoned.append("b", said("three"))
    poisoned.append("c", said("two"))
    assert poisoned.engine.catch_up()
    assert words(poisoned) == [("a", "one", 1), ("b", "one", 1), ("c", "one", 1), ("c", "two", 1)]
    assert parked(poisoned) == [("b", 3, 1)]


def test_parking_is_visible(poisoned: Log) -> None:
    """The status counts parked sessions, and each says where and why."""
    (status,) = poisoned.engine.status()
    assert (status.parked, status.lag) == (1, 0)
    (one,) = poisoned.engine.parked("words")
    assert (one.tenant, one.session_id, one.position) == ("default", "b", 5)
    assert one.error == "ValueError: cannot count poison"
    assert one.parked_at == START


def test_trying_again_counts(poisoned: Log) -> None:
    """A retry that fails changes nothing but the number of attempts."""
    before = words(poisoned)
    assert not poisoned.engine.retry("words")
    assert parked(poisoned) == [("b", 3, 2)]
    assert words(poisoned) == before


def test_a_retry_that_goes_through_leaves_what_no_failure_would_have_left(poisoned: Log, view: Words) -> None:
    """Once the cause is mended, the session catches up with all it missed."""
    poisoned.append("b", said("three"))
    assert poisoned.engine.catch_up()
    view.poison = None
    assert poisoned.engine.retry("words")
    assert parked(poisoned) == []
    expected = [("b", "one", 1), ("b", "poison", 1), ("b", "three", 1), ("b", "two", 1)]
    assert words(poisoned) == [("a", "one", 1), *expected, ("c", "one", 1)]
    assert poisoned.engine.check("words") == []


def test_a_new_revision_tries_again(kept_log: Log, view: Words, other: Callable[..., Log]) -> None:
    """The rebuild that a mended revision causes applies what was parked."""
    kept_log.engine.add(view)
    kept_log.append("b", STARTED, said("poison"))
    assert kept_log.engine.catch_up()

    class Mended(Words):
        revision = 2

    mended = other()
    mended.engine.add(Mended())
    assert parked(mended) == []
    assert words(mended) == [("b", "poison", 1)]


def test_a_rebuild_keeps_what_still_cannot_be_applied(poisoned: Log) -> None:
    """The new generation has parked the same session, and says so."""
    before = words(poisoned)
    poisoned.engine.rebuild("words")
    assert parked(poisoned) == [("b", 3, 1)]
    assert words(poisoned) == before
    assert poisoned.engine.check("words") == []


@pytest.mark.parametrize(
    "event",
    [
        ("MessageAdded.v99", b'{"header":{"recorded_at":"2026-01-01T00:00:00Z","occurred_at":null},"private":{}}'),
        ("MessageAdded.v1", b'{"header":'),
        ("MessageAdded.v1", b"\xff\xfe"),
    ],
    ids=["unknown", "cut", "garbage"],
)
def test_events_that_cannot_be_read_park_their_session(log: Log, event: tuple[str, bytes]) -> None:
    """An unknown event or a damaged one is never dropped silently, and never stops the others."""
    log.with_views()
    log.engine.add(Words())
    log.append("a", STARTED, event, said("one"))
    log.append("b", STARTED, said("one"))
    assert log.engine.catch_up()
    for name in ("session_index", "message_index", "words"):
        (one,) = log.engine.parked(name)
        assert (one.session_id, one.version) == ("a", 2)
        assert one.error.startswith(("UnknownEvent: ", "CorruptLog: "))
    assert log.row("a").summary.version == 1
    assert log.row("b").summary.version == 2
    assert words(log) == [("b", "one", 1)]


def test_erasing_a_parked_session_forgets_it(poisoned: Log) -> None:
    """Neither its rows nor the record of its parking survive; its later events are no gap."""
    poisoned.with_views()
    poisoned.delete("b")
    assert parked(poisoned) == []
    assert words(poisoned) == [("a", "one", 1), ("c", "one", 1)]
    assert poisoned.engine.catch_up()
    assert parked(poisoned) == []
    assert poisoned.engine.check("words") == []


def test_trouble_of_the_storage_parks_nobody(file_log: Log) -> None:
    """When the disk is full the page is undone, the error comes out, and nothing was missed afterwards."""

    class Full(Words):
        def apply(self, events: Sequence[RecordedEvent], connection: sqlite3.Connection) -> None:
            super().apply(events, connection)
            if limit:
                pages = connection.execute("PRAGMA page_count").fetchone()[0]
                connection.execute(f"PRAGMA max_page_count={pages}")
                connection.execute("CREATE TABLE big AS SELECT zeroblob(1000000)")

    limit = [True]
    file_log.engine.add(Full())
    file_log.append("a", STARTED, said("one"))
    with pytest.raises(StoreUnavailable, match="full"):
        file_log.engine.catch_up()
    assert file_log.engine.parked("words") == ()
    assert words(file_log) == []
    limit.clear()
    file_log.query("PRAGMA max_page_count=1000000")
    assert file_log.engine.catch_up()
    assert words(file_log) == [("a", "one", 1)]


def test_an_interruption_parks_nobody(log: Log) -> None:
    """Ctrl-C in the middle of a page undoes the page, and that is all."""

    class Interrupted(Words):
        def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
            super().apply(events, connection)
            if interrupting:
                raise KeyboardInterrupt

    interrupting = [True]
    log.engine.add(Interrupted())
    log.append("a", STARTED, said("one"))
    with pytest.raises(KeyboardInterrupt):
        log.engine.catch_up()
    assert words(log) == []
    interrupting.clear()
    assert log.engine.catch_up()
    assert words(log) == [("a", "one", 1)]
    assert log.engine.parked("words") == ()


def test_a_failure_of_many_events_together_is_no_failure_of_one(log: Log) -> None:
    """A page that cannot be applied whole is applied event by event."""

    class Small(Words):
        def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
            if len(events) > 1:
                raise ValueError("too many")
            super().apply(events, connection)

    log.engine.add(Small())
    log.append("a", STARTED, said("one"), said("two"), said("one"))
    assert log.engine.catch_up()
    assert words(log) == [("a", "one", 2), ("a", "two", 1)]
    assert log.engine.parked("words") == ()


DYING = """
import os, sys
from tests.projections.log import Log, Words

class Dying(Words):
    def apply(self, events, connection):
        super().apply(events, connection)
        if any(getattr(recorded.event, "message_id", "") == "deadly" for recorded in events):
            os._exit(9)

def catch_up():
    log = Log(sys.argv[1])
    log.engine.add(Dying())
    assert log.engine.catch_up(wait=True)  # a server notices a little later that who had the lock has died

for _ in range(4):
    child = os.fork()
    if child == 0:
        try:
            catch_up()
            os._exit(0)
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_an_event_that_ends_the_process_is_parked_after_a_few(kept_log: Log) -> None:
    """The crash loop ends by itself: deaths are counted, the event is found, its session parked, the others go on."""
    kept_log.append("a", STARTED, said("one"))
    kept_log.append("b", STARTED, said("deadly"))
    kept_log.append("c", STARTED, said("one"))
    program = [sys.executable, "-c", DYING, str(kept_log.place)]
    root = Path(__file__).parents[2]
    assert subprocess.run(program, cwd=root, check=True, capture_output=True).stdout.split() == [b"9", b"9", b"9", b"0"]
    assert words(kept_log) == [("a", "one", 1), ("c", "one", 1)]
    (one,) = kept_log.engine.parked("words")
    assert (one.session_id, one.version) == ("b", 2)
    assert "processes ended" in one.error
    assert kept_log.views.trial("words") is None
    assert kept_log.path is None or list(kept_log.path.parent.glob("*trial*")) == []
