"""Routes, steps and runs of a session in full, each its own fold over the stream, oldest first."""

from collections.abc import Iterable

from msgspec.structs import replace

from turnlog.domain import events as e
from turnlog.domain.values import RouteVisit, Run, StepVisit
from turnlog.projections.history import Occurrence

ROUTE_TOPICS = frozenset({"RouteEntered.", "RouteExited."})
STEP_TOPICS = ROUTE_TOPICS | {"StepEntered."}
RUN_TOPICS = frozenset({"RunStarted.", "RunFinished."})
CALL_TOPICS = frozenset({"ToolCalled."})


def routes(events: Iterable[Occurrence]) -> list[RouteVisit]:
    """Return every visit to a route; entering a route ends the visit before it."""
    visits: list[RouteVisit] = []
    for _, event, at, _ in events:
        if visits and visits[-1].exited_at is None:
            completed = isinstance(event, e.RouteExited) and event.completed
            visits[-1] = replace(visits[-1], exited_at=at, completed=completed)
        if isinstance(event, e.RouteEntered):
            visits.append(RouteVisit(route=event.route, title=event.title, entered_at=at))
    return visits


def steps(events: Iterable[Occurrence]) -> list[StepVisit]:
    """Return every stay on a step; another step, or a change of route, ends it."""
    visits: list[StepVisit] = []
    route: str | None = None
    for _, event, at, _ in events:
        if visits and visits[-1].exited_at is None:
            visits[-1] = replace(visits[-1], exited_at=at)
        match event:
            case e.RouteEntered():
                route = event.route
            case e.RouteExited():
                route = None
            case e.StepEntered(step, description):
                visits.append(StepVisit(step=step, description=description, route=route, entered_at=at))
            case _:
                pass
    return visits


def runs(events: Iterable[Occurrence]) -> list[Run]:
    """Return every run, in the order they were started."""
    found: dict[str, Run] = {}
    for _, event, at, _ in events:
        match event:
            case e.RunStarted(run_id, details):
                found[run_id] = Run(run_id=run_id, status="running", details=details, started_at=at)
            case e.RunFinished(run_id, status, result, error, usage) if run_id in found:
                found[run_id] = replace(
                    found[run_id], status=status, result=result, error=error, usage=usage, finished_at=at
                )
            case _:
                pass
    return list(found.values())
