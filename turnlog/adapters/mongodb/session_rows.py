"""The session index in MongoDB: one document a session, its ``_id`` the session's stream; fields as SQL's columns."""

from collections.abc import Collection, Iterable, Sequence

from msgspec.structs import astuple
from pymongo import DeleteOne, IndexModel, ReplaceOne

from turnlog.adapters.mongodb.documents import Document
from turnlog.adapters.mongodb.view_connection import ViewConnection
from turnlog.adapters.names import SESSION_COLUMNS, Names
from turnlog.domain.mapper import Codec, LogRow
from turnlog.projections import session_index as s
from turnlog.projections.brief import Abridged
from turnlog.projections.view_store import View

_FILTERS = {"user": "user_id", "agent": "agent", "status": "status", "route": "current_route"}


class SessionCollection:
    """The session index, kept in one collection."""

    def __init__(self, view: View, names: Names) -> None:
        self.name = view.name
        self.revision = view.revision
        self.collections = (names.session_index,)
        self._names = names
        self._fields = tuple(names.column(column) for column in SESSION_COLUMNS)
        self._codec = Abridged(s.CLASSES)

    def create(self, connection: ViewConnection) -> None:
        """Create the collection, with an index for each filter of the lists."""
        connection.create(self._names.session_index, self._indexes())

    def _indexes(self) -> Sequence[IndexModel]:
        c = self._names.column
        order = (c("updated_position"), -1)
        filtered = [
            IndexModel([(c("tenant"), 1), (c(column), 1), order], name=name) for name, column in _FILTERS.items()
        ]
        active = [(c("tenant"), 1), (c("user_id"), 1), (c("created_position"), -1)]
        where = {c("status"): "active"}
        return [
            IndexModel([(c("tenant"), 1), order], name="all"),
            *filtered,
            IndexModel(active, name="active", partialFilterExpression=where),
        ]

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: ViewConnection) -> None:
        """Fold a page of the log into the documents of its sessions: one query, one fold, one write.

        Raises:
            UnknownEvent, CorruptLog: an event cannot be read, or one before it is missing.
        """
        before = dict(self._load(connection, {row[1]: None for row in rows}))
        seen = {stream: entry.version for stream, entry in before.items()}
        after = s.fold_rows(dict(before), rows, self._codec.of(codec))
        gone = before.keys() - after.keys()
        changed = [entry for stream, entry in after.items() if entry.version != seen.get(stream)]
        writes = [*(DeleteOne({"_id": stream}) for stream in sorted(gone)), *map(self._replacing, changed)]
        if writes:
            connection.collection(self._names.session_index).bulk_write(writes, ordered=False)

    def _load(self, connection: ViewConnection, streams: Collection[str]) -> Iterable[tuple[str, s.Entry]]:
        found = connection.collection(self._names.session_index).find({"_id": {"$in": list(streams)}})
        return ((one["_id"], s.Entry(*(one[field] for field in self._fields))) for one in found)

    def _replacing(self, entry: s.Entry) -> ReplaceOne[Document]:
        stream = f"{entry.tenant}/{entry.session_id}"
        made = {"_id": stream, **dict(zip(self._fields, astuple(entry), strict=True))}
        return ReplaceOne({"_id": stream}, made, upsert=True)

    def forget(self, tenant: str, session_id: str, connection: ViewConnection) -> None:
        """Delete the session's document."""
        connection.collection(self._names.session_index).delete_one({"_id": f"{tenant}/{session_id}"})
