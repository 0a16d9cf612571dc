"""Fixtures of the tests of the public API: a session to talk to, and a check that refused input left no trace."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from typing import TypeAlias

import pytest

from turnlog import ConversationStore, Session

Unchanged: TypeAlias = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def session(store: ConversationStore) -> Session:
    """Alice's session, with nothing said in it."""
    return store.session("s-1", user_id="alice")


def digest(store: ConversationStore) -> tuple[int, str]:
    """Return the log's position and a hash over all heads and events."""
    told = sha256()
    for event in store.events():
        told.update(f"{event.position} {event.hash} {event.event!r}\n".encode())
    for head in store.heads():
        told.update(f"{head!r}\n".encode())
    return store.position, told.hexdigest()


@pytest.fixture
def unchanged(store: ConversationStore) -> Unchanged:
    """Require that what happens inside leaves the log as it was."""

    @contextmanager
    def checked() -> Generator[None, None, None]:
        before = digest(store)
        yield
        assert digest(store) == before

    return checked
