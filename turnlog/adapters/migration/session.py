"""A session as another system kept it, in one form for all of them; planning.py says what turnlog makes of it."""

from datetime import datetime
from typing import TypeAlias

import msgspec

from turnlog.domain.events import Json


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it was, or is not there at all: what it is, its id, the session it is of, and why."""

    what: str
    id: str
    session_id: str | None
    reason: str


class OldMessage(msgspec.Struct, frozen=True, kw_only=True):
    """``at`` is when it was said, ``route`` and ``step`` where; ``None`` where the system did not keep it."""

    role: str
    content: Json
    message_id: str | None = None
    name: str | None = None
    tool_calls: list[dict[str, Json]] | None = None
    tool_call_id: str | None = None
    metadata: dict[str, Json] = {}
    at: datetime | None = None
    route: str | None = None
    step: str | None = None


class OldVisit(msgspec.Struct, frozen=True, kw_only=True):
    """One stay on a route; ``exited`` tells whether it ended, which may be known without a time."""

    route: str
    title: str | None = None
    entered_at: datetime | None = None
    exited_at: datetime | None = None
    exited: bool = False
    completed: bool = False


class OldRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of an agent; ``status`` is ``running``, or one of turnlog's."""

    run_id: str
    status: str
    details: dict[str, Json] = {}
    result: Json = None
    error: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class OldSession(msgspec.Struct, frozen=True, kw_only=True):
    """What was kept of a session.

    ``lost`` are things that turnlog has no place for, or that could not be read; ``changed`` are carried over otherwise
    than they stood there. Neither is part of the session's content.
    """

    session_id: str
    user_id: str | None = None
    agent: str | None = None
    status: str = "active"
    created_at: datetime | None = None
    updated_at: datetime | None = None
    completed_at: datetime | None = None
    data: dict[str, Json] = {}
    data_by_route: dict[str, dict[str, Json]] = {}
    context: dict[str, Json] = {}
    metadata: dict[str, Json] = {}
    visits: tuple[OldVisit, ...] = ()
    route: str | None = None
    route_title: str | None = None
    step: str | None = None
    step_description: str | None = None
    messages: tuple[OldMessage, ...] = ()
    runs: tuple[OldRun, ...] = ()
    lost: tuple[Note, ...] = ()
    changed: tuple[Note, ...] = ()


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A session, or something of none, that is not imported."""

    note: Note
    whole: bool = True
    """Whether it is a session: nothing of it is imported."""


Found: TypeAlias = OldSession | Unreadable
