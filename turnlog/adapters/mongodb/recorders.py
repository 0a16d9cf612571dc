"""``eventsourcing``'s recorder contracts on MongoDB: aggregate and application recorder.

What turnlog asks for on top of them is in recorder.py, which also says how atomicity, order and durability are kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

from eventsourcing.persistence import IntegrityError

from turnlog.adapters.attempt import Lost, Taken, Undone
from turnlog.adapters.library import OrderedRecorder, OriginatorRecorder, Row, of_the_library
from turnlog.adapters.mongodb import documents, layout
from turnlog.adapters.mongodb.client import Client, Session
from turnlog.adapters.mongodb.documents import MOST_EVENTS, Document
from turnlog.adapters.mongodb.head import Head
from turnlog.adapters.mongodb.news import News
from turnlog.adapters.names import name_range
from turnlog.domain.errors import OutcomeUnknown, StoreUnavailable
from turnlog.domain.mapper import LogRow, StreamRow

_TRIES = 100
_LARGEST_BATCH = 1_000
"""Documents that one answer of the server's brings, at most."""


class MongoDBAggregateRecorder(OriginatorRecorder):
    """Events of many originators in one collection; ids are ``text`` or ``uuid``."""

    def __init__(
        self, client: Client, *, events_table: str = "stored_events", originator_id_type: str = "uuid"
    ) -> None:
        super().__init__(originator_id_type=originator_id_type)
        self.client = client
        self.events = events_table
        self.head = Head(client, events_table)

    @of_the_library
    def create_table(self) -> None:
        """Create what is missing; several processes may do so at once."""
        layout.create_log(self.client, self.events)

    def _insert_events(self, rows: Sequence[Row], **kwargs: Any) -> list[int]:
        if len({row[:2] for row in rows}) < len(rows):
            raise IntegrityError("an originator's version stands twice in one append")
        made = documents.of_rows(rows)
        with self.client.translating():
            last = self._committed(made, **kwargs)
        return list(range(last - len(rows) + 1, last + 1))

    def _committed(self, made: Sequence[Document], **kwargs: Any) -> int:
        self.client.require_writable()
        undone: BaseException | None = None
        for _ in range(_TRIES):
            try:
                return self._written(made, **kwargs)
            except Undone as error:
                undone = error.__cause__
            except Taken as error:
                raise IntegrityError(error.__cause__) from error.__cause__
            except Lost as error:
                raise OutcomeUnknown(f"{self.client.name}: the connection broke during an append") from error.__cause__
        raise StoreUnavailable(f"{self.client.name}: other writers were first {_TRIES} times") from undone

    def _written(self, made: Sequence[Document], **kwargs: Any) -> int:
        if not made:
            self._also(None, **kwargs)
            return int(self.head.newest()["position"])
        if len(made) == 1 and kwargs.get("tracking") is None:
            return self.head.append(made[0])
        if not self.client.server.replicated and kwargs.get("tracking") is None:
            return int(self.head.insert_by_plan(made)["position"])
        self.client.require_transactions("what is recorded together with a tracking")
        with self.client.transaction() as session:
            place = self.head.insert(session, made)
            self._also(session, **kwargs)
        return int(place["position"])

    def _also(self, session: Session | None, **kwargs: Any) -> None:
        """Do what else belongs into the transaction, or what there is without one (see the process recorder)."""

    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        with self.client.translating():
            return self.stream_rows(None, stream, after, upto, desc=desc, limit=limit)

    def stream_rows(
        self, connection: Session | None, stream: str, after: int, upto: int | None, *, desc: bool, limit: int | None
    ) -> list[StreamRow]:
        """Return a stream's rows, read in a session."""
        wanted: Document = {"stream": stream, "last": {"$gt": after}}
        if upto is not None:
            wanted["first"] = {"$lte": upto}
            wanted["last"]["$lt"] = upto + MOST_EVENTS
        found = self._found(wanted, "last", limit, desc=desc, session=connection)
        versions = ((row for row in _turned(documents.stream_rows(one), desc=desc)) for one in found)
        rows = (row for of_one in versions for row in of_one if row[1] > after and (upto is None or row[1] <= upto))
        return _first(rows, limit)

    def _found(
        self, wanted: Document, order: str, limit: int | None, *, desc: bool = False, session: Session | None = None
    ) -> Iterator[Document]:
        """Yield documents of events; each has one at least."""
        fields = {"position": 1, "stream": 1, "events": 1}
        size = min(limit or _LARGEST_BATCH, _LARGEST_BATCH)
        cursor = self.client.collection(self.events).find(
            wanted, fields, sort=[(order, -1 if desc else 1)], limit=limit or 0, batch_size=size + 1, session=session
        )
        with closing(cursor):
            yield from cursor


class MongoDBApplicationRecorder(MongoDBAggregateRecorder, OrderedRecorder):
    """Adds the order over all originators, and following it within and across processes."""

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__(client, **options)
        self._news = News(client, self.events)

    def select_log(
        self, *, after: int = 0, upto: int | None = None, limit: int, topics: Sequence[str] = (), prefix: str = ""
    ) -> list[LogRow]:
        """Return events in position order, see ``Recorder``."""
        wanted: Document = {"position": {"$gt": after}}
        if upto is not None:
            wanted["position"]["$lt"] = upto + MOST_EVENTS
        if topics:
            wanted["events.topic"] = {"$in": list(topics)}
        if prefix:
            low, high = name_range(prefix)
            wanted["stream"] = {"$gte": low, "$lt": high}
        with self.client.translating():
            rows = (row for one in self._found(wanted, "position", limit) for row in documents.log_rows(one))
            return _first((row for row in _between(rows, after, upto) if not topics or row[3] in topics), limit)

    def position(self) -> int:
        """Return the position of the newest event, 0 if there is none."""
        with self.client.translating():
            return int(self.head.newest()["position"])

    def wait_for_news(self, after: int, timeout_s: float) -> bool:
        """Wait for an event above ``after``: woken by this process, and by the server for others."""
        return self._news.wait(lambda: self.position() > after, timeout_s)

    def tell(self) -> None:
        """Wake those who wait in this process."""
        self._news.tell()


def _turned(rows: Iterator[StreamRow], *, desc: bool) -> Iterable[StreamRow]:
    return reversed(list(rows)) if desc else rows


def _between(rows: Iterator[LogRow], after: int, upto: int | None) -> Iterator[LogRow]:
    for row in rows:
        if upto is not None and row[0] > upto:
            return
        if row[0] > after:
            yield row


def _first(rows: Iterable[Any], limit: int | None) -> list[Any]:
    found: list[Any] = []
    for row in rows:
        if limit is not None and len(found) >= limit:
            break
        found.append(row)
    return found
