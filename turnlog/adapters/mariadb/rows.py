"""Rows of the built-in views on MariaDB and MySQL, and how those are spoken to."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec
from msgspec.structs import astuple

from turnlog.adapters.mariadb.connection import Connection, rendered, run
from turnlog.adapters.wording import Table, Wording

MARIADB = Wording(
    "MARIADB",
    "%s",
    quote="`",
    conflict="ON DUPLICATE KEY UPDATE",
    given="VALUES({})",
    limits_changes=True,
    run=run,
    listed=list,
)
MYSQL = MARIADB._replace(dialect="MYSQL")
_CHUNK = 500
"""Rows a statement: of a list of 1,000 or more MariaDB makes a table to join."""


class MariaDBRows:
    """Rows of one table; see ``view_tables.Rows``."""

    def __init__(self, table: Table) -> None:
        columns = MARIADB.listing(table.columns)
        of_sessions = f"WHERE ({MARIADB.listing(table.key)}) IN %s"
        self._select = f"SELECT {columns} FROM {table.name} {of_sessions}"
        self._insert = f"INSERT INTO {table.name} ({columns}) VALUES ".encode()
        self._row = f"({MARIADB.marks(len(table.columns))})"
        self._replacing = f" {MARIADB.replacing(table.key, table.changing)}".encode()
        self._delete = f"DELETE FROM {table.name} {of_sessions}"

    def load(self, connection: Connection, streams: Collection[str]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of sessions."""
        for keys in _chunks([stream.split("/", 1) for stream in streams]):
            yield from run(connection, self._select, (keys,)).fetchall()

    def insert(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows that are new."""
        self._write(connection, rows, b"")

    def replace(self, connection: Connection, rows: Sequence[msgspec.Struct]) -> None:
        """Insert rows, or take the places of those of the same sessions."""
        self._write(connection, [astuple(row) for row in rows], self._replacing)

    def delete(self, connection: Connection, streams: Collection[str]) -> None:
        """Delete the rows of sessions."""
        for keys in _chunks([stream.split("/", 1) for stream in streams]):
            run(connection, self._delete, (keys,))

    def _write(self, connection: Connection, rows: Sequence[tuple[Any, ...]], end: bytes) -> None:
        for chunk in _chunks(rows):
            run(connection, self._insert + b", ".join([rendered(self._row, row) for row in chunk]) + end)


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
