"""A replica set whose primary is killed under processes that write: what was acknowledged is there, and whole."""

from typing import Any

import pytest

from tests.faults.processes import Victim
from tests.faults.test_crashed_server import until_it_writes_again, write_through
from tests.faults.test_killed_writers import check
from tests.servers import MongoDB, mongod_or_skip

pytestmark = pytest.mark.slow
WRITERS = 3
FAILOVERS = 2


def test_a_failover_loses_nothing_acknowledged() -> None:
    """The others elect a new primary, writers go on; the old one comes back without what nobody was told."""
    with MongoDB(mongod_or_skip(), members=3) as replica_set:
        url = replica_set.new_place()
        victims = [Victim(write_through, url, seed) for seed in range(WRITERS)]
        reports: list[Any] = [victim.first() for victim in victims]
        for _ in range(FAILOVERS):
            for victim in victims:
                reports += victim.reports(0.3)
            killed = replica_set.primary()
            replica_set.crash(killed)
            for victim in victims:
                reports += until_it_writes_again(victim)
            replica_set.start(killed)
        for victim in victims:
            reports += victim.kill()
        check(url, reports)
