"""Every command in every status: what it does, and where the status forbids it."""

from typing import NamedTuple, get_args

import pytest

from turnlog.domain import commands as c
from turnlog.domain import events as e
from turnlog.domain.commands import NOTHING, Command, Found, FoundCall, FoundMessage, FoundRun
from turnlog.domain.errors import SessionClosed, SessionGone, SessionNotFound
from turnlog.domain.events import Erased, Event, SessionDeleted
from turnlog.testing.scenario import Given, at, given, play, started

OPEN = ("active", "paused")
CLOSED = ("completed", "abandoned", "failed", "expired", "archived")
MESSAGE = e.MessageAdded(message_id="m1", role="user", content="hello")
FOUND_MESSAGE = Found(message=FoundMessage("m1", "hello"))
REPLACEMENT = e.ReplacementMessage(message_id="m2", role="user", content="other")

LIFE = (
    MESSAGE,
    e.DataCollected(values={"name": "Ada"}),
    e.ContextSet(values={"tone": "kind"}),
    e.MetadataSet(values={"channel": "web"}),
    e.RouteEntered(route="booking"),
    e.StepEntered(step="party"),
    e.TransitionPlanned(route="goodbye"),
    e.ToolCalled(call_id="c1", name="search", arguments={}),
    e.RunStarted(run_id="r1"),
)
"""A session in which every command finds something to change."""


class Case(NamedTuple):
    """A command, what the store finds for it, and the event it causes on the session above."""

    command: Command
    found: Found
    event: Event | None


CASES = (
    Case(c.StartSession(user_id="alice", data={"x": 1}), NOTHING, None),
    Case(
        c.AddMessage("m2", "assistant", "hi"),
        NOTHING,
        e.MessageAdded(message_id="m2", role="assistant", content="hi", route="booking", step="party"),
    ),
    Case(c.EditMessage("m1", "hi"), FOUND_MESSAGE, e.MessageEdited(message_id="m1", content="hi")),
    Case(c.RemoveMessage("m1"), FOUND_MESSAGE, e.MessageRemoved(message_id="m1")),
    Case(c.PopMessage(), FOUND_MESSAGE, e.MessageRemoved(message_id="m1")),
    Case(c.ClearHistory(), NOTHING, e.HistoryCleared()),
    Case(c.SetHistory((REPLACEMENT,)), NOTHING, e.HistoryReplaced(messages=(REPLACEMENT,))),
    Case(c.CompactHistory("m2", "so far", 0), NOTHING, e.HistoryCompacted(message_id="m2", summary="so far", kept=0)),
    Case(c.Collect({"name": "Bea"}), NOTHING, e.DataCollected(values={"name": "Bea"})),
    Case(c.Discard(("name",)), NOTHING, e.DataCollected(removed=("name",))),
    Case(c.ClearData(), NOTHING, e.DataCleared()),
    Case(c.SetContext({"tone": "dry"}), NOTHING, e.ContextSet(values={"tone": "dry"})),
    Case(c.SetMetadata({"channel": "mail"}), NOTHING, e.MetadataSet(values={"channel": "mail"})),
    Case(
        c.EnterRoute("goodbye", "Goodbye", "done"),
        NOTHING,
        e.RouteEntered(route="goodbye", title="Goodbye", reason="done"),
    ),
    Case(c.ExitRoute(completed=True), NOTHING, e.RouteExited(route="booking", completed=True)),
    Case(c.EnterStep("time", "When?"), NOTHING, e.StepEntered(step="time", description="When?")),
    Case(
        c.PlanTransition("other", "if asked", "why"),
        NOTHING,
        e.TransitionPlanned(route="other", condition="if asked", reason="why"),
    ),
    Case(c.CancelTransition(), NOTHING, e.TransitionCancelled()),
    Case(c.CallTool("c2", "book", {"n": 2}), NOTHING, e.ToolCalled(call_id="c2", name="book", arguments={"n": 2})),
    Case(
        c.ReturnTool("c1", ["table 4"], None, "late"),
        Found(call=FoundCall("search")),
        e.ToolReturned(call_id="c1", name="search", content=["table 4"], error="late"),
    ),
    Case(c.StartRun("r2", {"model": "m"}), NOTHING, e.RunStarted(run_id="r2", details={"model": "m"})),
    Case(
        c.FinishRun("r1", "failed", {"n": 1}, "timeout", {"tokens": 3}),
        Found(run=FoundRun({})),
        e.RunFinished(run_id="r1", status="failed", result={"n": 1}, error="timeout", usage={"tokens": 3}),
    ),
    Case(c.AssignOwner("bob"), NOTHING, e.OwnerAssigned(user_id="bob")),
    Case(c.DeleteSession(), NOTHING, e.SessionDeleted()),
)
STATUS_CASE = Case(c.SetStatus("failed", "crash"), NOTHING, e.StatusChanged(status="failed", reason="crash"))
EVERY = (*CASES, STATUS_CASE)

ALLOWED_WHEN_CLOSED = {
    "StartSession",
    "EditMessage",
    "RemoveMessage",
    "PopMessage",
    "SetMetadata",
    "ReturnTool",
    "FinishRun",
    "SetStatus",
    "AssignOwner",
    "DeleteSession",
}

every_case = pytest.mark.parametrize("case", EVERY, ids=lambda case: type(case.command).__name__)
every_case_but_status = pytest.mark.parametrize("case", CASES, ids=lambda case: type(case.command).__name__)


def session(status: str) -> Given:
    """Return the session above in this status."""
    return started(*LIFE) if status == "active" else started(*LIFE, e.StatusChanged(status=status))


def test_every_command_has_a_case() -> None:
    """No command is left out of these tables."""
    assert {type(case.command) for case in EVERY} == set(get_args(Command))


@every_case
def test_on_an_active_session_every_command_does_its_work(case: Case) -> None:
    """While active, each command gives its one event with all it was told."""
    session("active").when(case.command, case.found).then(*([case.event] if case.event else []))


@every_case
def test_on_a_paused_session_only_a_message_wakes_it(case: Case) -> None:
    """A message makes a paused session active by an event of its own; any other command leaves it paused."""
    expected = [case.event] if case.event else []
    is_message = isinstance(case.command, c.AddMessage)
    if is_message:
        expected.insert(0, e.StatusChanged(status="active"))
    after = session("paused").when(case.command, case.found).then(*expected)
    if is_message:
        assert (after.status, after.message_count) == ("active", 2)
    elif not isinstance(case.command, c.SetStatus):
        assert after.status == "paused"


@pytest.mark.parametrize("status", CLOSED)
@every_case_but_status
def test_on_a_closed_session_only_what_tidies_up_is_allowed(case: Case, status: str) -> None:
    """Closed: the named ten commands work as before and keep it closed, the others are SessionClosed, saying why."""
    outcome = session(status).when(case.command, case.found)
    name = type(case.command).__name__
    if name in ALLOWED_WHEN_CLOSED:
        assert outcome.then(*([case.event] if case.event else [])).status == status
    else:
        outcome.refused(SessionClosed, "'s-1'", status, name)


@pytest.mark.parametrize("status", CLOSED)
@pytest.mark.parametrize("command", [c.Collect({"name": "Ada"}), c.EnterRoute("booking"), c.EnterStep("party")])
def test_on_a_closed_session_even_what_would_change_nothing_is_refused(status: str, command: Command) -> None:
    """Whether a closed session takes a command does not hang on the values in it."""
    session(status).when(command).refused(SessionClosed, status)


@every_case
def test_on_a_deleted_session_everything_is_refused(case: Case) -> None:
    """Deleted means SessionGone in every call, for ever."""
    started(*LIFE, e.SessionDeleted()).when(case.command, case.found).refused(SessionGone, "'s-1'")


@every_case
def test_on_an_erased_stream_everything_is_refused(case: Case) -> None:
    """A deleted session is known as such from its stream alone, although the tombstone's content is gone as well."""
    stream = (Erased("SessionStarted.v1"), Erased("MessageAdded.v1"), SessionDeleted())
    given(*stream).when(case.command, case.found).refused(SessionGone, "'s-1'")


@every_case
def test_a_session_that_was_never_started_is_not_found(case: Case) -> None:
    """Before version 1 only starting is possible."""
    outcome = given().when(case.command, case.found)
    if isinstance(case.command, c.StartSession):
        outcome.then(e.SessionStarted(user_id="alice", data={"x": 1}))
    else:
        outcome.refused(SessionNotFound, "'s-1'")


@pytest.mark.parametrize("before", OPEN + CLOSED)
@pytest.mark.parametrize("after", OPEN + CLOSED)
def test_any_status_may_follow_any_other(before: str, after: str) -> None:
    """Every change of status is allowed and recorded with its reason; the present status again is no event."""
    outcome = session(before).when(c.SetStatus(after, "why"))
    state = outcome.then(*([] if before == after else [e.StatusChanged(status=after, reason="why")]))
    assert state.status == after
    assert (state.completed_at is not None) == (after == "completed")


def test_completed_at_is_set_only_while_completed() -> None:
    """It is the time of the completion, is gone after reopening, and is the new time when completed again."""
    completed = session("completed").state
    assert completed.completed_at == at(completed.version)
    assert play(completed, e.StatusChanged(status="archived")).completed_at is None
    reopened = play(completed, e.StatusChanged(status="active"))
    assert reopened.completed_at is None
    again = play(reopened, e.StatusChanged(status="completed"))
    assert again.completed_at == at(again.version)


def test_completed_at_outlives_what_is_allowed_on_a_completed_session() -> None:
    """Editing, removing, returning, renaming the owner: none of it moves the time of completion."""
    completed = session("completed").state
    later = play(completed, e.MessageRemoved(message_id="m1"), e.OwnerAssigned(user_id="bob"))
    assert later.completed_at == completed.completed_at
    assert later.updated_at == at(later.version)
