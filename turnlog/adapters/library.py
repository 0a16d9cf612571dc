"""What ``eventsourcing``'s recorder contracts ask for, told in the words of turnlog's port: once for every database."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    DatabaseError,
    IntegrityError,
    Notification,
    OperationalError,
    PersistenceError,
    StoredEvent,
)

from turnlog.adapters.following import Follow
from turnlog.domain.errors import CorruptLog, StoreError
from turnlog.domain.mapper import LogRow, StreamRow

Row = tuple[str, int, str, bytes]
"""(originator id, version, topic, state)."""
P = ParamSpec("P")
T = TypeVar("T")


def of_the_library(method: Callable[P, T]) -> Callable[P, T]:
    """Make a method of ``eventsourcing``'s contract raise that library's errors; the cause is ours."""

    @wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except StoreError as error:
            raise _persistence_error(error) from error

    return wrapped


def _persistence_error(error: StoreError) -> PersistenceError:
    cause = error.__cause__
    if any(kind.__name__ == "IntegrityError" for kind in type(cause).__mro__):  # so PEP 249 has every driver call it
        return IntegrityError(cause)
    return (DatabaseError if isinstance(error, CorruptLog) else OperationalError)(str(error))


class OriginatorRecorder(AggregateRecorder):
    """Events by originator; ids are ``text`` or ``uuid``."""

    def __init__(self, *, originator_id_type: str = "uuid") -> None:
        self._uuid = originator_id_type == "uuid"

    @of_the_library
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Insert all or none.

        Raises:
            IntegrityError: an (originator id, version) is taken.
        """
        self._insert_events(self._rows_of(stored_events), **kwargs)
        return None

    @of_the_library
    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return an originator's events with ``gt < version <= lte``."""
        rows = self.select_stream(
            self._key(originator_id), after=-1 if gt is None else gt, upto=lte, desc=desc, limit=limit
        )
        return [StoredEvent(originator_id, version, topic, state) for _, version, topic, state in rows]

    @abstractmethod
    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""

    @abstractmethod
    def _insert_events(self, rows: Sequence[Row], **kwargs: Any) -> list[int]:
        """Insert all or none, and return their positions."""

    def _rows_of(self, stored_events: Sequence[StoredEvent]) -> list[Row]:
        return [(self._key(s.originator_id), s.originator_version, s.topic, s.state) for s in stored_events]

    def _key(self, originator_id: UUID | str) -> str:
        return originator_id if isinstance(originator_id, str) else originator_id.hex

    def _id(self, key: str) -> UUID | str:
        return UUID(key) if self._uuid else key


class OrderedRecorder(OriginatorRecorder, ApplicationRecorder):
    """Adds the order over all originators, and following it."""

    @of_the_library
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Insert all or none, and return their positions."""
        positions = self._insert_events(self._rows_of(stored_events), **kwargs)
        self.tell()
        return positions

    @of_the_library
    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return events in position order."""
        after = 0 if start is None else start - inclusive_of_start
        rows = self.select_log(after=after, upto=stop, limit=limit, topics=topics)
        return [
            Notification(self._id(key), version, topic, state, position)
            for position, key, version, topic, state in rows
        ]

    @of_the_library
    def max_notification_id(self) -> int | None:
        """Return the position up to which events can be read, ``None`` if there are none."""
        return self.position() or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Follow:
        """Return an iterator over the events above ``gt``, those recorded later included."""
        return Follow(recorder=self, gt=gt, topics=topics)

    @abstractmethod
    def select_log(
        self, *, after: int = 0, upto: int | None = None, limit: int, topics: Sequence[str] = (), prefix: str = ""
    ) -> list[LogRow]:
        """Return events in position order, see ``Recorder``."""

    @abstractmethod
    def position(self) -> int:
        """Return the position up to which events can be read, 0 if there are none."""

    @abstractmethod
    def tell(self) -> None:
        """Wake those who wait for events."""
