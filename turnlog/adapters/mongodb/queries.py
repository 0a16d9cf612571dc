"""Asking the built-in views in MongoDB: each list walks one index, from where the page before ended."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from turnlog.adapters.mongodb.client import Client
from turnlog.adapters.mongodb.documents import Document
from turnlog.adapters.mongodb.swapping import across_swaps
from turnlog.adapters.names import SESSION_COLUMNS, Names
from turnlog.domain.errors import CorruptLog
from turnlog.domain.values import SessionSummary, UserSummary
from turnlog.projections.message_index import MessageRow
from turnlog.projections.session_index import Counts, SessionFilter, SessionRow, microseconds, moment

_FILTERS = {"user_id": "user", "agent": "agent", "route": "route", "status": "status"}
"""Fields of a filter, and the indexes they walk, the most selective first."""
_LARGEST_LIMIT = (1 << 31) - 1


class Queries:
    """Asks the views of one place; ``prefix`` is how the names of its collections begin."""

    def __init__(self, client: Client, names: Names, prefix: str) -> None:
        self._client = client
        self._names = names
        self._sessions, self._messages = prefix + names.session_index, prefix + names.message_index

    def select_sessions(self, wanted: SessionFilter, *, before: int | None = None, limit: int) -> list[SessionRow]:
        """Return sessions, newest update first: those updated before position ``before``."""
        c = self._names.column
        where: Document = {c("tenant"): wanted.tenant}
        walked = "all"
        for field in reversed(_FILTERS):
            value = getattr(wanted, field)
            if value is not None:
                where[c("current_route" if field == "route" else field)] = value
                walked = _FILTERS[field]
        times = _between(wanted.newer_than, wanted.older_than)
        if times:
            where[c("updated_at")] = times
        if before is not None:
            where[c("updated_position")] = {"$lt": before}
        if wanted.without:
            where[c("session_id")] = {"$nin": list(wanted.without)}
        return [self._row(one) for one in self._find(self._sessions, where, ["updated_position"], limit, walked)]

    def select_session(self, tenant: str, session_id: str) -> SessionRow | None:
        """Return one session's row."""
        with self._client.translating():
            sessions = self._client.collection(self._sessions)
            found = across_swaps(lambda: sessions.find_one({"_id": f"{tenant}/{session_id}"}))
        return None if found is None else self._row(found)

    def select_active(self, tenant: str, user_id: str, *, without_sessions: Collection[str] = ()) -> SessionRow | None:
        """Return the newest created active session of a user, but for some ids."""
        c = self._names.column
        where: Document = {c("tenant"): tenant, c("user_id"): user_id, c("status"): "active"}
        if without_sessions:
            where[c("session_id")] = {"$nin": list(without_sessions)}
        found = self._find(self._sessions, where, ["created_position"], 1, "active")
        return self._row(found[0]) if found else None

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
        c = self._names.column
        where: Document = {c("tenant"): tenant, c("user_id"): user_id}
        if before is not None:
            position, item = c("position"), c("item")
            where[position] = {"$lte": before[0]}
            where["$or"] = [{position: {"$lt": before[0]}}, {item: {"$lt": before[1]}}]
        if without_sessions:
            where[c("session_id")] = {"$nin": list(without_sessions)}
        fields = [c(field) for field in MessageRow._fields]
        found = self._find(self._messages, where, ["position", "item"], limit, "user")
        return [MessageRow(*(one[field] for field in fields)) for one in found]

    def select_users(self, tenant: str, *, after: str | None = None, limit: int) -> list[UserSummary]:
        """Return users in order of their ids: those after ``after``. Only theirs are counted."""
        c = self._names.column
        user = c("user_id")
        where: Document = {c("tenant"): tenant, user: {"$gt": after or ""}}
        walk: Sequence[Document] = [
            {"$match": where},
            {"$sort": {c("tenant"): 1, user: 1}},
            {"$group": {"_id": f"${user}"}},
            {"$sort": {"_id": 1}},
            {"$limit": _limit(limit)},
        ]
        ids = [one["_id"] for one in self._aggregate(walk)]
        if not ids:
            return []
        where[user] = {"$in": ids}
        counted: Document = {
            "_id": f"${user}",
            "sessions": {"$sum": 1},
            "messages": {"$sum": f"${c('message_count')}"},
            "updated_at": {"$max": f"${c('updated_at')}"},
        }
        found = self._aggregate([{"$match": where}, {"$group": counted}, {"$sort": {"_id": 1}}])
        return [
            UserSummary(
                user_id=one["_id"],
                sessions=one["sessions"],
                messages=one["messages"],
                updated_at=moment(one["updated_at"]),
            )
            for one in found
        ]

    def counts(self, tenant: str) -> Counts:
        """Count sessions, their events and visible messages, users, and sessions by status."""
        c = self._names.column
        of_tenant: Document = {"$match": {c("tenant"): tenant}}
        counted: Document = {
            "_id": f"${c('status')}",
            "sessions": {"$sum": 1},
            "events": {"$sum": f"${c('version')}"},
            "messages": {"$sum": f"${c('message_count')}"},
        }
        by_status = self._aggregate([of_tenant, {"$group": counted}, {"$sort": {"_id": 1}}])
        of_users: Document = {"$match": {c("tenant"): tenant, c("user_id"): {"$gt": ""}}}
        users = self._aggregate([of_users, {"$group": {"_id": f"${c('user_id')}"}}, {"$count": "n"}])
        return Counts(
            sessions=sum(one["sessions"] for one in by_status),
            events=sum(one["events"] for one in by_status),
            messages=sum(one["messages"] for one in by_status),
            users=users[0]["n"] if users else 0,
            statuses={one["_id"]: one["sessions"] for one in by_status},
        )

    def _find(self, name: str, where: Document, order: Sequence[str], limit: int, walked: str) -> list[Document]:
        sort = [(self._names.column(column), -1) for column in order]
        with self._client.translating():
            collection = self._client.collection(name)
            found = across_swaps(lambda: list(collection.find(where, sort=sort, limit=_limit(limit), hint=walked)))
            if not found and walked not in collection.index_information():
                raise CorruptLog(f"{self._client.name}: the collection {name!r} doesn't exist as it should")
        return found

    def _aggregate(self, pipeline: Sequence[Document]) -> list[Document]:
        with self._client.translating():
            sessions = self._client.collection(self._sessions)
            return across_swaps(lambda: list(sessions.aggregate(pipeline)))

    def _row(self, document: Document) -> SessionRow:
        values: dict[str, Any] = {column: document[self._names.column(column)] for column in SESSION_COLUMNS}
        del values["tenant"]
        at = values.pop("created_position"), values.pop("updated_position")
        for field in ("created_at", "updated_at", "last_message_at", "completed_at"):
            values[field] = None if values[field] is None else moment(values[field])
        return SessionRow(SessionSummary(**values), *at)


def _between(newer: datetime | None, older: datetime | None) -> Document:
    bounds: Document = {}
    if newer is not None:
        bounds["$gt"] = microseconds(newer)
    if older is not None:
        bounds["$lt"] = microseconds(older)
    return bounds


def _limit(limit: int) -> int:
    return min(limit, _LARGEST_LIMIT)
