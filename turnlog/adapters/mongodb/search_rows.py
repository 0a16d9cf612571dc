"""The search view in MongoDB: as the message index, with each message's terms in an array that an index finds."""

from collections.abc import Sequence
from typing import assert_never

from pymongo import IndexModel

from turnlog.adapters.mongodb.client import Client
from turnlog.adapters.mongodb.documents import Document
from turnlog.adapters.mongodb.message_rows import Messages, Owners
from turnlog.adapters.mongodb.swapping import across_swaps
from turnlog.adapters.mongodb.view_connection import ViewConnection
from turnlog.adapters.names import Names
from turnlog.domain.mapper import Codec, LogRow
from turnlog.domain.words import EVERY
from turnlog.projections import message_index as m
from turnlog.projections import message_search as s
from turnlog.projections.brief import Abridged
from turnlog.projections.session_index import microseconds
from turnlog.projections.view_store import View

_PLACE = (("position", -1), ("item", -1))


class SearchCollections:
    """The search view, kept in two collections: messages, and sessions with their owners."""

    def __init__(self, view: View, names: Names) -> None:
        self.name = view.name
        self.revision = view.revision
        self.collections = (names.message_search, names.search_owners)
        self._names = names
        self._owners = Owners(names.search_owners, names)
        self._codec = Abridged(s.CLASSES)

    def create(self, connection: ViewConnection) -> None:
        """Create the collections, with the index of terms."""
        c = self._names.column
        terms = IndexModel([(c("tenant"), 1), (c("terms"), 1), *_PLACE], name="terms")
        connection.create(self._names.message_search, [terms])
        connection.create(self._names.search_owners)

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: ViewConnection) -> None:
        """Write what a page of the log changes; nothing is written before all of it could be read.

        Raises:
            UnknownEvent, CorruptLog: an event cannot be read.
        """
        owners = self._owners.load(connection, {row[1]: None for row in rows})
        seen = {stream: owner.version for stream, owner in owners.items()}
        messages = self._messages(connection)
        for change in list(s.changes(owners, rows, self._codec.of(codec))):
            match change:
                case s.Worded(m.Add() as add, wording):
                    messages.add(add, self._row(add, wording))
                case s.Worded(m.Reword(owner, message_id, version), wording):
                    messages.change(owner, message_id, self._reworded(version, wording))
                case s.Worded(m.Summarise() as summary, wording):
                    before = messages.drop_older(summary.owner, summary.kept, summary.ordinal)
                    add = m.Add(summary.owner, before, summary.message_id, summary.position, 0, summary.version)
                    messages.add(add, self._row(add, wording))
                case m.Forget(owner):
                    self.forget(owner.tenant, owner.session_id, connection)
                case _:
                    self._change(messages, change)
        messages.flush()
        changed = [owner for stream, owner in owners.items() if owner.version != seen.get(stream)]
        self._owners.replace(connection, changed)

    def _change(self, messages: Messages, change: s.Change) -> None:
        match change:
            case m.Remove(owner, message_id):
                messages.remove(owner, message_id)
            case m.Clear(owner):
                messages.clear(owner)
            case m.Assign(owner):
                messages.change_all(owner, {self._names.column("user_id"): owner.user_id})
            case s.Worded() | m.Add() | m.Reword() | m.Summarise() | m.Forget():
                raise AssertionError(change)
            case _:
                assert_never(change)

    def forget(self, tenant: str, session_id: str, connection: ViewConnection) -> None:
        """Delete the session's documents."""
        self._messages(connection).clear(m.Owner(tenant=tenant, session_id=session_id))
        connection.collection(self._names.search_owners).delete_one({"_id": f"{tenant}/{session_id}"})

    def _messages(self, connection: ViewConnection) -> Messages:
        return Messages(connection.collection(self._names.message_search), self._names)

    def _row(self, add: m.Add, wording: s.Wording) -> Document:
        c = self._names.column
        return {
            c("tenant"): add.owner.tenant,
            c("session_id"): add.owner.session_id,
            c("ordinal"): add.ordinal,
            c("user_id"): add.owner.user_id,
            c("message_id"): add.message_id,
            "position": add.position,
            "item": add.item,
            c("version"): add.version,
            **self._reworded(add.version, wording),
            c("role"): wording.role,
            c("route"): wording.route,
            c("said_at"): microseconds(wording.at),
        }

    def _reworded(self, version: int, wording: s.Wording) -> Document:
        c = self._names.column
        return {c("content_version"): version, c("terms"): sorted(wording.terms)}


class SearchQuery:
    """Asks the search view of one place; ``prefix`` is how the names of its collections begin."""

    def __init__(self, client: Client, names: Names, prefix: str) -> None:
        self._client = client
        self._names = names
        self._collection = prefix + names.message_search

    def select_found(
        self, wanted: s.SearchFilter, *, before: tuple[int, int] | None = None, limit: int
    ) -> list[s.FoundRow]:
        """Return messages, newest first: those before (position, item), see ``Queries``."""
        c = self._names.column
        where: Document = {c("tenant"): wanted.tenant}
        terms = c("terms")
        every: list[Document] = [{"$or": [{terms: {"$all": list(wanted.terms)}}, {terms: EVERY}]}]
        for column in ("user_id", "role", "route"):
            if (value := getattr(wanted, column)) is not None:
                where[c(column)] = value
        said = {"$gte": wanted.since, "$lt": wanted.until}
        bounds = {how: microseconds(at) for how, at in said.items() if at is not None}
        if bounds:
            where[c("said_at")] = bounds
        if before is not None:
            every.append(
                {"$or": [{"position": {"$lt": before[0]}}, {"position": before[0], "item": {"$lt": before[1]}}]}
            )
        if wanted.without:
            where[c("session_id")] = {"$nin": list(wanted.without)}
        with self._client.translating():
            collection = self._client.collection(self._collection)
            found = across_swaps(
                lambda: list(collection.find({**where, "$and": every}, sort=list(_PLACE), limit=limit))
            )
        names = {field: c(field) for field in s.FoundRow._fields}
        return [s.FoundRow(*(one[names[field]] for field in s.FoundRow._fields)) for one in found]
