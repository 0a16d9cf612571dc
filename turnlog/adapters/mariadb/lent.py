"""A connection that an application lends, inside its own transaction: used there, and left as it was.

Each use begins with a look at what the session is set to, for nothing says when an application changed it. What would
change the meaning of our statements is set for the use, and given back; so is, in the driver, how values are read. Text
in another character set than utf8mb4, and another isolation level than READ COMMITTED, are refused.

An append is under a savepoint. Where the server itself undoes the transaction (a deadlock), the savepoint is gone with
it: the connection is then not used again before the application has begun another. An interruption
(``KeyboardInterrupt``) closes the connection: the driver cannot tell which answer would be to which question.
"""

from collections.abc import Generator
from contextlib import contextmanager
from threading import RLock
from typing import Any, NamedTuple, cast

import pymysql
from pymysql.converters import decoders

from turnlog.adapters.mariadb.connection import (
    SQL_MODE,
    Asking,
    Connection,
    Parameters,
    drop,
    in_transaction,
    number,
    run,
)
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.mariadb.savepoint import NO_SAVEPOINT
from turnlog.domain.errors import ConcurrencyConflict, InvalidInput, StoreUnavailable

EXPECTED_LEVEL = "expected READ COMMITTED: SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, before it begins"
_CHARSET = "utf8mb4"
_STRICT = frozenset({"STRICT_ALL_TABLES", "STRICT_TRANS_TABLES"})
_HARMLESS = _STRICT | {
    "ERROR_FOR_DIVISION_BY_ZERO",
    "NO_AUTO_CREATE_USER",
    "NO_AUTO_VALUE_ON_ZERO",
    "NO_ENGINE_SUBSTITUTION",
    "NO_ZERO_DATE",
    "NO_ZERO_IN_DATE",
    "ONLY_FULL_GROUP_BY",
    "TRADITIONAL",
}
"""Modes of SQL in which our statements mean what they always do."""
_NO_LIMIT = (1 << 64) - 1
_UNDONE = "the server has undone all of this transaction, not only this append; roll back, and do it again"


class _Settings(NamedTuple):
    """What a session is set to that our statements depend on, named as the server does."""

    sql_mode: str
    sql_select_limit: int
    unique_checks: int
    innodb_lock_wait_timeout: int
    lock_wait_timeout: int

    def for_reading(self) -> "_Settings":
        """Return what they have to be to read."""
        harmless = set(self.sql_mode.split(",")) <= {*_HARMLESS, ""}
        return self._replace(sql_mode=self.sql_mode if harmless else SQL_MODE, sql_select_limit=_NO_LIMIT)

    def for_writing(self, wait_s: int) -> "_Settings":
        """Return what they have to be to write: what does not fit is an error, and locks are waited for so long."""
        reading = self.for_reading()
        strict = not _STRICT.isdisjoint(reading.sql_mode.split(","))
        return _Settings(reading.sql_mode if strict else SQL_MODE, _NO_LIMIT, 1, wait_s, wait_s)


_SET = f"SET {', '.join(f'{name} = %s' for name in _Settings._fields)}"


def level_variable(source: Asking) -> str:
    """Return what the server calls the variable with the isolation level: older MariaDB and MySQL differ."""
    names = "SHOW VARIABLES WHERE Variable_name IN ('transaction_isolation', 'tx_isolation')"
    return str(min(source.rows(names))[0])


class Lent:
    """The connection. One thread at a time may use it.

    Args:
        connection: as the application gave it.
        pool: the log's own; by it errors are translated.
        level: what the server calls the variable with the isolation level.

    Raises:
        InvalidInput: it is not a connection of PyMySQL's.
    """

    def __init__(self, connection: object, pool: Pool, level: str) -> None:
        if not isinstance(connection, pymysql.Connection):
            raise InvalidInput("connection", f"expected a pymysql.Connection, got {type(connection).__name__}")
        self._connection: Connection = cast("Any", connection)
        self._driver: Any = self._connection  # types-pymysql does not know of all its attributes
        self._pool = pool
        self.schema = pool.schema
        sets = [f"@@character_set_{what}" for what in ("client", "connection", "results")]
        settings = [f"@@{name}" for name in _Settings._fields]
        self._look = f"SELECT {', '.join((f'@@{level}', *sets, *settings))} LIMIT 1"
        self._lock = RLock()
        self._in_use = False
        self._doubted = True
        """Whether this may be what followed a transaction that the server has undone by itself."""

    @property
    def name(self) -> str:
        """What to call where it leads."""
        return f"{self._driver.host}:{self._driver.port}"

    @contextmanager
    def read(self) -> Generator[Connection, None, None]:
        """Lend it to read with.

        Raises:
            InvalidInput, StoreUnavailable: it cannot be used now.
        """
        with self._pool.translating(), self._used() as connection:
            yield connection

    def rows(self, statement: str, parameters: Parameters = ()) -> list[Any]:
        """Return what one reading statement gives."""
        with self.read() as connection:
            return list(run(connection, statement, parameters).fetchall())

    @contextmanager
    def savepoint(self, wait_s: int) -> Generator[Connection, None, None]:
        """Lend it to write with; what was done is undone if anything raises, and the transaction goes on.

        ``wait_s``: how long to wait for locks. Nothing is translated.

        Raises:
            InvalidInput, StoreUnavailable: it cannot be used now.
            ConcurrencyConflict: the server has undone the whole transaction.
        """
        with self._used(wait_s) as connection:
            run(connection, "SAVEPOINT turnlog")
            self._require_transaction()  # as the server has just said
            try:
                yield connection
            except Exception as error:
                self._undo(error)
                raise
            run(connection, "RELEASE SAVEPOINT turnlog")

    def _undo(self, error: Exception) -> None:
        if not self._connection.open:
            return
        try:
            run(self._connection, "ROLLBACK TO SAVEPOINT turnlog")
            run(self._connection, "RELEASE SAVEPOINT turnlog")
        except pymysql.Error as failure:
            if number(failure) != NO_SAVEPOINT:
                drop(self._connection)  # what was half done must not be committed
                return
            run(self._connection, "SAVEPOINT turnlog_undone")  # lasts until the application rolls back, or commits
            self._doubted = True
            raise ConcurrencyConflict(_UNDONE) from error

    # --- whether it can be used -------------------------------------------------------------------------------------

    @contextmanager
    def _used(self, wait_s: int | None = None) -> Generator[Connection, None, None]:
        with self._lock:
            if self._in_use:
                yield self._connection
                return
            self._in_use = True
            try:
                self._require_usable()
                with self._decoding(), self._set(wait_s):
                    yield self._connection
            except BaseException as error:
                if not isinstance(error, Exception):
                    drop(self._connection)
                raise
            finally:
                self._in_use = False

    def _require_usable(self) -> None:
        if self._pool.closed:
            raise StoreUnavailable(f"{self._pool.name} is closed")
        if not self._connection.open:
            raise StoreUnavailable("the connection is closed, and what its transaction wrote is undone")
        result = self._driver._result  # noqa: SLF001 - PyMySQL has no public way to it
        if result is not None and (result.unbuffered_active or result.has_next):
            raise InvalidInput("connection", "it is in the middle of something else: not all of a result was fetched")
        self._require_transaction()
        if self._doubted:
            self._require_standing()

    def _require_transaction(self) -> None:
        if self._connection.get_autocommit() and not in_transaction(self._connection):
            words = "it is in autocommit mode, and in no transaction; begin one first, with connection.begin()"
            raise InvalidInput("connection", words)

    def _require_standing(self) -> None:
        """Return unless what the server has undone was not rolled back by the application, too."""
        try:
            run(self._connection, "RELEASE SAVEPOINT turnlog_undone")
        except pymysql.Error as error:
            if number(error) != NO_SAVEPOINT:
                raise
            self._doubted = False
            return
        run(self._connection, "SAVEPOINT turnlog_undone")
        raise StoreUnavailable("the connection's transaction has failed; roll it back")

    @contextmanager
    def _decoding(self) -> Generator[None, None, None]:
        """Have values read as PyMySQL does, whatever the connection was made with."""
        before = self._driver.decoders, self._driver.use_unicode
        self._driver.decoders, self._driver.use_unicode = decoders, True
        try:
            yield
        finally:
            self._driver.decoders, self._driver.use_unicode = before

    @contextmanager
    def _set(self, wait_s: int | None) -> Generator[None, None, None]:
        """Have the session set as our statements need it; ``wait_s``: those that write."""
        ((level, *charsets, mode, limit, unique, wait, wait_of_tables),) = run(self._connection, self._look).fetchall()
        _require_committed(level)
        for charset in (self._connection.charset, *charsets):
            if charset != _CHARSET:
                raise InvalidInput("connection", f"its character set is {charset}, expected {_CHARSET}")
        before = _Settings(mode, limit, unique, wait, wait_of_tables)
        wanted = before.for_reading() if wait_s is None else before.for_writing(wait_s)
        if wanted == before:
            yield
            return
        run(self._connection, _SET, wanted)
        try:
            yield
        finally:
            if self._connection.open:
                run(self._connection, _SET, before)


def _require_committed(level: str) -> None:
    if level != "READ-COMMITTED":
        words = "in which an append that another one overtook could not see that one and try again"
        raise InvalidInput("connection", f"its transaction is {level.replace('-', ' ')}, {words}; {EXPECTED_LEVEL}")
