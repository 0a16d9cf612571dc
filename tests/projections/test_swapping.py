"""The swap of a rebuilt built-in view: bit by bit beside writers, whole or not at all, and known to whoever erases."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.projections.log import STARTED, Log, filled, said
from turnlog.adapters.sqlite import swapping

TABLES = {"turnlog_session_index", "turnlog_message_index", "turnlog_message_owners"}


on_sqlite = pytest.mark.parametrize("log", ["memory", "file"], indirect=True)
in_a_file = pytest.mark.parametrize("kept_log", ["file"], indirect=True)


class Stop(Exception):
    """Interrupts a rebuild."""


@pytest.fixture
def level(log: Log) -> Log:
    """A log of twenty sessions, its built-in views level with it."""
    filled(log).with_views().engine.catch_up()
    return log


def tables(log: Log) -> dict[str, list[str]]:
    """Return the tables of views there are, each with the columns of its indexes; whatever those are called."""
    names = "name LIKE 'turnlog%index' OR name LIKE 'turnlog%owners'"
    found = log.query(f"SELECT name FROM sqlite_master WHERE type = 'table' AND ({names})")
    indexes = (
        "SELECT group_concat(c.name, ' ') FROM pragma_index_list(?) i, pragma_index_info(i.name) c GROUP BY i.name"
    )
    return {name: sorted(row[0] for row in log.query(indexes, name)) for (name,) in found}


def everything(log: Log) -> list[Any]:
    """Return every row of the views."""
    return [log.query(f"SELECT * FROM {table} ORDER BY tenant, session_id, version") for table in sorted(TABLES)]


def after_laying_out(log: Log, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something done when a rebuild has copied everything and not yet swapped."""
    lay_out = log.views.lay_out

    def then_act(built: Any, name: str) -> None:
        lay_out(built, name)
        act()

    monkeypatch.setattr(log.views, "lay_out", then_act)


def stop(*_: object) -> None:
    """Interrupt."""
    raise Stop


@on_sqlite
def test_the_tables_are_what_they_were(level: Log) -> None:
    """After any number of rebuilds: the same names, the same indexes, the same rows, and nothing beside them."""
    before, rows = tables(level), everything(level)
    assert set(before) == TABLES
    for _ in range(4):
        level.engine.rebuild()
        assert (tables(level), everything(level)) == (before, rows)
    assert level.engine.check("session_index") + level.engine.check("message_index") == []


@in_a_file
def test_writers_come_in_between(kept_log: Log, other: Callable[..., Log], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before every transaction of the swap somebody else appends; in the end the new generation has it all."""
    filled(kept_log, 300).with_views().engine.catch_up()
    writer, write = other(), kept_log.database.write
    transactions: list[int] = []

    def write_after_others(**options: Any) -> AbstractContextManager[Any]:
        transactions.append(writer.append(f"late-{len(transactions)}", STARTED, said("one")))
        written: AbstractContextManager[Any] = write(**options)
        return written

    monkeypatch.setattr(kept_log.database, "write", write_after_others)
    kept_log.engine.rebuild("session_index")
    monkeypatch.undo()
    assert len(transactions) > 10
    assert kept_log.engine.checkpoint("session_index") > transactions[4]
    assert kept_log.engine.catch_up()
    assert kept_log.row(f"late-{len(transactions) - 1}").summary.version == 2
    assert kept_log.engine.check("session_index") == []


@pytest.mark.parametrize("name", ["session_index", "message_index"])
def test_what_is_erased_between_copying_and_swapping_does_not_come_back(
    level: Log, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It was copied, and is forgotten in the transaction that makes the copy visible; what was said shows at once."""

    def meanwhile() -> None:
        level.delete("s-3")
        level.append("s-4", said("three"))

    after_laying_out(level, monkeypatch, meanwhile)
    level.engine.rebuild(name)
    assert not any("s-3" in repr(level.query(f"SELECT * FROM {table}")) for table in TABLES)
    assert level.engine.checkpoint(name) == level.recorder.position()
    assert level.engine.catch_up()
    assert level.row("s-4").summary.version == 4
    assert level.engine.check(name) == []


@on_sqlite
@pytest.mark.parametrize("name", ["session_index", "message_index"])
def test_what_an_interrupted_swap_left_is_dropped_by_an_erasure(
    level: Log, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Copies that nobody adopted hold personal data as well: with the unfinished build they are gone."""
    before, rows = tables(level), everything(level)
    after_laying_out(level, monkeypatch, stop)
    with pytest.raises(Stop):
        level.engine.rebuild(name)
    assert set(tables(level)) > TABLES
    assert everything(level) == rows
    level.delete("s-3")
    assert level.views.discard_builds() == []
    assert tables(level) == before
    assert "s-3" not in repr(everything(level))
    monkeypatch.undo()
    level.engine.rebuild()
    assert tables(level) == before


@in_a_file
def test_an_erasure_leaves_a_swap_alone_that_is_going_on(
    kept_log: Log, other: Callable[..., Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named as pending; also where an old check of the same view has left its files."""
    eraser, pending = other().with_views(), list[list[str]]()
    filled(kept_log).with_views().engine.catch_up()
    Path(f"{kept_log.path}-check-session_index-{'0' * 32}").touch()
    after_laying_out(kept_log, monkeypatch, lambda: pending.append(eraser.views.discard_builds()))
    kept_log.engine.rebuild("session_index")
    assert pending == [["session_index"]]
    assert kept_log.engine.check("session_index") == []
    assert set(tables(kept_log)) == TABLES


@on_sqlite
def test_what_an_interrupted_swap_left_is_dropped_by_the_next(level: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where copying was interrupted it is begun again, and where the old tables were not dropped yet they are."""
    before, rows = tables(level), everything(level)
    for name in ("_fill", "_empty"):
        monkeypatch.setattr(swapping, name, stop)
        with pytest.raises(Stop):
            level.engine.rebuild("message_index")
        monkeypatch.undo()
        assert len(tables(level)) > len(TABLES)
        assert everything(level) == rows
        level.engine.rebuild("message_index")
        assert (tables(level), everything(level)) == (before, rows)


@on_sqlite
def test_sql_views_of_others_go_on(level: Log) -> None:
    """One that reads a table of the session index reads the new one afterwards."""
    level.query("CREATE VIEW mine AS SELECT session_id FROM turnlog_session_index")
    for _ in range(3):
        level.engine.rebuild("session_index")
        assert len(level.query("SELECT * FROM mine")) == 20
    (sql,) = level.query("SELECT sql FROM sqlite_master WHERE name = 'mine'")
    assert sql == ("CREATE VIEW mine AS SELECT session_id FROM turnlog_session_index",)
