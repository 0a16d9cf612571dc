"""PostgreSQL with a synchronous standby: its primary crashes, the standby takes over, or the standby goes away.

The log is in partitions, the servers sync their files, and applications name both servers in one URL.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import chain
from multiprocessing.connection import Connection
from time import monotonic, sleep
from typing import Any, NamedTuple, TypeVar

import psycopg
import pytest
from psycopg import sql
from psycopg_pool import ConnectionPool

import turnlog
from tests.faults.processes import DEADLINE_S, Victim
from tests.servers import HOST, PostgreSQL, binaries_or_skip
from turnlog.adapters.connect import connect
from turnlog.domain.errors import OutcomeUnknown, StoreUnavailable
from turnlog.domain.recorder import Batch, Reader
from turnlog.testing.contracts.rows import batch, grow, key, write

T = TypeVar("T")
WRITERS = 3
OPEN_APPEND = "INSERT INTO turnlog_events (originator_id, originator_version, topic, state) VALUES ('x', 1, '', '')"
"""An append of somebody else's that is not committed."""
SAID = 25
"""How many messages each writer has acknowledged before the crash, and again after it."""


class Pair(NamedTuple):
    """A primary whose commits wait for its standby."""

    primary: PostgreSQL
    standby: PostgreSQL

    @property
    def url(self) -> str:
        """Both servers' URL: whichever of them is the primary."""
        hosts = f"{HOST}:{self.primary.port},{HOST}:{self.standby.port}"
        return f"postgresql://tester@{hosts}/postgres?target_session_attrs=read-write"


@pytest.fixture(scope="module")
def patient() -> Iterator[Pair]:
    """A pair of which the standby comes and goes, and the primary stays."""
    yield from _pair()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A pair of the test's own."""
    yield from _pair()


def _pair() -> Iterator[Pair]:
    with PostgreSQL(binaries_or_skip(), {}) as primary, primary.standby({}) as standby:
        primary.wait_for_standby(wanted=True)
        yield Pair(primary, standby)


def eventually(condition: Callable[[], T | None]) -> T:
    """Return what becomes of a condition: the first result that is true."""
    deadline = monotonic() + DEADLINE_S
    while not (found := condition()):
        assert monotonic() < deadline
        sleep(0.01)
    return found


# --- the primary crashes ----------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """An acknowledged message, and the place of its event."""

    session_id: str
    message_id: str
    version: int
    position: int | None
    event_id: str


def say_on(report: Connection, url: str, name: str) -> None:
    """Write to a session of one's own and to one that all share, until killed; what failed is said again."""
    with turnlog.open(url) as store:
        sessions = [store.session(name, user_id="alice"), store.session("shared", user_id="alice")]
        n = 0
        while True:
            n += 1
            session, message_id = sessions[n % 2], f"{name}-{n}"
            report.send(message_id)
            while True:
                with suppress(OutcomeUnknown, StoreUnavailable):
                    done = session.add_message("user", message_id, message_id=message_id)
                    break
            report.send(Said(session.id, message_id, done.version or 0, done.position, done.event_ids[0]))


class Following:
    """A subscriber with a store of its own, in a thread."""

    def __init__(self, url: str) -> None:
        self.seen: list[turnlog.RecordedEvent] = []
        self._store = turnlog.open(url)
        self._subscription = self._store.subscribe(after=0)
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        self.seen.extend(self._subscription)

    def close(self) -> None:
        """End it."""
        self._subscription.close()
        self._thread.join()
        self._store.close()


def test_the_primary_crashes(pair: Pair) -> None:
    """No acknowledged event is lost or doubled, writers and the subscription go on by themselves, chains verify."""
    turnlog.open(pair.url, partitions=4).close()
    with ExitStack() as stack:
        following = Following(pair.url)
        stack.callback(following.close)
        standby = stack.enter_context(turnlog.open(pair.standby.url, read_only=True))
        writers = [Victim(say_on, pair.url, f"w{i}") for i in range(WRITERS)]
        reports = [heard(writer, SAID) for writer in writers]
        open_append = stack.enter_context(psycopg.connect(pair.primary.url))
        open_append.execute(OPEN_APPEND)
        before = reads(standby)
        pair.primary.crash()
        sleep(0.2)
        pair.standby.promote()
        for writer, told in zip(writers, reports, strict=True):
            told.extend(heard(writer, SAID))
            told.extend(writer.kill())
        with turnlog.open(pair.url) as store:
            found = store.verify()
            assert found.ok, found.failures
            events = whole_log(store)
            every_report = list(chain.from_iterable(reports))
            assert_all_there(events, every_report)
            assert_said_once(store, every_report)
            events = whole_log(store)
        eventually(lambda: len(following.seen) >= len(events))
        assert following.seen == events
        assert [event.position for event in events] == sorted({event.position for event in events})
        assert before <= len(events)
        assert list(standby.events()) == events, "a store that was opened on the standby sees that it is none any more"
        open_append.close()


def test_a_standby_proves_nothing(patient: Pair, url: str) -> None:
    """It does not show who is writing on its primary, so what is above a hole waits for what the views have proven."""
    with ExitStack() as stack:
        store = stack.enter_context(turnlog.open(url, partitions=2))
        session = store.session("s", user_id="alice")
        standby = stack.enter_context(eventually(lambda: on_standby(patient, url)))
        late = stack.enter_context(psycopg.connect(url))
        store.catch_up()
        late.execute(OPEN_APPEND)
        session.add_message("user", "above a hole")
        eventually(lambda: standby.get("s").history())
        assert [event.position for event in standby.events()] == [1]
        late.rollback()
        store.catch_up()
        eventually(lambda: [event.position for event in standby.events()] == [1, 3])


def on_standby(pair: Pair, url: str) -> turnlog.ConversationStore | None:
    """Open a store on the standby, when its tables are there."""
    with suppress(turnlog.StoreError):
        return turnlog.open(url.replace(str(pair.primary.port), str(pair.standby.port)), read_only=True)
    return None


def heard(writer: Victim, n: int) -> list[Any]:
    """Return what a writer reports until it has had so many acknowledgements."""
    reports: list[Any] = []
    deadline = monotonic() + DEADLINE_S
    while sum(isinstance(each, Said) for each in reports) < n:
        assert monotonic() < deadline
        reports.extend(writer.reports(0.05))
    return reports


def reads(store: turnlog.ConversationStore) -> int:
    """Ask a store on a standby; return how many events it has in order."""
    shared = eventually(lambda: [item for item in store.sessions(user_id="alice").items if item.session_id == "shared"])
    assert len(store.get("shared").history()) >= shared[0].message_count
    assert store.messages(user_id="alice").items
    return len(list(store.events()))


def whole_log(store: turnlog.ConversationStore) -> list[turnlog.RecordedEvent]:
    """Return every event, once no transaction of somebody who was killed holds back the log's head any more."""
    last = store.session().id

    def whole() -> list[turnlog.RecordedEvent] | None:
        events = list(store.events())
        return events if events[-1].session_id == last else None

    return eventually(whole)


def assert_all_there(events: list[turnlog.RecordedEvent], reports: list[Any]) -> None:
    """Every acknowledged message is where its receipt says."""
    there = {(event.session_id, event.version): (event.position, event.event_id) for event in events}
    acknowledged = [each for each in reports if isinstance(each, Said)]
    assert len(acknowledged) >= 2 * SAID * WRITERS
    for said in acknowledged:
        assert there[said.session_id, said.version] == (said.position, said.event_id), said


def assert_said_once(store: turnlog.ConversationStore, reports: list[Any]) -> None:
    """What was tried is there once after it was said again, acknowledged or not."""
    tried = {each for each in reports if isinstance(each, str)}
    for message_id in sorted(tried - {each.message_id for each in reports if isinstance(each, Said)}):
        name, _, n = message_id.partition("-")
        store.get("shared" if int(n) % 2 else name).add_message("user", message_id, message_id=message_id)
    contents: dict[Any, int] = defaultdict(int)
    for session_id in ("shared", *(f"w{i}" for i in range(WRITERS))):
        for message in store.get(session_id).history():
            contents[message.content] += 1
    assert contents == dict.fromkeys(tried, 1)


# --- the standby goes away --------------------------------------------------------------------------------------------


class Waiting:
    """A call in a thread, that waits for the standby."""

    def __init__(self, primary: PostgreSQL, call: Callable[[], Any]) -> None:
        self._call = call
        self.result: Any = None
        self._primary = primary
        before = set(in_sync_rep(primary))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        (self.pid,) = eventually(lambda: set(in_sync_rep(primary)) - before)

    def _run(self) -> None:
        try:
            self.result = self._call()
        except turnlog.TurnlogError as error:
            self.result = error

    def end(self, function: str) -> None:
        """Cancel the waiting, or end the connection (pg_cancel_backend, pg_terminate_backend)."""
        with psycopg.connect(self._primary.url, autocommit=True) as connection:
            statement = sql.SQL("SELECT {}(%s)").format(sql.Identifier(function))
            assert connection.execute(statement, (self.pid,)).fetchone() == (True,)

    def over(self) -> Any:
        """Return what it returned or raised."""
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        return self.result


def in_sync_rep(server: PostgreSQL) -> list[int]:
    """Return which connections wait for the standby."""
    with psycopg.connect(server.url) as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchall()
    return [pid for (pid,) in rows]


@pytest.fixture
def away(patient: Pair, store: turnlog.ConversationStore) -> Iterator[PostgreSQL]:  # noqa: ARG001 - made before
    """A standby that is gone, until a test starts it or is over."""
    patient.standby.crash()
    yield patient.standby
    with suppress(RuntimeError):
        patient.standby.crash()
    patient.standby.start()
    patient.primary.wait_for_standby(wanted=True)


@pytest.fixture
def url(patient: Pair) -> str:
    """An empty schema on the primary."""
    return patient.primary.new_place()


@pytest.fixture
def store(url: str) -> Iterator[turnlog.ConversationStore]:
    """A store on the primary, made while the standby is there."""
    with turnlog.open(url, partitions=2) as opened:
        opened.session("s", user_id="alice").add_message("user", "first", message_id="m1")
        yield opened


def contents(store: turnlog.ConversationStore) -> list[Any]:
    """Return what was said."""
    return [message.content for message in store.get("s").history()]


def test_a_cancelled_wait_is_no_receipt(store: turnlog.ConversationStore, patient: Pair, away: PostgreSQL) -> None:
    """It is not said to be safe, for it is on one server only; said again it waits, and is there once."""
    session = store.get("s")
    say: Callable[[], Any] = lambda: session.add_message("user", "second", message_id="m2")  # noqa: E731
    waiting = Waiting(patient.primary, say)
    assert contents(store) == ["first"], "what waits is not shown"
    waiting.end("pg_cancel_backend")
    assert isinstance(waiting.over(), OutcomeUnknown)
    assert "cancelled" in str(waiting.result)
    again = Waiting(patient.primary, say)
    away.start()
    assert again.over().message_id == "m2"
    assert contents(store) == ["first", "second"]
    assert session.add_message("user", "third").version == again.result.version + 1


def test_an_application_s_pool(patient: Pair, url: str, away: PostgreSQL) -> None:
    """So it is on the connections of a pool that is the application's."""
    with ConnectionPool(url, min_size=1, open=True) as engine, turnlog.open(url, engine=engine) as other:
        waiting = Waiting(patient.primary, lambda: other.get("s").add_message("user", "second"))
        waiting.end("pg_cancel_backend")
        assert isinstance(waiting.over(), OutcomeUnknown)
        away.start()
        assert other.get("s").add_message("user", "third").version == 4


def test_a_connection_that_ends_while_it_waits(
    store: turnlog.ConversationStore, patient: Pair, away: PostgreSQL
) -> None:
    """The append is sent again, found to be there, and answered when the standby has it."""
    waiting = Waiting(patient.primary, lambda: store.get("s").add_message("user", "second"))
    waiting.end("pg_terminate_backend")
    eventually(lambda: [pid for pid in in_sync_rep(patient.primary) if pid != waiting.pid])
    assert waiting.result is None
    away.start()
    assert waiting.over().version == 3
    assert contents(store) == ["first", "second"]


def test_a_retry_inside_a_transaction_waits(patient: Pair, url: str, away: PostgreSQL) -> None:
    """What an append that is decided anew finds done by somebody else is on the standby when that is said."""
    away.start()
    recorder = connect(url, durability="full", engine=None, options={}).recorder
    write(recorder, batch("default/t", 2, keys=[key("k", 2)]))
    away.crash()

    def again(reader: Reader) -> list[Batch]:
        assert reader.select_keys("default/t", [("message", "k")])
        return []

    waiting = Waiting(patient.primary, lambda: recorder.append((batch("default/t", 1),), again))
    away.start()
    assert waiting.over() == []
    assert len(grow(recorder, "default/t", 1)) == 3
    recorder.close()


@pytest.mark.usefixtures("away")
def test_durability_normal_does_not_wait(store: turnlog.ConversationStore, url: str) -> None:
    """It promises this server's disk only, and the receipt says so."""
    with turnlog.open(url, durability="normal") as other:
        assert other.get("s").add_message("user", "second").durability == "normal"
    assert contents(store) == ["first", "second"]
