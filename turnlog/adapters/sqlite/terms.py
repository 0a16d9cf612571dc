"""Terms of messages on SQLite: full-text search (FTS5) that keeps no text, in a table beside the rows.

Its row numbers are the rows' places, so that it gives what it finds newest first, without sorting. Its tokenizer is
``ascii``, which takes nothing apart that is a term. Where views are built it is not there: rows do without.
"""

import sqlite3
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from turnlog.adapters.names import Names, quoted
from turnlog.adapters.search_tables import SCOPE_SIZE, tenant_term, user_term
from turnlog.domain.words import EVERY
from turnlog.projections.message_search import SearchFilter


class SQLiteTerms:
    """See ``search_tables.Terms``."""

    def __init__(self, names: Names) -> None:
        self.tables: tuple[str, ...] = (names.search_words,)
        self.assigning = f"? || substr({{}}, {SCOPE_SIZE + 1})"
        self._words = words = quoted(names.search_words)
        table, place, terms = map(quoted, (names.message_search, names.column("place"), names.column("terms")))
        self._create = (
            f"CREATE VIRTUAL TABLE {words} USING fts5(terms, content='', detail=none, columnsize=0, tokenize=ascii)"
        )
        self._insert = f"INSERT INTO {words} (rowid, terms) VALUES (?, ?)"
        self._copy = f"INSERT INTO {words} (rowid, terms) SELECT {place}, {terms} FROM {table} WHERE "
        self._next = (
            f"SELECT max({place}) FROM (SELECT {place} FROM {table} WHERE {place} > ? ORDER BY {place} LIMIT ?)"
        )
        self._upto = f"{place} > ? AND {place} <= ?"
        self._remove = (
            f"INSERT INTO {words} ({words}, rowid, terms) SELECT 'delete', {place}, {terms} FROM {table} WHERE "
        )

    @property
    def beside(self) -> "SQLiteTerms":
        """The index is in a table of its own."""
        return self

    def kept(self, tenant: str, user_id: str | None, terms: Collection[str]) -> str:
        """Return the terms, those that tell whose they are first."""
        return f"{user_term(tenant, user_id)} {tenant_term(tenant)} {' '.join(sorted(terms))}"

    def wanted(self, where: SearchFilter) -> dict[str, object]:
        """Return what follows MATCH."""
        scope = tenant_term(where.tenant) if where.user_id is None else user_term(where.tenant, where.user_id)
        return {"terms": f'"{scope}" AND (({" AND ".join(map(quoted, where.terms))}) OR "{EVERY}")'}

    def create(self, connection: sqlite3.Connection) -> None:
        """Create the table."""
        connection.execute(self._create)

    def added(self, connection: sqlite3.Connection, rows: Sequence[tuple[int, str]]) -> None:
        """Index rows that are new."""
        if self._is_there(connection):
            connection.executemany(self._insert, rows)

    def adding(self, connection: sqlite3.Connection, condition: str, parameters: tuple[Any, ...]) -> None:
        """Index the rows for which the condition holds."""
        if self._is_there(connection):
            connection.execute(self._copy + condition, parameters)

    def removing(self, connection: sqlite3.Connection, condition: str, parameters: tuple[Any, ...]) -> None:
        """Let go of the rows for which the condition holds: it has to be told what they hold."""
        if self._is_there(connection):
            connection.execute(self._remove + condition, parameters)

    def index(self, connection: sqlite3.Connection, after: int, n: int) -> int | None:
        """Index the ``n`` next rows above a place; return the place of the last, or ``None`` if there are no more."""
        last: int | None = connection.execute(self._next, (after, n)).fetchone()[0]
        if last is not None:
            self.adding(connection, self._upto, (after, last))
        return last

    def _is_there(self, connection: sqlite3.Connection) -> bool:
        select = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        return connection.execute(select, self.tables).fetchone() is not None


@cache
def has_fts5() -> bool:
    """Return whether this Python's SQLite has full-text search."""
    connection = sqlite3.connect(":memory:")
    try:
        return bool(connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchall())
    finally:
        connection.close()
