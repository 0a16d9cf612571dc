"""History: the messages of a session, folded live from its events, newest first.

Reading backwards costs what is read, however long the session is. What came later decides what is visible: going back,
a removal, an edit, a clearing or a compaction is met before the messages it concerns.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from turnlog.domain import events as e
from turnlog.domain.events import Erased, Event, Json
from turnlog.domain.mapper import Codec, StreamRow
from turnlog.domain.recorder import Reader
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
_LARGEST_PAGE = 2_000


class Occurrence(NamedTuple):
    """One event with its place and times, as the folds over a stream read it."""

    version: int
    event: Event | Erased
    recorded_at: datetime
    occurred_at: datetime


def read_back(
    reader: Reader,
    codec: Codec,
    stream: str,
    *,
    upto: int | None = None,
    topics: frozenset[str] = TOPICS,
    first_page: int = 64,
) -> Iterator[Occurrence]:
    """Yield a stream's events newest first, those whose topic (without its schema number) is in ``topics``."""
    page = max(first_page, 1)
    while True:
        rows = reader.select_stream(stream, upto=upto, desc=True, limit=page)
        yield from occurrences(codec, stream, rows, topics)
        if len(rows) < page:
            return
        upto = rows[-1][1] - 1
        page = min(page * 4, _LARGEST_PAGE)


def occurrences(
    codec: Codec, stream: str, rows: Iterable[StreamRow], topics: frozenset[str] | None = None
) -> Iterator[Occurrence]:
    """Decode those rows whose topic is wanted."""
    for row in rows:
        topic = row[2]
        if topics is None or topic[: topic.rfind(".") + 1] in topics:
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

    def meet(self, occurrence: Occurrence) -> None:
        """Note an event that changes what earlier messages come to."""
        match occurrence.event:
            case e.MessageEdited(message_id, content):
                if not any(era.removed.get(message_id) for era in self.eras):
                    self.edits.setdefault(message_id, content)
            case e.MessageRemoved(message_id):
                removed = self.eras[-1].removed
                removed[message_id] = removed.get(message_id, 0) + 1
            case e.HistoryCompacted(_, _, kept):
                self.eras.append(_Era(occurrence, kept))
            case _:
                pass

    def emerges(self, message_id: str, eras: list[_Era] | None = None) -> bool:
        """Carry a message forward through all eras after it; tell whether it is still visible at the end."""
        for era in reversed(self.eras if eras is None else eras):
            if era.removed:
                left = era.removed.get(message_id, 0)
                if left:
                    era.removed[message_id] = left - 1
                    return False
            era.kept -= 1
        return True

    def final(self, message: Message) -> Message:
        """Return the message in its latest wording."""
        if message.message_id not in self.edits:
            return message
        return with_content(message, self.edits.pop(message.message_id))

    @property
    def met_all_kept(self) -> bool:
        """Whether every message that some compaction kept was met: only its summary stands before them."""
        return len(self.eras) > 1 and any(era.kept == 0 for era in self.eras[1:])

    def summary(self) -> Iterator[Message]:
        """Yield the summary before the kept messages; nothing older than it is visible."""
        newest = next(i for i, era in enumerate(self.eras) if i and era.kept == 0)
        occurrence = self.eras[newest].compaction
        if occurrence is not None and isinstance(occurrence.event, e.HistoryCompacted):
            summary = _summary(occurrence, occurrence.event)
            if self.emerges(summary.message_id, self.eras[:newest]):
                yield self.final(summary)


def visible_back(events: Iterable[Occurrence]) -> Iterator[Message]:
    """Yield the visible messages newest first, from events newest first."""
    back = _GoingBack()
    for occurrence in events:
        event = occurrence.event
        if type(event) is e.MessageAdded:
            if back.emerges(event.message_id):
                message = _added(occurrence, event)
                yield back.final(message) if back.edits else message
        elif type(event) is e.HistoryReplaced:
            yield from _replaced_back(occurrence, event, back)
            return
        elif type(event) is e.HistoryCleared:
            return
        else:
            back.meet(occurrence)
        if back.met_all_kept:
            yield from back.summary()
            return


def _replaced_back(occurrence: Occurrence, event: e.HistoryReplaced, back: _GoingBack) -> Iterator[Message]:
    if back.met_all_kept:
        yield from back.summary()
        return
    for item in reversed(event.messages):
        if back.emerges(item.message_id):
            yield back.final(_replaced(occurrence, item))
        if back.met_all_kept:
            yield from back.summary()
            return


def with_content(message: Message, content: Json) -> Message:
    """Return the message in another wording."""
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    return Message(**{**fields, "content": content})


def _added(occurrence: Occurrence, event: e.MessageAdded) -> Message:
    return Message(
        message_id=event.message_id,
        role=event.role,
        content=event.content,
        name=event.name,
        tool_calls=event.tool_calls,
        tool_call_id=event.tool_call_id,
        metadata=event.metadata,
        recorded_at=occurrence.recorded_at,
        occurred_at=occurrence.occurred_at,
        version=occurrence.version,
        route=event.route,
        step=event.step,
    )


def _replaced(occurrence: Occurrence, item: e.ReplacementMessage) -> Message:
    return Message(
        message_id=item.message_id,
        role=item.role,
        content=item.content,
        name=item.name,
        tool_calls=item.tool_calls,
        tool_call_id=item.tool_call_id,
        metadata=item.metadata,
        recorded_at=occurrence.recorded_at,
        occurred_at=item.occurred_at or occurrence.occurred_at,
        version=occurrence.version,
        route=item.route,
        step=item.step,
    )


def _summary(occurrence: Occurrence, event: e.HistoryCompacted) -> Message:
    return Message(
        message_id=event.message_id,
        role="system",
        content=event.summary,
        recorded_at=occurrence.recorded_at,
        occurred_at=occurrence.occurred_at,
        version=occurrence.version,
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
                    said.setdefault(item.message_id, _replaced(occurrence, item))
            case e.HistoryCompacted():
                said[event.message_id] = _summary(occurrence, event)
            case e.MessageEdited(message_id, content) if message_id in said:
                said[message_id] = with_content(said[message_id], content)
            case _:
                pass
    return list(said.values())


def window(
    messages: Iterator[Message],
    *,
    last: int | None,
    max_tokens: int | None,
    count: Callable[[Message], int] | None,
    exact: bool,
) -> list[Message]:
    """Cut a window from messages that come newest first, and return it oldest first.

    ``last`` reaches back further where the window would begin between a tool call and its result; ``max_tokens`` is a
    limit that is kept, so there the window begins later instead. ``exact`` does neither.
    """
    taken: list[Message] = []
    used = 0
    overflow: list[Message] = []
    for message in messages:
        if last is not None and len(taken) == last:
            overflow.append(message)
            break
        if max_tokens is not None and count is not None:
            used += count(message)
            if used > max_tokens:
                overflow.append(message)
                break
        taken.append(message)
    taken.reverse()
    if exact or not overflow:
        return taken
    open_calls = _open_calls(taken)
    if not open_calls:
        return taken
    return _begin_later(taken) if max_tokens is not None else _reach_back(taken, chain(overflow, messages), open_calls)


def _open_calls(window_: Sequence[Message]) -> set[str]:
    """Return the ids of calls whose results stand in the window while they themselves stand before it."""
    called: set[str] = set()
    missing: set[str] = set()
    for message in window_:
        called.update(_call_ids(message))
        if message.role == "tool" and message.tool_call_id is not None and message.tool_call_id not in called:
            missing.add(message.tool_call_id)
    return missing


def _call_ids(message: Message) -> set[str]:
    calls = message.tool_calls or ()
    return {call["id"] for call in calls if isinstance(call.get("id"), str)}


def _reach_back(taken: list[Message], earlier: Iterator[Message], missing: set[str]) -> list[Message]:
    """Add earlier messages until the calls are there; results whose call is nowhere add nothing."""
    before: list[Message] = []
    reached = 0
    for message in earlier:
        before.append(message)
        if message.role == "tool" and message.tool_call_id is not None:
            missing.add(message.tool_call_id)
        if missing & _call_ids(message):
            missing -= _call_ids(message)
            reached = len(before)
            if not missing:
                break
    return before[:reached][::-1] + taken


def _begin_later(taken: list[Message]) -> list[Message]:
    while missing := _open_calls(taken):
        last = max(i for i, message in enumerate(taken) if message.tool_call_id in missing)
        taken = taken[last + 1 :]
    return taken


def visible_message(messages: Iterable[Message], message_id: str) -> Message | None:
    """Return the latest visible message with this id."""
    return next((message for message in messages if message.message_id == message_id), None)
