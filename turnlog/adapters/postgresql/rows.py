"""Rows of the built-in views on PostgreSQL.

New messages are copied (``COPY``: 10 µs a row, 20 as parameters). Rows that may be there already go to the server as
one JSON parameter: 500 sessions take 5 ms against 7 as arrays of values.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec

from turnlog.adapters.view_ddl import kind
from turnlog.adapters.wording import POSTGRESQL, Table, without_nul

_WANTED = "SELECT * FROM unnest(%s::text[], %s::text[])"
"""The keys of sessions, given as two arrays."""
_encode = msgspec.json.Encoder().encode


class PostgreSQLRows:
    """Rows of one table; see ``view_tables.Rows``."""

    def __init__(self, table: Table) -> None:
        columns, of_sessions = POSTGRESQL.listing(table.columns), f"({POSTGRESQL.listing(table.key)}) IN ({_WANTED})"
        typed = ", ".join(f'"{field}" {"bigint" if kind(field) == "number" else "text"}' for field in table.fields)
        given = f"SELECT * FROM json_to_recordset(%s::json) AS given ({typed})"
        self._select = f"SELECT {columns} FROM {table.name} WHERE {of_sessions}"
        self._copy = f"COPY {table.name} ({columns}) FROM STDIN"
        self._replace = (
            f"INSERT INTO {table.name} ({columns}) {given} {POSTGRESQL.replacing(table.key, table.changing)}"
        )
        self._delete = f"DELETE FROM {table.name} WHERE {of_sessions}"

    def load(self, connection: Any, streams: Collection[str]) -> Iterator[tuple[Any, ...]]:
        """Return the rows of sessions."""
        return iter(connection.execute(self._select, _pairs(streams)).fetchall())

    def insert(self, connection: Any, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows that are new."""
        with connection.cursor().copy(self._copy) as copy:
            for row in rows:
                copy.write_row(row)

    def replace(self, connection: Any, rows: Sequence[msgspec.Struct]) -> None:
        """Insert rows, or take the places of those of the same sessions."""
        text = _encode(rows)
        if rb"\u0000" in text:
            given: list[dict[str, Any]] = msgspec.json.decode(text)
            text = _encode([{column: without_nul(value) for column, value in row.items()} for row in given])
        connection.execute(self._replace, (text.decode(),))

    def delete(self, connection: Any, streams: Collection[str]) -> None:
        """Delete the rows of sessions."""
        connection.execute(self._delete, _pairs(streams))


def _pairs(streams: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the tenants and the session ids of streams."""
    parts = [stream.partition("/") for stream in streams]
    return [part[0] for part in parts], [part[2] for part in parts]
