"""What a followed view store gives back: messages that were found, and counts over many sessions. Frozen values."""

from collections.abc import Mapping
from datetime import date

import msgspec

from turnlog.domain.values import Message


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    """The options every value shares."""


class Snippet(_Value, frozen=True, kw_only=True):
    """A piece of a message's text; ``spans`` are the (start, end) of what matched in it, in characters."""

    text: str
    spans: tuple[tuple[int, int], ...] = ()


class FoundMessage(_Value, frozen=True, kw_only=True):
    """A message that a search found. ``score`` says how well it matches, if the search was ordered by that."""

    message: Message
    session_id: str
    user_id: str | None
    agent: str | None
    position: int
    score: float | None = None
    snippets: tuple[Snippet, ...] = ()


class DayCount(_Value, frozen=True, kw_only=True):
    """How many visible messages a day has, in all and by role. Days without any are left out."""

    day: date
    messages: int
    roles: Mapping[str, int]


class SessionCount(_Value, frozen=True, kw_only=True):
    """How many sessions have this status and are on this route (``None``: on none)."""

    status: str
    route: str | None
    sessions: int


class StepOutcome(_Value, frozen=True, kw_only=True):
    """What became of the sessions that entered a step, by how their last stay on it ended.

    ``went_on``: to another step of the route; ``completed``: the route, or the session, was; ``left``: the route was
    left without that; ``waiting``: they are on it; ``dropped``: they are, and the session was closed uncompleted.
    """

    route: str | None
    step: str
    went_on: int = 0
    completed: int = 0
    left: int = 0
    waiting: int = 0
    dropped: int = 0

    @property
    def sessions(self) -> int:
        """How many sessions entered it."""
        return self.went_on + self.completed + self.left + self.waiting + self.dropped

    @property
    def drop_off(self) -> float:
        """The share of those that got no further, from 0 to 1; who waits is not among them."""
        return (self.left + self.dropped) / self.sessions if self.sessions else 0.0


class ResponseTimes(_Value, frozen=True, kw_only=True):
    """How long users waited for answers, in seconds; ``None`` where there were none. Percentiles are estimates."""

    answers: int
    mean_s: float | None
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    max_s: float | None
