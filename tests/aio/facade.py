"""A blocking façade over `turnlog.aio` and psycopg, so that the tests of the blocking API can be put to it.

One event loop runs in a thread. Each thread of a test has a context of its own, in which all that it asks for is done,
as if it were one task.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from concurrent import futures
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from typing import Any, Self

from turnlog import aio


class Loop:
    """The event loop in its thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._contexts = threading.local()

    def run(self, work: Callable[[], Any]) -> Any:
        """Do something on the loop, in this thread's context, and await what it gives."""
        context: Context = self._contexts.__dict__.setdefault("context", Context())
        done: futures.Future[Any] = futures.Future()

        async def awaited() -> Any:
            found = work()
            return await found if inspect.isawaitable(found) else found

        def start() -> None:
            task = self._loop.create_task(awaited(), context=context)
            task.add_done_callback(finish)

        def finish(task: "asyncio.Task[Any]") -> None:
            error = task.exception()
            if error is None:
                done.set_result(task.result())
            else:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(start)
        return done.result(30)

    def close(self) -> None:
        """End the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Blocking:
    """Something for asyncio, used without awaiting."""

    def __init__(self, loop: Loop, real: Any) -> None:
        self._loop = loop
        self._real = real

    def __getattr__(self, name: str) -> Any:
        found = self._loop.run(lambda: getattr(self._real, name))
        return self._called(found) if callable(found) else self._wrapped(found)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        elif hasattr(self._real, f"set_{name}"):  # as psycopg names what sets a property
            self._loop.run(lambda: getattr(self._real, f"set_{name}")(value))
        else:
            setattr(self._real, name, value)

    def __repr__(self) -> str:
        return repr(self._real).replace("<aio.", "<")

    def __enter__(self) -> Self:
        self._loop.run(self._real.__aenter__)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.run(lambda: self._real.__aexit__(*error))

    def __iter__(self) -> Any:
        return self._wrapped(aiter(self._real))

    def __next__(self) -> Any:
        try:
            return self._loop.run(self._next)
        except _End:
            raise StopIteration from None

    async def _next(self) -> Any:
        try:
            return await anext(self._real)
        except StopAsyncIteration:
            raise _End from None

    def _called(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            given = [vars(one).get("_real", one) if isinstance(one, Blocking) else one for one in args]
            return self._wrapped(self._loop.run(lambda: method(*given, **kwargs)))

        return call

    def _wrapped(self, found: Any) -> Any:
        ours = (aio.Session, AsyncIterator, AbstractAsyncContextManager)
        if found is self._real:
            return self
        return Blocking(self._loop, found) if isinstance(found, ours) else found


class _End(Exception):
    """The end of an iteration: a coroutine cannot raise `StopIteration`."""


def opened(loop: Loop, url: str, **options: Any) -> Any:
    """Open a store by `turnlog.aio`, for use without awaiting."""

    async def opening() -> aio.ConversationStore:
        return await aio.open(url, **options)

    return Blocking(loop, loop.run(opening))
