"""How a blocking store is used from an event loop: each call is made in a thread of a bounded pool, and waited for.

A call that has begun is always finished: a task that is cancelled meanwhile gets its ``CancelledError`` when the call
is over, so that what it did is known. A call that no thread has taken up yet is not made at all.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent import futures
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from contextvars import copy_context
from copy import copy
from functools import partial
from threading import Event as Flag
from time import monotonic
from types import TracebackType
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar

from turnlog import inputs
from turnlog.domain.errors import StoreUnavailable
from turnlog.domain.values import RebuildProgress, Receipt
from turnlog.followed import Stop

LOOK_S = 0.25
"""How long one wait lasts before it is looked whether the application's flag is set."""
MAX_THREADS = 16
"""As many calls of one store are made at the same time, if nothing else is said."""
MOST_LENDING = 10_000
"""More connections than an application lends at one time."""

P = ParamSpec("P")
T = TypeVar("T")
Progress = Callable[[RebuildProgress], object]
_log = logging.getLogger("turnlog")


class Threads:
    """The threads of one store. They are started when they are needed; for use from one event loop."""

    def __init__(self, max_threads: int) -> None:
        threads = inputs.number("max_threads", max_threads, least=1)
        self._pool = futures.ThreadPoolExecutor(threads, thread_name_prefix="turnlog")
        self._lending = futures.ThreadPoolExecutor(MOST_LENDING, thread_name_prefix="turnlog")
        self._lent: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        self._is_closed = False
        self._first: set[futures.Future[Any]] = set()
        self._told: set[asyncio.Task[None]] = set()

    def lending(self, lent: Callable[[], AbstractAsyncContextManager[None]]) -> Self:
        """Return what makes calls on a connection of the application's, each while that is lent.

        In threads beside the others: those may all be taken by calls that wait for the connection's transaction to end.
        """
        part = copy(self)
        part._lent, part._pool = lent, self._lending  # noqa: SLF001 - it is one of these
        return part

    async def finish(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call in a thread and return its result; once begun, it is waited for whatever happens."""
        return await self.finish_or_undo(partial(call, *args, **kwargs))

    async def finish_or_undo(
        self,
        call: Callable[[], T],
        *,
        undo: Callable[[T], object] | None = None,
        stop: Callable[[], object] | None = None,
    ) -> T:
        """Make a call as ``finish`` does, with what to do should the task be cancelled after it has begun.

        ``stop`` asks the call to end early; ``undo`` gets a result that nobody will receive.
        """
        for first in tuple(self._first):
            await _over(first)
        async with self._lent():
            return await self._finished(call, undo, stop)

    async def _finished(
        self, call: Callable[[], T], undo: Callable[[T], object] | None, stop: Callable[[], object] | None
    ) -> T:
        job = self._submit(call)
        cancelled: asyncio.CancelledError | None = None
        is_over = False
        while not is_over:  # awaits once at least, also what is done already: what it told the loop comes first
            try:
                await _over(job)
                is_over = True
            except asyncio.CancelledError as error:
                if job.cancel():
                    raise
                cancelled = error
                if stop is not None:
                    stop()
        if cancelled is None:
            return job.result()
        if undo is not None and job.exception() is None:
            await to_the_end(self._finished(partial(undo, job.result()), None, None))
        raise cancelled

    def begin(self, call: Callable[[], T]) -> "futures.Future[T]":
        """Make a call that every later one waits for."""
        job = self._submit(call)
        self._first.add(job)
        job.add_done_callback(self._first.discard)
        return job

    async def stoppable(self, call: Callable[[Progress], T], progress: Progress | None) -> T:
        """Make a long call that tells its progress; where the task is cancelled, it is interrupted when it does."""
        stop, loop = Flag(), asyncio.get_running_loop()

        def tell(reached: RebuildProgress) -> None:
            if stop.is_set():
                raise _Stopped
            if progress is not None:
                _on(loop, partial(progress, reached))

        return await self.finish_or_undo(partial(call, tell), stop=stop.set)

    async def until(
        self,
        call: Callable[[Stop, Callable[[T], object] | None], None],
        stop: Stop | None,
        told: Callable[[T], object] | None,
    ) -> None:
        """Make a call that goes on until ``stop`` is set or the task is cancelled; ``told`` is called on the loop."""
        end, loop = _Until(stop), asyncio.get_running_loop()

        def tell(what: T) -> None:
            if told is not None:
                _on(loop, partial(told, what))

        await self.finish_or_undo(partial(call, end, tell), stop=end.set)

    def telling(self, callback: Callable[[Receipt], object]) -> Callable[[Receipt], object]:
        """Return what tells ``callback`` of a receipt on the event loop, from whichever thread."""
        loop = asyncio.get_running_loop()

        def start(receipt: Receipt) -> None:
            task = loop.create_task(_tell(callback, receipt))
            self._told.add(task)
            task.add_done_callback(self._told.discard)

        return lambda receipt: loop.call_soon_threadsafe(start, receipt)

    async def close(self, last: Callable[[], object]) -> None:
        """Make a last call, whatever happens, and let the threads end when they have done what they are at."""
        if not self._is_closed:
            self._is_closed = True
            try:
                await to_the_end(self.finish(last))
            finally:
                self._pool.shutdown(wait=False)
                self._lending.shutdown(wait=False)

    def _submit(self, call: Callable[[], T]) -> "futures.Future[T]":
        try:
            return self._pool.submit(copy_context().run, call)
        except RuntimeError as error:
            raise StoreUnavailable("the store is closed") from error


class _Stopped(BaseException):
    """Interrupts a long call, whose task was cancelled; no projection takes it for an error of its own."""


class _Until:
    """Set as soon as the application's flag is, if it has one, or the task was cancelled."""

    def __init__(self, given: Stop | None) -> None:
        self._given, self._cancelled = given, Flag()
        self.set = self._cancelled.set

    def is_set(self) -> bool:
        return self._cancelled.is_set() or (self._given is not None and self._given.is_set())

    def wait(self, timeout: float) -> None:
        deadline = monotonic() + timeout
        while not self.is_set() and (left_s := deadline - monotonic()) > 0:
            self._cancelled.wait(min(left_s, LOOK_S))


class Closable(Protocol):
    """What is opened."""

    async def close(self) -> None:
        """Release everything."""
        ...


S = TypeVar("S", bound=Closable)


class Opening(Generic[S]):
    """A store that is being opened: ``await`` it, or enter it with ``async with``, which closes it at the end."""

    def __init__(self, opened: Callable[[], Coroutine[Any, Any, S]]) -> None:
        self._opened = opened
        self._store: S | None = None

    def __await__(self) -> Generator[Any, None, S]:
        return self._opened().__await__()

    async def __aenter__(self) -> S:
        self._store = await self._opened()
        return self._store

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._store is not None:
            await to_the_end(self._store.close())


async def to_the_end(awaited: Coroutine[Any, Any, T]) -> T:
    """Await what must not stop half-way; a ``CancelledError`` that comes meanwhile is raised when it is over."""
    task = asyncio.ensure_future(awaited)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None or task.cancelled():
        return task.result()
    raise cancelled from task.exception()


async def _over(job: "futures.Future[Any]") -> None:
    """Wait until a job is over, however it ended. Being cancelled does nothing to the job."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object) -> None:
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_wake, waiter)

    job.add_done_callback(wake)
    await waiter


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _on(loop: asyncio.AbstractEventLoop, call: Callable[[], T]) -> T:
    """Make a call on the event loop, from another thread, and wait for its result."""
    done: futures.Future[T] = futures.Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            done.set_exception(error)

    loop.call_soon_threadsafe(run)
    return done.result()


async def _tell(callback: Callable[[Receipt], object], receipt: Receipt) -> None:
    try:
        found: object | Awaitable[object] = callback(receipt)
        if inspect.isawaitable(found):
            await found
    except Exception:  # noqa: BLE001 - whatever it is, it is not the writer's
        _log.exception("an on_committed callback failed; the write stands")
