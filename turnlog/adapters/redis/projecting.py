"""The place of each view in Redis: the built-in ones' rows, or an application's projection with its own tables."""

from collections.abc import Sequence
from typing import Any, cast

from turnlog.adapters.redis.connection import Connection, Records
from turnlog.adapters.redis.message_rows import MessageRows
from turnlog.adapters.redis.session_rows import SessionRows
from turnlog.domain.errors import InvalidInput
from turnlog.domain.values import RecordedEvent
from turnlog.projections.applying import Applied
from turnlog.projections.message_index import MessageIndex
from turnlog.projections.session_index import SessionIndex
from turnlog.projections.view_store import Projection, View


def placed(view: View) -> Applied:
    """Return a view with its place: see ``ViewStore.register``."""
    match view:
        case SessionIndex():
            return SessionRows(view)
        case MessageIndex():
            return MessageRows(view)
        case _:
            for method in ("create", "apply"):
                if not callable(getattr(view, method, None)):
                    raise InvalidInput("projection", f"expected a method {method!r}")
            projection = cast("Projection", view)
            return Forgetting(projection) if getattr(view, "forget", None) is not None else Lent(projection)


class Lent:
    """An application's projection, which is lent ``Records`` of its own."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection

    @property
    def name(self) -> str:
        """The projection's."""
        return self._projection.name

    @property
    def revision(self) -> int:
        """The projection's."""
        return self._projection.revision

    def create(self, connection: Connection) -> None:
        """Have it create what it needs."""
        self._projection.create(self._records(connection))

    def apply(self, events: Sequence[RecordedEvent], connection: Connection) -> None:
        """Have it write what ``events`` mean."""
        self._projection.apply(events, self._records(connection))

    def _records(self, connection: Connection) -> Records:
        return Records(connection.of(self.name))


class Forgetting(Lent):
    """One that knows how to forget a session."""

    def forget(self, tenant: str, session_id: str, connection: Connection) -> None:
        """Have it delete what it holds of a session."""
        projection: Any = self._projection
        projection.forget(tenant, session_id, self._records(connection))
