"""Following a store's log: ``store.subscribe()``.

It is an iterator that waits. Who must not wait there takes what is there (``ready``) and waits elsewhere (``wait``).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from threading import Event as Flag
from types import TracebackType
from typing import Self

from turnlog import inputs
from turnlog.decider import Decider
from turnlog.domain.errors import InvalidInput, StoreUnavailable, TurnlogError
from turnlog.domain.recorder import Recorder
from turnlog.domain.upcasting import Registry
from turnlog.domain.values import RecordedEvent

WAIT_S = 0.25
"""How long one wait lasts before a subscription looks whether it was closed."""


class Subscription:
    """An iterator over events, past ones first, that waits at the log's head until it is closed; for one thread."""

    def __init__(
        self,
        recorder: Recorder,
        read: Callable[[int, int], Iterator[RecordedEvent]],
        after: int,
        store_closed: Flag,
    ) -> None:
        self._recorder = recorder
        self._read = read
        self._store_closed = store_closed
        self._closed = Flag()
        self._page: Iterator[RecordedEvent] = iter(())
        self.position = after
        """The log's position up to which everything was given out (or did not match)."""

    def __iter__(self) -> "Subscription":
        return self

    def __next__(self) -> RecordedEvent:
        while not self.is_over:
            for event in self.ready(1):
                return event
            self.wait(WAIT_S)
        raise StopIteration

    @property
    def is_over(self) -> bool:
        """Whether it was closed, or the store was."""
        return self._closed.is_set() or self._store_closed.is_set()

    def ready(self, limit: int) -> list[RecordedEvent]:
        """Return the next events, at most ``limit``, without waiting; none at the log's head, and none once it is over.

        ``position`` is then that of the last of them.
        """
        found: list[RecordedEvent] = []
        try:
            while not self.is_over and not found:
                found = self._take(limit)
                if not found and not self._look_further():
                    break
        except StoreUnavailable:
            if not self.is_over:
                raise
        if found:
            self.position = found[-1].position
        return found

    def wait(self, timeout_s: float) -> bool:
        """Wait at the log's head for news; return whether there is any. At most ``timeout_s``."""
        try:
            return not self.is_over and self._recorder.wait_for_news(self.position, timeout_s)
        except StoreUnavailable:
            if self.is_over:
                return False
            raise

    def _take(self, limit: int) -> list[RecordedEvent]:
        """Return what the page still has; what stands before an event that cannot be read is given out before that."""
        found: list[RecordedEvent] = []
        try:
            for event in islice(self._page, limit):
                found.append(event)  # noqa: PERF402 - list.extend would lose what came before an error
        except TurnlogError:
            if not found:
                raise
        return found

    def _look_further(self) -> bool:
        """Begin with what was written meanwhile, if anything was."""
        head = self._recorder.position()
        if head <= self.position:
            return False
        self._page = self._through(head)
        return True

    def _through(self, head: int) -> Iterator[RecordedEvent]:
        yield from self._read(self.position, head)
        self.position = head

    def close(self) -> None:
        """End the iteration, from any thread."""
        self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def topics_of(types: Sequence[str | type] | None, registry: Registry) -> tuple[str, ...]:
    """Return the topics, of every schema, of the given event classes or names; none given: all (an empty tuple)."""
    if types is None:
        return ()
    if not inputs.sequence("types", types):
        raise InvalidInput("types", "expected at least one, or None for all")
    known = (*registry.newest, *registry.older)
    found: list[str] = []
    for item in types:
        name = item if isinstance(item, str) else getattr(item, "__name__", repr(item))
        topics = [topic for topic in known if topic.rpartition(".")[0] == name]
        if not topics:
            raise InvalidInput("types", f"expected event classes or their names, got {name!r:.100}")
        found += topics
    return tuple(found)


class Owners:
    """Tells which streams a user may see, remembering what it has looked up."""

    def __init__(self, decider: Decider, user_id: str | None) -> None:
        self._decider = decider
        self._user = user_id
        self._known: dict[str, bool] = {}

    def sees(self, stream: str) -> bool:
        """Return whether the stream is this user's (everybody's, where no user is set)."""
        if self._user is None:
            return True
        if stream not in self._known:
            state = self._decider.load(stream.partition("/")[2]).state
            self._known[stream] = state.user_id == self._user
        return self._known[stream]
