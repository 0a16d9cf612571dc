"""Read models in another database than the log's: they follow it, whatever the two are."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import turnlog
from tests.adapters.exports import Store
from turnlog.domain.values import RebuildProgress
from turnlog.tables import AgentTables, Elsewhere


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def other_url(request: pytest.FixtureRequest) -> str:
    """A database that has nothing in it."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def log() -> Iterator[Store]:
    """A store in memory with two sessions."""
    with turnlog.open("memory://") as opened:
        opened.session("s1", user_id="alice").add_message("user", "hi", message_id="m-1")
        opened.session("s2").add_message("user", "secret")
        yield opened


def test_a_view_follows_into_another_database(log: Store, other_url: str) -> None:
    """It comes to the log's head, goes on when opened again, forgets what was erased, and can be rebuilt."""
    with Elsewhere(log, other_url, AgentTables()) as other:
        other.catch_up()
        (status,) = other.status()
        assert (status.name, status.position, status.lag) == ("agent_tables", log.position, 0)
    log.get("s1").add_message("assistant", "hello")
    log.get("s2").delete()
    asked = iter((True, True, False))
    with Elsewhere(log, other_url, AgentTables()) as other:
        other.follow(lambda: next(asked))
        assert other.status()[0].lag == 0
        other.rebuild()
        assert other.status()[0].parked == 0


def test_what_stands_there(log: Store, tmp_path: Path) -> None:
    """Rows and checkpoint are committed together: interrupted after any page, the next follower goes on."""
    path = tmp_path / "other.db"

    def interrupt(_: RebuildProgress) -> None:
        raise KeyboardInterrupt

    for i in range(600):
        log.get("s1").add_message("user", str(i))
    with Elsewhere(log, f"sqlite:///{path}", AgentTables()) as other, pytest.raises(KeyboardInterrupt):
        other.catch_up(interrupt)
    log.get("s2").delete()
    with Elsewhere(log, f"sqlite:///{path}", AgentTables()) as other:
        assert other.status()[0].lag > 0
        other.catch_up()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT id, message_count FROM agent_sessions").fetchall() == [("s1", 601)]
        contents = [row[0] for row in database.execute("SELECT content FROM agent_messages ORDER BY created_at")]
    assert contents == ["hi", *map(str, range(600))]


def test_another_log_is_refused(log: Store, empty: Store, tmp_path: Path) -> None:
    """Tables that follow one log do not go on with another, and there is no following into what has no tables."""
    url = f"sqlite:///{tmp_path}/other.db"
    with Elsewhere(log, url, AgentTables()) as other:
        other.catch_up()
    empty.session("mine").add_message("user", "hi")
    with pytest.raises(turnlog.InvalidInput, match="follows another log"):
        Elsewhere(empty, url, AgentTables())
    with pytest.raises(turnlog.InvalidInput, match="a database with tables"):
        Elsewhere(log, "memory://", AgentTables())
