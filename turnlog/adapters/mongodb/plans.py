"""Appends of several documents, and erasing, where there are no transactions: on a standalone server.

The first document carries the others, and names what is to be erased, as its plan: inserting it is the commit, whole
or not at all. Then the others are inserted after it, what is to be erased is destroyed, and the plan is taken out of
it. All of them are marked as open until then, and nobody appends after a document that is open, but goes on with its
plan first. So numbers stay without gaps and in the order of commits, and what a process did not live to end is ended
by the next one that appends, or opens the store to write. Every step can be repeated, and done by several at once.

That nothing of it is taken is looked up beforehand. It is true still when the first document is there, for that has
the number after the one that was the newest before looking.

Two things are less than in a transaction: what is appended to several sessions is seen in one a moment before it is
seen in the next, and content is destroyed a moment after its session has ended.
"""

from collections.abc import Sequence
from typing import Any

from pymongo.errors import DocumentTooLarge, DuplicateKeyError, PyMongoError
from pymongo.write_concern import WriteConcern

from turnlog.adapters.attempt import Taken
from turnlog.adapters.mongodb.client import Client, Documents
from turnlog.adapters.mongodb.documents import Document, placed
from turnlog.adapters.mongodb.erasing import erase_stream
from turnlog.adapters.mongodb.outcomes import of_place, told_of_one

OPEN = "open"


class Plans:
    """Plans in one collection of events."""

    def __init__(self, client: Client, events: str) -> None:
        self._client = client
        self._name = events

    def settle(self) -> None:
        """Wait until all that can be read is in the journal: a plan is never built on what a crash may undo.

        Raises:
            Lost: the connection broke.
        """
        try:
            self.events.update_one({"_id": 0}, {"$set": {"erasures": 0}})
        except PyMongoError as error:
            raise told_of_one(error) from error

    def perform(self, made: Sequence[Document], after: Document, erase: Sequence[str]) -> Document:
        """Insert documents after the newest, and erase streams; return the place of the last.

        Args:
            made: documents without places.
            after: the newest document, read before it is looked whether anything is taken.
            erase: names of streams, whose ends are among the documents.

        Raises:
            Taken: of a version or a key. Undone: somebody else was first. Lost: the connection broke.
        """
        first, *rest = placed(made, after, erasing=bool(erase))
        plan: Document = {"first": first["_id"], "rest": rest, "erase": list(erase)}
        try:
            self._require_free(made)
            self.events.insert_one({**first, OPEN: plan})
            self._carry_out(plan)
        except DocumentTooLarge:
            self._client.require_transactions("what is appended at once and is more than a document holds, 16 MiB,")
            raise
        except PyMongoError as error:
            raise told_of_one(error) from error
        return rest[-1] if rest else first

    def end(self, place: Document) -> None:
        """Go on with the plan that an open document is of.

        Raises:
            Lost: the connection broke.
        """
        first = place[OPEN]["first"]
        try:
            found: Any = self.events.find_one({"_id": first}, {OPEN: 1})
            self._carry_out(found.get(OPEN, {"first": first, "rest": (), "erase": ()}))
        except PyMongoError as error:
            raise told_of_one(error) from error

    def _carry_out(self, plan: Document) -> None:
        first = plan["first"]
        for document in plan["rest"]:
            try:
                self.events.insert_one({**document, OPEN: {"first": first}})
            except DuplicateKeyError as error:
                if not of_place(error):
                    raise
        for stream in plan["erase"]:
            erase_stream(self.events, stream, None)
        self.events.update_one({"_id": first}, {"$unset": {OPEN: ""}})
        self.events.update_many({"_id": {"$gt": first}, f"{OPEN}.first": first}, {"$unset": {OPEN: ""}})

    @property
    def events(self) -> Documents:
        """The collection; what is written is in the journal, for every step is built on the one before."""
        events = self._client.collection(self._name)
        if self._client.server.replicated:
            return events
        wait_ms = int(self._client.timeout_s * 1000) or 1
        return events.with_options(write_concern=WriteConcern(w=1, j=True, wtimeout=wait_ms))

    def _require_free(self, made: Sequence[Document]) -> None:
        seen: set[tuple[str, object]] = set()
        for document in made:
            stream, names = document["stream"], [key["name"] for key in document.get("keys", ())]
            taken: list[Document] = [{"keys.name": {"$in": names}}] if names else []
            if "events" in document:
                taken.append({"last": {"$gte": document["first"]}})
            own = {(stream, one) for one in (*names, *(event["version"] for event in document.get("events", ())))}
            if not seen.isdisjoint(own) or self.events.find_one({"stream": stream, "$or": taken}, {}) is not None:
                raise Taken from DuplicateKeyError(f"a version or a key is taken in {stream}")
            seen |= own
