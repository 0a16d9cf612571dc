"""SQLite: start reading with `recorder.py`. This is also ``PERSISTENCE_MODULE=turnlog.adapters.sqlite``."""

from turnlog.adapters.sqlite.recorder import SQLiteFactory, SQLiteRecorder
from turnlog.adapters.sqlite.recorders import (
    SQLiteAggregateRecorder,
    SQLiteApplicationRecorder,
    SQLiteProcessRecorder,
    SQLiteTrackingRecorder,
)

__all__ = [
    "SQLiteAggregateRecorder",
    "SQLiteApplicationRecorder",
    "SQLiteFactory",
    "SQLiteProcessRecorder",
    "SQLiteRecorder",
    "SQLiteTrackingRecorder",
]
