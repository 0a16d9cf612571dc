"""Where views are on PostgreSQL: at home, in the log's schema, or on a bench, where a new generation is built.

Everything on views names tables without a schema; the place puts its own first in the search path.

The catch-up lock, one advisory lock a store, is held by whoever brings views forward or swaps them, until the
transaction's end. It does not keep appenders out: nothing here needs that. It keeps erasing out, for a transaction
that erases holds it too, shared, from before it looks at the views until its end (``hold_still``). So a page that was
read before the erasure is written before it, and deleted by it; one that is read after it has nothing to show.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from typing import Protocol

from psycopg.types.numeric import Int8

from turnlog.adapters.between_threads import Mutex
from turnlog.adapters.names import Names, quoted
from turnlog.adapters.postgresql.connection import Connection, run
from turnlog.adapters.postgresql.pool import Pool
from turnlog.domain.errors import OutcomeUnknown, StoreUnavailable


class Place(Protocol):
    """A schema, and connections that find its tables first."""

    schema: str

    def read(self) -> AbstractContextManager[Connection]:
        """Lend a connection in autocommit mode."""
        ...

    def write(self, *, wait: bool = True) -> AbstractContextManager[Connection | None]:
        """Lend a connection in a transaction; see ``ViewStore.write``."""
        ...


class Home:
    """The log's schema, over the pool."""

    def __init__(self, pool: Pool, names: Names) -> None:
        self._pool = pool
        self.schema = pool.schema
        self._key = advisory_key(pool.schema, names, "catch up")
        self._mutex = Mutex()

    def read(self) -> AbstractContextManager[Connection]:
        """Lend a connection in autocommit mode; its search path is the pool's."""
        return self._pool.read()

    @contextmanager
    def write(self, *, wait: bool = True) -> Generator[Connection | None, None, None]:
        """Lend a connection in a transaction under the catch-up lock; ``None`` if that would take waiting for.

        The commit does not wait for the disk: what is lost in a crash is made again, rows and checkpoint together. One
        connection a process waits for the lock, at most: the pool's others are needed by whoever holds it.

        Raises:
            StoreUnavailable: the lock was not to be had in time.
        """
        self._pool.require_writable()
        try:
            with self._mutex.held(self._pool.timeout_s if wait else 0) as ours:
                if ours:
                    with self._pool.write() as connection:
                        statement = _WAIT if wait else _TRY
                        row = run(connection, statement, (Int8(self._key), quoted(self.schema))).fetchone()
                        yield connection if wait or (row is not None and row[0]) else None
                elif wait:
                    raise StoreUnavailable(
                        f"{self._pool.name}: the views were being written for {self._pool.timeout_s:g} s"
                    )
                else:
                    yield None
        except OutcomeUnknown as error:  # to a query it is all the same: the checkpoint says how far the views are
            raise StoreUnavailable(str(error)) from error

    def hold_still(self, connection: Connection) -> None:
        """Keep everybody from writing views until this transaction ends; for those who erase, before all else."""
        run(connection, "SELECT pg_advisory_xact_lock_shared(%s)", (Int8(self._key),))


_FIRST = "set_config('search_path', concat_ws(', ', %s::text, nullif(current_setting('search_path'), '')), true)"
_UNSYNCED = "set_config('synchronous_commit', 'off', true)"
_TRY = f"SELECT pg_try_advisory_xact_lock(%s), {_FIRST}, {_UNSYNCED}"
_WAIT = f"SELECT pg_advisory_xact_lock(%s), {_FIRST}, {_UNSYNCED}"


@contextmanager
def first_in_path(connection: Connection, schema: str) -> Generator[None, None, None]:
    """Have tables of ``schema`` found first, in a transaction that has a path of its own; give that back afterwards."""
    row = run(connection, f"SELECT current_setting('search_path'), {_FIRST}", (quoted(schema),)).fetchone()
    yield
    run(connection, "SELECT set_config('search_path', %s, true)", (row and row[0],))


def advisory_key(schema: str, names: Names, purpose: str) -> int:
    """Return the number of an advisory lock (64 bits, signed): those are of a database, so the schema is part of it."""
    digest = sha256(f"turnlog.views\n{schema}\n{names.views}\n{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
