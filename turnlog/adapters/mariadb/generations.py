"""Generations of a view on MariaDB: what a projection created, and comparing two.

A projection's SQL names its tables literally, so a new generation is built in a database of its own under the same
names and then moved by ``RENAME TABLE``, which takes tables only: with their rows, indexes and foreign keys, but
neither triggers, nor SQL views, nor routines, events or sequences. A projection that creates such is refused.
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from pymysql.cursors import SSCursor

from turnlog.adapters.differing import differing
from turnlog.adapters.mariadb.connection import Connection, quoted, rendered, run
from turnlog.adapters.telling import Place
from turnlog.domain.errors import InvalidInput

_TABLES = (
    "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"
    " AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY TABLE_NAME"
)
_OTHERS = """
SELECT lower(TABLE_TYPE), TABLE_NAME FROM information_schema.TABLES
 WHERE TABLE_SCHEMA = %(schema)s AND TABLE_TYPE NOT IN ('BASE TABLE', 'SYSTEM VERSIONED')
UNION ALL SELECT 'trigger', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %(schema)s
UNION ALL SELECT lower(ROUTINE_TYPE), ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %(schema)s
UNION ALL SELECT 'event', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %(schema)s
"""
_COLUMNS = """
SELECT COLUMN_NAME, COLLATION_NAME FROM information_schema.COLUMNS
 WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION
"""
_KEYS = """
SELECT INDEX_NAME, COLUMN_NAME, NULLABLE FROM information_schema.STATISTICS
 WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND NON_UNIQUE = 0 AND SUB_PART IS NULL
 ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX
"""
_BYTEWISE = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin")


def tables(connection: Connection, schema: str, without: Collection[str] = ()) -> list[str]:
    """Return the tables of a database besides those ``without``; temporary ones are not among them."""
    return [name for (name,) in run(connection, _TABLES, (schema,)).fetchall() if name not in without]


def present(connection: Connection, schema: str, wanted: Sequence[str]) -> bool:
    """Return whether any of these tables is there."""
    return not set(tables(connection, schema)).isdisjoint(wanted)


def require_movable(connection: Connection, schema: str) -> None:
    """Refuse what cannot be moved from one database to another.

    Raises:
        InvalidInput: naming it.
    """
    for kind, name in run(connection, _OTHERS, {"schema": schema}).fetchall():
        words = f"its {kind} {name!r} cannot be moved into place on MariaDB; it may create tables only"
        raise InvalidInput("projection", words)


def require_free(connection: Connection, schema: str, wanted: Sequence[str], own: Collection[str] = ()) -> None:
    """Refuse to create what is there already and is none of the view's ``own``: it may be of value.

    Raises:
        InvalidInput: naming it.
    """
    select = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"
    taken = {name for (name,) in run(connection, select, (schema,)).fetchall()}
    for name in wanted:
        if name in taken and name not in own:
            raise InvalidInput("projection", f"its table {name!r} is there already and is not its own")


def drop(connection: Connection, schema: str, names: Sequence[str]) -> None:
    """Drop tables, those that are there, in one statement: foreign keys between them do not matter."""
    if names:
        run(connection, f"DROP TABLE IF EXISTS {', '.join(f'{quoted(schema)}.{quoted(name)}' for name in names)}")


def indexes(connection: Connection, schema: str) -> set[str]:
    """Return the names of all indexes in a database."""
    select = "SELECT DISTINCT INDEX_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %s"
    return {name for (name,) in run(connection, select, (schema,)).fetchall()}


def analyze(connection: Connection, schema: str, names: Sequence[str]) -> None:
    """Have the server learn what the tables hold: its planner is to know it from the first query on."""
    for name in names:
        run(connection, f"ANALYZE TABLE {quoted(schema)}.{quoted(name)}")


def merge(connection: Connection, schema: str, names: Collection[str]) -> None:
    """Write those of the tables anew that have a full-text index: it keeps the words of deleted rows until then."""
    select = "SELECT DISTINCT TABLE_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %s AND INDEX_TYPE = %s"
    for (name,) in run(connection, select, (schema, "FULLTEXT")).fetchall():
        if name in names:
            run(connection, f"OPTIMIZE TABLE {quoted(schema)}.{quoted(name)}")


# --- comparing --------------------------------------------------------------------------------------------------------


def differences(
    ours: Connection, theirs: Connection, schemas: tuple[str, str], names: Sequence[str], place: Place
) -> Iterator[str]:
    """Say in words in which rows two generations differ, without what stands in them.

    Rows are read from both in the order of a unique key where there is one, and else of all columns, texts by their
    bytes. Each side has its own connection, which is busy meanwhile.
    """
    for name in names:
        there = _columns(theirs, schemas[1], name)
        if _columns(ours, schemas[0], name) != there:
            yield f"table {name!r} is not there as it should be"
            continue
        key = _unique_key(theirs, schemas[1], name)
        ordered = key + [column for column in there if column not in key]
        width = len(key) or len(ordered)
        order = ", ".join(_in_order(column, there[column]) for column in ordered[:width])
        select = f"SELECT {', '.join(map(quoted, ordered))} FROM {{}}.{quoted(name)} ORDER BY {order}"
        with (
            _read(ours, select.format(quoted(schemas[0]))) as have,
            _read(theirs, select.format(quoted(schemas[1]))) as want,
        ):
            yield from differing(place, name, ordered, width, have, want)


@contextmanager
def _read(connection: Connection, select: str) -> Generator[Iterator[tuple[Any, ...]], None, None]:
    """Read rows as they come: all at once they may be too many."""
    with closing(connection.cursor(SSCursor)) as cursor:
        text: Any = rendered(select)
        cursor.execute(text)
        yield iter(cursor)


def _columns(connection: Connection, schema: str, table: str) -> dict[str, str | None]:
    """Return the columns of a table with their collations; of a temporary one as well."""
    found = dict(run(connection, _COLUMNS, (schema, table)).fetchall())
    if not found:
        rows = run(connection, f"SHOW FULL COLUMNS FROM {quoted(schema)}.{quoted(table)}").fetchall()
        found = {row[0]: row[2] for row in rows}
    return found


def _unique_key(connection: Connection, schema: str, table: str) -> list[str]:
    """Return the columns of a unique key that is never null; or nothing."""
    keys: dict[str, list[tuple[str, str]]] = {}
    for index, column, nullable in run(connection, _KEYS, (schema, table)).fetchall():
        keys.setdefault(index, []).append((column, nullable))
    whole = (key for key in keys.values() if not any(nullable for _, nullable in key))
    return [column for column, _ in next(whole, ())]


def _in_order(column: str, collation: str | None) -> str:
    if collation is None or collation in _BYTEWISE:
        return quoted(column)
    return f"CAST(CONVERT({quoted(column)} USING utf8mb4) AS BINARY)"
