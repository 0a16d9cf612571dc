"""What is kept of views in MongoDB besides their rows: checkpoints, parked sessions, open trials."""

from collections.abc import Sequence
from typing import Any

from turnlog.adapters.mongodb.client import Client
from turnlog.adapters.mongodb.documents import Document
from turnlog.adapters.mongodb.view_connection import ViewConnection
from turnlog.adapters.names import Names
from turnlog.projections.session_index import microseconds, moment
from turnlog.projections.view_store import Checkpoint, Parked, Trial

_FIELDS = ("view", "stream", "version", "position", "error", "attempts")


def is_view(document: Document) -> bool:
    """Return whether it is of a view; the ids of what else is kept beside begin with a blank."""
    return not document["_id"].startswith(" ")


class Books:
    """Two collections, under their chosen names."""

    def __init__(self, names: Names) -> None:
        self._views, self._parked = names.views, names.parked

    def checkpoints(self, connection: ViewConnection) -> dict[str, Checkpoint]:
        """Return every view's checkpoint."""
        found = connection.collection(self._views).find({}, sort=[("_id", 1)])
        return {one["_id"]: _checkpoint(one) for one in found if is_view(one)}

    def record(self, connection: ViewConnection, checkpoint: Checkpoint) -> None:
        """Set a view's checkpoint."""
        connection.collection(self._views).update_one({"_id": checkpoint.name}, {"$set": _fields(checkpoint)})

    def insert(
        self, connection: ViewConnection, at: Checkpoint, created: Sequence[str], generation: str | None = None
    ) -> None:
        """Begin a view's record, with the names of the collections that it created, in the place of an older one."""
        made = {"_id": at.name, **_fields(at), "collections": list(created), "generation": generation}
        connection.collection(self._views).replace_one({"_id": at.name}, made, upsert=True)

    def created(self, connection: ViewConnection, name: str) -> list[str]:
        """Return the names of what a view created."""
        found = connection.collection(self._views).find_one({"_id": name})
        return [] if found is None else list(found["collections"])

    def delete(self, connection: ViewConnection, name: str) -> None:
        """Delete a view's record and its parked sessions."""
        connection.collection(self._views).delete_one({"_id": name})
        connection.collection(self._parked).delete_many({"view": name})

    def parked(self, connection: ViewConnection, name: str) -> list[Parked]:
        """Return a view's parked sessions, in the order of their positions."""
        found = connection.collection(self._parked).find({"view": name}, sort=[("position", 1)])
        return [Parked._make((*(one[field] for field in _FIELDS), moment(one["parked_at"]))) for one in found]

    def park(self, connection: ViewConnection, parked: Parked) -> None:
        """Park a session, or take the place of its record."""
        key = {"view": parked.view, "stream": parked.stream}
        made = {**parked._asdict(), "parked_at": microseconds(parked.parked_at), "_id": key}
        made["error"] = parked.error.encode(errors="replace").decode()
        connection.collection(self._parked).replace_one({"_id": key}, made, upsert=True)

    def release(self, connection: ViewConnection, name: str, stream: str) -> None:
        """Delete a parked session's record."""
        connection.collection(self._parked).delete_one({"_id": {"view": name, "stream": stream}})

    def forget(self, connection: ViewConnection, stream: str) -> None:
        """Delete what is kept of a session in all views."""
        connection.collection(self._parked).delete_many({"stream": stream})


class Trials:
    """Trials of one place: written at once, not in the transaction that the process may not live to end."""

    def __init__(self, client: Client, collection: str) -> None:
        self._client = client
        self._name = collection

    def read(self, name: str) -> Trial | None:
        """Return the open trial."""
        with self._client.translating():
            found = self._client.collection(self._name).find_one({"_id": name})
        return None if found is None else Trial(found["position"], found["last"], found["tries"])

    def begin(self, name: str, trial: Trial) -> None:
        """Note a trial."""
        made: dict[str, Any] = {"_id": name, **trial._asdict()}
        with self._client.translating():
            self._client.collection(self._name).replace_one({"_id": name}, made, upsert=True)

    def end(self, name: str) -> None:
        """Take the note back."""
        with self._client.translating():
            self._client.collection(self._name).delete_one({"_id": name})


def _checkpoint(document: Document) -> Checkpoint:
    return Checkpoint(document["_id"], document["revision"], document["position"], document["mark"])


def _fields(at: Checkpoint) -> Document:
    return {"revision": at.revision, "position": at.position, "mark": at.mark}
