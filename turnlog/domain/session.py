"""The session: how commands become events, and events become state. Read this file first.

    decide  : state, command, found -> events      what happens, or the rule that forbids it
    evolve  : state, event, recorded_at -> state   what it means
    fold    : state, facts -> state                evolve, repeated

All three are pure. Commands stand in commands.py, events in events.py, ``SessionState`` in values.py.
"""

from collections.abc import Iterable
from datetime import datetime
from operator import methodcaller
from typing import Any, assert_never, cast

import msgspec
from msgspec.structs import force_setattr as put

from turnlog.domain import commands as c
from turnlog.domain import events as e
from turnlog.domain.commands import ALLOWED_WHEN_CLOSED, NOTHING, Command, Found
from turnlog.domain.errors import InvalidInput, NotOwner, RuleViolation, SessionClosed, SessionGone, SessionNotFound
from turnlog.domain.events import Erased, Event, Json
from turnlog.domain.values import CLOSED, RouteVisit, SessionState, Transition

FOLD_REVISION = 1
"""Raise it with every change to ``evolve`` or ``SessionState``: snapshots of another revision are not used."""
ROUTE_HISTORY = 1_000
"""How many visits ``SessionState.route_history`` holds."""

Events = tuple[Event, ...]


def initial(tenant: str, session_id: str) -> SessionState:
    """Return the state of a session of which nothing has been recorded: version 0."""
    return SessionState(id=session_id, tenant=tenant)


def decide(state: SessionState, command: Command, found: Found = NOTHING) -> Events:
    """Return the events that ``command`` causes; none if it would change nothing.

    Raises:
        SessionGone, SessionNotFound, SessionClosed, NotOwner, RuleViolation: the rules forbid it.
        InvalidInput: it names something that is not there.
    """
    _allow(state, command)
    match command:
        case c.AddMessage():
            return _add_message(state, command)
        case c.Collect(values):
            changed = {key: value for key, value in values.items() if not _holds(state.data, key, value)}
            return (e.DataCollected(values=changed),) if changed else ()
        case c.EnterRoute(route, title, reason):
            same = route == state.current_route
            return () if same else (e.RouteEntered(route=route, title=title, reason=reason),)
        case c.EnterStep(step, description):
            return () if step == state.current_step else (e.StepEntered(step=step, description=description),)
        case c.CallTool(call_id, name, arguments):
            return (e.ToolCalled(call_id=call_id, name=name, arguments=arguments),)
        case c.ReturnTool():
            return _return_tool(command, found)
        case c.StartSession():
            return _start(state, command)
        case c.EditMessage(message_id, content):
            message = _require_message(found, message_id)
            return () if same_json(message.content, content) else (_edited(message_id, content),)
        case c.RemoveMessage(message_id):
            return (e.MessageRemoved(message_id=_require_message(found, message_id).message_id),)
        case c.PopMessage():
            return (e.MessageRemoved(message_id=found.message.message_id),) if found.message else ()
        case c.ClearHistory():
            return (e.HistoryCleared(),) if state.message_count else ()
        case c.SetHistory(messages):
            nothing = found.same or not (messages or state.message_count)
            return () if nothing else (e.HistoryReplaced(messages=messages),)
        case c.CompactHistory(message_id, summary, _):
            nothing = found.kept >= state.message_count
            return () if nothing else (e.HistoryCompacted(message_id=message_id, summary=summary, kept=found.kept),)
        case c.Discard(keys):
            present = tuple(key for key in keys if key in state.data)
            return (e.DataCollected(removed=present),) if present else ()
        case c.ClearData():
            return (e.DataCleared(),) if state.data or state.data_by_route else ()
        case c.SetContext(values, unset):
            values, removed = _patch(state.context, values, unset)
            return (e.ContextSet(values=values, removed=removed),) if values or removed else ()
        case c.SetMetadata(values, unset):
            values, removed = _patch(state.metadata, values, unset)
            return (e.MetadataSet(values=values, removed=removed),) if values or removed else ()
        case c.ExitRoute(completed):
            left = state.current_route
            return () if left is None else (e.RouteExited(route=left, completed=completed),)
        case c.PlanTransition(route, condition, reason):
            planned = Transition(route=route, condition=condition, reason=reason)
            same = planned == state.pending_transition
            return () if same else (e.TransitionPlanned(route=route, condition=condition, reason=reason),)
        case c.CancelTransition():
            return (e.TransitionCancelled(),) if state.pending_transition else ()
        case c.StartRun(run_id, details):
            return _start_run(run_id, details, found)
        case c.FinishRun():
            return _finish_run(command, found)
        case c.SetStatus(status, reason):
            return () if status == state.status else (e.StatusChanged(status=status, reason=reason),)
        case c.AssignOwner(user_id):
            return () if user_id == state.user_id else (e.OwnerAssigned(user_id=user_id),)
        case c.DeleteSession():
            return (e.SessionDeleted(),)
        case _:
            assert_never(command)


def evolve(state: SessionState, event: Event | Erased, recorded_at: datetime) -> SessionState:
    """Return the state after ``event``; ``state`` itself stays as it was."""
    return fold(state, ((event, recorded_at),))


def fold(state: SessionState, facts: Iterable[tuple[Event | Erased, datetime]]) -> SessionState:
    """Return the state after all ``facts``. It evolves one private copy in place, which is what makes it fast."""
    new: SessionState = _copy(state)
    version = state.version
    recorded_at = state.updated_at
    for event, recorded_at in facts:
        version += 1
        _apply(new, event, recorded_at)
    put(new, "version", version)
    put(new, "updated_at", recorded_at)
    visits: Any = new.route_history
    if type(visits) is list:
        put(new, "route_history", tuple(cast("list[RouteVisit]", visits)[-ROUTE_HISTORY:]))
    return new


def same_json(one: Json, other: Json) -> bool:
    """Return whether two JSON values are the same value: 1, 1.0 and true differ, the order of keys does not matter."""
    return bool(one == other) and (type(one) is str or _canonical(one) == _canonical(other))


_canonical = msgspec.json.Encoder(order="sorted").encode
_copy = methodcaller("__copy__")  # half the time of copy.copy


# --- decide, case by case ---------------------------------------------------------------------------------------------


def _allow(state: SessionState, command: Command) -> None:
    if state.deleted:
        raise SessionGone(f"session {state.id!r} was deleted")
    if state.version == 0 and not isinstance(command, c.StartSession):
        raise SessionNotFound(state.id)
    if state.status in CLOSED and type(command) not in ALLOWED_WHEN_CLOSED:
        what = type(command).__name__
        raise SessionClosed(f"session {state.id!r} is {state.status}: {what} is not allowed; reopen() it first")


def _start(state: SessionState, command: c.StartSession) -> Events:
    if state.version:
        if command.user_id in (None, state.user_id):
            return ()
        if state.user_id is not None:
            raise NotOwner(f"session {state.id!r} belongs to another user")
        return (e.OwnerAssigned(user_id=command.user_id),)
    started = e.SessionStarted(
        user_id=command.user_id,
        agent=command.agent,
        data=command.data,
        context=command.context,
        metadata=command.metadata,
        continued_from=command.continued_from,
    )
    return (started,)


def _add_message(state: SessionState, command: c.AddMessage) -> Events:
    added = e.MessageAdded(
        message_id=command.message_id,
        role=command.role,
        content=command.content,
        name=command.name,
        tool_calls=command.tool_calls,
        tool_call_id=command.tool_call_id,
        metadata=command.metadata,
        route=state.current_route,
        step=state.current_step,
    )
    return (e.StatusChanged(status="active"), added) if state.status == "paused" else (added,)


def _require_message(found: Found, message_id: str) -> c.FoundMessage:
    if found.message is None:
        raise InvalidInput("message_id", f"no visible message {message_id!r} in this session")
    return found.message


def _edited(message_id: str, content: Json) -> Event:
    return e.MessageEdited(message_id=message_id, content=content)


def _return_tool(command: c.ReturnTool, found: Found) -> Events:
    if found.call is None:
        raise InvalidInput("call_id", f"no earlier tool call {command.call_id!r} in this session")
    name = command.name or found.call.name
    return (e.ToolReturned(call_id=command.call_id, name=name, content=command.content, error=command.error),)


def _start_run(run_id: str, details: dict[str, Json], found: Found) -> Events:
    if found.run is None:
        return (e.RunStarted(run_id=run_id, details=details),)
    if same_json(found.run.details, details):
        return ()
    raise RuleViolation(f"run {run_id!r} was already started with other details")


def _finish_run(command: c.FinishRun, found: Found) -> Events:
    if found.run is None:
        raise InvalidInput("run_id", f"no run {command.run_id!r} in this session")
    if found.run.finished is None:
        return (
            e.RunFinished(
                run_id=command.run_id,
                status=command.status,
                result=command.result,
                error=command.error,
                usage=command.usage,
            ),
        )
    if _canonical(found.run.finished) == _canonical(command):
        return ()
    raise RuleViolation(f"run {command.run_id!r} has already finished as {found.run.finished.status}")


def _holds(values: dict[str, Json], key: str, value: Json) -> bool:
    return key in values and same_json(values[key], value)


def _patch(
    old: dict[str, Json], values: dict[str, Json], unset: tuple[str, ...]
) -> tuple[dict[str, Json], tuple[str, ...]]:
    changed = {key: value for key, value in values.items() if not _holds(old, key, value)}
    return changed, tuple(key for key in unset if key in old and key not in values)


# --- evolve, case by case ---------------------------------------------------------------------------------------------


def _apply(state: SessionState, event: Event | Erased, at: datetime) -> None:
    match event:
        case e.MessageAdded():
            put(state, "message_count", state.message_count + 1)
            put(state, "last_message_at", at)
        case e.DataCollected(values, removed):
            _collect(state, values, removed)
        case e.ToolCalled():
            put(state, "tool_call_count", state.tool_call_count + 1)
        case e.ToolReturned() | e.MessageEdited() | e.RunStarted() | e.RunFinished() | Erased():
            pass
        case e.StepEntered(step):
            put(state, "current_step", step)
        case e.RouteEntered(route, title):
            _end_visit(state, at, completed=False)
            _visits(state).append(RouteVisit(route=route, title=title, entered_at=at))
            put(state, "route_count", state.route_count + 1)
            put(state, "current_route", route)
            put(state, "current_step", None)
            if state.pending_transition is not None and state.pending_transition.route == route:
                put(state, "pending_transition", None)
        case e.RouteExited(_, completed):
            _end_visit(state, at, completed=completed)
            put(state, "current_route", None)
            put(state, "current_step", None)
        case e.StatusChanged(status):
            put(state, "status", status)
            put(state, "completed_at", at if status == "completed" else None)
        case e.SessionStarted():
            _started(state, event, at)
        case e.OwnerAssigned(user_id):
            put(state, "user_id", user_id)
        case e.MessageRemoved():
            put(state, "message_count", state.message_count - 1)
        case e.HistoryCleared():
            put(state, "message_count", 0)
        case e.HistoryReplaced(messages):
            put(state, "message_count", len(messages))
            put(state, "last_message_at", at if messages else state.last_message_at)
        case e.HistoryCompacted(_, _, kept):
            put(state, "message_count", kept + 1)
        case e.DataCleared():
            put(state, "data", {})
            put(state, "data_by_route", {})
        case e.ContextSet(values, removed):
            put(state, "context", _patched(state.context, values, removed))
        case e.MetadataSet(values, removed):
            put(state, "metadata", _patched(state.metadata, values, removed))
        case e.TransitionPlanned(route, condition, reason):
            put(state, "pending_transition", Transition(route=route, condition=condition, reason=reason))
        case e.TransitionCancelled():
            put(state, "pending_transition", None)
        case e.SessionDeleted():
            put(state, "deleted", True)  # noqa: FBT003 - the value, not a flag
        case _:
            assert_never(event)


def _started(state: SessionState, event: e.SessionStarted, at: datetime) -> None:
    for field in ("user_id", "agent", "data", "context", "metadata", "continued_from", "forked_from"):
        put(state, field, getattr(event, field))
    put(state, "created_at", at)


def _collect(state: SessionState, values: dict[str, Json], removed: tuple[str, ...]) -> None:
    put(state, "data", _patched(state.data, values, removed))
    by_route = state.data_by_route
    if removed:
        kept = {route: _patched(data, {}, removed) for route, data in by_route.items()}
        by_route = {route: data for route, data in kept.items() if data}
    route = state.current_route
    if values and route is not None:
        by_route = {**by_route, route: {**by_route.get(route, {}), **values}}
    put(state, "data_by_route", by_route)


def _end_visit(state: SessionState, at: datetime, *, completed: bool) -> None:
    if state.current_route is not None and state.route_history:
        visits = _visits(state)
        visits[-1] = msgspec.structs.replace(visits[-1], exited_at=at, completed=completed)


def _visits(state: SessionState) -> list[RouteVisit]:
    """Return the visits as a list to change, which ``fold`` makes a tuple again: copied once, not at every route."""
    visits: Any = state.route_history
    if type(visits) is tuple:
        visits = list(cast("tuple[RouteVisit, ...]", visits))
        put(state, "route_history", visits)
    elif len(visits) > 2 * ROUTE_HISTORY:
        del visits[:-ROUTE_HISTORY]
    return cast("list[RouteVisit]", visits)


def _patched(old: dict[str, Json], values: dict[str, Json], removed: tuple[str, ...]) -> dict[str, Json]:
    new = {**old, **values}
    for key in removed:
        new.pop(key, None)
    return new
