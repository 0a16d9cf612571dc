"""The message index in MongoDB: a document a visible message, its ``_id`` (stream, ordinal), and one a session."""

from collections.abc import Collection, Sequence
from typing import Any, assert_never

from msgspec.structs import astuple
from pymongo import IndexModel, ReplaceOne

from turnlog.adapters.mongodb.documents import Document
from turnlog.adapters.mongodb.view_connection import ViewCollection, ViewConnection
from turnlog.adapters.names import MESSAGE_COLUMNS, OWNER_COLUMNS, Names
from turnlog.domain.mapper import Codec, LogRow
from turnlog.projections import message_index as m
from turnlog.projections.brief import Abridged
from turnlog.projections.view_store import View


class MessageCollections:
    """The message index, kept in two collections: messages, and sessions with their owners."""

    def __init__(self, view: View, names: Names) -> None:
        self.name = view.name
        self.revision = view.revision
        self.collections = (names.message_index, names.message_owners)
        self._names = names
        self._owners = Owners(names.message_owners, names)
        self._codec = Abridged(m.CLASSES)

    def create(self, connection: ViewConnection) -> None:
        """Create the collections, with the index of a user's messages."""
        c = self._names.column
        user = [(c("tenant"), 1), (c("user_id"), 1), (c("position"), -1), (c("item"), -1)]
        connection.create(self._names.message_index, [IndexModel(user, name="user")])
        connection.create(self._names.message_owners)

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: ViewConnection) -> None:
        """Write what a page of the log changes; nothing is written before all of it could be read.

        Raises:
            UnknownEvent, CorruptLog: an event cannot be read.
        """
        owners = self._owners.load(connection, {row[1]: None for row in rows})
        seen = {stream: owner.version for stream, owner in owners.items()}
        messages = Messages(connection.collection(self._names.message_index), self._names)
        for change in list(m.changes(owners, rows, self._codec.of(codec))):
            match change:
                case m.Add():
                    messages.add(change, self._row(change))
                case m.Forget(owner):
                    self.forget(owner.tenant, owner.session_id, connection)
                case _:
                    self._rearrange(messages, change)
        messages.flush()
        self._owners.replace(
            connection, [owner for stream, owner in owners.items() if owner.version != seen.get(stream)]
        )

    def _rearrange(self, messages: "Messages", change: Any) -> None:
        match change:
            case m.Reword(owner, message_id, version):
                messages.change(owner, message_id, {self._names.column("content_version"): version})
            case m.Remove(owner, message_id):
                messages.remove(owner, message_id)
            case m.Clear(owner):
                messages.clear(owner)
            case m.Assign(owner):
                messages.change_all(owner, {self._names.column("user_id"): owner.user_id})
            case m.Summarise(owner, kept, ordinal, message_id, position, version):
                before = messages.drop_older(owner, kept, ordinal)
                add = m.Add(owner, before, message_id, position, 0, version)
                messages.add(add, self._row(add))
            case _:
                assert_never(change)

    def _row(self, add: m.Add) -> Document:
        o = add.owner
        values = (o.tenant, o.session_id, add.ordinal, o.user_id, add.message_id, add.position, add.item)
        fields = map(self._names.column, MESSAGE_COLUMNS)
        return dict(zip(fields, (*values, add.version, add.version), strict=True))

    def forget(self, tenant: str, session_id: str, connection: ViewConnection) -> None:
        """Delete the session's documents."""
        messages = Messages(connection.collection(self._names.message_index), self._names)
        messages.clear(m.Owner(tenant=tenant, session_id=session_id))
        connection.collection(self._names.message_owners).delete_one({"_id": f"{tenant}/{session_id}"})


class Owners:
    """Documents of sessions: whose they are, and the last ordinal given."""

    def __init__(self, collection: str, names: Names) -> None:
        self._collection = collection
        self._fields = tuple(names.column(column) for column in OWNER_COLUMNS)

    def load(self, connection: ViewConnection, streams: Collection[str]) -> dict[str, m.Owner]:
        """Return those of some streams, by stream."""
        found = connection.collection(self._collection).find({"_id": {"$in": list(streams)}})
        return {one["_id"]: m.Owner(*(one[field] for field in self._fields)) for one in found}

    def replace(self, connection: ViewConnection, owners: Sequence[m.Owner]) -> None:
        """Write them."""
        writes: list[ReplaceOne[Document]] = []
        for owner in owners:
            stream = f"{owner.tenant}/{owner.session_id}"
            made = {"_id": stream, **dict(zip(self._fields, astuple(owner), strict=True))}
            writes.append(ReplaceOne({"_id": stream}, made, upsert=True))
        if writes:
            connection.collection(self._collection).bulk_write(writes, ordered=False)


class Messages:
    """Documents of messages, of one view and one page of the log; those that are added are written together."""

    def __init__(self, collection: ViewCollection, names: Names) -> None:
        self._collection = collection
        self._ordinal, self._message = names.column("ordinal"), names.column("message_id")
        self._added: list[Document] = []

    def add(self, add: m.Add, row: Document) -> None:
        """Add a message."""
        stream = f"{add.owner.tenant}/{add.owner.session_id}"
        self._added.append({"_id": {"stream": stream, "ordinal": add.ordinal}, **row})

    def flush(self) -> None:
        """Write what was added so far. One that is there already, of a page that was cut off, is replaced."""
        if self._added:
            writes = [ReplaceOne({"_id": row["_id"]}, row, upsert=True) for row in self._added]
            self._collection.bulk_write(writes, ordered=False)
            self._added = []

    def change(self, owner: m.Owner, message_id: str, values: Document) -> None:
        """Change the latest message that has an id."""
        if (latest := self._latest(owner, message_id)) is not None:
            self._collection.update_one({"_id": latest["_id"]}, {"$set": values})

    def remove(self, owner: m.Owner, message_id: str) -> None:
        """Delete the latest message that has an id."""
        if (latest := self._latest(owner, message_id)) is not None:
            self._collection.delete_one({"_id": latest["_id"]})

    def clear(self, owner: m.Owner) -> None:
        """Delete a session's messages."""
        self.flush()
        self._collection.delete_many(_of_session(owner))

    def change_all(self, owner: m.Owner, values: Document) -> None:
        """Change a session's messages."""
        self.flush()
        self._collection.update_many(_of_session(owner), {"$set": values})

    def drop_older(self, owner: m.Owner, kept: int, ordinal: int) -> int:
        """Delete all but the newest ``kept`` messages of a session; return the ordinal of what stands for them."""
        self.flush()
        newest = self._collection.find(_of_session(owner), {self._ordinal: 1}, sort=[("_id", -1)], limit=kept)
        ordinals = [one[self._ordinal] for one in newest] if kept else []
        first = min(ordinals, default=None)
        self._collection.delete_many(_of_session(owner, upto=ordinal if first is None else first))
        return ordinal if first is None else first - 1

    def _latest(self, owner: m.Owner, message_id: str) -> Document | None:
        self.flush()
        where = {**_of_session(owner), self._message: message_id}
        return self._collection.find_one(where, {"_id": 1}, sort=[("_id", -1)])


def _of_session(owner: m.Owner, upto: int | None = None) -> Document:
    """Return the filter of a session's messages, those below an ordinal: a range of the ids."""
    stream = f"{owner.tenant}/{owner.session_id}"
    high = float("inf") if upto is None else upto
    return {"_id": {"$gt": {"stream": stream, "ordinal": float("-inf")}, "$lt": {"stream": stream, "ordinal": high}}}
