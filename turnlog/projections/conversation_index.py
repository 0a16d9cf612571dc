"""The port of a followed view store: what can be asked of sessions and messages that are kept in a search engine."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from turnlog.domain.analytics import DayCount, FoundMessage, ResponseTimes, SessionCount, StepOutcome
from turnlog.domain.values import Page, SessionSummary

Order: TypeAlias = Literal["relevance", "newest"]


class MessagesWanted(NamedTuple):
    """Which messages are wanted: ``since <= occurred_at < until``; what is ``None`` is not asked for."""

    tenant: str
    user_id: str | None = None
    session_id: str | None = None
    agent: str | None = None
    role: str | None = None
    route: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class SessionsWanted(NamedTuple):
    """Which sessions are wanted; ``route`` is the one they are on."""

    tenant: str
    user_id: str | None = None
    agent: str | None = None
    status: str | None = None
    route: str | None = None


class ConversationIndex(Protocol):
    """What a search engine answers: what it was told up to the last ``refresh``."""

    def refresh(self) -> None:
        """Have answers show all that was written."""
        ...

    def find(
        self, text: str, wanted: MessagesWanted, *, order: Order, limit: int, cursor: str | None
    ) -> Page[FoundMessage]:
        """Return a page of the messages that match."""
        ...

    def sessions(self, wanted: SessionsWanted, *, limit: int, cursor: str | None) -> Page[SessionSummary]:
        """Return a page of sessions, newest update first."""
        ...

    def counts(self, tenant: str) -> tuple[int, int]:
        """Count sessions and visible messages."""
        ...

    def messages_per_day(self, wanted: MessagesWanted, time_zone: str) -> Sequence[DayCount]:
        """Return the days that have visible messages, in order."""
        ...

    def sessions_by_status(self, wanted: SessionsWanted) -> Sequence[SessionCount]:
        """Return how many sessions there are of each status and route, the most first."""
        ...

    def step_outcomes(self, wanted: SessionsWanted, route: str | None) -> Sequence[StepOutcome]:
        """Return what became of the sessions on each step (of one route), the most visited first."""
        ...

    def response_times(self, wanted: MessagesWanted) -> ResponseTimes:
        """Return how long users waited for those of the messages that are answers."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class Followable(NamedTuple):
    """Where a view is kept that follows the log of a store elsewhere, that view, and what can be asked of it."""

    views: Any
    view: Any
    asked: ConversationIndex
