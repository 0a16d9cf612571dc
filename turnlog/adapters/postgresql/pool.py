"""Connections to one PostgreSQL database: lending, replacing dead ones, errors. Psycopg 3, PostgreSQL 14 or newer.

The pool is turnlog's own or one that the application already has. A connection that died while idle is replaced before
it is lent; whatever is sent once, and lost, is the caller's to find out about. A forked child opens its own pool: the
sockets of the parent's are left alone. No message tells a password.
"""

import os
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from math import ceil
from select import POLLERR, POLLHUP, POLLIN, poll
from time import monotonic
from typing import Any, Self

import psycopg
from psycopg import conninfo, errors
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from turnlog.adapters.attempt import Broken, Lost
from turnlog.adapters.names import quoted
from turnlog.adapters.postgresql.connection import (
    CONFIRM,
    Connection,
    commit,
    configure,
    connected,
    gave_up_waiting,
    is_broken,
    made_ours,
    parsed,
    run,
    says_broken,
    undo,
)
from turnlog.adapters.postgresql.patience import ANSWER_S, PATIENCE_S, Inquiry, PatientConnection
from turnlog.adapters.postgresql.spares import Spares
from turnlog.domain.errors import CorruptLog, InvalidInput, OutcomeUnknown, StoreUnavailable, TurnlogError

IDLE_S = 30.0
"""A connection that lay idle for longer is asked whether it lives; before, only whether it was hung up on."""
CONNECT_S = 10
_DEFAULTS = {
    "fallback_application_name": "turnlog",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_CORRUPT = (errors.DataCorrupted, errors.IndexCorrupted, errors.UndefinedTable, errors.UndefinedColumn)
_POOL = (PoolTimeout, PoolClosed)
_OURS = (psycopg.Error, *_POOL)


class Pool:
    """Connections to the database that ``url`` names, or those of ``engine``, a ``psycopg_pool.ConnectionPool``.

    Args:
        schema: where the tables are; none: the first of the search path.
        durability: ``full``: a commit waits for the disk, and for synchronous standbys where there are any;
            ``normal``: for this server's disk only. Less than that would give positions twice after a crash.
        timeout_s: how long a connection, or a lock, is waited for.
        size: the most connections at one time.
        read_only: refuse to write.

    Raises:
        InvalidInput: the URL or the engine is not understood.
        StoreUnavailable: the server cannot be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        engine: object = None,
        schema: str | None = None,
        durability: str = "full",
        timeout_s: float = 30.0,
        size: int = 10,
        read_only: bool = False,
    ) -> None:
        if engine is not None and not isinstance(engine, ConnectionPool):
            raise InvalidInput("engine", f"expected a psycopg_pool.ConnectionPool, got {type(engine).__name__}")
        self._engine: ConnectionPool[Connection] | None = engine
        self._given = parsed(url)
        self.durability = durability
        self.timeout_s = timeout_s
        self.size = size if engine is None else engine.max_size
        self.read_only = read_only
        self._closed = False
        self._open()
        try:
            self.name, self.schema = self._look_around(schema)
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._pid = os.getpid()
        self._used: weakref.WeakKeyDictionary[Connection, float] = weakref.WeakKeyDictionary()
        self._silent_at = 0.0
        self._unconfirmed: set[int] = set()
        """Ids of lent connections on which a commit's wait for a standby was cancelled."""
        self._spares = Spares(self._own()) if self._engine is None else Spares(self._engine, most=0)

    def _own(self) -> "ConnectionPool[Connection]":
        configure: Any = self._configure  # of the pool's type, which is also that of an application's pool
        return ConnectionPool(
            self._conninfo(),
            connection_class=PatientConnection,
            kwargs={"autocommit": True},
            configure=configure,
            min_size=0,
            max_size=self.size,
            timeout=self.timeout_s,
            reconnect_timeout=self.timeout_s,  # whoever waits so long has seen another attempt
            name="turnlog",
            open=True,
        )

    def _seconds(self, most: int) -> int:
        """Return how long connecting may take, which is said in whole seconds, two at the least."""
        return max(2, min(most, ceil(self.timeout_s)))

    def _conninfo(self) -> str:
        parts: dict[str, Any] = {**_DEFAULTS, "connect_timeout": self._seconds(CONNECT_S), **self._given}
        return conninfo.make_conninfo("", **parts)

    def __repr__(self) -> str:
        return f"<Pool {self.name}>"

    # --- lending ------------------------------------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Generator[Connection, None, None]:
        """Lend a connection in autocommit mode.

        Raises:
            StoreUnavailable, CorruptLog: the driver's errors, translated.
        """
        with self.translating(), self._lent() as connection:
            yield connection

    @contextmanager
    def write(self) -> Generator[Connection, None, None]:
        """Lend a connection inside a READ COMMITTED transaction that is committed at the end, or rolled back.

        Raises:
            OutcomeUnknown: the connection broke during the commit.
            StoreUnavailable, CorruptLog: the driver's errors, translated.
        """
        with self.translating():
            try:
                with self.transaction() as connection:
                    yield connection
            except Lost as error:
                raise OutcomeUnknown(f"{self.name}: the connection broke during a commit") from error
            except Broken as error:
                raise StoreUnavailable(f"{self.name}: the connection broke; nothing was written") from error

    def rows(self, statement: str, parameters: Sequence[object] = (), *, prepare: bool = True) -> list[Any]:
        """Return what one reading statement gives; it is sent again, once, where the connection broke.

        Raises:
            StoreUnavailable, CorruptLog: the driver's errors, translated.
        """
        with self.translating():
            try:
                return self._rows(statement, parameters, prepare=prepare)
            except psycopg.OperationalError as error:
                if isinstance(error, _POOL) or not says_broken(error):
                    raise
                return self._rows(statement, parameters, prepare=prepare)

    def _rows(self, statement: str, parameters: Sequence[object], *, prepare: bool) -> list[Any]:
        with self._lent() as connection:
            return run(connection, statement, parameters, prepare=prepare).fetchall()

    def transaction(self) -> AbstractContextManager[Connection]:
        """As ``write``, but nothing is translated.

        Raises:
            Lost: the connection broke during the commit. Broken: it broke before.
        """
        self.require_writable()
        return self._lent(begin=True, breaking=Broken)

    def autocommit(self) -> AbstractContextManager[Connection]:
        """Lend a connection of which each statement is a transaction of its own; nothing is translated.

        Raises:
            Lost: the connection broke.
        """
        self.require_writable()
        return self._lent(breaking=Lost)

    def confirm(self) -> None:
        """Return once everything committed so far is as safe as an append: on the synchronous standby, if there is one.

        Raises:
            OutcomeUnknown: the waiting was cancelled. StoreUnavailable: the connection broke.
        """
        with self.translating():
            try:
                with self.autocommit() as connection:
                    run(connection, CONFIRM)
            except Lost as error:
                raise StoreUnavailable(f"{self.name}: the connection broke") from error

    def session(self) -> Connection:
        """Open a connection beside the pool, in autocommit mode: for listening, for proving. The caller closes it.

        Raises:
            StoreUnavailable: the server cannot be reached.
        """
        self._check()
        with self.translating():
            connection = self._connected()
            try:
                self._configure(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _connected(self, **more: object) -> PatientConnection:
        if self._engine is None:
            return connected(self._conninfo(), more)
        target, options = self._engine.conninfo, self._engine.kwargs
        options = (options() if callable(options) else options) or {}
        return connected(target() if callable(target) else target, {**options, **more})

    @contextmanager
    def _lent(
        self, *, begin: bool = False, breaking: type[Exception] | None = None
    ) -> Generator[Connection, None, None]:
        """Lend a connection; ``breaking`` is raised where it breaks meanwhile."""
        connection, restore = self._borrow(begin=begin)
        if self._engine is not None and connection not in self._used:
            self._watch(connection)
        try:
            try:
                yield connection
            except psycopg.OperationalError as error:
                if breaking is not None and is_broken(connection, error):
                    raise breaking from error
                raise
            if begin:
                commit(connection)
            if breaking is not None and id(connection) in self._unconfirmed:
                raise OutcomeUnknown(f"{self.name}: committed here, but the wait for its standby was cancelled")
        finally:
            self._unconfirmed.discard(id(connection))
            self._give_back(connection, restore)

    def _borrow(self, *, begin: bool) -> tuple[Connection, Callable[[Connection], None]]:
        """Take a connection that lives, or on which a transaction has begun; dead ones are replaced unseen."""
        self._check()
        deadline = monotonic() + self.timeout_s
        while True:
            connection = self._spares.take(deadline)
            restore = made_ours(connection)
            try:
                if self._lives(connection):
                    if begin:
                        connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                    return connection, restore
            except psycopg.OperationalError as error:
                if not is_broken(connection, error):
                    self._give_back(connection, restore)
                    raise
            connection.close()
            self._spares.give(connection)

    def _give_back(self, connection: Connection, restore: Callable[[Connection], None]) -> None:
        undo(connection)
        if not connection.closed:
            restore(connection)
        self._used[connection] = monotonic()
        self._spares.give(connection)

    def _lives(self, connection: Connection) -> bool:
        """Ask the server where it has said something unasked, which may be good-bye, or the connection lay idle."""
        now = monotonic()
        used = self._used.get(connection, now)
        if used < self._silent_at:
            return False
        try:
            said = poll()
            said.register(connection.fileno(), POLLIN | POLLERR | POLLHUP)
            if said.poll(0) or now - used > IDLE_S:
                connection.execute("")
        except psycopg.Error:
            return False
        return True

    def _configure(self, connection: PatientConnection) -> None:
        connect = partial(self._connected, connect_timeout=self._seconds(ANSWER_S))
        connection.hopeful = inquiry = Inquiry(connect, connection.info.backend_pid, self._fell_silent)
        connection.patience_s = min(PATIENCE_S, self.timeout_s / 4)  # there is to be time for another try
        inquiry.pid = configure(
            connection, durability=self.durability, timeout_s=self.timeout_s, read_only=self.read_only
        )
        self._watch(connection)

    def _fell_silent(self) -> None:
        """Trust no connection that was used before: what swallowed one may have swallowed all."""
        self._silent_at = monotonic()

    def _watch(self, connection: Connection) -> None:
        """Note what the server says of a commit that was told not to wait any longer."""
        number, unconfirmed = id(connection), self._unconfirmed

        def note(notice: errors.Diagnostic) -> None:
            if gave_up_waiting(notice):
                unconfirmed.add(number)

        connection.add_notice_handler(note)

    def _look_around(self, schema: str | None) -> tuple[str, str]:
        """Return what to call the database, and the schema. Connects at once: the pool would try for its timeout."""
        self.name = "PostgreSQL"
        with self.translating(), closing(self.session()) if self._engine is None else self._lent() as connection:
            info = connection.info
            self.name = f"{info.host or 'local'}:{info.port}/{info.dbname}"
            row = connection.execute(
                "SELECT current_schema(), current_setting('server_encoding'), current_setting('synchronous_commit')"
            ).fetchone()
        found, encoding, commits = row or (None, "", "")
        if encoding != "UTF8":
            raise StoreUnavailable(f"{self.name}: expected a database in UTF8, it is in {encoding}")
        if commits == "off" and not self.read_only:
            raise InvalidInput("engine", "its connections have synchronous_commit=off: a crash would lose events")
        if schema is None and found is None:
            raise StoreUnavailable(f"{self.name}: no schema of its search_path exists; name one with schema=")
        return self.name, schema or str(found)

    # --- names, errors, end -------------------------------------------------------------------------------------------

    def table(self, name: str) -> str:
        """Return a table's (or index's) name as SQL text, with its schema."""
        schema = self.schema.replace('"', '""')
        return f"{quoted(schema)}.{quoted(name)}"

    @contextmanager
    def translating(self) -> Generator[None, None, None]:
        """Turn the driver's errors into turnlog's."""
        try:
            yield
        except _OURS as error:
            raise self.translated(error) from error

    def translated(self, error: Exception) -> TurnlogError:
        """Return the error of turnlog that says what the driver's means."""
        words = " ".join(str(error).split())
        if isinstance(error, _CORRUPT):
            return CorruptLog(f"{self.name}: {words}")
        if self._closed or isinstance(error, PoolClosed):
            return StoreUnavailable(f"{self.name} is closed")
        if isinstance(error, errors.LockNotAvailable):
            return StoreUnavailable(f"{self.name}: another transaction held a lock for {self.timeout_s:g} s")
        return StoreUnavailable(f"{self.name}: {words}")

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def require_writable(self) -> None:
        """Return if it may be written.

        Raises:
            StoreUnavailable: it was opened read-only.
        """
        if self.read_only:
            raise StoreUnavailable(f"{self.name} was opened read-only")

    def close(self) -> None:
        """Close the pool, if it is turnlog's own. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._engine is None and self._pid == os.getpid():
            self._spares.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self.name} is closed")
        if self._pid != os.getpid() and self._engine is None:
            self._abandoned = self._spares  # never closed here: the sockets are the parent's
            self._open()
