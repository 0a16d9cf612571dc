"""The log in MongoDB (5.0 or newer, 6.0 is tested), by pymongo. Start with ``head.py``, then ``writing.py``.

Atomicity: an append to one session is one document, inserted whole or not at all. What is appended to several
sessions, what is too much for a document, and erasing, is a transaction of several documents; on a standalone server,
which has none, a plan that is committed as one document (plans.py). A version or a key that is taken is refused by a
unique index; it is decided anew then, from what is read at one moment, until nobody else was first.
Order: documents are numbered without gaps by inserting them (head.py), so they become visible in their order.
Durability: ``full`` waits for a majority's journal, or that of a standalone server; ``normal`` waits for the server
that is written to, whose journal follows a moment later (client.py).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from turnlog.adapters.mongodb import documents, layout, upkeep
from turnlog.adapters.mongodb.client import Client, Session
from turnlog.adapters.mongodb.documents import Document
from turnlog.adapters.mongodb.group import Appends
from turnlog.adapters.mongodb.tracking import MongoDBProcessRecorder
from turnlog.adapters.mongodb.writing import Appending, Forgetting
from turnlog.adapters.names import Names, name_range
from turnlog.adapters.sealed import sealed_key, sealed_snapshot
from turnlog.adapters.several import by_version, pages
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Again, Batch, KeyRow, SnapshotRow, StreamVersion

_NAMES_AT_A_TIME = 4_000
"""Entries of the index that one look for names of streams walks over."""


class MongoDBRecorder(MongoDBProcessRecorder):
    """turnlog's recorder: adds keys, snapshots, deciding again, and erasing."""

    expires = False

    def __init__(self, client: Client, names: Names, views: Forgetting | None = None) -> None:
        super().__init__(client, events_table=names.events, tracking_table=names.tracking, originator_id_type="text")
        self.durability = client.durability
        self._names = names
        self.appends = Appends(Appending(self, views), self.head, client.timeout_s)

    def prepare(self) -> None:
        """Create the collections if they are not there; several processes may do so at once.

        Raises:
            StoreError: a newer turnlog made them.
        """
        layout.prepare(self.client, self._names, (self._names.views, self._names.parked, self._names.trials))
        self._end_plan()

    def _end_plan(self) -> None:
        if not self.client.read_only:
            with self.client.ending():
                self.head.end_plan()

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Commit ``batches``, see ``Recorder``: asked again until nobody else was first."""
        positions = self.appends.append(batches, again)
        self._tidy(batches)
        self.tell()
        return positions

    def _tidy(self, batches: Sequence[Batch]) -> None:
        """Delete the snapshots that newer ones have replaced: not in the append, for they are disposable."""
        for batch in batches:
            if batch.snapshot is not None and not batch.erase:
                with self.client.translating():
                    newest = self._snapshot(None, batch.stream)
                    older: Document = {"stream": batch.stream, "snapshot": {"$exists": True}}
                    older["_id"] = {"$lt": (newest or {"_id": 0})["_id"]}
                    self.client.collection(self.events).update_many(older, {"$unset": {"snapshot": ""}})

    def select_versions(self, wanted: Sequence[StreamVersion]) -> dict[StreamVersion, StreamRow]:
        """Return events of any streams, see ``Recorder``."""
        with self.client.translating():
            return {at: row for page in pages(wanted) for at, row in self._versions(page)}

    def _versions(self, page: Sequence[StreamVersion]) -> Iterator[tuple[StreamVersion, StreamRow]]:
        versions: dict[str, list[int]] = {}
        for stream, version in page:
            versions.setdefault(stream, []).append(version)
        there = {"events": {"$exists": True}}  # which the index asks for
        each = [{"stream": stream, "events.version": {"$in": some}, **there} for stream, some in versions.items()]
        asked = frozenset(page)
        fields = {"position": 1, "stream": 1, "events": 1}
        found = self.client.collection(self.events).find({"$or": each}, fields, batch_size=len(page) + 1)
        rows = by_version(row for document in found for row in documents.log_rows(document))
        return ((at, row) for at, row in rows if at in asked)

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``."""
        with self.client.translating():
            return self.key_rows(None, stream, keys)

    def key_rows(self, connection: Session | None, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, read in a session, in the order in which they are given."""
        names = [documents.key_name(*pair) for pair in dict.fromkeys(keys)]
        if not names:
            return []
        found = {
            name: key for name, key in self._keys(connection, stream, {"keys.name": {"$in": names}}) if name in names
        }
        return [found[name] for name in names if name in found]

    def select_all_keys(self, stream: str) -> list[KeyRow]:
        """Return every key of a stream, see ``Recorder``."""
        with self.client.translating():
            found = [key for _, key in self._keys(None, stream, {})]
        return sorted(found, key=lambda key: (key.version, key.kind, key.key))

    def _keys(self, session: Session | None, stream: str, wanted: Document) -> list[tuple[str, KeyRow]]:
        where = {"stream": stream, "keys": {"$exists": True}, **wanted}
        found = self.client.collection(self.events).find(where, {"keys": 1}, session=session)
        only = set(wanted.get("keys.name", {}).get("$in", ()))
        return [
            (key["name"], sealed_key(stream, documents.key_fields(key)))
            for document in found
            for key in document["keys"]
            if not only or key["name"] in only
        ]

    def select_snapshot(self, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot, see ``Reader``."""
        with self.client.translating():
            return self.snapshot_row(None, stream)

    def snapshot_row(self, connection: Session | None, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot, read in a session."""
        return sealed_snapshot(stream, documents.snapshot_fields(self._snapshot(connection, stream)))

    def _snapshot(self, session: Session | None, stream: str) -> Document | None:
        where = {"stream": stream, "snapshot": {"$exists": True}}
        newest = [("_id", -1)]
        return self.client.collection(self.events).find_one(where, {"snapshot": 1}, sort=newest, session=session)

    def visible(self, *, limit: int) -> list[str] | None:  # noqa: ARG002 - the port's
        """Return nothing: positions are committed in order."""
        return []

    def streams(self, *, prefix: str, after: str = "", limit: int) -> list[str]:
        """Return names of streams, see ``Recorder``: a walk over the index, however long the streams are."""
        low, high = name_range(prefix)
        found: list[str] = []
        low = max(after, low)
        with self.client.translating():
            while len(found) < limit and (names := self._names_between(low, high)):
                found += names
                low = names[-1]
        return found[:limit]

    def _names_between(self, low: str, high: str) -> list[str]:
        """Return some names of streams, the first ones between two."""
        steps: Sequence[Document] = [
            {"$match": {"stream": {"$gt": low, "$lt": high}, "last": {"$gte": 0}}},
            {"$sort": {"stream": 1, "last": 1}},
            {"$limit": _NAMES_AT_A_TIME},
            {"$group": {"_id": "$stream"}},
            {"$sort": {"_id": 1}},
        ]
        found: Any = self.client.collection(self.events).aggregate(steps)
        return [one["_id"] for one in found]

    # --- upkeep -------------------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Return what the server's own check finds, and where the log's numbers have gaps."""
        self._end_plan()
        return upkeep.check(self.client, self._names)

    def size_bytes(self) -> int | None:
        """Return how much the collections and their indexes use."""
        return upkeep.size_bytes(self.client, self._names)

    def lingering(self) -> list[str]:
        """Return where erased bytes may linger: in old versions of documents, and in the server's logs."""
        return upkeep.lingering(self.client, self._names)

    def scrub(self, *, vacuum: bool) -> list[str]:
        """Have the server let go of old versions of documents; see ``Recorder``."""
        return upkeep.scrub(self.client, self._names, vacuum=vacuum)

    def close(self) -> None:
        """Close everything."""
        self.client.close()
