"""The log on SQLite: our recorder contracts, and the cases that ``eventsourcing`` ships, with ids of both kinds."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from eventsourcing.persistence import DatabaseError, IntegrityError, OperationalError, StoredEvent, Tracking
from eventsourcing.tests import persistence as shipped
from eventsourcing.utils import Environment

import turnlog
from turnlog.adapters import sqlite
from turnlog.adapters.connect import connect
from turnlog.adapters.names import Names
from turnlog.adapters.sqlite.database import Database
from turnlog.domain.errors import StoreUnavailable
from turnlog.domain.recorder import Recorder
from turnlog.testing.contracts import LockedContract, RecorderContract, TwoTenantsContract
from turnlog.testing.contracts.library import InDirectory, TextIds, UuidIds
from turnlog.testing.contracts.rows import grow
from turnlog.testing.contracts.stored_rows import Damage, StoredRowsContract

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

    def test_scrubbing_beside_a_reader(self, path: Path) -> None:
        """While a reader keeps the log from being emptied, writers are let in; what is left is named, then scrubbed."""
        with turnlog.open(f"sqlite:///{path}") as store, closing(sqlite3.connect(path)) as reader:
            session = store.session("s")
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM turnlog_events").fetchall()
            session.add_message("user", "hello")
            found: list[turnlog.Erasure] = []
            scrubbing = threading.Thread(target=lambda: found.append(store.scrub()))
            began = monotonic()
            scrubbing.start()
            session.add_message("user", "meanwhile")
            scrubbing.join(20)
            assert monotonic() - began < 10, "it waits for the reader, as long as for a writer"
            assert not found[0].complete
            assert "an open reader" in found[0].pending[0]
            reader.rollback()
            assert store.scrub().complete


class TestErrorsOfTheLibrary:
    """What the recorders of ``eventsourcing``'s contract raise is in that library's tree of errors."""

    @pytest.fixture
    def process(self, path: Path) -> Iterator[sqlite.SQLiteProcessRecorder]:
        """A recorder in a database."""
        recorder = sqlite.SQLiteProcessRecorder(Database(str(path), timeout_s=0.1))
        recorder.create_table()
        yield recorder
        recorder.database.close()

    def uses(self, recorder: sqlite.SQLiteProcessRecorder) -> list[Callable[[], object]]:
        """Return every call of the contract that reads or writes."""
        event, tracking = StoredEvent(uuid4(), 1, "topic", b""), Tracking("up", 1)
        return [
            recorder.create_table,
            lambda: recorder.insert_events([event], tracking=tracking),
            lambda: recorder.insert_tracking(tracking),
            lambda: recorder.select_events(event.originator_id),
            lambda: recorder.select_notifications(1, 10),
            recorder.max_notification_id,
            lambda: recorder.max_tracking_id("up"),
            lambda: recorder.has_tracking_id("up", 1),
        ]

    def test_not_available(self, process: sqlite.SQLiteProcessRecorder) -> None:
        """A closed database, or one that is busy for too long, is an OperationalError; ours is the cause."""
        with closing(sqlite3.connect(str(process.database.path), isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            for use in self.uses(process)[:3]:
                with pytest.raises(OperationalError, match="held the database") as caught:
                    use()
                assert isinstance(caught.value.__cause__, StoreUnavailable)
        process.database.close()
        for use in self.uses(process):
            with pytest.raises(OperationalError, match="closed"):
                use()

    def test_damaged(self, process: sqlite.SQLiteProcessRecorder) -> None:
        """A table that is missing is a DatabaseError."""
        with process.database.write() as connection:
            connection.execute("DROP TABLE stored_events")
            connection.execute("DROP TABLE notification_tracking")
        for use in self.uses(process)[1:]:
            with pytest.raises(DatabaseError, match="no such table"):
                use()

    def test_taken(self, process: sqlite.SQLiteProcessRecorder) -> None:
        """A version or a tracking that was there before is an IntegrityError."""
        _, insert_events, insert_tracking, *_ = self.uses(process)
        insert_events()
        for use in (insert_events, insert_tracking):
            with pytest.raises(IntegrityError):
                use()


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
