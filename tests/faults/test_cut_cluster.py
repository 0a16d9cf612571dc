"""Connections to nodes of a Redis Cluster cut anywhere around a write: what test_cut_connections.py asks of a server.

``TURNLOG_CLUSTER_CUTS=1000`` has so many writes cut (with ``-o faulthandler_timeout=0``).
"""

import os
from functools import partial

import pytest

import turnlog
from tests.faults.cluster_proxy import ClusterProxy
from tests.faults.conftest import SEED, patiently
from tests.faults.test_cut_connections import cut_anywhere
from tests.servers import RedisCluster

CUTS = int(os.environ.get("TURNLOG_CLUSTER_CUTS", "60"))


@pytest.mark.slow
def test_cut_anywhere_on_a_cluster(redis_cluster: RedisCluster) -> None:
    """A receipt: it is there once. Unavailable: it is not there. Unknown: said again, it is there once."""
    url = redis_cluster.new_place()
    with (
        ClusterProxy(redis_cluster, late_s=0.02, seed=SEED) as proxy,
        turnlog.open(url) as direct,
        patiently(partial(turnlog.open, proxy.url(url.partition("prefix=")[2]), timeout_s=2.0)) as store,
    ):
        cut_anywhere(store, direct, proxy, CUTS)
