"""Appends of several threads in one transaction of a server's: if it does not fit all of them, each goes by itself."""

from collections.abc import Callable, Sequence
from functools import partial

from turnlog.adapters.attempt import Broken, Log, Lost, Taken, Undone, appended
from turnlog.adapters.grouping import Grouping, Request, Take
from turnlog.domain.errors import OutcomeUnknown, StoreUnavailable
from turnlog.domain.recorder import Again, Batch


class Appends:
    """How a recorder on a server appends: alone or, who would have to wait, together with other threads.

    Args:
        ways: as many append alone at the same time.
    """

    def __init__(self, log: Log, timeout_s: float, *, ways: int) -> None:
        self._log = log
        self.timeout_s = timeout_s
        self.grouping = Grouping(self.together, timeout_s, ways=ways)

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Commit ``batches``, see ``Recorder``; who erases holds what others need, and goes alone."""
        if any(batch.erase for batch in batches):
            return self._alone(batches, again)
        return self.grouping.alone_or_together(self._alone, batches, again)

    def together(self, take: Take) -> None:
        """Commit appends of several threads, those of different streams together.

        Streams are written in the order of their names: two groups that have some in common cannot wait for each other.
        """
        joined, rest = _parted(self._log, take())
        doubtful = False
        if len(joined) > 1:
            batches = sorted((batch for request in joined for batch in request.batches), key=lambda batch: batch.stream)
            try:
                with self._log.translating():
                    last = self._log.write(batches)
            except (Taken, Undone, Broken):
                pass
            except Lost:
                doubtful = True
            else:
                positions = {batch.stream: position for batch, position in zip(batches, last, strict=True)}
                for request in joined:
                    request.positions = [positions[batch.stream] for batch in request.batches]
                joined = []
        _write_each(joined, partial(self._alone, doubtful=doubtful))
        _write_each(rest, self._alone)

    def _alone(self, batches: Sequence[Batch], again: Again, *, doubtful: bool = False) -> list[int]:
        """``doubtful``: the rows may be there already."""
        return appended(self._log, batches, again, timeout_s=self.timeout_s, doubtful=doubtful)


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


def _write_each(requests: Sequence[Request], alone: Callable[[Sequence[Batch], Again], list[int]]) -> None:
    """Write one after the other; what is wrong with the server is found out once, and told to all that follow."""
    error: Exception | None = None
    for request in requests:
        if error is None:
            request.write_by(alone)
            if isinstance(request.error, StoreUnavailable | OutcomeUnknown):
                error = request.error
        else:
            request.error = error
