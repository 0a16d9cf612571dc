"""The message index: one row a visible message, for lists of a user's messages. No content: the log has it.

A pure fold from events to changes of rows; where rows are kept is the adapters' affair. The rules are those of
history.py: what is removed, cleared, replaced or compacted loses its row.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from turnlog.domain import events as e
from turnlog.domain.events import Erased
from turnlog.domain.mapper import Codec, LogRow
from turnlog.projections.brief import DELETED, Other


class MessageIndex:
    """The view. Raise ``revision`` with every change to the fold or to what is stored: it is then rebuilt."""

    name = "message_index"
    revision = 1
    key = "session"


class MessageRow(NamedTuple):
    """Where in the log a visible message is found.

    ``version`` and ``position`` are those of the event that brought it, ``item`` its place in a ``HistoryReplaced``;
    ``content_version`` is that of the event that holds its latest wording.
    """

    session_id: str
    message_id: str
    position: int
    item: int
    version: int
    content_version: int


class Owner(msgspec.Struct, gc=False):
    """What is kept of each session besides its messages: whose they are, and the last ordinal given.

    It changes in place while it is folded. ``version`` is that of the last event that counted.
    """

    tenant: str
    session_id: str
    user_id: str | None = None
    ordinal: int = 0
    version: int = 0


class Add(NamedTuple):
    """A message is said. Ordinals order a session's history."""

    owner: Owner
    ordinal: int
    message_id: str
    position: int
    item: int
    version: int


class Summarise(NamedTuple):
    """Only the newest ``kept`` messages stay; before them stands a summary (at ``ordinal`` where none is kept)."""

    owner: Owner
    kept: int
    ordinal: int
    message_id: str
    position: int
    version: int


class Reword(NamedTuple):
    """The latest message with this id has its wording in the event at ``version``."""

    owner: Owner
    message_id: str
    version: int


class Remove(NamedTuple):
    """The latest message with this id is no longer visible."""

    owner: Owner
    message_id: str


class Clear(NamedTuple):
    """No message of the session is visible."""

    owner: Owner


class Assign(NamedTuple):
    """The session's messages are this user's from now on."""

    owner: Owner


class Forget(NamedTuple):
    """The session was deleted."""

    owner: Owner


Rearrangement: TypeAlias = Summarise | Reword | Remove | Clear | Assign | Forget
Change: TypeAlias = Add | Rearrangement
T = TypeVar("T")
Fold: TypeAlias = Callable[[Owner, Any, int, int, datetime], Iterable[T]]
"""What an event of one class changes, given whose it is, the event, its version, its position, when it occurred."""


def changes(owners: dict[str, Owner], rows: Iterable[LogRow], codec: Codec) -> Iterator[Change]:
    """Yield what rows of the log change, in order; what ``owners`` have seen is skipped.

    Args:
        owners: those stored of the streams concerned, by stream; brought up to date in place.
        rows: a page of the log.
        codec: one that is abridged by ``CLASSES``.

    Raises:
        UnknownEvent, CorruptLog: an event cannot be read.
    """
    return folded(owners, rows, codec, CHANGES)


def folded(
    owners: dict[str, Owner], rows: Iterable[LogRow], codec: Codec, folds: Mapping[type[Any], Fold[T]]
) -> Iterator[T | Forget]:
    """As ``changes``, by other ``folds``, by the class that events are decoded into."""
    ignored = {t for t, cls in codec.registry.newest.items() if cls is Other and not t.startswith(DELETED)}
    for position, stream, version, topic, state in rows:
        owner = owners.get(stream)
        if topic in ignored or (owner is not None and owner.version >= version):
            continue
        event, _, at = codec.occurrence(stream, (position, version, topic, state))
        if topic.startswith(DELETED):
            if owner is not None:
                yield Forget(owners.pop(stream))
        elif type(event) is not Erased:
            if owner is None:
                tenant, _, session_id = stream.partition("/")
                owner = owners[stream] = Owner(tenant=tenant, session_id=session_id)
            owner.version = version
            yield from folds[type(event)](owner, event, version, position, at)


# --- what each event changes, and the fields it takes to know ---------------------------------------------------------


class _Started(msgspec.Struct, frozen=True, gc=False):
    user_id: str | None = None


class _OwnerAssigned(msgspec.Struct, frozen=True, gc=False):
    user_id: str


class _MessageAdded(msgspec.Struct, frozen=True, gc=False):
    message_id: str


class _MessageEdited(msgspec.Struct, frozen=True, gc=False):
    message_id: str


class _MessageRemoved(msgspec.Struct, frozen=True, gc=False):
    message_id: str


class _HistoryCleared(msgspec.Struct, frozen=True, gc=False):
    pass


class _HistoryReplaced(msgspec.Struct, frozen=True, gc=False):
    messages: tuple[_MessageAdded, ...]


class _HistoryCompacted(msgspec.Struct, frozen=True, gc=False):
    message_id: str
    kept: int


CLASSES: dict[type[Any], type[Any]] = {
    e.SessionStarted: _Started,
    e.OwnerAssigned: _OwnerAssigned,
    e.MessageAdded: _MessageAdded,
    e.MessageEdited: _MessageEdited,
    e.MessageRemoved: _MessageRemoved,
    e.HistoryCleared: _HistoryCleared,
    e.HistoryReplaced: _HistoryReplaced,
    e.HistoryCompacted: _HistoryCompacted,
}
"""What the fold's codec decodes events into."""


def _started(owner: Owner, event: _Started, _version: int, _position: int, _at: datetime) -> tuple[()]:
    owner.user_id = event.user_id
    return ()


def _owner_assigned(owner: Owner, event: _OwnerAssigned, _version: int, _position: int, _at: datetime) -> tuple[Assign]:
    owner.user_id = event.user_id
    return (Assign(owner),)


def message_added(owner: Owner, event: Any, version: int, position: int, _at: datetime) -> tuple[Add]:
    """Fold a message that is said."""
    owner.ordinal += 1
    return (Add(owner, owner.ordinal, event.message_id, position, 0, version),)


def message_edited(owner: Owner, event: Any, version: int, _position: int, _at: datetime) -> tuple[Reword]:
    """Fold a message that is worded anew."""
    return (Reword(owner, event.message_id, version),)


def _message_removed(
    owner: Owner, event: _MessageRemoved, _version: int, _position: int, _at: datetime
) -> tuple[Remove]:
    return (Remove(owner, event.message_id),)


def _history_cleared(
    owner: Owner, _event: _HistoryCleared, _version: int, _position: int, _at: datetime
) -> tuple[Clear]:
    return (Clear(owner),)


def history_replaced(
    owner: Owner, event: Any, version: int, position: int, _at: datetime
) -> tuple[Clear, *tuple[Add, ...]]:
    """Fold messages that take the places of all."""
    first = owner.ordinal + 1
    owner.ordinal += len(event.messages)
    added = (
        Add(owner, first + item, message.message_id, position, item, version)
        for item, message in enumerate(event.messages)
    )
    return (Clear(owner), *added)


def history_compacted(owner: Owner, event: Any, version: int, position: int, _at: datetime) -> tuple[Summarise]:
    """Fold a summary."""
    owner.ordinal += 1
    return (Summarise(owner, event.kept, owner.ordinal, event.message_id, position, version),)


CHANGES: Mapping[type[Any], Fold[Change]] = {
    _Started: _started,
    _OwnerAssigned: _owner_assigned,
    _MessageAdded: message_added,
    _MessageEdited: message_edited,
    _MessageRemoved: _message_removed,
    _HistoryCleared: _history_cleared,
    _HistoryReplaced: history_replaced,
    _HistoryCompacted: history_compacted,
}
"""What events change, by the class that they are decoded into."""
