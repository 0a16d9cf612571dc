"""``eventsourcing``'s recorder contracts on MariaDB: tracking recorder, and process recorder, which is all of it."""

from typing import Any

import pymysql
from eventsourcing.persistence import IntegrityError, ProcessRecorder, Tracking, TrackingRecorder

from turnlog.adapters.library import of_the_library
from turnlog.adapters.mariadb import tables
from turnlog.adapters.mariadb.connection import TAKEN, Connection, number, run
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.mariadb.recorders import MariaDBApplicationRecorder


class MariaDBTrackingRecorder(TrackingRecorder):
    """How far a reader of some application has come, one row an application."""

    def __init__(self, pool: Pool, *, tracking_table: str = "notification_tracking") -> None:
        self.pool = pool
        self.tracking_table = pool.table(tracking_table)

    @of_the_library
    def create_table(self) -> None:
        """Create what is missing; several processes may do so at once."""
        tables.create(self.pool, [self._tracking_statement()])

    def _tracking_statement(self) -> str:
        return tables.TRACKING.format(tracking=self.tracking_table, collation=self.pool.collation)

    @of_the_library
    def insert_tracking(self, tracking: Tracking) -> None:
        """Record that ``tracking`` was reached.

        Raises:
            IntegrityError: it was reached before.
        """
        with self.pool.write() as connection:
            self._insert_tracking(connection, tracking)

    def _insert_tracking(self, connection: Connection, tracking: Tracking) -> None:
        name, reached = tracking.application_name, tracking.notification_id
        raise_ = f"UPDATE {self.tracking_table} SET notification_id = %s WHERE application_name = %s"
        if run(connection, f"{raise_} AND notification_id < %s", (reached, name, reached)).rowcount == 1:
            return
        try:
            run(connection, f"INSERT INTO {self.tracking_table} VALUES (%s, %s)", (name, reached))
        except pymysql.IntegrityError as error:
            if number(error) != TAKEN:
                raise
            raise IntegrityError(f"{tracking} is not above what was recorded") from error

    @of_the_library
    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the position recorded for this application."""
        statement = f"SELECT notification_id FROM {self.tracking_table} WHERE application_name = %s"
        rows = self.pool.rows(statement, (application_name,))
        return rows[0][0] if rows else None


class MariaDBProcessRecorder(MariaDBTrackingRecorder, MariaDBApplicationRecorder, ProcessRecorder):
    """Events and tracking, written in one transaction."""

    def __init__(self, pool: Pool, *, tracking_table: str = "notification_tracking", **options: Any) -> None:
        MariaDBTrackingRecorder.__init__(self, pool, tracking_table=tracking_table)
        MariaDBApplicationRecorder.__init__(self, pool, **options)

    @of_the_library
    def create_table(self) -> None:
        """Create what is missing."""
        MariaDBApplicationRecorder.create_table(self)

    def statements(self) -> list[str]:
        """Return what makes both tables."""
        return [*MariaDBApplicationRecorder.statements(self), self._tracking_statement()]

    def _also(self, connection: Connection, **kwargs: Any) -> None:
        tracking = kwargs.get("tracking")
        if tracking is not None:
            self._insert_tracking(connection, tracking)
