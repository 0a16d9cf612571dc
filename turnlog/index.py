"""Reading the views: brought up to the log's head first, or, if somebody else is writing them, overlaid in memory.

A query never waits for another's transaction. Sessions that the view has not caught up with are folded live from the
log, which is never stale, and take the place of their rows.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from time import monotonic, sleep
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from turnlog.decider import Decider
from turnlog.domain.errors import InvalidInput, StoreUnavailable
from turnlog.domain.events import HistoryReplaced, MessageEdited
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import StreamVersion
from turnlog.domain.typed import decoder
from turnlog.domain.values import Message, Page, SessionState, SessionSummary, UserSummary
from turnlog.projections.building import Progress
from turnlog.projections.engine import Engine
from turnlog.projections.history import Occurrence, message_of, messages_back, with_content
from turnlog.projections.message_index import MessageRow
from turnlog.projections.message_search import FoundRow
from turnlog.projections.queries import Queries
from turnlog.projections.session_index import Counts, SessionFilter, SessionRow
from turnlog.projections.watching import watched

Consistency: TypeAlias = Literal["strong", "eventual"]
OVERLAY_EVENTS = 10_000
"""How many events a query overlays in memory before it rather waits for the view."""
_ALL = 1 << 40
_PAGE = 1_000
_POLL_S = 0.05
_Position = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Place: TypeAlias = tuple[_Position, _Position]
"""Where a message stands in the log: the position of the event that brought it, and its place among several."""
_NOTHING: frozenset[str] = frozenset()
K = TypeVar("K")


class Live(NamedTuple):
    """A session's owner, and its visible messages, newest first, with their places."""

    user_id: str | None
    messages: list[tuple[Place, Message]]


class Index:
    """Answers questions over all sessions of one tenant.

    Args:
        timeout_s: how long a query waits for a view that is too far behind to be overlaid.
    """

    def __init__(self, decider: Decider, engine: Engine, views: Queries, timeout_s: float) -> None:
        self._decider = decider
        self._engine = engine
        self._views = views
        self.watch = decider.watch
        self._tenant = decider.tenant
        self._timeout_s = timeout_s

    @watched("query", query="sessions")
    def sessions(self, where: SessionFilter, limit: int, cursor: str | None, consistency: str) -> Page[SessionSummary]:
        """Return a page of sessions, newest update first."""
        before = None if cursor is None else read_cursor(cursor, _Position)
        behind = self.behind("session_index", consistency)
        without = where._replace(without=tuple(behind))
        rows = self._views.select_sessions(without, before=before, limit=limit + 1)
        rows = [*rows, *(row for row in self._live_rows(behind) if _matches(row, where, before))]
        rows.sort(key=lambda row: row.updated_position, reverse=True)
        more = next_cursor(rows, limit, lambda row: row.updated_position)
        return Page(items=[row.summary for row in rows[:limit]], next_cursor=more)

    @watched("query", query="active")
    def active(self, user_id: str) -> str | None:
        """Return the id of the user's newest created active session."""
        where = SessionFilter(tenant=self._tenant, user_id=user_id, status="active")
        behind = self.behind("session_index", "strong")
        if not behind:
            row = self._views.select_active(self._tenant, user_id)
            return None if row is None else row.summary.session_id
        rows = self._views.select_sessions(where._replace(without=tuple(behind)), limit=_ALL)
        rows += [row for row in self._live_rows(behind) if _matches(row, where, None)]
        newest = max(rows, key=lambda row: row.created_position, default=None)
        return None if newest is None else newest.summary.session_id

    @watched("query", query="messages")
    def messages(self, user_id: str, limit: int, cursor: str | None, consistency: str) -> Page[Message]:
        """Return a page of a user's messages, newest first."""
        before = None if cursor is None else read_cursor(cursor, Place)
        behind = self.behind("message_index", consistency)
        rows = self._views.select_messages(
            self._tenant, user_id, before=before, limit=limit + 1, without_sessions=tuple(behind)
        )
        messages = self.contents(rows)
        found: list[tuple[Place, Message | None]] = [
            ((row.position, row.item), message) for row, message in zip(rows, messages, strict=True)
        ]
        for session_id in behind:
            live = self.live_messages(session_id)
            if live.user_id == user_id:
                found += [entry for entry in live.messages if before is None or entry[0] < before]
        found.sort(key=lambda entry: entry[0], reverse=True)
        more = next_cursor(found, limit, lambda entry: entry[0])
        return Page(items=[message for _, message in found[:limit] if message is not None], next_cursor=more)

    @watched("query", query="users")
    def users(self, limit: int, cursor: str | None) -> Page[UserSummary]:
        """Return a page of users, in order of their ids."""
        after = None if cursor is None else read_cursor(cursor, str)
        behind = self.behind("session_index", "strong")
        if behind:
            users = _users(self._overlaid(behind))
            rows = [users[user_id] for user_id in sorted(users) if after is None or user_id > after]
        else:
            rows = self._views.select_users(self._tenant, after=after, limit=limit + 1)
        return Page(items=rows[:limit], next_cursor=next_cursor(rows, limit, lambda row: row.user_id))

    @watched("query", query="counts")
    def counts(self) -> Counts:
        """Count sessions, their events and visible messages, users, and sessions by status."""
        behind = self.behind("session_index", "strong")
        if not behind:
            return self._views.counts(self._tenant)
        sessions = events = messages = 0
        statuses: dict[str, int] = {}
        users: set[str] = set()
        for summary in self._overlaid(behind):
            sessions, events, messages = sessions + 1, events + summary.version, messages + summary.message_count
            statuses[summary.status] = statuses.get(summary.status, 0) + 1
            if summary.user_id is not None:
                users.add(summary.user_id)
        return Counts(sessions, events, messages, len(users), statuses)

    def level(self, *names: str, progress: Progress | None = None) -> None:
        """Bring views (none named: all) up to the log's head, waiting for others if need be.

        Raises:
            StoreUnavailable: that took longer than the query timeout.
        """
        deadline = monotonic() + self._timeout_s
        while not self._engine.catch_up(names=names or None, wait=False, progress=progress):
            if self._engine.catch_up(names=names or None, wait=True, progress=progress):
                break
            if monotonic() > deadline:
                which = f"views {', '.join(names)}" if names else "views"
                words = f"{which} are behind the log, and this store cannot write them now"
                raise StoreUnavailable(f"{words}; have one that can call catch_up()")
            sleep(_POLL_S)

    def behind(self, view: str, consistency: str) -> frozenset[str]:
        """Return the ids of sessions that the view has not caught up with."""
        if consistency not in ("strong", "eventual"):
            raise InvalidInput("consistency", f"expected 'strong' or 'eventual', got {consistency!r:.50}")
        if consistency == "eventual" or self._engine.is_level(view):
            return _NOTHING
        unsettled = self.unsettled(view)  # first: what is settled after this is in the view, or in its tail
        streams: Sequence[str] | None = ()
        if not self.try_level(view):
            streams = self._engine.tail(view, OVERLAY_EVENTS)
            if streams is None:
                self.level(view)
        return frozenset((*self._ours(streams or ()), *unsettled))

    def unsettled(self, view: str) -> list[str]:
        """Return the ids of sessions with events that are visible but that no view may have yet, being not settled."""
        deadline = monotonic() + self._timeout_s
        while (streams := self._decider.recorder.visible(limit=OVERLAY_EVENTS)) is None:
            if monotonic() > deadline:
                words = "an open transaction holds back more of the log than can be looked through"
                raise StoreUnavailable(f"{words}; ask again when it has ended")
            sleep(_POLL_S)
            self.try_level(view)
        return list(self._ours(streams))

    def _ours(self, streams: Iterable[str]) -> Iterator[str]:
        """Yield the ids of those sessions that are of this tenant."""
        prefix = f"{self._tenant}/"
        return (stream[len(prefix) :] for stream in streams if stream.startswith(prefix))

    def try_level(self, view: str) -> bool:
        """Bring a view to the log's head if nobody is in the way; where it cannot be written, it is overlaid."""
        try:
            return self._engine.catch_up(names=(view,), wait=False)
        except StoreUnavailable:
            return False

    def rows(self, where: SessionFilter) -> Iterator[SessionRow]:
        """Yield the view's rows, however many, in pages."""
        before = None
        while rows := self._views.select_sessions(where, before=before, limit=_PAGE):
            yield from rows
            before = rows[-1].updated_position

    def _overlaid(self, behind: frozenset[str]) -> Iterator[SessionSummary]:
        """Yield every session: the view's rows, and those that it has not caught up with, live.

        Which is written to meanwhile may come to stand at the beginning, where the walk has been: it is yielded then.
        """
        where = SessionFilter(tenant=self._tenant, without=tuple(behind))
        began, seen = 0, set[str]()
        for row in self.rows(where):
            began = began or row.updated_position
            seen.add(row.summary.session_id)
            yield row.summary
        moved = takewhile(lambda row: row.updated_position > began, self.rows(where))
        yield from (row.summary for row in moved if row.summary.session_id not in seen)
        yield from (row.summary for row in self._live_rows(behind))

    def _live_rows(self, session_ids: Iterable[str]) -> Iterator[SessionRow]:
        """Yield the rows of those sessions that there are, as the log has them."""
        decider = self._decider
        states = (decider.load(session_id).state for session_id in session_ids)
        summaries = [summary_of(state) for state in states if state.version and not state.deleted]
        ends = [(decider.stream(one.session_id), version) for one in summaries for version in (1, one.version)]
        there = decider.recorder.select_versions(ends)
        for summary, first, last in zip(summaries, ends[::2], ends[1::2], strict=True):
            if first in there and last in there:  # or its time was over meanwhile
                yield SessionRow(summary=summary, created_position=there[first][0], updated_position=there[last][0])

    def live_messages(self, session_id: str) -> "Live":
        """Return a session's visible messages from the log; of one that was deleted, none."""
        decider = self._decider
        stream = decider.stream(session_id)
        rows = decider.recorder.select_stream(stream, desc=True)
        state = decider.load(session_id).state  # after the rows: they may have lost their content as they were read
        if state.deleted or not state.version:
            return Live(None, [])
        positions = {version: position for position, version, _, _ in rows}
        messages = list(messages_back(decider.codec, stream, (rows,)))
        brought = {version: decider.codec.event(topic, state) for _, version, topic, state in rows if _several(topic)}
        items = _items(messages, brought)
        places = ((positions[message.version], item) for item, message in zip(items, messages, strict=True))
        return Live(state.user_id, list(zip(places, messages, strict=True)))

    def contents(self, rows: Sequence[MessageRow | FoundRow]) -> list[Message | None]:
        """Read messages from the log, all at once, in the order of their rows; None for one that was erased meanwhile.

        Raises:
            UnknownEvent, CorruptLog: one cannot be read.
        """
        stream = self._decider.stream
        wanted = {
            (stream(row.session_id), version): None for row in rows for version in (row.version, row.content_version)
        }
        there = self._decider.recorder.select_versions(list(wanted))
        return [self._message(row, there) for row in rows]

    def _message(self, row: MessageRow | FoundRow, there: Mapping[StreamVersion, StreamRow]) -> Message | None:
        brought = self._occurrence(row.session_id, row.version, there)
        message = None if brought is None else message_of(brought, row.item)
        if message is None or row.content_version == row.version:
            return message
        edited = self._occurrence(row.session_id, row.content_version, there)
        if edited is None or not isinstance(edited.event, MessageEdited):
            return None  # its first wording was read before it was erased, the other one after
        return with_content(message, edited.event.content)

    def _occurrence(self, session_id: str, version: int, there: Mapping[StreamVersion, StreamRow]) -> Occurrence | None:
        decider = self._decider
        stream = decider.stream(session_id)
        row = there.get((stream, version))
        return None if row is None else Occurrence(version, *decider.codec.occurrence(stream, row))


def summary_of(state: SessionState) -> SessionSummary:
    """Return the summary of a session that exists."""
    fields = {name: getattr(state, name) for name in SessionSummary.__struct_fields__ if name != "session_id"}
    return SessionSummary(session_id=state.id, **fields)


def _users(sessions: Iterable[SessionSummary]) -> dict[str, UserSummary]:
    """Return the owners of sessions, by id."""
    users: dict[str, UserSummary] = {}
    for one in sessions:
        if one.user_id is not None:
            old = users.get(one.user_id)
            users[one.user_id] = UserSummary(
                user_id=one.user_id,
                sessions=1 + (old.sessions if old else 0),
                messages=one.message_count + (old.messages if old else 0),
                updated_at=max(one.updated_at, old.updated_at) if old else one.updated_at,
            )
    return users


def _several(topic: str) -> bool:
    return topic.startswith("HistoryReplaced.")


def _items(newest_first: Sequence[Message], brought: Mapping[int, object]) -> Iterator[int]:
    """Yield each message's place among those that one event brought, visible or not; ``brought`` are such events."""
    below: dict[int, int] = {}
    for message in newest_first:
        event = brought.get(message.version)
        item = 0
        if isinstance(event, HistoryReplaced):
            ids = [one.message_id for one in event.messages]
            last = below.get(message.version, len(ids))
            item = last - 1 - ids[:last][::-1].index(message.message_id)
            below[message.version] = item
        yield item


def _matches(row: SessionRow, where: SessionFilter, before: int | None) -> bool:
    summary = row.summary
    return (
        (before is None or row.updated_position < before)
        and where.user_id in (None, summary.user_id)
        and where.agent in (None, summary.agent)
        and where.status in (None, summary.status)
        and where.route in (None, summary.current_route)
        and (where.older_than is None or summary.updated_at < where.older_than)
        and (where.newer_than is None or summary.updated_at > where.newer_than)
    )


def next_cursor(rows: Sequence[K], limit: int, key: Callable[[K], object]) -> str | None:
    """Return the cursor after ``limit`` rows, if there are more."""
    if len(rows) <= limit:
        return None
    return base64.urlsafe_b64encode(msgspec.json.encode(key(rows[limit - 1]))).decode().rstrip("=")


def read_cursor(cursor: object, kind: Any) -> Any:
    """Return the key that a cursor holds.

    Raises:
        InvalidInput: it is none of ``kind``.
    """
    try:
        padded = str(cursor) + "=" * (-len(str(cursor)) % 4)
        return decoder(kind)(base64.urlsafe_b64decode(padded))
    except ValueError as error:
        raise InvalidInput("cursor", "expected a next_cursor that this query gave") from error
