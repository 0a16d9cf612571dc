"""A store on a server, and applications that have connections of their own to it."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

import turnlog
from tests.lent.applications import Application, application

Connect: TypeAlias = Callable[..., Application]


@pytest.fixture(params=["postgresql", "mariadb"])
def server_url(request: pytest.FixtureRequest) -> str:
    """A store on a server, that does not exist yet."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def store(server_url: str) -> Iterator[turnlog.ConversationStore]:
    """A store with alice's session ``s``, in which one message was said, and a table of the application's beside it."""
    with turnlog.open(server_url) as opened:
        owner = application(server_url)
        owner.execute("CREATE TABLE orders (dish text)")
        owner.commit()
        owner.close()
        opened.session("s", user_id="alice").add_message("user", "before")
        opened.catch_up()
        yield opened


@pytest.fixture
def connect(server_url: str) -> Iterator[Connect]:
    """Connect as an application does, with options of the driver's; what is left open is rolled back."""
    made: list[Application] = []

    def connected(**options: Any) -> Application:
        made.append(application(server_url, **options))
        return made[-1]

    yield connected
    for one in made:
        one.close()


@pytest.fixture
def app(connect: Connect) -> Application:
    """An application."""
    return connect()
