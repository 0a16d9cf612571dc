"""The plain driver: what turnlog is measured against.

``sqlite3`` as a careful programmer uses it by hand: one connection, statements that are prepared once (its statement
cache), WAL, the same ``synchronous``, explicit transactions, a table with the same kinds of key as turnlog's log.
"""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from scripts.benchmarks.measuring import timed, typically

Row: TypeAlias = tuple[str, int, str, bytes]
"""(stream, version, topic, state): what the log stores of one event."""
Append: TypeAlias = Callable[[sqlite3.Connection, Sequence[Row]], object]

STREAM = "default/0198c0de-0000-7000-8000-000000000000"
_TABLE = (
    "CREATE TABLE events (position INTEGER PRIMARY KEY, originator_id TEXT NOT NULL,"
    " originator_version INTEGER NOT NULL, topic TEXT NOT NULL, state BLOB NOT NULL,"
    " UNIQUE (originator_id, originator_version))"
)
_INSERT = "INSERT INTO events (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?)"
_SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL"}


def connect(path: Path, durability: str = "full") -> sqlite3.Connection:
    """Open a database file as turnlog does: WAL, autocommit unless a transaction is begun."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={_SYNCHRONOUS[durability]}")
    return connection


def append_each(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Insert rows, a transaction each."""
    execute = connection.execute
    for row in rows:
        execute("BEGIN IMMEDIATE")
        execute(_INSERT, row)
        execute("COMMIT")


def append_bare(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Insert rows, a transaction each that SQLite makes by itself: two statements fewer."""
    execute = connection.execute
    for row in rows:
        execute(_INSERT, row)


def append_pairs(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Insert rows, two to a transaction."""
    execute = connection.execute
    for i in range(0, len(rows), 2):
        execute("BEGIN IMMEDIATE")
        execute(_INSERT, rows[i])
        execute(_INSERT, rows[i + 1])
        execute("COMMIT")


def append_group(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Insert rows in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_INSERT, rows)
    connection.execute("COMMIT")


class Log:
    """A table with the log's columns and keys, to which one stream's rows are appended; a context manager.

    Args:
        path: the file; it is made.
        durability: as turnlog's.
        contents: (topic, state) of the rows, taken one after the other and then from the start again.
    """

    def __init__(self, path: Path, durability: str, contents: Sequence[tuple[str, bytes]]) -> None:
        self.connection = connect(path, durability)
        self.connection.execute(_TABLE)
        self._contents = contents
        self._version = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    def fill(self, n: int) -> None:
        """Append ``n`` rows at once."""
        append_group(self.connection, self._rows(n))

    def round(self, append: Append, n: int, of: int = 1) -> float:
        """Append ``n`` times ``of`` rows; return the seconds one of the ``n`` took."""
        rows = self._rows(n * of)
        return timed(n, lambda: append(self.connection, rows))

    def typically(self, append: Append, n: int, of: int = 1) -> float:
        """Append ``n`` times ``of`` rows; return the median of the seconds it took."""
        rows = self._rows(n * of)
        groups = iter([rows[i : i + of] for i in range(0, len(rows), of)])
        return typically(n, lambda: append(self.connection, next(groups)))

    def _rows(self, n: int) -> list[Row]:
        first, contents = self._version + 1, self._contents
        self._version += n
        return [(STREAM, first + i, *contents[i % len(contents)]) for i in range(n)]


def stored_messages(path: Path) -> list[tuple[str, bytes]]:
    """Return topic and state of every message in a turnlog store's log."""
    connection = connect(path)
    try:
        return connection.execute(
            "SELECT topic, state FROM turnlog_events WHERE topic LIKE 'MessageAdded.%' ORDER BY position"
        ).fetchall()
    finally:
        connection.close()
