"""Redis as a full store: log, keys, snapshots, views. Start with recorder.py, then views.py.

This is what ``PERSISTENCE_MODULE=turnlog.adapters.redis`` names; only connect.py imports it, when a URL asks for it.
"""

from turnlog.adapters.redis.factory import RedisFactory
from turnlog.adapters.redis.recorders import (
    RedisAggregateRecorder,
    RedisApplicationRecorder,
    RedisProcessRecorder,
    RedisTrackingRecorder,
)

__all__ = [
    "RedisAggregateRecorder",
    "RedisApplicationRecorder",
    "RedisFactory",
    "RedisProcessRecorder",
    "RedisTrackingRecorder",
]
