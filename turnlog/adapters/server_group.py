"""Appends of several threads in one transaction of a server's: if it does not fit all of them, each goes by itself."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from turnlog.adapters.attempt import Broken, Log, Lost, Taken, Undone
from turnlog.adapters.grouping import Request, Take
from turnlog.domain.errors import OutcomeUnknown, StoreUnavailable
from turnlog.domain.recorder import Again, Batch


class Alone(Protocol):
    """What writes one append; ``doubtful``: its rows may be there already."""

    def __call__(self, batches: Sequence[Batch], again: Again, *, doubtful: bool) -> list[int]:
        """Return the positions."""
        ...


def write_together(log: Log, alone: Alone, take: Take) -> None:
    """Write appends, those of different streams together.

    Streams are written in the order of their names: two groups that have some in common cannot wait for each other.
    """
    joined, rest = _parted(log, take())
    doubtful = False
    if len(joined) > 1:
        batches = sorted((batch for request in joined for batch in request.batches), key=lambda batch: batch.stream)
        try:
            positions = dict(zip((batch.stream for batch in batches), log.write(batches), strict=True))
        except (Taken, Undone, Broken):
            pass
        except Lost:
            doubtful = True
        else:
            for request in joined:
                request.positions = [positions[batch.stream] for batch in request.batches]
            joined = []
    _write_each(joined, partial(alone, doubtful=doubtful))
    _write_each(rest, partial(alone, doubtful=False))


def _parted(log: Log, requests: Sequence[Request]) -> tuple[list[Request], list[Request]]:
    """Return the requests that have no stream in common, and the others, which would not fit beside them."""
    joined: list[Request] = []
    rest: list[Request] = []
    streams: set[str] = set()
    for request in requests:
        its = {batch.stream for batch in request.batches}
        if not its or its & streams or log.queues(request.batches):
            rest.append(request)
        else:
            joined.append(request)
            streams |= its
    return joined, rest


def _write_each(requests: Sequence[Request], alone: "partial[list[int]]") -> None:
    """Write one after the other; what is wrong with the server is found out once, and told to all that follow."""
    error: Exception | None = None
    for request in requests:
        if error is None:
            request.write_by(alone)
            if isinstance(request.error, StoreUnavailable | OutcomeUnknown):
                error = request.error
        else:
            request.error = error
