"""The log on MariaDB: our recorder contracts, and the cases that ``eventsourcing`` ships, with ids of both kinds."""

from collections.abc import Iterator
from typing import Any, TypeVar
from unittest import TestCase

import pytest
from eventsourcing.tests import persistence as shipped
from eventsourcing.utils import Environment

from tests.servers import HOST, MariaDB
from turnlog.adapters import mariadb as my
from turnlog.adapters.connect import connect
from turnlog.adapters.mariadb.connection import run
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.names import Names
from turnlog.domain.errors import StoreUnavailable
from turnlog.domain.recorder import Recorder
from turnlog.testing.contracts import LockedContract, RecorderContract, TwoTenantsContract
from turnlog.testing.contracts.library import TextIds, UuidIds
from turnlog.testing.contracts.rows import grow
from turnlog.testing.contracts.stored_rows import Damage, StoredRowsContract

R = TypeVar("R", bound=my.MariaDBAggregateRecorder | my.MariaDBTrackingRecorder)


@pytest.fixture
def recorder(mariadb_url: str) -> Iterator[Recorder]:
    """An empty recorder, as a store has it."""
    backend = connect(mariadb_url, durability="normal", engine=None, options={"timeout_s": 20.0})
    yield backend.recorder
    backend.recorder.close()


@pytest.fixture
def damage(mariadb_url: str) -> Damage:
    """Change a stored row from outside."""

    def change(table: str, column: str, stream: str, value: object) -> None:
        name = {"keys": Names().keys, "snapshots": Names().snapshots}[table]
        with Pool(mariadb_url) as pool, pool.write() as connection:
            statement = f"UPDATE {name} SET `{column}` = %s WHERE originator_id = %s"
            assert run(connection, statement, (value, stream)).rowcount == 1

    return change


class TestRecorder(RecorderContract, LockedContract, TwoTenantsContract, StoredRowsContract):
    """Our contracts."""

    out_of_reach = ("old table files", "undo log", "redo log", "backups")

    def test_a_second_recorder_sees_all_of_it(self, recorder: Recorder, mariadb_url: str) -> None:
        """What one recorder has committed, another reads at once, and waits for in vain no longer."""
        rows = grow(recorder, "default/s", 3)
        other = connect(mariadb_url, durability="full", engine=None, options={}).recorder
        assert other.select_stream("default/s") == rows
        grow(recorder, "default/s", 1)
        assert other.wait_for_news(3, 20.0)
        other.close()

    def test_read_only(self, recorder: Recorder, mariadb_url: str) -> None:
        """Opened read-only it reads, and refuses to write."""
        rows = grow(recorder, "default/s", 3)
        only = connect(mariadb_url, durability="full", engine=None, options={"read_only": True}).recorder
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
    def own_database(self, mariadb_url: str) -> None:
        """Give the test its database."""
        self.url = mariadb_url

    def made(self, cls: type[R], **options: Any) -> R:
        """Return a recorder, each of a test with a table of its own."""
        self.__dict__["n"] = n = self.__dict__.get("n", 0) + 1
        pool = Pool(self.url)
        if issubclass(cls, my.MariaDBAggregateRecorder):
            options["events_table"] = f"events_{n}"
        recorder = cls(pool, **options)
        self.addCleanup(pool.close)
        recorder.create_table()
        return recorder


class TestAggregateRecorder(UuidIds, Recorders, shipped.AggregateRecorderTestCase):
    def create_recorder(self) -> my.MariaDBAggregateRecorder:
        return self.made(my.MariaDBAggregateRecorder, originator_id_type=self.ids)


class TestAggregateRecorderOfText(TextIds, Recorders, shipped.AggregateRecorderTestCase):
    def create_recorder(self) -> my.MariaDBAggregateRecorder:
        return self.made(my.MariaDBAggregateRecorder, originator_id_type=self.ids)


class TestApplicationRecorder(UuidIds, Recorders, shipped.ApplicationRecorderTestCase[my.MariaDBApplicationRecorder]):
    def create_recorder(self) -> my.MariaDBApplicationRecorder:
        return self.made(my.MariaDBApplicationRecorder, originator_id_type=self.ids)

    def test_insert_subscribe(self) -> None:
        """The optional case: following."""
        self.optional_test_insert_subscribe()


class TestApplicationRecorderOfText(
    TextIds, Recorders, shipped.ApplicationRecorderTestCase[my.MariaDBApplicationRecorder]
):
    def create_recorder(self) -> my.MariaDBApplicationRecorder:
        return self.made(my.MariaDBApplicationRecorder, originator_id_type=self.ids)

    def test_insert_subscribe(self) -> None:
        """The optional case: following."""
        self.optional_test_insert_subscribe()


class TestProcessRecorder(UuidIds, Recorders, shipped.ProcessRecorderTestCase):
    def create_recorder(self) -> my.MariaDBProcessRecorder:
        return self.made(my.MariaDBProcessRecorder, originator_id_type=self.ids)


class TestProcessRecorderOfText(TextIds, Recorders, shipped.ProcessRecorderTestCase):
    def create_recorder(self) -> my.MariaDBProcessRecorder:
        return self.made(my.MariaDBProcessRecorder, originator_id_type=self.ids)


class TestTrackingRecorder(Recorders, shipped.TrackingRecorderTestCase):
    def create_recorder(self) -> my.MariaDBTrackingRecorder:
        return self.made(my.MariaDBTrackingRecorder)


class TestNonInterleaving(UuidIds, Recorders, shipped.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> my.MariaDBApplicationRecorder:
        return self.made(my.MariaDBApplicationRecorder, originator_id_type=self.ids)


class OwnTracking(my.MariaDBTrackingRecorder):
    """An application's own tracking recorder."""


@pytest.mark.usefixtures("environment")
class TestFactory(shipped.InfrastructureFactoryTestCase[my.MariaDBFactory]):
    @pytest.fixture
    def environment(self, mariadb: MariaDB, mariadb_url: str) -> None:
        """Name module and database, as an application would."""
        given = {"PERSISTENCE_MODULE": "turnlog.adapters.mariadb", **variables(mariadb, mariadb_url)}
        self.env = Environment(name="Test", env=given)

    def tearDown(self) -> None:
        """Close what the test has opened."""
        self.factory.close()
        super().tearDown()

    def expected_factory_class(self) -> type[my.MariaDBFactory]:
        return my.MariaDBFactory

    def expected_aggregate_recorder_class(self) -> type[my.MariaDBAggregateRecorder]:
        return my.MariaDBAggregateRecorder

    def expected_application_recorder_class(self) -> type[my.MariaDBApplicationRecorder]:
        return my.MariaDBApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[my.MariaDBTrackingRecorder]:
        return my.MariaDBTrackingRecorder

    def tracking_recorder_subclass(self) -> type[my.MariaDBTrackingRecorder]:
        return OwnTracking

    def expected_process_recorder_class(self) -> type[my.MariaDBProcessRecorder]:
        return my.MariaDBProcessRecorder


@pytest.mark.parametrize(
    ("variable", "value"), [("MARIADB_DBNAME", ""), ("MARIADB_PORT", "first"), ("ORIGINATOR_ID_TYPE", "number")]
)
def test_factory_names_what_is_wrong(mariadb: MariaDB, mariadb_url: str, variable: str, value: str) -> None:
    """A factory that is configured badly says which variable it is."""
    given = {**variables(mariadb, mariadb_url), variable: value}
    with pytest.raises(OSError, match=variable):
        my.MariaDBFactory(Environment(name="Test", env=given))


def test_factory_by_the_other_name(mariadb: MariaDB, mariadb_url: str) -> None:
    """The variables may begin with MYSQL as well."""
    given = {name.replace("MARIADB", "MYSQL"): value for name, value in variables(mariadb, mariadb_url).items()}
    factory = my.MariaDBFactory(Environment(name="Test", env=given))
    assert factory.application_recorder().max_notification_id() is None
    factory.close()


def variables(server: MariaDB, url: str) -> dict[str, str]:
    """Return the environment in which an application names a database."""
    return {
        "MARIADB_DBNAME": url.rpartition("/")[2],
        "MARIADB_HOST": HOST,
        "MARIADB_PORT": str(server.port),
        "MARIADB_USER": "root",
        "MARIADB_PASSWORD": "",
    }
