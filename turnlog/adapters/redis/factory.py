"""``PERSISTENCE_MODULE=turnlog.adapters.redis``: how ``eventsourcing`` comes to the recorders."""

from typing import Any

from turnlog.adapters.library_factory import DatabaseFactory, Kinds
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
            self._server = Server(self._given("REDIS_URL"), durability="normal", prefix=prefix)
        except InvalidInput as error:
            raise OSError(f"REDIS_URL or REDIS_PREFIX: {error}") from None

    @property
    def storage(self) -> Server:
        """The server."""
        return self._server
