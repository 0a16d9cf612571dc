"""From a URL to a cache. The only place that names every backend; each is imported when it is asked for."""

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from turnlog import inputs
from turnlog.adapters.connect import sqlite_path
from turnlog.cache.answers import Answers, time_to_live
from turnlog.cache.response_cache import ResponseCache
from turnlog.cache.storage import Clock, Storage
from turnlog.domain.errors import InvalidInput

_LONGEST_S = 3600.0
_MEMORY_ENTRIES, _SQLITE_ENTRIES, _MOST_ENTRIES = 1_000, 100_000, 10**9
_MEMORY_BYTES, _MOST_BYTES = 64 * 2**20, 2**40
_VALUE_BYTES, _MOST_VALUE_BYTES = 2**20, 2**29
_SUM_BYTES = 32
_PREFIX = "turnlog:cache"
_PREFIXES = re.compile(r"[A-Za-z0-9_.:{}-]{1,100}")


def open(  # noqa: A001 - turnlog.cache.open, as turnlog.open
    url: str,
    *,
    ttl_s: float | None = 3600.0,
    max_value_bytes: int = _VALUE_BYTES,
    lease_s: float = 30.0,
    rest_s: float = 5.0,
    clock: Callable[[], datetime] | None = None,
    **options: Any,
) -> ResponseCache:
    """Open a cache. Nothing is connected or created before it is used.

    Args:
        url: ``memory://``, ``sqlite:///path`` (four slashes for an absolute path), ``redis://host:port/database``
            (also ``rediss://`` and ``unix://path``).
        ttl_s: how long answers are kept, in seconds, unless a call says otherwise; None: for ever.
        max_value_bytes: answers with more bytes of JSON are not stored.
        lease_s: how long, after the end of a process that was making an answer, others still wait for it.
        rest_s: how long the storage is not asked after an error.
        clock: gives the time, aware; for tests; not for Redis, which tells the time itself.
        options: memory: ``max_entries`` (1,000), ``max_bytes`` (64 MiB). SQLite: ``max_entries`` (100,000),
            ``timeout_s`` (2: how long to wait for other writers). Redis: ``timeout_s`` (2: for a reply), ``prefix``
            (``turnlog:cache``: how its keys' names begin).

    Raises:
        InvalidInput: an argument is not understood, or the driver is missing.
    """
    if clock is not None and not callable(clock):
        raise InvalidInput("clock", "expected a function without arguments")
    settings: dict[str, Any] = {
        "ttl_s": time_to_live(ttl_s),
        "max_value_bytes": inputs.number("max_value_bytes", max_value_bytes, least=1, most=_MOST_VALUE_BYTES),
        "lease_s": inputs.seconds("lease_s", lease_s, most=_LONGEST_S),
        "rest_s": inputs.seconds("rest_s", rest_s, most=_LONGEST_S),
    }
    storage = _storage(inputs.text("url", url), clock, settings["max_value_bytes"], options)
    if options:
        storage.close()
        raise InvalidInput(next(iter(options)), "is not an option of this cache")
    return ResponseCache(Answers(storage, **settings))


def _storage(url: str, clock: Callable[[], datetime] | None, largest: int, options: dict[str, Any]) -> Storage:
    match url.partition("://")[0]:
        case "memory":
            if url != "memory://":
                raise InvalidInput("url", "expected memory:// and nothing after it")
            return _memory(_seconds_of(clock), largest, options)
        case "sqlite":
            return _sqlite(url, _seconds_of(clock), options)
        case "redis" | "rediss" | "unix":
            if clock is not None:
                raise InvalidInput("clock", "expected none: Redis tells the time itself")
            return _redis(url, options)
        case _:
            raise InvalidInput("url", "expected one of memory://, sqlite:///path, redis://host")


def _memory(clock: Clock, largest: int, options: dict[str, Any]) -> Storage:
    from turnlog.cache.memory import MemoryStorage

    max_bytes = inputs.number("max_bytes", options.pop("max_bytes", _MEMORY_BYTES), least=1, most=_MOST_BYTES)
    if max_bytes < largest + _SUM_BYTES:
        raise InvalidInput("max_bytes", f"expected room for one answer of max_value_bytes, {largest + _SUM_BYTES}")
    return MemoryStorage(clock=clock, max_entries=_entries(options, _MEMORY_ENTRIES), max_bytes=max_bytes)


def _sqlite(url: str, clock: Clock, options: dict[str, Any]) -> Storage:
    from turnlog.adapters.sqlite.database import Database
    from turnlog.cache.sqlite import SQLiteStorage

    max_entries = _entries(options, _SQLITE_ENTRIES)
    database = Database(sqlite_path(url), durability="full", timeout_s=_timeout(options))
    return SQLiteStorage(database, clock=clock, max_entries=max_entries)


def _redis(url: str, options: dict[str, Any]) -> Storage:
    from turnlog.cache.redis import RedisStorage

    prefix = inputs.text("prefix", options.pop("prefix", _PREFIX))
    if not _PREFIXES.fullmatch(prefix):
        raise InvalidInput("prefix", "expected 1 to 100 letters, digits or any of _ . : - { }")
    return RedisStorage(url, prefix=prefix, timeout_s=_timeout(options))


def _entries(options: dict[str, Any], usual: int) -> int:
    return inputs.number("max_entries", options.pop("max_entries", usual), least=1, most=_MOST_ENTRIES)


def _timeout(options: dict[str, Any]) -> float:
    return inputs.seconds("timeout_s", options.pop("timeout_s", 2.0), most=_LONGEST_S)


def _seconds_of(clock: Callable[[], datetime] | None) -> Clock:
    return time.time if clock is None else lambda: clock().timestamp()
