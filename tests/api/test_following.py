"""Following the log: events, subscriptions, and being told of commits."""

import queue
import threading
from collections.abc import Callable

import pytest

import turnlog
from turnlog import (
    ConversationStore,
    Receipt,
    RecordedEvent,
    Session,
    SessionClosed,
    Subscription,
    events,
)

DEADLINE_S = 60


def versions(found: list[RecordedEvent]) -> list[tuple[str, int]]:
    """Return which events these are."""
    return [(event.session_id, event.version) for event in found]


class Reader:
    """A thread that reads a subscription and puts what it finds where a test can wait for it."""

    def __init__(self, subscription: Subscription) -> None:
        self.found: queue.Queue[RecordedEvent | None] = queue.Queue()
        self._subscription = subscription
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for event in self._subscription:
            self.found.put(event)
        self.found.put(None)

    def next(self, n: int) -> list[RecordedEvent]:
        """Wait for the next n events."""
        found = [self.found.get(timeout=DEADLINE_S) for _ in range(n)]
        return [event for event in found if event is not None]

    def ended(self) -> bool:
        """Wait for the end."""
        return self.found.get(timeout=DEADLINE_S) is None


def test_events_come_in_the_order_of_their_positions(store: ConversationStore) -> None:
    """All sessions' events, interleaved as they were written; from a position on; so many of them."""
    one, two = store.session("s-1"), store.session("s-2")
    one.collect(n=1)
    two.collect(n=1)
    one.complete()
    everything = list(store.events())
    assert versions(everything) == [("s-1", 1), ("s-2", 1), ("s-1", 2), ("s-2", 2), ("s-1", 3)]
    positions = [event.position for event in everything]
    assert positions == sorted(set(positions))
    assert list(store.events(after=positions[2])) == everything[3:]
    assert list(store.events(after=positions[1], limit=2)) == everything[2:4]
    assert list(store.events(limit=0)) == list(store.events(after=store.position)) == []


@pytest.mark.parametrize(
    "types",
    [
        ["DataCollected", "SessionStarted"],
        [events.DataCollected, "SessionStarted"],
        (events.DataCollected, events.SessionStarted),
    ],
)
def test_events_of_some_types(store: ConversationStore, types: list[str | type]) -> None:
    """Classes or names pick the types; a limit counts those that match."""
    session = store.session("s-1")
    for n in range(3):
        session.add_message("user", "hi")
        session.collect(n=n)
    assert [event.version for event in store.events(types=types)] == [1, 3, 5, 7]
    assert [event.version for event in store.events(types=types, limit=2)] == [1, 3]


def test_reading_sees_the_log_as_it_was_when_it_began(store: ConversationStore, session: Session) -> None:
    """Events written while one reads are for the next reading."""
    session.collect(n=1)
    reading = store.events()
    next(reading)
    session.collect(n=2)
    assert [event.version for event in reading] == [2]


def test_events_over_several_pages(store: ConversationStore) -> None:
    """A log of several pages is read whole, filtered or not."""
    session = store.session("s-1")
    session.add_messages([{"role": "user", "content": f"{n}"} for n in range(2_500)])
    session.complete()
    assert [event.version for event in store.events()] == list(range(1, 2_503))
    assert [event.version for event in store.events(types=["StatusChanged"])] == [2_502]
    assert [event.version for event in store.events(limit=1_500)] == list(range(1, 1_501))


def test_a_subscription_gives_the_past_and_goes_on(
    store: ConversationStore, reopen: Callable[[], ConversationStore]
) -> None:
    """First what was there, then each new event, also of another store on the same storage, in order."""
    session = store.session("s-1")
    session.collect(n=1)
    with store.subscribe(after=0) as subscription:
        reader = Reader(subscription)
        assert versions(reader.next(2)) == [("s-1", 1), ("s-1", 2)]
        session.complete()
        reopen().session("s-2")
        assert versions(reader.next(2)) == [("s-1", 3), ("s-2", 1)]
    assert reader.ended()


def test_a_subscription_without_a_place_begins_now(store: ConversationStore, session: Session) -> None:
    """It gives only what is written after it was made; resumed by its position, it misses nothing."""
    session.collect(n=1)
    subscription = store.subscribe()
    session.collect(n=2)
    event = next(subscription)
    assert (event.version, subscription.position) == (3, event.position)
    subscription.close()
    session.collect(n=3)
    with store.subscribe(after=subscription.position) as again:
        assert next(again).version == 4


def test_a_subscription_of_some_types_resumes_where_it_read(store: ConversationStore, session: Session) -> None:
    """Its position moves on over what did not match, and never before what was given out."""
    with store.subscribe(after=0, types=[events.StatusChanged]) as subscription:
        session.add_messages([{"role": "user", "content": f"{n}"} for n in range(1_500)])
        session.complete()
        event = next(subscription)
        assert (event.version, subscription.position) == (1_502, store.position)


def test_closing_ends_a_subscription(store: ConversationStore) -> None:
    """Closing the subscription ends it, and closing the store ends all of them, also such as wait."""
    one, two = store.subscribe(), store.subscribe()
    readers = Reader(one), Reader(two)
    one.close()
    assert readers[0].ended()
    store.close()
    assert readers[1].ended()
    assert list(two) == []


def test_many_writers_nothing_is_missed(store: ConversationStore, reopen: Callable[[], ConversationStore]) -> None:
    """A subscription gives every event of writers that race, each once, in order of positions."""
    with store.subscribe(after=0) as subscription:
        reader = Reader(subscription)

        def write(n: int) -> None:
            session = reopen().session(f"s-{n}")
            for i in range(20):
                session.collect(i=i)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        found = reader.next(4 * 21)
        for thread in threads:
            thread.join(DEADLINE_S)
    assert [event.position for event in found] == sorted({event.position for event in found})
    for n in range(4):
        assert [event.version for event in found if event.session_id == f"s-{n}"] == list(range(1, 22))


def test_erased_events_are_told_as_that(store: ConversationStore, session: Session) -> None:
    """Of a deleted session the log keeps that something happened, and when, and nothing of what."""
    session.add_message("user", "secret", actor="alice")
    session.delete()
    found = list(store.events())
    assert [type(event.event).__name__ for event in found] == ["Erased", "Erased", "SessionDeleted"]
    assert [event.topic for event in found] == ["SessionStarted.v1", "MessageAdded.v1", "SessionDeleted.v1"]
    assert {event.actor for event in found} == {None}
    assert "secret" not in repr(found)


def test_on_committed_is_told_of_every_commit(store: ConversationStore) -> None:
    """Each append that wrote something is told, once, after it is there; what wrote nothing is not."""
    told: list[Receipt] = []
    seen: list[int] = []
    store.on_committed(told.append)
    store.on_committed(lambda receipt: seen.append(store.get(receipt.session_id).version if receipt.version else 0))
    session = store.session("s-1", user_id="alice")
    session.collect(n=1)
    session.collect(n=1)
    with session.turn():
        session.add_message("user", "hi")
        session.complete()
    with pytest.raises(SessionClosed):
        session.collect(n=2)
    assert [receipt.version for receipt in told] == [1, 2, 4]
    assert seen == [1, 2, 4]
    fork = session.fork("s-2")
    assert (told[-1].session_id, told[-1].version) == ("s-2", fork.version)
    new = session.reset()
    assert {receipt.session_id for receipt in told[4:]} == {"s-1", new.id}
    del told[:]
    store.session("s-3", user_id="bob").delete()
    assert [receipt.version for receipt in told] == [1, 2]
    assert told[-1].erasure is not None
    del told[:]
    store.erase_user("alice")
    assert {receipt.session_id for receipt in told} == {"s-1", "s-2", new.id}


def test_a_callback_that_fails_changes_nothing(
    store: ConversationStore, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """The write stands, its receipt is returned, the other callbacks are told; the failure is logged."""
    told: list[Receipt] = []

    def fail(receipt: Receipt) -> None:
        raise RuntimeError(f"no room for {receipt.version}")

    store.on_committed(fail)
    store.on_committed(told.append)
    receipt = session.add_message("user", "hi")
    assert [one.version for one in told] == [receipt.version] == [2]
    assert len(store.get("s-1").history()) == 1
    assert "no room for 2" in caplog.text


def test_subscribing_to_a_log_in_another_process(sqlite_url: str) -> None:
    """A subscription is told of what another process writes to the same file."""
    import subprocess
    import sys

    with turnlog.open(sqlite_url) as store, store.subscribe() as subscription:
        program = "import sys, turnlog; turnlog.open(sys.argv[1]).session('s-1').add_message('user', 'from afar')"
        subprocess.run([sys.executable, "-c", program, sqlite_url], check=True, timeout=DEADLINE_S)
        assert versions([next(subscription), next(subscription)]) == [("s-1", 1), ("s-1", 2)]
