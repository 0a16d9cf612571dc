"""One append to PostgreSQL on its way: written, asked anew where others were first, sent again where it was cut off."""

from collections.abc import Callable, Sequence
from random import uniform
from time import monotonic, sleep
from typing import Any, Protocol

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

LONGEST_PAUSE_S = 0.05
CONTENDED_S = 1.0
"""So long after a lost race the appends of a process to that stream hold it from the start."""
MOST_CONTENDED = 1_000
_AGAIN = (errors.DeadlockDetected, errors.SerializationFailure)
Query = tuple[str, Sequence[object]]
"""A statement and its parameters."""


class Log(Reader, Protocol):
    """What an append needs of its recorder."""

    pool: Pool
    writing: Writing
    contended: "Contended"

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


class Contended:
    """The streams over which this process lost a race a moment ago: its appends queue for them, each holds its own.

    Were it only the loser that does, whoever won the last race, and need not read, would win the next ones too
    (measured: docs/decisions/0014).
    """

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def note(self, batches: Sequence[Batch]) -> None:
        """Note that a race over the streams of these batches was lost."""
        now = monotonic()
        if len(self._until) > MOST_CONTENDED:
            self._until = {stream: until for stream, until in self._until.items() if until > now}
        self._until.update((batch.stream, now + CONTENDED_S) for batch in batches)

    def has(self, batches: Sequence[Batch]) -> bool:
        """Return whether one of the batches' streams is among them."""
        return any(self._until.get(batch.stream, 0.0) > monotonic() for batch in batches) if self._until else False


class Attempt:
    """One append on its way: tried until it is committed, refused, or the time is over."""

    def __init__(self, recorder: Log, batches: Sequence[Batch], again: Callable[[Reader], Sequence[Batch]]) -> None:
        self._recorder = recorder
        self._again = again
        self._batches = batches
        self._is_contended = recorder.contended.has(batches)
        self._fits = bool(batches) and not self._is_contended
        self._doubtful = False
        self._losses = self._tries = 0
        self._error: Exception | None = None

    def once(self) -> list[int] | None:
        """Try; return the positions, or ``None`` where it is worth another try."""
        self._tries += 1
        try:
            positions = self._write() if self._fits else self._ask()
        except errors.UniqueViolation as error:
            if self._doubtful and (found := self._found()) is not None:
                return found
            self._doubtful = self._fits = False
            self._losses += 1
            self._is_contended = True
            self._error = error
        except (*_AGAIN, Broken) as error:
            self._error = error
        except Lost as error:
            self._doubtful = self._fits = True
            self._error = error
        else:
            if self._losses:
                self._recorder.contended.note(self._batches)
            return positions
        return None

    def pause(self) -> None:
        """Wait a little, by chance, so that those who race do not meet again."""
        if not self._losses:  # else it holds what it raced for
            sleep(uniform(0, min(0.001 * 2**self._tries, LONGEST_PAUSE_S)))  # noqa: S311 - not a secret

    def given_up(self) -> Exception:
        """Return what to raise when the time is over."""
        if self._losses:
            return ConcurrencyConflict(f"other writers were first {self._losses} times")
        return StoreUnavailable(f"{self._recorder.pool.name}: gave up after {self._tries} tries: {self._error}")

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
            held: list[str] = []
            if self._is_contended or any(batch.erase for batch in self._batches):
                held = [batch.stream for batch in self._batches]
                self._recorder.writing.hold(connection, held)
            if self._losses or not self._is_contended or self._is_late(connection):
                self._batches = self._again(Inside(self._recorder, connection, held))
            return self._write_inside(connection)

    def _is_late(self, connection: Connection) -> bool:
        """Return whether a version is taken that is to be written."""
        firsts = ((batch.stream, batch.rows[0][0]) for batch in self._batches if batch.rows)
        queries = (
            self._recorder.stream_query(stream, version - 1, None, desc=False, limit=1) for stream, version in firsts
        )
        return any(run(connection, *query).fetchall() for query in queries)

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
        return [sealed_key(stream, row) for row in self._rows(*self._recorder.keys_query(stream, keys))]

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
