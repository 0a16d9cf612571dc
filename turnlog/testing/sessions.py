"""Given a session, when an agent has had its turn, then these events: the form of an agent's tests.

given_session(session).when(waiter).then(like(events.MessageAdded, role="assistant"))
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from turnlog.domain.errors import TurnlogError
from turnlog.domain.events import Erased, Event
from turnlog.domain.values import RecordedEvent
from turnlog.session import Session


@dataclass(frozen=True)
class Like:
    """An event of ``kind`` with these fields, whatever its others are."""

    kind: type[Event]
    fields: dict[str, Any]

    def fits(self, event: Event | Erased) -> bool:
        """Return whether it is such an event."""
        return type(event) is self.kind and all(getattr(event, name) == value for name, value in self.fields.items())

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.fields.items())
        return f"{self.kind.__name__}({given}{', ' if given else ''}…)"


def like(kind: type[Event], **fields: Any) -> Like:
    """Return what stands for an event of which only some fields matter."""
    unknown = sorted(fields.keys() - set(kind.__struct_fields__))
    if unknown:
        raise TypeError(f"{kind.__name__} has no field {unknown[0]!r}")
    return Like(kind, fields)


@dataclass(frozen=True)
class SessionOutcome:
    """What an agent's turn came to: the events it caused, what it returned, or the error it raised."""

    session: Session
    recorded: tuple[RecordedEvent, ...]
    result: Any
    error: Exception | None

    def then(self, *expected: Event | Like) -> Session:
        """Require exactly these events, in this order, and return the session.

        Raises:
            AssertionError: they are others; the message shows both. What the agent raised is its cause.
        """
        if self.error is not None:
            raise AssertionError(f"raised {self.error!r}") from self.error
        events = [one.event for one in self.recorded]
        fit = len(events) == len(expected) and all(map(_fits, expected, events))
        if not fit:
            raise AssertionError("\n".join(["expected:", *map(_line, expected), "found:", *map(_line, events)]))
        return self.session

    def raised(self, kind: type[Exception], *words: str) -> Session:
        """Require this error, its message having all the ``words``, and that nothing was written."""
        assert isinstance(self.error, kind), f"expected {kind.__name__}, got {self.error!r}"
        assert all(word in str(self.error) for word in words), f"{words} in {str(self.error)!r}"
        assert self.recorded == (), f"written all the same: {[one.event for one in self.recorded]}"
        return self.session


@dataclass(frozen=True)
class SessionGiven:
    """A session with a past."""

    session: Session

    def when(self, agent: Callable[[Session], Any]) -> SessionOutcome:
        """Give the agent a handle of the session, and see what it writes, by whatever handle."""
        session = self.session.refresh()
        before, result, error = session.version, None, None
        try:
            result = agent(session)
        except Exception as raised:  # noqa: BLE001 - any error is an outcome, and ``then`` and ``raised`` tell it
            error = raised
        try:
            recorded = tuple(session.refresh().events(after=before))
        except TurnlogError as gone:
            raise AssertionError(f"the session cannot be read any more: {gone}") from gone
        return SessionOutcome(session, recorded, result, error)


def given_session(session: Session, *past: Callable[[Session], object]) -> SessionGiven:
    """Begin with a session as it is, once each of ``past`` was done to it."""
    for one in past:
        one(session)
    return SessionGiven(session)


def _fits(expected: Event | Like, event: Event | Erased) -> bool:
    return expected.fits(event) if isinstance(expected, Like) else type(event) is type(expected) and event == expected


def _line(event: object) -> str:
    return f"  {event!r}"
