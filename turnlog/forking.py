"""Forking: a session that begins as a copy of another's events."""

from os import urandom

import msgspec
from msgspec.structs import replace

from turnlog.decider import Decider
from turnlog.domain import events as e
from turnlog.domain.chain import genesis
from turnlog.domain.envelope import NewEvent, seal
from turnlog.domain.errors import SessionGone
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Batch, SnapshotRow
from turnlog.domain.session import FOLD_REVISION, fold, initial
from turnlog.domain.values import SessionState


def fork_batch(decider: Decider, source: SessionState, session_id: str, version: int) -> Batch:
    """Return the append that makes ``session_id`` a copy of ``source`` at ``version``: active, and its owner's of now.

    New event ids; same message ids; what occurred keeps its time; each event's causation is its source event. Keys of
    messages come along, so that a message said to both is still written once.

    Raises:
        SessionGone: the source was deleted meanwhile.
    """
    origin, stream = decider.stream(source.id), decider.stream(session_id)
    rows = decider.recorder.select_stream(origin, upto=version)
    events = [_copied(decider, row, source.id, version) for row in rows]
    now = decider.now(decider.nothing(session_id).state)
    state = fold(initial(decider.tenant, session_id), ((new.event, now) for new in events))
    if state.status != "active":
        events.append(_new(decider, "StatusChanged.v1", e.StatusChanged(status="active", reason="fork")))
    if source.user_id is not None and state.user_id != source.user_id:
        events.append(_new(decider, "OwnerAssigned.v1", e.OwnerAssigned(user_id=source.user_id)))
    state = fold(state, ((new.event, now) for new in events[len(rows) :]))
    salt, n = urandom(16), len(events)
    previous = genesis(salt, stream)
    stored: list[tuple[int, str, bytes]] = []
    for i, new in enumerate(events, 1):
        placed = replace(
            new,
            originator_id=stream,
            originator_version=i,
            recorded_at=now,
            turn=(i, n),
            previous=previous,
            genesis=salt if i == 1 else None,
        )
        sealed, previous = seal(placed)
        stored.append((i, placed.topic, sealed))
    keys = [key for key in decider.recorder.select_all_keys(origin) if key.kind == "message" and key.version <= version]
    snapshot = SnapshotRow(state.version, FOLD_REVISION, previous, msgspec.json.encode(state))
    return Batch(stream, stored, keys, snapshot)


def _copied(decider: Decider, row: StreamRow, source: str, version: int) -> NewEvent:
    recorded = decider.codec.recorded((row[0], decider.stream(source), *row[1:]))
    event = recorded.event
    if isinstance(event, e.Erased):
        raise SessionGone(f"session {source!r} was deleted")
    if isinstance(event, e.SessionStarted):
        event = replace(event, forked_from=e.ForkPoint(session_id=source, version=version))
    new = _new(decider, decider.codec.topics[type(event)], event)
    return replace(
        new,
        occurred_at=recorded.occurred_at,
        actor=recorded.actor,
        correlation_id=recorded.correlation_id,
        causation_id=recorded.event_id,
    )


def _new(decider: Decider, topic: str, event: e.Event) -> NewEvent:
    """Return an event whose place is not known yet."""
    unplaced = decider.now(decider.nothing("").state)
    return NewEvent("", 0, topic, event, decider.new_id(), unplaced, None, (1, 1), b"", urandom(16))
