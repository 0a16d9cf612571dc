"""The store against a model of plain dicts and lists, on every backend: whatever is said, both answer the same."""

from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.servers import Server
from turnlog.testing.machine import StoreMachine

QUICK = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
THOROUGH = settings(QUICK, max_examples=45, stateful_step_count=50)
FEWER = 4
"""Each statement to a server is a journey: so many times fewer examples there."""


class OnMemory(StoreMachine):
    is_shared = False

    def new_url(self) -> str:
        return "memory://"


class OnSQLite(StoreMachine):
    def new_url(self) -> str:
        return f"sqlite:///{self.folder}/sessions.db"


class OnServer(StoreMachine):
    """On a server that the fixture named ``kind`` starts."""

    kind: ClassVar[str]
    fewer: ClassVar[int] = FEWER
    server: ClassVar[Server]

    def new_url(self) -> str:
        return self.server.new_place()

    def drop(self) -> None:
        self.server.drop_place(self.url)


class OnPostgreSQL(OnServer):
    kind = "postgresql"


class OnMariaDB(OnServer):
    kind = "mariadb"


class OnRedis(OnServer):
    kind = "redis"


class OnRedisCluster(OnServer):
    kind = "redis_cluster"
    fewer = 3 * FEWER


class OnMongoDB(OnServer):
    kind = "mongodb"


@pytest.fixture(
    params=[OnMemory, OnSQLite, OnPostgreSQL, OnMariaDB, OnRedis, OnRedisCluster, OnMongoDB],
    ids=lambda machine: machine.__name__,
)
def machine(request: pytest.FixtureRequest) -> type[StoreMachine]:
    """The state machine on each backend."""
    chosen: type[StoreMachine] = request.param
    if issubclass(chosen, OnServer):
        chosen.server = request.getfixturevalue(chosen.kind)
    return chosen


def test_the_store_and_the_model_agree(machine: type[StoreMachine]) -> None:
    """State, history, lists and refusals are those of a model made of plain dicts and lists."""
    run_state_machine_as_test(machine, settings=_fitting(machine, QUICK))


@pytest.mark.slow
def test_the_store_and_the_model_agree_for_long(machine: type[StoreMachine]) -> None:
    """The same, for longer conversations and more of them."""
    run_state_machine_as_test(machine, settings=_fitting(machine, THOROUGH))


def _fitting(machine: type[StoreMachine], wanted: settings) -> settings:
    fewer = machine.fewer if issubclass(machine, OnServer) else 1
    return settings(wanted, max_examples=wanted.max_examples // fewer)
