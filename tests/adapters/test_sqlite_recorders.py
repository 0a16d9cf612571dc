"""The log on SQLite: our recorder contracts, and the cases that ``eventsourcing`` ships, with ids of both kinds."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from eventsourcing.tests import persistence as shipped
from eventsourcing.utils import Environment

from tests.contracts.library_cases import InDirectory, TextIds, UuidIds
from tests.contracts.recorder_contract import LockedContract, RecorderContract, TwoTenantsContract
from tests.contracts.rows import grow
from tests.contracts.stored_rows_contract import Damage, StoredRowsContract
from turnlog.adapters import sqlite
from turnlog.adapters.connect import connect
from turnlog.adapters.database import Database
from turnlog.adapters.names import Names
from turnlog.domain.errors import StoreUnavailable
from turnlog.domain.recorder import Recorder

R = TypeVar("R", bound=sqlite.SQLiteAggregateRecorder | sqlite.SQLiteTrackingRecorder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The database file."""
    return tmp_path / "log.db"


@pytest.fixture
def recorder(path: Path) -> Iterator[Recorder]:
    """An empty recorder, as a store has it."""
    backend = connect(f"sqlite:///{path}", durability="normal", engine=None, options={})
    yield backend.recorder
    backend.recorder.close()


@pytest.fixture
def damage(path: Path) -> Damage:
    """Change a stored row from outside."""

    def change(table: str, column: str, stream: str, value: object) -> None:
        name = {"keys": Names().keys, "snapshots": Names().snapshots}[table]
        with closing(sqlite3.connect(path)) as connection, connection:
            statement = f"UPDATE {name} SET {column} = ? WHERE originator_id = ?"
            assert connection.execute(statement, (value, stream)).rowcount == 1

    return change


class TestRecorder(RecorderContract, LockedContract, TwoTenantsContract, StoredRowsContract):
    """Our contracts."""

    def test_a_second_recorder_sees_all_of_it(self, recorder: Recorder, path: Path) -> None:
        """What one recorder has committed, another on the same file reads at once, and waits for in vain no longer."""
        rows = grow(recorder, "default/s", 3)
        other = connect(f"sqlite:///{path}", durability="full", engine=None, options={}).recorder
        assert other.select_stream("default/s") == rows
        assert other.durability == "full"
        grow(recorder, "default/s", 1)
        assert other.wait_for_news(3, 20.0)
        other.close()

    def test_read_only(self, recorder: Recorder, path: Path) -> None:
        """Opened read-only it reads, and refuses to write."""
        rows = grow(recorder, "default/s", 3)
        only = connect(f"sqlite:///{path}", durability="full", engine=None, options={"read_only": True}).recorder
        assert only.select_stream("default/s") == rows
        with pytest.raises(StoreUnavailable, match="read-only"):
            grow(only, "default/s", 1)
        only.close()


class Recorders(InDirectory):
    """Makes recorders in a database of the test's own."""

    ids = "uuid"

    def made(self, cls: type[R], **options: Any) -> R:
        """Return a recorder in a new database."""
        n = len(list(self.directory.iterdir()))
        recorder = cls(Database(str(self.directory / f"{n}.db"), durability="normal"), **options)
        self.addCleanup(recorder.database.close)
        recorder.create_table()
        return recorder


class TestAggregateRecorder(UuidIds, Recorders, shipped.AggregateRecorderTestCase):
    def create_recorder(self) -> sqlite.SQLiteAggregateRecorder:
        return self.made(sqlite.SQLiteAggregateRecorder, originator_id_type=self.ids)


class TestAggregateRecorderOfText(TextIds, Recorders, shipped.AggregateRecorderTestCase):
    def create_recorder(self) -> sqlite.SQLiteAggregateRecorder:
        return self.made(sqlite.SQLiteAggregateRecorder, originator_id_type=self.ids)


class TestApplicationRecorder(
    UuidIds, Recorders, shipped.ApplicationRecorderTestCase[sqlite.SQLiteApplicationRecorder]
):
    def create_recorder(self) -> sqlite.SQLiteApplicationRecorder:
        return self.made(sqlite.SQLiteApplicationRecorder, originator_id_type=self.ids)

    def test_insert_subscribe(self) -> None:
        """The optional case: following."""
        self.optional_test_insert_subscribe()


class TestApplicationRecorderOfText(
    TextIds, Recorders, shipped.ApplicationRecorderTestCase[sqlite.SQLiteApplicationRecorder]
):
    def create_recorder(self) -> sqlite.SQLiteApplicationRecorder:
        return self.made(sqlite.SQLiteApplicationRecorder, originator_id_type=self.ids)

    def test_insert_subscribe(self) -> None:
        """The optional case: following."""
        self.optional_test_insert_subscribe()


class TestProcessRecorder(UuidIds, Recorders, shipped.ProcessRecorderTestCase):
    def create_recorder(self) -> sqlite.SQLiteProcessRecorder:
        return self.made(sqlite.SQLiteProcessRecorder, originator_id_type=self.ids)


class TestProcessRecorderOfText(TextIds, Recorders, shipped.ProcessRecorderTestCase):
    def create_recorder(self) -> sqlite.SQLiteProcessRecorder:
        return self.made(sqlite.SQLiteProcessRecorder, originator_id_type=self.ids)


class TestTrackingRecorder(Recorders, shipped.TrackingRecorderTestCase):
    def create_recorder(self) -> sqlite.SQLiteTrackingRecorder:
        return self.made(sqlite.SQLiteTrackingRecorder)


class TestNonInterleaving(UuidIds, Recorders, shipped.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> sqlite.SQLiteApplicationRecorder:
        return self.made(sqlite.SQLiteApplicationRecorder, originator_id_type=self.ids)


class TestInMemory(UuidIds, InDirectory, shipped.ApplicationRecorderTestCase[sqlite.SQLiteApplicationRecorder]):
    """A private database in memory keeps the contract too, threads included."""

    def create_recorder(self) -> sqlite.SQLiteApplicationRecorder:
        recorder = sqlite.SQLiteApplicationRecorder(Database(None))
        self.addCleanup(recorder.database.close)
        recorder.create_table()
        return recorder


class OwnTracking(sqlite.SQLiteTrackingRecorder):
    """An application's own tracking recorder."""


class TestFactory(InDirectory, shipped.InfrastructureFactoryTestCase[sqlite.SQLiteFactory]):
    def setUp(self) -> None:
        """Name module and file, as an application would."""
        given = {"PERSISTENCE_MODULE": "turnlog.adapters.sqlite", "SQLITE_DBNAME": str(self.directory / "log.db")}
        self.env = Environment(name="Test", env=given)
        super().setUp()

    def expected_factory_class(self) -> type[sqlite.SQLiteFactory]:
        return sqlite.SQLiteFactory

    def expected_aggregate_recorder_class(self) -> type[sqlite.SQLiteAggregateRecorder]:
        return sqlite.SQLiteAggregateRecorder

    def expected_application_recorder_class(self) -> type[sqlite.SQLiteApplicationRecorder]:
        return sqlite.SQLiteApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[sqlite.SQLiteTrackingRecorder]:
        return sqlite.SQLiteTrackingRecorder

    def tracking_recorder_subclass(self) -> type[sqlite.SQLiteTrackingRecorder]:
        return OwnTracking

    def expected_process_recorder_class(self) -> type[sqlite.SQLiteProcessRecorder]:
        return sqlite.SQLiteProcessRecorder


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SQLITE_DBNAME", ""), ("ORIGINATOR_ID_TYPE", "number"), ("SQLITE_DURABILITY", "some")],
)
def test_factory_names_what_is_wrong(tmp_path: Path, variable: str, value: str) -> None:
    """A factory that is configured badly says which variable it is."""
    given = {"SQLITE_DBNAME": str(tmp_path / "log.db"), variable: value}
    with pytest.raises(OSError, match=variable):
        sqlite.SQLiteFactory(Environment(name="Test", env=given))
