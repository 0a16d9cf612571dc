"""Erasing: the tombstone, and the destruction of everything a session held, in one transaction.

What cannot be read can be erased all the same: a tombstone stands on the last event's header.
"""

from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from turnlog.decider import Decider, Loaded, Plan
from turnlog.domain.commands import DeleteSession
from turnlog.domain.envelope import header_of
from turnlog.domain.errors import CorruptLog, SessionGone, UnknownEvent
from turnlog.domain.events import OwnerAssigned, SessionStarted
from turnlog.domain.recorder import Batch, Reader
from turnlog.domain.session import initial
from turnlog.saying import Said


def erase(decider: Decider, sessions: Sequence[Loaded], said: Said | None = None) -> list[Plan]:
    """Delete the sessions, all or none, and destroy their content; those deleted meanwhile are left out.

    Returns a plan for each session deleted, in order.
    """
    said = said or Said(DeleteSession(), DeleteSession())
    plans: list[Plan] = []

    def batches(reader: Reader) -> Sequence[Batch]:
        plans.clear()
        for known in sessions:
            loaded = load_to_erase(decider, known.state.id, known, reader)
            with suppress(SessionGone):
                plans.append(decider.plan(reader, loaded, (said,)))
        return [plan.batch._replace(erase=True, keys=(), snapshot=None) for plan in plans]

    first = batches(decider.recorder)
    if first:
        decider.append(first, batches)
    return plans


def load_to_erase(
    decider: Decider, session_id: str, known: Loaded | None = None, reader: Reader | None = None
) -> Loaded:
    """Return the session as it is now; of one that cannot be read, who owns it and what a tombstone stands on.

    Raises:
        CorruptLog: not even the header of its last event can be read.
    """
    try:
        return decider.load(session_id, known, reader)
    except (UnknownEvent, CorruptLog):
        rows = (reader or decider.recorder).select_stream(decider.stream(session_id), desc=True, limit=1)
        if not rows:
            raise
        last = header_of(rows[0][3])
        state = replace(
            initial(decider.tenant, session_id),
            user_id=_owner(decider, session_id),
            deleted=rows[0][2].startswith("SessionDeleted."),
            updated_at=last.recorded_at,
            version=last.version,
        )
        return Loaded(state, last.hash)


def _owner(decider: Decider, session_id: str) -> str | None:
    """Return whom the last event that can be read, of those that tell the owner, tells."""
    owner = None
    for _, _, topic, state in decider.recorder.select_stream(decider.stream(session_id)):
        if topic.startswith(("SessionStarted.", "OwnerAssigned.")):
            try:
                event = decider.codec.event(topic, state)
            except (UnknownEvent, CorruptLog):
                continue
            if isinstance(event, (SessionStarted, OwnerAssigned)):
                owner = event.user_id
    return owner
