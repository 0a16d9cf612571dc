"""An application's connection for asyncio, lent to one call at a time; calls are made in threads, by blocking code.

A call uses a blocking ``psycopg.Connection`` over the same connection of libpq's. Meanwhile its event loop holds the
lock that psycopg itself takes for each statement: whoever else wants to use the connection queues. The blocking one
prepares no statements, for it would give them the names that the other one gives to its own.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import pq
from psycopg.rows import tuple_row

from turnlog.domain.errors import InvalidInput, StoreUnavailable

T = TypeVar("T")


class Lender:
    """Lends a connection; to be used on the connection's event loop.

    Args:
        given: as the application gave it.
        timeout_s: how long others who use it are waited for.

    Raises:
        InvalidInput: it is not a connection of psycopg's for asyncio.
    """

    def __init__(self, given: object, *, timeout_s: float) -> None:
        if not isinstance(given, psycopg.AsyncConnection):
            kind, is_blocking = type(given).__name__, isinstance(given, psycopg.Connection)
            hint = "; that is for a store of turnlog.open" if is_blocking else ""
            raise InvalidInput("connection", f"expected a psycopg.AsyncConnection, got {kind}{hint}")
        self._given: psycopg.AsyncConnection[Any] = given
        self._timeout_s = timeout_s
        self._blocking: _Blocking | None = None

    @property
    def connection(self) -> object:
        """The connection for blocking code, while it is lent."""
        return self._blocking

    @asynccontextmanager
    async def lent(self) -> AsyncGenerator[None, None]:
        """Keep everybody else from it.

        Raises:
            StoreUnavailable: others did not let go of it in time.
        """
        await self._acquire()
        server = self._given.pgconn
        handlers = server.notice_handler, server.notify_handler
        try:
            if self._blocking is None:
                self._blocking = _Blocking(server)  # which makes itself the handler
            server.notice_handler, server.notify_handler = _on_this_loop(handlers[0]), _on_this_loop(handlers[1])
            if server.transaction_status == pq.TransactionStatus.IDLE:
                self._begin_alike(self._blocking)
            yield
        finally:
            server.notice_handler, server.notify_handler = handlers
            self._given.lock.release()

    async def _acquire(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._given.lock.acquire()
        except TimeoutError as error:
            words = "another task, or a COPY or a stream around this call, used the connection"
            raise StoreUnavailable(f"{words} for {self._timeout_s:g} s") from error

    def _begin_alike(self, blocking: psycopg.Connection[Any]) -> None:
        """Have it begin a transaction, or not, as the application's would."""
        blocking.autocommit = self._given.autocommit
        blocking.isolation_level = self._given.isolation_level
        blocking.read_only = self._given.read_only
        blocking.deferrable = self._given.deferrable


class _Blocking(psycopg.Connection[tuple[Any, ...]]):
    """A connection that is somebody else's, who closes it."""

    def __init__(self, server: pq.abc.PGconn) -> None:
        super().__init__(server, tuple_row)
        self.prepare_threshold = None

    def __del__(self, *_: object) -> None:
        """Do nothing; psycopg would warn that it is still open."""


def _on_this_loop(handler: Callable[[T], None] | None) -> Callable[[T], None] | None:
    """Return what calls ``handler`` on the event loop, from a thread, and waits for it."""
    if handler is None:
        return None
    loop = asyncio.get_running_loop()

    async def call(what: T) -> None:
        handler(what)

    return lambda what: asyncio.run_coroutine_threadsafe(call(what), loop).result()
