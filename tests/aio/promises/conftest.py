"""The tests of the blocking API, put to `turnlog.aio` through a blocking façade: one file here for each of theirs.

A test that looks behind the façade (at a class of `turnlog`, or a callback's thread) is deleted where it is imported.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.aio.facade import Loop, opened
from tests.api import conftest as api
from tests.conftest import place
from turnlog.testing import Clock

session, unchanged = api.session, api.unchanged


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty store on a file and on a server: what lies between `turnlog.aio` and the store knows no backend."""
    yield from place(request, request.param)


@pytest.fixture
def loop() -> Iterator[Loop]:
    """An event loop that runs in a thread."""
    running = Loop()
    yield running
    running.close()


@pytest.fixture
def store(url: str, clock: Clock, loop: Loop) -> Iterator[Any]:
    """An empty store by `turnlog.aio`."""
    with opened(loop, url, clock=clock) as found:
        yield found


@pytest.fixture
def reopen(
    url: str,
    store: Any,  # noqa: ARG001 - which is there first, and closed last
    clock: Clock,
    loop: Loop,
) -> Iterator[Callable[[], Any]]:
    """Open the storage of ``store`` a second time."""
    handles: list[Any] = []

    def again() -> Any:
        handles.append(opened(loop, url, clock=clock))
        return handles[-1]

    yield again
    for handle in handles:
        handle.close()
