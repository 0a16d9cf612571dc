"""The queries on the built-in views: SQLAlchemy selects, compiled once per shape and run on the driver.

Every list is a scan of one index, in its order, from where the page before ended. Which index that is, is said here
and not left to a planner without statistics: the most selective filter keeps its index, the others are marked as
not to be looked for in one.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from turnlog.adapters.database import Database
from turnlog.adapters.names import SESSION_COLUMNS, Names
from turnlog.domain.values import SessionSummary, UserSummary
from turnlog.projections.message_index import MessageRow
from turnlog.projections.session_index import EPOCH, SessionFilter, SessionRow, microseconds
from turnlog.projections.view_store import Counts

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Select

    from turnlog.adapters.sql import Tables

_FILTERS = ("user_id", "agent", "current_route", "status")
"""Columns that are filtered by, the most selective first."""


class ViewQueries:
    """Asks the views of one database."""

    def __init__(self, database: Database, names: Names) -> None:
        self._database = database
        self._names = names
        self._texts: dict[tuple[object, ...], str] = {}

    def select_sessions(
        self, wanted: SessionFilter, *, before: int | None = None, limit: int, without_sessions: Sequence[str] = ()
    ) -> list[SessionRow]:
        """Return sessions, newest update first: those updated before position ``before``, but for some ids."""
        given = {
            "user_id": wanted.user_id,
            "agent": wanted.agent,
            "current_route": wanted.route,
            "status": wanted.status,
            "older": _value(wanted.older_than),
            "newer": _value(wanted.newer_than),
            "before": before,
            "without": _list(without_sessions),
        }
        given = {key: value for key, value in given.items() if value is not None}
        text = self._text(("sessions", *given), lambda: self._sessions(given))
        return [_session(row) for row in self._rows(text, {**given, "tenant": wanted.tenant, "limit": limit})]

    def select_session(self, tenant: str, session_id: str) -> SessionRow | None:
        """Return one session's row."""
        text = self._text(("session",), self._session)
        rows = self._rows(text, {"tenant": tenant, "session_id": session_id})
        return _session(rows[0]) if rows else None

    def select_active(self, tenant: str, user_id: str, *, without_sessions: Sequence[str] = ()) -> SessionRow | None:
        """Return the newest created active session of a user, but for some ids."""
        text = self._text(("active",), self._active)
        rows = self._rows(text, {"tenant": tenant, "user_id": user_id, "without": _list(without_sessions) or "[]"})
        return _session(rows[0]) if rows else None

    def select_messages(
        self,
        tenant: str,
        user_id: str,
        *,
        before: tuple[int, int] | None = None,
        limit: int,
        without_sessions: Sequence[str] = (),
    ) -> list[MessageRow]:
        """Return a user's visible messages, newest first: those before (position, item), but for some sessions."""
        given: dict[str, object] = {"tenant": tenant, "user_id": user_id, "limit": limit}
        if before is not None:
            given |= {"position": before[0], "item": before[1]}
        if without_sessions:
            given["without"] = _list(without_sessions)
        text = self._text(("messages", *given), lambda: self._messages(given))
        return [MessageRow(*row) for row in self._rows(text, given)]

    def select_users(self, tenant: str, *, after: str | None = None, limit: int) -> list[UserSummary]:
        """Return users in order of their ids: those after ``after``."""
        text = self._text(("users",), self._users)
        rows = self._rows(text, {"tenant": tenant, "after": after or "", "limit": limit})
        return [
            UserSummary(user_id=user_id, sessions=sessions, messages=messages, updated_at=_time(updated_at))
            for user_id, sessions, messages, updated_at in rows
        ]

    def counts(self, tenant: str) -> Counts:
        """Count sessions, their visible messages, users, and sessions by status."""
        by_status = self._rows(self._text(("statuses",), self._statuses), {"tenant": tenant})
        ((users,),) = self._rows(self._text(("user count",), self._user_count), {"tenant": tenant})
        return Counts(
            sessions=sum(sessions for _, sessions, _ in by_status),
            messages=sum(messages for _, _, messages in by_status),
            users=users,
            statuses={status: sessions for status, sessions, _ in by_status},
        )

    def _rows(self, text: str, parameters: dict[str, object]) -> list[Any]:
        with self._database.read() as connection:
            return connection.execute(text, parameters).fetchall()

    # --- as SQLAlchemy ------------------------------------------------------------------------------------------------

    def _text(self, shape: tuple[object, ...], select: "Callable[[], Select[Any]]") -> str:
        text = self._texts.get(shape)
        if text is None:
            from turnlog.adapters import sql  # noqa: PLC0415 - it takes 300 ms, and is needed only here

            text = self._texts[shape] = sql.compiled(select())
        return text

    @cached_property
    def _tables(self) -> "Tables":
        from turnlog.adapters import sql  # noqa: PLC0415 - as above

        return sql.Tables(self._names)

    def _sessions(self, given: "dict[str, Any]") -> "Select[Any]":
        import sqlalchemy as sa  # noqa: PLC0415 - as above

        from turnlog.adapters.sql import unindexed  # noqa: PLC0415 - as above

        c = self._tables.session_index.c
        statement = sa.select(*(c[column] for column in SESSION_COLUMNS)).where(c.tenant == sa.bindparam("tenant"))
        filters = [column for column in _FILTERS if column in given]
        for column in filters:
            left = c[column] if column == filters[0] else unindexed(c[column])
            statement = statement.where(left == sa.bindparam(column))
        if "older" in given:
            statement = statement.where(c.updated_at < sa.bindparam("older"))
        if "newer" in given:
            statement = statement.where(c.updated_at > sa.bindparam("newer"))
        if "before" in given:
            statement = statement.where(c.updated_position < sa.bindparam("before"))
        if "without" in given:
            statement = statement.where(self._without(c.session_id))
        return statement.order_by(c.updated_position.desc()).limit(sa.bindparam("limit"))

    def _session(self) -> "Select[Any]":
        import sqlalchemy as sa  # noqa: PLC0415 - as above

        c = self._tables.session_index.c
        columns = (c[column] for column in SESSION_COLUMNS)
        return sa.select(*columns).where(c.tenant == sa.bindparam("tenant"), c.session_id == sa.bindparam("session_id"))

    def _active(self) -> "Select[Any]":
        import sqlalchemy as sa  # noqa: PLC0415 - as above

        c = self._tables.session_index.c
        return (
            sa.select(*(c[column] for column in SESSION_COLUMNS))
            .where(c.tenant == sa.bindparam("tenant"), c.user_id == sa.bindparam("user_id"))
            .where(c.status == sa.literal_column("'active'"), self._without(c.session_id))
            .order_by(c.created_position.desc())
            .limit(sa.literal_column("1"))
        )

    def _messages(self, given: dict[str, object]) -> "Select[Any]":
        import sqlalchemy as sa  # noqa: PLC0415 - as above

        c = self._tables.message_index.c
        statement = (
            sa.select(c.session_id, c.message_id, c.position, c.item, c.version, c.content_version)
            .where(c.tenant == sa.bindparam("tenant"), c.user_id == sa.bindparam("user_id"))
            .order_by(c.position.desc(), c.item.desc())
            .limit(sa.bindparam("limit"))
        )
        if "position" in given:
            last = sa.tuple_(sa.bindparam("position"), sa.bindparam("item"))
            statement = statement.where(sa.tuple_(c.position, c.item) < last)
        if "without" in given:
            statement = statement.where(self._without(c.session_id))
        return statement

    def _users(self) -> "Select[Any]":
        import sqlalchemy as sa  # noqa: PLC0415 - as above

        c = self._tables.session_index.c
        return (
            sa.select(c.user_id, sa.func.count(), sa.func.sum(c.message_count), sa.func.max(c.updated_at))
            .where(c.tenant == sa.bindparam("tenant"), c.user_id > sa.bindparam("after"))
            .group_by(c.user_id)
            .order_by(c.user_id)
            .limit(sa.bindparam("limit"))
        )

    def _statuses(self) -> "Select[Any]":
        import sqlalchemy as sa  # noqa: PLC0415 - as above

        c = self._tables.session_index.c
        counts = sa.select(c.status, sa.func.count(), sa.func.sum(c.message_count))
        return counts.where(c.tenant == sa.bindparam("tenant")).group_by(c.status).order_by(c.status)

    def _user_count(self) -> "Select[Any]":
        import sqlalchemy as sa  # noqa: PLC0415 - as above

        c = self._tables.session_index.c
        return sa.select(sa.func.count(c.user_id.distinct())).where(c.tenant == sa.bindparam("tenant"))

    def _without(self, column: "ColumnElement[Any]") -> "ColumnElement[bool]":
        import sqlalchemy as sa  # noqa: PLC0415 - as above

        ids = sa.func.json_each(sa.bindparam("without")).table_valued("value")
        return column.not_in(sa.select(ids.c.value))


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
        created_at=_time(created),
        updated_at=_time(updated),
        last_message_at=None if said is None else _time(said),
        completed_at=None if completed is None else _time(completed),
        version=version,
    )
    return SessionRow(summary, *at)


def _time(value: int) -> datetime:
    return EPOCH + timedelta(microseconds=value)


def _value(moment: datetime | None) -> int | None:
    return None if moment is None else microseconds(moment)


def _list(ids: Sequence[str]) -> str | None:
    return msgspec.json.encode(list(ids)).decode() if ids else None
