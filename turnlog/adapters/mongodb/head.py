"""The order of a log in MongoDB: commits are numbered without gaps, and a number is given by inserting it.

Whoever appends inserts a document with the number after the newest one. Of several, the unique index lets one through;
the others try again with the next. So numbers, and with them positions, are in the order of commits, and a reader that
has seen one finds nothing new below it. There is no counter beside the log, and nothing that a dead writer can hold.

A number must never be built on one that the server may lose (in a failover, or a crash without a journal): there would
be a gap, which somebody might fill later. So a client builds on the number it knows only where that was acknowledged as
lasting. Otherwise the server itself looks up the newest document and inserts the next, in one aggregation: that is no
step of a client's, and does not outlive a failover.
"""

from collections.abc import Sequence
from typing import Any

from bson import ObjectId
from pymongo.errors import BulkWriteError, PyMongoError

from turnlog.adapters.attempt import Taken, Undone
from turnlog.adapters.mongodb.client import Client, Session
from turnlog.adapters.mongodb.documents import Document, placed
from turnlog.adapters.mongodb.outcomes import is_duplicate, of_place, told_of_one
from turnlog.adapters.mongodb.plans import OPEN, Plans

_PLACE = {"_id": 1, "position": 1, "erasures": 1}
_SEEN = {**_PLACE, f"{OPEN}.first": 1}
_NEWEST: Sequence[tuple[str, int]] = [("_id", -1)]
_TRIES = 10
"""So many times a number is tried for at once, before there is a pause."""


class Head:
    """Gives places to documents of one collection."""

    def __init__(self, client: Client, events: str) -> None:
        self._client = client
        self._events = events
        self._lasting = client.durability == "full"
        self._plans = Plans(client, events)
        self._known: Document | None = None
        """The newest document's place, where it is known to last."""

    def newest(self, *, local: bool = False, session: Session | None = None) -> Document:
        """Return the place of the newest document; ``local``: also of one that may not last."""
        events = self._client.collection(self._events, local=local)
        return events.find_one({}, _SEEN, sort=_NEWEST, session=session) or {"_id": 0, "position": 0, "erasures": 0}

    def end_plan(self, newest: Document | None = None) -> Document:
        """End what somebody did not live to end, if there is something; return the place of the newest document.

        Raises:
            Lost: the connection broke.
        """
        newest = newest or self.newest()
        while OPEN in newest:
            self._plans.end(newest)
            newest = self.newest()
        return newest

    def append(self, document: Document, *, erasures: int | None = None) -> int:
        """Insert one document after the newest; return the position of its last event.

        Args:
            document: without a place.
            erasures: of the newest document, if that matters: so many erasures have been committed.

        Raises:
            Taken: of a version or key. Undone: somebody has erased something meanwhile. Lost: the connection broke.
        """
        document = {**document, "commit": ObjectId()}
        known = self._known
        if known is not None and erasures in (None, known["erasures"]):
            made = self._inserted(document, known)
            if made is not None:
                return made
        for _ in range(_TRIES):
            made = self._merged(document, erasures)
            if made is not None:
                return made
        raise Undone

    def _inserted(self, document: Document, after: Document) -> int | None:
        """Insert it after a document that is known; ``None`` if that is not the newest."""
        (made,) = placed([document], after)
        try:
            self._client.collection(self._events).insert_one(made)
        except PyMongoError as error:
            self._known = None
            if is_duplicate(error) and of_place(error):
                return None
            raise told_of_one(error) from error
        self._know(made)
        return int(made["position"])

    def _merged(self, document: Document, erasures: int | None) -> int | None:
        """Have the server insert it after what is the newest document then; ``None`` if somebody else was first."""
        events = self._client.collection(self._events, local=True)
        try:
            events.aggregate(self._pipeline(document, erasures))
            made = self._acknowledged(document)
        except PyMongoError as error:
            if is_duplicate(error) and of_place(error):
                return None
            raise told_of_one(error) from error
        if made is None or made["commit"] != document["commit"]:
            newest = self.newest()
            if OPEN in newest:
                self.end_plan(newest)
                return None
            raise Undone if self._stands(document) else Taken
        self._know(made)
        return int(made["position"])

    def _pipeline(self, document: Document, erasures: int | None) -> list[Document]:
        n = len(document.get("events", ()))
        place = {
            "_id": {"$add": ["$_id", 1]},
            "position": {"$add": ["$position", n]},
            "erasures": "$erasures",
        }
        steps: list[Document] = [{"$sort": {"_id": -1}}, {"$limit": 1}, {"$match": {OPEN: {"$exists": False}}}]
        if erasures is not None:
            steps.append({"$match": {"erasures": erasures}})
        if self._must_stand(document):
            found: Any = [{"$match": _before(document)}, {"$limit": 1}]
            steps += [{"$lookup": {"from": self._events, "pipeline": found, "as": "before"}}]
            steps += [{"$match": {"before": {"$ne": []}}}]
        steps.append({"$replaceWith": {"$mergeObjects": [place, {"$literal": document}]}})
        steps.append({"$merge": {"into": self._events, "whenMatched": "fail", "whenNotMatched": "insert"}})
        return steps

    def _must_stand(self, document: Document) -> bool:
        """Return whether the version before may be lost: then it is only built on where it is found."""
        return not self._lasting and document.get("first", 1) > 1

    def _stands(self, document: Document) -> bool:
        if not self._must_stand(document):
            return True
        return self._client.collection(self._events, local=True).find_one(_before(document), {}) is not None

    def _acknowledged(self, document: Document) -> Document | None:
        """Return the place of a document that was just inserted, when it lasts: by a change of it that changes nothing.

        Who loses a race for a number is told at once that way, and does not wait for what the winner waits for.
        """
        what: Document = {"stream": document["stream"]}
        if "events" in document:
            what["last"] = document["last"]
        elif "keys" in document:
            what |= {"keys.name": document["keys"][0]["name"], "keys": {"$exists": True}}
        return self._client.collection(self._events).find_one_and_update(
            what, {"$set": {"stream": document["stream"]}}, {**_PLACE, "commit": 1}, sort=_NEWEST
        )

    def _know(self, place: Document) -> None:
        """Build on this place next; on none that may be lost."""
        if self._lasting:
            known = self._known
            if known is None or known["_id"] < place["_id"]:
                self._known = {field: place[field] for field in _PLACE}

    def append_all(self, made: Sequence[Document]) -> tuple[int, list[int]]:
        """Insert documents one after the other, each by itself; stop at the first that does not fit.

        Returns how many were inserted, and the positions of their last events. All of it is one journey.

        Raises:
            Undone: it is not known which document is the newest. Lost: the connection broke.
        """
        if not self._lasting:
            raise Undone
        known = self._known or self.end_plan()
        given = placed([{**document, "commit": ObjectId()} for document in made], known)
        try:
            self._client.collection(self._events).insert_many(given, ordered=True)
            n = len(given)
        except PyMongoError as error:
            self._known = None
            if not isinstance(error, BulkWriteError) or error.details.get("writeConcernErrors"):
                raise told_of_one(error) from error
            n = int(error.details["nInserted"])
            if n == 0 and of_place(error):
                raise Undone from error
        if n:
            self._know(given[n - 1])
        return n, [int(one["position"]) for one in given[:n]]

    def insert(
        self, session: Session, documents: Sequence[Document], *, erasures: int | None = None, erasing: bool = False
    ) -> Document:
        """Insert documents after the newest, in a transaction; return the place of the last.

        Raises:
            Undone: somebody has erased something meanwhile.
        """
        after = self.newest(session=session)
        if OPEN in after:
            self.end_plan(after)
            raise Undone
        if erasures is not None and after["erasures"] != erasures:
            raise Undone
        made = placed(documents, after, erasing=erasing)
        if made:
            self._client.collection(self._events).insert_many(made, session=session)
        return made[-1] if made else after

    def insert_by_plan(
        self, documents: Sequence[Document], *, erasures: int | None = None, erase: Sequence[str] = ()
    ) -> Document:
        """As ``insert``, without a transaction, and erase streams: see plans.py.

        Raises:
            Taken: of a version or key. Undone: somebody else was first. Lost: the connection broke.
        """
        self._known = None
        self._plans.settle()
        after = self.end_plan()
        if erasures is not None and after["erasures"] != erasures:
            raise Undone
        return self._plans.perform(documents, after, erase)

    def settle(self) -> None:
        """Wait until everything that can be read here lasts.

        Raises:
            StoreUnavailable: that takes too long.
        """
        with self._client.translating():
            self._client.collection(self._events).update_one({"_id": 0}, {"$set": {"erasures": 0}})


def _before(document: Document) -> Document:
    """Return the filter of the document with the version before."""
    return {"stream": document["stream"], "last": document["first"] - 1}
