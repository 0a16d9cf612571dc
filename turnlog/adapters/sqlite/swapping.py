"""Putting a new generation of a built-in view in the place of the old one while others write.

Copying many rows in one transaction would keep writers out for seconds. So the new tables are laid out beside the old
ones, with their indexes, and filled in short transactions; one more renames both; and what was replaced is emptied in
short ones again, before it is dropped: every page that is freed is overwritten. Where a process dies in between, its
tables are left over, to be cleared by whoever builds the view next, or erases something.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import wraps
from time import monotonic
from typing import ParamSpec, TypeVar

import msgspec

from turnlog.adapters.names import Names, quoted
from turnlog.adapters.registered import BuiltIn
from turnlog.adapters.search_tables import SearchTable
from turnlog.adapters.sqlite.database import Database
from turnlog.adapters.sqlite.generations import CACHE_KB
from turnlog.adapters.sqlite.terms import SQLiteTerms
from turnlog.domain.errors import StoreUnavailable

NEXT = ("turnlog_next_", "turnlog_new_")
"""How the names of tables begin that are being filled; two, taken in turn, as indexes keep their first names."""
OLD = "turnlog_old_"
"""How the names of those begin that were replaced."""
STRUCTURE = 10
"""The rows up to this one, of the table in which FTS5 keeps what it holds, are what it takes to drop it."""
_TRIES = 5
"""So many swaps in a row may come between."""
Given = ParamSpec("Given")
Made = TypeVar("Made")
HOLD_S = 0.02
"""How long to keep writers out at a time."""


def across_swaps(search: Callable[Given, Made]) -> Callable[Given, Made]:
    """Have ``search`` done again where a swap came between its beginning and the reading of the index's own tables.

    FTS5 reads those by statements of its own when a connection first meets the index: renamed just then, it fails.
    """

    @wraps(search)
    def again(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        for _ in range(_TRIES):
            try:
                return search(*args, **kwargs)
            except StoreUnavailable as error:
                if "vtable constructor failed" not in str(error.__cause__):
                    raise
        return search(*args, **kwargs)

    return again


def lay_out(database: Database, names: Names, view: BuiltIn, source: sqlite3.Connection) -> None:
    """Create the view's tables under other names, and fill them with the rows there are in ``source``."""
    clear(database, view)
    with database.write(synced=False) as connection:
        prefix = next(prefix for prefix in NEXT if not _indexes(connection, view.tables[0], prefix))
        others = {field: prefix + getattr(names, field) for field in names.__struct_fields__ if field != "columns"}
        laid_out = view.under(msgspec.structs.replace(names, **others))
        laid_out.create(connection)
        (cache,) = connection.execute("PRAGMA cache_size").fetchone()
        connection.execute(f"PRAGMA cache_size=-{CACHE_KB}")
    beside = laid_out.beside if isinstance(laid_out, SearchTable) else None
    for table in view.tables:
        if beside is None or prefix + table not in beside.tables:
            _fill(database, source, table, prefix + table)
    if isinstance(beside, SQLiteTerms):
        _index(database, beside)
    with database.write(synced=False) as connection:
        connection.execute(f"PRAGMA cache_size={cache}")


def switch(connection: sqlite3.Connection, view: BuiltIn, replaced: Sequence[str]) -> None:
    """Rename the tables ``replaced``, and those that were laid out into their places, in the caller's transaction."""
    laid_out = [(prefix + table, table) for prefix in NEXT for table in view.tables]
    connection.execute("PRAGMA legacy_alter_table=ON")  # an SQL view that names one of them goes on naming it
    try:
        for name, becomes in [*((table, OLD + table) for table in replaced), *laid_out]:
            if _is_there(connection, name):
                connection.execute(f"ALTER TABLE {quoted(name)} RENAME TO {quoted(becomes)}")
    finally:
        connection.execute("PRAGMA legacy_alter_table=OFF")


def clear(database: Database, view: BuiltIn) -> None:
    """Drop what was laid out and did not come into its place, and what was replaced."""
    with database.read() as connection:
        names = [prefix + table for prefix in (*NEXT, OLD) for table in view.tables]
        left = [
            (name, _indexes(connection, name), _is_virtual(connection, name))
            for name in names
            if _is_there(connection, name)
        ]
    for name, indexes, is_virtual in left:
        for index in indexes:
            with database.write(synced=False) as connection:
                connection.execute(f"DROP INDEX IF EXISTS {quoted(index)}")
        _empty(database, *((f"{name}_data", STRUCTURE) if is_virtual else (name, 0)))
        with database.write(synced=False) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {quoted(name)}")


def _fill(database: Database, source: sqlite3.Connection, table: str, target: str) -> None:
    columns = [quoted(row[1]) for row in source.execute(f"PRAGMA table_info({quoted(table)})").fetchall()]
    listed, marks = ", ".join(columns), ", ".join("?" * len(columns))
    insert = f"INSERT INTO {quoted(target)} ({listed}) VALUES ({marks})"
    rows = source.execute(f"SELECT {listed} FROM {quoted(table)}")
    _in_steps(database, lambda connection, n: connection.executemany(insert, rows.fetchmany(n)).rowcount)


def _index(database: Database, terms: SQLiteTerms) -> None:
    last: int | None = -1

    def step(connection: sqlite3.Connection, n: int) -> int:
        nonlocal last
        last = terms.index(connection, -1 if last is None else last, n)
        return 0 if last is None else 1

    _in_steps(database, step)


def _empty(database: Database, table: str, above: int) -> None:
    some = f"SELECT rowid FROM {quoted(table)} WHERE rowid > {above} ORDER BY rowid LIMIT ?"
    delete = f"DELETE FROM {quoted(table)} WHERE rowid IN ({some})"
    _in_steps(database, lambda connection, n: connection.execute(delete, (n,)).rowcount)


def _in_steps(database: Database, step: Callable[[sqlite3.Connection, int], int]) -> None:
    """Do ``step`` in short transactions until it has done nothing; it is told how many rows there is time for."""
    n, done = 100, 1
    while done > 0:
        with database.write(synced=False) as connection:
            started = monotonic()
            done = step(connection, n)
        n = max(20, min(4_000, int(n * HOLD_S / max(monotonic() - started, HOLD_S / 10))))


def _is_there(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))
    return found.fetchone() is not None


def _is_virtual(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ? AND sql LIKE 'CREATE VIRTUAL%'", (table,))
    return found.fetchone() is not None


def _indexes(connection: sqlite3.Connection, table: str, prefix: str = "") -> list[str]:
    """Return the names of a table's indexes that begin so, but for those that are part of it."""
    select = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL"
    return [name for (name,) in connection.execute(select, (table,)).fetchall() if name.startswith(prefix)]
