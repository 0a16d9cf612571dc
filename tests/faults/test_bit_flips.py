"""Damage inside rows: one bit of an event's bytes, or a value of any table changed behind the store's back."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import turnlog
from tests.faults.damage import Files, Found, Prepared, examine, prepare
from tests.faults.script import Run, past

TABLES = (
    "events",
    "keys",
    "snapshots",
    "tracking",
    "views",
    "session_index",
    "message_index",
    "message_owners",
)
SILENT = ("snapshots.", "tracking.application_name", "views.tables")
"""What may change without a word, no answer being wrong: a damaged snapshot is as good as none; the mark of the schema
is made anew; a view's list of its tables serves dropping it."""
NO_TYPE: dict[str, dict[str, object]] = {
    "state is text": {"state": "text"},
    "state is a number": {"state": 7},
    "state is empty": {"state": b""},
    "topic is bytes": {"topic": b"MessageAdded.v1"},
    "topic is empty": {"topic": ""},
    "version is text": {"originator_version": "two"},
    "version is bytes": {"originator_version": b"2"},
    "version is none that fits": {"originator_version": 77_777},
    "stream is bytes": {"originator_id": b"default/s-1"},
    "stream is another": {"originator_id": "default/elsewhere"},
    "stream is another tenant's": {"originator_id": "other/s-1"},
    "position is another": {"position": 77_777},
}


class Row(NamedTuple):
    """An event's place and bytes."""

    position: int
    session_id: str
    version: int
    state: bytes


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A database with a known past and no write-ahead log."""
    prepared: Prepared = prepare(tmp_path_factory.mktemp("prepared"))
    return prepared.in_main


@pytest.fixture(scope="module")
def rows(files: Files, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Every event of a session that was not deleted."""
    path = tmp_path_factory.mktemp("rows") / "store.db"
    files.write(path)
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT position, substr(originator_id, 9), originator_version, state FROM turnlog_events"
            " WHERE originator_id NOT IN ('default/gone', 'default/n-3') ORDER BY position"
        ).fetchall()
    return [Row(*row) for row in found]


def test_a_flipped_bit_is_named_with_session_and_version(files: Files, rows: list[Row], tmp_path: Path) -> None:
    """Whatever bit of an event flips, verify names that event first in that session, and no other session."""
    dice = random.Random(6)  # noqa: S311 - no secret
    wrong: list[object] = []
    with _opened(files, tmp_path) as store, closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        for _ in range(150):
            row = dice.choice(rows)
            bit = dice.randrange(len(row.state) * 8)
            flipped = bytearray(row.state)
            flipped[bit // 8] ^= 1 << bit % 8
            _update(connection, row.position, state=bytes(flipped))
            report = store.verify(row.session_id)
            if [(f.session_id, f.version) for f in report.failures] != [(row.session_id, row.version)]:
                wrong.append((row.session_id, row.version, bit, report))
            _update(connection, row.position, state=row.state)
        assert store.verify().ok
    assert not wrong


def test_other_sessions_stay_readable_and_writable(files: Files, rows: list[Row], tmp_path: Path) -> None:
    """With an event of one session unreadable, the whole verify names it alone and the others go on."""
    row = next(row for row in rows if row.session_id == "s-1" and row.version == 3)
    with _opened(files, tmp_path) as store, closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        before = {name: _told(store, name) for name in past().session_ids if store.exists(name) and name != "s-1"}
        _update(connection, row.position, state=b"\x00" * len(row.state))
        named = {(f.session_id, f.version) for f in store.verify().failures if f.session_id is not None}
        assert named == {("s-1", 3)}
        with pytest.raises(turnlog.CorruptLog, match="s-1"):
            store.get("s-1").history()
        assert {name: _told(store, name) for name in before} == before
        assert store.get("n-0").add_message("user", "on").version
        assert store.sessions(limit=1).items[0].session_id == "n-0"


@pytest.mark.parametrize("name", NO_TYPE)
def test_a_row_that_is_no_event_is_told(files: Files, rows: list[Row], tmp_path: Path, name: str) -> None:
    """A column of another type, or of another value, is told; nothing but the store's own errors is raised."""
    for row in (next(row for row in rows if row.session_id == "s-1" and row.version == 2), rows[-1]):
        found = _examine_changed(files, tmp_path, _setting(row.position, NO_TYPE[name]))
        assert not found.ok
        assert found.ours, found.told


def test_no_row_of_any_table_can_change_unnoticed(files: Files, tmp_path: Path) -> None:
    """Any column of any table, another row's value or another value: told, or the answers are right all the same."""
    dice, wrong, silent = random.Random(7), list[object](), set[str]()  # noqa: S311 - no secret
    done: list[bool] = []
    for table in TABLES:
        for column in _columns(files, tmp_path, table):
            for value in ("neighbour", "other"):
                where = (table, column, value, dice.randrange(1 << 30))
                found = _examine_changed(files, tmp_path, _changing(where, done))
                if found.wrong:
                    wrong.append((*where, found.told))
                if found.ok and done[-1]:
                    silent.add(f"{table}.{column}")
    assert not wrong
    assert sum(done) > len(done) // 2
    assert [name for name in sorted(silent) if not name.startswith(SILENT)] == []


@pytest.mark.parametrize("table", ["session_index", "message_index", "message_owners", "keys"])
def test_a_row_that_is_gone_from_a_table_is_told(files: Files, tmp_path: Path, table: str) -> None:
    """A view without one of its rows does not verify; nor do keys of which one leads nowhere."""
    sql = f"DELETE FROM turnlog_{table} WHERE rowid = (SELECT max(rowid) FROM turnlog_{table})"
    if table == "keys":
        sql = "UPDATE turnlog_keys SET version = version + 1 WHERE rowid = 3"
    found = _examine_changed(files, tmp_path, lambda connection: connection.execute(sql))
    assert not found.ok
    assert not found.wrong, found.told


def _opened(files: Files, directory: Path) -> turnlog.ConversationStore:
    files.write(directory / "store.db")
    return Run().open(f"sqlite:///{directory}/store.db")


def _told(store: turnlog.ConversationStore, session_id: str) -> Any:
    session = store.get(session_id)
    return session.state, session.history()


def _update(connection: sqlite3.Connection, position: int, /, **columns: object) -> None:
    names = ", ".join(f"{name} = ?" for name in columns)
    with connection:
        connection.execute(f"UPDATE turnlog_events SET {names} WHERE position = ?", (*columns.values(), position))


def _columns(files: Files, directory: Path, table: str) -> list[str]:
    path = directory / "columns.db"
    files.write(path)
    with closing(sqlite3.connect(path)) as connection:
        return [row[1] for row in connection.execute(f"PRAGMA table_info(turnlog_{table})")]


def _change(connection: sqlite3.Connection, table: str, column: str, value: str, seed: int) -> bool:
    """Put another row's value, or one that no row has, into a row; return whether the table allows that."""
    all_rows = connection.execute(f"SELECT rowid, {column} FROM turnlog_{table} ORDER BY rowid").fetchall()
    dice = random.Random(seed)  # noqa: S311 - no secret
    rowid, old = dice.choice(all_rows)
    others = [other for _, other in all_rows if other != old]
    new = dice.choice(others) if value == "neighbour" and others else _other(old)
    statement = f"UPDATE OR IGNORE turnlog_{table} SET {column} = ? WHERE rowid = ?"
    return connection.execute(statement, (new, rowid)).rowcount == 1


def _setting(position: int, columns: dict[str, object]) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: _update(connection, position, **columns)


def _changing(where: tuple[str, str, str, int], done: list[bool]) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: done.append(_change(connection, *where))


def _other(value: object) -> object:
    match value:
        case int():
            return value + 1_000_000
        case bytes():
            return value[:-1] + bytes([value[-1] ^ 1])
        case str():
            return f"{value}x"
        case _:
            return "x"


def _examine_changed(files: Files, directory: Path, change: Callable[[sqlite3.Connection], object]) -> Found:
    path = directory / "changed.db"
    files.write(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        change(connection)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return examine(Files(path.read_bytes()), directory / "store")
