"""Checking views against an independent fold: every planted change is found, and named."""

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.projections.log import STARTED, Log, Words, said
from turnlog.adapters.sqlite.database import Database
from turnlog.domain.errors import StoreUnavailable
from turnlog.domain.mapper import LogRow


@pytest.fixture
def checked(log: Log) -> Log:
    """A log of three sessions, its views level and right."""
    log.with_views()
    log.engine.add(Words())
    for session_id in ("a", "b", "c"):
        log.append(session_id, STARTED, said("one"), said("two"), said("three"))
    assert log.engine.catch_up()
    for status in log.engine.status():
        assert log.engine.check(status.name) == []
    return log


SESSION = "turnlog_session_index"
MESSAGE = "turnlog_message_index"
PLANTED = [
    ("session_index", f"UPDATE {SESSION} SET message_count = 7 WHERE session_id = 'b'", "message_count"),
    ("session_index", f"UPDATE {SESSION} SET user_id = NULL, agent = 'x' WHERE session_id = 'b'", "user_id, agent"),
    ("session_index", f"UPDATE {SESSION} SET updated_at = updated_at + 1 WHERE session_id = 'b'", "updated_at"),
    ("session_index", f"UPDATE {SESSION} SET version = '4' WHERE session_id = 'b'", None),
    ("session_index", f"DELETE FROM {SESSION} WHERE session_id = 'b'", "is missing"),
    ("message_index", f"UPDATE {MESSAGE} SET position = 99 WHERE session_id = 'b' AND ordinal = 2", "position"),
    ("message_index", f"DELETE FROM {MESSAGE} WHERE session_id = 'b' AND ordinal = 2", "is missing"),
    ("message_index", "UPDATE turnlog_message_owners SET ordinal = 99 WHERE session_id = 'b'", "ordinal"),
    ("words", "UPDATE words SET said = said + 1 WHERE session_id = 'b' AND word = 'one'", "said"),
    ("words", "DELETE FROM words WHERE session_id = 'b' AND word = 'one'", "is missing"),
]


@pytest.mark.parametrize(("name", "statement", "words"), PLANTED)
def test_a_changed_row_is_found(checked: Log, name: str, statement: str, words: str | None) -> None:
    """One difference is told, with view and session; the views that were not touched stay right."""
    checked.query(statement)
    found = checked.engine.check(name)
    if words is None:
        assert found == []  # the column's affinity has made it the same value
        return
    (difference,) = found
    assert f"view {name!r}" in difference
    assert "'b'" in difference
    assert words in difference
    for other in {"session_index", "message_index", "words"} - {name}:
        assert checked.engine.check(other) == []


def test_a_row_too_many_is_found(checked: Log) -> None:
    """A session that no event has started does not pass."""
    columns = "tenant, session_id, status, message_count, created_at, updated_at, version"
    values = "'default', 'ghost', 'active', 0, 0, 0, 1, 90, 90"
    checked.query(f"INSERT INTO {SESSION} ({columns}, created_position, updated_position) VALUES ({values})")
    (difference,) = checked.engine.check("session_index")
    assert "session 'ghost'" in difference
    assert difference.endswith("should not be there")


def test_the_sessions_of_another_tenant_are_not_named(checked: Log) -> None:
    """To one tenant it is said that another's rows are wrong, once and without their ids; to no tenant in full."""
    for session_id in ("secret-1", "secret-2"):
        checked.append(session_id, STARTED, said("one"), tenant="other")
    assert checked.engine.catch_up()
    checked.query(f"UPDATE {SESSION} SET message_count = 7 WHERE session_id IN ('a', 'secret-1', 'secret-2')")
    ours, theirs = checked.engine.check("session_index", "default")
    assert "session 'a' of tenant 'default'" in ours
    assert theirs.endswith("table 'turnlog_session_index': a row of another tenant differs in message_count")
    assert len(checked.engine.check("session_index")) == 3
    checked.query(f"UPDATE {MESSAGE} SET position = 99 WHERE tenant = 'other'")
    (difference,) = checked.engine.check("message_index", "default")
    assert "another tenant" in difference
    assert "ordinal" not in difference


def test_no_room_for_the_check_is_no_difference(file_log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the storage fails the check could not be made: it raises, and the view is not called wrong."""
    file_log.with_views().append("a", STARTED)
    assert file_log.engine.catch_up()
    beside = file_log.database.beside

    def small(name: str) -> Database:
        scratch: Database = beside(name)
        with scratch.write() as connection:
            connection.execute("PRAGMA max_page_count=3")
        return scratch

    monkeypatch.setattr(file_log.database, "beside", small)
    with pytest.raises(StoreUnavailable, match="full"):
        file_log.engine.check("session_index")
    monkeypatch.setattr(os, "open", _no_room)
    with pytest.raises(StoreUnavailable, match="no place to build a view: No space left"):
        file_log.engine.check("session_index")


def _no_room(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_rebuilding_mends_what_was_found(checked: Log) -> None:
    """After a rebuild the check finds nothing."""
    checked.query(f"UPDATE {SESSION} SET message_count = 7")
    assert len(checked.engine.check("session_index")) == 3
    checked.engine.rebuild("session_index")
    assert checked.engine.check("session_index") == []


def test_what_the_view_has_not_applied_is_no_difference(checked: Log) -> None:
    """The fold goes as far as the view, whatever was appended or erased since."""
    checked.append("a", said("more"))
    checked.delete("b")
    checked.append("d", STARTED)
    for status in checked.engine.status():
        assert status.lag == 3
        assert checked.engine.check(status.name) == []


@pytest.mark.parametrize("moment", ["before the rows are looked at", "while they are"])
@pytest.mark.parametrize("name", ["session_index", "message_index", "words"])
def test_an_erasure_during_the_check_is_no_difference(
    kept_log: Log, monkeypatch: pytest.MonkeyPatch, name: str, moment: str
) -> None:
    """A session that was folded, and erased before its row was compared, is no difference."""
    kept_log.with_views().append("a", STARTED, said("one"))
    kept_log.engine.add(Words())
    kept_log.append("b", STARTED)
    assert kept_log.engine.catch_up()
    looks: list[int] = []

    def read() -> AbstractContextManager[Any]:
        looks.append(0)
        if len(looks) == 2 and moment == "before the rows are looked at":
            kept_log.delete("a")
        lent: AbstractContextManager[Any] = views_read()
        return lent

    def select_log(**options: Any) -> list[LogRow]:
        if options["limit"] == 1 and len(looks) == 2 and moment == "while they are":
            looks.append(0)
            kept_log.delete("a")
        rows: list[LogRow] = recorder_select_log(**options)
        return rows

    views_read, recorder_select_log = kept_log.views.read, kept_log.recorder.select_log
    monkeypatch.setattr(kept_log.views, "read", read)
    monkeypatch.setattr(kept_log.recorder, "select_log", select_log)
    assert kept_log.engine.check(name) == []
    assert kept_log.recorder.position() == 4


def test_another_log_is_found(kept_log: Log) -> None:
    """A view that was made of other events at the same positions is told from one of this log."""
    kept_log.with_views().append("a", STARTED)
    assert kept_log.engine.catch_up()
    kept_log.query("UPDATE turnlog_views SET mark = ''")
    (difference,) = kept_log.engine.check("session_index")
    assert "another event at position 1" in difference


def test_a_view_that_is_not_there_is_found(log: Log) -> None:
    """A checkpoint of another revision, or none, is a difference."""
    log.with_views()
    log.query("DELETE FROM turnlog_views WHERE name = 'session_index'")
    (difference,) = log.engine.check("session_index")
    assert difference == "view 'session_index' is not there in revision 1: rebuild it"


def test_many_differences_are_cut_off(log: Log) -> None:
    """A view that is wrong throughout is told of in a hundred lines."""
    log.with_views()
    for n in range(120):
        log.append(f"s-{n}", STARTED)
    assert log.engine.catch_up()
    log.query(f"UPDATE {SESSION} SET agent = 'x'")
    assert len(log.engine.check("session_index")) == 100


@pytest.mark.parametrize("kept_log", ["file"], indirect=True)
def test_a_check_leaves_nothing_behind(kept_log: Log, other: Callable[..., Log]) -> None:
    """Neither beside the database nor, for a read-only store, anywhere it should not."""
    kept_log.with_views().append("s", STARTED)
    assert kept_log.engine.catch_up()
    assert kept_log.path is not None
    before = {file.name for file in kept_log.path.parent.iterdir()}
    assert kept_log.engine.check("session_index") == []
    assert other(read_only=True).with_views().engine.check("session_index") == []
    assert {file.name for file in kept_log.path.parent.iterdir()} == before
