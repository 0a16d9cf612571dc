"""``PERSISTENCE_MODULE=turnlog.adapters.mariadb``: how ``eventsourcing`` comes to the recorders."""

from typing import Any

from sqlalchemy import URL

from turnlog.adapters.library_factory import DatabaseFactory, Kinds
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.mariadb.recorders import MariaDBAggregateRecorder, MariaDBApplicationRecorder
from turnlog.adapters.mariadb.tracking import MariaDBProcessRecorder, MariaDBTrackingRecorder


class MariaDBFactory(DatabaseFactory[MariaDBTrackingRecorder]):
    """``MARIADB_DBNAME``, ``_HOST``, ``_PORT``, ``_USER``, ``_PASSWORD``, or the same with ``MYSQL_``.

    Optional: ``ORIGINATOR_ID_TYPE`` (``uuid`` or ``text``), ``CREATE_TABLE``.
    """

    kinds = Kinds(MariaDBAggregateRecorder, MariaDBApplicationRecorder, MariaDBTrackingRecorder, MariaDBProcessRecorder)

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        server = "MYSQL" if self.env.get("MYSQL_DBNAME") and not self.env.get("MARIADB_DBNAME") else "MARIADB"
        database = self._given(f"{server}_DBNAME")
        port = self.env.get(f"{server}_PORT") or "3306"
        if not port.isdecimal():
            raise OSError(f"{server}_PORT is {port!r}, expected a number")
        url = URL.create(
            "mariadb",
            username=self.env.get(f"{server}_USER"),
            password=self.env.get(f"{server}_PASSWORD") or None,
            host=self.env.get(f"{server}_HOST") or "127.0.0.1",
            port=int(port),
            database=database,
        )
        self.pool = Pool(url.render_as_string(hide_password=False))

    @property
    def storage(self) -> Pool:
        """The database."""
        return self.pool
