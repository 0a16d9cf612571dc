"""What turnlog makes of another system's session: the commands that store it, with the times at which things happened.

Where every message has a time, messages and visits to routes are merged by time. Where they have none, the messages
come first and the visits after them: which message was said on which route is then not known, and not guessed. Data
whose time is not known is there from the beginning.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from heapq import merge
from operator import itemgetter
from typing import NamedTuple

import msgspec

from turnlog import inputs, structures
from turnlog.adapters.migration.session import Note, OldMessage, OldRun, OldSession, OldVisit
from turnlog.adapters.transfer.neutral import said_message
from turnlog.domain import commands as c
from turnlog.domain.commands import Command
from turnlog.domain.errors import InvalidInput
from turnlog.saying import Said

ACTOR = "turnlog migrate"
"""Who the events say has written them."""
_canonical = msgspec.json.Encoder(order="sorted").encode


class PlannedMigration(NamedTuple):
    """A session, and what to say to store it; ``changed`` adds to what the session says of itself."""

    session: OldSession
    session_id: str
    said: list[Said]
    key: tuple[str, bytes]
    changed: list[Note]

    def refusal(self, error: Exception) -> str:
        """Say why the rules forbid it."""
        return str(error)


class _Step(NamedTuple):
    """Something that happened, at a time if that is known."""

    at: datetime | None
    said: list[Said]


def planned_migration(session: OldSession, new_id: Callable[[], str]) -> PlannedMigration:
    """Check a session and say what it stands for.

    Raises:
        InvalidInput: a value is not acceptable; the message names it.
    """
    session_id = inputs.identifier("id", session.session_id)
    start = c.StartSession(
        user_id=inputs.optional(inputs.identifier, "user_id", session.user_id),
        agent=inputs.optional(inputs.identifier, "agent", session.agent),
        data=inputs.json_object("data", _early_data(session)),
        context=inputs.json_object("context", session.context),
        metadata=inputs.json_object("metadata", session.metadata),
    )
    changed: list[Note] = []
    said = [Said(start, start, session.created_at, expected_version=0)]
    for some in _steps(session, new_id, changed):
        said += some
    by = session.updated_at or session.created_at  # it had happened by then
    said = [msgspec.structs.replace(one, actor=ACTOR, occurred_at=one.occurred_at or by) for one in said]
    content = msgspec.structs.replace(session, lost=(), changed=())
    digest = sha256(_canonical(content)).digest()
    return PlannedMigration(session, session_id, said, (f"migrate:{digest.hex()}", digest[:16]), changed)


def _early_data(session: OldSession) -> dict[str, object]:
    late = {key for values in session.data_by_route.values() for key in values}
    return {key: value for key, value in session.data.items() if key not in late}


def _steps(session: OldSession, new_id: Callable[[], str], changed: list[Note]) -> Iterator[list[Said]]:
    messages = list(_messages(session, new_id, changed))
    visits = list(_visits(session))
    if all(step.at is not None for step in (*messages, *visits)):
        merged = merge(_never_back(visits), _never_back(messages), key=itemgetter(0))
        yield from (step.said for _, step in merged)
    else:
        yield from (step.said for step in (*messages, *visits))
    yield from (step.said for step in _ending(session))


def _never_back(steps: Iterable[_Step]) -> Iterator[tuple[datetime, _Step]]:
    """Yield steps in their own order, each with the latest time so far: a clock may have been set back."""
    latest = datetime.min.replace(tzinfo=UTC)
    for step in steps:
        latest = latest if step.at is None else max(latest, step.at)
        yield latest, step


def _ending(session: OldSession) -> Iterator[_Step]:
    at = session.updated_at
    ends: list[Command] = []
    if session.data_by_route and session.data:
        ends.append(c.Collect(inputs.json_object("data", session.data)))
    last = session.visits[-1] if session.visits else None
    current = last.route if last is not None and not last.exited else None
    if session.route is not None and session.route != current:
        ends.append(c.EnterRoute(inputs.identifier("route", session.route), session.route_title))
    if session.step is not None:
        ends.append(c.EnterStep(inputs.identifier("step", session.step), session.step_description))
    yield _Step(at, [Said(command, command, at) for command in ends])
    for run in session.runs:
        yield from _run(run)
    if session.status != "active":
        closed_at = session.completed_at or at
        status = c.SetStatus(inputs.status("status", session.status))
        yield _Step(closed_at, [Said(status, status, closed_at)])


def _visits(session: OldSession) -> Iterator[_Step]:
    """Yield the visits; what was collected on a route is collected on its last one."""
    last = {visit.route: i for i, visit in enumerate(session.visits)}
    for i, visit in enumerate(session.visits):
        route = inputs.identifier(f"routes[{i}]", visit.route)
        yield _at(visit.entered_at, c.EnterRoute(route, inputs.optional(inputs.text, "title", visit.title)))
        values = session.data_by_route.get(visit.route)
        if values and last[visit.route] == i:
            collect = c.Collect(inputs.json_object(f"data_by_route.{visit.route}", values))
            yield _at(visit.entered_at, collect)
        following = session.visits[i + 1] if i + 1 < len(session.visits) else None
        if visit.exited and _says_more_than(visit, following):
            yield _at(visit.exited_at or visit.entered_at, c.ExitRoute(visit.completed))


def _says_more_than(visit: OldVisit, following: OldVisit | None) -> bool:
    """Return whether the end of a visit is not what the beginning of the next one says, too."""
    return visit.completed or following is None or following.route == visit.route


def _messages(session: OldSession, new_id: Callable[[], str], changed: list[Note]) -> Iterator[_Step]:
    used: set[str] = set()
    on_the_way = _Place(session)
    for i, message in enumerate(session.messages):
        message_id = _usable_id(session, message, used, changed)
        yield from on_the_way.until(i, message)
        command = c.AddMessage(
            message_id or new_id(),
            inputs.role(f"messages[{i}].role", message.role),
            inputs.content(f"messages[{i}].content", message.content),
            inputs.optional(inputs.text, f"messages[{i}].name", message.name),
            inputs.optional(structures.tool_calls, f"messages[{i}].tool_calls", message.tool_calls),
            inputs.optional(inputs.identifier, f"messages[{i}].tool_call_id", message.tool_call_id),
            inputs.json_object(f"messages[{i}].metadata", on_the_way.told(message)) or None,
        )
        yield _Step(message.at, [said_message(command, message.at, given=message_id is not None)])


class _Place:
    """Where messages were said.

    Where no visits were kept, routes are entered as messages name them; where there are some, those are believed, and
    what a message says of its place is kept with the message.
    """

    def __init__(self, session: OldSession) -> None:
        self._from_messages = not session.visits
        self._route: str | None = None
        self._step: str | None = None

    def until(self, i: int, message: OldMessage) -> Iterator[_Step]:
        """Yield what comes before a message."""
        if not self._from_messages:
            return
        if message.route is not None and message.route != self._route:
            self._route, self._step = message.route, None
            yield _at(message.at, c.EnterRoute(inputs.identifier(f"messages[{i}].route", message.route)))
        if message.step is not None and message.step != self._step:
            self._step = message.step
            yield _at(message.at, c.EnterStep(inputs.identifier(f"messages[{i}].step", message.step)))

    def told(self, message: OldMessage) -> dict[str, object]:
        """Return the message's metadata."""
        place = {"route": message.route, "step": message.step}
        if self._from_messages:
            return message.metadata
        return {**{key: value for key, value in place.items() if value is not None}, **message.metadata}


def _usable_id(session: OldSession, message: OldMessage, used: set[str], changed: list[Note]) -> str | None:
    message_id = message.message_id
    if message_id is None:
        return None
    reason = "it stands there twice"
    if message_id not in used:
        used.add(message_id)
        try:
            return inputs.identifier("message_id", message_id)
        except InvalidInput as error:
            reason = error.expected
    words = f"its id is made anew: {reason}"
    changed.append(Note(what="message", id=message_id, session_id=session.session_id, reason=words))
    return None


def _run(run: OldRun) -> Iterator[_Step]:
    run_id = inputs.identifier("run", run.run_id)
    yield _at(run.started_at, c.StartRun(run_id, inputs.json_object("run.details", run.details)))
    if run.status != "running":
        finish = c.FinishRun(
            run_id,
            inputs.run_status("run.status", run.status),
            inputs.json_value("run.result", run.result),
            inputs.optional(inputs.text, "run.error", run.error),
        )
        yield _at(run.finished_at or run.started_at, finish)


def _at(at: datetime | None, command: Command) -> _Step:
    return _Step(at, [Said(command, command, at)])
