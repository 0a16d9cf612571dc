"""The port through which operations are watched: how long they took, how far they came. See ``turnlog.telemetry``.

Where nobody watches (``UNWATCHED``) an append is the recorder's own method, and anything else costs a fraction of a
microsecond.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Concatenate, Literal, ParamSpec, Protocol, TypeAlias, TypeVar

from turnlog.domain.recorder import Again, Batch, Recorder
from turnlog.domain.values import RebuildProgress, ViewStatus

Append: TypeAlias = Callable[[Sequence[Batch], Again], list[int]]
Facts: TypeAlias = dict[str, int | str]
"""What is known of an operation: numbers, and names of views and queries; never an id or content."""
Operation: TypeAlias = Literal["append", "load", "query", "catch_up", "rebuild", "rebuild_page"]
P = ParamSpec("P")
T = TypeVar("T")


class Watch(Protocol):
    """Is told of operations."""

    def appending(self, recorder: Recorder) -> Append:
        """Return the recorder's ``append`` as it is to be called."""
        ...

    def doing(self, what: Operation, **facts: int | str) -> AbstractContextManager[Facts]:
        """Surround an operation; what becomes known meanwhile is added to the facts."""
        ...

    def reached(self, progress: RebuildProgress) -> None:
        """Take note of how far a rebuild is."""
        ...

    def follow(self, status: Callable[[], Iterable[ViewStatus]]) -> None:
        """Ask ``status`` from time to time how far behind the log the views are."""
        ...


class Unwatched:
    """Nobody watches."""

    def appending(self, recorder: Recorder) -> Append:
        """Return the method itself."""
        return recorder.append

    def doing(self, what: Operation, **facts: int | str) -> AbstractContextManager[Facts]:
        """Do nothing."""
        del what
        return nullcontext(facts)

    def reached(self, progress: RebuildProgress) -> None:
        """Do nothing."""

    def follow(self, status: Callable[[], Iterable[ViewStatus]]) -> None:
        """Do nothing."""


UNWATCHED = Unwatched()


class Watched(Protocol):
    """Something whose operations are watched."""

    @property
    def watch(self) -> Watch:
        """Who is told."""
        ...


W = TypeVar("W", bound=Watched)


def watched(
    what: Operation, **facts: int | str
) -> Callable[[Callable[Concatenate[W, P], T]], Callable[Concatenate[W, P], T]]:
    """Have every call of a method watched."""

    def decorate(method: Callable[Concatenate[W, P], T]) -> Callable[Concatenate[W, P], T]:
        @wraps(method)
        def call(self: W, /, *args: P.args, **kwargs: P.kwargs) -> T:
            with self.watch.doing(what, **facts):
                return method(self, *args, **kwargs)

        return call

    return decorate
