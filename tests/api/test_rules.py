"""What is allowed when, through the public calls: every command on every kind of session."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TypeAlias

import pytest

from turnlog import ConversationStore, Message, Receipt, RuleViolation, Session, SessionClosed, SessionGone
from turnlog.testing import Clock

Call: TypeAlias = Callable[[Session], object]
Write: TypeAlias = Callable[[Session], Receipt]

CHANGING: Mapping[str, Write] = {
    "add_message": lambda s: s.add_message("user", "hi"),
    "add_messages": lambda s: s.add_messages([{"role": "user", "content": "hi"}]),
    "clear_history": lambda s: s.clear_history(),
    "set_history": lambda s: s.set_history([{"role": "user", "content": "hi"}]),
    "compact_history": lambda s: s.compact_history("all", 0),
    "collect": lambda s: s.collect(n=2),
    "discard": lambda s: s.discard("n"),
    "clear_data": lambda s: s.clear_data(),
    "set_context": lambda s: s.set_context({"c": 2}),
    "enter_route": lambda s: s.enter_route("support"),
    "exit_route": lambda s: s.exit_route(),
    "enter_step": lambda s: s.enter_step("size"),
    "plan_transition": lambda s: s.plan_transition("support"),
    "cancel_transition": lambda s: s.cancel_transition(),
    "call_tool": lambda s: s.call_tool("find", {}),
    "start_run": lambda s: s.start_run("r-2"),
}
ALSO_WHEN_CLOSED: Mapping[str, Call] = {
    "edit_message": lambda s: s.edit_message("m-1", "edited"),
    "remove_message": lambda s: s.remove_message("m-1"),
    "pop_message": lambda s: s.pop_message(),
    "set_metadata": lambda s: s.set_metadata({"m": 2}),
    "return_tool": lambda s: s.return_tool("c-1", "found"),
    "finish_run": lambda s: s.finish_run("r-1", status="completed"),
    "set_status": lambda s: s.set_status("archived" if s.status != "archived" else "failed"),
    "reopen": lambda s: s.reopen(),
    "assign_owner": lambda s: s.assign_owner("bob"),
    "fork": lambda s: s.fork(),
    "reset": lambda s: s.reset(),
    "delete": lambda s: s.delete(),
}
WRITING: Mapping[str, Call] = {**CHANGING, **ALSO_WHEN_CLOSED}
READING: Mapping[str, Call] = {
    "refresh": lambda s: s.refresh(),
    "history": lambda s: s.history(),
    "history of all": lambda s: s.history(include_removed=True),
    "message": lambda s: s.message("m-1"),
    "routes": lambda s: s.routes(),
    "steps": lambda s: s.steps(),
    "runs": lambda s: s.runs(),
    "at": lambda s: s.at(1),
    "events": lambda s: list(s.events()),
    "replay": lambda s: list(s.replay()),
    "diff": lambda s: s.diff(1, 2),
}
CLOSING: tuple[Write, ...] = (Session.complete, Session.abandon, Session.fail, Session.expire, Session.archive)
NOTHING: Mapping[str, Write] = {
    "collect the same": lambda s: s.collect(n=1),
    "collect nothing": lambda s: s.collect(),
    "discard what is not there": lambda s: s.discard("nothing"),
    "context as it is": lambda s: s.set_context({"c": 1}, unset=["nothing"]),
    "metadata as it is": lambda s: s.set_metadata({"m": 1}),
    "the current route": lambda s: s.enter_route("booking"),
    "the current step": lambda s: s.enter_step("date"),
    "the transition that is planned": lambda s: s.plan_transition("goodbye", reason="done"),
    "the status it has": lambda s: s.set_status("active"),
    "reopen an open one": lambda s: s.reopen(),
    "the owner it has": lambda s: s.assign_owner("alice"),
    "the wording it has": lambda s: s.edit_message("m-1", "hello"),
    "keep all": lambda s: s.compact_history("all", 5),
    "the run that runs": lambda s: s.start_run("r-1", model="m"),
    "no messages": lambda s: s.add_messages([]),
}


@pytest.fixture
def busy(session: Session) -> Session:
    """A session in which there is something of everything."""
    session.add_message("user", "hello", message_id="m-1")
    session.collect(n=1)
    session.set_context({"c": 1})
    session.set_metadata({"m": 1})
    session.enter_route("booking")
    session.enter_step("date")
    session.plan_transition("goodbye", reason="done")
    session.call_tool("find", {}, call_id="c-1")
    session.start_run("r-1", model="m")
    return session


@pytest.mark.parametrize("name", WRITING)
def test_every_command_works_on_an_open_session(busy: Session, name: str) -> None:
    """What changes something gives an event, and the receipt tells of it."""
    if name == "reopen":
        busy.pause()
    before = busy.version
    result = WRITING[name](busy)
    if isinstance(result, Receipt):
        assert result.version == busy.version == before + 1
        assert len(result.event_ids) == 1
    if name not in ("fork", "delete"):
        assert busy.version == before + 1


@pytest.mark.parametrize("close", CLOSING)
@pytest.mark.parametrize("name", CHANGING)
def test_a_closed_session_refuses_what_goes_on(busy: Session, close: Write, name: str) -> None:
    """On a session of any closed status a command that goes on with it is refused, and changes nothing."""
    close(busy)
    version = busy.version
    with pytest.raises(SessionClosed):
        CHANGING[name](busy)
    assert busy.refresh().version == version


@pytest.mark.parametrize("name", ALSO_WHEN_CLOSED)
def test_a_closed_session_allows_what_tidies_up(busy: Session, name: str) -> None:
    """Status, owner, metadata, edits, late results, fork, reset and deletion go on after the end."""
    busy.complete()
    version = busy.version
    ALSO_WHEN_CLOSED[name](busy)
    if name not in ("fork", "delete"):
        assert busy.refresh().version == version + 1


@pytest.mark.parametrize("name", [*WRITING, *READING])
def test_a_deleted_session_is_gone_in_every_call(store: ConversationStore, busy: Session, name: str) -> None:
    """Every call says so, on the handle that deleted it, on one that did not know, and inside a turn."""
    other = store.get("s-1")
    waiting = other.turn()
    busy.delete()
    use = WRITING[name] if name in WRITING else READING[name]
    for handle in (busy, other):
        for _ in range(2):
            with pytest.raises(SessionGone):
                use(handle)
    if name not in ("delete", "reset", "fork"):
        with pytest.raises(SessionGone), waiting:
            use(other)


@pytest.mark.parametrize("name", NOTHING)
def test_what_changes_nothing_gives_no_event(store: ConversationStore, busy: Session, name: str) -> None:
    """No event, and a receipt of what is there."""
    position = store.position
    (last,) = busy.events(last=1)
    receipt = NOTHING[name](busy)
    assert store.position == position
    assert receipt.event_ids == ()
    assert (receipt.version, receipt.position, receipt.hash) == (last.version, last.position, last.hash)
    assert receipt.recorded_at == last.recorded_at


TAKING_AWAY: Mapping[str, Write] = {
    "clear_history": lambda s: s.clear_history(),
    "clear_data": lambda s: s.clear_data(),
    "exit_route": lambda s: s.exit_route(),
    "cancel_transition": lambda s: s.cancel_transition(),
    "set_history": lambda s: s.set_history([]),
    "compact_history": lambda s: s.compact_history("all", 0),
}


@pytest.mark.parametrize("name", TAKING_AWAY)
def test_taking_away_nothing_changes_nothing(session: Session, name: str) -> None:
    """On a session with nothing in it there is nothing to clear, leave, cancel or compact."""
    receipt = TAKING_AWAY[name](session)
    assert session.version == 1
    assert receipt.event_ids == ()


def test_there_is_nothing_to_pop(session: Session) -> None:
    """On a session without messages a pop gives None and changes nothing."""
    assert session.pop_message() is None
    assert session.version == 1


def test_receipts_say_where_the_write_stands(store: ConversationStore, session: Session, clock: Clock) -> None:
    """Version, position, event ids, time, durability and hash are those of the last event written."""
    clock.advance(5)
    receipt = session.add_message("user", "hi")
    (event,) = session.events(last=1)
    assert receipt.session_id == "s-1"
    assert (receipt.version, receipt.position, receipt.event_ids) == (event.version, event.position, (event.event_id,))
    assert (receipt.recorded_at, receipt.hash) == (event.recorded_at, event.hash)
    assert receipt.recorded_at == clock.now
    assert receipt.message_id == session.history()[0].message_id
    assert receipt.durability == store.stats().durability
    assert {head.session_id: head.hash for head in store.heads()} == {"s-1": receipt.hash}


def test_a_message_wakes_a_paused_session(session: Session) -> None:
    """It becomes active again by an event of its own, in the same append as the message."""
    session.pause(reason="waiting")
    receipt = session.add_message("user", "back")
    assert session.status == "active"
    assert len(receipt.event_ids) == 2
    assert [event.topic for event in session.events(last=2)] == ["StatusChanged.v1", "MessageAdded.v1"]


def test_other_commands_leave_a_paused_session_paused(busy: Session) -> None:
    """Only a message wakes it."""
    busy.pause()
    for name, use in CHANGING.items():
        if name not in ("add_message", "add_messages"):
            use(busy)
            assert busy.status == "paused", name


def test_completed_at_is_set_while_completed(session: Session, clock: Clock) -> None:
    """It comes with the status and goes with it."""
    session.complete()
    assert session.state.completed_at == clock.now
    session.archive()
    assert session.state.completed_at is None
    session.set_status("completed")
    session.reopen()
    assert session.state.completed_at is None


def test_message_count_is_that_of_visible_messages(session: Session) -> None:
    """Removing, clearing and compacting are counted; tool calls and returns are no messages."""
    session.add_messages([{"role": "user", "content": f"{n}", "message_id": f"m-{n}"} for n in range(6)])
    session.call_tool("find", {}, call_id="c-1")
    session.return_tool("c-1", "found")
    assert (session.state.message_count, session.state.tool_call_count) == (6, 1)
    session.remove_message("m-3")
    session.edit_message("m-4", "edited")
    assert session.state.message_count == 5
    session.compact_history("so far", keep_last=2)
    assert [message.content for message in session.history()] == ["so far", "edited", "5"]
    assert session.state.message_count == 3
    session.clear_history()
    assert (session.state.message_count, session.history()) == (0, [])


def test_data_belongs_to_the_route_it_was_collected_on(session: Session) -> None:
    """Data collected before any route is in ``data`` only; discarding discards it everywhere."""
    session.collect(name="Alice", n=1)
    session.enter_route("booking")
    session.collect(n=2, date="today")
    session.enter_route("support")
    session.collect(date="tomorrow", issue="cold")
    state = session.state
    assert state.data == {"name": "Alice", "n": 2, "date": "tomorrow", "issue": "cold"}
    assert state.data_by_route == {
        "booking": {"n": 2, "date": "today"},
        "support": {"date": "tomorrow", "issue": "cold"},
    }
    session.discard("date", "n", "nothing")
    assert session.state.data_by_route == {"support": {"issue": "cold"}}
    assert session.data == {"name": "Alice", "issue": "cold"}
    session.clear_data()
    assert (session.data, session.state.data_by_route) == ({}, {})


def test_null_stays_and_unset_removes(session: Session) -> None:
    """A key of context or metadata set to null stays null; ``unset`` takes it away, setting wins over it."""
    session.set_context({"a": None, "b": 1})
    session.set_metadata({"a": None, "b": 1})
    assert (session.state.context, session.state.metadata) == ({"a": None, "b": 1},) * 2
    session.set_context({"b": 2}, unset=["a", "b"])
    session.set_metadata(unset=["a", "b"])
    assert (session.state.context, session.state.metadata) == ({"b": 2}, {})


def test_routes_and_steps(session: Session, clock: Clock) -> None:
    """Entering a route ends the visit before it and clears the step; entering it again adds a visit."""
    times = [clock.now]
    for name in ("booking", "support", "booking"):
        session.enter_route(name, title=name.title())
        session.enter_step(f"{name}-step")
        assert (session.state.current_route, session.state.current_step) == (name, f"{name}-step")
        times.append(clock.advance(1))
    session.exit_route(completed=True)
    assert (session.state.current_route, session.state.current_step) == (None, None)
    visits = session.routes()
    assert [(visit.route, visit.title, visit.completed) for visit in visits] == [
        ("booking", "Booking", False),
        ("support", "Support", False),
        ("booking", "Booking", True),
    ]
    assert [(visit.entered_at, visit.exited_at) for visit in visits] == list(pairwise(times))
    assert session.state.route_history == tuple(visits)
    assert [(step.step, step.route) for step in session.steps()] == [
        ("booking-step", "booking"),
        ("support-step", "support"),
        ("booking-step", "booking"),
    ]


def test_a_planned_transition_is_taken_by_entering_its_route(session: Session) -> None:
    """It stays planned until its route is entered, another is planned, or it is cancelled."""
    session.plan_transition("goodbye", condition="paid", reason="done")
    session.enter_route("booking")
    planned = session.state.pending_transition
    assert planned is not None
    assert (planned.route, planned.condition, planned.reason) == ("goodbye", "paid", "done")
    session.plan_transition("support")
    session.enter_route("support")
    assert session.state.pending_transition is None
    session.plan_transition("booking")
    session.cancel_transition()
    assert session.state.pending_transition is None


def test_a_tool_result_belongs_to_the_latest_call_with_its_id(session: Session) -> None:
    """Call ids may come again; the name is that of the latest earlier call."""
    session.call_tool("find", {"n": 1}, call_id="c-1")
    session.call_tool("book", {"n": 2}, call_id="c-1")
    assert session.return_tool("c-1", {"ok": True}).call_id == "c-1"
    (event,) = session.events(last=1)
    assert getattr(event.event, "name", None) == "book"
    assert session.call_tool("find", None).call_id is not None


def test_runs(session: Session, clock: Clock) -> None:
    """A run runs until it is finished, once; the same end again changes nothing, another is refused."""
    started = clock.now
    run_id = session.start_run(model="m", budget=None).run_id
    assert run_id is not None
    session.start_run("r-2")
    clock.advance(3)

    def fail() -> Receipt:
        return session.finish_run(run_id, status="failed", error="timeout", usage={"tokens": 5})

    assert len(fail().event_ids) == 1
    assert fail().event_ids == ()
    first, second = session.runs()
    assert (first.run_id, first.status, first.error, first.usage) == (run_id, "failed", "timeout", {"tokens": 5})
    assert (first.details, first.started_at, first.finished_at) == ({"model": "m", "budget": None}, started, clock.now)
    assert (second.run_id, second.status, second.finished_at) == ("r-2", "running", None)
    uses: list[Write] = [
        lambda s: s.finish_run(run_id, status="completed"),
        lambda s: s.start_run(run_id, model="other"),
    ]
    for use in uses:
        with pytest.raises(RuleViolation, match=run_id):
            use(session)


def test_pop_returns_what_it_took(session: Session) -> None:
    """The last visible message goes and is given back; with none there, None."""
    session.add_message("user", "one")
    session.add_message("user", "two", message_id="m-2")
    session.edit_message("m-2", "two, edited")
    popped = session.pop_message()
    assert isinstance(popped, Message)
    assert (popped.content, popped.message_id) == ("two, edited", "m-2")
    assert [message.content for message in session.history()] == ["one"]
    assert session.pop_message() is not None
    assert session.pop_message() is None


def test_originals_stay_in_the_log(session: Session) -> None:
    """Edited, removed, replaced and compacted messages can still be read."""
    session.add_message("user", "original", message_id="m-1")
    session.edit_message("m-1", "edited")
    session.remove_message("m-1")
    session.set_history([{"role": "user", "content": "replaced", "message_id": "m-2"}])
    session.compact_history("summary", 0)
    assert session.history(at=2)[0].content == "original"
    assert [message.content for message in session.history()] == ["summary"]
    everything = session.history(include_removed=True)
    assert [message.content for message in everything] == ["edited", "replaced", "summary"]
    assert session.message("m-1") is None


def test_set_history_takes_what_history_gave(session: Session) -> None:
    """Messages may be given back as they came, with their ids and when they occurred."""
    session.enter_route("booking")
    session.add_message("user", "one", message_id="m-1", metadata={"k": 1})
    session.add_message("assistant", "two")
    before = session.history()
    session.set_history(before[1:] + before[:1])
    after = session.history()
    assert [(m.message_id, m.content, m.metadata, m.route, m.occurred_at) for m in after] == [
        (m.message_id, m.content, m.metadata, m.route, m.occurred_at) for m in before[1:] + before[:1]
    ]


def test_write_options_are_kept_with_the_event(session: Session, clock: Clock) -> None:
    """Actor, correlation, causation and the time it occurred come back with the event."""
    occurred = clock.now.replace(year=2020)
    session.collect(
        {"actor": "a value"}, occurred_at=occurred, actor="alice", correlation_id="request-1", causation_id="cause-1"
    )
    (event,) = session.events(last=1)
    assert (event.actor, event.correlation_id, event.causation_id) == ("alice", "request-1", "cause-1")
    assert (event.occurred_at, event.recorded_at) == (occurred, clock.now)
    assert session.data == {"actor": "a value"}
