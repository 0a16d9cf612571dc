"""``PERSISTENCE_MODULE=turnlog.adapters.mongodb``: how ``eventsourcing`` comes to the recorders."""

from typing import Any

from turnlog.adapters.library_factory import DatabaseFactory, Kinds
from turnlog.adapters.mongodb.client import Client
from turnlog.adapters.mongodb.recorders import MongoDBAggregateRecorder, MongoDBApplicationRecorder
from turnlog.adapters.mongodb.tracking import MongoDBProcessRecorder, MongoDBTrackingRecorder


class MongoDBFactory(DatabaseFactory[MongoDBTrackingRecorder]):
    """``MONGODB_URI``, and ``MONGODB_DBNAME`` if that names no database.

    Optional: ``ORIGINATOR_ID_TYPE`` (``uuid`` or ``text``), ``CREATE_TABLE``.
    """

    kinds = Kinds(MongoDBAggregateRecorder, MongoDBApplicationRecorder, MongoDBTrackingRecorder, MongoDBProcessRecorder)

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.client = Client(self._given("MONGODB_URI"), database=self.env.get("MONGODB_DBNAME") or None)

    @property
    def storage(self) -> Client:
        """The database."""
        return self.client
