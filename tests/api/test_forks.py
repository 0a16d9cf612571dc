"""Forking and resetting: sessions that begin from another's past."""

from collections.abc import Callable
from datetime import datetime

import pytest
from pydantic import BaseModel

import turnlog
from turnlog import (
    ConcurrencyConflict,
    ConversationStore,
    IdempotencyConflict,
    InvalidInput,
    Session,
    SessionGone,
)
from turnlog.ids import new_id, utc_now
from turnlog.testing import Clock


@pytest.fixture
def told(session: Session, clock: Clock) -> Session:
    """A session with something of everything in it."""
    session.add_message("user", "one", message_id="m-1", actor="alice", correlation_id="request-1")
    clock.advance(10)
    session.collect(n=1, occurred_at=clock.now.replace(year=2020))
    session.enter_route("booking")
    session.add_message("assistant", "two", message_id="m-2", command_id="k-1")
    session.start_run("r-1", model="m")
    clock.advance(10)
    return session


def contents(session: Session) -> list[object]:
    """Return what the visible messages say."""
    return [message.content for message in session.history()]


def test_a_fork_is_a_copy_that_goes_its_own_way(store: ConversationStore, told: Session) -> None:
    """State, messages, routes and runs are those of the source; what is said to one is not said to the other."""
    fork = told.fork("fork")
    assert contents(fork) == contents(told) == ["one", "two"]
    assert [m.message_id for m in fork.history()] == ["m-1", "m-2"]
    assert (fork.data, fork.user_id, fork.status) == ({"n": 1}, "alice", "active")
    assert fork.state.current_route == "booking"
    assert [run.run_id for run in fork.runs()] == ["r-1"]
    assert fork.state.forked_from == turnlog.events.ForkPoint(session_id="s-1", version=told.version)
    assert told.state.forked_from is None
    fork.add_message("user", "three")
    told.collect(n=2)
    assert (contents(told), fork.data) == (["one", "two"], {"n": 1})
    assert store.get("fork").version == 7
    assert store.verify().ok


def test_a_forks_events_name_their_source(told: Session, clock: Clock) -> None:
    """New event ids, causation the source's event, one append; what occurred keeps its time, and is recorded now."""
    fork = told.fork()
    sources, copies = list(told.events()), list(fork.events())
    assert [copy.causation_id for copy in copies] == [source.event_id for source in sources]
    assert not {copy.event_id for copy in copies} & {source.event_id for source in sources}
    assert [copy.occurred_at for copy in copies] == [source.occurred_at for source in sources]
    assert {copy.recorded_at for copy in copies} == {clock.now}
    assert [(copy.actor, copy.correlation_id) for copy in copies] == [(s.actor, s.correlation_id) for s in sources]
    assert [copy.turn for copy in copies] == [(i, 6) for i in range(1, 7)]
    assert [copy.position for copy in copies] == list(range(copies[0].position, copies[0].position + 6))


def test_a_fork_of_a_past_version_or_time(told: Session, clock: Clock) -> None:
    """It holds what there was then."""
    assert contents(told.fork(at=2)) == ["one"]
    assert contents(told.fork(at=clock.now.replace(second=5))) == ["one"]
    fork = told.fork(at=3)
    assert (fork.data, fork.state.current_route, fork.version) == ({"n": 1}, None, 3)
    assert fork.state.forked_from == turnlog.events.ForkPoint(session_id="s-1", version=3)


@pytest.mark.parametrize("status", ["paused", "completed", "archived"])
def test_a_fork_is_active_whatever_the_source_is(told: Session, status: str) -> None:
    """Also of a closed session."""
    told.set_status(status)
    fork = told.fork()
    assert (fork.status, fork.state.completed_at) == ("active", None)
    fork.add_message("user", "on we go")
    assert told.refresh().status == status


def test_a_fork_takes_the_ids_of_its_messages_along(told: Session) -> None:
    """A message said to the source is not said again to the fork; command ids are each session's own."""
    fork = told.fork()
    version = fork.version
    assert fork.add_message("user", "one", message_id="m-1").message_id == "m-1"
    assert (contents(fork), fork.version) == (["one", "two"], version)
    with pytest.raises(IdempotencyConflict):
        fork.add_message("user", "another", message_id="m-1")
    assert fork.collect(x=1, command_id="k-1").event_ids
    early = told.fork(at=1)
    assert early.add_message("user", "anything", message_id="m-1").event_ids


def test_a_fork_of_a_fork(told: Session) -> None:
    """It says what it was taken from last."""
    fork = told.fork("fork")
    again = fork.fork("again", at=4)
    assert again.state.forked_from == turnlog.events.ForkPoint(session_id="fork", version=4)
    assert contents(again) == ["one"]


def test_a_taken_id_is_refused(store: ConversationStore, told: Session) -> None:
    """Also that of a deleted session; nothing is written."""
    store.session("taken")
    store.session("deleted").delete()
    position = store.position
    for session_id in ("taken", "deleted", "s-1"):
        with pytest.raises(InvalidInput, match="session_id"):
            told.fork(session_id)
    assert store.position == position


def test_a_long_session_is_forked_whole(store: ConversationStore) -> None:
    """Several thousand events are one append, and opening the fork is quick for its snapshot."""
    session = store.session("long")
    session.add_messages([{"role": "user", "content": f"{n}"} for n in range(3_000)])
    fork = session.fork("fork", at=2_500)
    assert fork.version == 2_500
    assert contents(fork) == contents(session)[:2_499]
    assert store.verify().ok


def test_erasing_the_source_leaves_the_fork(store: ConversationStore, told: Session) -> None:
    """A fork is self-contained; and erasing the fork leaves the source."""
    fork, other = told.fork("fork"), told.fork("other")
    other.delete()
    assert contents(told) == ["one", "two"]
    told.delete()
    assert contents(store.get("fork")) == ["one", "two"]
    assert fork.refresh().data == {"n": 1}


class Meanwhile:
    """What others do in the midst of a call: it is done once, as soon as the store asks for a time or an id."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def _happen(self) -> None:
        if self.waiting:
            self.waiting.pop()()

    def clock(self) -> datetime:
        """Return the time, after what was waiting has happened."""
        self._happen()
        return utc_now()

    def new_id(self) -> str:
        """Return an id, after what was waiting has happened."""
        self._happen()
        return new_id()


def test_a_fork_that_races_an_erasure_does_not_outlive_it(url: str) -> None:
    """A copy taken before the user was erased, and finished after, is not written."""
    meanwhile = Meanwhile()
    with turnlog.open(url, new_id=meanwhile.new_id) as store:
        session = store.session("s-1", user_id="alice")
        session.add_messages([{"role": "user", "content": f"secret {n}"} for n in range(20)])
        meanwhile.waiting.append(lambda: store.erase_user("alice"))
        with pytest.raises(SessionGone):
            session.fork("fork")
        assert not meanwhile.waiting
        assert not store.exists("fork")
        assert "secret" not in repr(list(store.events()))


def test_reset_continues_in_a_new_session(store: ConversationStore, told: Session) -> None:
    """The new one has the owner and agent, and says what it continues; the old one is archived; data stays behind."""
    new = told.reset()
    assert (new.user_id, new.agent, new.state.continued_from) == ("alice", told.agent, "s-1")
    assert (new.data, contents(new), new.status, new.version) == ({}, [], "active", 1)
    assert store.get("s-1").status == "archived"
    assert contents(told) == ["one", "two"]
    assert store.active_session("alice") is not None


def test_reset_may_take_the_messages_along(store: ConversationStore, told: Session) -> None:
    """The visible ones, in their wording, with their ids and when they occurred."""
    told.edit_message("m-1", "one, edited")
    told.add_message("user", "removed", message_id="m-3")
    told.remove_message("m-3")
    before = told.history()
    new = told.reset(preserve_history=True)
    assert [(m.message_id, m.role, m.content, m.occurred_at) for m in new.history()] == [
        (m.message_id, m.role, m.content, m.occurred_at) for m in before
    ]
    assert new.state.message_count == 2
    assert store.messages(user_id="alice", limit=2).items == new.history()[::-1]


def test_reset_is_one_append(store: ConversationStore, told: Session) -> None:
    """Refused, neither half of it is there."""
    position = store.position
    with pytest.raises(ConcurrencyConflict):
        told.reset(expected_version=1)
    assert store.position == position
    assert [summary.status for summary in store.sessions().items] == ["active"]
    new = told.reset(expected_version=told.version, actor="admin")
    positions = [event.position for event in store.events(after=position)]
    assert positions == list(range(position + 1, position + 3))
    assert next(iter(new.events())).actor == "admin"


def test_reset_with_a_command_id_is_idempotent(store: ConversationStore, told: Session) -> None:
    """The same successor for the same id, for every handle; another for another id; what was used is a conflict."""
    first = told.reset(command_id="k-9")
    first.add_message("user", "on we go")
    again = store.get("s-1").reset(command_id="k-9")
    assert (again.id, contents(again)) == (first.id, ["on we go"])
    assert told.reset(command_id="k-10").id != first.id
    with pytest.raises(IdempotencyConflict):
        told.reset(command_id="k-1")
    with pytest.raises(IdempotencyConflict):
        told.reset(command_id="k-9", preserve_history=True)
    assert len(store.sessions().items) == 3


def test_a_reset_whose_successor_was_deleted_stays_done(store: ConversationStore, told: Session) -> None:
    """The repetition of a reset does not begin a third session, and does not bring back the deleted one."""
    told.reset(command_id="k-9").delete()
    position = store.position
    with pytest.raises(SessionGone):
        told.reset(command_id="k-9")
    assert store.position == position
    assert store.verify().ok


def test_of_two_racing_resets_with_one_id_one_is_done(url: str) -> None:
    """Both give the same successor, and there is one."""
    meanwhile = Meanwhile()
    with turnlog.open(url, clock=meanwhile.clock) as store:
        session, other = store.session("s-1", user_id="alice"), store.get("s-1")
        session.add_message("user", "hi")
        theirs: list[Session] = []
        meanwhile.waiting.append(lambda: theirs.append(other.reset(command_id="k-1", preserve_history=True)))
        ours = session.reset(command_id="k-1", preserve_history=True)
        assert ours.id == theirs[0].id
        assert contents(store.get(ours.id)) == ["hi"]
        assert len(store.sessions().items) == 2
        assert store.verify().ok


def test_nothing_said_in_the_last_moment_is_lost_by_a_reset(url: str) -> None:
    """A message that comes while a reset that keeps the history is decided, is kept."""
    meanwhile = Meanwhile()
    with turnlog.open(url, new_id=meanwhile.new_id) as store:
        session, other = store.session("s-1"), store.get("s-1")
        session.add_message("user", "one")
        meanwhile.waiting.append(lambda: other.add_message("user", "two"))
        new = session.reset(preserve_history=True)
        assert contents(new) == contents(store.get("s-1")) == ["one", "two"]


def test_a_fork_belongs_to_whoever_owns_the_source(store: ConversationStore) -> None:
    """Also one of a time before it had that owner: so erasing the user reaches both, and the user sees it."""
    session = store.session("s-2")
    session.add_message("user", "secret")
    session.assign_owner("alice")
    fork = store.for_user("alice").get("s-2").fork("fork", at=2)
    assert (fork.user_id, contents(fork)) == ("alice", ["secret"])
    report = store.erase_user("alice")
    assert (report.sessions, report.forks) == (2, 1)
    assert not store.exists("fork")


def test_an_owner_who_comes_in_the_last_moment_owns_the_fork(url: str) -> None:
    """The owner is looked at when the fork is committed."""
    meanwhile = Meanwhile()
    with turnlog.open(url, new_id=meanwhile.new_id) as store:
        session, other = store.session("s-1"), store.get("s-1")
        meanwhile.waiting.append(lambda: other.assign_owner("alice"))
        assert session.fork("fork").user_id == "alice"
        assert store.verify().ok


class Party(BaseModel):
    size: int


@pytest.mark.parametrize("derive", ["fork", "reset"])
def test_the_data_model_comes_along(store: ConversationStore, derive: str) -> None:
    """What is derived from a handle checks data as the handle does; so does the active session that is asked for."""
    session = store.session("s-1", user_id="alice", data_model=Party)
    active = store.active_session("alice", data_model=Party)
    assert active is not None
    for one in (getattr(session, derive)(), active):
        assert one.missing == ("size",)
        with pytest.raises(InvalidInput, match="colour"):
            one.collect(colour="red")


@pytest.mark.parametrize("status", ["active", "archived"])
def test_two_resets_at_once_under_one_id_are_one(url: str, status: str) -> None:
    """Also of a session that the reset leaves as it is."""
    meanwhile = Meanwhile()
    with turnlog.open(url, clock=meanwhile.clock) as store:
        session, other = store.session("s-1"), store.get("s-1")
        session.set_status(status)
        theirs: list[Session] = []
        meanwhile.waiting.append(lambda: theirs.append(other.reset(command_id="k-1")))
        assert session.reset(command_id="k-1").id == theirs[0].id
        assert store.verify().ok


def test_a_reset_is_not_an_archiving(session: Session) -> None:
    """Under one id the one is not taken for the other."""
    session.archive(reason="reset", command_id="k-1")
    with pytest.raises(IdempotencyConflict):
        session.reset(command_id="k-1")
