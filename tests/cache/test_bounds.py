"""A cache does not grow without bounds."""

import turnlog.cache
from tests.cache.conftest import ANSWER, opened


def test_memory_forgets_the_least_recently_used() -> None:
    """Beyond so many answers; reading one makes it recent."""
    with turnlog.cache.open("memory://", max_entries=3) as cache:
        for n in range(3):
            cache.put({"n": n}, n)
        assert cache.get({"n": 0}) == 0
        cache.put({"n": 3}, 3)
        assert [cache.get({"n": n}) for n in range(4)] == [0, None, 2, 3]


def test_memory_is_bounded_by_bytes() -> None:
    """Beyond so many bytes; replacing an answer does not count the old one."""
    with turnlog.cache.open("memory://", max_value_bytes=1000, max_bytes=2100) as cache:
        for n in (0, 1, 1, 1, 2):
            cache.put({"n": n}, "x" * 950)
        assert [cache.get({"n": n}) is None for n in range(3)] == [True, False, False]


def test_an_sqlite_file_is_bounded(sqlite_url: str) -> None:
    """The oldest go now and then; what has expired goes first."""
    with opened(sqlite_url, max_entries=5) as cache:
        for n in range(128):
            cache.put({"n": n}, ANSWER)
        assert [n for n in range(128) if cache.get({"n": n}) is not None] == list(range(123, 128))
