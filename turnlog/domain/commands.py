"""What one can wish of a session: one frozen class per command, and what the store looks up for it.

Values in a command have passed the edge (``turnlog.inputs``): they are well-formed; whether they are allowed is for
``decide`` to say. Ids that the caller did not give have been made by then.
"""

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import TypeAlias

import msgspec

from turnlog.domain.events import Json, ReplacementMessage


class _Wish(msgspec.Struct, frozen=True, gc=False):
    """The options every command shares."""


class AddMessage(_Wish, frozen=True):
    message_id: str
    role: str
    content: Json
    name: str | None = None
    tool_calls: list[dict[str, Json]] | None = None
    tool_call_id: str | None = None
    metadata: dict[str, Json] | None = None


class StartSession(_Wish, frozen=True, kw_only=True):
    """Get or create: on an existing session only the owner is looked at."""

    user_id: str | None = None
    agent: str | None = None
    data: dict[str, Json] = {}
    context: dict[str, Json] = {}
    metadata: dict[str, Json] = {}
    continued_from: str | None = None


class EditMessage(_Wish, frozen=True):
    message_id: str
    content: Json


class RemoveMessage(_Wish, frozen=True):
    message_id: str


class PopMessage(_Wish, frozen=True):
    pass


class ClearHistory(_Wish, frozen=True):
    pass


class SetHistory(_Wish, frozen=True):
    messages: tuple[ReplacementMessage, ...]


class CompactHistory(_Wish, frozen=True):
    message_id: str
    summary: Json
    keep_last: int


class Collect(_Wish, frozen=True):
    values: dict[str, Json]


class Discard(_Wish, frozen=True):
    keys: tuple[str, ...]


class ClearData(_Wish, frozen=True):
    pass


class SetContext(_Wish, frozen=True):
    values: dict[str, Json]
    unset: tuple[str, ...] = ()


class SetMetadata(_Wish, frozen=True):
    values: dict[str, Json]
    unset: tuple[str, ...] = ()


class EnterRoute(_Wish, frozen=True):
    route: str
    title: str | None = None
    reason: str | None = None


class ExitRoute(_Wish, frozen=True):
    completed: bool = False


class EnterStep(_Wish, frozen=True):
    step: str
    description: str | None = None


class PlanTransition(_Wish, frozen=True):
    route: str
    condition: str | None = None
    reason: str | None = None


class CancelTransition(_Wish, frozen=True):
    pass


class CallTool(_Wish, frozen=True):
    call_id: str
    name: str
    arguments: Json


class ReturnTool(_Wish, frozen=True):
    call_id: str
    content: Json
    name: str | None = None
    error: str | None = None


class StartRun(_Wish, frozen=True):
    run_id: str
    details: dict[str, Json]


class FinishRun(_Wish, frozen=True):
    run_id: str
    status: str
    result: Json = None
    error: str | None = None
    usage: dict[str, Json] | None = None


class SetStatus(_Wish, frozen=True):
    status: str
    reason: str | None = None


class AssignOwner(_Wish, frozen=True):
    user_id: str


class DeleteSession(_Wish, frozen=True):
    pass


Command: TypeAlias = (
    StartSession
    | AddMessage
    | EditMessage
    | RemoveMessage
    | PopMessage
    | ClearHistory
    | SetHistory
    | CompactHistory
    | Collect
    | Discard
    | ClearData
    | SetContext
    | SetMetadata
    | EnterRoute
    | ExitRoute
    | EnterStep
    | PlanTransition
    | CancelTransition
    | CallTool
    | ReturnTool
    | StartRun
    | FinishRun
    | SetStatus
    | AssignOwner
    | DeleteSession
)

ALLOWED_WHEN_CLOSED = frozenset(
    {
        StartSession,
        EditMessage,
        RemoveMessage,
        PopMessage,
        SetMetadata,
        ReturnTool,
        FinishRun,
        SetStatus,
        AssignOwner,
        DeleteSession,
    }
)


class FoundMessage(_Wish, frozen=True):
    """A visible message as the store found it."""

    message_id: str
    content: Json


class FoundCall(_Wish, frozen=True):
    """The latest earlier tool call with the id that was named."""

    name: str


class FoundRun(_Wish, frozen=True):
    """The run that was named; ``finished`` is its outcome, if it has one."""

    details: dict[str, Json]
    finished: FinishRun | None = None


class Found(_Wish, frozen=True):
    """What a command names and state does not hold.

    ``message`` is the visible message named (or, for ``PopMessage``, the last one); ``kept`` is how many of the newest
    messages ``CompactHistory`` keeps when it reaches back to the call of a tool's result; ``same`` tells whether the
    history is already what ``SetHistory`` makes it.
    """

    message: FoundMessage | None = None
    call: FoundCall | None = None
    run: FoundRun | None = None
    kept: int = 0
    same: bool = False


NOTHING = Found()

LOOKING_UP = frozenset(
    {EditMessage, RemoveMessage, PopMessage, SetHistory, CompactHistory, ReturnTool, StartRun, FinishRun}
)
"""The commands that name something; for all others ``found`` is ``NOTHING``, at no read."""

_encode = msgspec.json.Encoder(order="sorted").encode
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')


def fingerprint(commands: tuple[Command, ...], made: Sequence[str] = ()) -> bytes:
    """Return 16 bytes that tell one command (or one turn of them) from another.

    ``made`` are ids made on the way, in order: where a command names one, it counts by its place, not by what it is.
    """
    places = {_encode(id_): b"made %d" % i for i, id_ in enumerate(made)}
    digest = sha256()
    for command in commands:
        words = _encode(command)
        if places:
            words = _STRING.sub(lambda found: places.get(found[0], found[0]), words)
        digest.update(type(command).__name__.encode() + b"\n" + words + b"\n")
    return digest.digest()[:16]
