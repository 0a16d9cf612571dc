"""One append to PostgreSQL: what is sent, and what is held while it is decided anew (attempt.py says when)."""

from collections.abc import Sequence
from typing import Any, Protocol

from psycopg import errors

from turnlog.adapters.attempt import Taken, Undone
from turnlog.adapters.contended import Contended
from turnlog.adapters.postgresql.connection import CONFIRM, Connection, run
from turnlog.adapters.postgresql.pool import Pool
from turnlog.adapters.postgresql.tables import Ordering
from turnlog.adapters.postgresql.writing import Writing
from turnlog.adapters.sealed import sealed_key, sealed_snapshot
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Again, Batch, KeyRow, Reader, SnapshotRow

_AGAIN = (errors.DeadlockDetected, errors.SerializationFailure)
Query = tuple[str, Sequence[object]]
"""A statement and its parameters."""


class Log(Reader, Protocol):
    """What an append needs of its recorder."""

    pool: Pool
    writing: Writing

    @property
    def ordering(self) -> Ordering:
        """How positions come to be in order."""
        ...

    def lock_order(self, connection: Connection) -> None:
        """Exclude other appends, where order needs it."""
        ...

    def stream_query(self, originator_id: str, after: int, upto: int | None, *, desc: bool, limit: int | None) -> Query:
        """Return what reads events of a stream."""
        ...

    def keys_query(self, stream: str, keys: Sequence[tuple[str, str]]) -> Query:
        """Return what reads keys of a stream."""
        ...

    def snapshot_query(self, stream: str) -> Query:
        """Return what reads the snapshot of a stream."""
        ...


class Appending:
    """What an append does to its recorder's tables."""

    def __init__(self, recorder: Log) -> None:
        self._recorder = recorder
        self._contended = Contended()
        self.name = recorder.pool.name
        self.translating = recorder.pool.translating
        self.queues = self._contended.has
        self.select_keys = recorder.select_keys

    def select_stream(self, stream: str, *, after: int = 0, upto: int | None = None) -> list[StreamRow]:
        """Return events of one stream that are as safe as an append that returned."""
        found = self._recorder.select_stream(stream, after=after, upto=upto)
        if found:
            self._recorder.pool.confirm()
        return found

    def write(self, batches: Sequence[Batch]) -> list[int]:
        """Commit ``batches``, in one statement where no lock is needed."""
        recorder = self._recorder
        try:
            if recorder.ordering.locked or any(batch.erase for batch in batches):
                with recorder.pool.transaction() as connection:
                    return self._write_inside(connection, batches)
            with recorder.pool.autocommit() as connection:
                return recorder.writing.send(connection, batches)
        except errors.UniqueViolation as error:
            raise Taken from error
        except _AGAIN as error:
            raise Undone from error

    def ask(self, again: Again, before: Sequence[Batch], losses: int) -> list[int]:
        """Commit what ``again`` returns. Who lost a race for a stream, or queues for it, holds it first.

        Who queues, and finds that what he has decided fits, has it committed as it is.
        """
        recorder = self._recorder
        queued = losses == 0 and bool(before)
        try:
            with recorder.pool.transaction() as connection:
                held = [batch.stream for batch in before]
                recorder.writing.hold(connection, held)
                if queued and not self._is_late(connection, before):
                    return self._write_inside(connection, before)
                positions = self._write_inside(connection, again(Inside(recorder, connection, held)))
        except errors.UniqueViolation as error:
            raise Taken from error
        except _AGAIN as error:
            raise Undone from error
        if losses:
            self._contended.note(before)
        return positions

    def _is_late(self, connection: Connection, batches: Sequence[Batch]) -> bool:
        """Return whether a version is taken that is to be written."""
        firsts = ((batch.stream, batch.rows[0][0]) for batch in batches if batch.rows)
        queries = (
            self._recorder.stream_query(stream, version - 1, None, desc=False, limit=1) for stream, version in firsts
        )
        return any(run(connection, *query).fetchall() for query in queries)

    def _write_inside(self, connection: Connection, batches: Sequence[Batch]) -> list[int]:
        recorder = self._recorder
        if not batches:
            return []
        erased = [batch.stream for batch in batches if batch.erase]
        recorder.writing.begin_erasing(connection, erased)
        recorder.lock_order(connection)
        positions = recorder.writing.insert(connection, batches, drawn=recorder.ordering.drawn)
        for stream in erased:
            recorder.writing.erase(connection, stream)
        return positions


class Inside:
    """Reading from within the append's own transaction, which holds what it reads: nobody erases it meanwhile."""

    def __init__(self, recorder: Log, connection: Connection, held: Sequence[str]) -> None:
        self._recorder = recorder
        self._connection = connection
        self._held = set(held)

    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        self._hold(stream)
        return self._rows(*self._recorder.stream_query(stream, after, upto, desc=desc, limit=limit))

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``."""
        self._hold(stream)
        found = [sealed_key(stream, row) for row in self._rows(*self._recorder.keys_query(stream, keys))]
        if found:
            run(self._connection, CONFIRM)
        return found

    def select_snapshot(self, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot, see ``Reader``."""
        self._hold(stream)
        return sealed_snapshot(stream, next(iter(self._rows(*self._recorder.snapshot_query(stream))), None))

    def _hold(self, stream: str) -> None:
        if stream not in self._held:
            self._recorder.writing.hold(self._connection, [stream], shared=True)
            self._held.add(stream)

    def _rows(self, statement: str, parameters: Sequence[object]) -> list[Any]:
        return run(self._connection, statement, parameters).fetchall()
