"""Swaps of generations in MongoDB: collections renamed from where they were built into their places.

Each renaming takes the place of the old collection in one step, beside readers too. But it cannot be part of the
transaction that sets the view's checkpoint. So what is about to be done is written down first, as a plan. Whoever gets
the catch-up lock next and finds a plan goes on with it: it renames what still is where it was built, and writes the
view's record of that generation, if that is not there yet.

Until then queries find newer rows under an older checkpoint. That is harmless: the built-in views are keyed by session,
and a session with events above the checkpoint is folded live, whatever its row says; nobody applies anything to them,
for that takes the lock.
"""

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar
from uuid import uuid4

from pymongo.errors import OperationFailure

from turnlog.adapters.mongodb.books import Books
from turnlog.adapters.mongodb.client import Client
from turnlog.adapters.mongodb.documents import Document
from turnlog.adapters.mongodb.view_connection import ViewConnection
from turnlog.adapters.names import Names
from turnlog.domain.errors import InvalidInput
from turnlog.projections.session_index import microseconds, moment
from turnlog.projections.view_store import Checkpoint, Parked

_PLAN = " plan "
_NOT_THERE = 26
_GONE = frozenset({43, 175})
"""Codes of the errors by which a query ends whose collection was dropped under it: no such cursor, plan killed."""
_SWAPS = 5
"""So many in a row, under one query, are no accident."""
Read = TypeVar("Read")


class Swaps:
    """Swaps between the home of views and their benches; the caller has the catch-up lock."""

    def __init__(self, client: Client, names: Names, books: Books) -> None:
        self._client = client
        self._names = names
        self._books = books

    def perform(
        self,
        connection: ViewConnection,
        at: Checkpoint,
        built: Sequence[str],
        prefix: str,
        *,
        old: Collection[str] = (),
        parked: Sequence[Parked] = (),
    ) -> None:
        """Put the collections ``built``, whose names begin with ``prefix``, in the place of the ``old`` ones.

        Raises:
            InvalidInput: one of that name is there already, and is none of the view's.
        """
        self._require_free(built, old)
        plan: Document = {
            "_id": f"{_PLAN}{at.name}",
            "generation": uuid4().hex,
            "checkpoint": list(at),
            "collections": list(built),
            "prefix": prefix,
            "old": list(old),
            "parked": [[*one[:-1], microseconds(one.parked_at)] for one in parked],
        }
        self._client.collection(self._names.views).replace_one({"_id": plan["_id"]}, plan, upsert=True)
        self._rename(plan)
        self._settle(connection, plan)

    def mend(self, connection: ViewConnection) -> bool:
        """End what others did not live to end; return whether something of that is to be committed first."""
        views = self._client.collection(self._names.views, local=True)
        settled = False
        for plan in list(views.find({"_id": {"$gt": _PLAN, "$lt": f"{_PLAN}~"}})):
            record = views.find_one({"_id": plan["checkpoint"][0]})
            if record is not None and record.get("generation") == plan["generation"]:
                self._client.collection(self._names.views).delete_one({"_id": plan["_id"]})
            else:
                self._rename(plan)
                self._settle(connection, plan)
                settled = True
        return settled

    def is_planned(self) -> bool:
        """Return whether there is something to mend."""
        views = self._client.collection(self._names.views, local=True)
        return views.find_one({"_id": {"$gt": _PLAN, "$lt": f"{_PLAN}~"}}) is not None

    def _rename(self, plan: Document) -> None:
        there = set(self._client.database.list_collection_names())
        for name in plan["collections"]:
            if plan["prefix"] + name in there:
                self._client.collection(plan["prefix"] + name).rename(name, dropTarget=True)
        for name in set(plan["old"]).difference(plan["collections"]):
            self._client.database.drop_collection(name)

    def _settle(self, connection: ViewConnection, plan: Document) -> None:
        """Write the record of the generation that is in place now, with what was parked as it was built."""
        at = Checkpoint(*plan["checkpoint"])
        self._books.delete(connection, at.name)
        self._books.insert(connection, at, plan["collections"], plan["generation"])
        for one in plan["parked"]:
            self._books.park(connection, Parked._make((*one[:-1], moment(one[-1]))))

    def _require_free(self, wanted: Sequence[str], own: Collection[str]) -> None:
        taken = set(self._client.database.list_collection_names())
        for name in wanted:
            if name in taken and name not in own:
                raise InvalidInput("projection", f"its collection {name!r} is there already and is not its own")


def across_swaps(read: Callable[[], Read]) -> Read:
    """Read a collection, and read it again if another was put in its place meanwhile: that ends what was reading it."""
    for _ in range(_SWAPS):
        try:
            return read()
        except OperationFailure as error:
            if error.code not in _GONE:
                raise
    return read()


def drop_all(client: Client, prefix: str) -> None:
    """Drop every collection whose name begins so."""
    for name in client.database.list_collection_names():
        if name.startswith(prefix):
            try:
                client.database.drop_collection(name)
            except OperationFailure as error:
                if error.code != _NOT_THERE:
                    raise
