"""What a cache promises on every backend: answers are kept, for whom they are for, for as long as was said."""

from collections.abc import Callable
from datetime import timedelta
from time import monotonic, sleep
from typing import Any

import msgspec
import pytest

import turnlog.cache
from tests.cache.conftest import ANSWER, DEADLINE_S, REQUEST, Model, opened
from turnlog import InvalidInput
from turnlog.cache import CacheStats, ResponseCache
from turnlog.testing import Clock, strategies


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds."""
    deadline = monotonic() + DEADLINE_S
    while not condition():
        if monotonic() > deadline:
            return False
        sleep(0.002)
    return True


def test_the_model_is_called_once(cache: ResponseCache, model: Model) -> None:
    """The second equal request is answered from the cache, wherever the order of its properties differs."""
    assert cache.get_or_call(REQUEST, model) == ANSWER
    assert cache.get_or_call(dict(reversed(REQUEST.items())), model) == ANSWER
    assert model.asked == [REQUEST]
    assert cache.stats() == CacheStats(misses=1, hits=1, stores=1)


def test_every_json_value_comes_back_as_it_was(cache: ResponseCache) -> None:
    """To the digit and the code unit."""
    values: list[Any] = [ANSWER, "text", "", [], {}, 0, False, *strategies.EDGES, *strategies.AWKWARD]
    assert cache.put(REQUEST, values)
    again = cache.get(REQUEST)
    assert repr(again) == repr(values)


def test_an_answer_may_be_null(cache: ResponseCache, model: Model) -> None:
    """That is an answer, too: the model is not called again."""
    model.answer = None
    assert [cache.get_or_call(REQUEST, model) for _ in range(2)] == [None, None]
    assert len(model.asked) == 1
    assert cache.get(REQUEST, default="nothing") is None
    assert cache.get({}, default="nothing") == "nothing"


def test_changing_an_answer_changes_nobody_elses(cache: ResponseCache, model: Model) -> None:
    """Whoever gets an answer owns it; what the model is given is a copy of the request, too."""
    first = cache.get_or_call(REQUEST, model)
    first["content"] = "changed"
    model.asked[0]["model"] = "changed"
    second = cache.get_or_call(REQUEST, model)
    assert (second["content"], REQUEST["model"]) == (ANSWER["content"], "m-1")


def test_another_scope_has_answers_of_its_own(cache: ResponseCache, model: Model) -> None:
    """Nobody gets what was said to somebody else (the seeds' keys had no scope)."""
    for scope in ((), "acme", ("acme", "alice"), ("acme", "bob")):
        cache.get_or_call(REQUEST, model, scope=scope)
    assert len(model.asked) == 4
    assert cache.get(REQUEST, scope=("acme", "carol")) is None


def test_a_scope_is_forgotten_with_those_below_it(cache: ResponseCache) -> None:
    """All of a person is deleted, or all of a tenant, and nothing of anybody else."""
    scopes: list[Any] = [
        (),
        ("acme",),
        ("acme", "alice"),
        ("acme", "alice", "s-1"),
        ("acme", "bob"),
        ("other", "alice"),
    ]
    for scope in scopes:
        cache.put(REQUEST, ANSWER, scope=scope)
        cache.put({}, ANSWER, scope=scope)
    assert cache.forget(("acme", "alice")) == 4
    assert [cache.get(REQUEST, scope=scope) is None for scope in scopes] == [False, False, True, True, False, False]
    assert cache.forget("acme") == 4
    assert [cache.get({}, scope=scope) is None for scope in scopes] == [False, True, True, True, True, False]
    assert cache.clear() == 4
    assert cache.get(REQUEST) is None
    with pytest.raises(InvalidInput):
        cache.forget(())


def test_what_is_being_made_for_a_forgotten_scope_is_not_stored(cache: ResponseCache, model: Model) -> None:
    """Nothing said before stays: not even the answer that the model is at just then."""
    for forget in (lambda: cache.forget("alice"), lambda: cache.delete(REQUEST, scope=("alice", "s")), cache.clear):
        model.before = forget
        assert cache.get_or_call(REQUEST, model, scope=("alice", "s")) == ANSWER
        assert cache.get(REQUEST, scope=("alice", "s")) is None
    assert (cache.stats().stores, cache.stats().unstored) == (0, 3)
    model.before = lambda: cache.forget("bob")
    cache.get_or_call(REQUEST, model, scope=("alice", "s"))
    assert cache.get(REQUEST, scope=("alice", "s")) == ANSWER


def test_an_answer_is_deleted(cache: ResponseCache) -> None:
    """One, and it is told whether there was one."""
    cache.put(REQUEST, ANSWER)
    cache.put({}, ANSWER)
    assert [cache.delete(REQUEST), cache.delete(REQUEST)] == [True, False]
    assert cache.get({}) == ANSWER


def test_an_answer_is_replaced(cache: ResponseCache) -> None:
    """`put` stores the newer one (the seeds' cache kept the older)."""
    cache.put(REQUEST, "old", ttl_s=None)
    cache.put(REQUEST, "new")
    assert cache.get(REQUEST) == "new"


def test_an_answer_expires(cache: ResponseCache, model: Model) -> None:
    """After its time to live the model is called again; without one it stays."""
    cache.put({}, "for ever", ttl_s=None)
    cache.get_or_call(REQUEST, model, ttl_s=0.02)
    assert eventually(lambda: cache.get(REQUEST) is None)
    cache.get_or_call(REQUEST, model)
    assert len(model.asked) == 2
    assert cache.get({}) == "for ever"


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
def test_it_expires_to_the_second(backend: str, clock: Clock, request: pytest.FixtureRequest) -> None:
    """The default is one hour; an answer is there until then, is counted as expired after, and can be swept out."""
    url: str = "memory://" if backend == "memory" else request.getfixturevalue("sqlite_url")
    with opened(url, clock=clock) as cache:
        cache.put(REQUEST, ANSWER)
        cache.put({"n": 1}, ANSWER)
        cache.put({"n": 2}, ANSWER, ttl_s=3601)
        clock.advance(3599)
        assert cache.get(REQUEST) == ANSWER
        clock.advance(1)
        assert cache.get(REQUEST) is None
        assert cache.stats() == CacheStats(hits=1, misses=1, expired=1, stores=3)
        assert cache.purge_expired() + (backend == "memory") == 2
        clock.now += timedelta(seconds=1)
        assert cache.purge_expired() == 1


def test_an_error_of_the_model_is_raised_and_not_kept(cache: ResponseCache, model: Model) -> None:
    """The next one calls again."""
    model.answer = ValueError("overloaded")
    for _ in range(2):
        with pytest.raises(ValueError, match="overloaded"):
            cache.get_or_call(REQUEST, model)
    model.answer = ANSWER
    assert cache.get_or_call(REQUEST, model) == ANSWER
    assert cache.stats() == CacheStats(misses=3, stores=1)


@pytest.mark.parametrize("answer", [object(), ("a", "tuple"), {"n": float("nan")}, {1: 2}, "x" * 101, msgspec.UNSET])
def test_what_cannot_be_stored_is_returned_all_the_same(cache_url: str, answer: Any) -> None:
    """The caller gets his answer, whatever it is; the cache counts that it did not keep it."""
    with opened(cache_url, max_value_bytes=102) as cache:
        assert cache.get_or_call(REQUEST, lambda _: answer) is answer
        assert cache.put(REQUEST, answer) is False
        assert cache.get(REQUEST) is None
        assert cache.stats() == CacheStats(misses=2, unstored=2)
        assert cache.put(REQUEST, "x" * 100)


def test_the_call_that_makes_an_answer_cannot_wait_for_it(cache: ResponseCache) -> None:
    """It is told, where it would hang for ever; other requests it may make."""

    def ask_again(request: dict[str, Any]) -> Any:
        assert cache.get_or_call({"other": 1}, lambda _: "other") == "other"
        return cache.get_or_call(request, lambda _: "never")

    with pytest.raises(RuntimeError, match="the answer that it is to give"):
        cache.get_or_call(REQUEST, ask_again)
    assert cache.get_or_call(REQUEST, lambda _: "an answer") == "an answer"


@pytest.mark.parametrize(
    ("url", "options", "field"),
    [
        ("postgresql://alice:hunter2@localhost", {}, "url"),
        ("memory://x", {}, "url"),
        ("sqlite://", {}, "url"),
        ("redis://:hunter2@localhost:hunter2/0", {}, "url"),
        ("redis://localhost/0?password=hunter2", {}, "url"),
        ("redis://localhost/0?decode_responses=yes", {}, "url"),
        ("memory://", {"ttl_s": 0}, "ttl_s"),
        ("memory://", {"lease_s": -1}, "lease_s"),
        ("memory://", {"rest_s": None}, "rest_s"),
        ("memory://", {"clock": 1}, "clock"),
        ("redis://localhost", {"clock": Clock()}, "clock"),
        ("redis://localhost", {"prefix": "a*"}, "prefix"),
        ("memory://", {"prefix": "a"}, "prefix"),
        ("memory://", {"max_entries": 0}, "max_entries"),
        ("memory://", {"max_bytes": 100}, "max_bytes"),
        ("memory://", {"max_value_bytes": 0}, "max_value_bytes"),
        ("sqlite:///x.db", {"timeout_s": "2"}, "timeout_s"),
    ],
)
def test_what_is_not_understood_is_refused(url: str, options: dict[str, Any], field: str) -> None:
    """By name, and without telling what may be a password."""
    with pytest.raises(InvalidInput) as raised:
        turnlog.cache.open(url, **options)
    assert raised.value.field == field
    assert "hunter2" not in f"{raised.value} {raised.value.__cause__} {raised.value.__context__}"


def test_reprs_tell_no_secret() -> None:
    """Neither passwords nor answers."""
    with turnlog.cache.open("redis://alice:hunter2@localhost:1/3", prefix="p") as cache:
        assert repr(cache) == "<ResponseCache redis localhost:1/3>"
        assert repr(cache.aio) == "<AsyncResponseCache redis localhost:1/3>"


def test_two_prefixes_share_a_server(redis_url: str) -> None:
    """Clearing one cache leaves the other, and every other key, alone."""
    with opened(redis_url, prefix="a") as one, opened(redis_url, prefix="a:b") as other:
        one.put(REQUEST, ANSWER)
        assert other.get(REQUEST) is None
        other.put(REQUEST, ANSWER)
        assert one.clear() == 1
        assert other.get(REQUEST) == ANSWER
