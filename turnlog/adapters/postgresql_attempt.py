"""One append to PostgreSQL on its way: written, asked anew where others were first, sent again where it was cut off."""

from collections.abc import Callable, Sequence
from random import uniform
from time import sleep
from typing import Any, Protocol

import psycopg
from psycopg import errors

from turnlog.adapters.postgresql_connection import Broken, Connection, Lost, run
from turnlog.adapters.postgresql_pool import Pool
from turnlog.adapters.postgresql_tables import Ordering
from turnlog.adapters.postgresql_writing import Writing
from turnlog.adapters.sealed import sealed_key, sealed_snapshot
from turnlog.domain.envelope import erase
from turnlog.domain.errors import ConcurrencyConflict, OutcomeUnknown, StoreUnavailable
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Batch, KeyRow, Reader, SnapshotRow

LOSSES = 2
"""After so many lost races an append holds its streams before it decides anew."""
LONGEST_PAUSE_S = 0.05
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


class Attempt:
    """One append on its way: tried until it is committed, refused, or the time is over."""

    def __init__(self, recorder: Log, batches: Sequence[Batch], again: Callable[[Reader], Sequence[Batch]]) -> None:
        self._recorder = recorder
        self._again = again
        self._batches = batches
        self._fits = bool(batches)
        self._doubtful = False
        self._losses = self._tries = 0
        self._error: Exception | None = None

    def once(self) -> list[int] | None:
        """Try; return the positions, or ``None`` where it is worth another try."""
        self._tries += 1
        try:
            return self._write() if self._fits else self._ask()
        except errors.UniqueViolation as error:
            return self._taken(error)
        except (*_AGAIN, Broken) as error:
            self._error = error
        except Lost as error:
            self._doubtful = self._fits = True
            self._error = error
        return None

    def pause(self) -> None:
        """Wait a little, by chance, so that those who race do not meet again."""
        if self._losses != 1 and self._losses <= LOSSES:
            sleep(uniform(0, min(0.001 * 2**self._tries, LONGEST_PAUSE_S)))  # noqa: S311 - not a secret

    def given_up(self) -> Exception:
        """Return what to raise when the time is over."""
        if self._losses and isinstance(self._error, psycopg.DatabaseError):
            return ConcurrencyConflict(f"other writers were first {self._losses} times")
        told = self._error and (self._error.__cause__ or self._error)
        return StoreUnavailable(f"{self._recorder.pool.name}: gave up after {self._tries} tries: {told}")

    def told(self) -> "_Told":
        """Turn what ends an append of which nobody knows whether it happened into ``OutcomeUnknown``."""
        return _Told(self)

    @property
    def doubtful(self) -> bool:
        """Whether the rows may be there although nobody said so."""
        return self._doubtful

    def _write(self) -> list[int]:
        recorder, batches = self._recorder, self._batches
        if recorder.ordering.locked or any(batch.erase for batch in batches):
            with recorder.pool.transaction() as connection:
                return self._write_inside(connection)
        with recorder.pool.autocommit() as connection:
            return recorder.writing.send(connection, batches)

    def _ask(self) -> list[int]:
        with self._recorder.pool.transaction() as connection:
            if self._losses > LOSSES or any(batch.erase for batch in self._batches):
                self._recorder.writing.hold(connection, [batch.stream for batch in self._batches])
            self._batches = self._again(_Inside(self._recorder, connection))
            return self._write_inside(connection)

    def _write_inside(self, connection: Connection) -> list[int]:
        recorder, batches = self._recorder, self._batches
        if not batches:
            return []
        erased = [batch.stream for batch in batches if batch.erase]
        recorder.writing.begin_erasing(connection, erased)
        recorder.lock_order(connection)
        positions = recorder.writing.insert(connection, batches, drawn=recorder.ordering.drawn)
        for stream in erased:
            recorder.writing.erase(connection, stream)
        return positions

    def _taken(self, error: Exception) -> list[int] | None:
        """Return the positions if it was this append that took them, before; else have it decided anew."""
        if self._doubtful:
            try:
                positions = self._found()
            except StoreUnavailable as unavailable:
                self._error = unavailable
                return None
            if positions is not None:
                return positions
        self._doubtful = self._fits = False
        self._losses += 1
        self._error = error
        return None

    def _found(self) -> list[int] | None:
        """Return the positions of the batches if they are there already: it was this append that wrote them."""
        positions = [self._position(batch) for batch in self._batches]
        return None if None in positions else [position or 0 for position in positions]

    def _position(self, batch: Batch) -> int | None:
        recorder, stream, rows = self._recorder, batch.stream, batch.rows
        if rows:
            there = recorder.select_stream(stream, after=rows[0][0] - 1, upto=rows[-1][0])
            same = [(*row[:2], erase(row[2])) for row in rows] if batch.erase else list(rows)
            return there[-1][0] if [row[1:] for row in there] == same else None
        keys = recorder.select_keys(stream, [(key.kind, key.key) for key in batch.keys])
        return 0 if keys == list(batch.keys) else None


class _Told:
    """See ``Attempt.told``."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, StoreUnavailable | ConcurrencyConflict) and self._attempt.doubtful:
            raise OutcomeUnknown(f"the connection broke during a commit, and then: {error}") from error


class _Inside:
    """Reading from within the append's own transaction, which holds what it reads: nobody erases it meanwhile."""

    def __init__(self, recorder: Log, connection: Connection) -> None:
        self._recorder = recorder
        self._connection = connection
        self._held: set[str] = set()

    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        self._hold(stream)
        return self._rows(*self._recorder.stream_query(stream, after, upto, desc=desc, limit=limit))

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        self._hold(stream)
        return [sealed_key(stream, row) for row in self._rows(*self._recorder.keys_query(stream, keys))]

    def select_snapshot(self, stream: str) -> SnapshotRow | None:
        self._hold(stream)
        return sealed_snapshot(stream, next(iter(self._rows(*self._recorder.snapshot_query(stream))), None))

    def _hold(self, stream: str) -> None:
        if stream not in self._held:
            self._recorder.writing.hold(self._connection, [stream], shared=True)
            self._held.add(stream)

    def _rows(self, statement: str, parameters: Sequence[object]) -> list[Any]:
        return run(self._connection, statement, parameters).fetchall()
