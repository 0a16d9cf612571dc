"""``eventsourcing``'s recorder contracts on Redis: aggregate, application, tracking and process recorder.

What turnlog asks for on top of them is in recorder.py, which also says how atomicity, order and durability are kept.
"""

from collections.abc import Sequence
from itertools import groupby
from time import monotonic
from typing import Any

from eventsourcing.persistence import IntegrityError, ProcessRecorder, Tracking, TrackingRecorder

from turnlog.adapters.attempt import Broken, Lost, Taken, Undone
from turnlog.adapters.library import OrderedRecorder, OriginatorRecorder, Row, of_the_library
from turnlog.adapters.redis.cluster import Cluster
from turnlog.adapters.redis.keys import OneSlot
from turnlog.adapters.redis.log import NOTHING, Also, Log, Refused
from turnlog.adapters.redis.server import Server
from turnlog.adapters.redis.wire import translating
from turnlog.domain.errors import OutcomeUnknown, StoreUnavailable
from turnlog.domain.mapper import LogRow, StreamRow
from turnlog.domain.recorder import Batch

LONGEST_WAIT_S = 1.0
"""A blocking read ends after so long, and begins again: whoever closes the store waits no longer for it."""


class RedisAggregateRecorder(OriginatorRecorder):
    """Events of many originators under one prefix; ids are ``text`` or ``uuid``."""

    def __init__(
        self,
        server: Server | Cluster,
        *,
        events_table: str = "stored_events",
        originator_id_type: str = "uuid",
        log: Log | None = None,
    ) -> None:
        super().__init__(originator_id_type=originator_id_type)
        self.server = server
        self.log = log or Log(server, OneSlot(server.keys.prefix, events_table))

    def create_table(self) -> None:
        """Do nothing: Redis makes keys as they are written."""

    def _insert_events(self, rows: Sequence[Row], **kwargs: Any) -> list[int]:
        batches = [Batch(stream, [row[1:] for row in run]) for stream, run in groupby(rows, lambda row: row[0])]
        with translating(self.server.name):
            try:
                last = self.log.append(batches, self._also(**kwargs))
            except Taken as error:
                raise IntegrityError(f"already recorded, or twice in one append: {error}") from error
            except Refused as error:
                raise IntegrityError(f"{kwargs.get('tracking')} is not above what was recorded") from error
            except Lost as error:
                raise OutcomeUnknown(f"{self.server.name}: the connection broke during an append") from error
            except (Broken, Undone) as error:
                raise StoreUnavailable(f"{self.server.name}: {error.__cause__}") from error
        end = last[-1] if last else 0
        return list(range(end - len(rows) + 1, end + 1))

    def _also(self, **_: Any) -> Also:
        """Return what else belongs into the append (see the process recorder)."""
        return NOTHING

    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        return self.log.stream(stream, after=after, upto=upto, desc=desc, limit=limit)


class RedisApplicationRecorder(RedisAggregateRecorder, OrderedRecorder):
    """Adds the order over all originators, and following it within and across processes."""

    def select_log(
        self, *, after: int = 0, upto: int | None = None, limit: int, topics: Sequence[str] = (), prefix: str = ""
    ) -> list[LogRow]:
        """Return events in position order, see ``Recorder``."""
        return self.log.select(after, upto, limit, topics, prefix)

    def position(self) -> int:
        """Return the position of the newest event, 0 if there is none."""
        return self.log.position()

    def wait_for_news(self, after: int, timeout_s: float) -> bool:
        """Wait for an event above ``after``, by a read that blocks: the server wakes whoever waits, of any process."""
        deadline = monotonic() + timeout_s
        while not (there := self.position() > after):
            left_s = deadline - monotonic()
            if left_s <= 0 or self.log.wait(after, min(left_s, LONGEST_WAIT_S)):
                return left_s > 0 or there
        return True

    def tell(self) -> None:
        """Do nothing: the server wakes those who wait."""


class RedisTrackingRecorder(TrackingRecorder):
    """How far a reader of some application has come, one field an application."""

    def __init__(self, server: Server | Cluster, *, log: Log | None = None) -> None:
        self.server = server
        self.log = log or Log(server, OneSlot(server.keys.prefix, "tracking"))

    def create_table(self) -> None:
        """Do nothing: Redis makes keys as they are written."""

    @of_the_library
    def insert_tracking(self, tracking: Tracking) -> None:
        """Record that ``tracking`` was reached.

        Raises:
            IntegrityError: it was reached before.
        """
        with translating(self.server.name):
            try:
                self.log.append((), Also(tracked=(tracking.application_name, tracking.notification_id)))
            except Refused as error:
                raise IntegrityError(f"{tracking} is not above what was recorded") from error
            except (Lost, Broken, Undone) as error:
                raise StoreUnavailable(f"{self.server.name}: {error.__cause__}") from error

    @of_the_library
    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the position recorded for this application."""
        found = self.server.read("HGET", self.log.keys.tracking, application_name)
        return None if found is None else int(found)


class RedisProcessRecorder(RedisTrackingRecorder, RedisApplicationRecorder, ProcessRecorder):
    """Events and tracking, written by one script."""

    def __init__(self, server: Server | Cluster, **options: Any) -> None:
        RedisApplicationRecorder.__init__(self, server, **options)

    def create_table(self) -> None:
        """Do nothing: Redis makes keys as they are written."""

    def _also(self, **kwargs: Any) -> Also:
        tracking = kwargs.get("tracking")
        return NOTHING if tracking is None else Also(tracked=(tracking.application_name, tracking.notification_id))
