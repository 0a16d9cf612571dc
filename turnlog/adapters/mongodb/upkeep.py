"""The upkeep of a log in MongoDB: its check, its size, what the server promises, and where erased bytes linger."""

from typing import Any

from pymongo.errors import OperationFailure

from turnlog.adapters.mongodb.client import Client
from turnlog.adapters.names import Names

JOURNAL = "the journal of the server, until it is overwritten"
OPLOG = "the oplog of the replica set, until it has gone round, and members that are away: yours to deal with"
OLD = "old versions of documents, until a checkpoint of the server (a minute) has passed"
FREE = "blocks of the collections' files that are free (scrub(vacuum=True) compacts them)"
FILES = "blocks of the collections' files, which the server or the file system gave free"
EARLIER = "views of the time when the server was of a replica set, until it is again and they are caught up"
BACKUPS = "backups: yours to deal with"
_NOT_HERE = frozenset({13, 26, 115, 141, 20, 127})
"""Codes of errors: not allowed, no such collection, not on this server."""


def check(client: Client, names: Names) -> list[str]:
    """Return what ``validate`` finds, and where numbers and positions do not follow each other."""
    found: list[str] = []
    with client.translating():
        client.end_abandoned(now=True)
        said = client.database.command("validate", names.events, background=True)  # which keeps nobody out
        found += [f"{names.events}: {words}" for words in said.get("errors", ())]
        events = client.collection(names.events)
        astray = events.count_documents({"_id": {"$gt": 0}, "stream": {"$not": {"$regex": "^[^/]+/"}}})
        found += [f"there are {astray} commits of no session"] if astray else []
        found += _gaps(client, names)
        found += _lost(client, names)
    return found


def _gaps(client: Client, names: Names) -> list[str]:
    """Walk over the log's numbers and positions."""
    walked: Any = client.collection(names.events).aggregate(
        [
            {"$sort": {"_id": 1}},
            {"$project": {"position": 1, "n": {"$size": {"$ifNull": ["$events", []]}}}},
        ]
    )
    before = {"_id": -1, "position": 0}
    found: list[str] = []
    for one in walked:
        if one["_id"] != before["_id"] + 1 or one["position"] != before["position"] + one["n"]:
            found.append(f"commit {one['_id']} does not follow {before['_id']}: something is missing")
        before = one
    return found[:100]


def _lost(client: Client, names: Names) -> list[str]:
    """Count keys of streams that have no events."""
    walked: Any = client.collection(names.events).aggregate(
        [
            {"$match": {"keys": {"$exists": True}}},
            {"$group": {"_id": "$stream", "n": {"$sum": {"$size": "$keys"}}}},
        ]
    )
    events = client.collection(names.events)
    n = sum(one["n"] for one in walked if events.find_one({"stream": one["_id"], "last": {"$gt": 0}}, {}) is None)
    return [f"there are {n} keys of no session"] if n else []


def size_bytes(client: Client, names: Names) -> int:
    """Return how much the collections and their indexes use."""
    total = 0
    with client.translating():
        there = set(client.database.list_collection_names())
        for name in names.tables():
            if name in there:
                said = client.database.command("collStats", name)
                total += int(said["storageSize"]) + int(said["totalIndexSize"])
    return total


def lingering(client: Client, names: Names) -> list[str]:
    """Return where bytes that were just erased may be."""
    return [f"{OLD}, in {client.name}", *_beyond(client, names)]


def scrub(client: Client, names: Names, *, vacuum: bool) -> list[str]:
    """Write a checkpoint and, with ``vacuum``, compact the collections, where that is allowed.

    Returns what still holds erased bytes.
    """
    client.require_writable()
    with client.translating():
        client.end_abandoned(now=True)
        synced = _tried(client.client.admin, "fsync", 1)
        compacted = vacuum and all(
            _tried(client.database, "compact", name, force=True)
            for name in names.tables()
            if name in client.database.list_collection_names()
        )
    return [FILES if compacted else FREE, *([] if synced else [OLD]), *_beyond(client, names)]


def _tried(database: Any, command: str, value: object, **options: Any) -> bool:
    """Run a command that a user may lack the right to; return whether it was done."""
    try:
        database.command(command, value, **options)
    except OperationFailure as error:
        if error.code not in _NOT_HERE:
            raise
        return False
    return True


def _beyond(client: Client, names: Names) -> list[str]:
    """Return what no command of ours reaches."""
    return [JOURNAL, *([OPLOG] if client.server.replicated else _earlier(client, names)), BACKUPS]


def _earlier(client: Client, names: Names) -> list[str]:
    """Return whether a server that stands alone has views of the time when it did not."""
    with client.translating():
        kept = client.collection(names.views).find_one({"_id": {"$regex": "^[^ ]"}}, {})
    return [EARLIER] if kept else []
