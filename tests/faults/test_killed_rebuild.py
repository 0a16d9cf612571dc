"""Rebuilds, killed at random instants or two at once, while another process writes and this one reads."""

import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest

import turnlog
from tests.faults.conftest import THOROUGH
from tests.faults.processes import Victim, together
from tests.projections.views_beside import rebuild_when_free

pytestmark = pytest.mark.slow
ROUNDS = 8 * THOROUGH
SESSIONS = 200
"""So many that a rebuild takes longer than most kills."""
LONGEST_S = 0.15
"""From the rebuild's beginning to the kill."""


def write_on(report: Connection, url: str) -> None:
    """Add messages, and sometimes a session, until killed."""
    with turnlog.open(url, durability="normal") as store:
        for i in count():
            receipt = store.session(f"s-{i % SESSIONS}").add_message("user", f"beside it {i}")
            if i % 10 == 0:
                store.session(f"late-{i}", user_id="late")
            if i % 50 == 0:
                report.send(receipt.version)


def rebuild_on(report: Connection, url: str) -> None:
    """Rebuild the views over and over until killed."""
    with turnlog.open(url, durability="normal") as store:
        while True:
            report.send("rebuilding")
            rebuild_when_free(store.rebuild)


@pytest.fixture
def url(shared_url: str) -> str:
    """A store of many sessions, its views up to date."""
    with turnlog.open(shared_url, durability="normal") as store:
        for i in range(SESSIONS):
            store.session(f"s-{i}", user_id=f"user {i % 7}", history=[{"role": "user", "content": "x"}] * 3)
        store.catch_up()
    return shared_url


@pytest.fixture
def writer(url: str) -> Iterator[Victim]:
    """The process that writes beside the rebuild."""
    victim = Victim(write_on, url)
    victim.first()
    yield victim
    victim.kill()


def test_killed_rebuilds(url: str, writer: Victim, tmp_path: Path) -> None:
    """The views answer throughout, never with less than before, and the next rebuild succeeds."""
    dice = random.Random(10)  # noqa: S311 - no secret
    with turnlog.open(url, durability="normal") as store:
        seen = Seen(SESSIONS, 3 * SESSIONS)
        for _ in range(ROUNDS):
            rebuilder = Victim(rebuild_on, url)
            rebuilder.first()
            end = monotonic() + dice.uniform(0, LONGEST_S)
            while monotonic() < end:
                seen = look(store, seen)
            rebuilder.kill()
            list(writer.reports(0))
            seen = look(store, seen)
        rebuild_when_free(store.rebuild)
        report = store.verify()
        assert report.ok, report.failures
        look(store, seen)
        assert not [words for words in store.scrub(vacuum=False).pending if "rebuild" in words]
    left = {file.name for file in tmp_path.glob("*-rebuild-*") if file.suffix != ".claim"}
    assert not left, "a half-built view was left behind"


def rebuild_often(url: str) -> None:
    """Rebuild the views twice, when nobody else is at it."""
    with turnlog.open(url, durability="normal") as store:
        for _ in range(2):
            rebuild_when_free(store.rebuild)


def test_two_rebuilders(url: str, writer: Victim) -> None:
    """Of two that rebuild at once, one gets on and then the other; the views answer throughout, and are right."""
    over = threading.Event()
    with turnlog.open(url, durability="normal") as store:
        done: list[None] = []

        def rebuild() -> None:
            try:
                done.extend(together(rebuild_often, (url,), (url,)))
            finally:
                over.set()

        rebuilding = threading.Thread(target=rebuild)
        rebuilding.start()
        seen = Seen(SESSIONS, 3 * SESSIONS)
        while not over.wait(0.01):
            seen = look(store, seen)
            list(writer.reports(0))
        rebuilding.join()
        assert done == [None, None]
        report = store.verify()
        assert report.ok, report.failures


class Seen(NamedTuple):
    """What the views have told of, so far: sessions and messages, and when the newest was written."""

    sessions: int
    messages: int
    newest: datetime = datetime.min.replace(tzinfo=UTC)


def look(store: turnlog.ConversationStore, seen: Seen) -> Seen:
    """Ask the views as they stand, and brought up to date; they never tell of less than before."""
    eventual = store.sessions(limit=50, consistency="eventual")
    assert len(eventual.items) == 50
    assert len(store.messages(user_id="user 3", limit=20, consistency="eventual").items) == 20
    newest = store.sessions(limit=1).items[0]
    assert newest.version <= store.get(newest.session_id).version
    stats = store.stats()
    found = Seen(stats.sessions, stats.messages, eventual.items[0].updated_at)
    assert found.sessions >= seen.sessions
    assert found.messages >= seen.messages
    assert found.newest >= seen.newest
    return found
