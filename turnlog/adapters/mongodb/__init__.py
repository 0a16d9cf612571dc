"""MongoDB as a full store: the log (recorder.py), its views (views.py), and the classes for ``eventsourcing``."""

from turnlog.adapters.mongodb.factory import MongoDBFactory
from turnlog.adapters.mongodb.recorder import MongoDBRecorder
from turnlog.adapters.mongodb.recorders import MongoDBAggregateRecorder, MongoDBApplicationRecorder
from turnlog.adapters.mongodb.tracking import MongoDBProcessRecorder, MongoDBTrackingRecorder

__all__ = [
    "MongoDBAggregateRecorder",
    "MongoDBApplicationRecorder",
    "MongoDBFactory",
    "MongoDBProcessRecorder",
    "MongoDBRecorder",
    "MongoDBTrackingRecorder",
]
