"""``eventsourcing``'s recorder contracts on SQLite: aggregate, application, tracking and process recorder.

What turnlog asks for on top of them is in recorder.py, which also says how atomicity, order and durability are kept.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

from eventsourcing.persistence import IntegrityError, ProcessRecorder, Tracking, TrackingRecorder

from turnlog.adapters.following import News
from turnlog.adapters.library import OrderedRecorder, OriginatorRecorder, Row, of_the_library
from turnlog.adapters.names import name_range
from turnlog.adapters.sqlite.database import Database
from turnlog.domain.mapper import LogRow, StreamRow

FEW = 8
"""Up to so many rows are inserted by one statement."""
POLL_S = 0.02
"""How often a waiting reader looks for events of other processes."""
ALL = 1 << 62


class SQLiteAggregateRecorder(OriginatorRecorder):
    """Events of many originators in one table; ids are ``text`` or ``uuid``."""

    def __init__(
        self, database: Database, *, events_table: str = "stored_events", originator_id_type: str = "uuid"
    ) -> None:
        super().__init__(originator_id_type=originator_id_type)
        self.database = database
        self.events_table = events_table
        columns = "originator_id, originator_version, topic, state"
        self._inserts = [
            f"INSERT INTO {events_table} ({columns}) VALUES " + ", ".join(["(?, ?, ?, ?)"] * n) for n in range(FEW + 1)
        ]
        self._select = (
            f"SELECT position, originator_version, topic, state FROM {events_table} WHERE originator_id = ?"
            " AND originator_version > ? AND originator_version <= ? ORDER BY originator_version {} LIMIT ?"
        )
        self._ascending, self._descending = self._select.format("ASC"), self._select.format("DESC")

    @of_the_library
    def create_table(self) -> None:
        """Create what is missing; several processes may do so at once."""
        with self.database.write() as connection:
            for statement in self.statements():
                connection.execute(statement)

    def statements(self) -> list[str]:
        """Return the DDL of this recorder's tables."""
        events = (
            f"CREATE TABLE IF NOT EXISTS {self.events_table} (position INTEGER PRIMARY KEY,"
            " originator_id TEXT NOT NULL, originator_version INTEGER NOT NULL, topic TEXT NOT NULL,"
            " state BLOB NOT NULL, UNIQUE (originator_id, originator_version))"
        )
        return [events]

    def _insert_events(self, rows: Sequence[Row], **kwargs: Any) -> list[int]:
        with self.database.write() as connection:
            last = self._insert_rows(connection, rows)
            self._also(connection, **kwargs)
        return list(range(last - len(rows) + 1, last + 1))

    def _also(self, connection: sqlite3.Connection, **kwargs: Any) -> None:
        """Do what else belongs into the transaction (see the process recorder)."""

    def _insert_rows(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> int:
        if not rows:
            return 0
        if len(rows) <= FEW:
            values = rows[0] if len(rows) == 1 else [value for row in rows for value in row]
            return connection.execute(self._inserts[len(rows)], values).lastrowid or 0
        connection.executemany(self._inserts[1], rows)
        return int(connection.execute("SELECT last_insert_rowid()").fetchone()[0])

    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        with self.database.read() as connection:
            return self.stream_rows(connection, stream, after, upto, desc=desc, limit=limit)

    def stream_rows(
        self,
        connection: sqlite3.Connection,
        stream: str,
        after: int,
        upto: int | None,
        *,
        desc: bool,
        limit: int | None,
    ) -> list[StreamRow]:
        """Return a stream's rows, read on ``connection``."""
        statement = self._descending if desc else self._ascending
        parameters = (stream, after, ALL if upto is None else upto, -1 if limit is None else limit)
        return connection.execute(statement, parameters).fetchall()


class SQLiteApplicationRecorder(SQLiteAggregateRecorder, OrderedRecorder):
    """Adds the order over all originators, and following it within and across processes."""

    def __init__(self, database: Database, **options: Any) -> None:
        super().__init__(database, **options)
        self._news = News(POLL_S)

    def select_log(
        self, *, after: int = 0, upto: int | None = None, limit: int, topics: Sequence[str] = (), prefix: str = ""
    ) -> list[LogRow]:
        """Return events in position order, see ``Recorder``."""
        where = ["position > ?", "position <= ?"]
        parameters: list[object] = [after, ALL if upto is None else upto]
        if topics:
            where.append(f"topic IN ({', '.join('?' * len(topics))})")
            parameters += topics
        if prefix:
            where.append("originator_id >= ? AND originator_id < ?")
            parameters += name_range(prefix)
        statement = (
            f"SELECT position, originator_id, originator_version, topic, state FROM {self.events_table} NOT INDEXED"
            f" WHERE {' AND '.join(where)} ORDER BY position LIMIT ?"
        )
        with self.database.read() as connection:
            return connection.execute(statement, (*parameters, limit)).fetchall()

    def position(self) -> int:
        """Return the position of the newest event, 0 if there is none."""
        with self.database.read() as connection:
            return self._position(connection)

    def _position(self, connection: sqlite3.Connection) -> int:
        return connection.execute(f"SELECT max(position) FROM {self.events_table}").fetchone()[0] or 0

    def wait_for_news(self, after: int, timeout_s: float) -> bool:
        """Wait for an event above ``after``: woken by this process, looking every 20 ms for others."""
        return self._news.wait(lambda: self.position() > after, timeout_s)

    def tell(self) -> None:
        """Wake those who wait in this process."""
        if self._news.awaited:
            self._news.tell()


class SQLiteTrackingRecorder(TrackingRecorder):
    """How far a reader of some application has come, one row an application."""

    def __init__(self, database: Database, *, tracking_table: str = "notification_tracking") -> None:
        self.tracking_table = tracking_table
        self.database = database

    @of_the_library
    def create_table(self) -> None:
        """Create what is missing."""
        with self.database.write() as connection:
            connection.execute(self._tracking_statement())

    def _tracking_statement(self) -> str:
        return (
            f"CREATE TABLE IF NOT EXISTS {self.tracking_table}"
            " (application_name TEXT PRIMARY KEY, notification_id INTEGER NOT NULL)"
        )

    @of_the_library
    def insert_tracking(self, tracking: Tracking) -> None:
        """Record that ``tracking`` was reached.

        Raises:
            IntegrityError: it was reached before.
        """
        with self.database.write() as connection:
            self._insert_tracking(connection, tracking)

    def _insert_tracking(self, connection: sqlite3.Connection, tracking: Tracking) -> None:
        cursor = connection.execute(
            f"INSERT INTO {self.tracking_table} VALUES (?, ?) ON CONFLICT (application_name) DO UPDATE"
            " SET notification_id = excluded.notification_id WHERE excluded.notification_id > notification_id",
            (tracking.application_name, tracking.notification_id),
        )
        if cursor.rowcount < 1:
            raise IntegrityError(f"{tracking} is not above what was recorded")

    @of_the_library
    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the position recorded for this application."""
        return self._max_tracking_id(application_name)

    def _max_tracking_id(self, application_name: str) -> int | None:
        statement = f"SELECT notification_id FROM {self.tracking_table} WHERE application_name = ?"
        with self.database.read() as connection:
            row = connection.execute(statement, (application_name,)).fetchone()
        return row[0] if row else None


class SQLiteProcessRecorder(SQLiteTrackingRecorder, SQLiteApplicationRecorder, ProcessRecorder):
    """Events and tracking, written in one transaction."""

    def __init__(self, database: Database, *, tracking_table: str = "notification_tracking", **options: Any) -> None:
        SQLiteTrackingRecorder.__init__(self, database, tracking_table=tracking_table)
        SQLiteApplicationRecorder.__init__(self, database, **options)

    @of_the_library
    def create_table(self) -> None:
        """Create what is missing."""
        SQLiteApplicationRecorder.create_table(self)

    def statements(self) -> list[str]:
        """Return the DDL of both tables."""
        return [*SQLiteApplicationRecorder.statements(self), self._tracking_statement()]

    def _also(self, connection: sqlite3.Connection, **kwargs: Any) -> None:
        tracking = kwargs.get("tracking")
        if tracking is not None:
            self._insert_tracking(connection, tracking)
