"""What is promised of turns inside an application's transaction, promised by `turnlog.aio`."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.aio.facade import Loop, opened
from tests.aio.lent.conftest import OnLoop
from tests.api import conftest as api
from tests.servers import PostgreSQL
from tests.using.test_using_turns import *
from turnlog.testing import Clock

session = api.session

del test_what_is_an_append_of_its_own_is_refused_inside  # calls the blocking class


@pytest.fixture(scope="module")
def postgresql_url(postgresql: PostgreSQL) -> Iterator[str]:
    """An empty store; nothing is ever committed there, so it stays empty."""
    made = postgresql.new_place()
    yield made
    postgresql.drop_place(made)


@pytest.fixture
def store(postgresql_url: str, loop: Loop, app: OnLoop, clock: Clock) -> Iterator[Any]:
    """An empty store, inside a transaction that is never committed."""
    with opened(loop, postgresql_url, clock=clock) as made:
        yield made.using(app.connection)
