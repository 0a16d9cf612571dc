"""A store that fails, is slow, repeats itself or dies, at the call one names: to see what an agent makes of it."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from turnlog.adapters.connect import connect
from turnlog.domain.errors import OutcomeUnknown, StoreError, StoreUnavailable
from turnlog.domain.recorder import Recorder
from turnlog.projections.backend import Backend

P = ParamSpec("P")
T = TypeVar("T")
METHODS = (
    "append",
    "position",
    "select_all_keys",
    "select_keys",
    "select_log",
    "select_snapshot",
    "select_stream",
    "select_versions",
)
"""The calls of a recorder that can be made to fail: ``append`` writes, the others read."""


class Crashed(BaseException):
    """The process died here, as far as the store knows. No ``except Exception`` stops it."""


class Faults:
    """What is to go wrong, and when; ``calls`` counts the calls of each method so far.

    Every fault is of one method of the recorder (see ``METHODS``) and happens once, at the ``at``-th call counted from
    when the fault is named.

    Args:
        sleep: how time passes in a delay; ``clock.advance`` makes it pass for the store alone.
    """

    def __init__(self, sleep: Callable[[float], object] = time.sleep) -> None:
        self.calls: Counter[str] = Counter()
        self.has_crashed = False
        self._sleep = sleep
        self._lock = threading.Lock()
        self._planned: dict[tuple[str, int], Callable[[Callable[[], Any]], Any]] = {}

    def fail(self, method: str, *, at: int = 1, error: StoreError | None = None) -> None:
        """Have it do nothing and raise ``error``, or else ``StoreUnavailable``."""

        def failing(_: Callable[[], T]) -> T:
            raise error or StoreUnavailable(f"{method} was made to fail")

        self._plan(method, at, failing)

    def lose_answer(self, method: str = "append", *, at: int = 1) -> None:
        """Have it done, and then raise ``OutcomeUnknown``, as when a connection dies during the commit."""

        def losing(call: Callable[[], T]) -> T:
            call()
            raise OutcomeUnknown(f"the answer of {method} was made to get lost")

        self._plan(method, at, losing)

    def delay(self, method: str, seconds: float, *, at: int = 1) -> None:
        """Have it take so long."""

        def delayed(call: Callable[[], T]) -> T:
            self._sleep(seconds)
            return call()

        self._plan(method, at, delayed)

    def duplicate(self, method: str = "append", *, at: int = 1) -> None:
        """Have it done twice, as when a request is sent again whose answer got lost; the second answer is returned."""

        def twice(call: Callable[[], T]) -> T:
            call()
            return call()

        self._plan(method, at, twice)

    def crash(self, method: str, *, at: int = 1, done: bool = False, kill: bool = False) -> None:
        """End the process before it is done, or when it is ``done`` and nobody was told.

        Only the store ends: ``Crashed`` is raised there, and by every later call, until a store is opened anew. With
        ``kill`` this very process gets SIGKILL, for tests that watch it from another.
        """

        def crashing(call: Callable[[], T]) -> T:
            if done:
                call()
            if kill:
                os.kill(os.getpid(), signal.SIGKILL)
            self.has_crashed = True
            raise Crashed(f"{'after' if done else 'before'} {method}")

        self._plan(method, at, crashing)

    def of(self, method: str, call: Callable[P, T]) -> Callable[P, T]:
        """Return ``call`` as it behaves with these faults."""

        @wraps(call)
        def faulty(*args: P.args, **kwargs: P.kwargs) -> T:
            with self._lock:
                self.calls[method] += 1
                fault = self._planned.pop((method, self.calls[method]), None)
            if self.has_crashed:
                raise Crashed(f"{method}, after the crash")
            if fault is None:
                return call(*args, **kwargs)
            result: T = fault(lambda: call(*args, **kwargs))
            return result

        return faulty

    def _plan(self, method: str, at: int, fault: Callable[[Callable[[], Any]], Any]) -> None:
        if method not in METHODS or at < 1:
            raise ValueError(f"expected one of {', '.join(METHODS)} and a call from 1 on, got {method!r}, {at!r}")
        with self._lock:
            self._planned[method, self.calls[method] + at] = fault


class FaultyRecorder:
    """A recorder with faults, for one's own ``Backend``; what ``close`` and upkeep do is never faulty."""

    def __init__(self, recorder: Recorder, faults: Faults) -> None:
        of = faults.of
        self._recorder = recorder
        self.durability = recorder.durability
        self.append = of("append", recorder.append)
        self.select_stream = of("select_stream", recorder.select_stream)
        self.select_log = of("select_log", recorder.select_log)
        self.select_keys = of("select_keys", recorder.select_keys)
        self.select_all_keys = of("select_all_keys", recorder.select_all_keys)
        self.select_snapshot = of("select_snapshot", recorder.select_snapshot)
        self.select_versions = of("select_versions", recorder.select_versions)
        self.position = of("position", recorder.position)
        self.streams, self.visible = recorder.streams, recorder.visible
        self.wait_for_news = recorder.wait_for_news
        self.check, self.size_bytes = recorder.check, recorder.size_bytes
        self.lingering, self.scrub = recorder.lingering, recorder.scrub
        self.close = recorder.close

    @property
    def expires(self) -> bool:
        """Whether a session's time may be over; see ``Recorder``."""
        return self._recorder.expires


def faulty(url: str | Backend, faults: Faults, *, durability: str = "full", **options: Any) -> Backend:
    """Return the backend of a URL with faults in it, for ``turnlog.open`` or ``turnlog.aio.open``.

    Args:
        url: what ``turnlog.open`` takes.
        faults: may be named before or after the store is opened, which makes calls of its own.
        durability: as of ``turnlog.open``.
        options: those of the backend, as of ``turnlog.open``.
    """
    backend = connect(url, durability=durability, engine=None, options=options)
    if options:
        backend.recorder.close()
        raise ValueError(f"{next(iter(options))} is not an option of the backend")
    return backend._replace(recorder=FaultyRecorder(backend.recorder, faults), using=None)
