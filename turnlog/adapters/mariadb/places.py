"""Where views are on MariaDB: at home, in the log's database, or on a bench, where a new generation is built.

The catch-up lock, one ``GET_LOCK`` a store, is held by whoever brings views forward or swaps them. It is a lock of the
connection's and not of the transaction's, because what creates or renames tables ends the transaction; it is let go
after the transaction. It does not keep appenders out. It keeps erasing out, for a transaction that erases holds it too,
from before it looks at the views until after its commit (``hold_still``). So a page that was read before the erasure is
written before it, and deleted by it; one that is read after it has nothing to show.

Such locks are of one server: all writers of a log write to the same one (which Galera and group replication have to be
told).
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from typing import Protocol

from turnlog.adapters.between_threads import Mutex
from turnlog.adapters.mariadb.connection import Connection, quoted, run
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.mariadb.swapping import Swaps
from turnlog.adapters.names import Names
from turnlog.domain.errors import StoreUnavailable


class Place(Protocol):
    """A database, and connections for which it is the one whose tables need no more than their names."""

    schema: str

    def read(self) -> AbstractContextManager[Connection]:
        """Lend a connection in autocommit mode."""
        ...

    def write(self, *, wait: bool = True) -> "AbstractContextManager[Connection | None]":
        """Lend a connection in a transaction; see ``ViewStore.write``."""
        ...


class Home:
    """The log's database, over the pool."""

    def __init__(self, pool: Pool, names: Names, swaps: Swaps) -> None:
        self._pool = pool
        self._swaps = swaps
        self.schema = pool.schema
        self._lock = lock_name(pool.schema, names, "catch up")
        self._mutex = Mutex()

    def read(self) -> AbstractContextManager[Connection]:
        """Lend a connection in autocommit mode."""
        return self._pool.read()

    @contextmanager
    def write(self, *, wait: bool = True) -> "Generator[Connection | None, None, None]":
        """Lend a connection in a transaction under the catch-up lock; ``None`` if that would take waiting for.

        A swap that somebody did not live to end is ended first. One connection a process waits for the lock, at most:
        the pool's others are needed by whoever holds it.

        Raises:
            StoreUnavailable: the lock was not to be had in time.
        """
        self._pool.require_writable()
        timeout_s = self._pool.timeout_s if wait else 0
        with self._mutex.held(timeout_s) as ours:
            if not ours:
                self._refuse(wait=wait)
                yield None
                return
            with self._pool.write(lets_go=True) as connection:
                if not self._got(connection, timeout_s):
                    self._refuse(wait=wait)
                    yield None
                    return
                with inside(connection, self.schema):
                    self._swaps.mend(connection)
                    yield connection

    def hold_still(self, connection: Connection) -> None:
        """Keep everybody from writing views until the connection lets go of its locks; for those who erase.

        It comes first in a transaction: where a swap was interrupted, that is ended, and committed, before.

        Raises:
            StoreUnavailable: views were being written for too long.
        """
        if not self._got(connection, self._pool.timeout_s):
            self._refuse(wait=True)
        self._swaps.mend(connection)

    def _got(self, connection: Connection, timeout_s: float) -> bool:
        return run(connection, "SELECT GET_LOCK(%s, %s)", (self._lock, timeout_s)).fetchall() == ((1,),)

    def _refuse(self, *, wait: bool) -> None:
        if wait:
            words = f"the views were being written for {self._pool.timeout_s:g} s"
            raise StoreUnavailable(f"{self._pool.name}: {words}")


@contextmanager
def inside(connection: Connection, schema: str) -> Generator[None, None, None]:
    """Have names without a database mean tables of ``schema``; afterwards, what they meant before."""
    ((before,),) = run(connection, "SELECT DATABASE()").fetchall()
    if before == schema:
        yield
        return
    run(connection, f"USE {quoted(schema)}")
    try:
        yield
    finally:
        if connection.open and before is not None:
            run(connection, f"USE {quoted(before)}")


def lock_name(schema: str, names: Names, purpose: str) -> str:
    """Return the name of a lock (64 characters at most): those are of a server, so the database is part of it."""
    digest = sha256(f"turnlog.views\n{schema}\n{names.views}\n{purpose}".encode()).hexdigest()
    return f"turnlog.{digest[:48]}"
