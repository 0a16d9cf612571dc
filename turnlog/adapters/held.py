"""What views may still hold of deleted sessions: one record a view, kept among the parked as of no session.

A view that forgets a session as it reads of its end needs no record. One that cannot, or fails to, is taken to hold
what it was given until it is built anew: from a log that has erased it, nothing of it can come. A record has two
positions: where the log ended when the view was begun, and the newest end of a session passed without forgetting.
"""

from datetime import UTC, datetime
from typing import Any, Protocol

from turnlog.projections.view_store import Checkpoint, Parked

_NO_STREAM = ""
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class Books(Protocol):
    """Where parked sessions are kept."""

    def checkpoints(self, connection: Any) -> dict[str, Checkpoint]:
        """Return every view's checkpoint."""
        ...

    def parked(self, connection: Any, name: str) -> list[Parked]:
        """Return a view's parked sessions, in the order of their positions."""
        ...

    def park(self, connection: Any, parked: Parked) -> None:
        """Park a session, or take the place of its record."""
        ...


class Held:
    """Keeps the records, and tells them from parked sessions."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def parked(self, connection: Any, name: str) -> list[Parked]:
        """Return a view's parked sessions, in the order of their positions."""
        return [parked for parked in self._books.parked(connection, name) if parked.stream != _NO_STREAM]

    def begin(self, connection: Any, name: str, position: int) -> None:
        """Record that what was erased up to ``position`` was never read."""
        if position > 0:
            self._record(connection, name, position, 0)

    def hold(self, connection: Any, name: str, position: int) -> None:
        """Record the end of a session that was not forgotten, unless it was erased before the view was begun."""
        begun, _ = self._recorded(connection, name)
        if position > begun:
            self._record(connection, name, begun, position)

    def holding(self, connection: Any) -> list[str]:
        """Return the views with such a session."""
        return [name for name in self._books.checkpoints(connection) if self._recorded(connection, name)[1]]

    def _recorded(self, connection: Any, name: str) -> tuple[int, int]:
        """Return where the log ended when the view was begun, and the newest end not forgotten; 0 where none is."""
        found = (one for one in self._books.parked(connection, name) if one.stream == _NO_STREAM)
        return next(((one.position, one.version) for one in found), (0, 0))

    def _record(self, connection: Any, name: str, begun: int, unforgotten: int) -> None:
        self._books.park(connection, Parked(name, _NO_STREAM, unforgotten, begun, "", 0, _NEVER))
