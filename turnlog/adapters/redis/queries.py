"""Asking the built-in views: each page is one script, so that what it gives is of one moment.

The most selective filter chooses the index that is walked; the others are applied to its rows here. A query that needs
several pages for that may miss a session that moves to the top between two of them, as may one that is asked in pages.
"""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import msgspec

from turnlog.adapters.redis import message_rows as m
from turnlog.adapters.redis import session_rows as s
from turnlog.adapters.redis.cluster import Cluster
from turnlog.adapters.redis.connection import ANSWERING, GENERATIONS
from turnlog.adapters.redis.scripts import QUERY
from turnlog.adapters.redis.server import Server
from turnlog.adapters.redis.tables import Row, after_all
from turnlog.domain.values import SessionSummary, UserSummary
from turnlog.projections.message_index import MessageIndex, MessageRow
from turnlog.projections.session_index import (
    Counts,
    Entry,
    SessionFilter,
    SessionIndex,
    SessionRow,
    microseconds,
    moment,
)

PAGE = 500
SESSIONS, MESSAGES = SessionIndex.name.encode(), MessageIndex.name.encode()


class Walk(NamedTuple):
    """Rows of a view, by an index: those whose keys there begin with ``prefix``, ``offset`` bytes before the row's."""

    view: bytes
    by: bytes
    rows: bytes
    prefix: bytes
    offset: int


class Queries:
    """Asks the views of one log."""

    def __init__(self, server: Server | Cluster, root: bytes) -> None:
        self._server = server
        self._root = root
        self._generations = root + ANSWERING + GENERATIONS + b":rows"

    def select_sessions(self, wanted: SessionFilter, *, before: int | None = None, limit: int) -> list[SessionRow]:
        """Return sessions, newest update first: those updated before position ``before``."""
        walk = _walk(wanted)
        high = after_all(walk.prefix) if before is None else walk.prefix + s.place(before)
        without = frozenset(wanted.without)
        found: list[SessionRow] = []
        for _, row in self._backwards(walk, high, PAGE if _filters(wanted) else min(limit + len(without), PAGE)):
            one = s.entry(row)
            if len(found) == limit:
                break
            if one.session_id not in without and _matches(one, wanted):
                found.append(_session(one))
        return found

    def select_session(self, tenant: str, session_id: str) -> SessionRow | None:
        """Return one session's row."""
        key = f"{tenant}/{session_id}".encode()
        rows = self._page(Walk(SESSIONS, s.ROWS, s.ROWS, key, 0), key, key + b"\0", "", 1)
        return _session(s.entry(rows[0][1])) if rows else None

    def select_active(self, tenant: str, user_id: str, *, without_sessions: Collection[str] = ()) -> SessionRow | None:
        """Return the newest created active session of a user, but for some ids."""
        prefix = s.part(tenant, user_id)
        walk = Walk(SESSIONS, s.ACTIVE, s.ROWS, prefix, len(prefix) + s.NUMBER_BYTES)
        for _, row in self._backwards(walk, after_all(prefix), 1 + len(without_sessions)):
            one = s.entry(row)
            if one.session_id not in without_sessions:
                return _session(one)
        return None

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
        prefix = s.part(tenant, user_id)
        walk = Walk(MESSAGES, m.OF_USER, m.MESSAGES, prefix, len(prefix) + m.PLACES_BYTES)
        high = after_all(prefix) if before is None else prefix + s.place(before[0]) + s.place(before[1])
        without = frozenset(without_sessions)
        found: list[MessageRow] = []
        for key, value in self._backwards(walk, high, PAGE if without else min(limit, PAGE)):
            session_id = key[walk.offset :].partition(b"\0")[0].decode().partition("/")[2]
            if len(found) == limit:
                break
            if session_id not in without:
                found.append(MessageRow(session_id, *m.stored(value)[1:]))
        return found

    def select_users(self, tenant: str, *, after: str | None = None, limit: int) -> list[UserSummary]:
        """Return users in order of their ids: those after ``after``."""
        prefix = s.part(tenant)
        low = prefix if after is None else s.user_key(tenant, after) + b"\0"
        rows = self._page(Walk(SESSIONS, s.USERS, s.USERS, prefix, 0), low, after_all(prefix), "", limit)
        users = [(key[len(prefix) :].decode(), s.UserSums(*msgspec.msgpack.decode(value))) for key, value in rows]
        return [
            UserSummary(
                user_id=user_id, sessions=sums.sessions, messages=sums.messages, updated_at=moment(sums.updated_at)
            )
            for user_id, sums in users
        ]

    def counts(self, tenant: str) -> Counts:
        """Return the counts that are kept up to date with the rows: of sessions, events, messages, users, statuses."""
        prefix = s.part(tenant)
        rows = self._page(Walk(SESSIONS, s.COUNTS, s.COUNTS, prefix, 0), prefix, after_all(prefix), "", -1)
        return s.counted(rows, tenant)

    def _backwards(self, walk: Walk, high: bytes, page: int) -> Iterator[Row]:
        """Yield rows from the end of an index, below ``high``; those of a page are of one moment."""
        while rows := self._page(walk, walk.prefix, high, "REV", page):
            yield from (row for row in rows if row[1])
            if len(rows) < page:
                return
            high, page = rows[-1][0], PAGE

    def _page(self, walk: Walk, low: bytes, high: bytes, direction: str, limit: int) -> list[Row]:
        given = (self._root, walk.view, walk.by, walk.rows, b"[" + low, b"(" + high, direction, limit, walk.offset)
        answer: Any = self._server.read_script(QUERY, (self._generations,), given)
        return [] if answer is None else list(zip(*answer, strict=True))


def _walk(wanted: SessionFilter) -> Walk:
    """Return how to come to sessions: by the most selective filter that is given."""
    for table, value in (
        (s.BY_USER, wanted.user_id),
        (s.BY_AGENT, wanted.agent),
        (s.BY_ROUTE, wanted.route),
        (s.BY_STATUS, wanted.status),
    ):
        if value is not None:
            prefix = s.part(wanted.tenant, value)
            return Walk(SESSIONS, table, s.ROWS, prefix, len(prefix) + s.NUMBER_BYTES)
    prefix = s.part(wanted.tenant)
    return Walk(SESSIONS, s.ALL, s.ROWS, prefix, len(prefix) + s.NUMBER_BYTES)


def _filters(wanted: SessionFilter) -> bool:
    """Return whether more is asked for than an index says."""
    given = (wanted.user_id, wanted.agent, wanted.route, wanted.status)
    times = (wanted.older_than, wanted.newer_than)
    return sum(value is not None for value in given) > 1 or times != (None, None)


def _matches(one: Entry, wanted: SessionFilter) -> bool:
    return (
        wanted.user_id in (None, one.user_id)
        and wanted.agent in (None, one.agent)
        and wanted.route in (None, one.current_route)
        and wanted.status in (None, one.status)
        and (wanted.older_than is None or one.updated_at < microseconds(wanted.older_than))
        and (wanted.newer_than is None or one.updated_at > microseconds(wanted.newer_than))
    )


def _session(one: Entry) -> SessionRow:
    summary = SessionSummary(
        session_id=one.session_id,
        user_id=one.user_id,
        agent=one.agent,
        status=one.status,
        current_route=one.current_route,
        current_step=one.current_step,
        message_count=one.message_count,
        created_at=moment(one.created_at),
        updated_at=moment(one.updated_at),
        last_message_at=None if one.last_message_at is None else moment(one.last_message_at),
        completed_at=None if one.completed_at is None else moment(one.completed_at),
        version=one.version,
    )
    return SessionRow(summary, one.created_position, one.updated_position)
