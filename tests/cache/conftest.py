"""A cache on each backend, and requests to answer."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest

import turnlog.cache
from turnlog.cache import ResponseCache

REQUEST: dict[str, Any] = {
    "model": "m-1",
    "messages": [{"role": "user", "content": "A table for two, please"}],
    "temperature": 0.2,
    "max_tokens": 100,
    "tools": [{"name": "book", "parameters": {"type": "object"}}],
}
ANSWER = {"role": "assistant", "content": "Gladly. At what time?", "usage": {"tokens": 12, "cost": 1e-05}}


DEADLINE_S = 60.0


def opened(url: str, **options: Any) -> ResponseCache:
    """Open a cache that waits for its storage, where an answer that comes late would be a miss."""
    patience: dict[str, Any] = {} if url == "memory://" else {"timeout_s": DEADLINE_S}
    return turnlog.cache.open(url, **patience, **options)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def cache_url(request: pytest.FixtureRequest) -> str:
    """A cache that does not exist yet, on every backend."""
    return "memory://" if request.param == "memory" else str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def cache(cache_url: str) -> Iterator[ResponseCache]:
    """An empty cache on every backend."""
    with opened(cache_url) as made:
        yield made


class Model:
    """A model that gives the same answer always, and counts how often it is asked."""

    def __init__(self, answer: Any = ANSWER) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self.before: Callable[[], object] = lambda: None
        """Done while it is answering."""

    def __call__(self, request: dict[str, Any]) -> Any:
        """Answer, or raise what the answer is."""
        self.asked.append(request)
        self.before()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return deepcopy(self.answer)

    async def awaitable(self, request: dict[str, Any]) -> Any:
        """Answer."""
        return self(request)


@pytest.fixture
def model() -> Model:
    """A model."""
    return Model()
