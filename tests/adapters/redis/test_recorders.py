"""The log in Redis: our recorder contracts, and the cases that ``eventsourcing`` ships, with ids of both kinds."""

from collections.abc import Iterator
from typing import Any, TypeVar
from unittest import TestCase

import msgspec
import pytest
from eventsourcing.tests import persistence as shipped
from eventsourcing.utils import Environment

from tests.servers import Redis
from turnlog.adapters import redis as adapter
from turnlog.adapters.connect import connect
from turnlog.adapters.redis.keys import Keys
from turnlog.adapters.redis.server import Server
from turnlog.domain.errors import StoreUnavailable
from turnlog.domain.recorder import Recorder
from turnlog.testing.contracts import Damage, RecorderContract, StoredRowsContract, TwoTenantsContract, UnlockedContract
from turnlog.testing.contracts.library import TextIds, UuidIds
from turnlog.testing.contracts.rows import grow

R = TypeVar("R", bound=adapter.RedisAggregateRecorder | adapter.RedisTrackingRecorder)
KEY_PARTS = ("version", "fingerprint", "seal")
SNAPSHOT_PARTS = ("version", "revision", "hash", "state", "seal")


@pytest.fixture
def recorder(redis_url: str) -> Iterator[Recorder]:
    """An empty recorder, as a store has it."""
    backend = connect(redis_url, durability="full", engine=None, options={"timeout_s": 20.0})
    yield backend.recorder
    backend.recorder.close()


@pytest.fixture
def damage(redis_url: str) -> Iterator[Damage]:
    """Change a stored row from outside."""
    server, keys = Server(redis_url), Keys("turnlog:")

    def change(table: str, column: str, stream: str, value: Any) -> None:
        key, other = keys.snapshot(stream), keys.snapshot
        if table == "keys":
            key, other = keys.keys(stream), keys.keys
        if column == "originator_id":
            server.write("RENAME", key, other(value))
        elif table == "snapshots":
            server.write("SET", key, _changed(server.read("GET", key), SNAPSHOT_PARTS, column, value))
        else:
            ((field, stored),) = zip(*[iter(server.read("HGETALL", key))] * 2, strict=True)
            kind, _, name = field.decode().partition("\0")
            server.write("DEL", key)
            field = f"{value if column == 'kind' else kind}\0{value if column == 'key' else name}"
            server.write("HSET", key, field, _changed(stored, KEY_PARTS, column, value))

    yield change
    server.close()


def _changed(stored: bytes, parts: tuple[str, ...], column: str, value: object) -> bytes:
    row = list(msgspec.msgpack.decode(stored))
    if column in parts:
        row[parts.index(column)] = value
    return msgspec.msgpack.encode(row)


class TestRecorder(RecorderContract, UnlockedContract, TwoTenantsContract, StoredRowsContract):
    """Our contracts."""

    out_of_reach = ("old append-only file", "snapshots", "backups")

    def test_what_again_returns_may_not_fit_either(self, recorder: Any) -> None:
        """It is asked for until the time is over, which is therefore short here."""
        recorder.appends.timeout_s = 0.5
        super().test_what_again_returns_may_not_fit_either(recorder)

    def test_a_second_recorder_sees_all_of_it(self, recorder: Recorder, redis_url: str) -> None:
        """What one recorder has committed, another reads at once, and waits for in vain no longer."""
        rows = grow(recorder, "default/s", 3)
        other = connect(redis_url, durability="full", engine=None, options={}).recorder
        assert other.select_stream("default/s") == rows
        grow(recorder, "default/s", 1)
        assert other.wait_for_news(3, 20.0)
        other.close()

    def test_read_only(self, recorder: Recorder, redis_url: str) -> None:
        """Opened read-only it reads, and refuses to write."""
        rows = grow(recorder, "default/s", 3)
        only = connect(redis_url, durability="full", engine=None, options={"read_only": True}).recorder
        assert only.select_stream("default/s") == rows
        with pytest.raises(StoreUnavailable, match="read-only"):
            grow(only, "default/s", 1)
        only.close()

    def test_a_prefix_is_a_log_of_its_own(self, recorder: Recorder, redis_url: str) -> None:
        """Two logs in one database, told apart by the prefix alone, know nothing of each other; no key is without."""
        other = connect(f"{redis_url}?prefix=other%2F", durability="full", engine=None, options={}).recorder
        mine = grow(recorder, "default/s", 2)
        assert other.select_log(limit=9) == []
        theirs = grow(other, "default/s}{}%", 3)
        assert (recorder.select_stream("default/s"), other.select_stream("default/s}{}%")) == (mine, theirs)
        assert recorder.streams(prefix="default/", limit=9) == ["default/s"]
        keys = Server(redis_url).read("KEYS", "*")
        assert {key.partition(b"{")[0] for key in keys} == {b"turnlog:", b"other/"}
        assert {key.rpartition(b"}")[0].partition(b"{")[2].count(b"}") for key in keys} == {0}
        other.close()


@pytest.mark.usefixtures("own_database")
class Recorders(TestCase):
    """Makes recorders in a database of the test's own."""

    ids = "uuid"
    url: str

    @pytest.fixture
    def own_database(self, redis_url: str) -> None:
        """Give the test its database."""
        self.url = redis_url

    def made(self, cls: type[R], **options: Any) -> R:
        """Return a recorder, each of a test with keys of its own."""
        self.__dict__["n"] = n = self.__dict__.get("n", 0) + 1
        server = Server(self.url)
        if issubclass(cls, adapter.RedisAggregateRecorder):
            options["events_table"] = f"events_{n}"
        self.addCleanup(server.close)
        recorder = cls(server, **options)
        recorder.create_table()
        return recorder


class TestAggregateRecorder(UuidIds, Recorders, shipped.AggregateRecorderTestCase):
    def create_recorder(self) -> adapter.RedisAggregateRecorder:
        return self.made(adapter.RedisAggregateRecorder, originator_id_type=self.ids)


class TestAggregateRecorderOfText(TextIds, Recorders, shipped.AggregateRecorderTestCase):
    def create_recorder(self) -> adapter.RedisAggregateRecorder:
        return self.made(adapter.RedisAggregateRecorder, originator_id_type=self.ids)


class TestApplicationRecorder(
    UuidIds, Recorders, shipped.ApplicationRecorderTestCase[adapter.RedisApplicationRecorder]
):
    def create_recorder(self) -> adapter.RedisApplicationRecorder:
        return self.made(adapter.RedisApplicationRecorder, originator_id_type=self.ids)

    def test_insert_subscribe(self) -> None:
        """The optional case: following."""
        self.optional_test_insert_subscribe()


class TestApplicationRecorderOfText(
    TextIds, Recorders, shipped.ApplicationRecorderTestCase[adapter.RedisApplicationRecorder]
):
    def create_recorder(self) -> adapter.RedisApplicationRecorder:
        return self.made(adapter.RedisApplicationRecorder, originator_id_type=self.ids)


class TestProcessRecorder(UuidIds, Recorders, shipped.ProcessRecorderTestCase):
    def create_recorder(self) -> adapter.RedisProcessRecorder:
        return self.made(adapter.RedisProcessRecorder, originator_id_type=self.ids)


class TestProcessRecorderOfText(TextIds, Recorders, shipped.ProcessRecorderTestCase):
    def create_recorder(self) -> adapter.RedisProcessRecorder:
        return self.made(adapter.RedisProcessRecorder, originator_id_type=self.ids)


class TestTrackingRecorder(Recorders, shipped.TrackingRecorderTestCase):
    def create_recorder(self) -> adapter.RedisTrackingRecorder:
        return self.made(adapter.RedisTrackingRecorder)


class TestNonInterleaving(UuidIds, Recorders, shipped.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> adapter.RedisApplicationRecorder:
        return self.made(adapter.RedisApplicationRecorder, originator_id_type=self.ids)


class OwnTracking(adapter.RedisTrackingRecorder):
    """An application's own tracking recorder."""


@pytest.mark.usefixtures("environment")
class TestFactory(shipped.InfrastructureFactoryTestCase[adapter.RedisFactory]):
    @pytest.fixture
    def environment(self, redis_url: str) -> None:
        """Name module and server, as an application would."""
        self.env = Environment("Test", {"PERSISTENCE_MODULE": "turnlog.adapters.redis", "REDIS_URL": redis_url})

    def tearDown(self) -> None:
        """Close what the test has opened."""
        self.factory.close()
        super().tearDown()

    def expected_factory_class(self) -> type[adapter.RedisFactory]:
        return adapter.RedisFactory

    def expected_aggregate_recorder_class(self) -> type[adapter.RedisAggregateRecorder]:
        return adapter.RedisAggregateRecorder

    def expected_application_recorder_class(self) -> type[adapter.RedisApplicationRecorder]:
        return adapter.RedisApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[adapter.RedisTrackingRecorder]:
        return adapter.RedisTrackingRecorder

    def tracking_recorder_subclass(self) -> type[adapter.RedisTrackingRecorder]:
        return OwnTracking

    def expected_process_recorder_class(self) -> type[adapter.RedisProcessRecorder]:
        return adapter.RedisProcessRecorder


@pytest.mark.parametrize(
    ("variable", "value"), [("REDIS_URL", ""), ("REDIS_PREFIX", "a b"), ("ORIGINATOR_ID_TYPE", "number")]
)
def test_factory_names_what_is_wrong(redis: Redis, variable: str, value: str) -> None:
    """A factory that is configured badly says which variable it is."""
    with pytest.raises(OSError, match=variable):
        adapter.RedisFactory(Environment("Test", {"REDIS_URL": redis.url, variable: value}))
