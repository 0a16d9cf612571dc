"""What tests of agents are given: given/when/then on a session, a store with faults, a clock."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import turnlog
from turnlog import ConversationStore, OutcomeUnknown, Session, SessionClosed, StoreUnavailable, aio, events
from turnlog.testing import Clock, Crashed, Faults, faulty, given_session, like

ROOT = Path(__file__).resolve().parent.parent.parent


def waiter(session: Session) -> str:
    """Answer as an agent would, in one turn."""
    with session.turn():
        session.collect(party_size=2)
        session.add_message("assistant", "For when?")
    return "asked"


@pytest.fixture
def session() -> Iterator[Session]:
    """A session in memory."""
    with turnlog.open("memory://") as store:
        yield store.session("s", user_id="alice")


def ask(session: Session) -> object:
    """Say what the agent answers to."""
    return session.add_message("user", "A table for two, please")


def test_what_an_agent_writes(session: Session) -> None:
    """Only its own events count, in their order; of each, the fields that are named."""
    outcome = given_session(session, ask).when(waiter)
    after = outcome.then(
        events.DataCollected(values={"party_size": 2}), like(events.MessageAdded, role="assistant", content="For when?")
    )
    assert (after.version, outcome.result) == (4, "asked")


@pytest.mark.parametrize(
    "expected",
    [
        (),
        (like(events.DataCollected),),
        (like(events.MessageAdded), like(events.DataCollected)),
        (like(events.DataCollected, values={"party_size": 3}), like(events.MessageAdded)),
        (events.DataCollected(values={"party_size": 3}), like(events.MessageAdded)),
        (like(events.DataCollected), like(events.MessageAdded), like(events.MessageAdded)),
    ],
)
def test_what_it_does_not_write(session: Session, expected: tuple[events.Event, ...]) -> None:
    """Others, fewer, more, or in another order: the failure shows what was expected and what was found."""
    with pytest.raises(AssertionError, match=r"(?s)expected:.*found:\n  DataCollected\(.*party_size.*MessageAdded\("):
        given_session(session, ask).when(waiter).then(*expected)


def test_what_it_raises(session: Session) -> None:
    """An error is an outcome; whoever expected events is told of it, whoever expected it must find nothing written."""
    refused = given_session(session, Session.complete).when(waiter)
    assert refused.raised(SessionClosed, "completed").status == "completed"
    with pytest.raises(AssertionError, match="SessionClosed"):
        refused.then()
    with pytest.raises(AssertionError, match="expected StoreUnavailable, got SessionClosed"):
        refused.raised(StoreUnavailable)

    def half(session: Session) -> None:
        session.reopen()
        raise ValueError("half way")

    with pytest.raises(AssertionError, match="written all the same"):
        given_session(session).when(half).raised(ValueError)
    with pytest.raises(TypeError, match="no field 'colour'"):
        like(events.MessageAdded, colour="red")


def test_the_clock() -> None:
    """It stands still, moves when told, and begins where one wants."""
    clock = Clock()
    with turnlog.open("memory://", clock=clock) as store:
        session = store.session("s")
        clock.advance(60)
        session.add_message("user", "late")
        assert [event.recorded_at for event in session.events()] == [clock.now - timedelta(seconds=60), clock.now]
    assert Clock(datetime(2030, 1, 1, tzinfo=UTC)).advance(-1).year == 2029


@pytest.fixture
def faults() -> Faults:
    """Nothing goes wrong yet."""
    return Faults()


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that does not exist yet."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/sessions.db"


@pytest.fixture
def store(place: str, faults: Faults) -> Iterator[ConversationStore]:
    """A store with faults."""
    with turnlog.open(faulty(place, faults, durability="normal")) as opened:
        yield opened


def said(session: Session) -> list[object]:
    """Return the contents of all messages."""
    return [message.content for message in session.history()]


def test_failing(store: ConversationStore, faults: Faults) -> None:
    """The call that is named does nothing and fails, once; the others work."""
    session = store.session("s")
    faults.fail("append", at=2)
    session.add_message("user", "one")
    with pytest.raises(StoreUnavailable, match="append was made to fail"):
        session.add_message("user", "two")
    session.add_message("user", "three")
    assert said(session) == ["one", "three"]
    faults.fail("select_stream", error=turnlog.CorruptLog("damaged"))
    with pytest.raises(turnlog.CorruptLog, match="damaged"):
        session.history()
    assert faults.calls["append"] == 4


@pytest.mark.parametrize("message_id", ["m-1", None])
def test_a_lost_answer(store: ConversationStore, faults: Faults, message_id: str | None) -> None:
    """It is written, and nobody was told: said again under its id it is written once, without one twice."""
    session = store.session("s")
    faults.lose_answer()
    with pytest.raises(OutcomeUnknown):
        session.add_message("user", "one", message_id=message_id)
    session.add_message("user", "one", message_id=message_id)
    assert said(session) == ["one"] * (1 if message_id else 2)


def test_a_duplicate(store: ConversationStore, faults: Faults) -> None:
    """What is sent twice under an id is written once, and both get the first receipt."""
    session = store.session("s")
    faults.duplicate("append")
    receipt = session.add_message("user", "one", message_id="m-1")
    assert receipt.version == 2
    assert said(session) == ["one"]


def test_a_delay(place: str) -> None:
    """Time passes as one likes: here for the clock alone."""
    clock = Clock()
    faults = Faults(sleep=clock.advance)
    with turnlog.open(faulty(place, faults), clock=clock) as store:
        session = store.session("s")
        began = clock.now
        faults.delay("append", 30)
        session.add_message("user", "one")
        assert (clock.now - began).total_seconds() == 30


@pytest.mark.parametrize("done", [False, True])
def test_a_crash(tmp_path: Path, faults: Faults, *, done: bool) -> None:
    """No ``except Exception`` stops it, the store is of no more use, and what was committed is found by the next."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    with turnlog.open(faulty(url, faults)) as store:
        session = store.session("s")
        faults.crash("append", done=done)
        with pytest.raises(Crashed):
            waiter(session)
        for use in (session.refresh, session.complete):
            with pytest.raises(Crashed):
                use()
    with turnlog.open(url) as store:
        assert said(store.get("s")) == (["For when?"] if done else [])
        assert store.verify().ok


KILLED = """
import sys
import turnlog
from turnlog.testing import Faults, faulty
faults = Faults()
store = turnlog.open(faulty(sys.argv[1], faults))
session = store.session("s")
faults.crash("append", at=2, done=True, kill=True)
for n in range(9):
    session.add_message("user", str(n))
"""


def test_a_kill(sqlite_url: str) -> None:
    """The process itself is killed where it is asked for."""
    done = subprocess.run([sys.executable, "-c", KILLED, sqlite_url], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    with turnlog.open(sqlite_url) as store:
        assert said(store.get("s")) == ["0", "1"]


@pytest.mark.parametrize(("method", "at"), [("nothing", 1), ("append", 0)])
def test_a_fault_that_cannot_be(faults: Faults, method: str, at: int) -> None:
    """A method that is none, or a call before the first, is refused."""
    with pytest.raises(ValueError, match="expected one of append"):
        faults.fail(method, at=at)
    with pytest.raises(ValueError, match="colour is not an option"):
        faulty("memory://", faults, colour="red")


async def _awaited(faults: Faults) -> list[object]:
    async with aio.open(faulty("memory://", faults)) as store:
        session = await store.session("s")
        faults.fail("append")
        with pytest.raises(StoreUnavailable):
            await session.add_message("user", "one")
        await session.add_message("user", "two")
        return [message.content for message in await session.history()]


def test_asyncio_too(faults: Faults) -> None:
    """The awaitable store takes a faulty backend as well."""
    assert asyncio.run(_awaited(faults)) == ["two"]
