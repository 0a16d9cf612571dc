"""Connections to one MariaDB or MySQL database: lending, replacing dead ones, errors. MariaDB 10.6, MySQL 8 or newer.

The pool is turnlog's own or that of an SQLAlchemy engine which the application already has. A connection that died
while idle is replaced before it is lent; whatever is sent once, and lost, is the caller's to find out about. A forked
child opens its own pool: the sockets of the parent's are left alone. No message tells a password.
"""

import os
import re
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from math import ceil
from select import POLLERR, POLLHUP, POLLIN, poll
from time import monotonic, sleep
from typing import Any, NamedTuple, Self, TypeAlias, cast

import pymysql
from sqlalchemy import Engine
from sqlalchemy import exc as alchemy
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from turnlog.adapters.attempt import Broken, Lost
from turnlog.adapters.mariadb.connection import (
    HUNG_UP,
    Connection,
    Parameters,
    as_it_is,
    ask,
    commit,
    configure,
    connected,
    drop,
    is_cut,
    made_ours,
    number,
    parsed,
    quoted,
    run,
    socket_of,
    undo,
)
from turnlog.domain.errors import CorruptLog, InvalidInput, OutcomeUnknown, StoreUnavailable, TurnlogError

IDLE_S = 1.0
"""A connection that lay idle for longer is asked whether it lives; before, only whether it was hung up on."""
SILENCES = 2
"""As many times ``timeout_s`` a statement waits for an answer: one may go by in waiting for a lock."""
RETRY_S = 0.01
LOCK_WAIT = 1205
_CORRUPT = frozenset({126, 127, 134, 1030, 1034, 1035, 1054, 1146, 1194, 1195, 1712, 1877, 1932})
_OURS = (pymysql.Error, alchemy.TimeoutError)
_USED = "turnlog_used"
_OLDEST = {True: (10, 6), False: (8, 0)}
_COLLATIONS = {True: "utf8mb4_nopad_bin", False: "utf8mb4_0900_bin"}

_Ready: TypeAlias = tuple[PoolProxiedConnection, Connection, Callable[[Connection], None]]


class Server(NamedTuple):
    """What a server says of itself: ``is_mariadb`` or MySQL; the largest packet that it takes."""

    is_mariadb: bool
    packet_bytes: int


class Pool:
    """Connections to the database that ``url`` names, or those of ``engine``, an ``sqlalchemy.Engine`` on PyMySQL.

    An engine's connections are set as turnlog needs them whenever they are lent and given back as they were, which
    takes one to three round trips.

    Args:
        durability: ``full`` or ``normal``; what the server really does is up to its settings (storage.py).
        timeout_s: how long a connection, or a lock, is waited for.
        size: the most connections at one time.
        read_only: refuse to write.

    Raises:
        InvalidInput: the URL or the engine is not understood.
        StoreUnavailable: the server cannot be reached, or is too old.
    """

    def __init__(
        self,
        url: str,
        *,
        engine: object = None,
        durability: str = "full",
        timeout_s: float = 30.0,
        size: int = 10,
        read_only: bool = False,
    ) -> None:
        self._engine = None if engine is None else _checked(engine)
        self._options = parsed(url) if self._engine is None else {}
        self.durability = durability
        self.timeout_s = timeout_s
        self.size = size
        self.read_only = read_only
        self._closed = False
        self._open()
        try:
            self.name, self.schema, self.server = self._look_around()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._pid = os.getpid()
        connect: Any = self._connect
        self._pool = QueuePool(
            connect,
            pool_size=self.size,
            max_overflow=0,
            timeout=self.timeout_s,
            reset_on_return=None,
            use_lifo=True,
        )

    def _connect(self, *, patient: bool = False) -> Connection:
        """Connect; a server that says nothing for so long is given up, unless ``patient``: it may be reorganising."""
        timeouts = {} if patient else {"read_timeout": ceil(SILENCES * max(self.timeout_s, 1))}
        connection = connected({**timeouts, **self._options})
        configure(connection, timeout_s=self.timeout_s, read_only=self.read_only)
        return connection

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
    def write(self, *, lets_go: bool = False) -> Generator[Connection, None, None]:
        """Lend a connection inside a READ COMMITTED transaction that is committed at the end, or rolled back.

        ``lets_go``: of all locks that ``GET_LOCK`` has taken, after that.

        Raises:
            OutcomeUnknown: the connection broke during the commit.
            StoreUnavailable, CorruptLog: the driver's errors, translated.
        """
        with self.translating():
            try:
                with self.transaction(lets_go=lets_go) as connection:
                    yield connection
            except Lost as error:
                raise OutcomeUnknown(f"{self.name}: the connection broke during a commit") from error
            except Broken as error:
                raise StoreUnavailable(f"{self.name}: the connection broke; nothing was written") from error

    def rows(self, statement: str, parameters: Parameters = ()) -> list[Any]:
        """Return what one reading statement gives; it is sent again, once, where the connection broke.

        Raises:
            StoreUnavailable, CorruptLog: the driver's errors, translated.
        """
        with self.translating():
            return self._rows(statement, parameters)

    def _rows(self, statement: str, parameters: Parameters, *, patient: bool = True) -> list[Any]:
        with self._lent() as connection:
            try:
                return list(run(connection, statement, parameters).fetchall())
            except pymysql.Error as error:
                if not is_cut(connection, error) or not patient:
                    raise
        return self._rows(statement, parameters, patient=False)

    @contextmanager
    def transaction(self, *, lets_go: bool = False) -> Generator[Connection, None, None]:
        """As ``write``, but nothing is translated. ``lets_go``: in the end, of all locks that ``GET_LOCK`` has taken.

        Raises:
            Lost: the connection broke during the commit. Broken: it broke before.
        """
        self.require_writable()
        with self._lent(begin=True, lets_go=lets_go) as connection:
            try:
                yield connection
            except pymysql.Error as error:
                if is_cut(connection, error):
                    raise Broken from error
                raise
            commit(connection)

    @contextmanager
    def autocommit(self) -> Generator[Connection, None, None]:
        """Lend a connection of which each statement is a transaction of its own; nothing is translated.

        Raises:
            Lost: the connection broke.
        """
        self.require_writable()
        with self._lent() as connection:
            try:
                yield connection
            except pymysql.Error as error:
                if is_cut(connection, error):
                    raise Lost from error
                raise

    def session(self, *, patient: bool = True) -> Connection:
        """Open a connection beside the pool, in autocommit mode. The caller closes it.

        ``patient``: it waits for as long as a statement takes.

        Raises:
            StoreUnavailable: the server cannot be reached.
        """
        self._check()
        with self.translating():
            if self._engine is None:
                return self._connect(patient=patient)
            proxied = self._engine.pool.recreate().connect()  # the engine's own pool may be exhausted
            connection: Any = proxied.dbapi_connection
            proxied.detach()
            made_ours(connection, timeout_s=self.timeout_s)
        return cast("Connection", connection)

    @contextmanager
    def _lent(self, *, begin: bool = False, lets_go: bool = False) -> Generator[Connection, None, None]:
        proxied, connection, restore = self._ready(begin=begin)
        try:
            yield connection
        finally:
            undo(connection)
            try:
                if connection.open and lets_go:
                    run(connection, "DO RELEASE_ALL_LOCKS()")
                if connection.open:
                    restore(connection)
            except pymysql.Error:  # what was committed stands; the locks end with the connection
                drop(connection)
            finally:
                self._give_back(proxied, connection)

    def _ready(self, *, begin: bool, patient: bool = True) -> _Ready:
        """Return a connection set as it has to be, and what gives it back as it was.

        Where it turns out to be dead only now, that of another: nothing was written on it.
        """
        proxied, connection = self._borrow()
        try:
            restore = as_it_is if self._engine is None else made_ours(connection, timeout_s=self.timeout_s)
            if begin:
                self._begin(connection)
        except BaseException as error:
            dead = isinstance(error, pymysql.Error) and is_cut(connection, error)
            self._give_back(proxied, connection)
            if dead and patient:
                return self._ready(begin=begin, patient=False)
            raise
        return proxied, connection, restore

    def _give_back(self, proxied: PoolProxiedConnection, connection: Connection) -> None:
        if connection.open:
            proxied.info[_USED] = monotonic()
            proxied.close()
        else:
            proxied.invalidate()

    def _begin(self, connection: Connection) -> None:
        if self._engine is not None:
            run(connection, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        run(connection, "START TRANSACTION")

    def _borrow(self) -> tuple[PoolProxiedConnection, Connection]:
        self._check()
        deadline = monotonic() + self.timeout_s
        while True:
            try:
                proxied = self._pool.connect() if self._engine is None else self._engine.raw_connection()
            except pymysql.Error as error:
                if number(error) not in HUNG_UP or monotonic() > deadline:
                    raise
                sleep(RETRY_S)  # it came about, and broke before it was set
                continue
            connection: Any = proxied.dbapi_connection
            if self.lives(connection, proxied.info.get(_USED)):
                return proxied, connection
            proxied.invalidate()

    def lives(self, connection: Connection, used: float | None) -> bool:
        """Look whether the server has said something unasked, which is good-bye; ask it where the connection lay idle.

        One that is new, or comes from an engine, was not lent here before.
        """
        try:
            sock = socket_of(connection)
            if sock is None:
                return False
            said = poll()
            said.register(sock.fileno(), POLLIN | POLLERR | POLLHUP)
            if said.poll(0):
                return False
            if used is not None and monotonic() - used > IDLE_S:
                ask(connection)
        except (pymysql.Error, OSError):
            return False
        return True

    def _look_around(self) -> tuple[str, str, Server]:
        """Return what to call the database, its name, and its server. Connects at once, without the pool."""
        self.name = f"{self._options.get('host', 'local')}:{self._options.get('port', 3306)}"
        with self.translating(), closing(self.session()) if self._engine is None else self._lent() as connection:
            ((database, version, packet_bytes),) = run(
                connection, "SELECT DATABASE(), VERSION(), @@max_allowed_packet"
            ).fetchall()
            name = f"{connection.host or 'local'}:{connection.port}/{database}"
        if database is None:
            raise InvalidInput("engine", "expected one whose URL names a database")
        is_mariadb = "mariadb" in version.lower()
        found = tuple(int(digits) for digits in re.findall(r"\d+", version)[:2])
        if found < _OLDEST[is_mariadb]:
            raise StoreUnavailable(f"{name}: expected MariaDB 10.6 or MySQL 8.0, or newer; it is {version}")
        return name, database, Server(is_mariadb, packet_bytes)

    # --- names, errors, end -------------------------------------------------------------------------------------------

    @property
    def collation(self) -> str:
        """The collation by which texts are compared byte by byte: case, accents and trailing blanks all count."""
        return _COLLATIONS[self.server.is_mariadb]

    def table(self, name: str) -> str:
        """Return a table's name as SQL text, with its database."""
        return f"{quoted(self.schema)}.{quoted(name)}"

    @contextmanager
    def translating(self) -> Generator[None, None, None]:
        """Turn the driver's errors into turnlog's."""
        try:
            yield
        except _OURS as error:
            raise self.translated(error) from error

    def translated(self, error: Exception) -> TurnlogError:
        """Return the error of turnlog that says what the driver's means."""
        if self._closed:
            return StoreUnavailable(f"{self.name} is closed")
        code = number(error)
        if code == LOCK_WAIT:
            return StoreUnavailable(f"{self.name}: another transaction held a lock for {self.timeout_s:g} s")
        if isinstance(error, alchemy.TimeoutError):
            return StoreUnavailable(f"{self.name}: no connection came free for {self.timeout_s:g} s")
        words = " ".join(str(error.args[1] if code >= 0 and len(error.args) > 1 else error).split())
        kind = CorruptLog if code in _CORRUPT else StoreUnavailable
        return kind(f"{self.name}: {words or 'the connection broke'}" + (f" ({code})" if code > 0 else ""))

    def require_writable(self) -> None:
        """Return if it may be written.

        Raises:
            StoreUnavailable: it was opened read-only.
        """
        if self.read_only:
            raise StoreUnavailable(f"{self.name} was opened read-only")

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        """Close the pool, if it is turnlog's own. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._pid == os.getpid():
            self._pool.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self.name} is closed")
        if self._pid != os.getpid() and self._engine is None:
            self._abandoned = self._pool  # never disposed of here: the sockets are the parent's
            self._open()


def _checked(engine: object) -> Engine:
    if not isinstance(engine, Engine) or engine.dialect.driver != "pymysql":
        what = f"one by {engine.dialect.driver}" if isinstance(engine, Engine) else type(engine).__name__
        raise InvalidInput("engine", f"expected an sqlalchemy.Engine by PyMySQL (mysql+pymysql://), got {what}")
    return engine
