"""Routes, steps, planned transitions, tool calls and runs."""

import pytest

from turnlog.domain import commands as c
from turnlog.domain import events as e
from turnlog.domain.commands import Found, FoundCall, FoundRun
from turnlog.domain.errors import RuleViolation
from turnlog.domain.session import ROUTE_HISTORY
from turnlog.domain.values import RouteVisit, Transition
from turnlog.testing.scenario import at, started, state_of

ON_A = e.RouteEntered(route="a")
ON_B = e.RouteEntered(route="b")
ON_STEP = e.StepEntered(step="one")


def test_entering_a_route_opens_a_visit() -> None:
    """The visit has its title and its time, and no end yet."""
    after = (
        started()
        .when(c.EnterRoute("a", "Route A", "asked"))
        .then(e.RouteEntered(route="a", title="Route A", reason="asked"))
    )
    assert (after.current_route, after.current_step, after.route_count) == ("a", None, 1)
    assert after.route_history == (RouteVisit(route="a", title="Route A", entered_at=at(2)),)


def test_entering_another_route_ends_the_open_visit_and_clears_the_step() -> None:
    """One event does it: the visit before ends at the same time, not completed, and the step is gone."""
    after = started(ON_A, ON_STEP).when(c.EnterRoute("b")).then(ON_B)
    assert (after.current_route, after.current_step) == ("b", None)
    assert after.route_history == (
        RouteVisit(route="a", entered_at=at(2), exited_at=at(4)),
        RouteVisit(route="b", entered_at=at(4)),
    )


def test_entering_the_current_route_again_is_no_event() -> None:
    """The route is where it is, also under another title; the step stays."""
    session = started(ON_A, ON_STEP)
    session.when(c.EnterRoute("a")).nothing()
    session.when(c.EnterRoute("a", "A new title", "again")).nothing()


@pytest.mark.parametrize("between", [[e.RouteExited(route="a")], [ON_B]])
def test_entering_a_route_again_after_leaving_adds_a_visit(between: list[e.Event]) -> None:
    """Each stay is a visit of its own."""
    after = started(ON_A, *between).when(c.EnterRoute("a")).then(ON_A)
    assert [visit.route for visit in after.route_history].count("a") == 2
    assert [visit.exited_at is None for visit in after.route_history][-2:] == [False, True]


@pytest.mark.parametrize("completed", [True, False])
def test_leaving_a_route_ends_its_visit(completed: bool) -> None:
    """The visit says when it ended and whether it was completed; route and step are gone."""
    after = started(ON_A, ON_STEP).when(c.ExitRoute(completed)).then(e.RouteExited(route="a", completed=completed))
    assert (after.current_route, after.current_step, after.route_count) == (None, None, 1)
    assert after.route_history == (RouteVisit(route="a", entered_at=at(2), exited_at=at(4), completed=completed),)


def test_a_visit_that_ended_stays_as_it_was() -> None:
    """A later route does not end it a second time."""
    after = state_of(e.SessionStarted(), ON_A, e.RouteExited(route="a", completed=True), ON_B)
    assert after.route_history == (
        RouteVisit(route="a", entered_at=at(2), exited_at=at(3), completed=True),
        RouteVisit(route="b", entered_at=at(4)),
    )


def test_leaving_no_route_is_no_event() -> None:
    """Outside of routes there is nothing to leave."""
    started().when(c.ExitRoute()).nothing()
    started(ON_A, e.RouteExited(route="a")).when(c.ExitRoute(completed=True)).nothing()


def test_a_thousand_visits_are_kept_and_all_are_counted() -> None:
    """The history of routes is bounded; the count is not, and the open visit is always among those kept."""
    visits = [e.RouteEntered(route=f"r{n}") for n in range(ROUTE_HISTORY + 5)]
    after = started(*visits).when(c.EnterRoute("last")).then(e.RouteEntered(route="last"))
    assert (len(after.route_history), after.route_count) == (1_000, 1_006)
    assert [visit.route for visit in (after.route_history[0], after.route_history[-1])] == ["r6", "last"]
    assert [visit.exited_at is None for visit in after.route_history].count(True) == 1
    left = started(*visits).when(c.ExitRoute()).then(e.RouteExited(route="r1004"))
    assert all(visit.exited_at for visit in left.route_history)


def test_a_step_is_entered_once() -> None:
    """The current step again is no event, also with another description; another one is."""
    session = started(ON_A, ON_STEP)
    session.when(c.EnterStep("one", "other words")).nothing()
    after = session.when(c.EnterStep("two", "Second")).then(e.StepEntered(step="two", description="Second"))
    assert (after.current_route, after.current_step) == ("a", "two")


def test_a_step_needs_no_route() -> None:
    """Conversations without routes have steps as well."""
    assert started().when(c.EnterStep("one")).then(ON_STEP).current_step == "one"


def test_the_same_step_on_another_route_is_entered_anew() -> None:
    """Entering a route clears the step, so its name is free again."""
    started(ON_A, ON_STEP, ON_B).when(c.EnterStep("one")).then(ON_STEP)


def test_a_planned_transition_is_pending_until_taken() -> None:
    """Entering its route takes it; entering another one does not."""
    session = started(ON_A).when(c.PlanTransition("b", "if paid", "next"))
    after = session.then(e.TransitionPlanned(route="b", condition="if paid", reason="next"))
    assert after.pending_transition == Transition(route="b", condition="if paid", reason="next")
    planned = e.TransitionPlanned(route="b")
    assert started(planned).when(c.EnterRoute("b")).then(ON_B).pending_transition is None
    assert started(planned).when(c.EnterRoute("a")).then(ON_A).pending_transition == Transition(route="b")


def test_planning_the_same_again_is_no_event_and_another_replaces_it() -> None:
    """There is one pending transition; every field of it counts."""
    session = started(e.TransitionPlanned(route="b", condition="if paid"))
    session.when(c.PlanTransition("b", "if paid")).nothing()
    for other in (c.PlanTransition("b"), c.PlanTransition("b", "if paid", "why"), c.PlanTransition("a", "if paid")):
        event = e.TransitionPlanned(route=other.route, condition=other.condition, reason=other.reason)
        after = session.when(other).then(event)
        assert after.pending_transition == Transition(route=other.route, condition=other.condition, reason=other.reason)


def test_cancelling_without_a_plan_is_no_event() -> None:
    """Only a pending transition can be cancelled."""
    started().when(c.CancelTransition()).nothing()
    planned = e.TransitionPlanned(route="b")
    assert started(planned).when(c.CancelTransition()).then(e.TransitionCancelled()).pending_transition is None
    started(planned, ON_B).when(c.CancelTransition()).nothing()


def test_leaving_a_route_keeps_the_plan() -> None:
    """A plan is for what comes next, so leaving the present route does not drop it."""
    planned = e.TransitionPlanned(route="b")
    after = started(ON_A, planned).when(c.ExitRoute()).then(e.RouteExited(route="a"))
    assert after.pending_transition == Transition(route="b")


def test_calls_are_counted_and_returns_are_not() -> None:
    """``tool_call_count`` counts calls; ids are not unique, so the same call twice is two calls."""
    call = e.ToolCalled(call_id="c1", name="search", arguments={"q": "x"})
    session = started(call, e.ToolReturned(call_id="c1", name="search", content="y"))
    after = session.when(c.CallTool("c1", "search", {"q": "x"})).then(call)
    assert (after.tool_call_count, after.message_count) == (2, 0)


def test_a_return_takes_the_name_of_its_call_unless_it_gives_one() -> None:
    """Who returns need not say again what was called; a result may come more than once."""
    session, found = started(), Found(call=FoundCall("search"))
    session.when(c.ReturnTool("c1", None), found).then(e.ToolReturned(call_id="c1", name="search", content=None))
    session.when(c.ReturnTool("c1", "", "find"), found).then(e.ToolReturned(call_id="c1", name="find", content=""))


def test_a_run_is_started_once() -> None:
    """The same start again is no event, also when the run has finished; other details are refused."""
    running, over = Found(run=FoundRun({"k": 1})), Found(run=FoundRun({"k": 1}, c.FinishRun("r1", "completed")))
    for found in (running, over):
        started().when(c.StartRun("r1", {"k": 1}), found).nothing()
        started().when(c.StartRun("r1", {}), found).refused(RuleViolation, "'r1'", "other details")


FIRST = c.FinishRun("r1", "failed", {"a": 1, "b": 2}, "boom", {"tokens": 1})


def test_a_run_finishes_once() -> None:
    """The same end again is no event; any other end is refused, saying how it ended."""
    finished = Found(run=FoundRun({}, FIRST))
    again = c.FinishRun("r1", "failed", {"b": 2, "a": 1}, "boom", {"tokens": 1})
    started().when(again, finished).nothing()
    for other in (
        c.FinishRun("r1", "completed", FIRST.result, FIRST.error, FIRST.usage),
        c.FinishRun("r1", "failed", None, FIRST.error, FIRST.usage),
        c.FinishRun("r1", "failed", FIRST.result, None, FIRST.usage),
        c.FinishRun("r1", "failed", FIRST.result, FIRST.error, {"tokens": 2}),
        c.FinishRun("r1", "failed", FIRST.result, FIRST.error, None),
    ):
        started().when(other, finished).refused(RuleViolation, "'r1'", "failed")
