"""The tests of the blocking API, put to a store inside an application's transaction: one file here for each of theirs.

A test of what is refused there, or that opens the store a second time, is deleted where it is imported.
"""

from collections.abc import Iterator

import pytest

import turnlog
from tests import servers
from tests.api import conftest as api
from tests.lent.applications import application
from turnlog.testing import Clock

session = api.session


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty store on each backend that has this; nothing is ever committed there, so it stays empty."""
    if request.param == "postgresql":
        postgresql: servers.PostgreSQL = request.getfixturevalue("postgresql")
        made = postgresql.new_place()
        yield made
        postgresql.drop_place(made)
    else:
        mariadb: servers.MariaDB = request.getfixturevalue("mariadb")
        made = mariadb.new_place()
        yield made
        mariadb.drop_place(made)


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[turnlog.ConversationStore]:
    """An empty store, inside a transaction that is never committed."""
    with turnlog.open(url, clock=clock) as opened:
        app = application(url)
        yield opened.using(app.connection)
        app.close()
