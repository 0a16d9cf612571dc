"""The backends on which faults are tried. To have another server take part, add its name to ``SERVERS``.

``TURNLOG_THOROUGH=5`` tries five times as many instants and damages of those kinds where one is like the other;
``TURNLOG_SEED`` repeats what is cut by chance.
"""

import logging
import os
import random
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Protocol, TypeVar

import pymongo.common
import pytest

from tests.faults.proxy import Proxy
from tests.servers import (
    MariaDB,
    MongoDB,
    PostgreSQL,
    Redis,
    binaries_or_skip,
    mariadbd_or_skip,
    mongod_or_skip,
    redis_server_or_skip,
)
from turnlog.adapters.mariadb import pool
from turnlog.adapters.mongodb import client, writing
from turnlog.adapters.postgresql import patience
from turnlog.domain.errors import StoreError

T = TypeVar("T")
LONG_S = 60.0
THOROUGH = int(os.environ.get("TURNLOG_THOROUGH", "1"))
SEED = int(os.environ.get("TURNLOG_SEED", random.SystemRandom().randrange(1 << 32)))
SERVERS = ("postgresql", "mariadb", "redis", "mongodb")
"""Each is a fixture, a server with a ``port``, and ``<name>_url``: an empty database of it."""


class Server(Protocol):
    """A server of the test run's own."""

    @property
    def port(self) -> int:
        """Where it listens."""
        ...

    def crash(self) -> None:
        """End it at once."""
        ...

    def start(self) -> None:
        """Start it again, on the same port."""
        ...


def _postgresql() -> Iterator[tuple[Server, str]]:
    with PostgreSQL(binaries_or_skip(), {}) as started:
        yield started, started.new_place()


def _mariadb() -> Iterator[tuple[Server, str]]:
    with MariaDB(mariadbd_or_skip(), {"innodb-flush-log-at-trx-commit": "1"}) as started:
        yield started, started.new_place()


def _redis() -> Iterator[tuple[Server, str]]:
    with Redis(redis_server_or_skip()) as started:
        yield started, started.new_place()


def _mongodb() -> Iterator[tuple[Server, str]]:
    with MongoDB(mongod_or_skip(), cheap=False) as started:
        yield started, started.new_place()


_DURABLE: dict[str, Callable[[], Iterator[tuple[Server, str]]]] = {
    "postgresql": _postgresql,
    "mariadb": _mariadb,
    "redis": _redis,
    "mongodb": _mongodb,
}
"""Servers of one test, which survive a crash."""


@pytest.fixture(params=SERVERS)
def server_url(request: pytest.FixtureRequest) -> str:
    """A store on a server, that does not exist yet."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def server(request: pytest.FixtureRequest, server_url: str) -> Server:
    """The server of ``server_url``."""
    found: Server = request.getfixturevalue(server_url.partition("://")[0])
    return found


@pytest.fixture(params=("sqlite", *SERVERS))
def shared_url(request: pytest.FixtureRequest) -> str:
    """A store that does not exist yet, on every backend that several processes can use."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=SERVERS)
def durable(request: pytest.FixtureRequest) -> Iterator[tuple[Server, str]]:
    """A server that syncs its files, and an empty database of it."""
    yield from _DURABLE[request.param]()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have waits be short that are counted in seconds, and are no part of what is tested."""
    monkeypatch.setattr(patience.PatientConnection, "patience_s", 0.5)
    monkeypatch.setattr(patience, "GRACE_S", 0.5)
    monkeypatch.setattr(pool, "SILENCES", 1)
    monkeypatch.setattr(client, "SILENCES", 0.25)
    monkeypatch.setattr(writing, "PATIENCE_S", 1.0)
    monkeypatch.setattr(pymongo.common, "MIN_HEARTBEAT_INTERVAL", 0.02)  # between two looks at a server that failed


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """The proxy, before the server."""
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # it tells of every connection that was cut
    with Proxy(server.port, late_s=0.02, seed=SEED) as started:
        yield started


def patiently(call: Callable[[], T]) -> T:
    """Do what a store that gives up soon may not get done on a busy machine, again until it is done."""
    deadline = monotonic() + LONG_S
    while True:
        try:
            return call()
        except StoreError:
            if monotonic() > deadline:
                raise


def through(proxy: Proxy, url: str) -> str:
    """Return a URL as one that leads through the proxy; MongoDB's driver looks often then, and not only for long."""
    return proxy.url(url) + ("&serverMonitoringMode=poll" if url.startswith("mongodb") else "")
