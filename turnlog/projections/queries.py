"""The port through which the built-in views are asked: what a store of views answers besides ``ViewStore``."""

from collections.abc import Collection
from typing import Protocol

from turnlog.domain.values import UserSummary
from turnlog.projections.message_index import MessageRow
from turnlog.projections.message_search import FoundRow, SearchFilter
from turnlog.projections.session_index import Counts, SessionFilter, SessionRow


class Queries(Protocol):
    """Rows of the built-in views, as they stand. ``turnlog.testing``'s ``ViewsContract`` holds a store to it."""

    searches: bool = False
    """Whether it keeps the search view: ``register`` takes ``MessageSearch``, and ``select_found`` finds by terms.

    Where it does not, messages are searched by reading them.
    """

    def select_sessions(self, wanted: SessionFilter, *, before: int | None = None, limit: int) -> list[SessionRow]:
        """Return sessions, newest update first: those updated before position ``before``."""
        ...

    def select_session(self, tenant: str, session_id: str) -> SessionRow | None:
        """Return one session's row."""
        ...

    def select_active(self, tenant: str, user_id: str) -> SessionRow | None:
        """Return the newest created active session of a user."""
        ...

    def select_messages(
        self,
        tenant: str,
        user_id: str,
        *,
        before: tuple[int, int] | None = None,
        limit: int,
        without_sessions: Collection[str] = (),
    ) -> list[MessageRow]:
        """Return a user's visible messages, newest first: those before (position, item), but for some sessions."""
        ...

    def select_found(
        self, wanted: SearchFilter, *, before: tuple[int, int] | None = None, limit: int
    ) -> list[FoundRow]:
        """Return messages, newest first by (position, item): those before ``before``. Never asked unless ``searches``.

        All that are wanted are among them. Some may be that lack a term: what is found is compared with its text.
        """
        raise NotImplementedError

    def select_users(self, tenant: str, *, after: str | None = None, limit: int) -> list[UserSummary]:
        """Return users in order of their ids: those after ``after``."""
        ...

    def counts(self, tenant: str) -> Counts:
        """Count sessions, their events and visible messages, users, and sessions by status."""
        ...
