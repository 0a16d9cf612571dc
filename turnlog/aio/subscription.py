"""Following a store's log from an event loop.

However many subscribers wait at the log's head, one thread of the store waits for all of them, and none where there are
none; a thread of the pool is used only to read events that are there.
"""

import asyncio
from collections import deque
from concurrent import futures
from types import TracebackType
from typing import Self

from turnlog import store, subscription
from turnlog.aio.threads import Threads
from turnlog.domain.errors import StoreError
from turnlog.domain.values import RecordedEvent

PAGE = 256
"""Events that a subscription reads ahead, at most."""


class Subscription:
    """An asynchronous iterator over events, past ones first, that waits at the log's head until it is closed.

    A task that is cancelled while it waits loses no event: the next ``anext`` goes on.
    """

    def __init__(
        self,
        threads: Threads,
        news: "News",
        blocking: subscription.Subscription,
        start: "futures.Future[int] | None" = None,
    ) -> None:
        self._threads = threads
        self._news = news
        self._blocking = blocking
        self._start = start
        self._ready: deque[RecordedEvent] = deque()
        self._given = 0
        self._lock = asyncio.Lock()

    @property
    def position(self) -> int:
        """The log's position up to which everything was given out (or did not match).

        Known as soon as the first event is asked for, or the subscription is entered with ``async with``.
        """
        return self._given if self._ready else self._blocking.position

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RecordedEvent:
        while not self._ready and not self._blocking.is_over:
            async with self._lock:
                await self._fetch()
        if self._blocking.is_over:
            raise StopAsyncIteration
        event = self._ready.popleft()
        self._given = event.position
        return event

    async def _fetch(self) -> None:
        while not self._ready and not self._blocking.is_over:
            await self._threads.finish(self._read)
            if not self._ready and not self._blocking.is_over:
                await self._news.above(self._blocking.position)

    def _read(self) -> None:
        """Read what is there; called in a thread, while nothing is ready."""
        if self._start is not None:
            self._blocking.position, self._start = self._start.result(), None
        given, found = self._blocking.position, self._blocking.ready(PAGE)
        self._given = given
        self._ready.extend(found)

    def close(self) -> None:
        """End the iteration, from any task or thread."""
        self._blocking.close()
        self._news.wake()

    async def __aenter__(self) -> Self:
        async with self._lock:
            if self._start is not None:
                await self._threads.finish(self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class News:
    """Tells all who wait that the log has gone on."""

    def __init__(self, blocking: store.ConversationStore) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = blocking
        self._log = blocking.subscribe(after=0)
        self._head = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="turnlog-news")

    async def above(self, position: int) -> None:
        """Return when there may be events above ``position``, or when something was closed."""
        if self._head > position or self._log.is_over:
            return
        self._head = position
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(waiter)
        if self._watch is None:
            self._watch = self._loop.create_task(self._watching())
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def wake(self) -> None:
        """Let all who wait look again, from any thread."""
        self._loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._log.close()
        self._wake()
        self._thread.shutdown(wait=False)

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _watching(self) -> None:
        """Watch the log as long as somebody waits."""
        try:
            while self._waiting and not self._log.is_over:
                head = await self._loop.run_in_executor(self._thread, self._look, self._head)
                if head > self._head:
                    self._head = head
                    self._wake()
        except StoreError:
            pass  # who waits looks himself, and is told
        finally:
            self._watch = None
            self._wake()

    def _look(self, head: int) -> int:
        """Wait a while for news above ``head``; return how far the log is. Called in the thread."""
        self._log.position = head
        return self._store.position if self._log.wait(subscription.WAIT_S) else head
