"""MongoDB without a replica set: no transactions, so what takes several documents is a plan that anybody can end."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from eventsourcing.persistence import IntegrityError, OperationalError, StoredEvent, Tracking

import turnlog
from tests.adapters.test_mongodb_recorders import TestRecorder as OnReplicaSet
from turnlog.adapters.connect import connect
from turnlog.adapters.mongodb import MongoDBApplicationRecorder, MongoDBProcessRecorder
from turnlog.adapters.mongodb.client import Client
from turnlog.adapters.mongodb.plans import OPEN, Plans
from turnlog.domain.envelope import erase
from turnlog.domain.errors import ConcurrencyConflict, StoreUnavailable
from turnlog.domain.recorder import Batch, Recorder
from turnlog.testing.contracts.appending import AppendContract
from turnlog.testing.contracts.keeping import KeysContract
from turnlog.testing.contracts.reading import ReadContract
from turnlog.testing.contracts.rows import batch, grow, tombstone, write

S, T, U = "default/s", "default/t", "default/u"


@pytest.fixture
def recorder(request: pytest.FixtureRequest, mongodb_alone_url: str) -> Iterator[Recorder]:
    """An empty recorder, as a store has it."""
    backend = connect(mongodb_alone_url, durability=str(getattr(request, "param", "full")), engine=None, options={})
    yield backend.recorder
    backend.recorder.close()


@pytest.fixture
def other(recorder: Recorder, mongodb_alone_url: str) -> Iterator[Recorder]:
    """The same log, as another process has it."""
    opened = connect(mongodb_alone_url, durability=recorder.durability, engine=None, options={}).recorder
    yield opened
    opened.close()


class TestRecorderAlone(AppendContract, KeysContract):
    """Our contracts, as far as a standalone server could make a difference."""

    patience_s = OnReplicaSet.patience_s
    out_of_reach = ("collections' files", "journal", "backups")
    reads_one_moment = False
    test_no_reader_is_overtaken = ReadContract.test_no_reader_is_overtaken
    test_news_wakes = ReadContract.test_news_wakes
    test_asked_until_it_fits = OnReplicaSet.test_asked_until_it_fits
    test_what_is_read_was_not_erased_meanwhile = OnReplicaSet.test_what_is_read_was_not_erased_meanwhile
    test_large_appends_are_whole = OnReplicaSet.test_large_appends_are_whole


class DiedError(BaseException):
    """The process ends here."""


class Dying:
    """Events of a process that ends before it writes for the ``lives``-th time."""

    def __init__(self, events: Any, lives: list[None]) -> None:
        self._events, self._lives = events, lives

    def __getattr__(self, name: str) -> Any:
        if name in ("insert_one", "update_one", "update_many", "bulk_write"):
            if not self._lives:
                raise DiedError
            self._lives.pop()
        return getattr(self._events, name)


@pytest.mark.parametrize("recorder", ["full", "normal"], indirect=True)
@pytest.mark.parametrize("steps", range(8))
def test_who_dies_is_ended_by_the_next(
    recorder: Recorder, mongodb_alone_url: str, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Whatever a process came to, what it appended and erased is there as a whole, or not at all, and in order."""
    before = grow(recorder, S, 2)
    lives: list[None] = [None] * steps
    events: Any = Plans.events
    with monkeypatch.context() as dying:
        dying.setattr(Plans, "events", property(lambda plans: Dying(events.fget(plans), lives)))
        with suppress(DiedError):
            recorder.append((tombstone(S, before), batch(T, 2), batch(U, 1)), lambda _: ())
    grow(recorder, "default/other", 1)
    is_there = bool(recorder.select_stream(T))
    assert is_there == (steps > 1)  # the first write waits for what is there already, the second is the commit
    assert [len(recorder.select_stream(stream)) for stream in (S, T, U)] == ([3, 2, 1] if is_there else [2, 0, 0])
    content = [row[3] for row in recorder.select_stream(S)]
    assert content == [erase(state) if is_there else state for state in content]
    assert [row[0] for row in recorder.select_log(limit=99)] == list(range(1, 8 if is_there else 4))
    assert recorder.check() == []
    with Client(mongodb_alone_url) as client:
        assert client.collection("stored_events").find_one({OPEN: {"$exists": True}}) is None


def test_what_is_taken_is_refused_whole(recorder: Recorder) -> None:
    """Of several sessions none is written if one does not fit; nor what does not fit itself."""
    grow(recorder, S, 1)

    def append(*wrong: Batch) -> None:
        with pytest.raises(ConcurrencyConflict):
            recorder.append(wrong, lambda _: wrong)

    append(batch(T, 1), batch(S, 1))
    append(batch(T, 1), batch(T, 1))
    assert recorder.select_stream(T) == []
    write(recorder, batch(T, 1), batch(S, 1, before=recorder.select_stream(S)))


def test_more_than_a_document_holds(recorder: Recorder) -> None:
    """What a plan cannot carry is refused in words, and nothing is written."""
    with pytest.raises(StoreUnavailable, match=r"16 MiB, takes a transaction.*rs\.initiate"):
        write(recorder, Batch(S, [(n, "t", b"." * (1 << 20)) for n in range(1, 18)]))
    assert recorder.position() == 0


def test_a_store(mongodb_alone_url: str) -> None:
    """All of a store can be used: another one reads and follows what one writes, and forgets what it erases."""
    with turnlog.open(mongodb_alone_url) as store, turnlog.open(mongodb_alone_url) as other:
        first = store.session("s", user_id="u", history=[{"role": "user", "content": "A table for two"}])
        assert [found.session_id for found in other.search("table").items] == ["s"]
        second = first.reset()
        assert other.get("s").status == "archived"
        assert [one.session_id for one in other.sessions(user_id="u").items] == [second.id, "s"]
        second.fork("fork").delete()
        store.erase_user("u")
        assert (other.sessions().items, other.search("table").items) == ([], [])
        assert other.verify().ok
        assert len(list(other.events())) == other.position == 8


def test_the_library_records(mongodb_alone_url: str) -> None:
    """Programs of `eventsourcing` can append to several originators; with a tracking they need a replica set."""
    with Client(mongodb_alone_url) as client:
        recorder = MongoDBApplicationRecorder(client)
        recorder.create_table()
        first, second = uuid4(), uuid4()
        assert recorder.insert_events([StoredEvent(first, 1, "t", b"x")]) == [1]
        assert recorder.insert_events([StoredEvent(first, 2, "t", b"x"), StoredEvent(second, 1, "t", b"x")]) == [2, 3]
        with pytest.raises(IntegrityError):
            recorder.insert_events([StoredEvent(second, 2, "t", b"x"), StoredEvent(first, 2, "t", b"x")])
        assert [event.originator_version for event in recorder.select_events(first)] == [1, 2]
        processing = MongoDBProcessRecorder(client, events_table="others")
        processing.create_table()
        with pytest.raises(OperationalError, match="standalone"):
            processing.insert_events([StoredEvent(first, 1, "t", b"x")], tracking=Tracking("upstream", 1))
        assert processing.max_tracking_id("upstream") is None
