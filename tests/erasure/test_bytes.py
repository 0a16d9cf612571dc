"""No file beside the database holds a byte of an erased person's words, and everybody else's are all there."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import turnlog
from tests.erasure.planting import BIG, ForgettingNotes, Words, converse, remains
from turnlog import ConversationStore
from turnlog.domain.events import TOPICS
from turnlog.domain.values import ErasureReport, RebuildProgress
from turnlog.projections import building

SESSIONS = {"one": 0, "two": 300, "three": BIG}
"""A person's sessions, and the size of their contents."""


OF_VIEWS = ("session_index", "message_index", "message_owners", "message_search", "search_owners", "search_words_data")
TABLES = ("events", "keys", "snapshots", "parked", *OF_VIEWS)


class Stop(Exception):
    """Interrupts a rebuild."""


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebuild in pages of ten events, so that there is something to interrupt."""
    monkeypatch.setattr(building, "PAGE", 10)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ConversationStore]:
    """A store in a file that does not wait long for a reader."""
    with turnlog.open(f"sqlite:///{tmp_path}/sessions.db", timeout_s=0.2) as opened:
        yield opened


def populate(store: ConversationStore) -> tuple[Words, Words]:
    """Let two people talk by turns, in views, snapshots, parked rows and unfinished rebuilds; return their words."""
    alice, bob = Words("alice"), Words("bob")
    store.add_projection(ForgettingNotes(poison=".returned."))
    assert store.search(alice.start).items == []  # so that there is an index of words as well
    for name, size in SESSIONS.items():
        for person, words in (("a", alice), ("b", bob)):
            converse(store, f"{person}-{name}", words, size)
            store.catch_up()
    for view in ("session_index", "message_index", "message_search", "notes"):
        with pytest.raises(Stop):
            store.rebuild(view, _stop_late)
    return alice, bob


def _stop_late(now: RebuildProgress) -> None:
    if now.position > now.target * 0.9:
        raise Stop


def erase(store: ConversationStore, words: Words, how: str) -> ErasureReport | None:
    """Erase a person's sessions one by one, or all at once."""
    if how == "erase_user":
        return store.erase_user(words.user)
    for session in store.sessions(user_id=words.user).items:
        store.get(session.session_id).delete()
    return None


def test_the_planting_reaches_everything(store: ConversationStore, tmp_path: Path) -> None:
    """Every kind of event is there, and the words are in the log, keys, snapshots, views, parked rows and rebuilds."""
    alice, bob = populate(store)
    assert {event.topic for event in store.events()} == TOPICS.keys() - {"SessionDeleted.v1"}
    assert set(remains(tmp_path, alice)) == set(alice.planted)
    assert set(remains(tmp_path, bob)) == set(bob.planted)
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
        for table in TABLES:
            rows = repr(connection.execute(f"SELECT * FROM turnlog_{table}").fetchall())
            assert alice.start in rows, table
    assert {status.name: status.parked for status in store.stats().views}["notes"] == 2 * len(SESSIONS)
    for view in ("session_index", "message_index", "message_search", "notes"):
        files = tmp_path.glob(f"sessions.db-rebuild-{view}*")
        assert alice.start.encode() in b"".join(file.read_bytes() for file in files), view


@pytest.mark.parametrize("how", ["delete", "erase_user"])
def test_no_byte_of_an_erased_person_is_left(store: ConversationStore, tmp_path: Path, how: str) -> None:
    """After ``scrub``, with the store still open, in the database, its logs and the files of unfinished rebuilds."""
    alice, bob = populate(store)
    erase(store, alice, how)
    erasure = store.scrub()
    assert (erasure.complete, erasure.pending) == (True, ())
    assert remains(tmp_path, alice) == []
    assert set(remains(tmp_path, bob)) == set(bob.planted)
    assert store.search(alice.start).items == []
    assert len(store.search(bob.start, limit=500).items) == len(store.messages(user_id=bob.user, limit=500).items)


@pytest.mark.parametrize("how", ["delete", "erase_user"])
def test_the_others_read_on(store: ConversationStore, how: str) -> None:
    """What another person's sessions say is as it was, in handles, views and events."""
    alice, bob = populate(store)

    def told() -> list[object]:
        sessions = [store.get(f"b-{name}") for name in SESSIONS]
        read = [(session.state, session.history(), list(session.events())) for session in sessions]
        return [read, store.sessions(user_id=bob.user).items, store.messages(user_id=bob.user, limit=500).items]

    before = told()
    erase(store, alice, how)
    store.scrub()
    assert told() == before
    store.rebuild()
    assert told() == before


@pytest.mark.parametrize("how", ["delete", "erase_user"])
def test_the_log_still_verifies(store: ConversationStore, how: str) -> None:
    """With the erased sessions in it, and against the heads that were kept before."""
    alice, _ = populate(store)
    heads = list(store.heads())
    erase(store, alice, how)
    store.scrub()
    report = store.verify(heads=heads)
    assert (report.failures, report.ok, report.sessions) == ((), True, 2 * len(SESSIONS))
    assert store.verify("a-one").ok


def test_the_report_counts(store: ConversationStore) -> None:
    """Sessions, their events with the tombstones, and where bytes may linger until the scrub."""
    alice, _ = populate(store)
    events = sum(store.get(f"a-{name}").version for name in SESSIONS)
    report = store.erase_user(alice.user)
    assert (report.sessions, report.events, report.forks) == (3, events + 3, 0)
    assert ["write-ahead log" in words for words in report.pending] == [True]
    again = store.erase_user(alice.user)
    assert (again.sessions, again.events, again.pending) == (0, 0, ())


def test_the_name_of_a_session_stays(store: ConversationStore, tmp_path: Path) -> None:
    """By design: it is the stream's name, which the log proves; so personal names do not belong in session ids."""
    store.session("nameofastream", user_id="alice").delete()
    assert store.scrub().complete
    assert b"nameofastream" in (tmp_path / "sessions.db").read_bytes()


def test_an_open_reader_is_named_until_it_ends(store: ConversationStore, tmp_path: Path) -> None:
    """What a reader's transaction can still see is still there: the scrub says so, and completes after it."""
    alice, bob = populate(store)
    with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        count = reader.execute("SELECT count(*) FROM turnlog_events").fetchone()
        receipt = store.get("a-one").delete()
        store.erase_user(alice.user)
        assert receipt.erasure is not None
        assert not receipt.erasure.complete
        assert any("write-ahead log" in words for words in receipt.erasure.pending)
        erasure = store.scrub()
        assert not erasure.complete
        assert ["open reader" in words for words in erasure.pending] == [True]
        assert remains(tmp_path, alice) != []
        assert reader.execute("SELECT count(*) FROM turnlog_events").fetchone() == count
        reader.execute("COMMIT")
    assert store.scrub().complete
    assert remains(tmp_path, alice) == []
    assert set(remains(tmp_path, bob)) == set(bob.planted)
    assert store.search(alice.start).items == []
    assert len(store.search(bob.start, limit=500).items) == len(store.messages(user_id=bob.user, limit=500).items)


def test_a_rebuild_that_is_running_forgets_what_is_erased_meanwhile(store: ConversationStore, tmp_path: Path) -> None:
    """It is named as pending while it runs; what takes the old view's place holds nothing of the erased."""
    alice, bob = populate(store)
    pending: list[tuple[str, ...]] = []

    def erase_late(now: RebuildProgress) -> None:
        if not pending and now.position > now.target * 0.95:
            pending.append(store.erase_user(alice.user).pending)

    store.rebuild("message_index", erase_late)
    assert "the rebuild of message_index that is running" in pending[0]
    assert store.messages(user_id=alice.user).items == []
    assert store.scrub().complete
    assert remains(tmp_path, alice) == []
    assert set(remains(tmp_path, bob)) == set(bob.planted)
    assert store.search(alice.start).items == []
    assert len(store.search(bob.start, limit=500).items) == len(store.messages(user_id=bob.user, limit=500).items)
    assert store.verify().ok


def test_without_vacuum_the_file_is_not_called_clean(store: ConversationStore) -> None:
    """Pages keep copies that SQLite made when it moved rows: ``scrub(vacuum=False)`` says so."""
    alice, _ = populate(store)
    store.erase_user(alice.user)
    erasure = store.scrub(vacuum=False)
    assert not erasure.complete
    assert ["free space inside the pages" in words for words in erasure.pending] == [True]
