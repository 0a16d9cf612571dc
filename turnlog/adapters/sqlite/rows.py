"""Rows of the built-in views on SQLite."""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec
from msgspec.structs import astuple

from turnlog.adapters.wording import SQLITE, Table

_CHUNK = 250
"""Sessions a query; SQLite's oldest limit is 999 parameters."""


class SQLiteRows:
    """Rows of one table; see ``view_tables.Rows``."""

    def __init__(self, table: Table) -> None:
        columns, (tenant, session_id) = SQLITE.listing(table.columns), map(SQLITE.quoted, table.key)
        # left to itself, SQLite would scan the table for them
        found = f"FROM wanted CROSS JOIN {table.name} ON {tenant} = wanted.t AND {session_id} = wanted.s"
        self._select = f"WITH wanted (t, s) AS (VALUES {{}}) SELECT {columns} {found}"
        self._insert = f"INSERT INTO {table.name} ({columns}) VALUES ({SQLITE.marks(len(table.columns))})"
        self._replace = f"{self._insert} {SQLITE.replacing(table.key, table.changing)}"
        self._delete = f"DELETE FROM {table.name} WHERE {tenant} = ? AND {session_id} = ?"

    def load(self, connection: sqlite3.Connection, streams: Collection[str]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of sessions."""
        wanted = list(streams)
        for start in range(0, len(wanted), _CHUNK):
            keys = [part for stream in wanted[start : start + _CHUNK] for part in stream.split("/", 1)]
            yield from connection.execute(self._select.format(", ".join(["(?, ?)"] * (len(keys) // 2))), keys)

    def insert(self, connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows that are new."""
        connection.executemany(self._insert, rows)

    def replace(self, connection: sqlite3.Connection, rows: Sequence[msgspec.Struct]) -> None:
        """Insert rows, or take the places of those of the same sessions."""
        connection.executemany(self._replace, [astuple(row) for row in rows])

    def delete(self, connection: sqlite3.Connection, streams: Collection[str]) -> None:
        """Delete the rows of sessions."""
        connection.executemany(self._delete, [stream.split("/", 1) for stream in streams])
