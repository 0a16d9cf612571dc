"""Fixtures that tests of all rooms share: a store on each backend, a clock that stands still, real conversations."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import turnlog
from tests import servers
from tests.servers.again import Again
from turnlog.testing import Clock

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TURNLOG_DATA") or ROOT.parent / "shared" / "data")

# A busy machine is no defect: neither deadlines nor slow data generation fail a test.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets what it runs in the background ignore Ctrl-C, and so would every process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = frozenset(("faults", "machine", "kit", "test_docs.py", "test_package.py", "test_conversations_checked.py"))
"""Files and folders whose tests take long."""


@pytest.hookimpl(trylast=True)  # after their order was shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have long tests begin first: to one that begins last, all other processes of the run wait."""
    items.sort(key=lambda item: LONG.isdisjoint(item.path.parts))


def pytest_report_header() -> str:
    """Say at the top whether the real conversations take part."""
    return f"real conversations: {DATA}" if DATA.is_dir() else f"real conversations: NOT TESTED, no {DATA}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in the last lines which backends were not tested."""
    reasons = {str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []) if report.longrepr}
    for reason in sorted(reasons):
        if servers.UNTESTED in reason:
            terminalreporter.write_line(reason.removeprefix("Skipped: "), red=True, bold=True)


@pytest.fixture
def clock() -> Clock:
    """The clock of ``store``."""
    return Clock()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite store that does not exist yet."""
    return f"sqlite:///{tmp_path}/sessions.db"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[servers.PostgreSQL]:
    """A PostgreSQL server of this test run's own (one for each process of it), quick, not safe from a crash."""
    with servers.PostgreSQL(servers.binaries_or_skip()) as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql: servers.PostgreSQL) -> Iterator[str]:
    """An empty schema of a PostgreSQL database."""
    made = postgresql.new_place()
    yield made
    postgresql.drop_place(made)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[servers.MariaDB]:
    """A MariaDB server of this test run's own (one for each process of it), quick, not safe from a crash."""
    with servers.MariaDB(servers.mariadbd_or_skip()) as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb: servers.MariaDB) -> Iterator[str]:
    """An empty MariaDB database."""
    made = mariadb.new_place()
    yield made
    mariadb.drop_place(made)


@pytest.fixture(scope="session")
def mongodb() -> Iterator[servers.MongoDB]:
    """A replica set of one member, of this test run's own (one for each process of it), not safe from a crash."""
    with servers.MongoDB(servers.mongod_or_skip()) as server:
        yield server


@pytest.fixture(scope="session")
def mongodb_alone() -> Iterator[servers.MongoDB]:
    """A standalone server, of this test run's own (one for each process of it that needs one)."""
    with servers.MongoDB(servers.mongod_or_skip(), members=0) as server:
        yield server


@pytest.fixture
def mongodb_alone_url(mongodb_alone: servers.MongoDB) -> Iterator[str]:
    """A database on a standalone server that does not exist yet."""
    made = mongodb_alone.new_place()
    yield made
    mongodb_alone.drop_place(made)


@pytest.fixture
def mongodb_url(mongodb: servers.MongoDB) -> Iterator[str]:
    """A MongoDB database that does not exist yet."""
    made = mongodb.new_place()
    yield made
    mongodb.drop_place(made)


@pytest.fixture(scope="session")
def opensearch(tmp_path_factory: pytest.TempPathFactory) -> servers.OpenSearch:
    """An OpenSearch node that all processes of this test run share."""
    home = servers.opensearch_or_skip()
    shared = tmp_path_factory.getbasetemp()
    return servers.OpenSearch(home, shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared)


@pytest.fixture(scope="session")
def redis() -> Iterator[servers.Redis]:
    """A Redis server of this test run's own (one for each process of it)."""
    with servers.Redis(servers.redis_server_or_skip()) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[servers.RedisCluster]:
    """A Redis Cluster of this test run's own (one for each process of it that needs one)."""
    with servers.RedisCluster(servers.redis_server_or_skip()) as cluster:
        yield cluster


@pytest.fixture
def redis_url(redis: servers.Redis) -> Iterator[str]:
    """An empty Redis database."""
    made = redis.new_place()
    yield made
    redis.drop_place(made)


@pytest.fixture(scope="session")
def postgresql_again(postgresql: servers.PostgreSQL) -> Again:
    """Its schemas where stores have been."""
    return Again(postgresql)


@pytest.fixture(scope="session")
def mariadb_again(mariadb: servers.MariaDB) -> Again:
    """Its databases where stores have been."""
    return Again(mariadb)


@pytest.fixture(scope="session")
def mongodb_again(mongodb: servers.MongoDB) -> Again:
    """Its databases where stores have been."""
    return Again(mongodb)


@pytest.fixture(params=["memory", "sqlite", "postgresql", "mariadb", "redis", "mongodb"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A store on every backend: it does not exist yet or, on the servers but Redis, is there and empty."""
    yield from place(request, request.param)


def place(request: pytest.FixtureRequest, backend: str) -> Iterator[str]:
    """Lend the URL of an empty store on a backend."""
    match backend:
        case "memory":
            yield "memory://"
        case "postgresql" | "mariadb" | "mongodb":
            places: Again = request.getfixturevalue(f"{backend}_again")
            given = places.take()
            yield given
            places.give_back(given)
        case _:
            yield str(request.getfixturevalue(f"{backend}_url"))


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[turnlog.ConversationStore]:
    """An empty store on every backend, telling the time by ``clock``."""
    with turnlog.open(url, clock=clock) as opened:
        yield opened


@pytest.fixture
def reopen(
    url: str, store: turnlog.ConversationStore, clock: Clock
) -> Iterator[Callable[[], turnlog.ConversationStore]]:
    """Open the storage of ``store`` a second time; a memory store lives in its handle, so there it is ``store``."""
    opened: list[turnlog.ConversationStore] = []

    def again() -> turnlog.ConversationStore:
        if url == "memory://":
            return store
        opened.append(turnlog.open(url, clock=clock))
        return opened[-1]

    yield again
    for handle in opened:
        handle.close()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real conversations; where it is missing the test is skipped and the report's head says so."""
    if not DATA.is_dir():
        pytest.skip(f"no real conversations at {DATA}; TURNLOG_DATA names another place")
    return DATA
