"""``eventsourcing``'s recorder contracts on PostgreSQL: aggregate and application recorder.

What turnlog asks for on top of them is in recorder.py, which also says how atomicity, order and durability are kept.
Positions of two appends at one time may interleave: without a lock on the table nothing can keep them apart. A reader
misses nothing by it (tail.py); who needs them apart asks for ``ordering="strict"``.
"""

from collections.abc import Sequence
from functools import cached_property
from time import monotonic
from typing import Any

from eventsourcing.persistence import IntegrityError
from psycopg import errors
from psycopg.types.numeric import Int8

from turnlog.adapters.attempt import Lost
from turnlog.adapters.library import OrderedRecorder, OriginatorRecorder, Row
from turnlog.adapters.names import name_range
from turnlog.adapters.postgresql import tables
from turnlog.adapters.postgresql.connection import Connection, run
from turnlog.adapters.postgresql.news import News
from turnlog.adapters.postgresql.partitions import require
from turnlog.adapters.postgresql.pool import Pool
from turnlog.adapters.postgresql.tail import Tail
from turnlog.domain.errors import OutcomeUnknown
from turnlog.domain.mapper import LogRow, StreamRow
from turnlog.domain.recorder import StreamVersion

COLUMNS = "originator_id, originator_version, topic, state"
_ARRAYS = "unnest(%b::text[], %b::int8[], %b::text[], %b::bytea[])"
INSERT_ONE = f"INSERT INTO {{0}} ({COLUMNS}) VALUES (%b, %b, %b, %b) RETURNING position"
INSERT_MANY = f"INSERT INTO {{0}} ({COLUMNS}) SELECT * FROM {_ARRAYS}"
INSERT_DRAWN = (
    f"INSERT INTO {{0}} (position, {COLUMNS}) OVERRIDING SYSTEM VALUE"
    " SELECT n + coalesce((SELECT max(position) FROM {0}), 0), id, version, topic, state"
    f" FROM {_ARRAYS} WITH ORDINALITY AS new (id, version, topic, state, n)"
)
"""Without the sequence: the numbers after the highest. Only under the lock on the order."""
RETRY_S = (0.002, 0.004, 0.008, 0.016, 0.032, 0.05)
"""How long to wait between looks while events are seen that are not proven."""
_ALL = (1 << 63) - 1


class PostgreSQLAggregateRecorder(OriginatorRecorder):
    """Events of many originators in one table; ids are ``text`` or ``uuid``."""

    def __init__(
        self,
        pool: Pool,
        *,
        events_table: str = "stored_events",
        originator_id_type: str = "uuid",
        ordering: str = "auto",
        partitions: int | None = None,
    ) -> None:
        super().__init__(originator_id_type=originator_id_type)
        self.pool = pool
        self.events_table = pool.table(events_table)
        self._wanted = ordering
        self._partitions = partitions
        self._ordering: tables.Ordering | None = None
        self._order_lock = tables.lock_key("order", self.events_table)
        self._insert_one = INSERT_ONE.format(self.events_table)
        self._insert_many = INSERT_MANY.format(self.events_table) + " RETURNING position"
        self._insert_drawn = INSERT_DRAWN.format(self.events_table) + " RETURNING position"
        select = (
            f"SELECT position, originator_version, topic, state FROM {self.events_table} WHERE originator_id = %b"
            " AND originator_version > %b AND originator_version <= %b ORDER BY originator_version {} LIMIT %b"
        )
        self._ascending, self._descending = select.format("ASC"), select.format("DESC")
        self._versions = (
            "SELECT found.* FROM unnest(%b::text[], %b::int8[]) AS wanted (id, version) CROSS JOIN LATERAL"
            f" (SELECT position, {COLUMNS} FROM {self.events_table} WHERE originator_id = wanted.id"
            " AND originator_version = wanted.version LIMIT 1) AS found"
        )
        """``LIMIT`` keeps PostgreSQL from joining them in another way than by a look into the index for each."""

    @property
    def ordering(self) -> tables.Ordering:
        """How positions come to be in order here; looked at once."""
        if self._ordering is None:
            self._ordering = tables.ordering(self.pool, self.events_table, self._wanted)
        return self._ordering

    def create_table(self) -> None:
        """Create what is missing; several processes may do so at once."""
        with self.pool.write() as connection:
            run(connection, "SELECT pg_advisory_xact_lock(%b)", (Int8(tables.lock_key("schema", self.pool.schema)),))
            for statement in self.statements():
                run(connection, statement, prepare=False)
        require(self.pool, self.events_table, self._partitions)

    def statements(self) -> list[str]:
        """Return the DDL of this recorder's tables."""
        return tables.statements((tables.EVENTS,), self._partitions, events=self.events_table)

    def _insert_events(self, rows: Sequence[Row], **kwargs: Any) -> list[int]:
        try:
            with self.pool.translating():
                return self._insert(rows, **kwargs)
        except Lost as error:
            raise OutcomeUnknown(f"{self.pool.name}: the connection broke during an append") from error

    def _insert(self, rows: Sequence[Row], **kwargs: Any) -> list[int]:
        try:
            if kwargs.get("tracking") is None and not self.ordering.locked:
                with self.pool.autocommit() as connection:
                    return self.insert_rows(connection, rows)
            with self.pool.transaction() as connection:
                self.lock_order(connection)
                positions = self.insert_rows(connection, rows)
                self._also(connection, **kwargs)
        except errors.UniqueViolation as error:
            raise IntegrityError(error) from error
        return positions

    def _also(self, connection: Connection, **kwargs: Any) -> None:
        """Do what else belongs into the transaction (see the process recorder)."""

    def lock_order(self, connection: Connection) -> None:
        """Exclude other appends until the transaction ends, where order needs it."""
        if self.ordering.locked:
            run(connection, "SELECT pg_advisory_xact_lock(%b)", (Int8(self._order_lock),))

    def insert_rows(self, connection: Connection, rows: Sequence[Row]) -> list[int]:
        """Insert rows in one statement and return their positions, which rise."""
        if not rows:
            return []
        if len(rows) == 1 and not self.ordering.drawn:
            stream, version, topic, state = rows[0]
            return [run(connection, self._insert_one, (stream, Int8(version), topic, state)).fetchall()[0][0]]
        statement = self._insert_drawn if self.ordering.drawn else self._insert_many
        return [row[0] for row in run(connection, statement, arrays(rows)).fetchall()]

    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        return self.pool.rows(*self.stream_query(stream, after, upto, desc=desc, limit=limit))

    def stream_query(
        self, originator_id: str, after: int, upto: int | None, *, desc: bool, limit: int | None
    ) -> tuple[str, tuple[object, ...]]:
        """Return the statement that reads a stream's rows (see ``StreamRow``), and its parameters."""
        bounds = Int8(after), Int8(_ALL if upto is None else upto), Int8(_ALL if limit is None else limit)
        return self._descending if desc else self._ascending, (originator_id, *bounds)

    def versions_query(self, wanted: Sequence[StreamVersion]) -> tuple[str, tuple[object, ...]]:
        """Return the statement that reads events of any streams (see ``LogRow``), and its parameters."""
        return self._versions, ([stream for stream, _ in wanted], [Int8(version) for _, version in wanted])


class PostgreSQLApplicationRecorder(PostgreSQLAggregateRecorder, OrderedRecorder):
    """Adds the order over all originators, and following it within and across processes."""

    def __init__(self, pool: Pool, *, views: str | None = None, **options: Any) -> None:
        super().__init__(pool, **options)
        self._views_table = views
        self.news = News(pool, tables.lock_key("news", self.events_table))

    @cached_property
    def tail(self) -> Tail:
        """Up to where the log is settled."""
        return Tail(self.pool, self.events_table, self.ordering, self._views_table)

    def tell(self) -> None:
        """Wake those who wait, in this process and in others."""
        self.news.ring()

    def select_log(
        self, *, after: int = 0, upto: int | None = None, limit: int, topics: Sequence[str] = (), prefix: str = ""
    ) -> list[LogRow]:
        """Return events in position order, see ``Recorder``: only settled ones."""
        if upto is None or upto > self.tail.settled:
            head = self.position()
            upto = head if upto is None else min(upto, head)
        return self.pool.rows(*self.log_query(after, upto, limit, topics, prefix), prepare=not topics and not prefix)

    def log_query(
        self, after: int, upto: int, limit: int, topics: Sequence[str], prefix: str
    ) -> tuple[str, tuple[object, ...]]:
        """Return the statement that reads the log, whether settled or not, and its parameters."""
        where = ["position > %b", "position <= %b"]
        parameters: list[object] = [Int8(after), Int8(upto)]
        if topics:
            where.append("topic = ANY(%b)")
            parameters.append(list(topics))
        if prefix:
            where.append("originator_id >= %b AND originator_id < %b")
            parameters += name_range(prefix)
        statement = (
            f"SELECT position, originator_id, originator_version, topic, state FROM {self.events_table}"
            f" WHERE {' AND '.join(where)} ORDER BY position LIMIT %b"
        )
        return statement, (*parameters, Int8(limit))

    def position(self) -> int:
        """Return the position up to which the log is settled, 0 if it is empty."""
        return self.tail.head()

    def wait_for_news(self, after: int, timeout_s: float) -> bool:
        """Wait for an event above ``after``: told by writers, and looking again soon where one is seen but not proven.

        A notification that got lost delays it by half a second.
        """
        deadline = monotonic() + timeout_s
        looks = 0
        while True:
            count = self.news.count
            if self.position() > after:
                return True
            left = deadline - monotonic()
            if left <= 0:
                return False
            soon = RETRY_S[min(looks, len(RETRY_S) - 1)] if self.tail.in_doubt else left
            self.news.wait(count, min(left, soon))
            looks = looks + 1 if self.tail.in_doubt else 0

    def close(self) -> None:
        """Release what following holds."""
        self.news.close()
        if "tail" in self.__dict__:  # it looks at the server when it is made
            self.tail.close()


def arrays(rows: Sequence[Row]) -> tuple[list[str], list[Int8], list[str], list[bytes]]:
    """Return rows as columns, each the parameter of an array."""
    return (
        [stream for stream, _, _, _ in rows],
        [Int8(version) for _, version, _, _ in rows],
        [topic for _, _, topic, _ in rows],
        [state for _, _, _, state in rows],
    )
