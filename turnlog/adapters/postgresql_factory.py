"""``PERSISTENCE_MODULE=turnlog.adapters.postgresql``: how ``eventsourcing`` comes to the recorders."""

from typing import Any, TypeVar

from eventsourcing.persistence import AggregateRecorder, ApplicationRecorder, InfrastructureFactory, ProcessRecorder
from eventsourcing.utils import resolve_topic, strtobool
from psycopg.conninfo import make_conninfo

from turnlog.adapters.postgresql_pool import Pool
from turnlog.adapters.postgresql_recorders import (
    PostgreSQLAggregateRecorder,
    PostgreSQLApplicationRecorder,
)
from turnlog.adapters.postgresql_tracking import PostgreSQLProcessRecorder, PostgreSQLTrackingRecorder

R = TypeVar("R", bound=PostgreSQLAggregateRecorder | PostgreSQLTrackingRecorder)
_PARTS = {"dbname": "POSTGRES_DBNAME", "host": "POSTGRES_HOST", "port": "POSTGRES_PORT", "user": "POSTGRES_USER"}
_ORDERINGS = ("auto", "strict")
_ID_TYPES = ("uuid", "text")


class PostgreSQLFactory(InfrastructureFactory[PostgreSQLTrackingRecorder]):
    """``POSTGRES_DBNAME``, ``_HOST``, ``_PORT``, ``_USER``, ``_PASSWORD`` as ``eventsourcing.postgres`` has them.

    Optional: ``POSTGRES_SCHEMA``, ``POSTGRES_ORDERING`` (``auto`` or ``strict``), ``POSTGRES_PARTITIONS``,
    ``ORIGINATOR_ID_TYPE`` (``uuid`` or ``text``), ``CREATE_TABLE``.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        given: dict[str, Any] = {part: self.env.get(name) for part, name in _PARTS.items()}
        if not given["dbname"]:
            names = ", ".join(self.env.create_keys("POSTGRES_DBNAME"))
            raise OSError(f"set one of {names} to the database's name")
        given["password"] = self.env.get("POSTGRES_PASSWORD")
        self._id_type = self._one_of("ORIGINATOR_ID_TYPE", _ID_TYPES)
        self._ordering = self._one_of("POSTGRES_ORDERING", _ORDERINGS)
        self._partitions = self._number("POSTGRES_PARTITIONS")
        conninfo = make_conninfo("", **{part: value for part, value in given.items() if value})
        self.pool = Pool(conninfo, schema=self.env.get("POSTGRES_SCHEMA"))
        self._made_so_far: list[PostgreSQLApplicationRecorder] = []

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Return a recorder of one kind of events, in the table ``stored_<purpose>``."""
        return self._made(PostgreSQLAggregateRecorder(self.pool, **self._options("stored_" + purpose)))

    def application_recorder(self) -> ApplicationRecorder:
        """Return the recorder of an application."""
        cls: type[PostgreSQLApplicationRecorder] = self._class(
            self.APPLICATION_RECORDER_TOPIC, PostgreSQLApplicationRecorder
        )
        return self._made(cls(self.pool, **self._options("stored_events")))

    def tracking_recorder(
        self, tracking_recorder_class: type[PostgreSQLTrackingRecorder] | None = None
    ) -> PostgreSQLTrackingRecorder:
        """Return a tracking recorder, of the class given or named by ``TRACKING_RECORDER_TOPIC``."""
        default: type[PostgreSQLTrackingRecorder] = self._class(
            self.TRACKING_RECORDER_TOPIC, PostgreSQLTrackingRecorder
        )
        cls = tracking_recorder_class or default
        return self._made(cls(self.pool))

    def process_recorder(self) -> ProcessRecorder:
        """Return the recorder of a process application."""
        cls: type[PostgreSQLProcessRecorder] = self._class(self.PROCESS_RECORDER_TOPIC, PostgreSQLProcessRecorder)
        return self._made(cls(self.pool, **self._options("stored_events")))

    def close(self) -> None:
        """Close every connection."""
        for recorder in self._made_so_far:
            recorder.close()
        self.pool.close()

    def _options(self, table: str) -> dict[str, Any]:
        return {
            "events_table": table,
            "originator_id_type": self._id_type,
            "ordering": self._ordering,
            "partitions": self._partitions,
        }

    def _one_of(self, variable: str, allowed: tuple[str, ...]) -> str:
        value = (self.env.get(variable) or allowed[0]).lower()
        if value not in allowed:
            raise OSError(f"{variable} is {value!r}, expected one of {', '.join(allowed)}")
        return value

    def _number(self, variable: str) -> int | None:
        value = self.env.get(variable)
        if not value:
            return None
        if not value.isdecimal() or int(value) < 1:
            raise OSError(f"{variable} is {value!r}, expected a number from 1 on")
        return int(value)

    def _class(self, variable: str, default: Any) -> Any:
        topic = self.env.get(variable)
        return resolve_topic(topic) if topic else default

    def _made(self, recorder: R) -> R:
        if strtobool(self.env.get("CREATE_TABLE", "yes") or "yes"):
            recorder.create_table()
        if isinstance(recorder, PostgreSQLApplicationRecorder):
            self._made_so_far.append(recorder)
        return recorder
