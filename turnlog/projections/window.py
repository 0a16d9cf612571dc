"""The window of a history that a model is shown: the last messages, as many as fit, no result without its call."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

from turnlog.domain.errors import InvalidInput
from turnlog.domain.values import Message


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
    if max_tokens is not None and count is not None:
        taken, messages = _within(messages, last, max_tokens, count)
        return taken if exact else _begin_later(taken, messages)
    taken = list(messages if last is None else islice(messages, last))[::-1]
    if exact or last is None or not (missing := {_result(taken[i]) for i in _orphans(taken)}):
        return taken
    return _reach_back(taken, messages, missing)


def _within(
    messages: Iterator[Message], last: int | None, max_tokens: int, count: Callable[[Message], int]
) -> tuple[list[Message], Iterator[Message]]:
    """Return the newest messages that fit, oldest first, and those before them, newest first."""
    taken: list[Message] = []
    for message in messages if last is None else islice(messages, last):
        max_tokens -= _tokens(count(message))
        if max_tokens < 0:
            return taken[::-1], chain((message,), messages)
        taken.append(message)
    return taken[::-1], messages


def _tokens(counted: object) -> int:
    if type(counted) is not int or counted < 0:
        raise InvalidInput("count", f"expected a function that gives an int of 0 or more, it gave {counted!r:.50}")
    return counted


def _result(message: Message) -> str | None:
    """Return the id of the call whose result this is."""
    return message.tool_call_id if message.role == "tool" else None


def _call_ids(message: Message) -> set[str | None]:
    calls = message.tool_calls or ()
    return {call["id"] for call in calls if isinstance(call.get("id"), str)}


def _orphans(window_: Sequence[Message]) -> list[int]:
    """Return the places of results whose call does not stand in the window before them."""
    if not any(message.role == "tool" for message in window_):
        return []
    called: set[str | None] = {None}
    orphans: list[int] = []
    for i, message in enumerate(window_):
        if _result(message) not in called:
            orphans.append(i)
        called |= _call_ids(message)
    return orphans


def _reach_back(taken: list[Message], earlier: Iterator[Message], missing: set[str | None]) -> list[Message]:
    """Add earlier messages until the calls are there; results whose call is nowhere add nothing."""
    before: list[Message] = []
    reached = 0
    inside: set[str | None] = set()  # results met on the way: they count once the window has come to begin before them
    for message in earlier:
        before.append(message)
        calls = _call_ids(message)
        inside -= calls
        if missing & calls:
            missing = (missing - calls) | inside
            reached = len(before)
            inside.clear()
            if not missing:
                break
        elif _result(message) is not None:
            inside.add(_result(message))
    return before[:reached][::-1] + taken


def _begin_later(taken: list[Message], earlier: Iterator[Message]) -> list[Message]:
    """Drop what stands up to the last result whose call was left outside; one whose call is nowhere stays."""
    orphans = _orphans(taken)
    if not orphans:
        return taken
    nowhere = {_result(taken[i]) for i in orphans}
    for message in earlier:
        nowhere -= _call_ids(message)
        if not nowhere:
            break
    while cut := [i for i in _orphans(taken) if _result(taken[i]) not in nowhere]:
        taken = taken[cut[-1] + 1 :]
    return taken
