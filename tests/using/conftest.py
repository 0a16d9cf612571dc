"""The tests of the blocking API, put to a store inside an application's transaction: one file here for each of theirs.

A test of what is refused there, or that opens the store a second time, is deleted where it is imported.
"""

from collections.abc import Iterator

import psycopg
import pytest

import turnlog
from tests.api import conftest as api
from turnlog.testing import Clock

session = api.session


@pytest.fixture
def url(postgresql_url: str) -> str:
    """PostgreSQL is the one backend that has this."""
    return postgresql_url


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[turnlog.ConversationStore]:
    """An empty store, inside a transaction that is never committed."""
    with turnlog.open(url, clock=clock) as opened, psycopg.connect(url) as connection:
        yield opened.using(connection)
        connection.rollback()
