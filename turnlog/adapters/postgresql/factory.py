"""``PERSISTENCE_MODULE=turnlog.adapters.postgresql``: how ``eventsourcing`` comes to the recorders."""

from typing import Any

from psycopg.conninfo import make_conninfo

from turnlog.adapters.library_factory import DatabaseFactory, Kinds
from turnlog.adapters.postgresql.pool import Pool
from turnlog.adapters.postgresql.recorders import (
    PostgreSQLAggregateRecorder,
    PostgreSQLApplicationRecorder,
)
from turnlog.adapters.postgresql.tracking import PostgreSQLProcessRecorder, PostgreSQLTrackingRecorder

_PARTS = {"dbname": "POSTGRES_DBNAME", "host": "POSTGRES_HOST", "port": "POSTGRES_PORT", "user": "POSTGRES_USER"}
_ORDERINGS = ("auto", "strict")


class PostgreSQLFactory(DatabaseFactory[PostgreSQLTrackingRecorder]):
    """``POSTGRES_DBNAME``, ``_HOST``, ``_PORT``, ``_USER``, ``_PASSWORD`` as ``eventsourcing.postgres`` has them.

    Optional: ``POSTGRES_SCHEMA``, ``POSTGRES_ORDERING`` (``auto`` or ``strict``), ``POSTGRES_PARTITIONS``,
    ``ORIGINATOR_ID_TYPE`` (``uuid`` or ``text``), ``CREATE_TABLE``.
    """

    kinds = Kinds(
        PostgreSQLAggregateRecorder,
        PostgreSQLApplicationRecorder,
        PostgreSQLTrackingRecorder,
        PostgreSQLProcessRecorder,
    )

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._given("POSTGRES_DBNAME")
        given: dict[str, Any] = {part: self.env.get(name) for part, name in _PARTS.items()}
        given["password"] = self.env.get("POSTGRES_PASSWORD")
        self._ordering = self._one_of("POSTGRES_ORDERING", _ORDERINGS)
        self._partitions = self._number("POSTGRES_PARTITIONS")
        conninfo = make_conninfo("", **{part: value for part, value in given.items() if value})
        self.pool = Pool(conninfo, schema=self.env.get("POSTGRES_SCHEMA"))

    @property
    def storage(self) -> Pool:
        """The database."""
        return self.pool

    def _options(self, table: str) -> dict[str, Any]:
        return {**super()._options(table), "ordering": self._ordering, "partitions": self._partitions}

    def _number(self, variable: str) -> int | None:
        value = self.env.get(variable)
        if not value:
            return None
        if not value.isdecimal() or int(value) < 1:
            raise OSError(f"{variable} is {value!r}, expected a number from 1 on")
        return int(value)
