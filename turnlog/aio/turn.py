"""A turn of commands that are awaited."""

import asyncio
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from turnlog import writing
from turnlog.aio.threads import Threads, to_the_end
from turnlog.domain.errors import InvalidInput
from turnlog.domain.values import Receipt


class Turn:
    """Everything said between entering and leaving is committed as one append, or not at all.

    On an exception, being cancelled too, nothing is written; of a turn inside a turn, what was said since the inner one
    began is dropped. It belongs to the task that opened it and to those started inside (``gather``, ``wait_for``): what
    these say while it is open is part of it. If it was dropped, what they say afterwards is refused.
    """

    def __init__(self, threads: Threads, lock: asyncio.Lock, make: Callable[[], writing.Turn]) -> None:
        self._threads = threads
        self._lock = lock
        self._make = make
        self._turn: writing.Turn | None = None

    @property
    def receipt(self) -> Receipt:
        """The receipt of the whole turn.

        Raises:
            InvalidInput: the turn is not over yet, or was not committed.
        """
        if self._turn is None:
            raise InvalidInput("receipt", "the turn is not committed (yet)")
        return self._turn.receipt

    async def __aenter__(self) -> Self:
        async with self._lock:
            turn = await self._threads.finish_or_undo(self._begin, undo=partial(writing.Turn.end, drop=True))
        writing.HELD.set((*writing.HELD.get(), turn))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        turn = self._turn
        if turn is None:
            return
        writing.HELD.set(tuple(held for held in writing.HELD.get() if held is not turn))
        try:
            await to_the_end(self._end(turn, drop=kind is not None))
        finally:
            if turn.is_open:  # the loop is ending, and even this was cancelled before it began
                turn.end(drop=True)

    def _begin(self) -> writing.Turn:
        if self._turn is None:
            self._turn = self._make()
        self._turn.begin()
        return self._turn

    async def _end(self, turn: writing.Turn, *, drop: bool) -> None:
        async with self._lock:
            await self._threads.finish(turn.end, drop=drop)
