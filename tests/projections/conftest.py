"""Fixtures of the projections' tests: a log on each backend."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.projections.log import Log


@pytest.fixture(params=["memory", "file", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    """An empty log, its views in memory, in the log's file, or on PostgreSQL."""
    match request.param:
        case "memory":
            opened = Log()
        case "file":
            opened = Log(tmp_path / "log.db")
        case _:
            opened = Log(str(request.getfixturevalue("postgresql_url")))
    yield opened
    opened.close()


@pytest.fixture
def file_log(tmp_path: Path) -> Iterator[Log]:
    """An empty log in a file."""
    opened = Log(tmp_path / "log.db")
    yield opened
    opened.close()


@pytest.fixture
def other(file_log: Log) -> Iterator[Callable[..., Log]]:
    """Open the file of ``file_log`` again, as another process would."""
    opened: list[Log] = []

    def again(*, read_only: bool = False) -> Log:
        opened.append(file_log.again(read_only=read_only))
        return opened[-1]

    yield again
    for log in opened:
        log.close()
