"""A rebuild killed at random instants, while another process writes and this one reads."""

import random
from collections.abc import Iterator
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic

import pytest

import turnlog
from tests.faults.processes import Victim

pytestmark = pytest.mark.slow
ROUNDS = 24
SESSIONS = 400
"""So many that a rebuild takes longer than most kills."""
LONGEST_S = 0.25
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
            store.rebuild()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store of many sessions, its views up to date."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    with turnlog.open(url, durability="normal") as store:
        for i in range(SESSIONS):
            store.session(f"s-{i}", user_id=f"user {i % 7}", history=[{"role": "user", "content": "x"}] * 3)
        store.catch_up()
    return url


@pytest.fixture
def writer(url: str) -> Iterator[Victim]:
    """The process that writes beside the rebuild."""
    victim = Victim(write_on, url)
    victim.first()
    yield victim
    victim.kill()


def test_killed_rebuilds(url: str, writer: Victim, tmp_path: Path) -> None:
    """The views answer throughout, never with fewer sessions than before, and the next rebuild succeeds."""
    dice = random.Random(10)  # noqa: S311 - no secret
    with turnlog.open(url, durability="normal") as store:
        seen = SESSIONS
        for _ in range(ROUNDS):
            rebuilder = Victim(rebuild_on, url)
            rebuilder.first()
            end = monotonic() + dice.uniform(0, LONGEST_S)
            while monotonic() < end:
                seen = look(store, seen)
            rebuilder.kill()
            list(writer.reports(0))
            seen = look(store, seen)
        store.rebuild()
        report = store.verify()
        assert report.ok, report.failures
        assert look(store, seen) >= seen
        assert store.scrub(vacuum=False).pending[1:] == ()
    left = {file.name for file in tmp_path.glob("*-rebuild-*") if file.suffix != ".claim"}
    assert not left, "a half-built view was left behind"


def look(store: turnlog.ConversationStore, seen: int) -> int:
    """Ask the views as they stand, and brought up to date; return how many sessions there are."""
    eventual = store.sessions(limit=50, consistency="eventual")
    assert len(eventual.items) == 50
    assert len(store.messages(user_id="user 3", limit=20, consistency="eventual").items) == 20
    newest = store.sessions(limit=1).items[0]
    assert newest.version <= store.get(newest.session_id).version
    found = store.stats().sessions
    assert found >= seen
    return found
