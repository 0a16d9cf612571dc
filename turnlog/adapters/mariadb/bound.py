"""The log and its views inside a transaction of the application's own, on its connection: ``store.using``.

What is appended is committed, or not, with whatever else that transaction writes; until then only it sees it. Its first
append takes the row that gives positions (head.py), and the transaction keeps it: every other writer waits until the
application commits or rolls back, so what it appends is in order with all the rest. Where it rolls back, the same
positions are given again, to others: none of them was shown in the log's order before.

Up to where that order is settled is asked on another connection, which sees what is committed. Nothing but events and
their keys is written. An append is decided anew, once, where it does not fit: nobody else writes then.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from math import ceil
from time import monotonic

import pymysql

from turnlog.adapters.bound import BoundViews, Elsewhere, StoredViews, follows
from turnlog.adapters.mariadb.connection import TAKEN, Connection, number
from turnlog.adapters.mariadb.lent import EXPECTED_LEVEL, Lent, level_variable
from turnlog.adapters.mariadb.recorder import MariaDBRecorder
from turnlog.adapters.reading import Inside
from turnlog.domain.errors import ConcurrencyConflict, CorruptLog, InvalidInput
from turnlog.domain.mapper import LogRow
from turnlog.domain.recorder import PENDING, Again, Batch


class BoundRecorder:
    """The recorder on a connection that an application lends."""

    expires = False

    def __init__(self, log: MariaDBRecorder, lent: Lent) -> None:
        self._log = log
        self._lent = lent
        self.durability = PENDING
        self._reading = reading = log.elsewhere(lent)
        self.select_stream, self.select_keys = reading.select_stream, reading.select_keys
        self.select_all_keys, self.select_snapshot = reading.select_all_keys, reading.select_snapshot
        self.select_versions = reading.select_versions
        self.streams, self.size_bytes = reading.streams, reading.size_bytes
        self.check, self.lingering, self.scrub = log.check, log.lingering, log.scrub  # a bound store asks for none
        self.wait_for_news = log.wait_for_news

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Write ``batches``, see ``Recorder``; the application commits them.

        Raises:
            ConcurrencyConflict: the server has undone the transaction, because another one waited for it and it for
                that one; all of it has to be done again.
            StoreUnavailable: another one held the order for too long.
        """
        self._log.pool.require_writable()
        deadline = monotonic() + self._log.pool.timeout_s
        with self._log.pool.translating():
            if batches:
                try:
                    with self._held(deadline) as (connection, after):
                        return self._insert(connection, after, batches)
                except Elsewhere:
                    pass
                except pymysql.IntegrityError as error:
                    if number(error) != TAKEN:
                        raise
            return self._asked(again, deadline)

    def _asked(self, again: Again, deadline: float) -> list[int]:
        """Write what is decided while nobody else writes."""
        try:
            with self._held(deadline) as (connection, after):
                return self._insert(connection, after, again(Inside(self._log, connection)))
        except Elsewhere as error:
            raise CorruptLog(f"session {error}: an event is missing") from error
        except pymysql.IntegrityError as error:
            if number(error) != TAKEN:
                raise
            raise ConcurrencyConflict(f"what was decided again does not fit the log: {error}") from error

    @contextmanager
    def _held(self, deadline: float) -> Generator[tuple[Connection, int], None, None]:
        """Lend the connection, under a savepoint, with the position that was given last; nobody else writes.

        Raises:
            InvalidInput: the transaction reads what was, under another isolation level than it says.
        """
        with self._lent.savepoint(max(1, ceil(deadline - monotonic()))) as connection:
            after = self._log.head.hold(connection)
            self._require_sees(connection, after)
            yield connection, after

    def _require_sees(self, connection: Connection, position: int) -> None:
        """Return if a plain statement sees the log up to a position that was committed."""
        if self._log.head.seen(connection) < position:
            words = "its transaction sees an older moment, whatever its session is set to"
            raise InvalidInput("connection", f"{words}; {EXPECTED_LEVEL}")

    def _insert(self, connection: Connection, after: int, batches: Sequence[Batch]) -> list[int]:
        for batch in batches:
            if not self._stands(connection, batch):
                raise Elsewhere(repr(batch.stream))
        without_snapshots = [batch._replace(snapshot=None) for batch in batches]
        return self._log.writing.insert(connection, after, without_snapshots)

    def _stands(self, connection: Connection, batch: Batch) -> bool:
        """Return whether the event before a batch is there; a new stream has none."""
        if not batch.rows or batch.rows[0][0] == 1:
            return True
        before = batch.rows[0][0] - 1
        rows = self._log.stream_rows(connection, batch.stream, before - 1, before, desc=False, limit=1)
        return follows(batch.rows[0][2], rows)

    # --- the log's order ----------------------------------------------------------------------------------------------

    def select_log(
        self, *, after: int = 0, upto: int | None = None, limit: int, topics: Sequence[str] = (), prefix: str = ""
    ) -> list[LogRow]:
        """Return events in position order, see ``Recorder``: only settled ones, so none of this transaction."""
        head = self.position()
        upto = head if upto is None else min(upto, head)
        return self._reading.select_log(after=after, upto=upto, limit=limit, topics=topics, prefix=prefix)

    def position(self) -> int:
        """Return the position of the newest event that is committed; a statement that begins now sees all up to it."""
        position = self._log.head.position(self._log.beside)
        with self._lent.read() as connection:
            self._require_sees(connection, position)
        return position

    def visible(self, *, limit: int) -> list[str] | None:
        """Return the streams of events that this connection sees but that are not settled: its own among them."""
        statement = f"SELECT originator_id FROM {self._log.events_table} WHERE position > %s LIMIT %s"
        rows = self._lent.rows(statement, (self.position(), limit + 1))
        return None if len(rows) > limit else list({row[0]: None for row in rows})

    def close(self) -> None:
        """Do nothing: the connection is the application's."""


class Using:
    """Gives the log and its views inside the transaction of a connection."""

    def __init__(self, log: MariaDBRecorder, views: StoredViews) -> None:
        self._log, self._views = log, views
        self._level: str | None = None

    def __call__(self, connection: object) -> tuple[BoundRecorder, BoundViews]:
        """Bind them.

        Raises:
            InvalidInput, StoreUnavailable: not to this connection, or not now.
        """
        if self._level is None:
            self._level = level_variable(self._log.beside)
        lent = Lent(connection, self._log.pool, self._level)
        self._require_here(lent)
        return BoundRecorder(self._log, lent), BoundViews(self._views, lent)

    def _require_here(self, lent: Lent) -> None:
        """Return if a connection leads to the very server that the log is on, and not to a replica or a copy of it.

        Only there is it known who holds a lock that one of our own connections has taken. In which database the
        connection is does not matter: our statements say in which the log is.

        Raises:
            InvalidInput: it does not.
        """
        for anew in (False, True):
            name, holder = self._log.beside.sign(anew=anew)
            if lent.rows("SELECT IS_USED_LOCK(%s)", (name,)) == [(holder,)]:
                return
        words = f"expected one to the log of this store, table {self._log.events_table} in {self._log.pool.name}"
        raise InvalidInput("connection", f"{words}, got one to {lent.name}")
