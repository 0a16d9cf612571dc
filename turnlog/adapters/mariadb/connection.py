"""One connection to MariaDB or MySQL, by PyMySQL: statements, the end of a transaction, what a URL says."""

import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from math import ceil
from typing import Any, Protocol, TypeAlias, cast

import pymysql
from pymysql.constants import CLIENT, SERVER_STATUS
from pymysql.converters import escape_item
from pymysql.cursors import Cursor
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from turnlog.adapters.attempt import Lost
from turnlog.domain.errors import InvalidInput, StoreUnavailable

Connection: TypeAlias = "pymysql.Connection[Any]"
Parameters: TypeAlias = Sequence[object] | Mapping[str, object]
HUNG_UP = frozenset({0, 1053, 1152, 1184, 1317, 1927, 2006, 2013, 2055, 3169, 4031})
"""Numbers of errors after which a connection is of no use, and the fate of what was sent on it unknown."""
ANSWER_S = 2.0
"""How long the answer may take that a connection is alive. One that is given up in vain costs another connection."""
TAKEN = 1062
"""The number of the error that a unique index gives."""
SQL_MODE = "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
_EXPECTED = "expected mariadb://user:password@host:port/database"
_NUMBERS = ("connect_timeout", "read_timeout", "write_timeout")
_TEXTS = ("unix_socket", "read_default_file", "read_default_group", "ssl_ca", "ssl_cert", "ssl_key", "bind_address")
_FLAGS = ("ssl_disabled", "ssl_verify_cert", "ssl_verify_identity")
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
_MINE = "@@sql_mode, @@innodb_lock_wait_timeout, @@lock_wait_timeout, @@autocommit"


class Asking(Protocol):
    """What a reading statement can be put to: a pool, or one connection."""

    def rows(self, statement: str, parameters: Parameters = ()) -> list[Any]:
        """Return what it gives, the driver's errors translated."""
        ...


class Source(Asking, Protocol):
    """Connections to read a log with; ``schema`` is the database it is in."""

    schema: str

    def read(self) -> AbstractContextManager[Connection]:
        """Lend one, the driver's errors translated."""
        ...


def run(connection: Connection, statement: str | bytes, parameters: Parameters = ()) -> Cursor:
    """Execute a statement, see ``rendered``, or what that has returned: several with semicolons, see ``several``."""
    cursor = connection.cursor(Cursor)
    text: Any = rendered(statement, parameters) if isinstance(statement, str) else statement
    cursor.execute(text)  # bytes, which the driver sends as they are
    return cursor


def rendered(statement: str, parameters: Parameters = ()) -> bytes:
    """Return the statement with its parameters in their places, ``%s`` or ``%(name)s``.

    Where there are any, a percent sign is written ``%%``. PyMySQL would do it character by character: measured, it
    takes 20 times as long for text, and bytes become twice as many.
    """
    text = statement.encode()
    if not parameters:
        return text
    if isinstance(parameters, Mapping):
        return text % {name.encode(): _literal(value) for name, value in parameters.items()}
    return text % tuple(_literal(value) for value in parameters)


def _literal(value: object) -> bytes:
    if isinstance(value, str):
        return b"'%s'" % _escaped(value.encode())
    if isinstance(value, bytes):
        return b"_binary'%s'" % _escaped(value)
    if isinstance(value, list | tuple):
        return b"(%s)" % b", ".join([_literal(each) for each in cast("Sequence[object]", value)])
    return str(escape_item(value, "utf8mb4")).encode()


def _escaped(value: bytes) -> bytes:
    return value.replace(b"\\", b"\\\\").replace(b"'", b"\\'").replace(b"\0", b"\\0")


def several(connection: Connection) -> bool:
    """Return whether it takes several statements at a time, with semicolons between them; turnlog's own do."""
    return bool(connection.client_flag & CLIENT.MULTI_STATEMENTS)


def in_transaction(connection: Connection) -> bool:
    """Return whether a transaction is open, as the server said last."""
    driver: Any = connection  # types-pymysql does not know of this attribute
    return bool(driver.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)


def is_cut(connection: Connection, error: Exception) -> bool:
    """Return whether ``error`` is the end of the connection, which is closed then."""
    if connection.open and number(error) not in HUNG_UP:
        return False
    drop(connection)
    return True


def number(error: BaseException) -> int:
    """Return the server's or the driver's number of an error, -1 if it has none."""
    found = error.args[0] if error.args else None
    return found if isinstance(found, int) else -1


def configure(connection: Connection, *, timeout_s: float, read_only: bool) -> None:
    """Set what every connection of turnlog's own has."""
    access = "READ ONLY" if read_only else "READ WRITE"
    run(connection, f"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, {access}")
    run(connection, "SET sql_mode = %s, innodb_lock_wait_timeout = %s, lock_wait_timeout = %s", _settings(timeout_s))


def _settings(timeout_s: float) -> tuple[str, int, int]:
    wait_s = max(1, ceil(timeout_s))
    return SQL_MODE, wait_s, wait_s


def ask(connection: Connection) -> None:
    """Have the server answer, before anything is sent that matters.

    Raises:
        pymysql.Error: it has not, in time; the connection is closed then.
    """
    driver: Any = connection
    usual, driver._read_timeout = driver._read_timeout, ANSWER_S  # noqa: SLF001 - PyMySQL has one for all it reads
    try:
        connection.ping(reconnect=False)
    finally:
        driver._read_timeout = usual  # noqa: SLF001 - as above


def commit(connection: Connection) -> None:
    """Commit.

    Raises:
        Lost: the connection broke meanwhile. pymysql.Error: it was not committed.
    """
    try:
        connection.commit()
    except pymysql.Error as error:
        if is_cut(connection, error):
            raise Lost from error
        raise


def undo(connection: Connection) -> None:
    """Roll back; a connection that cannot even do that is closed, never trusted again."""
    if not connection.open or not in_transaction(connection):
        return
    try:
        connection.rollback()
    except pymysql.Error:
        drop(connection)


def drop(connection: Connection) -> None:
    """Close it without a word to the server. Its pool may still call ``close``, which must not be the second time."""
    driver: Any = connection
    driver._force_close()  # noqa: SLF001 - PyMySQL has no public way to do it


def connected(options: Mapping[str, Any]) -> Connection:
    """Connect, in autocommit mode.

    Raises:
        StoreUnavailable: the driver lacks what the server's way of authentication needs.
    """
    flags = CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS  # as SQLAlchemy's connections: an UPDATE counts rows it found
    given: dict[str, Any] = {"connect_timeout": 10, **options, "autocommit": True, "client_flag": flags}
    try:
        connection = _made(given)
    except RuntimeError as error:
        raise StoreUnavailable(f"cannot log in: {error}") from error
    sock = socket_of(connection)
    if sock is not None and sock.family != socket.AF_UNIX:
        for option, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return connection


def _made(given: Mapping[str, Any]) -> Connection:
    """Do as ``pymysql.connect`` does, but quicker where nobody said anything about TLS.

    What a server offers is then taken, unverified; still PyMySQL reads the system's certificates for each connection,
    which is 50 ms of CPU.
    """
    if any(option.startswith(("ssl", "read_default")) for option in given):
        return pymysql.connect(**given)
    connection: Connection = pymysql.connect(**given, ssl_disabled=True, defer_connect=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    driver: Any = connection
    driver.ssl, driver.ctx = True, context
    connection.connect()
    return connection


def socket_of(connection: Connection) -> socket.socket | None:
    """Return what it speaks through."""
    driver: Any = connection
    found: socket.socket | None = driver._sock  # noqa: SLF001 - PyMySQL has no public way to it
    return found


def made_ours(connection: Connection, *, timeout_s: float) -> Callable[[Connection], None]:
    """Have an application's connection behave as ours; return what gives it back as it was."""
    charset = connection.charset
    if charset != "utf8mb4":
        connection.set_character_set("utf8mb4")
    ((*before, autocommit),) = run(connection, f"SELECT {_MINE}").fetchall()
    statement = "SET sql_mode = %s, innodb_lock_wait_timeout = %s, lock_wait_timeout = %s, autocommit = %s"
    wanted = (*_settings(timeout_s), 1)
    if (*before, autocommit) == wanted and charset == "utf8mb4":
        return as_it_is
    run(connection, statement, wanted)

    def restore(lent: Connection) -> None:
        run(lent, statement, (*before, autocommit))
        if charset != "utf8mb4":
            lent.set_character_set(charset)

    return restore


def as_it_is(_: Connection) -> None:
    """Leave a connection as it is."""


def parsed(url: str) -> dict[str, Any]:
    """Return what a URL says, as keywords of ``pymysql.connect``.

    Raises:
        InvalidInput: it is none, names no database, or has an option that is not known.
    """
    try:
        found = make_url(url)
    except (SQLAlchemyError, ValueError):
        raise InvalidInput("url", _EXPECTED) from None
    if not found.database:
        raise InvalidInput("url", f"{_EXPECTED}, with the name of a database")
    parts = {"host": found.host, "port": found.port, "user": found.username, "password": found.password}
    options: dict[str, Any] = {name: value for name, value in parts.items() if value is not None}
    for name, value in found.query.items():
        if name == "charset":  # SQLAlchemy's URLs often have it; turnlog needs one of them
            continue
        options[name] = _option(name, value)
    return {**options, "database": found.database, "charset": "utf8mb4"}


def _option(name: str, value: object) -> object:
    if name in _NUMBERS and isinstance(value, str) and value.isdecimal():
        return int(value)
    if name in _TEXTS and isinstance(value, str):
        return value
    if name in _FLAGS and value in ("true", "false"):
        return value == "true"
    raise InvalidInput("url", f"expected none but {', '.join((*_NUMBERS, *_TEXTS, *_FLAGS))} after '?', got {name!r}")


def quoted(name: str) -> str:
    """Return an identifier as SQL text."""
    return "`" + name.replace("`", "``") + "`"
