"""What an append writes to PostgreSQL: rows, keys and snapshots of all its batches in one statement; and erasing.

Most appends are of one batch with a row or two. Their statement is prepared by hand, the others' by psycopg.
"""

from collections.abc import Sequence
from typing import Protocol

from psycopg.types.numeric import Int8

from turnlog.adapters.postgresql.connection import Connection, run
from turnlog.adapters.postgresql.recorders import COLUMNS, INSERT_DRAWN, INSERT_MANY, arrays
from turnlog.adapters.postgresql.statement import BYTEA, INT8, TEXT, Statement, int8
from turnlog.adapters.postgresql.tables import lock_key
from turnlog.domain.chain import row_seal
from turnlog.domain.envelope import erase
from turnlog.domain.recorder import Batch

FEW = 8
"""As many rows, and keys, are written by a statement made for just that number."""
_PAGE = 1_000
_ROW = (TEXT, INT8, TEXT, BYTEA)
_KEY = (TEXT, TEXT, TEXT, INT8, BYTEA, BYTEA)
_KEYS = "unnest(%b::text[], %b::text[], %b::text[], %b::int8[], %b::bytea[], %b::bytea[])"
_SNAPSHOTS = "unnest(%b::text[], %b::int8[], %b::int8[], %b::bytea[], %b::bytea[], %b::bytea[])"


class Forgetting(Protocol):
    """What the views do when a session is erased, inside the erasing transaction."""

    def hold_still(self, connection: Connection) -> None:
        """Keep views from being written until the transaction ends."""
        ...

    def forget(self, connection: Connection, tenant: str, session_id: str) -> list[str]:
        """Delete the session's rows; return the views that forget only when they catch up."""
        ...


class Writing:
    """The statements of appends, on the tables given as SQL text."""

    def __init__(self, events: str, keys: str, snapshots: str, views: Forgetting | None) -> None:
        self._events, self._keys, self._snapshots = events, keys, snapshots
        self._views = views
        self._of_few: dict[tuple[int, int], Statement] = {}
        self._sequenced = f"({INSERT_MANY.format(events)} RETURNING originator_id, position)"
        self._drawn = f"({INSERT_DRAWN.format(events)} RETURNING originator_id, position)"
        self._no_rows = "(SELECT NULL::text AS originator_id, NULL::int8 AS position WHERE false)"
        self._with_keys = f", keys AS (INSERT INTO {keys} SELECT * FROM {_KEYS})"
        self._with_snapshots = (
            f", snapshots AS (INSERT INTO {snapshots} SELECT * FROM {_SNAPSHOTS} ON CONFLICT (originator_id) DO UPDATE"
            " SET version = excluded.version, revision = excluded.revision, hash = excluded.hash,"
            " state = excluded.state, seal = excluded.seal)"
        )

    def send(self, connection: Connection, batches: Sequence[Batch]) -> list[int]:
        """Do as ``insert``, as a transaction of its own."""
        if len(batches) != 1 or batches[0].snapshot is not None:
            return self.insert(connection, batches, drawn=False)
        stream, rows, keys, _, _ = batches[0]
        if not 1 <= len(rows) <= FEW or len(keys) > FEW:
            return self.insert(connection, batches, drawn=False)
        name = stream.encode()
        parameters: list[bytes] = []
        for version, topic, state in rows:
            parameters += (name, int8(version), topic.encode(), state)
        for kind, key, version, print_ in keys:
            seal = row_seal(stream, kind, key, version, print_)
            parameters += (name, kind.encode(), key.encode(), int8(version), print_, seal)
        size = len(rows), len(keys)
        statement = self._of_few.get(size) or self._for_few(size)
        result = statement.run(connection, parameters)
        return [int.from_bytes(result.get_value(size[0] - 1, 0) or b"", "big")]

    def _for_few(self, size: tuple[int, int]) -> Statement:
        rows, keys = size
        text = f"INSERT INTO {self._events} ({COLUMNS}) VALUES {_places(1, rows, len(_ROW))} RETURNING position"
        if keys:
            places = _places(1 + rows * len(_ROW), keys, len(_KEY))
            text = f"WITH keys AS (INSERT INTO {self._keys} VALUES {places}) {text}"
        return self._of_few.setdefault(size, Statement(text, _ROW * rows + _KEY * keys))

    def insert(self, connection: Connection, batches: Sequence[Batch], *, drawn: bool) -> list[int]:
        """Insert what batches hold, in one statement, and return the position of the last row of each.

        Positions rise in the order of the batches, as everywhere. That two appends wait for each other takes two
        streams that both write: those who erase hold theirs, in the order of their names; others have one that is not
        new. ``drawn``: take the positions after the highest one.
        """
        statement, parameters = self._statement(batches, drawn=drawn)
        last = dict(run(connection, statement, parameters).fetchall())
        return [last[batch.stream] if batch.rows else 0 for batch in batches]

    def _statement(self, batches: Sequence[Batch], *, drawn: bool) -> tuple[str, list[object]]:
        rows = [(batch.stream, *row) for batch in batches for row in batch.rows]
        keys = [(batch.stream, *key, row_seal(batch.stream, *key)) for batch in batches for key in batch.keys]
        snapshots = [
            (batch.stream, *batch.snapshot, row_seal(batch.stream, *batch.snapshot))
            for batch in batches
            if batch.snapshot is not None
        ]
        with_rows = self._drawn if drawn else self._sequenced
        statement = "WITH rows AS " + (with_rows if rows else self._no_rows)
        parameters: list[object] = list(arrays(rows)) if rows else []
        if keys:
            statement += self._with_keys
            stream, kind, key, version, print_, seal = map(list, zip(*keys, strict=True))
            parameters += [stream, kind, key, [Int8(n) for n in version], print_, seal]
        if snapshots:
            statement += self._with_snapshots
            stream, version, revision, hash_, state, seal = map(list, zip(*snapshots, strict=True))
            parameters += [stream, [Int8(n) for n in version], [Int8(n) for n in revision], hash_, state, seal]
        return statement + " SELECT originator_id, max(position) FROM rows GROUP BY originator_id", parameters

    def hold(self, connection: Connection, streams: Sequence[str], *, shared: bool = False) -> None:
        """Wait until nobody else holds these streams, and hold them until the transaction ends.

        Held alone they are by whoever erases or kept losing races, and shared by whoever decides on them anew: so what
        is decided on is not erased before that is committed.
        """
        lock = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        for stream in sorted(streams):
            run(connection, f"SELECT {lock}(%b)", (Int8(lock_key(self._events, stream)),))

    def begin_erasing(self, connection: Connection, streams: Sequence[str]) -> None:
        """Hold streams alone, and the views still: before anything is inserted, for that holds back all readers."""
        self.hold(connection, streams)
        if streams and self._views is not None:
            self._views.hold_still(connection)

    def erase(self, connection: Connection, stream: str) -> None:
        """Destroy the content of every event of a stream, with its keys, snapshot and view rows."""
        select = (
            f"SELECT originator_version, state FROM {self._events} WHERE originator_id = %b"
            " AND originator_version > %b ORDER BY originator_version LIMIT %b"
        )
        update = (
            f"UPDATE {self._events} AS old SET state = new.state FROM unnest(%b::int8[], %b::bytea[])"
            " AS new (version, state) WHERE old.originator_id = %b AND old.originator_version = new.version"
        )
        after = 0
        while rows := run(connection, select, (stream, Int8(after), Int8(_PAGE))).fetchall():
            run(connection, update, ([Int8(row[0]) for row in rows], [erase(row[1]) for row in rows], stream))
            after = rows[-1][0]
        for table in (self._keys, self._snapshots):
            run(connection, f"DELETE FROM {table} WHERE originator_id = %b", (stream,))
        if self._views is not None:
            tenant, _, session_id = stream.partition("/")
            self._views.forget(connection, tenant, session_id)


def _places(first: int, rows: int, columns: int) -> str:
    """Return the places of parameters, row by row: ``($1, $2), ($3, $4)``."""
    numbers = (range(first + n * columns, first + (n + 1) * columns) for n in range(rows))
    return ", ".join(f"({', '.join(f'${n}' for n in row)})" for row in numbers)
