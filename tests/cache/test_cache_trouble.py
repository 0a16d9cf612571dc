"""A cache that cannot be used is a cache without answers: no call fails because of it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import turnlog.cache
from tests import servers
from tests.cache.conftest import ANSWER, REQUEST, Model, opened
from turnlog import StoreError, StoreUnavailable
from turnlog.cache import CacheStats

NO_REST_S = 1e-9


@pytest.fixture(params=["no server", "no folder", "no database"])
def unusable(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A cache that cannot be used."""
    (tmp_path / "text").write_text("not a database, but somebody's diary\n" * 100)
    urls = {
        "no server": "redis://alice:hunter2@127.0.0.1:1/0",
        "no folder": f"sqlite:///{tmp_path}/none/cache.db",
        "no database": f"sqlite:///{tmp_path}/text",
    }
    return urls[request.param]


def test_errors_are_misses(unusable: str, model: Model, caplog: pytest.LogCaptureFixture) -> None:
    """The model is called each time, the errors are counted, and logged once."""
    with turnlog.cache.open(unusable, rest_s=NO_REST_S) as cache:
        for _ in range(3):
            assert cache.get_or_call(REQUEST, model) == ANSWER
        assert cache.get(REQUEST) is None
        assert cache.put(REQUEST, ANSWER) is False
        stats = cache.stats()
        assert stats.errors >= 8
        assert stats == CacheStats(misses=4, errors=stats.errors)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("turnlog.cache", logging.WARNING)
    assert "hunter2" not in caplog.text


def test_what_deletes_says_that_it_could_not(unusable: str, tmp_path: Path) -> None:
    """An answer that was to be forgotten may still be there. What is no cache is left as it is."""
    with turnlog.cache.open(unusable) as cache:
        assert cache.get(REQUEST) is None  # it rests now, and is asked all the same
        for delete in (cache.clear, lambda: cache.forget("alice"), lambda: cache.delete(REQUEST)):
            with pytest.raises(StoreError) as raised:
                delete()
            assert "hunter2" not in f"{raised.value!r}"
    assert (tmp_path / "text").read_text().startswith("not a database")


def test_after_an_error_the_storage_rests(unusable: str, model: Model) -> None:
    """A server that does not answer costs one timeout, not one for each question."""
    with turnlog.cache.open(unusable, rest_s=3600) as cache:
        for _ in range(3):
            assert cache.get_or_call(REQUEST, model) == ANSWER
        assert cache.stats() == CacheStats(misses=3, errors=1)


def test_a_closed_cache_is_an_unusable_one(cache_url: str, model: Model) -> None:
    """Whoever is still at it when the application ends gets his answer."""
    cache = opened(cache_url, rest_s=NO_REST_S)
    cache.put(REQUEST, "before")
    cache.close()
    assert cache.get_or_call({}, model) == ANSWER


@pytest.fixture
def restarting() -> Iterator[servers.Redis]:
    """A Redis server that this test may end."""
    with servers.Redis(servers.redis_server_or_skip()) as server:
        yield server


def test_it_goes_on_when_the_server_is_back(restarting: servers.Redis, model: Model) -> None:
    """In the middle of a call the server goes: the answer is returned. It comes back: answers are kept again.

    A server that writes its log brings the lease of that call back, too; it ends by itself, here at once.
    """
    with opened(restarting.url, rest_s=NO_REST_S) as cache:
        model.before = restarting.crash
        assert cache.get_or_call(REQUEST, model) == ANSWER
        with pytest.raises(StoreUnavailable):
            cache.forget("alice")
        model.before = restarting.start
        assert cache.get_or_call(REQUEST, model) == ANSWER, "made without a lease, so it is not stored"
        assert cache.get(REQUEST) is None
        (lease,) = restarting.execute("KEYS", "*")
        assert restarting.execute("PEXPIRE", lease, 1) == 1
        model.before = lambda: None
        assert [cache.get_or_call(REQUEST, model) for _ in range(2)] == [ANSWER, ANSWER]
        assert len(model.asked) == 3
