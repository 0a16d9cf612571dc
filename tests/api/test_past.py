"""Time travel: any past state, by version and by time; replay; differences."""

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import turnlog
from turnlog import ConversationStore, InvalidInput, Session, events
from turnlog.testing import Clock


@pytest.fixture
def told(session: Session, clock: Clock) -> Session:
    """A session of eight events, ten seconds apart."""
    uses: list[Callable[[], object]] = [
        lambda: session.add_message("user", "one", message_id="m-1"),
        lambda: session.collect(n=1, gone=True),
        lambda: session.enter_route("booking"),
        lambda: session.collect(n={"x": 1}),
        lambda: session.discard("gone"),
        lambda: session.edit_message("m-1", "one, edited"),
        session.complete,
    ]
    for use in uses:
        clock.advance(10)
        use()
    return session


def test_at_a_version(told: Session) -> None:
    """The state right after each version; version 0 is the empty stream."""
    assert [told.at(version).version for version in range(9)] == list(range(9))
    assert told.at(0).created_at is None
    assert told.at(3).data == {"n": 1, "gone": True}
    assert told.at(3).data_by_route == {}
    assert told.at(5).data_by_route == {"booking": {"n": {"x": 1}}}
    assert (told.at(7).status, told.at(8).status) == ("active", "completed")
    assert told.at(8) == told.state


def test_at_a_time(told: Session, clock: Clock) -> None:
    """The state of the last event recorded at or before that time; before the first there was nothing."""
    end = clock.now
    assert told.at(time=end).version == 8
    assert told.at(time=end - timedelta(seconds=1)).version == 7
    assert told.at(time=end - timedelta(seconds=70)).version == 1
    assert told.at(time=end - timedelta(seconds=71)).version == 0
    assert told.at(time=end + timedelta(days=1)).version == 8


def test_history_and_routes_at_a_moment(told: Session, clock: Clock) -> None:
    """What a past moment's messages were, in their wording then; routes, steps and runs likewise."""
    assert told.history(at=1) == []
    assert [message.content for message in told.history(at=2)] == ["one"]
    assert [message.content for message in told.history(at=7)] == ["one, edited"]
    assert [message.content for message in told.history(at=clock.now - timedelta(seconds=15))] == ["one"]
    assert told.routes(at=3) == []
    assert [visit.route for visit in told.routes(at=4)] == ["booking"]
    assert (told.history(at=0), told.steps(at=0), told.runs(at=0)) == ([], [], [])


@pytest.mark.parametrize("back", [1, 3600])
def test_recorded_at_never_decreases(store: ConversationStore, session: Session, clock: Clock, back: int) -> None:
    """A clock that goes back does not turn a stream's order around, for any handle; a time finds the last of equals."""
    clock.advance(10)
    session.collect(n=1)
    latest = clock.now
    clock.advance(-back)
    store.get("s-1").collect(n=2)
    with session.turn():
        session.collect(n=3)
        session.complete()
    times = [event.recorded_at for event in session.events()]
    assert times == [*times[:1], latest, latest, latest, latest]
    assert session.at(time=latest).version == 5
    assert session.at(time=latest - timedelta(microseconds=1)).version == 1
    assert session.state.updated_at == session.state.completed_at == latest
    assert store.verify().ok


def test_other_sessions_have_their_own_time(store: ConversationStore, session: Session, clock: Clock) -> None:
    """Time does not go back within a session; another session tells the clock's own."""
    clock.advance(100)
    session.collect(n=1)
    clock.advance(-50)
    assert store.session("s-2").state.created_at == clock.now


def test_occurred_at_is_another_matter(session: Session, clock: Clock) -> None:
    """When something happened may be any time; the order of the log and ``at`` go by when it was recorded."""
    past, future = clock.now - timedelta(days=365), clock.now + timedelta(days=365)
    session.add_message("user", "late", occurred_at=future)
    session.add_message("user", "early", occurred_at=past)
    assert [message.content for message in session.history()] == ["late", "early"]
    assert [message.occurred_at for message in session.history()] == [future, past]
    assert session.at(time=clock.now).message_count == 2
    assert session.at(time=past).version == 0


def test_replay_shows_what_each_event_changed(told: Session) -> None:
    """Every event with the state before and after it, from nothing to now."""
    steps = list(told.replay())
    assert [step.event.version for step in steps] == list(range(1, 9))
    assert steps[0].before.version == 0
    assert all(step.after == told.at(step.event.version) for step in steps)
    assert all(one.after == next_.before for one, next_ in pairwise(steps))
    assert steps[-1].after == told.state
    assert isinstance(steps[1].event.event, events.MessageAdded)


def test_events_of_a_session(told: Session) -> None:
    """All, those after a version, the last n, or both; every one says its place, its times and its hash."""
    everything = list(told.events())
    assert [event.version for event in everything] == list(range(1, 9))
    assert [event.version for event in told.events(after=6)] == [7, 8]
    assert [event.version for event in told.events(last=3)] == [6, 7, 8]
    assert [event.version for event in told.events(after=7, last=3)] == [8]
    assert list(told.events(after=8)) == list(told.events(after=99)) == []
    assert len({event.event_id for event in everything} | {event.hash for event in everything}) == 16
    assert {event.session_id for event in everything} == {"s-1"}


def test_differences(told: Session) -> None:
    """What was added, removed and changed between two versions, by dotted path; the other way round too."""
    there = {change.path: change for change in told.diff(3, 8).changes}
    assert {path: change.kind for path, change in there.items()} == {
        "status": "changed",
        "data.n": "changed",
        "data.gone": "removed",
        "data_by_route.booking": "added",
        "current_route": "changed",
        "route_count": "changed",
        "completed_at": "changed",
    }
    assert (there["data.n"].before, there["data.n"].after) == (1, {"x": 1})
    back = {change.path: change for change in told.diff(8, 3).changes}
    assert {path: (change.after, change.before) for path, change in back.items()} == {
        path: (change.before, change.after) for path, change in there.items()
    }
    assert told.diff(5, 5).changes == ()
    diff = told.diff(0, 1)
    assert (diff.session_id, diff.from_version, diff.to_version) == ("s-1", 0, 1)
    assert {"user_id", "created_at"} <= {change.path for change in diff.changes}


def test_a_version_that_does_not_exist_is_refused_with_what_there_is(told: Session) -> None:
    """The refusal says which versions there are."""
    uses: list[Callable[[], object]] = [
        lambda: told.at(9),
        lambda: told.history(at=9),
        lambda: told.fork(at=9),
        lambda: told.diff(1, 9),
    ]
    for use in uses:
        with pytest.raises(InvalidInput, match="from 0 to 8"):
            use()
    with pytest.raises(InvalidInput, match="either a version or a time"):
        told.at()


def test_the_past_is_what_it_is_also_with_snapshots_in_between(sqlite_url: str) -> None:
    """Any version of a session of several snapshots is the fold of its first n events."""
    with turnlog.open(sqlite_url, durability="normal") as store:
        session = store.session("s-1")
        for n in range(350):
            session.collect({f"k{n % 7}": n})
    with turnlog.open(sqlite_url) as store:
        session = store.get("s-1")
        steps = {step.event.version: step.after for step in session.replay()}
        for version in (1, 99, 100, 101, 200, 299, 300, 350, 351):
            assert session.at(version) == steps[version]


_many = st.lists(st.sampled_from(["message", "collect", "route", "step", "pause", "complete", "reopen"]), max_size=12)


@given(said=_many, ticks=st.lists(st.integers(-3, 3), min_size=12, max_size=12))
@settings(max_examples=25)
def test_every_past_state_is_the_one_that_was_seen(said: list[str], ticks: list[int]) -> None:
    """What ``at`` says of a version and of a time is what the handle said then."""
    clock = Clock()
    uses: dict[str, Callable[[Session, int], object]] = {
        "message": lambda s, n: s.add_message("user", f"{n}"),
        "collect": lambda s, n: s.collect(n=n),
        "route": lambda s, n: s.enter_route(f"route-{n % 2}"),
        "step": lambda s, n: s.enter_step(f"step-{n % 2}"),
        "pause": lambda s, _: s.pause(),
        "complete": lambda s, _: s.complete(),
        "reopen": lambda s, _: s.reopen(),
    }
    with turnlog.open("memory://", clock=clock) as store:
        session = store.session("s-1")
        seen = {session.version: session.state}
        for n, (name, tick) in enumerate(zip(said, ticks, strict=False)):
            clock.advance(tick)
            try:
                uses[name](session, n)
            except turnlog.SessionClosed:
                continue
            seen[session.version] = session.state
        for version, state in seen.items():
            assert session.at(version) == state
            assert state.updated_at is not None
            last = max(other for other, then in seen.items() if then.updated_at == state.updated_at)
            assert session.at(time=state.updated_at) == seen[last]
