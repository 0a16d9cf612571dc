"""The example for programs of ``eventsourcing``: the second part of docs/adapters.md."""

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eventsourcing.persistence import IntegrityError, ProcessRecorder, Tracking

from tests.kit.files import Contents, FileRecorder, Line, version_of
from turnlog.adapters.library import OrderedRecorder, of_the_library


def has(now: Contents, stream: str, version: int) -> bool:
    """Return whether a stream has this version."""
    places = now.streams.get(stream, [])
    at = bisect_left(places, version, key=version_of)
    return at < len(places) and places[at][0] == version


class FileProcessRecorder(FileRecorder, OrderedRecorder, ProcessRecorder):
    """The same for programs of ``eventsourcing``: its process recorder, which has what all its recorders have."""

    def __init__(self, path: str | Path, *, originator_id_type: str = "uuid", **options: Any) -> None:
        FileRecorder.__init__(self, path, **options)
        OrderedRecorder.__init__(self, originator_id_type=originator_id_type)

    def _insert_events(self, rows: Sequence[tuple[str, int, str, bytes]], **kwargs: Any) -> list[int]:
        tracking: Tracking | None = kwargs.get("tracking")
        with self.folder.writing() as now:
            places = {(stream, version) for stream, version, _, _ in rows}
            taken = [place for place in places if has(now, *place)]
            if taken or len(places) < len(rows):
                raise IntegrityError(f"already recorded, or twice in one append: {taken}")
            if tracking and tracking.notification_id <= now.tracked.get(tracking.application_name, -1):
                raise IntegrityError(f"{tracking} is not above what was recorded")
            reached = (tracking.application_name, tracking.notification_id) if tracking else None
            first = len(now.rows) + 1
            self.folder.add(Line(first=first, rows=list(rows), tracking=reached))
        return list(range(first, first + len(rows)))

    @of_the_library
    def insert_tracking(self, tracking: Tracking) -> None:
        """Record how far a reader has come."""
        self._insert_events((), tracking=tracking)

    @of_the_library
    def max_tracking_id(self, application_name: str) -> int | None:
        """Return how far it has come."""
        with self.folder.now() as now:
            return now.tracked.get(application_name)
