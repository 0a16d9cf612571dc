"""A program of the ``eventsourcing`` library on turnlog's recorders: it names the module and works."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError, Tracking
from eventsourcing.projection import Projection, ProjectionRunner

import turnlog
from turnlog import events as e
from turnlog.adapters.sqlite import SQLiteTrackingRecorder
from turnlog.adapters.sqlite.database import Database

LONG_S = 60.0
"""How long a test waits for what must happen."""


class Table(Aggregate):
    """A restaurant's table, as a user of the library writes an aggregate."""

    @event("Opened")
    def __init__(self, seats: int) -> None:
        self.seats = seats
        self.guests: list[str] = []

    @event("GuestSeated")
    def seat(self, name: str) -> None:
        """Seat a guest."""
        if len(self.guests) == self.seats:
            raise ValueError("the table is full")
        self.guests.append(name)


class Restaurant(Application[UUID]):
    """The user's application."""

    name = "restaurant"
    snapshotting_intervals = {Table: 5}  # noqa: RUF012 - the library's way

    def open_table(self, seats: int) -> UUID:
        """Open a table and return its id."""
        table = Table(seats)
        self.save(table)
        return table.id

    def seat(self, table_id: UUID, name: str) -> None:
        """Seat a guest."""
        table: Table = self.repository.get(table_id)
        table.seat(name)
        self.save(table)

    def guests(self, table_id: UUID, version: int | None = None) -> list[str]:
        """Return who sits there."""
        table: Table = self.repository.get(table_id, version=version)
        return table.guests


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The application's database."""
    return tmp_path / "restaurant.db"


@pytest.fixture(params=["memory", "sqlite"])
def environment(request: pytest.FixtureRequest, file: Path) -> dict[str, str]:
    """What an application sets to run on a backend."""
    if request.param == "memory":
        return {"PERSISTENCE_MODULE": "turnlog.adapters.memory", "IS_SNAPSHOTTING_ENABLED": "yes"}
    return on_sqlite(file)


def on_sqlite(file: Path) -> dict[str, str]:
    """Return what an application sets to run on SQLite."""
    return {
        "PERSISTENCE_MODULE": "turnlog.adapters.sqlite",
        "SQLITE_DBNAME": str(file),
        "SQLITE_DURABILITY": "normal",
        "IS_SNAPSHOTTING_ENABLED": "yes",
    }


@pytest.fixture
def restaurant(environment: dict[str, str]) -> Iterator[Restaurant]:
    """The application."""
    with closing(Restaurant(environment)) as application:
        yield application


def test_aggregates_live_on_it(restaurant: Restaurant) -> None:
    """Aggregates are saved, found again, read in the past, and refused what their rules forbid."""
    table = restaurant.open_table(seats=7)
    names = ["Ann", "Bo", "Cy", "Di", "Ed", "Flo", "Gus"]
    for name in names:
        restaurant.seat(table, name)
    assert restaurant.guests(table) == names
    assert restaurant.guests(table, version=3) == ["Ann", "Bo"]
    with pytest.raises(ValueError, match="full"):
        restaurant.seat(table, "Hal")
    with pytest.raises(AggregateNotFoundError):
        restaurant.guests(UUID(int=0))


def test_snapshots_are_taken_and_used(restaurant: Restaurant) -> None:
    """With snapshotting on, a snapshot is stored at the interval, and an aggregate is made from it."""
    table = restaurant.open_table(seats=9)
    for name in "abcdef":
        restaurant.seat(table, name)
    assert restaurant.snapshots is not None
    (snapshot,) = restaurant.snapshots.get(table, desc=True, limit=1)
    assert snapshot.originator_version == 5
    assert restaurant.guests(table) == list("abcdef")


def test_two_writers_of_one_aggregate(restaurant: Restaurant) -> None:
    """The second of two who saved the same version is refused, whole."""
    table = restaurant.open_table(seats=4)
    one: Table = restaurant.repository.get(table)
    two: Table = restaurant.repository.get(table)
    one.seat("Ann")
    two.seat("Bo")
    two.seat("Cy")
    restaurant.save(one)
    with pytest.raises(IntegrityError):
        restaurant.save(two)
    assert restaurant.guests(table) == ["Ann"]


def test_the_notification_log_is_the_order_of_saving(restaurant: Restaurant) -> None:
    """Other programs read what was saved, in order, in sections."""
    first, second = restaurant.open_table(seats=2), restaurant.open_table(seats=2)
    restaurant.seat(second, "Bo")
    restaurant.seat(first, "Ann")
    notifications = restaurant.notification_log.select(start=1, limit=10)
    assert [n.originator_id for n in notifications] == [first, second, second, first]
    assert [n.id for n in notifications] == sorted(n.id for n in notifications)
    assert restaurant.notification_log["1,2"].items == notifications[:2]


@pytest.mark.parametrize("kind", ["uuid", "text"])
def test_it_is_there_when_the_program_starts_again(file: Path, kind: str) -> None:
    """What one run saved, the next run finds; ids may be stored as text as well."""
    environment = {**on_sqlite(file), "ORIGINATOR_ID_TYPE": kind}
    with closing(Restaurant(environment)) as first:
        table = first.open_table(seats=6)
        for name in "abcdef":
            first.seat(table, name)
    with closing(Restaurant(environment)) as second:
        assert second.guests(table) == list("abcdef")
        second_id = second.recorder.select_notifications(start=1, limit=1)[0].originator_id
        assert second_id == (table if kind == "uuid" else table.hex)


class SeatedCount(SQLiteTrackingRecorder):
    """A view of the user's own: how many were seated, in one transaction with how far it has read."""

    def create_table(self) -> None:
        """Create the view's table too."""
        super().create_table()
        with self.database.write() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS seated (one INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
            connection.execute("INSERT OR IGNORE INTO seated VALUES (1, 0)")

    def seated(self, tracking: Tracking, n: int) -> None:
        """Count, and record how far that was."""
        with self.database.write() as connection:
            connection.execute("UPDATE seated SET n = n + ?", (n,))
            self._insert_tracking(connection, tracking)

    def count(self) -> int:
        """Return how many were seated."""
        with self.database.read() as connection:
            return int(connection.execute("SELECT n FROM seated").fetchone()[0])


class Seated(Projection[SeatedCount]):
    """The projection that fills it."""

    name = "seated"

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Count the seated."""
        self.view.seated(tracking, 1 if type(domain_event).__name__ == "GuestSeated" else 0)


def test_a_projection_follows_it(file: Path) -> None:
    """The library's runner follows what is saved while it runs and before, and goes on where it was."""
    environment = on_sqlite(file)

    def runner() -> ProjectionRunner[Restaurant, SeatedCount]:
        return ProjectionRunner(
            application_class=Restaurant, projection_class=Seated, view_class=SeatedCount, env=environment
        )

    with closing(Restaurant(environment)) as restaurant:
        table = restaurant.open_table(seats=9)
        restaurant.seat(table, "before")
        with runner() as running:
            restaurant.seat(table, "beside it")
            running.app.seat(table, "through it")
            running.wait(restaurant.recorder.max_notification_id(), timeout=LONG_S)
            assert running.projection.view.count() == 3
        restaurant.seat(table, "between")
        with runner() as running:
            running.wait(restaurant.recorder.max_notification_id(), timeout=LONG_S)
            assert running.projection.view.count() == 4


def test_turnlogs_own_log_reads_as_notifications(tmp_path: Path) -> None:
    """A program of the library that names turnlog's mapper reads a conversation as recorded events, by session too."""
    file = tmp_path / "sessions.db"
    names = {"events": "stored_events"}
    with turnlog.open(f"sqlite:///{file}", names=names, durability="normal") as store:
        session = store.session("s-1", user_id="alice")
        receipt = session.add_message("user", "A table for two, please", actor="browser")
        expected = list(store.events())
    environment = {
        **on_sqlite(file),
        "ORIGINATOR_ID_TYPE": "text",
        "MAPPER_TOPIC": "turnlog.domain.mapper:Mapper",
        "CREATE_TABLE": "no",
        "IS_SNAPSHOTTING_ENABLED": "no",
    }
    with closing(Application[str](environment)) as reader:
        notifications = reader.notification_log.select(start=1, limit=10)
        assert [reader.mapper.to_domain_event(n) for n in notifications] == expected
        events: list[Any] = list(reader.events.get("default/s-1"))
    assert [found.event for found in events] == [found.event for found in expected]
    assert isinstance(events[-1].event, e.MessageAdded)
    assert (events[-1].event.content, events[-1].actor) == ("A table for two, please", "browser")
    assert events[-1].hash == receipt.hash


def test_the_library_tables_and_turnlogs_share_a_file(file: Path) -> None:
    """One file may hold an application of the library and a conversation store; neither disturbs the other."""
    with closing(Restaurant(on_sqlite(file))) as restaurant, turnlog.open(f"sqlite:///{file}") as store:
        table = restaurant.open_table(seats=2)
        store.session("s-1").add_message("user", "hello")
        restaurant.seat(table, "Ann")
        assert restaurant.guests(table) == ["Ann"]
        assert store.verify().ok
        assert [event.version for event in store.events()] == [1, 2]
    with closing(Database(str(file))) as database, database.read() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
