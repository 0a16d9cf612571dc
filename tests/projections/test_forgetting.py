"""Erasing a session deletes its rows in every view in the same transaction, or says which views still hold it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.projections.log import STARTED, Log, Words, said, words
from turnlog.domain import events as e


def forget(log: Log, session_id: str) -> list[str]:
    """Have the views forget a session as an erasure does; return those that could not."""
    with log.database.write() as connection:
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

    class Unforgetting(Words):
        forget = None  # type: ignore[assignment]

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
