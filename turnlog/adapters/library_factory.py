"""How ``eventsourcing`` comes to the recorders of a database: what the factories of all of them share."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    ProcessRecorder,
    TrackingRecorder,
)
from eventsourcing.utils import resolve_topic, strtobool

T = TypeVar("T", bound=TrackingRecorder)
R = TypeVar("R")
ID_TYPES = ("uuid", "text")


class Kinds(NamedTuple):
    """The classes of a database's recorders."""

    aggregate: Any
    application: Any
    tracking: Any
    process: Any


@runtime_checkable
class _Closing(Protocol):
    def close(self) -> None: ...


class DatabaseFactory(InfrastructureFactory[T]):
    """Makes the recorders of ``kinds``; ``ORIGINATOR_ID_TYPE`` is ``uuid`` or ``text``, ``CREATE_TABLE`` a flag."""

    kinds: ClassVar[Kinds]

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._id_type = self._one_of("ORIGINATOR_ID_TYPE", ID_TYPES)
        self._closing: list[_Closing] = []

    @property
    @abstractmethod
    def storage(self) -> Any:
        """The database, the first argument of every recorder."""

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Return a recorder of one kind of events, in the table ``stored_<purpose>``."""
        recorder: AggregateRecorder = self.kinds.aggregate(self.storage, **self._options("stored_" + purpose))
        return self._made(recorder)

    def application_recorder(self) -> ApplicationRecorder:
        """Return the recorder of an application."""
        cls = self._class(self.APPLICATION_RECORDER_TOPIC, self.kinds.application)
        recorder: ApplicationRecorder = cls(self.storage, **self._options("stored_events"))
        return self._made(recorder)

    def tracking_recorder(self, tracking_recorder_class: type[T] | None = None) -> T:
        """Return a tracking recorder, of the class given or named by ``TRACKING_RECORDER_TOPIC``."""
        cls: Any = tracking_recorder_class or self._class(self.TRACKING_RECORDER_TOPIC, self.kinds.tracking)
        recorder: T = cls(self.storage)
        return self._made(recorder)

    def process_recorder(self) -> ProcessRecorder:
        """Return the recorder of a process application."""
        cls = self._class(self.PROCESS_RECORDER_TOPIC, self.kinds.process)
        recorder: ProcessRecorder = cls(self.storage, **self._options("stored_events"))
        return self._made(recorder)

    def close(self) -> None:
        """Close the recorders that hold something, and the database."""
        for recorder in self._closing:
            recorder.close()
        self.storage.close()

    def _options(self, table: str) -> dict[str, Any]:
        return {"events_table": table, "originator_id_type": self._id_type}

    def _given(self, variable: str) -> str:
        """Return a variable's value.

        Raises:
            OSError: it is not set.
        """
        value = self.env.get(variable)
        if not value:
            raise OSError(f"set one of {', '.join(self.env.create_keys(variable))}")
        return value

    def _one_of(self, variable: str, allowed: tuple[str, ...]) -> str:
        """Return a variable's value, or the first that is allowed.

        Raises:
            OSError: it is none of those.
        """
        value = (self.env.get(variable) or allowed[0]).lower()
        if value not in allowed:
            raise OSError(f"{variable} is {value!r}, expected one of {', '.join(allowed)}")
        return value

    def _class(self, variable: str, default: Any) -> Any:
        topic = self.env.get(variable)
        return resolve_topic(topic) if topic else default

    def _made(self, recorder: R) -> R:
        made: Any = recorder
        if strtobool(self.env.get("CREATE_TABLE", "yes") or "yes"):
            made.create_table()
        if isinstance(recorder, _Closing):
            self._closing.append(recorder)
        return recorder
