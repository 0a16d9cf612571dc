"""``PERSISTENCE_MODULE=turnlog.adapters.redis``: how ``eventsourcing`` comes to the recorders."""

from typing import Any

from turnlog.adapters.library_factory import DatabaseFactory, Kinds
from turnlog.adapters.redis.cluster import Cluster
from turnlog.adapters.redis.recorders import (
    RedisAggregateRecorder,
    RedisApplicationRecorder,
    RedisProcessRecorder,
    RedisTrackingRecorder,
)
from turnlog.adapters.redis.server import Server
from turnlog.domain.errors import InvalidInput


class RedisFactory(DatabaseFactory[RedisTrackingRecorder]):
    """``REDIS_URL``; optional: ``REDIS_PREFIX``, ``ORIGINATOR_ID_TYPE`` (``uuid`` or ``text``)."""

    kinds = Kinds(RedisAggregateRecorder, RedisApplicationRecorder, RedisTrackingRecorder, RedisProcessRecorder)

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        try:
            prefix = self.env.get("REDIS_PREFIX") or None
            url = self._given("REDIS_URL")
            kind = Cluster if url.partition("://")[0].endswith("+cluster") else Server
            self._server = kind(url, durability="normal", prefix=prefix)
        except InvalidInput as error:
            raise OSError(f"REDIS_URL or REDIS_PREFIX: {error}") from None

    @property
    def storage(self) -> Server | Cluster:
        """The server."""
        return self._server
