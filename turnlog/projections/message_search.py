"""The search view: one row a visible message, with the terms of its text (domain/words.py). No content: the log has it.

The fold is that of message_index.py; what is added is how a message is worded: in which words, by whom, where, when.
A store of views that keeps it says so (``searches``) and finds rows by terms (queries.py); in any other, messages are
searched by reading them (searching.py).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import msgspec

from turnlog.domain import events as e
from turnlog.domain.events import Json
from turnlog.domain.mapper import Codec, LogRow
from turnlog.domain.words import terms_of
from turnlog.projections import message_index as m


class MessageSearch:
    """The view. Raise ``revision`` with every change to the fold, the terms or what is stored: it is then rebuilt.

    It is installed when a store is first searched, see ``Engine.add``.
    """

    name = "message_search"
    revision = 1
    key = "session"


class SearchFilter(NamedTuple):
    """Which messages are wanted: those that have all ``terms`` (or the term ``EVERY``), and what else is not ``None``.

    ``since <= occurred_at < until``. ``without`` are the ids of sessions to leave out.
    """

    tenant: str
    terms: tuple[str, ...]
    user_id: str | None = None
    role: str | None = None
    route: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    without: Collection[str] = ()


class FoundRow(NamedTuple):
    """A message that may match, as ``message_index.MessageRow``, and whose its session is."""

    session_id: str
    message_id: str
    position: int
    item: int
    version: int
    content_version: int
    user_id: str | None


class Wording(NamedTuple):
    """How a message is worded: its terms, its role, its route, and when it was said (or occurred)."""

    terms: frozenset[str]
    role: str
    route: str | None
    at: datetime


class Worded(NamedTuple):
    """A message is said, comes to stand for others, or is reworded (then only the terms count)."""

    change: m.Add | m.Summarise | m.Reword
    wording: Wording


Change: TypeAlias = Worded | m.Change


def changes(owners: dict[str, m.Owner], rows: Iterable[LogRow], codec: Codec) -> Iterator[Change]:
    """Yield what rows of the log change, as ``message_index.changes`` does.

    Args:
        owners: those stored of the streams concerned, by stream; brought up to date in place.
        rows: a page of the log.
        codec: one that is abridged by ``CLASSES``.

    Raises:
        UnknownEvent, CorruptLog: an event cannot be read.
    """
    return m.folded(owners, rows, codec, _CHANGES)


class _MessageAdded(msgspec.Struct, frozen=True, gc=False):
    message_id: str
    role: str
    content: Json
    route: str | None = None


class _ReplacementMessage(msgspec.Struct, frozen=True, gc=False):
    message_id: str
    role: str
    content: Json
    route: str | None = None
    occurred_at: datetime | None = None


class _MessageEdited(msgspec.Struct, frozen=True, gc=False):
    message_id: str
    content: Json


class _HistoryReplaced(msgspec.Struct, frozen=True, gc=False):
    messages: tuple[_ReplacementMessage, ...]


class _HistoryCompacted(msgspec.Struct, frozen=True, gc=False):
    message_id: str
    summary: Json
    kept: int


CLASSES: dict[type[Any], type[Any]] = {
    **m.CLASSES,
    e.MessageAdded: _MessageAdded,
    e.MessageEdited: _MessageEdited,
    e.HistoryReplaced: _HistoryReplaced,
    e.HistoryCompacted: _HistoryCompacted,
}
"""What the fold's codec decodes events into."""


def _message_added(
    owner: m.Owner, event: _MessageAdded, version: int, position: int, at: datetime
) -> tuple[Change, ...]:
    (add,) = m.message_added(owner, event, version, position, at)
    return (Worded(add, _wording(event, at)),)


def _message_edited(
    owner: m.Owner, event: _MessageEdited, version: int, position: int, at: datetime
) -> tuple[Change, ...]:
    (reword,) = m.message_edited(owner, event, version, position, at)
    return (Worded(reword, Wording(terms_of(event.content), "", None, at)),)


def _history_replaced(
    owner: m.Owner, event: _HistoryReplaced, version: int, position: int, at: datetime
) -> tuple[Change, ...]:
    clear, *added = m.history_replaced(owner, event, version, position, at)
    pairs = zip(added, event.messages, strict=True)
    return (clear, *(Worded(add, _wording(message, message.occurred_at or at)) for add, message in pairs))


def _history_compacted(
    owner: m.Owner, event: _HistoryCompacted, version: int, position: int, at: datetime
) -> tuple[Change, ...]:
    (summarise,) = m.history_compacted(owner, event, version, position, at)
    return (Worded(summarise, Wording(terms_of(event.summary), "system", None, at)),)


def _wording(message: _MessageAdded | _ReplacementMessage, at: datetime) -> Wording:
    return Wording(terms_of(message.content), message.role, message.route, at)


_CHANGES: Mapping[type[Any], m.Fold[Change]] = {
    **m.CHANGES,
    _MessageAdded: _message_added,
    _MessageEdited: _message_edited,
    _HistoryReplaced: _history_replaced,
    _HistoryCompacted: _history_compacted,
}
