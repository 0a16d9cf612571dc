"""The store against a model of plain dicts and lists, on every backend: whatever is said, both answer the same."""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
import pytest

from tests.machine.asking import Asking

_QUICK = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class OnMemory(Asking):
    backend = "memory"


class OnSQLite(Asking):
    backend = "sqlite"


@pytest.mark.parametrize("machine", [OnMemory, OnSQLite], ids=["memory", "sqlite"])
def test_whatever_is_said_the_store_and_the_model_agree(machine: type[Asking]) -> None:
    """State, history, lists and refusals are those of a model made of plain dicts and lists."""
    run_state_machine_as_test(machine, settings=_QUICK)
