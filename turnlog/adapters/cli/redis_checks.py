"""What ``doctor`` looks at on a Redis server: settings that lose what was acknowledged, memory, clock and syncs."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from msgspec.structs import replace

from turnlog.adapters.cli import findings as shared
from turnlog.adapters.cli.findings import Finding, size, unless
from turnlog.adapters.redis.cluster import Cluster
from turnlog.adapters.redis.durability import Asked, Settings, information, settings
from turnlog.adapters.redis.server import Server

FULL = 0.8
"""Of the memory that a server may use."""


class Log(Protocol):
    """What is looked at of the store's recorder."""

    server: Server | Cluster
    durability: str


def findings(recorder: Log) -> Iterator[Finding]:
    """Yield what there is to say of the server under a log, or of every master of a cluster."""
    server = recorder.server
    yield Finding("ok", "durability", recorder.durability)
    nodes = server.nodes()
    for node in nodes:
        for finding in _of(node, copied=isinstance(server, Cluster)):
            yield finding if len(nodes) == 1 else replace(finding, name=f"{node.name}: {finding.name}")
    if not server.read_only:
        found = [settings(node) for node in nodes]
        synced = all(each.appendonly == "yes" and each.appendfsync == "always" for each in found)
        yield commit_time(server, synced=synced)


def _of(node: Asked, *, copied: bool) -> Iterator[Finding]:
    sections = ("server", "persistence", "memory", "replication", "clients")
    told = {name: value for section in sections for name, value in information(node, section).items()}
    yield Finding("ok", "Redis", told["redis_version"])
    found = settings(node)
    yield from promises(found) if found.known else unknown()
    yield from written(told)
    yield from memory(found, int(told["used_memory"]))
    yield role(told, copied=copied)
    yield shared.clock(lambda: _time(node))
    yield shared.connections(int(told["connected_clients"]), int(told.get("maxclients", 10_000)))


def unknown() -> Iterator[Finding]:
    """Say that nothing is known of the settings."""
    why = "whether acknowledged events outlive a crash cannot be told from here"
    do = "Allow CONFIG GET to this user, or ask whoever runs the server"
    yield Finding("warning", "settings", "the server does not tell them (CONFIG GET)", why=why, do=do)


def promises(found: Settings) -> Iterator[Finding]:
    """Judge the settings on which the promise of an append rests."""
    why = "without the append-only file a crash of the server loses all since the last snapshot"
    do = "CONFIG SET appendonly yes, and CONFIG REWRITE"
    on = found.appendonly == "yes"
    yield unless(on, Finding("bad", "appendonly", f"{found.appendonly}", "yes", why, do))
    why = {
        "everysec": "about a second of acknowledged events is lost with the power, or the server",
        "no": "acknowledged events are lost with the power, as many as the system had not written yet",
    }.get(found.appendfsync or "", "")
    do = "CONFIG SET appendfsync always, and CONFIG REWRITE"
    synced = found.appendfsync == "always"
    yield unless(synced, Finding("bad", "appendfsync", f"{found.appendfsync}", "always", why, do))
    why = "when memory is short the server throws away keys: sessions lose events, without a word"
    do = "CONFIG SET maxmemory-policy noeviction, and CONFIG REWRITE"
    limited = found.maxmemory != "0"
    worse = Finding("bad" if limited else "warning", "maxmemory-policy", f"{found.policy}", "noeviction", why, do)
    yield unless(found.policy == "noeviction", worse)


def written(told: Mapping[str, str]) -> Iterator[Finding]:
    """Judge whether the server could write its files last time."""
    for name, what in (("aof_last_write_status", "append-only file"), ("aof_last_bgrewrite_status", "its rewriting")):
        if name in told:
            why = "the server refuses to write until it can"
            yield unless(
                told[name] == "ok", Finding("bad", what, told[name], "ok", why, "Look at the disk, and its log")
            )


def memory(found: Settings, used: int) -> Iterator[Finding]:
    """Judge how much room there is: all of a log is in memory."""
    most = int(found.maxmemory or 0)
    if most == 0:
        yield Finding("ok", "memory", f"{size(used)} in use, no limit")
        return
    why = "a server whose memory is full refuses to append"
    worse = Finding(
        "warning", "memory", f"{size(used)} of {size(most)} in use", f"at most {FULL:.0%}", why, "Allow more"
    )
    yield unless(used <= FULL * most, worse)


def role(told: Mapping[str, str], *, copied: bool) -> Finding:
    """Judge whether the server may be written, and whether its data is anywhere else."""
    if told["role"] != "master":
        why = "nothing can be appended"
        return Finding("warning", "role", told["role"], "master", why, "Name the master in the URL")
    replicas = told.get("connected_slaves", "0")
    why = "when it fails its part of the log is not there; nothing that is written now is on two machines"
    worse = Finding("bad", "role", f"master, {replicas} replicas", "a replica", why, "Add one: CLUSTER REPLICATE")
    return unless(replicas != "0" or not copied, worse)


def commit_time(server: Server | Cluster, *, synced: bool) -> Finding:
    """Measure a write beside a read, on a key of its own that is deleted afterwards."""
    key = server.keys.head + b":doctor"
    try:
        durable_s = shared.timed(lambda: server.write("SET", key, "1"))
        unsynced_s = shared.timed(lambda: server.read("GET", key))
    finally:
        server.write("DEL", key)
    return shared.commits(durable_s, unsynced_s, synced=synced)


def _time(node: Asked) -> datetime:
    seconds, microseconds = node.read("TIME")
    return datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(microseconds))
