"""What the public calls give back: frozen values, times as aware UTC datetimes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import msgspec

from turnlog.domain.events import Erased, Event, ForkPoint, Json

Role: TypeAlias = Literal["user", "assistant", "system", "tool", "developer"]
Status: TypeAlias = Literal["active", "paused", "completed", "abandoned", "failed", "expired", "archived"]
RunStatus: TypeAlias = Literal["completed", "failed", "interrupted", "cancelled"]

ROLES = frozenset({"user", "assistant", "system", "tool", "developer"})
STATUSES = frozenset({"active", "paused", "completed", "abandoned", "failed", "expired", "archived"})
CLOSED = STATUSES - {"active", "paused"}
RUN_STATUSES = frozenset({"completed", "failed", "interrupted", "cancelled"})

T = TypeVar("T")


class _Value(msgspec.Struct, frozen=True):
    """The options every value shares."""


class Erasure(_Value, frozen=True, kw_only=True):
    """What an erasure has reached. ``pending`` names what may still hold bytes, in words."""

    complete: bool
    pending: tuple[str, ...] = ()


class Receipt(_Value, frozen=True, kw_only=True):
    """A write that is committed (or, inside a turn, said: then version, position and hash are ``None``).

    ``version`` and ``position`` are those of the last event written, or of the session's last event where the command
    changed nothing (``event_ids`` is then empty). ``hash`` is a head to keep elsewhere, see ``verify(heads=…)``.
    ``durability`` is ``pending`` where it is the application that has yet to commit (``store.using``).
    """

    session_id: str
    version: int | None = None
    position: int | None = None
    event_ids: tuple[str, ...] = ()
    recorded_at: datetime | None = None
    durability: str = ""
    hash: str | None = None
    message_id: str | None = None
    call_id: str | None = None
    run_id: str | None = None
    erasure: Erasure | None = None


class Message(_Value, frozen=True):
    """One message of a history. ``route`` and ``step`` are those in force when it was said."""

    message_id: str
    role: str
    content: Json
    name: str | None
    tool_calls: list[dict[str, Json]] | None
    tool_call_id: str | None
    metadata: dict[str, Json] | None
    recorded_at: datetime
    occurred_at: datetime
    version: int
    route: str | None
    step: str | None


class RouteVisit(_Value, frozen=True, kw_only=True):
    """One stay on a route; ``exited_at`` is ``None`` while it lasts."""

    route: str
    title: str | None = None
    entered_at: datetime
    exited_at: datetime | None = None
    completed: bool = False


class StepVisit(_Value, frozen=True, kw_only=True):
    """One stay on a step; ``route`` is the route it was entered on."""

    step: str
    description: str | None = None
    route: str | None = None
    entered_at: datetime
    exited_at: datetime | None = None


class Run(_Value, frozen=True, kw_only=True):
    """One run of an agent; ``status`` is ``running`` until it is finished."""

    run_id: str
    status: str
    details: dict[str, Json]
    result: Json = None
    error: str | None = None
    usage: dict[str, Json] | None = None
    started_at: datetime
    finished_at: datetime | None = None


class Transition(_Value, frozen=True, kw_only=True):
    """A transition that was planned and not yet taken."""

    route: str
    condition: str | None = None
    reason: str | None = None


class SessionState(_Value, frozen=True, kw_only=True):
    """What a session is, folded from its events. Messages are not part of it: history is its own fold.

    ``route_history`` holds the last 1,000 visits; ``route_count`` counts all. Treat the dictionaries as read-only;
    ``Session.state`` gives a copy.
    """

    id: str
    tenant: str
    user_id: str | None = None
    agent: str | None = None
    continued_from: str | None = None
    forked_from: ForkPoint | None = None
    status: str = "active"
    deleted: bool = False
    data: dict[str, Json] = {}
    data_by_route: dict[str, dict[str, Json]] = {}
    context: dict[str, Json] = {}
    metadata: dict[str, Json] = {}
    current_route: str | None = None
    current_step: str | None = None
    route_history: tuple[RouteVisit, ...] = ()
    route_count: int = 0
    pending_transition: Transition | None = None
    message_count: int = 0
    tool_call_count: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    last_message_at: datetime | None = None
    completed_at: datetime | None = None
    version: int = 0


class SessionSummary(_Value, frozen=True, kw_only=True):
    """One row of ``store.sessions()``. ``version`` is that of the last event the row has seen."""

    session_id: str
    user_id: str | None
    agent: str | None
    status: str
    current_route: str | None
    current_step: str | None
    message_count: int
    created_at: datetime
    updated_at: datetime
    last_message_at: datetime | None
    completed_at: datetime | None
    version: int


class SearchHit(_Value, frozen=True, kw_only=True):
    """A message that ``store.search()`` found, and whose session it is in."""

    session_id: str
    user_id: str | None
    message: Message


class UserSummary(_Value, frozen=True, kw_only=True):
    """One row of ``store.users()``."""

    user_id: str
    sessions: int
    messages: int
    updated_at: datetime


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Some items and, where more follow, the cursor to pass for the next page."""

    items: list[T]
    next_cursor: str | None = None


class RecordedEvent(_Value, frozen=True):
    """One event as it stands in the log; ``turn`` is (i, n) where it is the i-th of n events of one append."""

    tenant: str
    session_id: str
    version: int
    position: int
    topic: str
    event: Event | Erased
    event_id: str
    recorded_at: datetime
    occurred_at: datetime
    turn: tuple[int, int]
    actor: str | None
    correlation_id: str | None
    causation_id: str | None
    hash: str

    @property
    def originator_id(self) -> str:
        """The stream's name, ``tenant/session_id``, as ``eventsourcing`` wants it."""
        return f"{self.tenant}/{self.session_id}"

    @property
    def originator_version(self) -> int:
        """The version, as ``eventsourcing`` wants it."""
        return self.version


class Step(_Value, frozen=True, kw_only=True):
    """One step of a replay: the event, and the state before and after it."""

    event: RecordedEvent
    before: SessionState
    after: SessionState


class Change(_Value, frozen=True, kw_only=True):
    """One difference; ``kind`` is ``added``, ``removed`` or ``changed``.

    ``path`` is dotted; a key that is not only letters, digits, ``_`` and ``-`` stands in it as a JSON string.
    """

    path: str
    kind: Literal["added", "removed", "changed"]
    before: Any = None
    after: Any = None


class Diff(_Value, frozen=True, kw_only=True):
    """What changed in a session between two versions."""

    session_id: str
    from_version: int
    to_version: int
    changes: tuple[Change, ...]


class Head(_Value, frozen=True, kw_only=True):
    """The last event of a session: an anchor to keep elsewhere."""

    session_id: str
    version: int
    hash: str


class Failure(_Value, frozen=True, kw_only=True):
    """One thing ``verify`` found wrong, with its place."""

    session_id: str | None
    version: int | None
    reason: str


class VerificationReport(_Value, frozen=True, kw_only=True):
    """``ok`` says that nothing wrong was found in ``sessions`` sessions with ``events`` events."""

    ok: bool
    sessions: int
    events: int
    failures: tuple[Failure, ...] = ()


class ErasureReport(_Value, frozen=True, kw_only=True):
    """What ``erase_user`` erased; ``forks`` of the ``sessions`` were forks."""

    sessions: int
    events: int
    forks: int
    pending: tuple[str, ...] = ()


class RebuildProgress(_Value, frozen=True, kw_only=True):
    """Given to the ``progress`` of ``rebuild`` and ``catch_up``: the log position reached and the one to reach."""

    view: str
    position: int
    target: int
    events: int


class ViewStatus(_Value, frozen=True, kw_only=True):
    """One view: what it has applied, how far behind the log it is, and how many sessions it has parked."""

    name: str
    revision: int
    position: int
    lag: int
    parked: int


class Stats(_Value, frozen=True, kw_only=True):
    """Counts of one tenant's sessions, those that were deleted left out.

    ``position`` and ``size_bytes`` are of the whole storage; the size is ``None`` where it cannot be told.
    """

    sessions: int
    events: int
    messages: int
    users: int
    position: int
    size_bytes: int | None
    durability: str
    statuses: Mapping[str, int]
    views: tuple[ViewStatus, ...]
