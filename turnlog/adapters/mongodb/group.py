"""How a recorder on MongoDB appends: alone or, who would have to wait, together with other threads of the process.

Together is one journey and one wait for the journal; each append stays a document of its own, whole by itself. One
thread writes at a time: two would race for the same number.
"""

from collections.abc import Sequence
from functools import partial

from turnlog.adapters.attempt import Lost, Undone, appended
from turnlog.adapters.grouping import Grouping, Request, Take
from turnlog.adapters.mongodb import documents
from turnlog.adapters.mongodb.documents import Document
from turnlog.adapters.mongodb.head import Head
from turnlog.adapters.mongodb.writing import Appending
from turnlog.domain.errors import InvalidInput, OutcomeUnknown, StoreUnavailable
from turnlog.domain.recorder import Again, Batch


class Appends:
    """Appends of one recorder."""

    def __init__(self, log: Appending, head: Head, timeout_s: float) -> None:
        self._log = log
        self._head = head
        self._timeout_s = timeout_s
        self._grouping = Grouping(self._together, timeout_s, ways=1)

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Commit ``batches``, see ``Recorder``; what takes a transaction goes alone."""
        if len(batches) != 1 or any(batch.erase for batch in batches):
            return self._alone(batches, again)
        return self._grouping.alone_or_together(self._alone, batches, again)

    def _alone(self, batches: Sequence[Batch], again: Again, *, doubtful: bool = False) -> list[int]:
        """``doubtful``: the documents may be there already."""
        return appended(self._log, batches, again, timeout_s=self._timeout_s, doubtful=doubtful)

    def _together(self, take: Take) -> None:
        with self._log.turn:
            requests = take()
            left, doubtful = self._written(requests)
        for request in left:
            request.write_by(partial(self._alone, doubtful=doubtful))
            if isinstance(request.error, StoreUnavailable | OutcomeUnknown):
                _tell_all(left, request.error)
                return

    def _written(self, requests: Sequence[Request]) -> tuple[list[Request], bool]:
        """Write what fits; return what is left to be written alone, and whether it may be there already."""
        waiting: list[tuple[Request, Document]] = []
        left: list[Request] = []
        for request in requests:
            made = _only(request)
            if made is None or any(made["stream"] == other["stream"] for _, other in waiting):
                left.append(request)
            else:
                waiting.append((request, made))
        while len(waiting) > 1:
            try:
                with self._log.translating():
                    n, positions = self._head.append_all([made for _, made in waiting])
            except Undone:
                break
            except (Lost, StoreUnavailable):
                return [*(request for request, _ in waiting), *left], True
            for (request, _), position in zip(waiting, positions, strict=False):
                request.positions = [position]
            left += [request for request, _ in waiting[n : n + 1]]  # it does not fit
            waiting = waiting[n + 1 :]
        return [*(request for request, _ in waiting), *left], False


def _only(request: Request) -> Document | None:
    """Return the one document that a request's append is, with events in it; or nothing."""
    try:
        made = documents.of_batches(request.batches)
    except InvalidInput:
        return None
    return made[0] if len(made) == 1 and "events" in made[0] else None


def _tell_all(requests: Sequence[Request], error: Exception) -> None:
    """What is wrong with the server is found out once, and told to all that follow."""
    for request in requests:
        if request.positions is None:
            request.error = request.error or error
