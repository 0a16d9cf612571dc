"""The log in memory: our recorder contract, and the cases that ``eventsourcing`` ships."""

from collections.abc import Iterator

import pytest
from eventsourcing.tests import persistence as shipped
from eventsourcing.utils import Environment

from turnlog.adapters import memory
from turnlog.adapters.connect import connect
from turnlog.domain.recorder import Recorder
from turnlog.testing.contracts import LockedContract, RecorderContract, TwoTenantsContract
from turnlog.testing.contracts.library import InDirectory, TextIds, UuidIds


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """An empty recorder, as a store has it."""
    backend = connect("memory://", durability="full", engine=None, options={})
    yield backend.recorder
    backend.recorder.close()
    backend.views.close()


class TestRecorder(RecorderContract, LockedContract, TwoTenantsContract):
    """Our contract."""

    def test_promises_no_durability(self, recorder: Recorder) -> None:
        """Memory does not pretend to survive anything."""
        assert recorder.durability == "none"


class TestAggregateRecorder(UuidIds, shipped.AggregateRecorderTestCase):
    def create_recorder(self) -> memory.MemoryAggregateRecorder:
        return memory.MemoryAggregateRecorder()


class TestAggregateRecorderOfText(TextIds, shipped.AggregateRecorderTestCase):
    def create_recorder(self) -> memory.MemoryAggregateRecorder:
        return memory.MemoryAggregateRecorder()


class TestApplicationRecorder(UuidIds, shipped.ApplicationRecorderTestCase[memory.MemoryApplicationRecorder]):
    def create_recorder(self) -> memory.MemoryApplicationRecorder:
        return memory.MemoryApplicationRecorder()

    def test_insert_subscribe(self) -> None:
        """The optional case: following."""
        self.optional_test_insert_subscribe()


class TestApplicationRecorderOfText(TextIds, shipped.ApplicationRecorderTestCase[memory.MemoryApplicationRecorder]):
    def create_recorder(self) -> memory.MemoryApplicationRecorder:
        return memory.MemoryApplicationRecorder()

    def test_insert_subscribe(self) -> None:
        """The optional case: following."""
        self.optional_test_insert_subscribe()


class TestProcessRecorder(UuidIds, shipped.ProcessRecorderTestCase):
    def create_recorder(self) -> memory.MemoryProcessRecorder:
        return memory.MemoryProcessRecorder()


class TestProcessRecorderOfText(TextIds, shipped.ProcessRecorderTestCase):
    def create_recorder(self) -> memory.MemoryProcessRecorder:
        return memory.MemoryProcessRecorder()


class TestTrackingRecorder(shipped.TrackingRecorderTestCase):
    def create_recorder(self) -> memory.MemoryTrackingRecorder:
        return memory.MemoryTrackingRecorder()


class TestNonInterleaving(UuidIds, shipped.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> memory.MemoryApplicationRecorder:
        return memory.MemoryApplicationRecorder()


class OwnTracking(memory.MemoryTrackingRecorder):
    """An application's own tracking recorder."""


class TestFactory(InDirectory, shipped.InfrastructureFactoryTestCase[memory.MemoryFactory]):
    def setUp(self) -> None:
        """Name the module, as an application would."""
        self.env = Environment(name="Test", env={"PERSISTENCE_MODULE": "turnlog.adapters.memory"})
        super().setUp()

    def expected_factory_class(self) -> type[memory.MemoryFactory]:
        return memory.MemoryFactory

    def expected_aggregate_recorder_class(self) -> type[memory.MemoryAggregateRecorder]:
        return memory.MemoryAggregateRecorder

    def expected_application_recorder_class(self) -> type[memory.MemoryApplicationRecorder]:
        return memory.MemoryApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[memory.MemoryTrackingRecorder]:
        return memory.MemoryTrackingRecorder

    def tracking_recorder_subclass(self) -> type[memory.MemoryTrackingRecorder]:
        return OwnTracking

    def expected_process_recorder_class(self) -> type[memory.MemoryProcessRecorder]:
        return memory.MemoryProcessRecorder
