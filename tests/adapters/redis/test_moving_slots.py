"""A slot of a Redis Cluster that moves to another master while the store is in use."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import pytest
from redis.crc import key_slot

import turnlog
from tests.adapters.redis.conftest import log_of
from tests.servers import HOST, Redis, RedisCluster
from tests.servers.starting import READY_S
from turnlog.adapters.redis.lease import Lease

SHORT_S, LONG_S = 0.2, 60.0


class Moving(NamedTuple):
    """A slot, and the masters that it moves between."""

    slot: int
    source: Redis
    target: Redis

    def begin(self) -> None:
        """Have its keys move."""
        self.target.execute("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source.execute("CLUSTER", "MYID"))
        self.source.execute("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target.execute("CLUSTER", "MYID"))

    def move(self, keys: list[bytes]) -> None:
        """Move some keys."""
        self.source.execute("MIGRATE", HOST, self.target.port, b"", 0, round(1000 * READY_S), "KEYS", *keys)

    def keys(self) -> list[bytes]:
        """Return the keys that have not moved yet."""
        return list(self.source.execute("CLUSTER", "GETKEYSINSLOT", self.slot, 1000))

    def end(self) -> None:
        """Have it moved."""
        if keys := self.keys():
            self.move(keys)
        id_ = self.target.execute("CLUSTER", "MYID")
        for node in (self.target, self.source):
            node.execute("CLUSTER", "SETSLOT", self.slot, "NODE", id_)


@pytest.fixture
def store(cluster_url: str) -> Iterator[turnlog.ConversationStore]:
    """A store with a session."""
    with turnlog.open(cluster_url, durability="normal") as opened:
        opened.session("s").add_messages([{"role": "user", "content": f"{n}"} for n in range(5)])
        opened.session("never written to again")
        yield opened


def test_a_slot_moves(redis_cluster: RedisCluster, store: turnlog.ConversationStore) -> None:
    """Reads go where each key is; who writes waits until the slot has moved, and nothing is lost or doubled."""
    log = log_of(store)
    keys = log.of("default/s").keys
    source = redis_cluster.master_of(keys.head)
    others = [log.keys.head, *(part.keys.head for part in log.parts)]
    target = next(node for key in others if (node := redis_cluster.master_of(key)) is not source)
    moving = Moving(key_slot(keys.head), source, target)
    moving.begin()
    moving.move([keys.events("default/s")])
    session = store.get("s")
    assert [message.content for message in session.history()] == ["0", "1", "2", "3", "4"]
    moving.move([keys.names, keys.head + b":places"])
    assert session.history(last=1)[0].version == 6
    assert not store.exists("nobody"), "a key that is nowhere is asked for at both"
    writer = threading.Thread(target=partial(session.add_message, "user", "5", message_id="5"))
    writer.start()
    writer.join(SHORT_S)
    assert writer.is_alive()
    assert moving.keys()
    moving.end()
    writer.join(LONG_S)
    assert [message.content for message in store.get("s").history()] == ["0", "1", "2", "3", "4", "5"]
    assert redis_cluster.master_of(keys.head) is target
    assert store.verify().ok


def test_a_turn_is_waited_for(redis_cluster: RedisCluster, store: turnlog.ConversationStore) -> None:
    """Where nobody holds it its key is nowhere, so it is asked for at both; it is had once the slot has moved."""
    log = log_of(store)
    key = log.server.keys.lease
    source = redis_cluster.master_of(key)
    target = next(node for part in log.parts if (node := redis_cluster.master_of(part.keys.head)) is not source)
    moving = Moving(key_slot(key), source, target)

    def take() -> bool:
        with Lease(log.server, key).held(LONG_S) as turn:
            return turn is not None

    with ThreadPoolExecutor(1) as pool:
        moving.begin()
        taking = pool.submit(take)
        with pytest.raises(TimeoutError):
            taking.result(SHORT_S)
        moving.end()
        assert taking.result(LONG_S)
    assert store.verify().ok
