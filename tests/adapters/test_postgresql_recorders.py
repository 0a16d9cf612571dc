"""The log on PostgreSQL: our recorder contracts, and the cases that ``eventsourcing`` ships, with ids of both kinds."""

from collections.abc import Iterator
from typing import Any, TypeVar
from unittest import TestCase

import psycopg
import pytest
from eventsourcing.tests import persistence as shipped
from eventsourcing.utils import Environment
from psycopg import sql

from tests.servers import HOST, PostgreSQL
from turnlog.adapters import postgresql as pg
from turnlog.adapters.connect import connect
from turnlog.adapters.names import Names
from turnlog.adapters.postgresql.pool import Pool
from turnlog.domain.errors import StoreUnavailable
from turnlog.domain.recorder import Recorder
from turnlog.testing.contracts import RecorderContract, TwoTenantsContract, UnlockedContract
from turnlog.testing.contracts.library import TextIds, UuidIds
from turnlog.testing.contracts.rows import grow
from turnlog.testing.contracts.stored_rows import Damage, StoredRowsContract

R = TypeVar("R", bound=pg.PostgreSQLAggregateRecorder | pg.PostgreSQLTrackingRecorder)


@pytest.fixture(params=["auto", "strict"])
def recorder(postgresql_url: str, request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """An empty recorder, as a store has it."""
    options = {"ordering": request.param, "timeout_s": 20.0}
    backend = connect(postgresql_url, durability="normal", engine=None, options=options)
    yield backend.recorder
    backend.recorder.close()
    backend.views.close()


@pytest.fixture
def damage(postgresql_url: str) -> Damage:
    """Change a stored row from outside."""

    def change(table: str, column: str, stream: str, value: object) -> None:
        name = {"keys": Names().keys, "snapshots": Names().snapshots}[table]
        statement = sql.SQL("UPDATE {} SET {} = %s WHERE originator_id = %s").format(
            sql.Identifier(name), sql.Identifier(column)
        )
        with psycopg.connect(postgresql_url) as connection:
            assert connection.execute(statement, (value, stream)).rowcount == 1

    return change


class TestRecorder(RecorderContract, UnlockedContract, TwoTenantsContract, StoredRowsContract):
    """Our contracts."""

    out_of_reach = ("write-ahead log",)

    @pytest.fixture(autouse=True)
    def short(self, request: pytest.FixtureRequest, recorder: Recorder) -> None:
        """What may not fit is asked for until the time is over, which is therefore short there."""
        assert isinstance(recorder, pg.PostgreSQLRecorder)
        if "may_not_fit" in request.node.name:
            recorder.appends.timeout_s = 1.0

    def test_a_second_recorder_sees_all_of_it(self, recorder: Recorder, postgresql_url: str) -> None:
        """What one recorder has committed, another reads at once, and waits for in vain no longer."""
        rows = grow(recorder, "default/s", 3)
        other = connect(postgresql_url, durability="full", engine=None, options={}).recorder
        assert other.select_stream("default/s") == rows
        grow(recorder, "default/s", 1)
        assert other.wait_for_news(3, 20.0)
        other.close()

    def test_read_only(self, recorder: Recorder, postgresql_url: str) -> None:
        """Opened read-only it reads, and refuses to write."""
        rows = grow(recorder, "default/s", 3)
        only = connect(postgresql_url, durability="full", engine=None, options={"read_only": True}).recorder
        assert only.select_stream("default/s") == rows
        with pytest.raises(StoreUnavailable, match="read-only"):
            grow(only, "default/s", 1)
        only.close()


@pytest.mark.usefixtures("own_database")
class Recorders(TestCase):
    """Makes recorders in a database of the test's own."""

    ids = "uuid"
    url: str

    @pytest.fixture
    def own_database(self, postgresql_url: str) -> None:
        """Give the test its database."""
        self.url = postgresql_url

    def made(self, cls: type[R], **options: Any) -> R:
        """Return a recorder, each of a test with a table of its own."""
        self.__dict__["n"] = n = self.__dict__.get("n", 0) + 1
        pool = Pool(self.url)
        if issubclass(cls, pg.PostgreSQLAggregateRecorder):
            options["events_table"] = f"events_{n}"
        recorder = cls(pool, **options)
        self.addCleanup(pool.close)
        if isinstance(recorder, pg.PostgreSQLApplicationRecorder):
            self.addCleanup(recorder.close)
        recorder.create_table()
        return recorder


class TestAggregateRecorder(UuidIds, Recorders, shipped.AggregateRecorderTestCase):
    def create_recorder(self) -> pg.PostgreSQLAggregateRecorder:
        return self.made(pg.PostgreSQLAggregateRecorder, originator_id_type=self.ids)


class TestAggregateRecorderOfText(TextIds, Recorders, shipped.AggregateRecorderTestCase):
    def create_recorder(self) -> pg.PostgreSQLAggregateRecorder:
        return self.made(pg.PostgreSQLAggregateRecorder, originator_id_type=self.ids)


class TestApplicationRecorder(
    UuidIds, Recorders, shipped.ApplicationRecorderTestCase[pg.PostgreSQLApplicationRecorder]
):
    def create_recorder(self) -> pg.PostgreSQLApplicationRecorder:
        return self.made(pg.PostgreSQLApplicationRecorder, originator_id_type=self.ids)

    def test_insert_subscribe(self) -> None:
        """The optional case: following."""
        self.optional_test_insert_subscribe()


class TestApplicationRecorderOfText(
    TextIds, Recorders, shipped.ApplicationRecorderTestCase[pg.PostgreSQLApplicationRecorder]
):
    def create_recorder(self) -> pg.PostgreSQLApplicationRecorder:
        return self.made(pg.PostgreSQLApplicationRecorder, originator_id_type=self.ids)

    def test_insert_subscribe(self) -> None:
        """The optional case: following."""
        self.optional_test_insert_subscribe()


class TestProcessRecorder(UuidIds, Recorders, shipped.ProcessRecorderTestCase):
    def create_recorder(self) -> pg.PostgreSQLProcessRecorder:
        return self.made(pg.PostgreSQLProcessRecorder, originator_id_type=self.ids)


class TestProcessRecorderOfText(TextIds, Recorders, shipped.ProcessRecorderTestCase):
    def create_recorder(self) -> pg.PostgreSQLProcessRecorder:
        return self.made(pg.PostgreSQLProcessRecorder, originator_id_type=self.ids)


class TestTrackingRecorder(Recorders, shipped.TrackingRecorderTestCase):
    def create_recorder(self) -> pg.PostgreSQLTrackingRecorder:
        return self.made(pg.PostgreSQLTrackingRecorder)


class TestNonInterleaving(UuidIds, Recorders, shipped.NonInterleavingNotificationIDsBaseCase):
    """That two large appends do not interleave takes a lock: only ``ordering="strict"`` has one."""

    def create_recorder(self) -> pg.PostgreSQLApplicationRecorder:
        return self.made(pg.PostgreSQLApplicationRecorder, originator_id_type=self.ids, ordering="strict")


class OwnTracking(pg.PostgreSQLTrackingRecorder):
    """An application's own tracking recorder."""


@pytest.mark.usefixtures("environment")
class TestFactory(shipped.InfrastructureFactoryTestCase[pg.PostgreSQLFactory]):
    @pytest.fixture
    def environment(self, postgresql: PostgreSQL, postgresql_url: str) -> None:
        """Name module and database, as an application would."""
        given = {"PERSISTENCE_MODULE": "turnlog.adapters.postgresql", **variables(postgresql, postgresql_url)}
        self.env = Environment(name="Test", env=given)

    def tearDown(self) -> None:
        """Close what the test has opened."""
        self.factory.close()
        super().tearDown()

    def expected_factory_class(self) -> type[pg.PostgreSQLFactory]:
        return pg.PostgreSQLFactory

    def expected_aggregate_recorder_class(self) -> type[pg.PostgreSQLAggregateRecorder]:
        return pg.PostgreSQLAggregateRecorder

    def expected_application_recorder_class(self) -> type[pg.PostgreSQLApplicationRecorder]:
        return pg.PostgreSQLApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[pg.PostgreSQLTrackingRecorder]:
        return pg.PostgreSQLTrackingRecorder

    def tracking_recorder_subclass(self) -> type[pg.PostgreSQLTrackingRecorder]:
        return OwnTracking

    def expected_process_recorder_class(self) -> type[pg.PostgreSQLProcessRecorder]:
        return pg.PostgreSQLProcessRecorder


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POSTGRES_DBNAME", ""),
        ("ORIGINATOR_ID_TYPE", "number"),
        ("POSTGRES_ORDERING", "some"),
        ("POSTGRES_PARTITIONS", "0"),
    ],
)
def test_factory_names_what_is_wrong(postgresql: PostgreSQL, postgresql_url: str, variable: str, value: str) -> None:
    """A factory that is configured badly says which variable it is."""
    given = {**variables(postgresql, postgresql_url), variable: value}
    with pytest.raises(OSError, match=variable):
        pg.PostgreSQLFactory(Environment(name="Test", env=given))


def variables(server: PostgreSQL, url: str) -> dict[str, str]:
    """Return the environment in which an application names a database."""
    return {
        "POSTGRES_DBNAME": "postgres",
        "POSTGRES_HOST": HOST,
        "POSTGRES_PORT": str(server.port),
        "POSTGRES_USER": "tester",
        "POSTGRES_PASSWORD": "",
        "POSTGRES_SCHEMA": url.rpartition("%3D")[2],
    }
