"""Single flight: of the threads and tasks of a process that want the same answer, one makes it and the others wait.

Who makes it lands the flight, whatever happens: with an answer, with the error of the call, or with None where he gave
up (he was interrupted, his event loop ended): then the next one makes it. A task that leads makes the answer in a task
of its own, which goes on without him for as long as anybody waits.
"""

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from threading import RLock
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

from turnlog.cache.entries import Answer

_LOOK_S = 1.0
"""How often a thread looks whether the event loop on which its answer is made is still there."""
_making: ContextVar[tuple["Flight", ...]] = ContextVar("turnlog_cache_making", default=())
"""What is being made by whoever runs in this context."""


class Failed(NamedTuple):
    """The call of the model raised this."""

    error: Exception


Outcome: TypeAlias = Answer | Failed | None


class Flight:
    """One answer being made. ``loop``: where, if by a task; ``stop`` ends that task."""

    def __init__(self, digest: bytes, loop: AbstractEventLoop | None) -> None:
        self.digest = digest
        self.loop = loop
        self.stop: Callable[[], object] | None = None
        self.waiting = 0
        self.landed: Future[Outcome] = Future()

    @property
    def is_lost(self) -> bool:
        """Whether it can no longer land: its event loop was closed in the middle."""
        return self.loop is not None and self.loop.is_closed() and not self.landed.done()

    def wait(self) -> Outcome:
        """Wait in a thread.

        Raises:
            RuntimeError: this would wait for itself.
        """
        if self.loop is not None and self.loop is _running():
            raise RuntimeError("this blocks the event loop that makes the answer; use `await cache.aio.get_or_call(…)`")
        while True:
            try:
                return self.landed.result(None if self.loop is None else _LOOK_S)
            except TimeoutError:
                if self.is_lost:
                    return None

    async def arrive(self) -> Outcome:
        """Wait in a task."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[None] = loop.create_future()

        def tell(_: object) -> None:
            with suppress(RuntimeError):  # who waited has gone, and his loop is closed
                loop.call_soon_threadsafe(_set, arrived)

        self.landed.add_done_callback(tell)
        await arrived
        return self.landed.result()


class Lead:
    """The duty to land a flight; dropped without that, as by an interruption anywhere, it is landed with None."""

    def __init__(self, flights: "Flights", flight: Flight) -> None:
        self._flights = flights
        self._flight = flight

    def land(self, outcome: Outcome) -> None:
        """End the flight, unless it has ended."""
        self._flights.land(self._flight, outcome)

    def __enter__(self) -> Self:
        self._token = _making.set((*_making.get(), self._flight))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.land(Failed(error) if isinstance(error, Exception) else None)
        with suppress(ValueError):  # a task that its dying loop dropped is ended in somebody else's context
            _making.reset(self._token)

    def __del__(self) -> None:
        self.land(None)


class Flights:
    """The flights of a process, by the digests of their keys."""

    def __init__(self) -> None:
        self._lock = RLock()  # a Lead that the garbage collector drops may come in between
        self._flights: dict[bytes, Flight] = {}

    def join(self, digest: bytes, loop: AbstractEventLoop | None = None) -> tuple[Flight, Lead | None]:
        """Return the flight to wait for; with the duty to land it where nobody has that yet. ``leave`` it or wait.

        Raises:
            RuntimeError: this is called by the very call that is to make the answer.
        """
        with self._lock:
            flight = self._flights.get(digest)
            if flight is not None and not flight.is_lost:
                if flight in _making.get():
                    raise RuntimeError("the call asks the cache for the answer that it is to give")
                flight.waiting += 1
                return flight, None
            flight = Flight(digest, loop)
            lead = Lead(self, flight)
            flight.waiting = 1
            self._flights[digest] = flight
            return flight, lead

    def leave(self, flight: Flight) -> None:
        """Wait no longer. Where nobody does any more, a task that makes the answer is stopped."""
        with self._lock:
            flight.waiting -= 1
            if flight.waiting or flight.stop is None or flight.landed.done():
                return
            self._remove(flight)
        flight.stop()

    def land(self, flight: Flight, outcome: Outcome) -> None:
        """Give everybody the outcome, unless the flight has landed."""
        with self._lock:
            if flight.landed.done():
                return
            self._remove(flight)
            flight.landed.set_result(outcome)

    def _remove(self, flight: Flight) -> None:
        if self._flights.get(flight.digest) is flight:
            del self._flights[flight.digest]


def _set(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)


def _running() -> AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
