"""``eventsourcing``'s recorder contracts on MariaDB: aggregate and application recorder.

What turnlog asks for on top of them is in recorder.py, which also says how atomicity, order and durability are kept.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

from turnlog.adapters.attempt import Lost
from turnlog.adapters.following import News
from turnlog.adapters.library import OrderedRecorder, OriginatorRecorder, Row, of_the_library
from turnlog.adapters.mariadb import tables
from turnlog.adapters.mariadb.connection import Connection, Source, run
from turnlog.adapters.mariadb.head import Head, head_name
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.names import name_range
from turnlog.domain.errors import OutcomeUnknown
from turnlog.domain.mapper import LogRow, StreamRow

POLL_S, FIRST_POLL_S = 0.05, 0.002
"""How long, at most and at first, a waiting reader pauses before it looks for events of other processes."""
_ALL = (1 << 63) - 1


class MariaDBAggregateRecorder(OriginatorRecorder):
    """Events of many originators in one table; ids are ``text`` or ``uuid``."""

    def __init__(self, pool: Pool, *, events_table: str = "stored_events", originator_id_type: str = "uuid") -> None:
        super().__init__(originator_id_type=originator_id_type)
        self.pool = pool
        self.source: Source = pool
        self.head = Head(pool, events_table)
        self.events_table = self.head.events
        self._head_table = pool.table(head_name(events_table))
        select = (
            f"SELECT position, originator_version, topic, state FROM {self.events_table} WHERE originator_id = %s"
            " AND originator_version > %s AND originator_version <= %s ORDER BY originator_version {} LIMIT %s"
        )
        self._ascending, self._descending = select.format("ASC"), select.format("DESC")

    def elsewhere(self, source: Source) -> Self:
        """Return the same recorder, which reads through other connections."""
        recorder = copy(self)
        recorder.source = source
        return recorder

    @of_the_library
    def create_table(self) -> None:
        """Create what is missing; several processes may do so at once."""
        tables.create(self.pool, self.statements())

    def statements(self) -> list[str]:
        """Return what makes this recorder's tables."""
        given = {"events": self.events_table, "head": self._head_table, "collation": self.pool.collation}
        return [statement.format(**given) for statement in (tables.EVENTS, tables.HEAD, tables.HEAD_ROW)]

    def _insert_events(self, rows: Sequence[Row], **kwargs: Any) -> list[int]:
        last = None if kwargs.get("tracking") is not None else self._commit(rows)
        if last is None:
            with self.pool.write() as connection:
                last = self.head.insert(connection, self.head.hold(connection), rows)
                self._also(connection, **kwargs)
        return list(range(last - len(rows) + 1, last + 1))

    def _commit(self, rows: Sequence[Row]) -> int | None:
        with self.pool.translating():
            try:
                with self.pool.autocommit() as connection:
                    return self.head.commit(connection, rows)
            except Lost as error:
                raise OutcomeUnknown(f"{self.pool.name}: the connection broke during an append") from error

    def _also(self, connection: Connection, **kwargs: Any) -> None:
        """Do what else belongs into the transaction (see the process recorder)."""

    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        return self.source.rows(*self._stream_query(stream, after, upto, desc=desc, limit=limit))

    def stream_rows(
        self, connection: Connection, stream: str, after: int, upto: int | None, *, desc: bool, limit: int | None
    ) -> list[StreamRow]:
        """Return a stream's rows, read on ``connection``."""
        return list(run(connection, *self._stream_query(stream, after, upto, desc=desc, limit=limit)).fetchall())

    def _stream_query(
        self, stream: str, after: int, upto: int | None, *, desc: bool, limit: int | None
    ) -> tuple[str, tuple[object, ...]]:
        bounds = after, _ALL if upto is None else upto, _ALL if limit is None else limit
        return self._descending if desc else self._ascending, (stream, *bounds)


class MariaDBApplicationRecorder(MariaDBAggregateRecorder, OrderedRecorder):
    """Adds the order over all originators, and following it within and across processes."""

    def __init__(self, pool: Pool, **options: Any) -> None:
        super().__init__(pool, **options)
        self._news = News(POLL_S, FIRST_POLL_S)

    def select_log(
        self, *, after: int = 0, upto: int | None = None, limit: int, topics: Sequence[str] = (), prefix: str = ""
    ) -> list[LogRow]:
        """Return events in position order, see ``Recorder``."""
        where = ["position > %s", "position <= %s"]
        parameters: list[object] = [after, _ALL if upto is None else upto]
        if topics:
            where.append("topic IN %s")
            parameters.append(list(topics))
        if prefix:
            where.append("originator_id >= %s AND originator_id < %s")
            parameters += name_range(prefix)
        statement = (
            "SELECT position, originator_id, originator_version, topic, state"
            f" FROM {self.events_table} FORCE INDEX (PRIMARY) WHERE {' AND '.join(where)} ORDER BY position LIMIT %s"
        )
        return self.source.rows(statement, (*parameters, limit))

    def position(self) -> int:
        """Return the position of the newest event, 0 if there is none."""
        return self.head.position()

    def wait_for_news(self, after: int, timeout_s: float) -> bool:
        """Wait for an event above ``after``: woken by this process, looking at the head's row for others."""
        return self._news.wait(lambda: self.position() > after, timeout_s)

    def tell(self) -> None:
        """Wake those who wait in this process."""
        if self._news.awaited:
            self._news.tell()
