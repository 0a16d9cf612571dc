"""Every call at once, by threads of several processes: each is answered, or refused for what the caller did."""

import threading
from collections.abc import Sequence
from random import Random
from time import monotonic

import pytest

import turnlog
from tests.faults.conftest import THOROUGH
from tests.faults.every_call import CALLS, append_turn, verify, what_all_are_at, what_went_wrong
from tests.faults.processes import alone, together
from turnlog import ConversationStore

BEGINNINGS = 3 * THOROUGH
"""So many processes begin: what goes wrong then, goes wrong at a few instants only."""
PROCESSES, THREADS, CALLS_EACH = 2, 4, 40
BUSY_S = 20.0
"""After so long nothing more is begun, on a machine that is slow or busy with other things."""
LONG_S = 60.0
"""What takes longer than this after that hangs."""


def call_at_once(url: str, shared: bool, planned: Sequence[Sequence[str]], seed: int) -> list[str]:
    """Have one thread for each of several lists of calls, on one store or each on one of its own."""
    wrong: list[str] = []
    start = threading.Barrier(len(planned))

    def call(n: int, store: ConversationStore) -> None:
        random = Random(f"{seed} {n}")  # noqa: S311 - not a secret
        start.wait(LONG_S)
        until = monotonic() + BUSY_S
        for name in planned[n]:
            if monotonic() < until:
                wrong.extend(what_went_wrong(name, store, random))

    def work(n: int) -> None:
        if shared:
            call(n, store)
        else:
            with turnlog.open(url, durability="normal") as own:
                call(n, own)

    with turnlog.open(url, durability="normal") as store:
        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(len(planned))]
        for thread in threads:
            thread.start()
        until = monotonic() + BUSY_S + LONG_S
        for thread in threads:
            thread.join(max(until - monotonic(), 0))
        if any(thread.is_alive() for thread in threads):
            wrong.append(f"a call hangs:\n{what_all_are_at()}")
    return wrong


def fill(url: str) -> None:
    """Leave sessions, and views far behind."""
    with turnlog.open(url, durability="normal") as store:
        random = Random(0)  # noqa: S311 - as above
        for _ in range(100):
            append_turn(store, random)


@pytest.fixture(params=[True, False], ids=["one_store", "own_stores"])
def shared(request: pytest.FixtureRequest) -> bool:
    """Whether the threads of a process share a store."""
    return bool(request.param)


def test_by_a_new_process(shared_url: str, shared: bool) -> None:
    """Its threads all do something for the first time, and each something else."""
    alone(fill, shared_url)
    for n in range(BEGINNINGS):
        wrong = alone(call_at_once, shared_url, shared, [[name] for name in CALLS], n)
        assert not wrong, "\n".join(wrong)
    with turnlog.open(shared_url, durability="normal") as store:
        verify(store)


@pytest.mark.parametrize("seed", range(THOROUGH))
def test_again_and_again(shared_url: str, shared: bool, seed: int) -> None:
    """Processes that are at it for a while."""
    random = Random(seed)  # noqa: S311 - as above
    planned = [[random.choices(list(CALLS), k=CALLS_EACH) for _ in range(THREADS)] for _ in range(PROCESSES)]
    found = together(call_at_once, *((shared_url, shared, lists, n) for n, lists in enumerate(planned)))
    wrong = [words for of_one in found for words in of_one]
    assert not wrong, "\n".join(wrong)
    with turnlog.open(shared_url, durability="normal") as store:
        verify(store)
