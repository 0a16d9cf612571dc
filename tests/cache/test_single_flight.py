"""Of the threads that want the same answer at the same time, one calls the model."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import turnlog.cache
from tests import servers
from tests.cache.conftest import ANSWER, DEADLINE_S, REQUEST, Model, opened
from tests.cache.test_answers import eventually
from turnlog.cache import ResponseCache
from turnlog.cache.answers import Answers
from turnlog.cache.flights import Flight
from turnlog.testing import Clock

THREADS = 8


class Gate:
    """What a model waits for while it is answering."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> None:
        """Wait for it."""
        self.reached.set()
        assert self.open.wait(DEADLINE_S)


@pytest.fixture
def gate(model: Model) -> Gate:
    """A gate that is shut, in the model's way."""
    model.before = gate = Gate()
    return gate


def waiting(cache: ResponseCache) -> int:
    """Return how many wait for an answer, or make it."""
    flights: dict[bytes, Flight] = vars(answers_of(cache).flights)["_flights"]
    return sum(flight.waiting for flight in list(flights.values()))


def answers_of(cache: ResponseCache) -> Answers:
    """Return what the cache keeps to itself: nothing public tells who waits."""
    answers: Answers = vars(cache)["_answers"]
    return answers


def test_threads_wait_for_the_one_that_calls(cache: ResponseCache, model: Model, gate: Gate) -> None:
    """All get the answer, each a copy of his own, and the model was asked once."""
    with ThreadPoolExecutor(THREADS) as pool:
        asking = [pool.submit(cache.get_or_call, REQUEST, model) for _ in range(THREADS)]
        assert eventually(lambda: waiting(cache) == THREADS)
        gate.open.set()
        answers = [each.result(DEADLINE_S) for each in asking]
    assert answers == [ANSWER] * THREADS
    assert len({id(answer) for answer in answers}) == THREADS
    assert len(model.asked) == 1
    stats = cache.stats()
    assert (stats.misses, stats.waits, stats.stores, stats.hits) == (1, THREADS - 1, 1, 0)


def test_the_error_of_the_call_reaches_all_who_wait(cache: ResponseCache, model: Model, gate: Gate) -> None:
    """And none of them calls again because of it."""
    model.answer = ValueError("overloaded")
    with ThreadPoolExecutor(THREADS) as pool:
        asking = [pool.submit(cache.get_or_call, REQUEST, model) for _ in range(THREADS)]
        assert eventually(lambda: waiting(cache) == THREADS)
        gate.open.set()
        assert [each.exception(DEADLINE_S) for each in asking] == [model.answer] * THREADS
    assert len(model.asked) == 1


def test_other_requests_do_not_wait(cache: ResponseCache, model: Model, gate: Gate) -> None:
    """One slow call holds up nobody who wants something else."""
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(cache.get_or_call, REQUEST, model)
        assert gate.reached.wait(DEADLINE_S)
        assert cache.get_or_call(REQUEST, lambda _: "another's", scope="bob") == "another's"
        gate.open.set()
        assert asking.result(DEADLINE_S) == ANSWER


def test_who_gives_up_leaves_the_call_to_the_next(cache: ResponseCache, model: Model, gate: Gate) -> None:
    """A caller who is interrupted in the model's call (Ctrl-C) is not waited for."""
    model.answer = KeyboardInterrupt()
    with ThreadPoolExecutor(2) as pool:
        interrupted = pool.submit(cache.get_or_call, REQUEST, model)
        assert gate.reached.wait(DEADLINE_S)
        next_one = pool.submit(cache.get_or_call, REQUEST, lambda _: "the next one's")
        assert eventually(lambda: waiting(cache) == 2)
        gate.open.set()
        assert isinstance(interrupted.exception(DEADLINE_S), KeyboardInterrupt)
        assert next_one.result(DEADLINE_S) == "the next one's"


def test_a_duty_that_is_dropped_leaves_nobody_waiting(cache: ResponseCache) -> None:
    """Wherever an interruption falls between joining and calling, the next one calls."""
    flights = answers_of(cache).flights  # the gap cannot be hit from outside
    digest = bytes.fromhex(turnlog.cache.key(REQUEST))
    _, lead = flights.join(digest)
    assert lead is not None
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(cache.get_or_call, REQUEST, lambda _: "an answer")
        assert eventually(lambda: waiting(cache) == 2)
        del lead
        assert asking.result(DEADLINE_S) == "an answer"


LEASE_S = 60.0
"""Renewed three times in that time, if nobody is in a hurry."""


@pytest.fixture
def passing(cache_url: str, clock: Clock, request: pytest.FixtureRequest) -> Callable[[], object]:
    """Let two thirds of a lease's time pass: a machine that is busy can say by that how slow it is."""

    def in_redis() -> None:
        server: servers.Redis = request.getfixturevalue("redis")
        database = int(cache_url.rpartition("/")[2])
        (lease,) = server.execute("KEYS", "*", database=database)
        left_ms = server.execute("PTTL", lease, database=database)
        server.execute("PEXPIRE", lease, left_ms - round(LEASE_S * 1000 * 2 / 3), database=database)

    return in_redis if cache_url.startswith("redis") else lambda: clock.advance(LEASE_S * 2 / 3)


def test_a_slow_call_outlives_its_lease(
    cache_url: str, model: Model, gate: Gate, clock: Clock, passing: Callable[[], object]
) -> None:
    """A lease is renewed for as long as the call takes: another handle, as in another process, goes on waiting."""
    options = {} if cache_url.startswith("redis") else {"clock": clock}
    with (
        opened(cache_url, lease_s=LEASE_S, **options) as cache,
        opened(cache_url, lease_s=LEASE_S, **options) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        renewing: Any = vars(answers_of(cache).guarded)["_renewing"]
        vars(renewing)["_every_s"] = 0.05
        asking = pool.submit(cache.get_or_call, REQUEST, model)
        assert gate.reached.wait(DEADLINE_S)
        renewed = threading.Event()
        storage: Any = answers_of(cache).storage
        renew, times = storage.renew, iter(range(1000))

        def counting(*given: Any) -> None:
            renew(*given)
            if next(times) < 5:
                passing()
            else:
                renewed.set()

        storage.renew = counting
        waits = pool.submit(other.get_or_call, REQUEST, lambda _: "called too early")
        assert renewed.wait(DEADLINE_S)
        gate.open.set()
        assert asking.result(DEADLINE_S) == ANSWER
        expected = "called too early" if cache_url == "memory://" else ANSWER  # two memories know nothing of each other
        assert waits.result(DEADLINE_S) == expected


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_waits_for_none_of_its_parents_calls(cache: ResponseCache, model: Model, gate: Gate) -> None:
    """It has none of the threads that make them; what it shares with its parent is the storage."""
    cache.put({"kept": 1}, "kept")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(cache.get_or_call, {**REQUEST, "n": 1}, model)
        assert gate.reached.wait(DEADLINE_S)
        child = os.fork()
        if child == 0:
            with_parent = cache.get({"kept": 1}) == "kept"
            own = cache.get_or_call(REQUEST, lambda _: "the child's") == "the child's"
            os._exit(0 if with_parent and own and waiting(cache) == 0 else 1)
        assert os.waitpid(child, 0)[1] == 0
        gate.open.set()
        assert asking.result(DEADLINE_S) == ANSWER
