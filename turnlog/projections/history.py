"""History: the messages of a session, folded live from its events, newest first.

Reading backwards costs what is read, however long the session is. What came later decides what is visible: going back,
a removal, an edit, a clearing or a compaction is met before the messages it concerns.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import NamedTuple

from msgspec.structs import replace

from turnlog.domain import events as e
from turnlog.domain.errors import SessionGone, SessionNotFound
from turnlog.domain.events import Erased, Event, Json
from turnlog.domain.mapper import Codec, StreamRow
from turnlog.domain.recorder import Reader
from turnlog.domain.session import same_json
from turnlog.domain.values import Message

TOPICS = frozenset(
    f"{name}."
    for name in (
        "MessageAdded",
        "MessageEdited",
        "MessageRemoved",
        "HistoryCleared",
        "HistoryReplaced",
        "HistoryCompacted",
    )
)
LARGEST_PAGE = 250
"""Events a page at the most: what is decoded at a time stays in the processor's cache (2,000: a third slower)."""
_ADDED = "MessageAdded."
_DELETED = "SessionDeleted."


class Occurrence(NamedTuple):
    """One event with its place and times, as the folds over a stream read it."""

    version: int
    event: Event | Erased
    recorded_at: datetime
    occurred_at: datetime


def pages_back(
    reader: Reader, stream: str, *, upto: int | None = None, first_page: int = 64
) -> Iterator[list[StreamRow]]:
    """Yield a stream's rows newest first, in pages that grow."""
    page = max(first_page, 1)
    while True:
        rows = reader.select_stream(stream, upto=upto, desc=True, limit=page)
        yield rows
        if len(rows) < page:
            return
        upto = rows[-1][1] - 1
        page = min(page * 4, LARGEST_PAGE)


def living(session_id: str, pages: Iterator[list[StreamRow]]) -> Iterator[list[StreamRow]]:
    """Yield the pages of a session that exists.

    Raises:
        SessionNotFound, SessionGone: it does not, or not any more.
    """
    first = next(pages, None)
    if not first:
        raise SessionNotFound(session_id)
    if first[0][2].startswith(_DELETED):
        raise SessionGone(f"session {session_id!r} was deleted")
    yield first
    yield from pages


def require_living(reader: Reader, stream: str) -> None:
    """Return if there is such a session.

    Raises:
        SessionNotFound, SessionGone: there is not, or not any more.
    """
    newest = reader.select_stream(stream, desc=True, limit=1)
    next(living(stream.partition("/")[2], iter([newest])))


def occurrences_back(
    codec: Codec,
    stream: str,
    pages: Iterable[Sequence[StreamRow]],
    topics: frozenset[str],
    pending: Sequence[Occurrence] = (),
) -> Iterator[Occurrence]:
    """Yield events newest first: those ``pending``, then those of the pages whose topic (up to its dot) is wanted."""
    yield from reversed(pending)
    for rows in pages:
        for row in rows:
            topic = row[2]
            if topic[: topic.rfind(".") + 1] in topics:
                yield Occurrence(row[1], *codec.occurrence(stream, row))


class _Era:
    """The time before a compaction (or, for the newest, before now), as it is met going back.

    ``removed`` counts the removals met in it that still wait for their message; ``kept`` how many messages are still to
    be met of those that the compaction at its end kept.
    """

    __slots__ = ("compaction", "kept", "removed")

    def __init__(self, compaction: Occurrence | None = None, kept: int = -1) -> None:
        self.compaction = compaction
        self.kept = kept
        self.removed: dict[str, int] = {}


class _GoingBack:
    """What was met so far, going back, that decides about earlier messages: eras (newest first) and edits."""

    def __init__(self) -> None:
        self.eras = [_Era()]
        self.edits: dict[str, Json] = {}
        self.ended = False

    @property
    def plain(self) -> bool:
        """Whether every earlier message is visible as it stands."""
        return not self.edits and len(self.eras) == 1 and not any(self.eras[0].removed.values())

    def messages(self, occurrence: Occurrence) -> Iterator[Message]:
        """Meet an event, and yield the messages it brought that are visible; ``ended`` tells if nothing before is."""
        event = occurrence.event
        match event:
            case e.MessageAdded():
                yield from self._visible(_added(occurrence, event))
            case e.MessageEdited(message_id, content):
                if not any(era.removed.get(message_id) for era in self.eras):
                    self.edits.setdefault(message_id, content)
            case e.MessageRemoved(message_id):
                removed = self.eras[-1].removed
                removed[message_id] = removed.get(message_id, 0) + 1
            case e.HistoryCompacted(_, _, kept):
                self.eras.append(_Era(occurrence, kept))
                yield from self._summary_if_due()
            case e.HistoryReplaced(messages):
                for item in reversed(messages):
                    yield from self._visible(_replaced(occurrence, item))
                    if self.ended:
                        return
                self.ended = True
            case e.HistoryCleared():
                self.ended = True
            case _:
                pass

    def _visible(self, message: Message) -> Iterator[Message]:
        if self._emerges(message.message_id, self.eras):
            yield self._final(message)
        yield from self._summary_if_due()

    def _emerges(self, message_id: str, eras: list[_Era]) -> bool:
        """Carry a message forward through all eras after it; tell whether it is still visible at the end."""
        for era in reversed(eras):
            left = era.removed.get(message_id, 0)
            if left:
                era.removed[message_id] = left - 1
                return False
            era.kept -= 1
        return True

    def _final(self, message: Message) -> Message:
        """Return the message in its latest wording."""
        if message.message_id not in self.edits:
            return message
        return with_content(message, self.edits.pop(message.message_id))

    def _summary_if_due(self) -> Iterator[Message]:
        """Once every message that a compaction kept was met, yield its summary: nothing older is visible."""
        newest = next((i for i, era in enumerate(self.eras) if i and era.kept == 0), None)
        if newest is None:
            return
        self.ended = True
        occurrence = self.eras[newest].compaction
        if occurrence is not None and isinstance(occurrence.event, e.HistoryCompacted):
            summary = _summary(occurrence, occurrence.event)
            if self._emerges(summary.message_id, self.eras[:newest]):
                yield self._final(summary)


def messages_back(
    codec: Codec, stream: str, pages: Iterable[Sequence[StreamRow]], pending: Sequence[Occurrence] = ()
) -> Iterator[Message]:
    """Yield the visible messages newest first, from events ``pending`` and then from pages of rows, newest first."""
    back = _GoingBack()
    for occurrence in reversed(pending):
        yield from back.messages(occurrence)
        if back.ended:
            return
    for rows in pages:
        at = 0
        while at < len(rows):
            end = _run_of_messages(rows, at) if back.plain else at
            if end > at:
                yield from _run(codec, stream, rows[at:end])
                at = end
                continue
            yield from back.messages(Occurrence(rows[at][1], *codec.occurrence(stream, rows[at])))
            if back.ended:
                return
            at += 1


def _run_of_messages(rows: Sequence[StreamRow], at: int) -> int:
    """Return where the run of equal topics that begins at ``at`` ends, if they are messages added."""
    topic = rows[at][2]
    if not topic.startswith(_ADDED):
        return at
    return next((i for i in range(at + 1, len(rows)) if rows[i][2] != topic), len(rows))


def _run(codec: Codec, stream: str, rows: Sequence[StreamRow]) -> list[Message]:
    """Decode messages that nothing said later concerns, all at once."""
    messages: list[Message] = []
    for row, brief in zip(rows, codec.run(stream, rows), strict=True):
        header, body = brief.header, brief.private.body
        messages.append(
            Message(
                body.message_id,
                body.role,
                body.content,
                body.name,
                body.tool_calls,
                body.tool_call_id,
                body.metadata,
                header.recorded_at,
                header.occurred_at or header.recorded_at,
                row[1],
                body.route,
                body.step,
            )
        )
    return messages


def with_content(message: Message, content: Json) -> Message:
    """Return the message in another wording."""
    return replace(message, content=content)


def _added(occurrence: Occurrence, event: e.MessageAdded | e.ReplacementMessage) -> Message:
    return Message(
        event.message_id,
        event.role,
        event.content,
        event.name,
        event.tool_calls,
        event.tool_call_id,
        event.metadata,
        occurrence.recorded_at,
        occurrence.occurred_at,
        occurrence.version,
        event.route,
        event.step,
    )


def _replaced(occurrence: Occurrence, item: e.ReplacementMessage) -> Message:
    message = _added(occurrence, item)
    return message if item.occurred_at is None else replace(message, occurred_at=item.occurred_at)


def _summary(occurrence: Occurrence, event: e.HistoryCompacted) -> Message:
    at, occurred_at, version = occurrence.recorded_at, occurrence.occurred_at, occurrence.version
    return Message(
        event.message_id, "system", event.summary, None, None, None, None, at, occurred_at, version, None, None
    )


def message_of(occurrence: Occurrence, item: int = 0) -> Message | None:
    """Return the message that an event brought (of several, the one at ``item``), in its first wording."""
    match occurrence.event:
        case e.MessageAdded() as event:
            return _added(occurrence, event)
        case e.HistoryReplaced(messages) if item < len(messages):
            return _replaced(occurrence, messages[item])
        case e.HistoryCompacted() as event:
            return _summary(occurrence, event)
        case _:
            return None


def everything(events: Iterable[Occurrence]) -> list[Message]:
    """Return every message ever said, oldest first, removed and replaced ones too, each in its latest wording."""
    said: dict[str, Message] = {}
    for occurrence in events:
        event = occurrence.event
        match event:
            case e.MessageAdded():
                said[event.message_id] = _added(occurrence, event)
            case e.HistoryReplaced(messages):
                for item in messages:
                    first = said.setdefault(item.message_id, _replaced(occurrence, item))
                    said[item.message_id] = with_content(first, item.content)
            case e.HistoryCompacted():
                said[event.message_id] = _summary(occurrence, event)
            case e.MessageEdited(message_id, content) if message_id in said:
                said[message_id] = with_content(said[message_id], content)
            case _:
                pass
    return list(said.values())


def same_messages(newest_first: Iterable[Message], given: Sequence[e.ReplacementMessage]) -> bool:
    """Return whether the visible messages are those given, to the last field; a time not given is not compared."""
    return all(
        said is not None and item is not None and _is_said(said, item)
        for said, item in zip_longest(newest_first, reversed(given))
    )


def _is_said(said: Message, item: e.ReplacementMessage) -> bool:
    at = said.occurred_at if item.occurred_at is not None else None
    fields = {name: getattr(said, name) for name in item.__struct_fields__ if name != "occurred_at"}
    return same_json(e.ReplacementMessage(**fields, occurred_at=at), item)


def visible_message(messages: Iterable[Message], message_id: str) -> Message | None:
    """Return the latest visible message with this id."""
    return next((message for message in messages if message.message_id == message_id), None)
