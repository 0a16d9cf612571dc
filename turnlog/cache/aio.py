"""The cache for asyncio: the same names, awaitable.

The storage is asked in threads, except in memory. A task that is cancelled takes nobody down: what it was making goes
on for as long as another task or thread waits for it, and is stopped when nobody does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Self, TypeVar

from turnlog.cache.answers import Answers, Asked, Default
from turnlog.cache.counting import CacheStats
from turnlog.cache.entries import Answer
from turnlog.cache.flights import Failed, Lead
from turnlog.cache.keys import Scope
from turnlog.cache.making import awaited, making
from turnlog.domain.events import Json

T = TypeVar("T")


class AsyncResponseCache:
    """``ResponseCache``, awaitable: what a cache's ``aio`` is. ``async with`` closes the cache."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    async def get_or_call(
        self,
        request: Mapping[str, Json],
        call: Callable[[dict[str, Json]], Awaitable[Json]],
        *,
        scope: Scope = (),
        ttl_s: float | Default | None = Default.TTL,
    ) -> Json:
        """Return the stored answer to a request, or what ``await call(request)`` returns; see ``ResponseCache``.

        The call is made in a task of its own, with the context of whoever came first.
        """
        answers, loop = self._answers, asyncio.get_running_loop()
        asked = answers.asked(request, scope, ttl_s)
        stored = await self._in_a_thread(partial(answers.read, asked.key))
        if stored is not None:
            return stored.value
        flights = answers.flights
        while True:
            flight, lead = flights.join(asked.key.digest, loop)
            try:
                if lead is not None:
                    task = loop.create_task(self._make(lead, asked, partial(call, asked.request)))
                    flight.stop = partial(_stop, task)
                outcome = await flight.arrive()
            except BaseException:
                flights.leave(flight)
                raise
            if lead is not None:
                return _own(outcome)
            if outcome is not None:
                return answers.shared(outcome)

    async def get(self, request: Mapping[str, Json], *, scope: Scope = (), default: Json = None) -> Json:
        """Return the stored answer to a request, or ``default``."""
        key = self._answers.asked(request, scope).key
        return await self._in_a_thread(partial(self._answers.get, key, default))

    async def put(
        self,
        request: Mapping[str, Json],
        answer: Json,
        *,
        scope: Scope = (),
        ttl_s: float | Default | None = Default.TTL,
    ) -> bool:
        """Store an answer in place of the one that is there; return whether it is stored."""
        asked = self._answers.asked(request, scope, ttl_s)
        return await self._in_a_thread(partial(self._answers.guarded.write, asked.key, answer, asked.ttl_s))

    async def delete(self, request: Mapping[str, Json], *, scope: Scope = ()) -> bool:
        """Delete the answer to a request; see ``ResponseCache``."""
        key = self._answers.asked(request, scope).key
        return await self._in_a_thread(partial(self._answers.storage.delete, key))

    async def forget(self, scope: Scope) -> int:
        """Delete all answers of a scope and of those below it, and return how many; see ``ResponseCache``."""
        return await self._in_a_thread(partial(self._answers.forget, scope))

    async def clear(self) -> int:
        """Delete all answers, of everybody, and return how many; see ``ResponseCache``."""
        return await self._in_a_thread(self._answers.storage.clear)

    async def purge_expired(self) -> int:
        """Delete what has expired, and return how many answers that were; see ``ResponseCache``."""
        return await self._in_a_thread(self._answers.storage.purge)

    def stats(self) -> CacheStats:
        """Return what this cache has done in this process, for threads and tasks together."""
        return self._answers.guarded.counts.read()

    async def close(self) -> None:
        """Let go of the storage."""
        await self._in_a_thread(self._answers.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._answers.storage.name}>"

    async def _make(self, lead: Lead, asked: Asked, call: Callable[[], Awaitable[Json]]) -> None:
        """Make an answer and land it, errors too: nobody may be left to hear them from this task."""
        steps = making(self._answers.guarded, asked.key, asked.ttl_s)
        with suppress(Exception), lead:
            lead.land(await awaited(steps, call, self._in_a_thread, asyncio.sleep))

    async def _in_a_thread(self, question: Callable[[], T]) -> T:
        """Ask the storage. What a thread has begun is ended before a cancelled task goes on."""
        submitted = self._answers.submitted(question)
        if submitted is None:
            return question()
        answered = asyncio.wrap_future(submitted)
        try:
            return await asyncio.shield(answered)
        except asyncio.CancelledError:
            await asyncio.wait([answered])
            raise


def _stop(task: asyncio.Task[None]) -> None:
    """Cancel a task, from whatever thread."""
    with suppress(RuntimeError):  # its loop is closed
        task.get_loop().call_soon_threadsafe(task.cancel)


def _own(outcome: Answer | Failed | None) -> Json:
    """Return what the task that somebody started has made."""
    if isinstance(outcome, Failed):
        raise outcome.error
    if outcome is None:  # the call was cancelled, and not by him
        raise asyncio.CancelledError
    return outcome.value
