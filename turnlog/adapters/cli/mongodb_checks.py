"""What ``doctor`` looks at on MongoDB: what the server promises, its members, its clock, the time of a commit.

A commit is measured on a collection of its own, which is dropped afterwards. What a user may not look at is said.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from secrets import token_hex
from typing import Any, Protocol

from pymongo.errors import OperationFailure, PyMongoError
from pymongo.write_concern import WriteConcern

from turnlog.adapters.cli import findings as shared
from turnlog.adapters.cli.findings import Finding, Transaction, unless
from turnlog.adapters.mongodb.client import Client

MAINTAINED = {5: date(2024, 10, 31), 6: date(2025, 7, 31), 7: date(2027, 8, 31)}
"""By major version, https://www.mongodb.com/legal/support-policy/lifecycles; of later ones nothing is said."""
SHORT_OPLOG_H = 24.0
_SECONDS_OF_HOUR = 3600


class Log(Protocol):
    """What is looked at of the store's recorder."""

    client: Client
    durability: str


def findings(recorder: Log) -> Iterator[Finding]:
    """Yield what there is to say of the server under a log."""
    client = recorder.client
    with client.translating():
        hello = client.client.admin.command("hello")
    yield version(client.server.version, datetime.now(UTC).date())
    yield durability(recorder.durability, replicated=client.server.replicated)
    yield from topology(hello, replicated=client.server.replicated)
    yield from _engine(client)
    if client.server.replicated:
        yield from _oplog(client)
    yield shared.clock(lambda: _now(client))
    if not client.read_only:
        with client.translating():
            yield commit_time(client)
    yield from _activity(client)


def version(number: str, today: date) -> Finding:
    """Judge the server's version; one that is too old is refused by the client."""
    until = MAINTAINED.get(int(number.partition(".")[0]))
    why = f"it was maintained until {until}: no corrections come any more"
    worse = Finding("warning", "MongoDB", number, "a version that is maintained", why, "Upgrade the server")
    return unless(until is None or today <= until, worse)


def durability(promised: str, *, replicated: bool) -> Finding:
    """Say what turnlog's commits survive: its own write concern decides that, not the server's default."""
    by = "a majority's journal" if replicated else "the server's journal"
    if promised != "full":
        by = "a majority of the members" if replicated else "the server, not yet its journal"
    return Finding("ok", "durability", f"{promised}: acknowledged by {by}")


def topology(hello: Mapping[str, Any], *, replicated: bool) -> Iterator[Finding]:
    """Judge of how many members the server is part."""
    if not replicated:
        why = "every process folds views of its own from the whole log, and looks for news instead of being woken"
        do = "Start mongod with --replSet NAME and call rs.initiate() once; one member is enough"
        yield Finding("warning", "replica set", "none: a standalone server", "a replica set", why, do)
        return
    members, arbiters = list(hello.get("hosts", ())), list(hello.get("arbiters", ()))
    words = f"{hello.get('setName', 'behind mongos')}, {len(members)} members with data"
    if arbiters:
        why = "with one of those down no majority can store anything: appends wait until they time out"
        worse = f"{words}, {len(arbiters)} arbiters"
        yield Finding("warning", "replica set", worse, "no arbiters", why, "Put a member with data in its place")
    elif len(members) == 1:
        why = "the log is on one machine; when that is away, so is the store"
        yield Finding("ok", "replica set", f"{words}: {why}")
    else:
        yield Finding("ok", "replica set", words)


def engine(status: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge whether what is written stays."""
    found = status.get("storageEngine", {})
    name = str(found.get("name", "not told"))
    why = "all of it ends with the process"
    worse = Finding("bad", "storage engine", name, "wiredTiger", why, "Start the server with that")
    yield unless(found.get("persistent", True), worse)
    if options.get("storage", {}).get("journal", {}).get("enabled") is False:
        why = "what was acknowledged since the last checkpoint is lost when the server ends"
        yield Finding("bad", "journal", "off", "on", why, "Start the server without --nojournal")


def oplog(hours: float) -> Finding:
    """Judge for how long the oplog reaches back."""
    worse = Finding(
        "warning",
        "oplog",
        f"it reaches back {hours:.1f} h",
        f"at least {SHORT_OPLOG_H:g} h",
        "a member that is away for longer has to copy everything anew; waiting readers do not depend on it",
        "Make it larger: replSetResizeOplog",
    )
    return unless(hours >= SHORT_OPLOG_H, worse)


def commit_time(client: Client) -> Finding:
    """Measure what an append waits for at its end, and the same without waiting."""
    name = f"turnlog_doctor_{token_hex(4)}"
    durable = client.collection(name)
    quick = durable.with_options(write_concern=WriteConcern(w=1, j=False))
    try:
        durable_s = shared.timed(lambda: durable.insert_one({}))
        unsynced_s = shared.timed(lambda: quick.insert_one({}))
    finally:
        with suppress(PyMongoError):
            durable.drop()
    return shared.commits(durable_s, unsynced_s, synced=client.durability == "full")


def _now(client: Client) -> datetime:
    said: datetime = client.client.admin.command("hello")["localTime"]
    return said.replace(tzinfo=UTC)


def _engine(client: Client) -> Iterator[Finding]:
    status, refused = _asked(client, "serverStatus")
    options, _ = _asked(client, "getCmdLineOpts")
    if refused:
        yield refused
        return
    yield from engine(status, options.get("parsed", {}))
    used = status.get("connections", {})
    if used:
        yield shared.connections(int(used["current"]), int(used["current"]) + int(used["available"]))


def _oplog(client: Client) -> Iterator[Finding]:
    entries = client.client["local"]["oplog.rs"]
    try:
        ends = [entries.find_one({}, {"ts": 1}, sort=[("$natural", way)]) for way in (1, -1)]
    except OperationFailure as error:
        yield Finding("warning", "oplog", f"cannot be looked at: {error.details}", do="Grant read on local")
        return
    first, last = (end["ts"].time if end else 0 for end in ends)
    yield oplog((last - first) / _SECONDS_OF_HOUR)


def _activity(client: Client) -> Iterator[Finding]:
    """Judge open transactions; only those of this user, where the others' may not be seen."""
    try:
        found = list(client.client.admin.aggregate([{"$currentOp": {"idleSessions": True, "allUsers": True}}]))
    except OperationFailure:
        yield Finding("warning", "open transactions", "cannot be looked at", do="Grant clusterMonitor")
        return
    opened: list[Transaction] = []
    for one in found:
        age = one.get("transaction", {}).get("timeOpenMicros")
        if age is not None:
            who = f"session {one.get('lsid', {}).get('id')} of {one.get('appName', 'an application')}"
            opened.append(Transaction(who, age / 1_000_000, "Have it commit; or killSessions"))
    yield from shared.too_long(opened)


def _asked(client: Client, command: str) -> tuple[dict[str, Any], Finding | None]:
    try:
        return client.client.admin.command(command), None
    except OperationFailure as error:
        words = f"{command} is not allowed ({error.code})"
        return {}, Finding("warning", "server", words, do="Grant clusterMonitor to this user")
