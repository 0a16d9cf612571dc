"""Up to which position a PostgreSQL log is settled: nothing new can appear there any more. No lock, no timeout.

A transaction that is to insert into the events table locks it (ROW EXCLUSIVE) before it draws a position, and is seen
by others before it lets go. So: look at the rows, then at who holds that lock; what lies under a hole and belongs to
none of these is over, and a *new* statement sees all of it that was committed. For each holder ``low`` says up to where
it owns nothing. Why this is right, what it was measured against and which variants lose events: PG_TAIL.md.

It needs the primary, positions that the insert itself draws from a sequence with CACHE 1, and commits that wait for the
disk. An open transaction that has appended holds back what comes after its first position; nothing else does. A standby
does not show its primary's locks, so there only what the views have come to is settled; each look asks where it is.
"""

import os
import threading
import weakref
from collections.abc import Set as AbstractSet
from time import monotonic

import psycopg

from turnlog.adapters.postgresql.connection import Connection, is_broken, run
from turnlog.adapters.postgresql.pool import Pool
from turnlog.adapters.postgresql.tables import Ordering
from turnlog.domain.errors import StoreUnavailable

PAGE = 2_000
"""How many rows are looked at for a hole at one time."""
AGAIN_S = 0.1
"""How long to wait before connecting again to a server that is gone."""
_PREPARED = "-1/"
"""How a holder's name begins that is a prepared transaction restored after a restart (before 14.1: any prepared)."""


class Watermark:
    """What is known of the positions: pure, so that every order of events can be tried."""

    def __init__(self) -> None:
        self.settled = 0
        """At or below it, whatever is not visible to a statement that begins now never will be."""
        self.top = 0
        """The highest position that was seen."""
        self._floor = 0
        self._low: dict[str, int] = {}

    def looked(self, top: int, dense: int, known: int) -> None:
        """Take note of a look at the rows.

        Args:
            top: the highest position that is visible.
            dense: up to where, from ``settled`` on, there is no hole.
            known: a position that somebody else has proven.
        """
        self.top = max(self.top, top)
        self.settled = max(self.settled, dense, min(known, top))

    def held(self, holders: AbstractSet[str]) -> None:
        """Take note of who held the lock, looked at after the rows.

        Who was not seen before took it after the last time, so it owns nothing up to what was visible then.
        """
        low, self._low = self._low, {}
        gone = [low[holder] for holder in low if holder not in holders and not holder.startswith(_PREPARED)]
        for holder in holders:
            self._low[holder] = low.get(holder, self._floor)
            if gone and holder.startswith(_PREPARED):  # it may be one of those, under a new name
                self._low[holder] = min(self._low[holder], *gone)
        self._floor = max(self._floor, self.top)
        self.settled = max(self.settled, min([self.top, *self._low.values()]))


class Tail:
    """Looks at one events table, on a connection of its own. Safe to share between threads.

    Args:
        events: the table's name as SQL text.
        views: that of the views' checkpoints, which are proven positions too; none in an ``eventsourcing`` database.
    """

    def __init__(self, pool: Pool, events: str, ordering: Ordering, views: str | None = None) -> None:
        self._pool = pool
        self._events = events
        self._ordering = ordering
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._connection: Connection | None = None
        self._closed = threading.Event()
        self._watermark = Watermark()
        known = f"(SELECT max(position) FROM {views})" if views is not None else "0"
        self._look = (
            f"SELECT coalesce((SELECT max(position) FROM {events}), 0), coalesce((SELECT max(position) FROM"
            " (SELECT position, row_number() OVER (ORDER BY position) AS n FROM"
            f" (SELECT position FROM {events} WHERE position > %(settled)b::int8 ORDER BY position LIMIT {PAGE})"
            f" AS page) AS numbered WHERE position - n = %(settled)b::int8), 0), coalesce({known}, 0),"
            " pg_is_in_recovery()"
        )
        self._holders = (
            "SELECT DISTINCT virtualtransaction FROM pg_catalog.pg_locks WHERE locktype = 'relation'"
            " AND mode = 'RowExclusiveLock' AND granted"
            " AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())"
            " AND relation IN (SELECT %(events)b::text::regclass::oid"
            " UNION ALL SELECT relid::oid FROM pg_partition_tree(%(events)b::text::regclass))"
        )

    @property
    def settled(self) -> int:
        """What was proven so far."""
        return self._watermark.settled

    @property
    def in_doubt(self) -> bool:
        """Whether the last look saw events above what is proven."""
        return self._watermark.top > self._watermark.settled

    def head(self) -> int:
        """Return the highest position up to which the log is settled.

        Raises:
            StoreUnavailable: the server does not answer; one that is gone is waited for as the pool waits.
        """
        self._require_own()
        deadline = monotonic() + self._pool.timeout_s
        with self._lock, self._pool.translating():
            while True:
                try:
                    return self._head(deadline)
                except psycopg.OperationalError as error:
                    if self._connection is None or not is_broken(self._connection, error) or monotonic() > deadline:
                        raise
                    self._forget()

    def _head(self, deadline: float) -> int:
        connection = self._own_connection(deadline)
        watermark = self._watermark
        while True:
            before = watermark.settled
            ((top, dense, known, replica),) = run(connection, self._look, {"settled": before}).fetchall()
            if replica or not self._ordering.proven:
                watermark.looked(top, 0, known if replica else top)
                return watermark.settled
            watermark.looked(top, dense, known)
            if watermark.settled < top:
                rows = run(connection, self._holders, {"events": self._events}).fetchall()
                watermark.held({row[0] for row in rows})
            if watermark.settled >= top or watermark.settled != before + PAGE:
                return watermark.settled

    def _require_own(self) -> None:
        if self._pid != os.getpid():
            self._abandoned = self._connection  # the socket is the parent's, and so may be who holds the lock
            self._connection, self._lock, self._pid = None, threading.Lock(), os.getpid()
            was_closed, self._closed = self._closed.is_set(), threading.Event()
            if was_closed:
                self._closed.set()

    def _own_connection(self, deadline: float) -> Connection:
        if self._connection is None:
            self._connection = self._connected(deadline)
            weakref.finalize(self, _close, self._connection, os.getpid()).atexit = False
            run(self._connection, "SET plan_cache_mode = force_generic_plan", prepare=False)
            run(self._connection, "SET enable_seqscan = off", prepare=False)  # a new table has no statistics
        return self._connection

    def _connected(self, deadline: float) -> Connection:
        while True:
            try:
                return self._pool.session()
            except StoreUnavailable:
                if self._pool.closed or monotonic() > deadline or self._closed.wait(AGAIN_S):
                    raise

    def _forget(self) -> None:
        """Begin anew: what was seen of holders is worth nothing once something happened to the server."""
        self._watermark = Watermark()
        self._connection = None

    def close(self) -> None:
        """Close the connection. Closing twice does nothing."""
        self._closed.set()
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None


def _close(connection: Connection, pid: int) -> None:
    """Close the connection of a store that was dropped without being closed; a child leaves its parent's alone."""
    if pid == os.getpid():
        connection.close()
