"""Generations of a view on PostgreSQL: what a projection created, moving it to where it answers, comparing the two.

A projection's SQL names its tables literally, so a new generation is built in a schema of its own, the first of the
search path, under the same names; then it is moved, in one transaction, by ``ALTER … SET SCHEMA``: indexes, triggers
and owned sequences go with their tables. No row is copied.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from time import monotonic, sleep
from typing import Any, NamedTuple

import msgspec
import psycopg
from psycopg import errors

from turnlog.adapters.names import quoted
from turnlog.adapters.telling import Place
from turnlog.domain.errors import InvalidInput, StoreError, StoreUnavailable

PATIENCE_S = 0.1
"""So long the swap waits for readers at a time: behind it, new readers wait as well."""
_ORDER = ("VIEW", "MATERIALIZED VIEW", "TABLE", "SEQUENCE", "ROUTINE", "DOMAIN", "TYPE")
"""What is dropped first depends on what is dropped after it."""


class Item(NamedTuple):
    """One thing a projection created: its kind as DDL has it, and its name as SQL text without a schema."""

    kind: str
    name: str


def items(connection: Any, schema: str, without: Sequence[str] = ()) -> list[Item]:
    """Return what a schema holds besides the tables ``without``; not what goes with something else."""
    found = [Item(*row) for row in connection.execute(_ITEMS, {"schema": schema, "without": list(without)}).fetchall()]
    return sorted(found, key=lambda item: _ORDER.index(item.kind))


_OF_SCHEMA = "JOIN pg_namespace n ON n.nspname = %(schema)s AND n.oid ="
_ITEMS = f"""
SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN
       'TYPE' ELSE 'TABLE' END, quote_ident(c.relname)
  FROM pg_class c {_OF_SCHEMA} c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'c') AND c.relname <> ALL (%(without)s::text[])
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND c.relkind = 'S' AND d.deptype IN ('a', 'i'))
UNION ALL
SELECT 'ROUTINE', quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')'
  FROM pg_proc p {_OF_SCHEMA} p.pronamespace
UNION ALL
SELECT CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, quote_ident(t.typname)
  FROM pg_type t {_OF_SCHEMA} t.typnamespace
 WHERE t.typtype IN ('d', 'e', 'r')
"""


def written(created: Sequence[Item]) -> list[str]:
    """Return items as they are kept."""
    return [f"{item.kind}:{item.name}" for item in created]


def read(kept: Sequence[str]) -> list[Item]:
    """Return items from how they are kept."""
    return [Item(*text.split(":", 1)) for text in kept]


def relations(connection: Any, schema: str) -> dict[int, str]:
    """Return the names of a schema's tables, indexes, views and sequences, by their numbers."""
    statement = f"SELECT c.oid, c.relname FROM pg_class c {_OF_SCHEMA} c.relnamespace"
    return dict(connection.execute(statement, {"schema": schema}).fetchall())


def require_free(connection: Any, schema: str, built: str, without: Sequence[str] = ()) -> None:
    """Refuse to take to ``schema`` what is there already: it is somebody else's, and may be of value.

    Raises:
        InvalidInput: naming it.
    """
    statement = """
        SELECT CASE WHEN b.relkind IN ('i', 'I') THEN 'index' WHEN b.relkind = 'v' THEN 'view' ELSE 'table' END,
               b.relname
          FROM pg_class b JOIN pg_namespace bn ON bn.oid = b.relnamespace AND bn.nspname = %s
          JOIN pg_class t ON t.relname = b.relname
          JOIN pg_namespace tn ON tn.oid = t.relnamespace AND tn.nspname = %s
          LEFT JOIN pg_index i ON i.indexrelid = b.oid LEFT JOIN pg_class o ON o.oid = i.indrelid
         WHERE coalesce(o.relname, b.relname) <> ALL (%s::text[]) ORDER BY b.relkind DESC, b.relname
    """
    for kind, name in connection.execute(statement, (built, schema, list(without))).fetchall():
        raise InvalidInput("projection", f"its {kind} {name!r} is there already and is not its own")


def analyze(connection: Any, schema: str, created: Sequence[Item]) -> None:
    """Have the server learn what the tables hold: its planner is to know it from the first query on."""
    for item in created:
        if item.kind in ("TABLE", "MATERIALIZED VIEW"):
            connection.execute(f"ANALYZE {quoted(schema)}.{item.name}".encode())


def drop(connection: Any, schema: str, created: Sequence[Item]) -> None:
    """Drop what a view had created, what of it is there.

    Raises:
        StoreError: something that is not the view's own depends on it.
    """
    try:
        for kind in _ORDER:
            names = [f"{quoted(schema)}.{item.name}" for item in created if item.kind == kind]
            if names:
                connection.execute(f"DROP {kind} IF EXISTS {', '.join(names)}".encode())
    except errors.DependentObjectsStillExist as error:
        words = " ".join(str(error.diag.message_detail or error).split())
        raise StoreError(f"what the view created cannot be dropped: {words}") from error


def lock(connection: Any, schema: str, created: Sequence[Item], deadline: float) -> None:
    """Lock a view's tables against its readers, a little at a time: who comes to read does not wait for long.

    Raises:
        StoreUnavailable: at ``deadline`` (of ``monotonic``) somebody was still reading.
    """
    relations_ = [f"{quoted(schema)}.{item.name}" for item in created if item.kind == "TABLE"]
    if not relations_:
        return
    before = connection.execute("SELECT current_setting('lock_timeout')").fetchone()[0]
    statement = f"LOCK TABLE {', '.join(relations_)} IN ACCESS EXCLUSIVE MODE"
    while True:
        try:
            with connection.transaction():
                connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{int(PATIENCE_S * 1000)}ms",))
                connection.execute(statement.encode())
                connection.execute("SELECT set_config('lock_timeout', %s, true)", (before,))
        except errors.LockNotAvailable as error:
            if monotonic() > deadline:
                raise StoreUnavailable(
                    "a transaction that reads the view did not end: it cannot be replaced"
                ) from error
            sleep(PATIENCE_S)
        else:
            return


def move(connection: Any, built: str, schema: str, created: Sequence[Item]) -> None:
    """Move what was created from the schema where it was built to the one where it answers.

    Raises:
        InvalidInput: something of that name is there already.
    """
    try:
        for item in created:
            connection.execute(f"ALTER {item.kind} {quoted(built)}.{item.name} SET SCHEMA {quoted(schema)}".encode())
    except (errors.DuplicateTable, errors.DuplicateObject, errors.DuplicateFunction) as error:
        raise InvalidInput("projection", f"{error.diag.message_primary}, and is not its own") from error


# --- comparing --------------------------------------------------------------------------------------------------------


def differences(connection: Any, ours: str, theirs: str, created: Sequence[Item], place: Place) -> Iterator[str]:
    """Say in words in which rows two generations differ, without what stands in them.

    The server compares, in one statement a table: both sides are of one moment, and only differences travel. Rows meet
    by a unique key where there is one.
    """
    for item in created:
        if item.kind == "TABLE":
            yield from _compare(connection, f"{quoted(ours)}.{item.name}", f"{quoted(theirs)}.{item.name}", place)


def _compare(connection: Any, ours: str, theirs: str, place: Place) -> Iterator[str]:
    table = theirs.partition(".")[2].strip('"')
    columns = _columns(connection, theirs)
    if _columns(connection, ours) != columns:
        yield f"table {table!r} is not there as it should be"
        return
    key = _unique_key(connection, theirs)
    for have, want in _pairs(connection, ours, theirs, key):
        row: dict[str, Any] = want or have or {}
        words = place.words(table, {column: row[column] for column in key or columns})
        if have is None:
            yield f"{words} is missing"
        elif want is None:
            yield f"{words} should not be there"
        else:
            yield f"{words} differs in {', '.join(c for c in columns if have[c] != want[c]) or 'how it is stored'}"


def _columns(connection: Any, table: str) -> list[str]:
    statement = """
        SELECT attname FROM pg_attribute
         WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
    """
    return [row[0] for row in connection.execute(statement, (table,)).fetchall()]


def _unique_key(connection: Any, table: str) -> list[str]:
    """Return the columns of a unique key that is never null, the shortest; or nothing. Types of ours do not compare."""
    statement = """
        SELECT array_agg(a.attname ORDER BY k.place)
          FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
          LEFT JOIN (pg_attribute a JOIN pg_type t ON t.oid = a.atttypid AND t.typtype = 'b')
            ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND a.attnotnull
         WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
           AND k.place <= i.indnkeyatts
         GROUP BY i.indexrelid HAVING bool_and(a.attname IS NOT NULL) ORDER BY count(*), i.indexrelid LIMIT 1
    """
    row = connection.execute(statement, (table,)).fetchone()
    return [] if row is None else list(row[0])


def _pairs(
    connection: Any, ours: str, theirs: str, key: Sequence[str]
) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """Yield the rows that do not read the same: ours and theirs, either of them missing."""
    if key:
        same = " AND ".join(f"our_row.{quoted(column)} = its_row.{quoted(column)}" for column in key)
        first = quoted(key[0])
        statement = (
            f"SELECT to_json(our_row)::text, to_json(its_row)::text FROM {ours} AS our_row"
            f" FULL JOIN {theirs} AS its_row ON {same}"
            f" WHERE our_row::text <> its_row::text OR our_row.{first} IS NULL OR its_row.{first} IS NULL"
        )
    else:
        mine, others = (f"SELECT to_json(t)::text FROM {table} AS t" for table in (ours, theirs))
        statement = (
            f"SELECT row, NULL FROM ({mine} EXCEPT ALL {others}) AS surplus (row)"
            f" UNION ALL SELECT NULL, row FROM ({others} EXCEPT ALL {mine}) AS missing (row)"
        )
    # closed a second time: where it is cut off as it is closed, psycopg takes it for open, and warns
    with closing(psycopg.ServerCursor(connection, "turnlog_differences")) as cursor, connection.transaction(), cursor:
        cursor.itersize = 100
        for have, want in cursor.execute(statement.encode()):
            yield have and msgspec.json.decode(have), want and msgspec.json.decode(want)
