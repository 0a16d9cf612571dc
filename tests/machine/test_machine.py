"""The store against a model of plain dicts and lists, on every backend: whatever is said, both answer the same."""

import os
import pytest
from hypothesis import HealthCheck, settings, Phase
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.asking import Asking

_QUICK = settings(
    max_examples=int(os.environ.get("EX", "15")),
    phases=[Phase.generate],
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
