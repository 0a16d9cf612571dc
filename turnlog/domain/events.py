"""What can happen to a session: one frozen class per event.

Class names and field names are the storage format (docs/format.md). A field may be added with a default; any other
change is a new schema number with an upcaster (upcasting.py). Fields at their default are not stored.
"""

from datetime import datetime
from typing import Any, TypeAlias

import msgspec

Json: TypeAlias = Any
"""A JSON value: str, bool, int, finite float, None, list or dict with str keys. Checked by ``turnlog.inputs``."""


class _Fact(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The options every event shares; JSON values cannot form cycles, so events need no garbage collection."""


class ForkPoint(_Fact, frozen=True):
    """The session and version that a fork was taken from."""

    session_id: str
    version: int


class SessionStarted(_Fact, frozen=True):
    """Version 1 of every stream."""

    user_id: str | None = None
    agent: str | None = None
    data: dict[str, Json] = {}
    context: dict[str, Json] = {}
    metadata: dict[str, Json] = {}
    continued_from: str | None = None
    forked_from: ForkPoint | None = None


class OwnerAssigned(_Fact, frozen=True):
    user_id: str


class MessageAdded(_Fact, frozen=True):
    """``route`` and ``step`` are those in force when it was said, so that history needs no second fold to tell."""

    message_id: str
    role: str
    content: Json
    name: str | None = None
    tool_calls: list[dict[str, Json]] | None = None
    tool_call_id: str | None = None
    metadata: dict[str, Json] | None = None
    route: str | None = None
    step: str | None = None


class MessageEdited(_Fact, frozen=True):
    message_id: str
    content: Json


class MessageRemoved(_Fact, frozen=True):
    message_id: str


class HistoryCleared(_Fact, frozen=True):
    pass


class ReplacementMessage(_Fact, frozen=True):
    """One message of a ``HistoryReplaced``; ``occurred_at`` is kept where the caller gave it."""

    message_id: str
    role: str
    content: Json
    name: str | None = None
    tool_calls: list[dict[str, Json]] | None = None
    tool_call_id: str | None = None
    metadata: dict[str, Json] | None = None
    route: str | None = None
    step: str | None = None
    occurred_at: datetime | None = None


class HistoryReplaced(_Fact, frozen=True):
    messages: tuple[ReplacementMessage, ...]


class HistoryCompacted(_Fact, frozen=True):
    """All but the newest ``kept`` visible messages give way to one system message, ``summary``."""

    message_id: str
    summary: Json
    kept: int


class DataCollected(_Fact, frozen=True):
    values: dict[str, Json] = {}
    removed: tuple[str, ...] = ()


class DataCleared(_Fact, frozen=True):
    pass


class ContextSet(_Fact, frozen=True):
    values: dict[str, Json] = {}
    removed: tuple[str, ...] = ()


class MetadataSet(_Fact, frozen=True):
    values: dict[str, Json] = {}
    removed: tuple[str, ...] = ()


class RouteEntered(_Fact, frozen=True):
    """Ends an open visit to another route and clears the step."""

    route: str
    title: str | None = None
    reason: str | None = None


class RouteExited(_Fact, frozen=True):
    route: str
    completed: bool = False


class StepEntered(_Fact, frozen=True):
    step: str
    description: str | None = None


class TransitionPlanned(_Fact, frozen=True):
    route: str
    condition: str | None = None
    reason: str | None = None


class TransitionCancelled(_Fact, frozen=True):
    pass


class ToolCalled(_Fact, frozen=True):
    call_id: str
    name: str
    arguments: Json


class ToolReturned(_Fact, frozen=True):
    """The result of the latest earlier call with this id; call ids are not unique in real transcripts."""

    call_id: str
    name: str
    content: Json
    error: str | None = None


class RunStarted(_Fact, frozen=True):
    run_id: str
    details: dict[str, Json] = {}


class RunFinished(_Fact, frozen=True):
    run_id: str
    status: str
    result: Json = None
    error: str | None = None
    usage: dict[str, Json] | None = None


class StatusChanged(_Fact, frozen=True):
    status: str
    reason: str | None = None


class SessionDeleted(_Fact, frozen=True):
    """The last event of a stream, for ever."""


Event: TypeAlias = (
    SessionStarted
    | OwnerAssigned
    | MessageAdded
    | MessageEdited
    | MessageRemoved
    | HistoryCleared
    | HistoryReplaced
    | HistoryCompacted
    | DataCollected
    | DataCleared
    | ContextSet
    | MetadataSet
    | RouteEntered
    | RouteExited
    | StepEntered
    | TransitionPlanned
    | TransitionCancelled
    | ToolCalled
    | ToolReturned
    | RunStarted
    | RunFinished
    | StatusChanged
    | SessionDeleted
)


class Erased(msgspec.Struct, frozen=True, gc=False):
    """Stands where an event's content was destroyed; its place, time and type remain proven."""

    topic: str


TOPICS: dict[str, type[Event]] = {
    "SessionStarted.v1": SessionStarted,
    "OwnerAssigned.v1": OwnerAssigned,
    "MessageAdded.v1": MessageAdded,
    "MessageEdited.v1": MessageEdited,
    "MessageRemoved.v1": MessageRemoved,
    "HistoryCleared.v1": HistoryCleared,
    "HistoryReplaced.v1": HistoryReplaced,
    "HistoryCompacted.v1": HistoryCompacted,
    "DataCollected.v1": DataCollected,
    "DataCleared.v1": DataCleared,
    "ContextSet.v1": ContextSet,
    "MetadataSet.v1": MetadataSet,
    "RouteEntered.v1": RouteEntered,
    "RouteExited.v1": RouteExited,
    "StepEntered.v1": StepEntered,
    "TransitionPlanned.v1": TransitionPlanned,
    "TransitionCancelled.v1": TransitionCancelled,
    "ToolCalled.v1": ToolCalled,
    "ToolReturned.v1": ToolReturned,
    "RunStarted.v1": RunStarted,
    "RunFinished.v1": RunFinished,
    "StatusChanged.v1": StatusChanged,
    "SessionDeleted.v1": SessionDeleted,
}
"""Stored topic → class, for the newest schema of every event. Nothing else is ever decoded, and nothing is imported."""
