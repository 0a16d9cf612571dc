"""The log and its views inside a transaction of the application's own, on its connection: ``store.using``.

What is appended is committed, or not, with whatever else that transaction writes; until then only it sees it, and
readers in the log's order are held back at its first position (tail.py). Reading goes through the connection
as well, but for the question up to where the log is settled: nothing of this transaction can be.
Nothing but events and their keys is written. Where another append was first, the savepoint is undone and it is decided
anew: under READ COMMITTED the other's is seen then.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol

from psycopg import Cursor, errors

from turnlog.adapters.bound import BoundViews, Elsewhere, StoredViews, follows
from turnlog.adapters.postgresql.attempt import Inside, Log, Query
from turnlog.adapters.postgresql.connection import Connection, run
from turnlog.adapters.postgresql.lent import Lent, Place, require_committed
from turnlog.adapters.sealed import sealed_key, sealed_snapshot
from turnlog.adapters.several import by_version, pages
from turnlog.domain.errors import ConcurrencyConflict, CorruptLog
from turnlog.domain.mapper import LogRow, StreamRow
from turnlog.domain.recorder import PENDING, Again, Batch, KeyRow, Recorder, SnapshotRow, StreamVersion

_LEVEL = "current_setting('transaction_isolation')"
_PATIENCE = "current_setting('lock_timeout'), set_config('lock_timeout', %b, true)"
_RAISED = (
    "CASE WHEN current_setting('synchronous_commit') IN ({}) THEN set_config('synchronous_commit', '{}', true) END"
)
_COMMITS = {"full": _RAISED.format("'off', 'local'", "on"), "normal": _RAISED.format("'off'", "local")}


class WholeLog(Log, Recorder, Protocol):
    """What is asked of the recorder beside it: statements, and up to where the log is settled."""

    events_table: str

    def log_query(self, after: int, upto: int, limit: int, topics: Sequence[str], prefix: str) -> Query:
        """Return what reads the log."""
        ...

    def versions_query(self, wanted: Sequence[StreamVersion]) -> Query:
        """Return what reads events of any streams."""
        ...

    def all_keys_query(self, stream: str) -> Query:
        """Return what reads every key of a stream."""
        ...

    def above_query(self, position: int, limit: int) -> Query:
        """Return what reads whose the events above a position are."""
        ...

    def size_query(self) -> Query:
        """Return what says how much is used."""
        ...

    def streams_query(self, prefix: str, after: str, limit: int) -> Query:
        """Return what reads names of streams."""
        ...


class BoundRecorder:
    """The recorder on a connection that an application lends."""

    expires = False

    def __init__(self, log: WholeLog, lent: Lent) -> None:
        self._log = log
        self._lent = lent
        self.durability = PENDING
        self.check, self.lingering, self.scrub = log.check, log.lingering, log.scrub  # a bound store asks for none
        self.wait_for_news = log.wait_for_news

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Write ``batches``, see ``Recorder``; the application commits them.

        Raises:
            ConcurrencyConflict: others were first until the time was over, or wait for this transaction to end.
        """
        self._log.pool.require_writable()
        deadline = monotonic() + self._log.pool.timeout_s
        losses, fits = 0, bool(batches)
        with self._log.pool.translating():
            while True:
                try:
                    with self._lent.savepoint() as connection, self._bounded(connection, deadline):
                        if not fits:
                            batches = self._asked(connection, batches, again, losses)
                        return self._insert(connection, batches)
                except Elsewhere as error:
                    if not fits:
                        raise CorruptLog(f"session {batches[0].stream!r}: an event is missing") from error
                    fits = False
                except (errors.UniqueViolation, errors.SerializationFailure) as error:
                    self._lent.require_committed()
                    losses, fits = losses + 1, False
                    if monotonic() > deadline:
                        raise ConcurrencyConflict(f"other writers were first {losses} times") from error
                except errors.DeadlockDetected as error:
                    words = "this transaction and another one wait for each other; roll back, and do it again"
                    raise ConcurrencyConflict(words) from error

    @contextmanager
    def _bounded(self, connection: Connection, deadline: float) -> Generator[None, None, None]:
        """Have locks waited for until the deadline only, and what the transaction commits survive a crash.

        The former is undone; the latter stays: positions that readers have passed must not be given a second time.
        """
        left_ms = max(int((deadline - monotonic()) * 1000), 1)
        statement = f"SELECT {_LEVEL}, {_PATIENCE}, {_COMMITS[self._log.pool.durability]}"
        settings = run(connection, statement, (str(left_ms),))
        yield
        level, before, *_ = settings.fetchall()[0]
        require_committed(level)
        run(connection, "SELECT set_config('lock_timeout', %b, true)", (before,))

    def _insert(self, connection: Connection, batches: Sequence[Batch]) -> list[int]:
        """Insert batches, and see whether what they stand on is there.

        Raises:
            Elsewhere: it is not; the application has rolled back to a savepoint of its own.
        """
        if not batches:
            return []
        log = self._log
        log.lock_order(connection)
        before = [(batch.rows[0][2], self._before(connection, batch)) for batch in batches if batch.rows]
        without_snapshots = [batch._replace(snapshot=None) for batch in batches]
        positions = log.writing.insert(connection, without_snapshots, drawn=log.ordering.drawn)
        if not all(cursor is None or follows(state, cursor.fetchall()) for state, cursor in before):
            raise Elsewhere
        return positions

    def _before(self, connection: Connection, batch: Batch) -> Cursor[Any] | None:
        """Ask for the event before a batch; that of a new stream has none."""
        first = batch.rows[0][0]
        if first == 1:
            return None
        return run(connection, *self._log.stream_query(batch.stream, first - 2, first - 1, desc=False, limit=1))

    def _asked(self, connection: Connection, batches: Sequence[Batch], again: Again, losses: int) -> Sequence[Batch]:
        held = [batch.stream for batch in batches] if losses else []
        self._log.writing.hold(connection, held)
        return again(Inside(self._log, connection, held))

    # --- reading ------------------------------------------------------------------------------------------------------

    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``; those of this transaction too."""
        return self._lent.rows(*self._log.stream_query(stream, after, upto, desc=desc, limit=limit))

    def select_versions(self, wanted: Sequence[StreamVersion]) -> dict[StreamVersion, StreamRow]:
        """Return events of any streams, see ``Recorder``; those of this transaction too."""
        rows = (row for page in pages(wanted) for row in self._lent.rows(*self._log.versions_query(page)))
        return dict(by_version(rows))

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``."""
        return [sealed_key(stream, row) for row in self._lent.rows(*self._log.keys_query(stream, keys))]

    def select_all_keys(self, stream: str) -> list[KeyRow]:
        """Return every key of a stream, see ``Recorder``."""
        return [sealed_key(stream, row) for row in self._lent.rows(*self._log.all_keys_query(stream))]

    def select_snapshot(self, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot, see ``Reader``."""
        return sealed_snapshot(stream, next(iter(self._lent.rows(*self._log.snapshot_query(stream))), None))

    def select_log(
        self, *, after: int = 0, upto: int | None = None, limit: int, topics: Sequence[str] = (), prefix: str = ""
    ) -> list[LogRow]:
        """Return events in position order, see ``Recorder``: only settled ones, so none of this transaction."""
        head = self.position()
        upto = head if upto is None else min(upto, head)
        return self._lent.rows(*self._log.log_query(after, upto, limit, topics, prefix))

    def streams(self, *, prefix: str, after: str = "", limit: int) -> list[str]:
        """Return names of streams, see ``Recorder``; those of this transaction too."""
        return [row[0] for row in self._lent.rows(*self._log.streams_query(prefix, after, limit))]

    def position(self) -> int:
        """Return the position up to which the log is settled, all of which a statement that begins now sees."""
        self._lent.require_committed()
        return self._log.position()

    def visible(self, *, limit: int) -> list[str] | None:
        """Return the streams of events that this connection sees but that are not settled: its own among them."""
        rows = self._lent.rows(*self._log.above_query(self.position(), limit + 1))
        return None if len(rows) > limit else list({row[0]: None for row in rows})

    def size_bytes(self) -> int | None:
        """Return how much storage is used."""
        return int(self._lent.rows(*self._log.size_query())[0][0])

    def close(self) -> None:
        """Do nothing: the connection is the application's."""


class Using:
    """Gives the log and its views inside the transaction of a connection."""

    def __init__(self, log: WholeLog, views: StoredViews) -> None:
        self._log, self._views = log, views
        self._place = Place(log.pool, log.events_table)

    def __call__(self, connection: object) -> tuple[BoundRecorder, BoundViews]:
        """Bind them.

        Raises:
            InvalidInput, StoreUnavailable: not to this connection, or not now.
        """
        lent = Lent(connection, self._log.pool)
        lent.require_committed()
        self._place.require(lent)
        return BoundRecorder(self._log, lent), BoundViews(self._views, lent)
