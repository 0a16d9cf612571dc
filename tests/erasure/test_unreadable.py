"""What this program cannot read can be erased all the same; where not even the owner can be told, that is said."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import turnlog
from turnlog import SessionGone, UnknownEvent


def of_the_future(path: Path, session_id: str, version: int) -> None:
    """Have a newer turnlog have written this event."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE turnlog_events SET topic = 'Mystery.v1' WHERE originator_id = ? AND originator_version = ?",
            (f"default/{session_id}", version),
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two sessions of alice and one of bob, with an event in each that cannot be read; no view has seen them yet."""
    path = tmp_path / "sessions.db"
    with turnlog.open(f"sqlite:///{path}") as store:
        for session_id, user_id in (("owned", "alice"), ("assigned", None), ("unknown", "alice"), ("bobs", "bob")):
            session = store.session(session_id, user_id=user_id)
            session.add_message("user", f"secret of {session_id}")
        store.get("assigned").assign_owner("alice")
    of_the_future(path, "owned", 2)
    of_the_future(path, "assigned", 2)
    of_the_future(path, "unknown", 1)
    of_the_future(path, "bobs", 2)
    return path


def contents(path: Path) -> bytes:
    """Return all bytes of the log."""
    with closing(sqlite3.connect(path)) as connection:
        return b"".join(state for (state,) in connection.execute("SELECT state FROM turnlog_events"))


def test_an_unreadable_session_is_erased_with_its_user(path: Path) -> None:
    """By the owner that its readable events tell; bob's stays, and one whose owner is unreadable is named."""
    with turnlog.open(f"sqlite:///{path}") as store:
        with pytest.raises(UnknownEvent):
            store.get("owned")
        report = store.erase_user("alice")
        assert report.sessions == 2
        assert [words for words in report.pending if "unknown" in words]
        for session_id in ("owned", "assigned"):
            with pytest.raises(SessionGone):
                store.get(session_id)
            assert f"secret of {session_id}".encode() not in contents(path)
        assert b"secret of unknown" in contents(path)
        assert b"secret of bobs" in contents(path)


def test_of_a_user_with_very_many_sessions_all_are_erased_in_one_transaction(tmp_path: Path) -> None:
    """However many there are, no moment shows some of them gone and others not."""
    with turnlog.open(f"sqlite:///{tmp_path}/sessions.db", durability="normal") as store:
        for _ in range(1_100):
            store.session(user_id="alice")
        position = store.position
        assert store.erase_user("alice").sessions == 1_100
        (first, *_) = store.events(after=position)
        assert store.position == position + 1_100
        assert not store.sessions(user_id="alice").items
        appends = {event.recorded_at for event in store.events(after=position)}
        assert first.recorded_at in appends
