"""Fixtures of the projections' tests: a log on each backend."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.projections.log import Log


@pytest.fixture(params=["memory", "file", "postgresql", "mariadb"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """An empty log, its views in memory, in the log's file, or on a server."""
    match request.param:
        case "memory":
            opened = Log()
        case "file":
            opened = Log(tmp_path / "log.db")
        case _:
            opened = Log(str(request.getfixturevalue(f"{request.param}_url")))
    yield opened
    opened.close()


@pytest.fixture
def file_log(tmp_path: Path) -> Iterator[Log]:
    """An empty log in a file."""
    opened = Log(tmp_path / "log.db")
    yield opened
    opened.close()


@pytest.fixture(params=["file", "postgresql", "mariadb"])
def kept_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """An empty log that several handles can share: in a file, or on a server."""
    place = tmp_path / "log.db" if request.param == "file" else str(request.getfixturevalue(f"{request.param}_url"))
    opened = Log(place)
    yield opened
    opened.close()


@pytest.fixture
def other(kept_log: Log) -> Iterator[Callable[..., Log]]:
    """Open the storage of ``kept_log`` again, as another process would."""
    opened: list[Log] = []

    def again(*, read_only: bool = False) -> Log:
        opened.append(kept_log.again(read_only=read_only))
        return opened[-1]

    yield again
    for log in opened:
        log.close()
