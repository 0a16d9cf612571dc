"""Generations of a view on SQLite: what a projection created, copying it from where it was built, comparing the two.

A projection's SQL names its tables literally, so a new generation is built in a database of its own, under the same
names, and then copied in one transaction: tables, rows, indexes, triggers, views. A full-text table that keeps no text
of its own gives no rows to copy; of such a one the tables inside it are.
"""

import re
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

from turnlog.adapters.differing import differing
from turnlog.adapters.telling import Place
from turnlog.domain.errors import InvalidInput
from turnlog.projections.view_store import StoredView, by_rows

CACHE_KB = 16 * 1024
"""While rows come in an order that is not their indexes'."""
_DEFAULT_CACHE = -2_000
_INNER = {
    "fts3": {"content", "segments", "segdir"},
    "fts4": {"content", "segments", "segdir", "docsize", "stat"},
    "fts5": {"content", "data", "idx", "docsize", "config"},
    "rtree": {"node", "rowid", "parent"},
    "rtree_i32": {"node", "rowid", "parent"},
}
"""How the names end of the tables inside virtual ones, by module: for SQLite before 3.37, which does not tell."""


class Item(NamedTuple):
    """One thing a projection created: a table, index, trigger or view. ``of`` is the table it belongs to."""

    kind: str
    name: str
    of: str
    sql: str

    @property
    def is_virtual(self) -> bool:
        """Whether it is a virtual table."""
        return self.kind == "table" and self.sql[:14].upper() == "CREATE VIRTUAL"


def blueprint(view: StoredView) -> list[Item]:
    """Return what the view creates, found out in an empty database."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        view.create(connection)
        return items(connection)


def items(connection: sqlite3.Connection, without: Collection[str] = ()) -> list[Item]:
    """Return what a database holds besides the tables ``without``; not the inner tables of virtual ones."""
    select = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%'"
    found = [Item(*row) for row in connection.execute(select + " ESCAPE '\\' ORDER BY rowid").fetchall()]
    inner = {name for names in _inner(connection, found).values() for name in names}
    return [item for item in found if item.of not in without and item.of not in inner]


def make_quick(connection: sqlite3.Connection, view: StoredView) -> None:
    """Drop the indexes of a built-in view where it is built, full-text search too: only queries need them.

    ``complete`` brings them back.
    """
    if by_rows(view):
        for item in blueprint(view):
            if item.kind == "index" or item.is_virtual:
                connection.execute(f"DROP {item.kind} {_quoted(item.name)}")


def complete(built: Sequence[Item], view: StoredView) -> list[Item]:
    """Return what was built with what else the view creates."""
    there = {item.name for item in built}
    return [*built, *(item for item in blueprint(view) if item.name not in there)]


def require_free(connection: sqlite3.Connection, wanted: Sequence[Item]) -> None:
    """Refuse to create what is there already: it is somebody else's, and may be of value.

    Raises:
        InvalidInput: naming it.
    """
    taken = {name.lower() for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    for item in wanted:
        if item.name.lower() in taken:
            raise InvalidInput("projection", f"its {item.kind} {item.name!r} is there already and is not its own")


def to_drop(created: Sequence[Item]) -> list[str]:
    """Return the names to give to ``drop``: the rest goes with the tables."""
    return [item.name for item in created if item.kind in ("table", "view")]


def drop(connection: sqlite3.Connection, names: Sequence[str]) -> None:
    """Drop tables and views, those that are there."""
    for name in names:
        row = connection.execute("SELECT type FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        if row is not None:
            connection.execute(f"DROP {row[0]} {_quoted(name)}")


def merge(connection: sqlite3.Connection, tables: Sequence[str]) -> None:
    """Merge the parts of those tables that are full-text search: it keeps the words of deleted rows until then."""
    for name in tables:
        select = "SELECT sql FROM sqlite_master WHERE name = ? AND type = 'table'"
        for (sql,) in connection.execute(select, (name,)).fetchall():
            if _module(sql).startswith("fts"):
                connection.execute(f"INSERT INTO {_quoted(name)} ({_quoted(name)}) VALUES ('optimize')")


def copy(source: sqlite3.Connection, target: sqlite3.Connection, built: Sequence[Item]) -> None:
    """Create in ``target`` what was built in ``source``, rows and all.

    Indexes come before the rows: made afterwards, they would be sorted in memory, however many rows there are.
    """
    kinds = [(False, "table"), (False, "index"), (True, "table")]
    for is_virtual, kind in kinds:
        for item in built:
            if item.kind == kind and item.is_virtual == is_virtual:
                target.execute(item.sql)
    target.execute(f"PRAGMA cache_size=-{CACHE_KB}")
    inner = _inner(source, built)
    for item in sorted(built, key=lambda item: item.is_virtual):
        if item.kind == "table":
            _copy_table(source, target, item, inner.get(item.name, ()))
    target.execute(f"PRAGMA cache_size={_DEFAULT_CACHE}")
    for item in built:
        if item.kind not in ("table", "index"):
            target.execute(item.sql)


def differences(
    ours: sqlite3.Connection, theirs: sqlite3.Connection, built: Sequence[Item], place: Place
) -> Iterator[str]:
    """Say in words in which rows two generations differ, without what stands in them.

    Rows are walked in the order of a unique key's index where there is one; else SQLite sorts them. Of full-text search
    without a text of its own it is compared which rows it has, and how long they are.
    """
    inner = _inner(theirs, built)
    for item in built:
        if item.kind == "table":
            names = inner.get(item.name, [])
            lengths = [name for name in names if name.endswith("_docsize")]
            for name in lengths if _is_textless(item, names) else [item.name]:
                yield from _compare(ours, theirs, name, place)


def _inner(connection: sqlite3.Connection, created: Sequence[Item]) -> dict[str, list[str]]:
    """Return the tables inside each virtual one, in which its module keeps what it holds."""
    virtual = sorted((item for item in created if item.is_virtual), key=lambda item: item.name, reverse=True)
    inner: dict[str, list[str]] = {item.name: [] for item in virtual}
    for name, is_inner in _tables(connection) if virtual else ():
        owner = next((item for item in virtual if name.startswith(f"{item.name}_")), None)
        if owner is not None and (_ends_as_inner(name, owner) if is_inner is None else is_inner):
            inner[owner.name].append(name)
    return inner


def _tables(connection: sqlite3.Connection) -> list[tuple[str, bool | None]]:
    """Return the names of all tables, and whether SQLite knows them as inner ones (``None``: it does not tell)."""
    if sqlite3.sqlite_version_info < (3, 37):
        return [(row[0], None) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [(row[1], row[2] == "shadow") for row in connection.execute("PRAGMA main.table_list").fetchall()]


def _ends_as_inner(name: str, owner: Item) -> bool:
    return name[len(owner.name) + 1 :] in _INNER.get(_module(owner.sql), ())


def _module(sql: str) -> str:
    """Return the name of a virtual table's module."""
    found = re.match(r"CREATE VIRTUAL TABLE .*?\sUSING\s+(\w+)", sql, re.IGNORECASE | re.DOTALL)
    return found[1].lower() if found else ""


def _is_textless(item: Item, inner: Sequence[str]) -> bool:
    """Return whether it is full-text search that has its text elsewhere, or nowhere."""
    ends = {name[len(item.name) + 1 :] for name in inner}
    return "content" not in ends and not ends.isdisjoint(("data", "segdir"))


def _copy_table(source: sqlite3.Connection, target: sqlite3.Connection, item: Item, inner: Sequence[str]) -> None:
    if _is_textless(item, inner):
        for name in inner:
            target.execute(f"DELETE FROM {_quoted(name)}")  # what the empty table began with
            _copy_rows(source, target, name, [_quoted(column) for column in _columns(source, name)])
        merge(target, [item.name])
        return
    columns = [_quoted(name) for name in _columns(source, item.name)]
    _copy_rows(source, target, item.name, _rowid(source, item, columns) + columns)
    if "AUTOINCREMENT" in item.sql.upper():
        row = source.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (item.name,)).fetchone()
        if row is not None:
            target.execute("DELETE FROM sqlite_sequence WHERE name = ?", (item.name,))
            target.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (item.name, row[0]))


def _copy_rows(source: sqlite3.Connection, target: sqlite3.Connection, name: str, columns: Sequence[str]) -> None:
    listed, marks = ", ".join(columns), ", ".join("?" * len(columns))
    rows = source.execute(f"SELECT {listed} FROM {_quoted(name)}")
    target.executemany(f"INSERT INTO {_quoted(name)} ({listed}) VALUES ({marks})", rows)


def _rowid(source: sqlite3.Connection, item: Item, columns: Sequence[str]) -> list[str]:
    """Return how to name the row's number, where it has one that is no column: others may refer to it."""
    lowered = {column.lower() for column in columns}
    free = next((name for name in ("rowid", "_rowid_", "oid") if _quoted(name) not in lowered), None)
    if free is None:
        return []
    if not item.is_virtual:
        info = source.execute(f"PRAGMA table_info({_quoted(item.name)})").fetchall()
        if any(row[5] and row[2].upper() == "INTEGER" for row in info) or "WITHOUT ROWID" in item.sql.upper():
            return []
    return [free]


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()]


def _unique_key(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns of a unique key that is never null, whose index has the rows in order; or nothing."""
    required = {row[1] for row in connection.execute(f"PRAGMA table_info({_quoted(table)})") if row[3]}
    for _, index, unique, _, partial in connection.execute(f"PRAGMA index_list({_quoted(table)})").fetchall():
        parts = connection.execute(f"PRAGMA index_xinfo({_quoted(index)})").fetchall()
        key = [part for part in parts if part[5]]
        plain = all(part[2] in required and part[4] == "BINARY" and not part[3] for part in key)
        if unique and not partial and plain:
            return [part[2] for part in key]
    return []


def _compare(ours: sqlite3.Connection, theirs: sqlite3.Connection, table: str, place: Place) -> Iterator[str]:
    columns = _columns(theirs, table)
    if _columns(ours, table) != columns:
        yield f"table {table!r} is not there as it should be"
        return
    key = _unique_key(theirs, table)
    ordered = key + [column for column in columns if column not in key]
    width = len(key) or len(ordered)
    collation = "" if key else " COLLATE BINARY"
    order = ", ".join(_quoted(column) + collation for column in ordered)
    select = f"SELECT {', '.join(map(_quoted, ordered))} FROM {_quoted(table)} ORDER BY {order}"
    ours_rows, their_rows = ours.execute(select), theirs.execute(select)
    yield from differing(place, table, ordered, width, ours_rows, their_rows)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
