"""The log in MongoDB: our recorder contracts, and the cases that ``eventsourcing`` ships, with ids of both kinds."""

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar
from unittest import TestCase

import pytest
from eventsourcing.tests import persistence as shipped
from eventsourcing.utils import Environment
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect

import turnlog
from turnlog.adapters import mongodb as mongo
from turnlog.adapters.attempt import Lost
from turnlog.adapters.connect import connect
from turnlog.adapters.mongodb import queueing
from turnlog.adapters.mongodb.client import Client
from turnlog.adapters.mongodb.queueing import Queue
from turnlog.adapters.mongodb.writing import Appending
from turnlog.adapters.names import Names
from turnlog.domain.errors import ConcurrencyConflict, InvalidInput, StoreUnavailable
from turnlog.domain.recorder import Batch, Reader, Recorder
from turnlog.testing.contracts import Damage, RecorderContract, StoredRowsContract, TwoTenantsContract
from turnlog.testing.contracts.library import TextIds, UuidIds
from turnlog.testing.contracts.rows import batch, grow, tombstone, write

R = TypeVar("R", bound=mongo.MongoDBAggregateRecorder | mongo.MongoDBTrackingRecorder)
S, T = "default/s", "default/t"
LONG_S = 60.0


@pytest.fixture
def recorder(request: pytest.FixtureRequest, mongodb_url: str) -> Iterator[Recorder]:
    """An empty recorder, as a store has it."""
    durability = str(getattr(request, "param", "full"))
    backend = connect(mongodb_url, durability=durability, engine=None, options={"timeout_s": 20.0})
    yield backend.recorder
    backend.recorder.close()


@pytest.fixture
def other(recorder: Recorder, mongodb_url: str) -> Iterator[Recorder]:
    """The same log, as another process has it."""
    opened = connect(mongodb_url, durability=recorder.durability, engine=None, options={}).recorder
    yield opened
    opened.close()


@pytest.fixture
def damage(mongodb_url: str) -> Damage:
    """Change what is stored of a key or a snapshot from outside; the stream's only one of its kind."""

    def change(table: str, column: str, stream: str, value: object) -> None:
        with Client(mongodb_url) as client:
            events = client.collection(Names().events)
            what = table.removesuffix("s") if table == "snapshots" else table
            (found,) = events.find({"stream": stream, what: {"$exists": True}})
            held = found[what][0] if table == "keys" else found[what]
            if column == "originator_id":
                events.update_one({"_id": found["_id"]}, {"$unset": {what: ""}})
                other = events.find_one({"stream": value, what: {"$exists": False}})
                assert other is not None
                events.update_one({"_id": other["_id"]}, {"$set": {what: found[what]}})
                return
            if column in ("kind", "key"):
                kind, _, name = held["name"].partition(":")
                column, value = "name", f"{value}:{name}" if column == "kind" else f"{kind}:{value}"
            place = f"{what}.0.{column}" if table == "keys" else f"{what}.{column}"
            assert events.update_one({"_id": found["_id"]}, {"$set": {place: value}}).modified_count == 1

    return change


@pytest.mark.parametrize("recorder", ["normal"], indirect=True)
class TestNormal:
    """What the shorter promise changes is how a place is found; so that much of the contract again."""

    patience_s = RecorderContract.patience_s
    test_racing_threads_lose_nothing = RecorderContract.test_racing_threads_lose_nothing
    test_a_taken_version_asks_again = RecorderContract.test_a_taken_version_asks_again
    test_a_taken_key_asks_again = RecorderContract.test_a_taken_key_asks_again
    test_no_reader_is_overtaken = RecorderContract.test_no_reader_is_overtaken

    def test_a_version_that_was_lost_is_not_built_on(self, recorder: Recorder) -> None:
        """A handle that knows what a crash of the server's has undone is refused: it leaves no hole."""
        rows = grow(recorder, S, 2)
        for stale in (Batch(S, [(4, "t", b"")]), Batch(T, [(2, "t", b"")])):
            with pytest.raises(ConcurrencyConflict):
                recorder.append((stale,), partial(_the_same, (stale,)))
        assert recorder.select_log(limit=9) == [(row[0], S, *row[1:]) for row in rows]


def _the_same(batches: Sequence[Batch], _: Reader) -> Sequence[Batch]:
    return batches


class TestRecorder(RecorderContract, TwoTenantsContract, StoredRowsContract):
    """Our contracts."""

    out_of_reach = ("collections' files", "journal", "oplog", "backups")
    reads_one_moment = True

    @pytest.mark.parametrize("recorder", ["full", "normal"], indirect=True)
    def test_asked_until_it_fits(self, recorder: Recorder, other: Recorder) -> None:
        """Who is overtaken while he decides anew is asked once more, and reads what came meanwhile."""
        grow(recorder, S, 1)
        seen: list[int] = []

        def again(reader: Reader) -> Sequence[Batch]:
            rows = reader.select_stream(S)
            seen.append(len(rows))
            if len(seen) < 3:
                grow(other, S, 1)
            return (batch(S, 1, before=rows, words="mine"),)

        recorder.append((batch(S, 2, words="mine"),), again)
        assert seen[-1] == 3
        assert seen == sorted(seen)
        assert [row[1] for row in recorder.select_stream(S)] == [1, 2, 3, 4]

    def test_a_question_that_is_lost_is_asked_again(
        self, recorder: Recorder, other: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The answer to an append is lost, and then that to whether it is there: it is tried on, and is there once."""
        losses: list[Exception] = [Lost()]

        def losing(done: Callable[..., Any], then: list[Exception]) -> Callable[..., Any]:
            def lost(*given: Any, **options: Any) -> Any:
                answer = done(*given, **options)
                if losses:
                    error = losses.pop()
                    losses.extend(then)
                    raise error
                return answer

            return lost

        collection: Any = Collection
        rows = grow(other, S, 1)
        mine = batch(S, 1, before=rows)
        monkeypatch.setattr(Appending, "write", losing(Appending.write, [AutoReconnect("cut")]))
        monkeypatch.setattr(collection, "update_one", losing(collection.update_one, []))
        (position,) = recorder.append((mine,), partial(_the_same, (mine,)))
        assert losses == []
        assert recorder.select_log(limit=9)[-1][:3] == (position, S, 2)

    @pytest.mark.parametrize("recorder", ["full", "normal"], indirect=True)
    def test_what_is_read_was_not_erased_meanwhile(self, recorder: Recorder, other: Recorder) -> None:
        """What was decided from a session that was erased meanwhile is not written: it is decided anew."""
        rows = grow(recorder, S, 2)
        seen: list[int] = []

        def again(reader: Reader) -> Sequence[Batch]:
            before = reader.select_stream(S)
            seen.append(len(before))
            if len(seen) == 1:
                write(other, tombstone(S, rows))
                if recorder.durability == "full" and self.reads_one_moment:
                    assert reader.select_stream(S) == before
            return (batch(T, 1),)

        (position,) = recorder.append((), again)
        assert (seen[0], seen[-1]) == (2, 3)
        assert recorder.select_stream(S)[-1][0] < position

    @pytest.mark.parametrize("recorder", ["full", "normal"], indirect=True)
    def test_a_second_recorder_sees_all_of_it(self, recorder: Recorder, other: Recorder) -> None:
        """What one recorder has committed, another reads at once, and is woken by what comes later."""
        rows = grow(recorder, S, 3)
        assert other.select_stream(S) == rows
        woken: list[bool] = []
        waiting = threading.Thread(target=lambda: woken.append(other.wait_for_news(3, LONG_S)), daemon=True)
        waiting.start()
        grow(recorder, S, 1)
        waiting.join(LONG_S)
        assert woken == [True]

    def test_read_only(self, recorder: Recorder, mongodb_url: str) -> None:
        """Opened read-only it reads, and refuses to write."""
        rows = grow(recorder, S, 3)
        only = connect(mongodb_url, durability="full", engine=None, options={"read_only": True}).recorder
        assert only.select_stream(S) == rows
        with pytest.raises(StoreUnavailable, match="read-only"):
            grow(only, S, 1)
        only.close()

    def test_ids_are_never_operators(self, recorder: Recorder) -> None:
        """Names that look like MongoDB's operators, field paths or variables are names."""
        for stream in ("default/$ne", "$where/{}", "default/a.b", "default/$$ROOT", "default/$stream"):
            (row,) = grow(recorder, stream, 1)
            assert recorder.select_stream(stream) == [row]
        assert recorder.select_stream("default/$gt") == []

    def test_an_event_that_no_document_holds(self, recorder: Recorder) -> None:
        """What is larger than MongoDB allows is refused in words, and nothing is written."""
        with pytest.raises(InvalidInput, match="document of MongoDB's"):
            write(recorder, Batch(S, [(1, "t", b"." * (17 << 20))]))
        assert recorder.select_stream(S) == []

    @pytest.mark.parametrize("recorder", ["full", "normal"], indirect=True)
    def test_large_appends_are_whole(self, recorder: Recorder) -> None:
        """What takes several documents, being large, is read as it was written, from both ends."""
        rows = [(n, "t", b"%d" % n * (1 << 18)) for n in range(1, 10)]
        write(recorder, Batch(S, rows))
        assert [row[1:] for row in recorder.select_stream(S)] == rows
        assert [row[1] for row in recorder.select_stream(S, desc=True, limit=2)] == [9, 8]
        assert [row[1] for row in recorder.select_stream(S, desc=True, upto=5, limit=2)] == [5, 4]


@pytest.mark.usefixtures("own_database")
class Recorders(TestCase):
    """Makes recorders in a database of the test's own."""

    ids = "uuid"
    url: str

    @pytest.fixture
    def own_database(self, mongodb_url: str) -> None:
        """Give the test its database."""
        self.url = mongodb_url

    def made(self, cls: type[R], **options: Any) -> R:
        """Return a recorder, each of a test with a collection of its own."""
        self.__dict__["n"] = n = self.__dict__.get("n", 0) + 1
        client = Client(self.url)
        if issubclass(cls, mongo.MongoDBAggregateRecorder):
            options["events_table"] = f"events_{n}"
        recorder = cls(client, **options)
        self.addCleanup(client.close)
        recorder.create_table()
        return recorder


class TestAggregateRecorder(UuidIds, Recorders, shipped.AggregateRecorderTestCase):
    def create_recorder(self) -> mongo.MongoDBAggregateRecorder:
        return self.made(mongo.MongoDBAggregateRecorder, originator_id_type=self.ids)


class TestAggregateRecorderOfText(TextIds, Recorders, shipped.AggregateRecorderTestCase):
    def create_recorder(self) -> mongo.MongoDBAggregateRecorder:
        return self.made(mongo.MongoDBAggregateRecorder, originator_id_type=self.ids)


class TestApplicationRecorder(
    UuidIds, Recorders, shipped.ApplicationRecorderTestCase[mongo.MongoDBApplicationRecorder]
):
    def create_recorder(self) -> mongo.MongoDBApplicationRecorder:
        return self.made(mongo.MongoDBApplicationRecorder, originator_id_type=self.ids)

    def test_insert_subscribe(self) -> None:
        """The optional case: following."""
        self.optional_test_insert_subscribe()


class TestApplicationRecorderOfText(
    TextIds, Recorders, shipped.ApplicationRecorderTestCase[mongo.MongoDBApplicationRecorder]
):
    def create_recorder(self) -> mongo.MongoDBApplicationRecorder:
        return self.made(mongo.MongoDBApplicationRecorder, originator_id_type=self.ids)

    def test_insert_subscribe(self) -> None:
        """The optional case: following."""
        self.optional_test_insert_subscribe()


class TestProcessRecorder(UuidIds, Recorders, shipped.ProcessRecorderTestCase):
    def create_recorder(self) -> mongo.MongoDBProcessRecorder:
        return self.made(mongo.MongoDBProcessRecorder, originator_id_type=self.ids)


class TestProcessRecorderOfText(TextIds, Recorders, shipped.ProcessRecorderTestCase):
    def create_recorder(self) -> mongo.MongoDBProcessRecorder:
        return self.made(mongo.MongoDBProcessRecorder, originator_id_type=self.ids)


class TestTrackingRecorder(Recorders, shipped.TrackingRecorderTestCase):
    def create_recorder(self) -> mongo.MongoDBTrackingRecorder:
        return self.made(mongo.MongoDBTrackingRecorder)


class TestNonInterleaving(UuidIds, Recorders, shipped.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> mongo.MongoDBApplicationRecorder:
        return self.made(mongo.MongoDBApplicationRecorder, originator_id_type=self.ids)


class OwnTracking(mongo.MongoDBTrackingRecorder):
    """An application's own tracking recorder."""


@pytest.mark.usefixtures("environment")
class TestFactory(shipped.InfrastructureFactoryTestCase[mongo.MongoDBFactory]):
    @pytest.fixture
    def environment(self, mongodb_url: str) -> None:
        """Name module and database, as an application would."""
        given = {"PERSISTENCE_MODULE": "turnlog.adapters.mongodb", "MONGODB_URI": mongodb_url}
        self.env = Environment(name="Test", env=given)

    def tearDown(self) -> None:
        """Close what the test has opened."""
        self.factory.close()
        super().tearDown()

    def expected_factory_class(self) -> type[mongo.MongoDBFactory]:
        return mongo.MongoDBFactory

    def expected_aggregate_recorder_class(self) -> type[mongo.MongoDBAggregateRecorder]:
        return mongo.MongoDBAggregateRecorder

    def expected_application_recorder_class(self) -> type[mongo.MongoDBApplicationRecorder]:
        return mongo.MongoDBApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[mongo.MongoDBTrackingRecorder]:
        return mongo.MongoDBTrackingRecorder

    def tracking_recorder_subclass(self) -> type[mongo.MongoDBTrackingRecorder]:
        return OwnTracking

    def expected_process_recorder_class(self) -> type[mongo.MongoDBProcessRecorder]:
        return mongo.MongoDBProcessRecorder


def test_who_loses_is_queued_for(mongodb_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has lost a race queues, and so does who has not; of them one is let in at a time, or after a while."""
    monkeypatch.setattr(queueing, "LOOK_S", 0.0)
    monkeypatch.setattr(queueing, "PATIENCE_S", 0.01)
    with Client(mongodb_url) as first, Client(mongodb_url) as second:
        won, lost = Queue(first, "places"), Queue(second, "places")
        raced, apart = [batch(S, 1)], [batch(T, 1)]
        assert not won.has(raced)
        lost.note(raced)
        assert lost.has(raced)
        assert won.has(raced)
        assert not won.has(apart)
        with won.waited_for(raced) as first_in, lost.waited_for(apart) as beside, lost.waited_for(raced) as second_in:
            assert (first_in, beside, second_in) == (True, True, False)
        with lost.waited_for(raced) as alone:
            assert alone


def test_a_store_that_is_dropped_is_closed(mongodb_url: str) -> None:
    """Who forgets to close is not warned of the driver's client by the time that it is collected."""
    turnlog.open(mongodb_url).session("s")
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "turnlog closing":
            thread.join()
    gc.collect()


@pytest.mark.parametrize(
    ("variable", "value"), [("MONGODB_URI", ""), ("ORIGINATOR_ID_TYPE", "number"), ("MONGODB_DBNAME", "a/b")]
)
def test_factory_names_what_is_wrong(mongodb_url: str, variable: str, value: str) -> None:
    """A factory that is configured badly says which variable it is."""
    given = {"MONGODB_URI": mongodb_url, variable: value}
    with pytest.raises((OSError, InvalidInput), match=variable if variable != "MONGODB_DBNAME" else "database"):
        mongo.MongoDBFactory(Environment(name="Test", env=given))
