"""turnlog's neutral form of a conversation (docs/import-format.md): one line of JSON, and its commands."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal, TypeAlias, assert_never

import msgspec
from msgspec import UNSET, UnsetType

from turnlog import inputs, structures
from turnlog.domain import commands as c
from turnlog.domain.commands import Command, Found, FoundCall, fingerprint
from turnlog.domain.errors import InvalidInput, RuleViolation
from turnlog.domain.events import Json
from turnlog.domain.session import decide, evolve, initial
from turnlog.domain.typed import decoder
from turnlog.saying import Said

LINE = "the line"
"""What an error names that is about no field."""
OPEN = "open"
"""What the neutral form calls a session that is active."""

Timestamp: TypeAlias = int | float | None
"""Unix seconds."""


class _Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The options of every object in a line: a field that is not known is refused, not lost."""


class _Event(_Form, frozen=True, tag_field="type"):
    """The options of every event."""


class MessageEvent(_Event, frozen=True, tag="message", kw_only=True):
    """Something said. ``parent_id`` and ``rank`` are those of trees of messages."""

    role: str
    content: Json
    name: str | None = None
    tool_calls: list[Json] | None = None
    tool_call_id: str | None = None
    message_id: str | None = None
    parent_id: str | UnsetType | None = UNSET
    rank: Json | UnsetType = UNSET
    metadata: dict[str, Json] | None = None
    ts: Timestamp = None


class DataEvent(_Event, frozen=True, tag="data", kw_only=True):
    """Values that are new or changed; null means that one was removed."""

    values: dict[str, Json]
    ts: Timestamp = None


class RouteEvent(_Event, frozen=True, tag="route", kw_only=True):
    """The route that was entered."""

    route: str
    ts: Timestamp = None


class StepEvent(_Event, frozen=True, tag="step", kw_only=True):
    """The step that was entered."""

    step: str
    ts: Timestamp = None


class ToolCallEvent(_Event, frozen=True, tag="tool_call", kw_only=True):
    """A tool was called."""

    id: str
    name: str
    arguments: Json
    ts: Timestamp = None


class ToolResultEvent(_Event, frozen=True, tag="tool_result", kw_only=True):
    """What the latest earlier call with this id gave."""

    id: str
    content: Json
    name: str | None = None
    ts: Timestamp = None


class StatusEvent(_Event, frozen=True, tag="status", kw_only=True):
    """How it ended; ``open`` opens it again."""

    status: Literal["completed", "abandoned", "open"]
    ts: Timestamp = None


OtherEvent: TypeAlias = DataEvent | RouteEvent | StepEvent | ToolCallEvent | ToolResultEvent | StatusEvent
NeutralEvent: TypeAlias = MessageEvent | OtherEvent


class Checkpoint(_Form, frozen=True, kw_only=True):
    """The data right after the first ``event_count`` events, known from elsewhere."""

    event_count: int
    data: dict[str, Json]


class FinalState(_Form, frozen=True, kw_only=True):
    """The outcome, known from elsewhere; what is not given is not compared."""

    data: dict[str, Json] | UnsetType = UNSET
    route: str | UnsetType | None = UNSET
    step: str | UnsetType | None = UNSET
    message_count: int | UnsetType = UNSET
    tool_call_count: int | UnsetType = UNSET
    status: str | UnsetType = UNSET
    branches: list[list[str]] | UnsetType = UNSET


class Conversation(_Form, frozen=True, kw_only=True):
    """One line."""

    conversation_id: str
    events: list[NeutralEvent]
    user_id: str | None = None
    agent: str | None = None
    source: str | None = None
    licence: str | None = None
    meta: dict[str, Json] | None = None
    checkpoint: Checkpoint | None = None
    final_state: FinalState | None = None


_decode = decoder(Conversation)
_canonical = msgspec.json.Encoder(order="sorted").encode


def conversation_of(line: bytes) -> Conversation:
    """Decode one line.

    Raises:
        InvalidInput: it is not JSON, or not of the neutral form; the message says where.
    """
    try:
        conversation = _decode(line)
    except msgspec.ValidationError as error:
        raise InvalidInput(LINE, str(error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(LINE, _not_json(line, error)) from error
    _require_once(line)
    return conversation


def _not_json(line: bytes, error: Exception) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as wrong:
        return f"is not UTF-8: byte {line[wrong.start]:#x} at index {wrong.start}"
    return f"is not JSON: {str(error).removeprefix('JSON is malformed: ')}"


def _require_once(line: bytes) -> None:
    """Refuse a key that stands twice in one object: of its two values msgspec takes the last without a word."""
    try:
        json.loads(line, object_pairs_hook=_once, parse_int=str, parse_float=str)
    except RecursionError as error:
        raise InvalidInput(LINE, "is nested too deeply") from error


def _once(pairs: list[tuple[str, Json]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(LINE, f"the key {inputs.shown(twice)} stands twice in one object")


def content_hash(conversation: Conversation) -> bytes:
    """Return 32 bytes that tell this conversation from any other, however its line is written.

    What is known of the outcome is not part of it: the same conversation may come with or without.
    """
    return sha256(_canonical(msgspec.structs.replace(conversation, checkpoint=None, final_state=None))).digest()


def start_of(conversation: Conversation) -> c.StartSession:
    """Return the command that creates the session.

    Raises:
        InvalidInput: a value is not acceptable to turnlog.
    """
    about = {"source": conversation.source, "licence": conversation.licence, "meta": conversation.meta}
    metadata = {name: value for name, value in about.items() if value is not None}
    return c.StartSession(
        user_id=inputs.optional(inputs.identifier, "user_id", conversation.user_id),
        agent=inputs.optional(inputs.identifier, "agent", conversation.agent),
        metadata=inputs.json_object("metadata", metadata),
    )


def said_in(conversation: Conversation, new_id: Callable[[], str]) -> Iterator[list[Said]]:
    """Yield, event by event, what it stands for; messages without an id get one from ``new_id``.

    Raises:
        InvalidInput: a value is not acceptable to turnlog; the message names it.
    """
    used: set[str] = set()
    for i, event in enumerate(conversation.events):
        place = f"events[{i}]"
        at = _occurred_at(f"{place}.ts", event.ts)
        if isinstance(event, MessageEvent):
            if event.message_id in used:
                raise InvalidInput(f"{place}.message_id", f"{event.message_id!r} was used before in this conversation")
            used.update(() if event.message_id is None else (event.message_id,))
            yield [said_message(_add_message(place, event, new_id), at, given=event.message_id is not None)]
        else:
            yield [Said(command, command, at) for command in _commands(place, event)]


def versions_after(conversation: Conversation) -> list[int]:
    """Return the session's version before the first event and after each: what an import of it alone leads to.

    Raises:
        InvalidInput: the rules forbid an event; the message names it.
    """
    state = initial("", conversation.conversation_id)
    at = datetime.min.replace(tzinfo=UTC)
    called: set[str] = set()
    for fact in decide(state, start_of(conversation)):
        state = evolve(state, fact, at)
    versions = [state.version]
    for i, said in enumerate(said_in(conversation, lambda: "")):
        for one in said:
            if isinstance(one.command, c.CallTool):
                called.add(one.command.call_id)
            known = isinstance(one.command, c.ReturnTool) and one.command.call_id in called
            try:
                facts = decide(state, one.command, Found(call=FoundCall("") if known else None))
            except InvalidInput as error:
                field = "id" if error.field == "call_id" else error.field  # as the form calls it
                raise InvalidInput(f"events[{i}].{field}", error.expected) from error
            except RuleViolation as error:
                raise InvalidInput(f"events[{i}]", str(error)) from error
            for fact in facts:
                state = evolve(state, fact, at)
        versions.append(state.version)
    return versions


def refusal_of(conversation: Conversation, error: Exception) -> str:
    """Say why the rules forbid this conversation, and at which event, if it is not another session that does."""
    try:
        versions_after(conversation)
    except InvalidInput as placed:
        return str(placed)
    return str(error)


def said_message(command: c.AddMessage, at: datetime | None, *, given: bool) -> Said:
    """Return what ``Session.add_message`` would say, so that saying it again there is known as a repetition.

    ``given`` tells whether its id was given, not made.
    """
    if not given:
        return Said(command, msgspec.structs.replace(command, message_id=""), at)
    return Said(command, command, at, keys=(("message", command.message_id, fingerprint((command,))),))


def _commands(place: str, event: OtherEvent) -> list[Command]:
    match event:
        case DataEvent():
            return _data(place, event.values)
        case RouteEvent():
            return [c.EnterRoute(inputs.identifier(f"{place}.route", event.route))]
        case StepEvent():
            return [c.EnterStep(inputs.identifier(f"{place}.step", event.step))]
        case ToolCallEvent():
            arguments = inputs.json_value(f"{place}.arguments", event.arguments)
            name = inputs.text(f"{place}.name", event.name)
            return [c.CallTool(inputs.identifier(f"{place}.id", event.id), name, arguments)]
        case ToolResultEvent():
            content = inputs.json_value(f"{place}.content", event.content)
            known_as = inputs.optional(inputs.text, f"{place}.name", event.name)
            return [c.ReturnTool(inputs.identifier(f"{place}.id", event.id), content, known_as)]
        case StatusEvent():
            return [c.SetStatus("active" if event.status == OPEN else event.status)]
        case _:
            assert_never(event)


def _add_message(place: str, event: MessageEvent, new_id: Callable[[], str]) -> c.AddMessage:
    metadata = dict(event.metadata or {})
    for name, value in (("parent_id", event.parent_id), ("rank", event.rank)):
        if value is not UNSET and name in metadata:
            raise InvalidInput(f"{place}.metadata.{name}", f"the field {name} stands beside it; give one of them")
        if value is not UNSET:
            metadata[name] = value
    return c.AddMessage(
        new_id() if event.message_id is None else inputs.identifier(f"{place}.message_id", event.message_id),
        inputs.role(f"{place}.role", event.role),
        inputs.content(f"{place}.content", event.content),
        inputs.optional(inputs.text, f"{place}.name", event.name),
        inputs.optional(structures.tool_calls, f"{place}.tool_calls", event.tool_calls),
        inputs.optional(inputs.identifier, f"{place}.tool_call_id", event.tool_call_id),
        inputs.json_object(f"{place}.metadata", metadata) if metadata else None,
    )


def _data(place: str, values: dict[str, Json]) -> list[Command]:
    values = inputs.json_object(f"{place}.values", values)
    collected = {key: value for key, value in values.items() if value is not None}
    discarded = tuple(key for key, value in values.items() if value is None)
    commands: list[Command] = []
    if collected:
        commands.append(c.Collect(collected))
    if discarded:
        commands.append(c.Discard(discarded))
    return commands


def _occurred_at(field: str, ts: Timestamp) -> datetime | None:
    if ts is None:
        return None
    try:
        return datetime.fromtimestamp(ts, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise InvalidInput(field, f"expected Unix seconds, got {ts!r}") from error
