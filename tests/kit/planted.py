"""Recorders with one bug each, and the kit run on every one of them: test_planted_bugs.py starts this in a pytest.

A bug is a subclass that differs in one method. ``BUGS`` says by which test of the kit each is to be found.
"""

from collections.abc import Sequence
from threading import enumerate as enumerate_threads
from time import sleep
from typing import Any
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import Tracking
from eventsourcing.tests import persistence as shipped

import turnlog
from turnlog.adapters.memory import MemoryProcessRecorder, MemoryRecorder
from turnlog.adapters.sqlite.private import private_views
from turnlog.domain.mapper import LogRow, StreamRow
from turnlog.domain.recorder import Again, Batch, KeyRow, SnapshotRow
from turnlog.projections.message_search import SearchFilter
from turnlog.projections.session_index import SessionFilter
from turnlog.testing.contracts import LockedContract, RecorderContract, TwoTenantsContract, ViewsContract


class VersionsNotChecked(MemoryRecorder):
    def _fits(self, batch: Batch) -> bool:
        return super()._fits(batch._replace(rows=()))


class KeysNotChecked(MemoryRecorder):
    def _fits(self, batch: Batch) -> bool:
        return super()._fits(batch._replace(keys=()))


class HalfOfABatch(MemoryRecorder):
    """Writes the first batches of an append before it looks at the others."""

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        if len(batches) < 2:
            return super().append(batches, again)
        first = super().append(batches[:1], again)
        return first + super().append(batches[1:], lambda reader: again(reader)[1:])


class KeysBeforeTheTransaction(MemoryRecorder):
    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        for batch in batches:
            for key in batch.keys:
                self._keys.setdefault(batch.stream, {}).setdefault((key.kind, key.key), key)
        return super().append([batch._replace(keys=()) for batch in batches], again)


class DecidesWithoutTheLock(MemoryRecorder):
    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        with self._lock:
            if batches and all(self._fits(batch) for batch in batches):
                return super().append(batches, again)
        before = set(enumerate_threads())
        decided = again(self)
        for other in set(enumerate_threads()) - before:
            other.join()
        return super().append(decided, again)


class WritesWhatWasRefused(MemoryRecorder):
    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        try:
            return super().append(batches, again)
        except turnlog.ConcurrencyConflict:
            for batch in batches[:1]:
                self._write(batch)
            raise


class PositionsGivenTwice(MemoryRecorder):
    """Forgets the newest place when what stood there is erased."""

    def _erase(self, stream: str) -> None:
        super()._erase(stream)
        if self._rows[-1][0] == stream:
            self._spare = self._rows.pop()

    def select_stream(self, stream: str, **kwargs: Any) -> list[StreamRow]:
        try:
            return super().select_stream(stream, **kwargs)
        except IndexError:
            self._rows.append(self._spare)
            rows = super().select_stream(stream, **kwargs)
            self._rows.pop()
            return rows


class LaterPositionsVisibleFirst(MemoryRecorder):
    """Gives positions first, and shows events when they are written: a slow writer's come after later ones."""

    def __init__(self, views: Any = None) -> None:
        super().__init__(views)
        self._hidden: set[int] = set()

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        with self._lock:
            ends = super().append(batches, again)
            slow = bool(ends) and ends[-1] % 3 == 0
            if slow:
                self._hidden.add(ends[-1])
        if slow:
            sleep(0.002)
            self._hidden.discard(ends[-1])
        return ends

    def select_log(self, **kwargs: Any) -> list[LogRow]:
        return [row for row in super().select_log(**kwargs) if row[0] not in self._hidden]


class EraseLeavesKeys(MemoryRecorder):
    def _erase(self, stream: str) -> None:
        keys = self._keys.get(stream, {})
        super()._erase(stream)
        self._keys[stream] = keys


class EraseLeavesTheSnapshot(MemoryRecorder):
    def _erase(self, stream: str) -> None:
        snapshot = self._snapshots.get(stream)
        super()._erase(stream)
        if snapshot is not None:
            self._snapshots[stream] = snapshot


class EraseLeavesTheFirstEvent(MemoryRecorder):
    def _erase(self, stream: str) -> None:
        place = self._places[stream][1][0]
        row = self._rows[place]
        super()._erase(stream)
        self._rows[place] = row


class EraseReachesOthers(MemoryRecorder):
    """Erases by a pattern, ``LIKE 'name%'``."""

    def _erase(self, stream: str) -> None:
        for name in [name for name in self._places if name.startswith(stream)]:
            super()._erase(name)


class EraseLeavesViews(MemoryRecorder):
    def __init__(self, views: Any = None) -> None:
        super().__init__(None)


class DescIgnored(MemoryRecorder):
    def select_stream(self, stream: str, *, desc: bool = False, **kwargs: Any) -> list[StreamRow]:
        return super().select_stream(stream, **kwargs)


class LimitOffByOne(MemoryRecorder):
    def select_stream(self, stream: str, *, limit: int | None = None, **kwargs: Any) -> list[StreamRow]:
        return super().select_stream(stream, limit=None if limit is None else limit + 1, **kwargs)


class UptoLeftOut(MemoryRecorder):
    def select_log(self, *, upto: int | None = None, **kwargs: Any) -> list[LogRow]:
        return super().select_log(upto=None if upto is None else upto - 1, **kwargs)


class TopicsIgnored(MemoryRecorder):
    def select_log(self, *, topics: Sequence[str] = (), **kwargs: Any) -> list[LogRow]:
        return super().select_log(**kwargs)


class PrefixIgnored(MemoryRecorder):
    def select_log(self, *, prefix: str = "", **kwargs: Any) -> list[LogRow]:
        return super().select_log(**kwargs)


class PrefixOfAnyCase(MemoryRecorder):
    """As a database whose collation does not mind case."""

    def select_log(self, *, prefix: str = "", limit: int, **kwargs: Any) -> list[LogRow]:
        rows = super().select_log(limit=1 << 40, **kwargs)
        return [row for row in rows if row[1].lower().startswith(prefix.lower())][:limit]


class StreamsUnordered(MemoryRecorder):
    def streams(self, *, prefix: str, after: str = "", limit: int) -> list[str]:
        return [name for name in self._places if name.startswith(prefix) and name > after][:limit]


class StreamsOfAnotherAlphabet(MemoryRecorder):
    """Ordered as UTF-16 is, where what is beyond the BMP comes before U+FFEE."""

    def streams(self, *, prefix: str, after: str = "", limit: int) -> list[str]:
        names = super().streams(prefix=prefix, limit=1 << 40)
        names.sort(key=lambda name: name.encode("utf-16-be"))
        return [name for name in names if name.encode("utf-16-be") > after.encode("utf-16-be")][:limit]


class LostWakeUp(MemoryRecorder):
    """Sleeps until its time is over, whatever happens."""

    patience_s = 3.0  # it sleeps three times as long, and is found by who stands still for 5 s as well

    def wait_for_news(self, after: int, timeout_s: float) -> bool:
        if self.position() <= after:
            sleep(timeout_s)
        return super().wait_for_news(after, 0.0)


class BytesCutAtNul(MemoryRecorder):
    def select_stream(self, stream: str, **kwargs: Any) -> list[StreamRow]:
        rows = super().select_stream(stream, **kwargs)
        return [(*row[:3], row[3].partition(b"\0")[0]) for row in rows]


class KeysOfAnyKind(MemoryRecorder):
    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        names = {key for _, key in keys}
        return [row for row in super().select_all_keys(stream) if row.key in names]


class VersionsOfOnePage(MemoryRecorder):
    """Finds no more events at once than one statement asks for."""

    def select_versions(self, wanted: Sequence[tuple[str, int]]) -> dict[tuple[str, int], StreamRow]:
        return super().select_versions(wanted[:500])


class SnapshotNeverReplaced(MemoryRecorder):
    def _write(self, batch: Batch) -> int:
        kept: SnapshotRow | None = self._snapshots.get(batch.stream)
        end = super()._write(batch)
        if kept is not None and not batch.erase:
            self._snapshots[batch.stream] = kept
        return end


class SessionsOfAllTenants(MemoryRecorder):
    """Keeps keys by the session's id, whichever tenant's it is."""

    def select_all_keys(self, stream: str) -> list[KeyRow]:
        own = stream.partition("/")[2]
        return [key for name in self._keys if name.partition("/")[2] == own for key in super().select_all_keys(name)]


class UsableAfterClosing(MemoryRecorder):
    def close(self) -> None:
        pass


class TrackingNotAtomic(MemoryProcessRecorder):
    """Writes events first, and then finds that the tracking was there."""

    def _insert_events(self, stored_events: Any, **kwargs: Any) -> list[int]:
        positions = super()._insert_events(stored_events)
        self._also(**kwargs)
        return positions


class TrackingFirst(MemoryProcessRecorder):
    def _insert_events(self, stored_events: Any, **kwargs: Any) -> list[int]:
        self._also(**kwargs)
        return super()._insert_events(stored_events)


class TrackingNotChecked(MemoryProcessRecorder):
    def insert_tracking(self, tracking: Tracking) -> None:
        self._reached[tracking.application_name] = tracking.notification_id


class RowsWithoutCheckpoint:
    """Views that commit each for itself."""

    @staticmethod
    def spoil(views: Any) -> None:
        record = views.record

        def committed(connection: Any, checkpoint: Any) -> None:
            record(connection, checkpoint)
            connection.execute("COMMIT")
            connection.execute("BEGIN")

        views.record = committed


class SessionsByCreation:
    """Views that give sessions in the order in which they were created."""

    @staticmethod
    def spoil(views: Any) -> None:
        select = views.select_sessions

        def by_creation(wanted: SessionFilter, **kwargs: Any) -> Any:
            return sorted(select(wanted, **kwargs), key=lambda row: row.created_position, reverse=True)

        views.select_sessions = by_creation


class OldWordsOnly:
    """Views in which no edited message is found."""

    @staticmethod
    def spoil(views: Any) -> None:
        select = views.select_found

        def unedited(wanted: SearchFilter, **kwargs: Any) -> Any:
            return [row for row in select(wanted, **kwargs) if row.content_version == row.version]

        views.select_found = unedited


BUGS: dict[type, str] = {
    VersionsNotChecked: "test_a_taken_version_asks_again",
    KeysNotChecked: "test_a_taken_key_asks_again",
    HalfOfABatch: "test_several_batches_are_one",
    KeysBeforeTheTransaction: "test_several_batches_are_one",
    DecidesWithoutTheLock: "test_the_lock_is_held_while_asking",
    WritesWhatWasRefused: "test_what_again_returns_may_not_fit_either",
    PositionsGivenTwice: "test_positions_are_never_given_twice",
    LaterPositionsVisibleFirst: "test_no_reader_is_overtaken",
    EraseLeavesKeys: "test_erasing",
    EraseLeavesTheSnapshot: "test_erasing",
    EraseLeavesTheFirstEvent: "test_erasing",
    EraseReachesOthers: "test_erasing_touches_only_its_stream",
    EraseLeavesViews: "test_what_is_erased_is_forgotten_at_once",
    DescIgnored: "test_stream",
    LimitOffByOne: "test_stream",
    UptoLeftOut: "test_log",
    TopicsIgnored: "test_log_of_topics",
    PrefixIgnored: "test_log_of_a_prefix",
    PrefixOfAnyCase: "test_log_of_a_prefix",
    StreamsUnordered: "test_streams",
    StreamsOfAnotherAlphabet: "test_streams",
    LostWakeUp: "test_news_wakes",
    BytesCutAtNul: "test_any_bytes_and_names_come_back",
    KeysOfAnyKind: "test_keys_come_back",
    VersionsOfOnePage: "test_versions_by_the_thousand",
    SnapshotNeverReplaced: "test_snapshots_are_replaced",
    SessionsOfAllTenants: "test_each_write_stays_in_its_tenant",
    UsableAfterClosing: "test_used_after_close",
    TrackingNotAtomic: "test_insert_select",
    TrackingFirst: "test_insert_select",
    TrackingNotChecked: "test_raises_when_lower_inserted_later",
    RowsWithoutCheckpoint: "test_rows_and_checkpoint_are_one",
    SessionsByCreation: "test_sessions",
    OldWordsOnly: "test_what_is_gone_is_not_found",
}
"""Each bug, and a test that is to find it."""


class OfARecorder(RecorderContract, LockedContract, TwoTenantsContract):
    kind: type[MemoryRecorder] = MemoryRecorder

    @pytest.fixture
    def recorder(self) -> MemoryRecorder:
        return self.kind()


class OfViews(ViewsContract):
    """The contract of views, on a log of ``kind`` or with views that are spoilt."""

    kind: type[MemoryRecorder] = MemoryRecorder
    spoilt: Any = None

    @pytest.fixture
    def backend(self) -> Any:
        views = private_views()
        if self.spoilt is not None:
            self.spoilt.spoil(views)
        yield turnlog.Backend(self.kind(views), views)
        views.close()


class OfAProcess:
    kind: type[MemoryProcessRecorder] = MemoryProcessRecorder

    def new_originator_id(self) -> UUID | str:
        return uuid4()

    def create_recorder(self) -> MemoryProcessRecorder:
        return self.kind()


def suites(bug: type | None) -> list[type]:
    """Return the classes of tests that a bug is looked for with; of none: all of them."""
    if bug is None:
        processes = type("TestProcesses", (OfAProcess, shipped.ProcessRecorderTestCase), {})
        return [type("TestLog", (OfARecorder,), {}), type("TestViews", (OfViews,), {}), processes]
    name = f"Test{bug.__name__}"
    if issubclass(bug, MemoryRecorder):
        on = OfViews if bug is EraseLeavesViews else OfARecorder
        return [type(name, (on,), {"kind": bug, "patience_s": getattr(bug, "patience_s", 0.4)})]
    if issubclass(bug, MemoryProcessRecorder):
        return [type(name, (OfAProcess, shipped.ProcessRecorderTestCase), {"kind": bug})]
    return [type(name, (OfViews,), {"spoilt": bug, "patience_s": 0.4})]


for _bug in (None, *BUGS):
    for _suite in suites(_bug):
        globals()[_suite.__name__] = _suite
