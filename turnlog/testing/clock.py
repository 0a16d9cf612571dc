"""A clock for ``turnlog.open(clock=…)`` that stands still."""

from datetime import UTC, datetime, timedelta


class Clock:
    """A clock that moves only when told to. It begins at the start of 2026, or at ``now`` (aware)."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def advance(self, seconds: float = 1.0) -> datetime:
        """Move on (or, negative, back) and return the new time."""
        self.now += timedelta(seconds=seconds)
        return self.now
