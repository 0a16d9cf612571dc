"""PostgreSQL: start reading with `recorder.py`. This is also ``PERSISTENCE_MODULE=turnlog.adapters.postgresql``."""

from turnlog.adapters.postgresql.factory import PostgreSQLFactory
from turnlog.adapters.postgresql.recorder import PostgreSQLRecorder
from turnlog.adapters.postgresql.recorders import PostgreSQLAggregateRecorder, PostgreSQLApplicationRecorder
from turnlog.adapters.postgresql.tracking import PostgreSQLProcessRecorder, PostgreSQLTrackingRecorder

__all__ = [
    "PostgreSQLAggregateRecorder",
    "PostgreSQLApplicationRecorder",
    "PostgreSQLFactory",
    "PostgreSQLProcessRecorder",
    "PostgreSQLRecorder",
    "PostgreSQLTrackingRecorder",
]
