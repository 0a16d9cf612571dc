"""The log in this process's memory, for tests and for conversations nobody keeps.

Atomicity: an append happens under one lock, after everything that can fail.
Order: positions are given under that lock.
Durability: none; it ends with the process. The views live in a private in-memory SQLite database, so that they (and an
application's own, written in SQL) are the same code as on a file.
"""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from time import monotonic
from typing import Any, Protocol
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    IntegrityError,
    Notification,
    ProcessRecorder,
    StoredEvent,
    Tracking,
    TrackingRecorder,
)
from eventsourcing.utils import resolve_topic

from turnlog.adapters.following import Follow
from turnlog.domain.envelope import erase
from turnlog.domain.errors import ConcurrencyConflict, StoreUnavailable
from turnlog.domain.mapper import LogRow, StreamRow
from turnlog.domain.recorder import Again, Batch, KeyRow, SnapshotRow, StreamVersion

Row = tuple[Any, int, str, bytes]
"""(originator id, version, topic, state)."""


class MemoryAggregateRecorder(AggregateRecorder):
    """Events of many originators in one list; an originator's events are found by their places in it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._rows: list[Row] = []
        self._places: dict[Any, tuple[list[int], list[int]]] = {}

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Insert all or none.

        Raises:
            IntegrityError: an (originator id, version) is taken.
        """
        self._insert_events(stored_events, **kwargs)
        return None

    def _insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> list[int]:
        rows = [(s.originator_id, s.originator_version, s.topic, s.state) for s in stored_events]
        with self._lock:
            self._require_free(rows)
            self._also(**kwargs)
            return self._extend(rows)

    def _also(self, **kwargs: Any) -> None:
        """Do what else belongs into the append (see the process recorder)."""

    def _require_free(self, rows: Sequence[Row]) -> None:
        taken = {(key, version) for key, version, _, _ in rows if _holds(self._places.get(key, ([], []))[0], version)}
        if taken or len({row[:2] for row in rows}) < len(rows):
            raise IntegrityError(f"already recorded, or twice in one append: {sorted(map(str, taken))}")

    def _extend(self, rows: Sequence[Row]) -> list[int]:
        """Add rows so that readers, who take no lock, see an originator's whole or not at all: versions come last."""
        first = len(self._rows) + 1
        self._rows += rows
        new: dict[Any, tuple[list[int], list[int]]] = {}
        for place, row in enumerate(rows, first - 1):
            versions, places = new.setdefault(row[0], ([], []))
            versions.append(row[1])
            places.append(place)
        for key, (versions, places) in new.items():
            old = self._places.setdefault(key, ([], []))
            if not old[0] or versions[0] > old[0][-1]:
                old[1].extend(places)
                old[0].extend(versions)
            else:
                pairs = sorted(zip(old[0] + versions, old[1] + places, strict=True))
                self._places[key] = ([version for version, _ in pairs], [place for _, place in pairs])
        self._news.notify_all()
        return list(range(first, first + len(rows)))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return an originator's events with ``gt < version <= lte``."""
        rows = self._select(originator_id, gt, lte, desc=desc, limit=limit)
        return [StoredEvent(originator_id, version, topic, state) for _, version, topic, state in rows]

    def _select(
        self, key: UUID | str, after: int | None, upto: int | None, *, desc: bool, limit: int | None
    ) -> list[StreamRow]:
        versions, places = self._places.get(key, ([], []))
        low = 0 if after is None else bisect_right(versions, after)
        high = len(versions) if upto is None else bisect_right(versions, upto)
        found = places[low:high]
        if desc:
            found = found[::-1]
        return [(place + 1, *self._rows[place][1:]) for place in found[:limit]]


class MemoryApplicationRecorder(MemoryAggregateRecorder, ApplicationRecorder):
    """Adds the order over all originators, and following it."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Insert all or none, and return their positions."""
        return self._insert_events(stored_events, **kwargs)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return events in position order."""
        after = 0 if start is None else start - inclusive_of_start
        rows = self.select_log(after=after, upto=stop, limit=limit, topics=topics)
        return [Notification(key, version, topic, state, position) for position, key, version, topic, state in rows]

    def max_notification_id(self) -> int | None:
        """Return the position of the newest event, ``None`` if there is none."""
        return len(self._rows) or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Follow:
        """Return an iterator over the events above ``gt``, those recorded later included."""
        return Follow(recorder=self, gt=gt, topics=topics)

    def select_log(
        self, *, after: int = 0, upto: int | None = None, limit: int, topics: Sequence[str] = (), prefix: str = ""
    ) -> list[LogRow]:
        """Return events in position order, see ``Recorder``."""
        found: list[LogRow] = []
        end = len(self._rows) if upto is None else min(upto, len(self._rows))
        for place in range(max(after, 0), end):
            if len(found) == limit:
                break
            row = self._rows[place]
            if (not topics or row[2] in topics) and (not prefix or row[0].startswith(prefix)):
                found.append((place + 1, *row))
        return found

    def position(self) -> int:
        """Return the position of the newest event, 0 if there is none."""
        return len(self._rows)

    def wait_for_news(self, after: int, timeout_s: float) -> bool:
        """Wait for an event above ``after``."""
        deadline = monotonic() + timeout_s
        with self._news:
            while len(self._rows) <= after:
                left = deadline - monotonic()
                if left <= 0 or not self._news.wait(left):
                    return len(self._rows) > after
        return True


class MemoryTrackingRecorder(TrackingRecorder):
    """How far a reader of some application has come."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._reached: dict[str, int] = {}

    def insert_tracking(self, tracking: Tracking) -> None:
        """Record that ``tracking`` was reached.

        Raises:
            IntegrityError: it was reached before.
        """
        with self._lock:
            if tracking.notification_id <= self._reached.get(tracking.application_name, -1):
                raise IntegrityError(f"{tracking} is not above what was recorded")
            self._reached[tracking.application_name] = tracking.notification_id

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the position recorded for this application."""
        return self._reached.get(application_name)


class MemoryProcessRecorder(MemoryTrackingRecorder, MemoryApplicationRecorder, ProcessRecorder):
    """Events and tracking, written together."""

    def __init__(self) -> None:
        MemoryTrackingRecorder.__init__(self)
        MemoryApplicationRecorder.__init__(self)

    def _also(self, **kwargs: Any) -> None:
        tracking = kwargs.get("tracking")
        if tracking is not None:
            self.insert_tracking(tracking)


class Forgetting(Protocol):
    """What the views do when a session is erased (adapters/sqlite/views.py)."""

    def forget_now(self, tenant: str, session_id: str) -> list[str]:
        """Delete the session's rows; return the views that forget only when they catch up."""
        ...


class MemoryRecorder(MemoryProcessRecorder):
    """turnlog's recorder: adds keys, snapshots, deciding again under the lock, and erasing."""

    durability = "none"
    expires = False

    def __init__(self, views: Forgetting | None = None) -> None:
        super().__init__()
        self._views = views
        self._keys: dict[str, dict[tuple[str, str], KeyRow]] = {}
        self._snapshots: dict[str, SnapshotRow] = {}
        self._forgotten: set[str] = set()
        self._closed = False

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Commit ``batches``; see ``Recorder``."""
        with self._lock:
            self._require_open()
            if not batches or not all(self._fits(batch) for batch in batches):
                batches = again(self)
                if not all(self._fits(batch) for batch in batches):
                    raise ConcurrencyConflict("a version or key of what was to be appended is taken")
            return [self._write(batch) for batch in batches]

    def _fits(self, batch: Batch) -> bool:
        versions = self._places.get(batch.stream, ([], []))[0]
        keys = self._keys.get(batch.stream, {})
        if any((key.kind, key.key) in keys for key in batch.keys):
            return False
        if not batch.rows:
            return True
        first = batch.rows[0][0]
        if batch.stream in self._forgotten and not versions:
            return first == 1  # a handle from before clear() decides again, and finds no session
        return first > (versions[-1] if versions else 0)

    def _write(self, batch: Batch) -> int:
        stream = batch.stream
        positions = self._extend([(stream, *row) for row in batch.rows])
        self._keys.setdefault(stream, {}).update({(key.kind, key.key): key for key in batch.keys})
        if batch.snapshot is not None:
            self._snapshots[stream] = batch.snapshot
        if batch.erase:
            self._erase(stream)
        return positions[-1] if positions else 0

    def _erase(self, stream: str) -> None:
        for place in self._places[stream][1]:
            key, version, topic, state = self._rows[place]
            self._rows[place] = (key, version, topic, erase(state))
        self._keys.pop(stream, None)
        self._snapshots.pop(stream, None)
        if self._views is not None:
            tenant, _, session_id = stream.partition("/")
            self._views.forget_now(tenant, session_id)

    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        self._require_open()
        return self._select(stream, after, upto, desc=desc, limit=limit)

    def select_versions(self, wanted: Sequence[StreamVersion]) -> dict[StreamVersion, StreamRow]:
        """Return events of any streams, see ``Recorder``."""
        self._require_open()
        return {
            (stream, version): row
            for stream, version in wanted
            for row in self._select(stream, version - 1, version, desc=False, limit=1)
        }

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``."""
        self._require_open()
        used = self._keys.get(stream, {})
        return [used[key] for key in keys if key in used]

    def select_all_keys(self, stream: str) -> list[KeyRow]:
        """Return every key of a stream, see ``Recorder``."""
        with self._lock:
            self._require_open()
            return sorted(self._keys.get(stream, {}).values(), key=lambda row: (row.version, row.kind, row.key))

    def select_snapshot(self, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot, see ``Reader``."""
        self._require_open()
        return self._snapshots.get(stream)

    def streams(self, *, prefix: str, after: str = "", limit: int) -> list[str]:
        """Return names of streams, see ``Recorder``."""
        with self._lock:
            self._require_open()
            return sorted(name for name in self._places if name.startswith(prefix) and name > after)[:limit]

    def select_log(
        self, *, after: int = 0, upto: int | None = None, limit: int, topics: Sequence[str] = (), prefix: str = ""
    ) -> list[LogRow]:
        """Return events in position order, see ``Recorder``."""
        self._require_open()
        return super().select_log(after=after, upto=upto, limit=limit, topics=topics, prefix=prefix)

    def position(self) -> int:
        """Return the position of the newest event, 0 if there is none."""
        self._require_open()
        return super().position()

    def wait_for_news(self, after: int, timeout_s: float) -> bool:
        """Wait for an event above ``after``."""
        self._require_open()
        return super().wait_for_news(after, timeout_s)

    def visible(self, *, limit: int) -> list[str] | None:  # noqa: ARG002 - the port's
        """Return nothing: positions are given in order."""
        return []

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._forgotten.update(self._places)
            for part in (self._rows, self._places, self._keys, self._snapshots):
                part.clear()

    def check(self) -> list[str]:
        """Return nothing: memory has no check of its own."""
        self._require_open()
        return []

    def size_bytes(self) -> int | None:
        """Return ``None``: what Python objects use cannot be told."""
        return None

    def lingering(self) -> list[str]:
        """Return nothing: there is no storage beyond the process."""
        return []

    def scrub(self, *, vacuum: bool) -> list[str]:  # noqa: ARG002 - the port's
        """Return nothing pending: freed memory is the operating system's affair, and ends with the process."""
        self._require_open()
        return []

    def close(self) -> None:
        """Refuse further use."""
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the memory store is closed")


def _holds(versions: list[int], version: int) -> bool:
    at = bisect_left(versions, version)
    return at < len(versions) and versions[at] == version


class MemoryFactory(InfrastructureFactory[MemoryTrackingRecorder]):
    """``PERSISTENCE_MODULE=turnlog.adapters.memory``."""

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:  # noqa: ARG002 - the library's
        """Return a recorder of one kind of events."""
        return MemoryAggregateRecorder()

    def application_recorder(self) -> ApplicationRecorder:
        """Return the recorder of an application."""
        return MemoryApplicationRecorder()

    def tracking_recorder(
        self, tracking_recorder_class: type[MemoryTrackingRecorder] | None = None
    ) -> MemoryTrackingRecorder:
        """Return a tracking recorder, of the class given or named by ``TRACKING_RECORDER_TOPIC``."""
        topic = self.env.get(self.TRACKING_RECORDER_TOPIC)
        return (tracking_recorder_class or (resolve_topic(topic) if topic else MemoryTrackingRecorder))()

    def process_recorder(self) -> ProcessRecorder:
        """Return the recorder of a process application."""
        return MemoryProcessRecorder()
