"""The session index: one row a session, for lists of sessions. A pure fold; adapters keep the rows.

It agrees with ``turnlog.domain.session.fold`` (a test holds the two together), but decodes only what a row needs.
Times are whole microseconds since 1970: they are compared and copied far more often than shown.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

import msgspec

from turnlog.domain import events as e
from turnlog.domain.errors import CorruptLog
from turnlog.domain.events import Erased
from turnlog.domain.mapper import UNREADABLE, Codec, LogRow, absent, unreadable
from turnlog.domain.values import SessionSummary
from turnlog.projections.brief import DELETED, Other

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SessionIndex:
    """The view. Raise ``revision`` with every change to the fold or to what is stored: it is then rebuilt."""

    name = "session_index"
    revision = 1
    key = "session"


class Entry(msgspec.Struct, gc=False):
    """A row while it is folded: changed in place, which is what makes it fast."""

    tenant: str
    session_id: str
    user_id: str | None
    agent: str | None
    status: str
    current_route: str | None
    current_step: str | None
    message_count: int
    created_at: int
    updated_at: int
    last_message_at: int | None
    completed_at: int | None
    version: int
    created_position: int
    updated_position: int


class SessionRow(NamedTuple):
    """A row as queries give it: the summary, and the positions of the session's first and last event."""

    summary: SessionSummary
    created_position: int
    updated_position: int


class Counts(NamedTuple):
    """How much a tenant has, without what was deleted; ``statuses`` counts sessions."""

    sessions: int
    events: int
    messages: int
    users: int
    statuses: dict[str, int]


class SessionFilter(NamedTuple):
    """Which sessions are wanted; ``None`` asks for any. ``without`` are the ids of some to leave out."""

    tenant: str
    user_id: str | None = None
    agent: str | None = None
    status: str | None = None
    route: str | None = None
    older_than: datetime | None = None
    newer_than: datetime | None = None
    without: Collection[str] = ()


def fold_rows(entries: dict[str, Entry], rows: Iterable[LogRow], codec: Codec) -> dict[str, Entry]:
    """Fold rows of the log into ``entries`` (by stream), in place, and return them; what they have seen is skipped.

    Args:
        entries: the rows that are stored of the streams concerned.
        rows: a page of the log.
        codec: one that is abridged by ``CLASSES``.

    Raises:
        UnknownEvent, CorruptLog: an event cannot be read, or one before it is missing.
    """
    decoders: dict[str, Callable[[bytes], Any]] = {}
    for position, stream, version, topic, state in rows:
        entry = entries.get(stream)
        if entry is not None and entry.version >= version:
            continue
        try:
            decode = decoders.get(topic) or decoders.setdefault(topic, codec.brief(topic))
            brief = decode(state)
        except UNREADABLE as error:
            raise unreadable(stream, version, error) from error
        private = brief.private
        event: Any = absent(topic) if private is None else private.body
        at = microseconds(brief.header.recorded_at)
        kind = event.__class__
        if topic.startswith(DELETED):
            entries.pop(stream, None)
        elif kind is _Started:
            entries[stream] = _start(stream, event, position, at)
        elif entry is not None:
            _follow(entry, event, version, position, at)
        elif kind is not Erased:
            raise CorruptLog(f"session {stream!r}: version {version} was found, but nothing before it")
    return entries


def microseconds(at: datetime) -> int:
    """Return a moment as whole microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """Return the aware UTC time of whole microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=value)


def _start(stream: str, event: Any, position: int, at: int) -> Entry:
    tenant, _, session_id = stream.partition("/")
    return Entry(
        tenant=tenant,
        session_id=session_id,
        user_id=event.user_id,
        agent=event.agent,
        status="active",
        current_route=None,
        current_step=None,
        message_count=0,
        created_at=at,
        updated_at=at,
        last_message_at=None,
        completed_at=None,
        version=1,
        created_position=position,
        updated_position=position,
    )


def _follow(entry: Entry, event: Any, version: int, position: int, at: int) -> None:
    if version != entry.version + 1:
        stream = f"{entry.tenant}/{entry.session_id}"
        raise CorruptLog(f"session {stream!r}: version {entry.version + 1} is missing, found {version}")
    entry.version = version
    entry.updated_position = position
    entry.updated_at = at
    change = _CHANGES.get(event.__class__)
    if change is not None:
        change(entry, event, at)


# --- what each event changes, and the fields it takes to know ---------------------------------------------------------


class _Started(msgspec.Struct, frozen=True, gc=False):
    user_id: str | None = None
    agent: str | None = None


class _OwnerAssigned(msgspec.Struct, frozen=True, gc=False):
    user_id: str


class _MessageAdded(msgspec.Struct, frozen=True, gc=False):
    pass


class _MessageRemoved(msgspec.Struct, frozen=True, gc=False):
    pass


class _HistoryCleared(msgspec.Struct, frozen=True, gc=False):
    pass


class _HistoryReplaced(msgspec.Struct, frozen=True, gc=False):
    messages: tuple[Other, ...]


class _HistoryCompacted(msgspec.Struct, frozen=True, gc=False):
    kept: int


class _RouteEntered(msgspec.Struct, frozen=True, gc=False):
    route: str


class _RouteExited(msgspec.Struct, frozen=True, gc=False):
    pass


class _StepEntered(msgspec.Struct, frozen=True, gc=False):
    step: str


class _StatusChanged(msgspec.Struct, frozen=True, gc=False):
    status: str


class _SessionDeleted(msgspec.Struct, frozen=True, gc=False):
    pass


CLASSES: dict[type[Any], type[Any]] = {
    e.SessionStarted: _Started,
    e.OwnerAssigned: _OwnerAssigned,
    e.MessageAdded: _MessageAdded,
    e.MessageRemoved: _MessageRemoved,
    e.HistoryCleared: _HistoryCleared,
    e.HistoryReplaced: _HistoryReplaced,
    e.HistoryCompacted: _HistoryCompacted,
    e.RouteEntered: _RouteEntered,
    e.RouteExited: _RouteExited,
    e.StepEntered: _StepEntered,
    e.StatusChanged: _StatusChanged,
    e.SessionDeleted: _SessionDeleted,
}
"""What the fold's codec decodes events into."""


def _owner_assigned(entry: Entry, event: _OwnerAssigned, _at: int) -> None:
    entry.user_id = event.user_id


def _message_added(entry: Entry, _event: _MessageAdded, at: int) -> None:
    entry.message_count += 1
    entry.last_message_at = at


def _message_removed(entry: Entry, _event: _MessageRemoved, _at: int) -> None:
    entry.message_count -= 1


def _history_cleared(entry: Entry, _event: _HistoryCleared, _at: int) -> None:
    entry.message_count = 0


def _history_replaced(entry: Entry, event: _HistoryReplaced, at: int) -> None:
    entry.message_count = len(event.messages)
    if event.messages:
        entry.last_message_at = at


def _history_compacted(entry: Entry, event: _HistoryCompacted, _at: int) -> None:
    entry.message_count = event.kept + 1


def _route_entered(entry: Entry, event: _RouteEntered, _at: int) -> None:
    entry.current_route = event.route
    entry.current_step = None


def _route_exited(entry: Entry, _event: _RouteExited, _at: int) -> None:
    entry.current_route = None
    entry.current_step = None


def _step_entered(entry: Entry, event: _StepEntered, _at: int) -> None:
    entry.current_step = event.step


def _status_changed(entry: Entry, event: _StatusChanged, at: int) -> None:
    entry.status = event.status
    entry.completed_at = at if event.status == "completed" else None


_Change: TypeAlias = Callable[[Entry, Any, int], None]
_CHANGES: dict[type[Any], _Change] = {
    _OwnerAssigned: _owner_assigned,
    _MessageAdded: _message_added,
    _MessageRemoved: _message_removed,
    _HistoryCleared: _history_cleared,
    _HistoryReplaced: _history_replaced,
    _HistoryCompacted: _history_compacted,
    _RouteEntered: _route_entered,
    _RouteExited: _route_exited,
    _StepEntered: _step_entered,
    _StatusChanged: _status_changed,
}
