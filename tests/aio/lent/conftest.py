"""What is promised of `store.using`, put to `turnlog.aio` with a `psycopg.AsyncConnection`: a file for each of theirs.

A test that has a connection or a store of its own making is deleted where it is imported.
"""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.aio.facade import Blocking, Loop, opened
from tests.aio.promises import conftest as promises
from tests.lent.applications import DEADLINE_S, OnPostgreSQL

loop = promises.loop


class OnLoop(OnPostgreSQL):
    """An application of psycopg's, for asyncio."""

    def __init__(self, loop: Loop, url: str, **options: Any) -> None:
        connection: Any = loop.run(lambda: psycopg.AsyncConnection.connect(url, **options))
        self.connection: Any = Blocking(loop, connection)
        self.commit, self.rollback, self.close = self.connection.commit, self.connection.rollback, self.connection.close
        self.killing = f"SELECT pg_terminate_backend({connection.info.backend_pid}, {DEADLINE_S * 1000})"


@pytest.fixture
def store(postgresql_url: str, loop: Loop) -> Iterator[Any]:
    """A store with alice's session ``s``, in which one message was said, and a table of the application's beside it."""
    with psycopg.connect(postgresql_url) as owner:
        owner.execute("CREATE TABLE orders (dish text)")
    with opened(loop, postgresql_url) as made:
        made.session("s", user_id="alice").add_message("user", "before")
        made.catch_up()
        yield made


@pytest.fixture
def connect(postgresql_url: str, loop: Loop) -> Iterator[Callable[..., OnLoop]]:
    """Connect as an application does, with options of the driver's; what is left open is rolled back."""
    made: list[OnLoop] = []

    def connected(**options: Any) -> OnLoop:
        made.append(OnLoop(loop, postgresql_url, **options))
        return made[-1]

    yield connected
    for one in made:
        one.close()


@pytest.fixture
def app(connect: Callable[..., OnLoop]) -> OnLoop:
    """An application."""
    return connect()


@pytest.fixture
def connection(app: OnLoop) -> Any:
    """An application's connection."""
    return app.connection
