"""The upkeep of a log in Redis: what the server keeps, its check, its size, and where erased bytes linger."""

import logging
from time import monotonic, sleep
from typing import NamedTuple

import redis

from turnlog.adapters.redis.log import PAGE, Log
from turnlog.adapters.redis.server import Server
from turnlog.domain.errors import InvalidInput, StoreUnavailable

_log = logging.getLogger("turnlog")
OLDEST = (6, 2)
NAMES = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")
FILES = "the append-only file, until it is rewritten (store.scrub(), or BGREWRITEAOF)"
SNAPSHOTS = "snapshots that the server has saved (dump.rdb), until the next is saved"
COPIES = "replicas and backups: yours to deal with"
BLOCKS = "blocks of the old append-only file, which the file system gave free, and memory that the server gave free"
WAIT_S = 0.02


class Settings(NamedTuple):
    """What of a server's settings decides on what it keeps; ``None``: it may not be asked."""

    appendonly: str | None
    appendfsync: str | None
    maxmemory: str | None
    policy: str | None

    @property
    def known(self) -> bool:
        """Whether the server told."""
        return None not in self

    @property
    def evicts(self) -> bool:
        """Whether the server throws away keys when memory is short."""
        return self.known and self.maxmemory != "0" and self.policy != "noeviction"

    def missing(self) -> list[str]:
        """Return which settings, as they are, lose what was acknowledged when the power fails."""
        found: list[str] = []
        if self.appendonly != "yes":
            found.append(f"appendonly {self.appendonly}")
        elif self.appendfsync != "always":
            found.append(f"appendfsync {self.appendfsync}")
        if self.evicts:
            found.append(f"maxmemory-policy {self.policy}")
        return found


def settings(server: Server) -> Settings:
    """Return the settings; a server, or a proxy before it, may forbid to ask."""
    try:
        answer = server.read("CONFIG", "GET", "*")
    except StoreUnavailable as error:
        if not isinstance(error.__cause__, redis.ResponseError):
            raise
        return Settings(None, None, None, None)
    found = {key.decode(): value.decode() for key, value in zip(answer[::2], answer[1::2], strict=True)}
    return Settings(*(found.get(name) for name in NAMES))


def information(server: Server, section: str) -> dict[str, str]:
    """Return a section of what the server says of itself."""
    lines = server.read("INFO", section).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def reached(server: Server) -> str:
    """Return what a commit survives: what was asked for.

    Raises:
        InvalidInput: it was ``full``, and the server cannot keep that.
        StoreUnavailable: the server is too old.
    """
    number = information(server, "server").get("redis_version", "0")
    if tuple(int(part) for part in number.split(".")[:2] if part.isdecimal()) < OLDEST:
        raise StoreUnavailable(f"{server.name} is Redis {number}; {'.'.join(map(str, OLDEST))} or newer is needed")
    found = settings(server)
    if server.durability == "full" and not server.read_only:
        if not found.known:
            words = "it does not tell its settings (CONFIG GET is forbidden)"
            raise InvalidInput("durability", f"{server.name} cannot be known to keep 'full': {words}; give 'normal'")
        if missing := found.missing():
            words = "appendonly yes, appendfsync always and maxmemory-policy noeviction are needed"
            raise InvalidInput("durability", f"{server.name} cannot keep 'full': {', '.join(missing)} ({words})")
    if found.evicts:
        _log.warning("%s throws away events when memory is short: maxmemory-policy %s", server.name, found.policy)
    return server.durability


def check(log: Log) -> list[str]:
    """Return where positions were lost, or a session's events are not those that the order has of it."""
    found: list[str] = []
    before, counted, after = _ordered(log), 0, ""
    while names := log.names("", after, PAGE):
        lengths = log.server.read_all([("XLEN", log.keys.events(name)) for name in names])
        empty = (name for name, length in zip(names, lengths, strict=True) if length == 0)
        found += [f"session {name!r} has lost its events: were keys evicted, or deleted by hand?" for name in empty]
        counted += sum(lengths)
        after = names[-1]
    if not before <= counted <= _ordered(log):  # others may append meanwhile
        found.append(f"the order has {before} events, the sessions have {counted}")
    last = log.server.read("XREVRANGE", log.keys.order, "+", "-", "COUNT", 1)
    if last and int(last[0][0].partition(b"-")[0]) > log.position():
        found.append("there are events with positions that were not given yet")
    return found


def _ordered(log: Log) -> int:
    """Return how many events the order has, without what says that a session has expired."""
    entries, expired = log.server.read_all((("XLEN", log.keys.order), ("GET", log.keys.expired)))
    return int(entries) - int(expired or 0)


def size_bytes(server: Server) -> int:
    """Return how much memory the server's data takes."""
    return int(information(server, "memory")["used_memory_dataset"])


def lingering(server: Server) -> list[str]:
    """Return where bytes that were just erased may be."""
    kept = information(server, "persistence")
    return [*([FILES] if kept.get("aof_enabled") == "1" else []), SNAPSHOTS, COPIES]


def scrub(server: Server, *, vacuum: bool) -> list[str]:
    """Have the server rewrite its append-only file, and wait for it; return what still holds erased bytes."""
    server.require_writable()
    if not vacuum or information(server, "persistence").get("aof_enabled") != "1":
        return lingering(server)
    try:
        server.read("BGREWRITEAOF")
    except StoreUnavailable as error:
        if "in progress" not in str(error):
            return lingering(server)
    deadline = monotonic() + server.timeout_s
    while True:
        kept = information(server, "persistence")
        if kept["aof_rewrite_in_progress"] == "0" and kept.get("aof_rewrite_scheduled", "0") == "0":
            return [BLOCKS, SNAPSHOTS, COPIES]
        if monotonic() > deadline:
            return lingering(server)
        sleep(WAIT_S)
