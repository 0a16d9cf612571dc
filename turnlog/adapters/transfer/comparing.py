"""Comparing imported conversations with what their lines say of the outcome (docs/import-format.md)."""

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, UnsetType

from turnlog.adapters.transfer.neutral import OPEN, Conversation, FinalState, versions_after
from turnlog.domain.events import Json, MessageAdded, StepEntered
from turnlog.domain.session import same_json
from turnlog.domain.values import RecordedEvent, SessionState
from turnlog.session import Session
from turnlog.store import ConversationStore


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as its line says; ``what`` names it, as ``final_state.data``."""

    file: str
    line: int
    conversation_id: str
    what: str
    expected: Json
    found: Json


def compare(store: ConversationStore, conversation: Conversation, version: int, file: str, line: int) -> list[Mismatch]:
    """Fold the conversation, which ends at ``version``, from the store; return what is not as its line says."""
    session = store.get(conversation.conversation_id)
    return [
        Mismatch(
            file=file,
            line=line,
            conversation_id=conversation.conversation_id,
            what=what,
            expected=expected,
            found=found,
        )
        for what, expected, found in _facts(session, conversation, version)
        if not _same(what, expected, found)
    ]


def branches_of(events: list[RecordedEvent]) -> list[list[str]]:
    """Return the root-to-leaf paths of message ids that the ``parent_id`` in the messages' metadata make."""
    said = [event.event for event in events if isinstance(event.event, MessageAdded)]
    ids = {message.message_id for message in said}
    parents = {message.message_id: _parent_of(message) for message in said}
    inner = set(parents.values())
    leaves = [message_id for message_id in parents if message_id not in inner]
    paths: list[list[str]] = []
    for leaf in leaves:
        path = [leaf]
        while (parent := parents[path[-1]]) in ids and parent not in path:
            path.append(parent)
        paths.append(path[::-1])
    return paths


def _parent_of(message: MessageAdded) -> str | None:
    parent = (message.metadata or {}).get("parent_id")
    return parent if isinstance(parent, str) else None


def _facts(session: Session, conversation: Conversation, version: int) -> Iterator[tuple[str, Json, Json]]:
    """Yield what is to be compared: its name, what the line says, and what the store says."""
    versions = versions_after(conversation)
    yield "version", versions[-1], version
    checkpoint, final = conversation.checkpoint, conversation.final_state
    if checkpoint is not None and not 0 <= checkpoint.event_count <= len(conversation.events):
        yield "checkpoint.event_count", checkpoint.event_count, len(conversation.events)
    elif checkpoint is not None:
        state = session.at(version=versions[checkpoint.event_count])
        yield "checkpoint.data", checkpoint.data, state.data
    if final is not None:
        events = [event for event in session.events() if event.version <= version]
        for name, expected, found in _outcome(final, session.at(version=version), events):
            if not isinstance(expected, UnsetType):
                yield f"final_state.{name}", expected, found


def _outcome(final: FinalState, state: SessionState, events: list[RecordedEvent]) -> Iterator[tuple[str, Json, Json]]:
    yield "data", final.data, state.data
    yield "route", final.route, state.current_route
    # turnlog clears the step when a route is entered, the neutral form does not: so the last one entered is compared
    yield "step", final.step, next((e.event.step for e in reversed(events) if isinstance(e.event, StepEntered)), None)
    yield "message_count", final.message_count, state.message_count
    yield "tool_call_count", final.tool_call_count, state.tool_call_count
    yield "status", final.status, OPEN if state.status == "active" else state.status
    yield "branches", final.branches, UNSET if final.branches is UNSET else branches_of(events)


def _same(what: str, expected: Json, found: Json) -> bool:
    if what == "final_state.branches":
        return sorted(expected) == sorted(found)
    return same_json(expected, found)
