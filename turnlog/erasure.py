"""Erasing: the tombstone, and the destruction of everything a session held, in one transaction."""

from collections.abc import Sequence

from turnlog.decider import Decider, Loaded, Plan, Said
from turnlog.domain.commands import DeleteSession
from turnlog.domain.errors import SessionGone
from turnlog.domain.recorder import Batch, Reader


def erase(decider: Decider, sessions: Sequence[Loaded], said: Said | None = None) -> list[Plan]:
    """Delete the sessions, all or none, and destroy their content; those deleted meanwhile are left out.

    Returns a plan for each session deleted, in order.

    Raises:
        SessionGone: there was one, and it was already deleted.
    """
    said = said or Said(DeleteSession(), DeleteSession())
    plans: list[Plan] = []

    def batches(reader: Reader) -> Sequence[Batch]:
        plans.clear()
        for known in sessions:
            loaded = decider.load(known.state.id, known, reader)
            try:
                plans.append(decider.plan(reader, loaded, (said,)))
            except SessionGone:
                if len(sessions) == 1:
                    raise
        return [plan.batch._replace(erase=True, keys=(), snapshot=None) for plan in plans]

    first = batches(decider.recorder)
    if first:
        decider.recorder.append(first, batches)
    return plans
