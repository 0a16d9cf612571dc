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


class OnMemory(Asking):
    backend = "memory"


class OnSQLite(Asking):
    backend = "sqlite"


MACHINES = pytest.mark.parametrize("machine", [OnMemory, OnSQLite], ids=["memory", "sqlite"])


@MACHINES
def test_the_store_and_the_model_agree(machine: type[Asking]) -> None:
    """State, history, lists and refusals are those of a model made of plain dicts and lists."""
    run_state_machine_as_test(machine, settings=QUICK)


@pytest.mark.slow
@MACHINES
def test_the_store_and_the_model_agree_for_long(machine: type[Asking]) -> None:
    """The same, for longer conversations and more of them."""
    run_state_machine_as_test(machine, settings=THOROUGH)
