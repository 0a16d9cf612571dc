"""Asking the built-in views: the selects of selects.py, compiled once per shape and run on the driver."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from copy import copy
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from turnlog.adapters.names import Names
from turnlog.adapters.search_tables import Terms, place_of, position_of
from turnlog.adapters.wording import SQLITE, Wording
from turnlog.domain.values import SessionSummary, UserSummary
from turnlog.projections.message_index import MessageRow
from turnlog.projections.message_search import FoundRow, SearchFilter
from turnlog.projections.session_index import Counts, SessionFilter, SessionRow, microseconds, moment

if TYPE_CHECKING:
    from turnlog.adapters.selects import Selects


class Source(Protocol):
    """Where the views are: a database of SQLite, or a pool of connections."""

    def read(self) -> AbstractContextManager[Any]:
        """Lend a connection of the driver's."""
        ...


class ViewQueries:
    """Asks the views of one database; ``schema`` is where they are."""

    def __init__(
        self, source: Source, names: Names, terms: Terms, wording: Wording = SQLITE, schema: str | None = None
    ) -> None:
        self._source = source
        self._names = names
        self._terms = terms
        self._wording, self._schema = wording, schema
        self._texts: dict[tuple[str, ...], str] = {}

    def elsewhere(self, source: Source) -> "ViewQueries":
        """Return the same queries, put to the same tables on other connections."""
        queries = copy(self)
        queries._source = source  # noqa: SLF001 - it is one of these
        return queries

    def select_sessions(self, wanted: SessionFilter, *, before: int | None = None, limit: int) -> list[SessionRow]:
        """Return sessions, newest update first: those updated before position ``before``."""
        given = {
            "user_id": wanted.user_id,
            "agent": wanted.agent,
            "current_route": wanted.route,
            "status": wanted.status,
            "older": _value(wanted.older_than),
            "newer": _value(wanted.newer_than),
            "before": before,
            "without": self._list(wanted.without),
        }
        given = {key: value for key, value in given.items() if value is not None}
        text = self._text(("sessions", *given), lambda selects: selects.sessions(given))
        return [_session(row) for row in self._rows(text, {**given, "tenant": wanted.tenant, "limit": limit})]

    def select_session(self, tenant: str, session_id: str) -> SessionRow | None:
        """Return one session's row."""
        text = self._text(("session",), lambda selects: selects.session())
        rows = self._rows(text, {"tenant": tenant, "session_id": session_id})
        return _session(rows[0]) if rows else None

    def select_active(self, tenant: str, user_id: str, *, without_sessions: Collection[str] = ()) -> SessionRow | None:
        """Return the newest created active session of a user, but for some ids."""
        given: dict[str, object] = {"tenant": tenant, "user_id": user_id}
        if without_sessions:
            given["without"] = self._list(without_sessions)
        text = self._text(("active", *given), lambda selects: selects.active(given))
        rows = self._rows(text, given)
        return _session(rows[0]) if rows else None

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
        given: dict[str, object] = {"tenant": tenant, "user_id": user_id, "limit": limit}
        if before is not None:
            given |= {"position": before[0], "item": before[1]}
        if without_sessions:
            given["without"] = self._list(without_sessions)
        text = self._text(("messages", *given), lambda selects: selects.messages(given))
        return [MessageRow(*row) for row in self._rows(text, given)]

    def select_found(
        self, wanted: SearchFilter, *, before: tuple[int, int] | None = None, limit: int
    ) -> list[FoundRow]:
        """Return messages that may be wanted, newest first: see ``Queries``."""
        given = {
            "user_id": wanted.user_id,
            "role": wanted.role,
            "route": wanted.route,
            "since": _value(wanted.since),
            "until": _value(wanted.until),
            "place": None if before is None else place_of(*before),
            "without": self._list(wanted.without),
        }
        given = {key: value for key, value in given.items() if value is not None}
        text = self._text(("found", *given), lambda selects: selects.found(given))
        values = {**given, **self._terms.wanted(wanted), "tenant": wanted.tenant, "limit": limit}
        return [FoundRow(row[0], row[1], *position_of(row[2]), *row[3:]) for row in self._rows(text, values)]

    def select_users(self, tenant: str, *, after: str | None = None, limit: int) -> list[UserSummary]:
        """Return users in order of their ids: those after ``after``."""
        text = self._text(("users",), lambda selects: selects.users())
        rows = self._rows(text, {"tenant": tenant, "after": after or "", "limit": limit})
        return [
            UserSummary(user_id=user_id, sessions=sessions, messages=messages, updated_at=moment(updated_at))
            for user_id, sessions, messages, updated_at in rows
        ]

    def counts(self, tenant: str) -> Counts:
        """Count sessions, their events and visible messages, users, and sessions by status."""
        by_status = self._rows(self._text(("statuses",), lambda selects: selects.statuses()), {"tenant": tenant})
        ((users,),) = self._rows(self._text(("user count",), lambda selects: selects.user_count()), {"tenant": tenant})
        return Counts(
            sessions=sum(sessions for _, sessions, _, _ in by_status),
            events=sum(events for _, _, events, _ in by_status),
            messages=sum(messages for _, _, _, messages in by_status),
            users=users,
            statuses={status: sessions for status, sessions, _, _ in by_status},
        )

    def _rows(self, text: str, parameters: dict[str, object]) -> list[Any]:
        with self._source.read() as connection:
            rows: list[Any] = self._wording.run(connection, text, parameters).fetchall()
        return rows

    def _list(self, ids: Collection[str]) -> object:
        return self._wording.listed(ids) if ids else None

    def _text(self, shape: tuple[str, ...], select: "Callable[[Selects], str]") -> str:
        text = self._texts.get(shape)
        if text is None:
            text = self._texts[shape] = select(self._selects)
        return text

    @cached_property
    def _selects(self) -> "Selects":
        from turnlog.adapters import sql  # SQLAlchemy: 300 ms, for those who query
        from turnlog.adapters.selects import Selects

        return Selects(self._names, getattr(sql, self._wording.dialect), self._schema)


def _session(row: tuple[Any, ...]) -> SessionRow:
    _, session_id, user_id, agent, status, route, step, messages, created, updated, said, completed, version, *at = row
    summary = SessionSummary(
        session_id=session_id,
        user_id=user_id,
        agent=agent,
        status=status,
        current_route=route,
        current_step=step,
        message_count=messages,
        created_at=moment(created),
        updated_at=moment(updated),
        last_message_at=None if said is None else moment(said),
        completed_at=None if completed is None else moment(completed),
        version=version,
    )
    return SessionRow(summary, *at)


def _value(at: datetime | None) -> int | None:
    return None if at is None else microseconds(at)
