"""Comparing two generations of a view, table by table, without what stands in their rows."""

from collections.abc import Iterator
from typing import Any

from turnlog.adapters.differing import differing, renewing
from turnlog.adapters.redis.connection import TABLES, Connection, base
from turnlog.adapters.telling import Place


def differences(view: Any, ours: Connection, theirs: Connection, tenant: str | None) -> Iterator[str]:
    """Say in words in which rows two generations differ; both connections' answer for the view."""
    place = Place("tenant", "session_id", tenant)
    stream_of = getattr(view, "stream_of", None)
    name: str = view.name
    both = {**_tables(ours, name), **_tables(theirs, name)}
    for table in sorted(both):
        yield from differing(
            place,
            table.decode(),
            ("key", "tenant", "session_id", "value"),
            3,
            _rows(ours, name, table, stream_of),
            renewing(_rows(theirs, name, table, stream_of), theirs.renew),
        )


def _tables(connection: Connection, view: str) -> dict[bytes, None]:
    """Return the names of a view's tables."""
    generation = connection.generation(view) or b""
    begins = base(view, generation)
    listed = {key for key, _ in connection.tables.walk(begins[:-1] + TABLES)}
    touched = {table for table in connection.tables.touched() if table.startswith(begins)}
    return {table[len(begins) :]: None for table in sorted(listed | touched) if table != begins[:-1] + TABLES}


def _rows(connection: Connection, view: str, table: bytes, stream_of: Any) -> Iterator[tuple[Any, ...]]:
    """Yield rows as (key, tenant, session id, value), as far as it is known whose they are, in the order of keys."""
    begins = base(view, connection.generation(view) or b"")
    for key, value in connection.tables.walk(begins + table):
        stream = None if stream_of is None else stream_of(table, key)
        tenant, _, session_id = (stream or "").partition("/")
        yield (key, tenant or None, session_id or None, value)
