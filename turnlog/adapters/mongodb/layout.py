"""The collections and indexes of a log in MongoDB. Making them can be repeated, by many processes at once.

``SCHEMA`` is kept in the tracking collection. It is raised when older programs must not write any more.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError, OperationFailure

from turnlog.adapters.mongodb.client import Client
from turnlog.adapters.mongodb.documents import BEGINNING
from turnlog.adapters.names import Names
from turnlog.domain.errors import StoreError

SCHEMA = 1
_SCHEMA = "turnlog.schema"
_EXISTS = 48
EVENTS: Sequence[IndexModel] = (
    IndexModel(
        [("stream", 1), ("events.version", 1)],
        name="version",
        unique=True,
        partialFilterExpression={"events": {"$exists": True}},
    ),
    IndexModel([("stream", 1), ("last", 1), ("first", 1)], name="stream"),
    IndexModel([("position", 1)], name="position"),
    IndexModel(
        [("stream", 1), ("keys.name", 1)],
        name="key",
        unique=True,
        partialFilterExpression={"keys": {"$exists": True}},
    ),
    IndexModel([("stream", 1), ("_id", 1)], name="snapshot", partialFilterExpression={"snapshot": {"$exists": True}}),
)
"""Of the log: what refuses a version or a key that is taken, and what reading walks."""


def create_log(client: Client, events: str) -> None:
    """Create the collection of a log."""
    create(client, events, EVENTS)
    with client.translating(), suppress(DuplicateKeyError):
        client.collection(events).insert_one(dict(BEGINNING))


def create(client: Client, name: str, indexes: Iterable[IndexModel] = ()) -> None:
    """Create a collection and its indexes, where they are missing."""
    client.require_writable()
    models = list(indexes)
    with client.translating():
        if models:  # which creates the collection too
            client.collection(name).create_indexes(models)
            return
        try:
            client.database.create_collection(name, check_exists=False)
        except OperationFailure as error:
            if error.code != _EXISTS:
                raise


def prepare(client: Client, names: Names, others: Iterable[str]) -> None:
    """Bring the collections to this turnlog's schema; many processes may do so at once.

    ``others`` are names of collections that have no indexes of their own.

    Raises:
        StoreError: a newer turnlog made them, or they are not there and may not be made.
    """
    version = _version(client, names)
    if version < SCHEMA and not client.read_only:
        for name in (names.tracking, *others):
            create(client, name)
        create_log(client, names.events)
        with client.translating(), suppress(DuplicateKeyError):
            made = {"_id": _SCHEMA, "notification_id": SCHEMA}
            client.collection(names.tracking).replace_one({"_id": _SCHEMA}, made, upsert=True)
        version = _version(client, names)
    if version != SCHEMA:
        found = "there are no collections of turnlog" if version == 0 else f"its collections have schema {version}"
        raise StoreError(f"{client.name}: {found}, this turnlog knows {SCHEMA}; upgrade")


def _version(client: Client, names: Names) -> int:
    with client.translating():
        found = client.collection(names.tracking).find_one({"_id": _SCHEMA})
    return 0 if found is None else int(found["notification_id"])
