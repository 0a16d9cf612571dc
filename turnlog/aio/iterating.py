"""Iterating over what a blocking iterator gives, in pages, so that one item costs no change of threads."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from typing import Generic, TypeVar

PAGE = 256
"""Items fetched at a time."""

T = TypeVar("T")


class Items(AsyncIterator[T], Generic[T]):
    """The items of a blocking iterator, which is made when the first is asked for.

    Args:
        run: makes a call in a thread.
        make: makes the iterator; called in a thread, like all its steps.
    """

    def __init__(self, run: Callable[[Callable[[], None]], Awaitable[None]], make: Callable[[], Iterator[T]]) -> None:
        self._run = run
        self._make = make
        self._source: Iterator[T] | None = None
        self._ready: deque[T] = deque()
        self._error: Exception | None = None
        self._is_over = False
        self._lock = asyncio.Lock()

    async def __anext__(self) -> T:
        while not self._ready:
            async with self._lock:
                if not self._ready:
                    await self._fetch()
        return self._ready.popleft()

    async def _fetch(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._is_over:
            raise StopAsyncIteration
        await self._run(self._more)

    def _more(self) -> None:
        """Read a page. What stands before an error is given out before it."""
        taken = 0
        try:
            if self._source is None:
                self._source = self._make()
            for item in islice(self._source, PAGE):
                taken += 1
                self._ready.append(item)
        except Exception as error:  # noqa: BLE001 - it is raised when its turn comes
            self._error = error
        self._is_over = taken < PAGE
