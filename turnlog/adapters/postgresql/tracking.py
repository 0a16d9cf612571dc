"""``eventsourcing``'s recorder contracts on PostgreSQL: tracking recorder, and process recorder, which is all of it."""

from typing import Any

from eventsourcing.persistence import IntegrityError, ProcessRecorder, Tracking, TrackingRecorder
from psycopg.types.numeric import Int8

from turnlog.adapters.postgresql import tables
from turnlog.adapters.postgresql.connection import Connection, run
from turnlog.adapters.postgresql.pool import Pool
from turnlog.adapters.postgresql.recorders import PostgreSQLApplicationRecorder


class PostgreSQLTrackingRecorder(TrackingRecorder):
    """How far a reader of some application has come, one row an application."""

    def __init__(self, pool: Pool, *, tracking_table: str = "notification_tracking") -> None:
        self.pool = pool
        self.tracking_table = pool.table(tracking_table)

    def create_table(self) -> None:
        """Create what is missing; several processes may do so at once."""
        with self.pool.write() as connection:
            run(connection, "SELECT pg_advisory_xact_lock(%b)", (Int8(tables.lock_key("schema", self.pool.schema)),))
            run(connection, tables.TRACKING.format(tracking=self.tracking_table), prepare=False)

    def insert_tracking(self, tracking: Tracking) -> None:
        """Record that ``tracking`` was reached.

        Raises:
            IntegrityError: it was reached before.
        """
        with self.pool.write() as connection:
            self._insert_tracking(connection, tracking)

    def _insert_tracking(self, connection: Connection, tracking: Tracking) -> None:
        done = run(
            connection,
            f"INSERT INTO {self.tracking_table} AS old VALUES (%b, %b) ON CONFLICT (application_name) DO UPDATE"
            " SET notification_id = excluded.notification_id WHERE excluded.notification_id > old.notification_id",
            (tracking.application_name, Int8(tracking.notification_id)),
        )
        if done.rowcount < 1:
            raise IntegrityError(f"{tracking} is not above what was recorded")

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the position recorded for this application."""
        statement = f"SELECT notification_id FROM {self.tracking_table} WHERE application_name = %b"
        rows = self.pool.rows(statement, (application_name,))
        return rows[0][0] if rows else None


class PostgreSQLProcessRecorder(PostgreSQLTrackingRecorder, PostgreSQLApplicationRecorder, ProcessRecorder):
    """Events and tracking, written in one transaction."""

    def __init__(self, pool: Pool, *, tracking_table: str = "notification_tracking", **options: Any) -> None:
        PostgreSQLTrackingRecorder.__init__(self, pool, tracking_table=tracking_table)
        PostgreSQLApplicationRecorder.__init__(self, pool, **options)

    def create_table(self) -> None:
        """Create what is missing."""
        PostgreSQLApplicationRecorder.create_table(self)

    def statements(self) -> list[str]:
        """Return the DDL of both tables."""
        return [*PostgreSQLApplicationRecorder.statements(self), tables.TRACKING.format(tracking=self.tracking_table)]

    def _also(self, connection: Connection, **kwargs: Any) -> None:
        tracking = kwargs.get("tracking")
        if tracking is not None:
            self._insert_tracking(connection, tracking)
