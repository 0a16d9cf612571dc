"""The upkeep of a log in Redis: what the server keeps, its check, its size, and where erased bytes linger."""

import logging
from time import monotonic, sleep
from typing import Any, NamedTuple, Protocol

import redis

from turnlog.adapters.redis.cluster import Cluster, Node
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


class Asked(Protocol):
    """A server that can be asked for what it is set to."""

    name: str
    timeout_s: float

    def read(self, *command: bytes | str | int) -> Any:
        """Return the answer to a command."""
        ...


def settings(node: Asked) -> Settings:
    """Return the settings; a server, or a proxy before it, may forbid to ask."""
    try:
        answer = node.read("CONFIG", "GET", "*")
    except StoreUnavailable as error:
        if not isinstance(error.__cause__, redis.ResponseError):
            raise
        return Settings(None, None, None, None)
    found = {key.decode(): value.decode() for key, value in zip(answer[::2], answer[1::2], strict=True)}
    return Settings(*(found.get(name) for name in NAMES))


def information(node: Asked, section: str) -> dict[str, str]:
    """Return a section of what the server says of itself."""
    lines = node.read("INFO", section).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def reached(server: Server | Cluster) -> str:
    """Return what a commit survives: what was asked for.

    Raises:
        InvalidInput: it was ``full``, and the server cannot keep that.
        StoreUnavailable: the server is too old.
    """
    for node in server.nodes(replicas=server.durability == "full"):
        number = information(node, "server").get("redis_version", "0")
        if tuple(int(part) for part in number.split(".")[:2] if part.isdecimal()) < OLDEST:
            raise StoreUnavailable(f"{node.name} is Redis {number}; {'.'.join(map(str, OLDEST))} or newer is needed")
        found = settings(node)
        if server.durability == "full" and not server.read_only:
            _require_full(node, found, copied=isinstance(node, Node) and not node.is_replica)
        if found.evicts:
            _log.warning("%s throws away events when memory is short: maxmemory-policy %s", node.name, found.policy)
    return server.durability


def _require_full(node: Asked, found: Settings, *, copied: bool) -> None:
    if not found.known:
        words = "it does not tell its settings (CONFIG GET is forbidden)"
        raise InvalidInput("durability", f"{node.name} cannot be known to keep 'full': {words}; give 'normal'")
    missing = found.missing()
    if copied and information(node, "replication").get("connected_slaves", "0") == "0":
        missing.append("no replica")
    if missing:
        words = "appendonly yes, appendfsync always and maxmemory-policy noeviction are needed"
        words += ", and a replica of each master of a cluster" if copied else ""
        raise InvalidInput("durability", f"{node.name} cannot keep 'full': {', '.join(missing)} ({words})")


def check(log: Log) -> list[str]:
    """Return where positions were lost, or a session's events are not those that the order has of it."""
    return [words for part in getattr(log, "parts", (log,)) for words in _check(part)]


def _check(log: Log) -> list[str]:
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


def size_bytes(server: Server | Cluster) -> int:
    """Return how much memory the data takes, on all nodes."""
    return sum(int(information(node, "memory")["used_memory_dataset"]) for node in server.nodes())


def lingering(server: Server | Cluster) -> list[str]:
    """Return where bytes that were just erased may be."""
    kept = [information(node, "persistence").get("aof_enabled") for node in server.nodes()]
    return [*([FILES] if "1" in kept else []), SNAPSHOTS, COPIES]


def scrub(server: Server | Cluster, *, vacuum: bool) -> list[str]:
    """Have append-only files rewritten, and wait for it; return what still holds erased bytes."""
    server.require_writable()
    if vacuum and all(_rewritten(node) for node in server.nodes()):
        return [BLOCKS, SNAPSHOTS, COPIES]
    return lingering(server)


def _rewritten(node: Asked) -> bool:
    """Rewrite a node's append-only file; return whether it is done."""
    if information(node, "persistence").get("aof_enabled") != "1":
        return True
    try:
        node.read("BGREWRITEAOF")
    except StoreUnavailable as error:
        if "in progress" not in str(error):
            return False
    deadline = monotonic() + node.timeout_s
    while monotonic() < deadline:
        kept = information(node, "persistence")
        if kept["aof_rewrite_in_progress"] == "0" and kept.get("aof_rewrite_scheduled", "0") == "0":
            return True
        sleep(WAIT_S)
    return False
