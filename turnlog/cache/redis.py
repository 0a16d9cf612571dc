"""Answers on a Redis server, which any number of machines may share.

Each method is one command or one script, which Redis runs alone; what deletes a scope goes through the keys' names in
two passes. Redis expires answers and leases by itself. How durable they are is the server's to say; one that evicts
keys evicts answers.

A key's name holds its scope, so that a scope is found without an index: a server that evicts could evict the index
alone, and then an answer that was to be forgotten would not be found. Names are looked through by SCAN, never by KEYS.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl

from turnlog.cache.keys import Key
from turnlog.cache.storage import Claim, Lease, Missing
from turnlog.domain.errors import InvalidInput, StoreUnavailable

_CLAIM = """
local entry = redis.call('GET', KEYS[1])
if entry then return entry end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[2]) == ARGV[1] and 1 or 0
"""
_RENEW = """
for n, lease in ipairs(KEYS) do
  if redis.call('GET', lease) == ARGV[n + 1] then redis.call('PEXPIRE', lease, ARGV[1]) end
end
"""
_KEEP = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
if ARGV[3] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) else redis.call('SET', KEYS[1], ARGV[2]) end
return 1
"""
_DELETE_IF = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"
_SCANNED = 5000


class Client(Protocol):
    """What is used of ``redis.Redis``; its own types do not tell what a command gives back."""

    def execute_command(self, *command: str | bytes | int) -> Any:
        """Send a command and return its reply."""
        ...

    def close(self) -> None:
        """Close its connections."""
        ...


class RedisStorage:
    """See ``Storage``; keys' names begin with ``prefix``."""

    answers_at_once = False

    def __init__(self, url: str, *, prefix: str, timeout_s: float) -> None:
        self._client, self.name, self._errors = _connected(url, timeout_s)
        self._prefix = prefix
        self._closed = False

    def read(self, key: Key) -> bytes | Missing:
        """See ``Storage``. What has expired is absent to Redis."""
        entry = self._ask("GET", self._name("a", key))
        return Missing.ABSENT if entry is None else bytes(entry)

    def write(self, key: Key, entry: bytes, ttl_s: float | None) -> None:
        """See ``Storage``."""
        self._ask("SET", self._name("a", key), entry, *(() if ttl_s is None else ("PX", _ms(ttl_s))))

    def claim(self, lease: Lease, lease_s: float) -> bytes | Claim:
        """See ``Storage``."""
        said = self._run(_CLAIM, self._both(lease.key), lease.token, _ms(lease_s))
        if isinstance(said, bytes):
            return said
        return Claim.HELD if said else Claim.BUSY

    def renew(self, leases: Sequence[Lease], lease_s: float) -> None:
        """See ``Storage``."""
        self._run(
            _RENEW, [self._name("l", lease.key) for lease in leases], _ms(lease_s), *(one.token for one in leases)
        )

    def keep(self, lease: Lease, entry: bytes, ttl_s: float | None) -> bool:
        """See ``Storage``."""
        lasting = () if ttl_s is None else (_ms(ttl_s),)
        return bool(self._run(_KEEP, self._both(lease.key), lease.token, entry, *lasting))

    def release(self, lease: Lease) -> None:
        """See ``Storage``."""
        self._run(_DELETE_IF, [self._name("l", lease.key)], lease.token)

    def drop(self, key: Key, entry: bytes) -> None:
        """See ``Storage``."""
        self._run(_DELETE_IF, [self._name("a", key)], entry)

    def delete(self, key: Key) -> bool:
        """See ``Storage``."""
        self._ask("DEL", self._name("l", key))
        return bool(self._ask("DEL", self._name("a", key)))

    def forget(self, path: str) -> int:
        """See ``Storage``. Leases first: after that pass no answer comes up any more that was begun before it."""
        self._unlink(f"{self._prefix}:l:{path}*")
        return self._unlink(f"{self._prefix}:a:{path}*")

    def clear(self) -> int:
        """See ``Storage``."""
        return self.forget("")

    def purge(self) -> int:
        """Delete nothing: Redis has."""
        return 0

    def close(self) -> None:
        """See ``Storage``."""
        self._closed = True
        self._client.close()

    def _unlink(self, pattern: str) -> int:
        cursor, deleted = 0, 0
        while True:
            cursor, found = self._ask("SCAN", cursor, "MATCH", pattern, "COUNT", _SCANNED)
            if found:
                deleted += int(self._ask("UNLINK", *found))
            if int(cursor) == 0:
                return deleted

    def _name(self, kind: str, key: Key) -> str:
        return f"{self._prefix}:{kind}:{key.path}{key.digest.hex()}"

    def _both(self, key: Key) -> list[str]:
        return [self._name("a", key), self._name("l", key)]

    def _run(self, script: str, keys: Sequence[str], *values: str | bytes | int) -> Any:
        return self._ask("EVAL", script, len(keys), *chain(keys, values))

    def _ask(self, *command: str | bytes | int) -> Any:
        """Send a command; the driver's errors become turnlog's here."""
        if self._closed:
            raise StoreUnavailable(f"{self.name} is closed")
        try:
            return self._client.execute_command(*command)
        except self._errors as error:
            words = str(error).partition(", with args")[0][:200]  # an unknown command is quoted with what it was given
            raise StoreUnavailable(f"{self.name}: {words or type(error).__name__}") from error


def _connected(url: str, timeout_s: float) -> tuple[Client, str, type[Exception]]:
    """Return a client, which connects when it is used; what to call the server; and the driver's errors."""
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise InvalidInput("url", "redis:// needs the driver: pip install 'turnlog[redis]'") from error
    driver = cast("Any", redis)
    if not all(name.startswith("ssl_") for name, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True)):
        raise InvalidInput("url", "expected nothing after '?' but options that begin with ssl_")
    try:
        client = driver.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=cast("Any", Retry)(cast("Any", NoBackoff)(), 1),
            protocol=2,
        )
    except (ValueError, TypeError):
        client = None
    if client is None:  # said here: the driver's error may quote the URL, and so a password
        raise InvalidInput("url", "expected redis://[user:password@]host[:port][/database] or unix://path")
    about: dict[str, Any] = client.connection_pool.connection_kwargs
    where = about.get("path") or f"{about.get('host')}:{about.get('port', 6379)}/{about.get('db', 0)}"
    return client, f"redis {where}", driver.RedisError


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
