"""What commands name: a message to edit, the call that returned, a run to finish.

Only commands in ``LOOKING_UP`` need it. The stream is read backwards, no further than to what is named.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeGuard

from turnlog.domain import commands as c
from turnlog.domain import events as e
from turnlog.domain.commands import NOTHING, Command, Found
from turnlog.domain.errors import CorruptLog
from turnlog.domain.mapper import Codec
from turnlog.domain.recorder import Reader
from turnlog.domain.values import Message
from turnlog.projections.history import (
    Occurrence,
    messages_back,
    occurrences_back,
    pages_back,
    require_living,
    same_messages,
    visible_message,
)
from turnlog.projections.progress import CALL_TOPICS, RUN_TOPICS
from turnlog.projections.window import window


class Stretch(NamedTuple):
    """A stream's events up to ``version``, and those ``pending`` after them."""

    codec: Codec
    reader: Reader
    stream: str
    version: int
    pending: Sequence[Occurrence] = ()

    def messages(self, first_page: int = 64) -> Iterator[Message]:
        """Yield the visible messages, newest first."""
        pages = pages_back(self.reader, self.stream, upto=self.version, first_page=first_page)
        return messages_back(self.codec, self.stream, pages, self.pending)

    def back(self, topics: frozenset[str], first_page: int = 64) -> Iterator[Occurrence]:
        """Yield the events of these topics, newest first."""
        pages = pages_back(self.reader, self.stream, upto=self.version, first_page=first_page)
        return occurrences_back(self.codec, self.stream, pages, topics, self.pending)


def look_up(command: Command, stretch: Stretch) -> Found:
    """Find in ``stretch`` what ``command`` names.

    Raises:
        SessionGone: the session was deleted, and what it names was erased.
    """
    try:
        return _look_up(command, stretch)
    except CorruptLog:
        require_living(stretch.reader, stretch.stream)
        raise


def _look_up(command: Command, stretch: Stretch) -> Found:
    match command:
        case c.EditMessage(message_id) | c.RemoveMessage(message_id):
            found = Found(message=_message(visible_message(stretch.messages(), message_id)))
        case c.PopMessage():
            found = Found(message=_message(next(stretch.messages(first_page=8), None)))
        case c.SetHistory(given):
            found = Found(same=same_messages(stretch.messages(), given))
        case c.CompactHistory(_, _, keep_last):
            kept = window(stretch.messages(), last=keep_last, max_tokens=None, count=None, exact=keep_last == 0)
            found = Found(kept=len(kept))
        case c.ReturnTool(call_id):
            events = (event for _, event, _, _ in stretch.back(CALL_TOPICS, first_page=8))
            name = next((event.name for event in events if _is_call(event, call_id)), None)
            found = Found(call=None if name is None else c.FoundCall(name))
        case c.StartRun(run_id) | c.FinishRun(run_id):
            found = Found(run=_run(stretch.back(RUN_TOPICS), run_id))
        case _:
            found = NOTHING
    return found


def _message(message: Message | None) -> c.FoundMessage | None:
    return None if message is None else c.FoundMessage(message.message_id, message.content)


def _is_call(event: object, call_id: str) -> TypeGuard[e.ToolCalled]:
    return isinstance(event, e.ToolCalled) and event.call_id == call_id


def _run(events: Iterator[Occurrence], run_id: str) -> c.FoundRun | None:
    finished = None
    for _, event, _, _ in events:
        match event:
            case e.RunFinished(id_, status, result, error, usage) if id_ == run_id:
                finished = c.FinishRun(run_id, status, result, error, usage)
            case e.RunStarted(id_, details) if id_ == run_id:
                return c.FoundRun(details, finished)
            case _:
                pass
    return None
