"""Talking to a Redis server over connections of redis-py: commands in one packet, answers, what their errors mean.

redis-py is used below its client: that sends a command again when a connection broke, which for an append would be
wrong, and takes longer than the server does. A connection that died while idle is replaced before it is used; a forked
child opens its own.
"""

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import redis
from redis import connection as driver_connection
from redis.backoff import NoBackoff
from redis.retry import Retry

from turnlog.domain.errors import CorruptLog, InvalidInput, StoreUnavailable

Command: TypeAlias = Sequence[bytes | str | int]
MOST_CONNECTIONS = 1 << 31
_PARTS = ("host", "port", "db", "username", "password", "path", "prefix")
_OPTIONS = (
    "socket_connect_timeout",
    "socket_keepalive",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)
_DAMAGED = re.compile(r"WRONGTYPE|invalid stream ID|syntax error", re.IGNORECASE)


class Cut(Exception):
    """The connection broke after the commands were sent: it is not known whether they were executed."""


class Unsent(Exception):
    """The server could not be reached, or would not listen: nothing was executed."""


class Wire:
    """Connections to one server: at most ``size``, which are waited for, and others for whoever keeps one for long."""

    def __init__(self, options: dict[str, Any], *, timeout_s: float, size: int) -> None:
        host, port = options.get("host", "localhost"), options.get("port", 6379)
        self.name = f"redis {host}:{port}"
        given = {"socket_connect_timeout": min(timeout_s, 10.0), **options}
        common: dict[str, Any] = {
            **given,
            "socket_timeout": max(timeout_s / 3, 0.5),  # a swallowed connection is given up, and there is time left
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "decode_responses": False,
            "health_check_interval": 0,
        }
        driver: Any = redis
        self._pool: Any = driver.BlockingConnectionPool(max_connections=size, timeout=timeout_s, **common)
        self._lasting: Any = driver.ConnectionPool(max_connections=MOST_CONNECTIONS, **common)
        self._closed = False

    def close(self) -> None:
        """Close every connection: those that are in use as they come back."""
        self._closed = True
        for pool in (self._pool, self._lasting):
            with suppress(redis.RedisError, OSError):
                pool.disconnect(inuse_connections=False)

    # --- talking ------------------------------------------------------------------------------------------------------

    def one(self, command: Command) -> Any:
        """Send one command and return the answer.

        Raises:
            Cut, Unsent; redis.ResponseError: the server refused it.
        """
        return raised(self.several((command,))[0])

    def several(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one packet and return the answers; a refusal is among them as a ``redis.ResponseError``."""
        with self._lent(self._pool) as connection:
            return talk(connection, commands)

    @contextmanager
    def lasting(self) -> Generator[Any, None, None]:
        """Lend a connection for as long as it takes; see ``talk``."""
        with self._lent(self._lasting) as connection:
            yield connection

    @contextmanager
    def _lent(self, pool: Any) -> Generator[Any, None, None]:
        if self._closed:
            raise StoreUnavailable(f"{self.name}: the store is closed")
        try:
            connection = pool.get_connection()
        except (redis.RedisError, OSError) as error:
            raise Unsent(str(error)) from error
        try:
            yield connection
        finally:
            if self._closed:
                connection.disconnect()
            pool.release(connection)


def talk(connection: Any, commands: Sequence[Command]) -> list[Any]:
    """Send commands on a connection; see ``Wire.several``."""
    try:
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        answers = [_answer(connection) for _ in commands]
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        connection.disconnect()
        raise Cut(str(error)) from error
    except BaseException:  # interrupted: an answer that nobody has read must not be taken for that of the next command
        connection.disconnect()
        raise
    refused = answers[0]
    if isinstance(refused, redis.BusyLoadingError):
        raise Unsent(str(refused)) from refused
    return answers


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response(disconnect_on_error=True)
    except (redis.ResponseError, redis.BusyLoadingError) as refused:
        return refused


def raised(answer: Any) -> Any:
    """Return an answer; raise it where it is a refusal."""
    if isinstance(answer, Exception):
        raise answer
    return answer


@contextmanager
def translating(name: str) -> Generator[None, None, None]:
    """Turn errors of talking to the server ``name`` into turnlog's."""
    try:
        yield
    except (Cut, Unsent) as error:
        raise StoreUnavailable(f"{name}: {error}") from (error.__cause__ or error)
    except redis.ResponseError as error:
        kind = CorruptLog if _DAMAGED.search(str(error)) else StoreUnavailable
        raise kind(f"{name}: {error}") from error
    except redis.RedisError as error:
        raise StoreUnavailable(f"{name}: {error}") from error


def parsed(url: str) -> dict[str, Any]:
    """Return what a URL (``redis://``, ``rediss://``) says, as keywords of a connection.

    Raises:
        InvalidInput: it is none, or has an option that is not known.
    """
    expected = "expected redis://user:password@host:port/number-of-database (rediss:// for TLS)"
    try:
        parsing: Any = driver_connection
        found: dict[str, Any] = parsing.parse_url(url)
    except (ValueError, TypeError):
        raise InvalidInput("url", expected) from None
    for name in found:
        if name not in (*_PARTS, *_OPTIONS, "connection_class"):
            raise InvalidInput("url", f"expected none but prefix, {', '.join(_OPTIONS)} after '?', got {name!r:.60}")
    return found
