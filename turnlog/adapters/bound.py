"""What stores inside an application's transaction (``store.using``) have in common, whatever the server."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from turnlog.adapters.view_queries import ViewQueries
from turnlog.domain.envelope import header_of
from turnlog.domain.mapper import StreamRow
from turnlog.projections.view_store import Checkpoint, Parked


class Elsewhere(Exception):
    """What an append stands on is not there: the application has rolled back to a savepoint of its own."""


def follows(state: bytes, before: Sequence[StreamRow]) -> bool:
    """Return whether an event comes right after the one in ``before``, which has one row or none."""
    return bool(before) and header_of(before[0][3]).hash == header_of(state).previous


class Lending(Protocol):
    """The application's connection."""

    def read(self) -> AbstractContextManager[Any]:
        """Lend it to read with, the driver's errors translated."""
        ...


class StoredViews(Protocol):
    """What is asked of the views beside it."""

    queries: ViewQueries

    def checkpoints(self, connection: Any) -> dict[str, Checkpoint]:
        """Return every view's checkpoint."""
        ...

    def parked(self, connection: Any, name: str) -> list[Parked]:
        """Return the sessions parked in a view."""
        ...


class BoundViews:
    """The views, read through the connection, as they stand; what they lack is overlaid (index.py)."""

    read_only = True
    searches = True

    def __init__(self, views: StoredViews, lent: Lending) -> None:
        self.read = lent.read
        self.checkpoints, self.parked = views.checkpoints, views.parked
        queries = views.queries.elsewhere(lent)
        self.select_sessions = queries.select_sessions
        self.select_active = queries.select_active
        self.select_messages = queries.select_messages
        self.select_found = queries.select_found
        self.select_users = queries.select_users
        self.counts = queries.counts
