"""Fixtures of the tests of Redis: a store on a cluster."""

from typing import Any

import pytest

import turnlog
from tests.servers import RedisCluster
from turnlog.adapters.inside import decider_of
from turnlog.adapters.redis.log import Log
from turnlog.adapters.redis.partitions import PartitionedLog


@pytest.fixture
def cluster_url(redis_cluster: RedisCluster) -> str:
    """A store on the cluster that does not exist yet."""
    return redis_cluster.new_place()


def part_of(store: turnlog.ConversationStore, session_id: str) -> Log:
    """Return the log under a store on one server, or on a cluster the session's partition of it."""
    recorder: Any = decider_of(store).recorder
    log: Log = recorder.log
    return log.of(f"default/{session_id}") if isinstance(log, PartitionedLog) else log


def log_of(store: turnlog.ConversationStore) -> PartitionedLog:
    """Return the log under a store on a cluster."""
    recorder: Any = decider_of(store).recorder
    log: PartitionedLog = recorder.log
    return log
