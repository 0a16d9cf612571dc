"""Erasing a session deletes its rows in every view in the same transaction, or says which views still hold it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.projections.log import STARTED, Log, Words, filled, said, words
from turnlog.domain import events as e
from turnlog.domain.values import RebuildProgress, RecordedEvent
from turnlog.projections.view_store import Trial


def forget(log: Log, session_id: str) -> list[str]:
    """Have the views forget a session as an erasure does; return those that could not."""
    with log.database.transaction() if log.is_mongodb else log.database.write() as connection:
        pending: list[str] = log.views.forget(connection, "default", session_id)
    return pending


@pytest.fixture
def known(log: Log) -> Log:
    """Two sessions in three views."""
    log.with_views()
    log.engine.add(Words())
    for session_id in ("a", "b"):
        log.append(session_id, STARTED, said("one"))
    assert log.engine.catch_up()
    return log


def test_rows_are_gone_with_the_erasure(known: Log) -> None:
    """Before any catching up, in every view, and nobody else's."""
    known.delete("a")
    assert known.views.select_session("default", "a") is None
    assert known.messages("a") == []
    assert words(known) == [("b", "one", 1)]
    assert known.row("b").summary.message_count == 1
    assert len(known.messages("b")) == 1


def test_views_that_forget_are_not_pending(known: Log) -> None:
    """Nothing is named where everything was deleted."""
    assert forget(known, "a") == []


def test_views_that_cannot_forget_are_named(kept_log: Log, other: Callable[..., Log]) -> None:
    """A projection without ``forget``, one of another program, and one stored in another revision."""
    kept_log.with_views()
    kept_log.engine.add(Unforgetting())
    assert forget(kept_log, "a") == ["words"]
    stranger = other()
    assert forget(stranger, "a") == ["message_index", "session_index", "words"]
    kept_log.query("UPDATE turnlog_views SET revision = 0 WHERE name = 'session_index'")
    assert forget(kept_log, "a") == ["session_index", "words"]


def test_a_projection_that_fails_to_forget_does_not_stop_the_erasure(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named as pending and logged, and what it had half done is undone."""

    class Failing(Words):
        def forget(self, tenant: str, session_id: str, connection: Any) -> None:
            super().forget(tenant, session_id, connection)
            raise ValueError("no")

    log.engine.add(Failing())
    log.append("a", STARTED, said("one"))
    assert log.engine.catch_up()
    assert forget(log, "a") == ["words"]
    assert words(log) == [("a", "one", 1)]
    assert "could not forget" in caplog.text


class Unforgetting(Words):
    """``Words`` that cannot forget."""

    forget = None  # type: ignore[assignment]


class Failing(Words):
    """``Words`` that fail to forget."""

    def forget(self, tenant: str, session_id: str, connection: Any) -> None:
        """Fail."""
        raise ValueError(f"cannot forget {session_id} of {tenant} in {connection}")


@pytest.mark.parametrize("view", [Unforgetting(), Failing()], ids=["cannot", "fails to"])
def test_a_view_that_read_of_an_erasure_and_did_not_forget_is_named_until_it_is_rebuilt(log: Log, view: Words) -> None:
    """No session is parked for it, the view goes on; a rebuild leaves nothing of the session, until the next one."""
    log.with_views()
    log.engine.add(view)
    for session_id in ("a", "b"):
        log.append(session_id, STARTED, said("one"))
    assert log.engine.catch_up()
    for session_id, left in (("a", [("b", "one", 1)]), ("b", [])):
        log.delete(session_id)
        assert log.engine.holding() == []  # it has not read that far
        assert log.engine.catch_up()
        assert log.engine.holding() == ["words"]
        assert (log.engine.parked("words"), {status.parked for status in log.engine.status()}) == ((), {0})
        assert session_id in {row[0] for row in words(log)}
        log.engine.rebuild("words")
        assert log.engine.holding() == []
        assert words(log) == left


def test_views_that_forget_hold_nothing(known: Log) -> None:
    """Also where the erasure was another program's, and they came to it later."""
    known.delete("a")
    known.append("b", e.SessionDeleted())
    assert known.engine.catch_up()
    assert known.engine.holding() == []
    assert words(known) == []


def test_what_was_erased_before_a_view_was_begun_is_not_in_it(log: Log) -> None:
    """Neither in one that is added to an old log, nor in one that is rebuilt from it."""
    log.append("a", STARTED, said("one"))
    log.delete("a")
    log.engine.add(Unforgetting())
    assert log.engine.catch_up()
    assert log.engine.holding() == []
    log.engine.rebuild()
    assert log.engine.holding() == []


class Stop(Exception):
    """Interrupts a rebuild."""


def test_what_is_erased_while_a_view_is_rebuilt_may_be_in_it(kept_log: Log, other: Callable[..., Log]) -> None:
    """It is named after the rebuild; also where that was interrupted, and another process went on with it."""

    def erase(now: RebuildProgress) -> None:
        if now.position == now.target:
            kept_log.delete(f"s-{now.target % 2}")
            raise Stop

    filled(kept_log, 2).engine.add(Unforgetting())
    assert kept_log.engine.catch_up()
    with pytest.raises(Stop):
        kept_log.engine.rebuild("words", erase)
    second = other()
    second.engine.add(Unforgetting())
    second.engine.rebuild("words")
    assert {row[0] for row in words(second)} == {"s-0", "s-1"}
    assert second.engine.holding() == ["words"]
    second.engine.purge()
    assert {row[0] for row in words(second)} == {"s-1"}
    assert second.engine.holding() == []


def test_purging_rebuilds_what_may_hold_something(kept_log: Log, other: Callable[..., Log]) -> None:
    """Only that, anew; whatever another program's view holds is for that program, and anybody can tell."""
    filled(kept_log.with_views(), 2).engine.add(Unforgetting())
    assert kept_log.engine.catch_up()
    with pytest.raises(Stop):
        kept_log.engine.rebuild("words", stop)
    kept_log.delete("s-0")
    assert kept_log.engine.catch_up()
    stranger = other().with_views()
    stranger.engine.purge()
    assert stranger.engine.holding() == ["words"]
    reader = other(read_only=True).with_views()
    reader.engine.add(Unforgetting())
    reader.engine.purge()
    assert reader.engine.holding() == ["words"]
    kept_log.query("UPDATE turnlog_session_index SET agent = 'untouched'")
    kept_log.engine.purge()
    assert stranger.engine.holding() == []
    assert {row[0] for row in words(kept_log)} == {"s-1"}
    assert kept_log.query("SELECT DISTINCT agent FROM turnlog_session_index") == [("untouched",)]


def stop(now: RebuildProgress) -> None:
    """Interrupt a rebuild when all is read."""
    if now.position == now.target:
        raise Stop


class Indexed(Words):
    """``Words`` with full-text search."""

    def create(self, connection: Any) -> None:
        """Create the tables."""
        super().create(connection)
        connection.execute("CREATE VIRTUAL TABLE search USING fts5 (session_id UNINDEXED, text)")

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Index what is said."""
        for recorded in events:
            if isinstance(recorded.event, e.MessageAdded):
                row = (recorded.session_id, recorded.event.message_id)
                connection.execute("INSERT INTO search VALUES (?, ?)", row)

    def forget(self, tenant: str, session_id: str, connection: Any) -> None:
        """Forget what the session said."""
        assert tenant
        connection.execute("DELETE FROM search WHERE session_id = ?", (session_id,))


@pytest.mark.parametrize("log", ["memory", "file"], indirect=True)
def test_purging_takes_deleted_words_out_of_search_indexes(log: Log) -> None:
    """Full-text search keeps them in its parts until those are merged, although no search finds them."""
    log.engine.add(Indexed())
    for word in ("one", "unspeakable", "two"):
        log.append(word, STARTED, said(word))
        assert log.engine.catch_up()
    log.delete("unspeakable")
    assert log.engine.catch_up()
    log.engine.purge()
    blocks = log.query("SELECT block FROM search_data")
    assert not any(b"unspeak" in block for (block,) in blocks)
    assert any(b"one" in block for (block,) in blocks)


def test_purging_leaves_a_view_that_cannot_be_rebuilt(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the view goes on being named; so does one that somebody else is building."""

    class Broken(Unforgetting):
        def create(self, connection: Any) -> None:
            super().create(connection)
            if broken:
                raise ValueError("broken")

    broken: list[bool] = []
    filled(log, 1).engine.add(Broken())
    log.delete("s-0")
    assert log.engine.catch_up()
    with log.building("words"):
        log.engine.purge()
    assert log.engine.holding() == ["words"]
    broken.append(True)
    log.engine.purge()
    assert "could not be rebuilt" in caplog.text
    assert log.engine.holding() == ["words"]


def test_a_deletion_that_ends_the_process_is_not_taken_for_forgotten(kept_log: Log) -> None:
    """It is parked after a few deaths, and the view is named."""
    filled(kept_log, 1).engine.add(Words())
    assert kept_log.engine.catch_up()
    position = kept_log.append("s-0", e.SessionDeleted())
    kept_log.views.begin_trial("words", Trial(position, position, 2))
    assert kept_log.engine.catch_up()
    assert [parked.version for parked in kept_log.engine.parked("words")] == [4]
    assert kept_log.engine.holding() == ["words"]


def test_a_tombstone_is_enough(log: Log) -> None:
    """A deleted session whose content was not destroyed is not shown either."""
    log.with_views()
    log.append("a", STARTED, said("one"), e.SessionDeleted())
    log.append("b", STARTED, said("one"))
    assert log.engine.catch_up()
    log.append("b", e.SessionDeleted())
    assert log.engine.catch_up()
    for table in ("session_index", "message_index", "message_owners"):
        assert log.query(f"SELECT * FROM turnlog_{table}") == []


def test_an_interrupted_check_leaves_nothing_behind(file_log: Log) -> None:
    """What was folded to compare with is personal data as well."""

    class Interrupting(Words):
        def apply(self, events: Any, connection: Any) -> None:
            super().apply(events, connection)
            if interrupting:
                raise KeyboardInterrupt

    interrupting: list[bool] = []
    file_log.engine.add(Interrupting())
    file_log.append("a", STARTED, said("one"))
    assert file_log.engine.catch_up()
    interrupting.append(True)
    with pytest.raises(KeyboardInterrupt):
        file_log.engine.check("words")
    assert file_log.path is not None
    assert list(file_log.path.parent.glob("*check*")) == []
