"""A connection that an application lends, inside its own transaction: used there, and left as it was.

Each use is under a savepoint, so whatever fails leaves the transaction usable, with what the application wrote in it.
It is in pipeline mode meanwhile: savepoint and statements go to the server together, when the first result is wanted.
Statements run on cursors of our own, so neither row factory, cursor factory nor adapters of the connection matter, nor
are they touched; whether a statement is prepared is for the connection's own settings to say.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from threading import RLock
from typing import Any, cast

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap
from psycopg.rows import tuple_row

from turnlog.adapters.postgresql.connection import Connection, run
from turnlog.adapters.postgresql.pool import Pool
from turnlog.domain.errors import InvalidInput, StoreUnavailable

_BEGIN = "begin one first, with connection.transaction()"
_PLACE = (
    "SELECT extract(epoch FROM pg_postmaster_start_time())::float8,"
    " (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()), to_regclass(%b::text)::oid"
)


class Lent:
    """The connection. One thread at a time may use it.

    Args:
        connection: as the application gave it.
        pool: the log's own; by it errors are translated.

    Raises:
        InvalidInput: it is not a connection of psycopg's.
    """

    def __init__(self, connection: object, pool: Pool) -> None:
        if not isinstance(connection, psycopg.Connection):
            kind, is_async = type(connection).__name__, isinstance(connection, psycopg.AsyncConnection)
            hint = "; that is for a store of turnlog.aio" if is_async else ""
            raise InvalidInput("connection", f"expected a psycopg.Connection, got {kind}{hint}")
        self._connection: psycopg.Connection[Any] = cast("Any", connection)  # whatever its rows are made into
        self._statements = cast("Connection", _Statements(self._connection))  # which has what ``run`` calls
        self._pool = pool
        self._lock = RLock()
        self._depth = 0

    @property
    def name(self) -> str:
        """What to call where it leads."""
        info = self._connection.info
        return f"{info.host or 'local'}:{info.port}/{info.dbname}"

    @contextmanager
    def savepoint(self) -> Generator[Connection, None, None]:
        """Lend it to run statements on; what they did is undone if anything raises, and the transaction goes on.

        Raises:
            InvalidInput, StoreUnavailable: it cannot be used now.
        """
        with self._lock:
            if not self._depth:
                self._require_usable()
            self._depth += 1
            try:
                with self._connection.pipeline():
                    run(self._statements, "SAVEPOINT turnlog", prepare=False)
                    yield self._statements
                    run(self._statements, "RELEASE SAVEPOINT turnlog", prepare=False)
            except BaseException:
                self._undo()
                raise
            finally:
                self._depth -= 1

    @contextmanager
    def read(self) -> Generator[Connection, None, None]:
        """As ``savepoint``, with the driver's errors translated."""
        with self._pool.translating(), self.savepoint() as connection:
            yield connection

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Return what one reading statement gives."""
        with self.read() as connection:
            cursor = run(connection, statement, parameters)
        return cursor.fetchall()

    def require_committed(self) -> None:
        """Return if each statement of the transaction sees what was committed before it.

        Raises:
            InvalidInput: it does not.
        """
        require_committed(self.rows("SELECT current_setting('transaction_isolation')")[0][0])

    def _require_usable(self) -> None:
        connection = self._connection
        if self._pool.closed:
            raise StoreUnavailable(f"{self._pool.name} is closed")
        if connection.closed:
            raise StoreUnavailable("the connection is closed, and what its transaction wrote is undone")
        status = connection.info.transaction_status
        if status == pq.TransactionStatus.INERROR:
            raise StoreUnavailable("the connection's transaction has failed; roll it back")
        if status == pq.TransactionStatus.ACTIVE or connection.pgconn.pipeline_status != pq.PipelineStatus.OFF:
            raise InvalidInput("connection", "it is in the middle of something else: a COPY, a stream, a pipeline")
        if status == pq.TransactionStatus.IDLE and connection.autocommit:
            raise InvalidInput("connection", f"it is in autocommit mode, and in no transaction; {_BEGIN}")
        if connection.info.encoding != "utf-8":
            raise InvalidInput("connection", f"its client_encoding is {connection.info.encoding}, expected UTF8")

    def _undo(self) -> None:
        if self._connection.closed or self._connection.info.transaction_status == pq.TransactionStatus.IDLE:
            return
        with suppress(psycopg.Error):  # the next use says what became of it
            run(self._statements, "ROLLBACK TO SAVEPOINT turnlog", prepare=False)
            run(self._statements, "RELEASE SAVEPOINT turnlog", prepare=False)


def require_committed(level: str) -> None:
    """Return if this isolation level is READ COMMITTED.

    Raises:
        InvalidInput: it is not.
    """
    if level != "read committed":
        words = "in which an append that another one overtook could not see that one and try again"
        raise InvalidInput("connection", f"its transaction is {level.upper()}, {words}; expected READ COMMITTED")


class Place:
    """Where a log is: its table, on a server that was started at a certain time.

    By that a connection is told from those to any other, to a clone or a standby too.
    """

    def __init__(self, pool: Pool, events: str) -> None:
        self._pool = pool
        self._events = events
        self._known: tuple[Any, ...] | None = None

    def require(self, lent: Lent) -> None:
        """Return if a connection leads there.

        Raises:
            InvalidInput: it does not.
        """
        (found,) = lent.rows(_PLACE, (self._events,))
        if found != self._known:
            self._known = self._look()  # for the first time, or the server was started anew
        if found != self._known:
            words = f"expected one to the log of this store, table {self._events} in {self._pool.name}"
            raise InvalidInput("connection", f"{words}, got one to {lent.name}")

    def _look(self) -> tuple[Any, ...]:
        """Ask beside the pool: the application may hold its last connection, to lend it."""
        with self._pool.translating(), self._pool.session() as connection:
            found: tuple[Any, ...] = run(connection, _PLACE, (self._events,), prepare=False).fetchall()[0]
        return found


class _Statements:
    """Runs statements as ``psycopg.Connection.execute`` does, whatever the connection is set to."""

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection = connection

    def execute(
        self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool = False
    ) -> "psycopg.Cursor[tuple[Any, ...]]":
        """Execute a statement on a new cursor."""
        cursor = _Cursor(self._connection, row_factory=tuple_row)
        prepare = None if prepare else prepare
        return cursor.execute(query, params, prepare=prepare, binary=binary)


class _Cursor(psycopg.Cursor[tuple[Any, ...]]):
    """A cursor that reads and writes values as psycopg does, whatever was registered on its connection."""

    @property
    def adapters(self) -> AdaptersMap:
        """The adapters: psycopg's."""
        return psycopg.adapters
