"""The store against a model of plain dicts and lists, on every backend: whatever is said, both answer the same."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.asking import Asking

QUICK = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
THOROUGH = settings(QUICK, max_examples=45, stateful_step_count=50)
FEWER = 4
"""Each statement to a server is a journey: so many times fewer examples there."""


class OnMemory(Asking):
    backend = "memory"


class OnSQLite(Asking):
    backend = "sqlite"


class OnPostgreSQL(Asking):
    backend = "postgresql"


class OnMariaDB(Asking):
    backend = "mariadb"


class OnRedis(Asking):
    backend = "redis"


ON_SERVERS = (OnPostgreSQL, OnMariaDB, OnRedis)


@pytest.fixture(params=[OnMemory, OnSQLite, *ON_SERVERS], ids=lambda machine: machine.backend)
def machine(request: pytest.FixtureRequest) -> type[Asking]:
    """The state machine on each backend."""
    chosen: type[Asking] = request.param
    if chosen in ON_SERVERS:
        chosen.server = request.getfixturevalue(chosen.backend)
    return chosen


def test_the_store_and_the_model_agree(machine: type[Asking]) -> None:
    """State, history, lists and refusals are those of a model made of plain dicts and lists."""
    run_state_machine_as_test(machine, settings=_fitting(machine, QUICK))


@pytest.mark.slow
def test_the_store_and_the_model_agree_for_long(machine: type[Asking]) -> None:
    """The same, for longer conversations and more of them."""
    run_state_machine_as_test(machine, settings=_fitting(machine, THOROUGH))


def _fitting(machine: type[Asking], wanted: settings) -> settings:
    return settings(wanted, max_examples=wanted.max_examples // FEWER) if machine in ON_SERVERS else wanted
