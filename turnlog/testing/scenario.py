"""Given these events, when this command, then those events or that refusal: the form of the domain's tables."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from turnlog.domain import events as e
from turnlog.domain.commands import NOTHING, Command, Found
from turnlog.domain.errors import TurnlogError
from turnlog.domain.events import Erased, Event
from turnlog.domain.session import decide, fold, initial
from turnlog.domain.values import SessionState

START = datetime(2026, 1, 1, tzinfo=UTC)
STARTED = e.SessionStarted(user_id="alice")


def at(version: int) -> datetime:
    """Return when the event of this version was recorded: one second after the one before."""
    return START + timedelta(seconds=version)


@dataclass(frozen=True)
class Outcome:
    """What a command came to: its events, or the error that refused it."""

    state: SessionState
    events: tuple[Event, ...]
    error: TurnlogError | None

    def then(self, *expected: Event) -> SessionState:
        """Require exactly these events, of these very JSON values, and return the state after them."""
        if self.error is not None:
            raise AssertionError(f"refused: {self.error!r}") from self.error
        assert [(type(event), repr(event)) for event in self.events] == [
            (type(event), repr(event)) for event in expected
        ]
        return play(self.state, *self.events)

    def nothing(self) -> None:
        """Require that the command changes nothing, and is not refused either."""
        self.then()

    def refused(self, error: type[TurnlogError], *words: str) -> None:
        """Require a refusal of exactly this class whose message has all the ``words``."""
        assert self.error is not None, f"not refused: {self.events}"
        assert type(self.error) is error
        for word in words:
            assert word in str(self.error)


@dataclass(frozen=True)
class Given:
    """A session with a past."""

    state: SessionState

    def when(self, command: Command, found: Found = NOTHING) -> Outcome:
        """Decide, with what the store would have found for the command."""
        try:
            return Outcome(self.state, decide(self.state, command, found), None)
        except TurnlogError as error:
            return Outcome(self.state, (), error)


def play(state: SessionState, *events: Event | Erased) -> SessionState:
    """Return the state after further events, each recorded a second after the one before."""
    return fold(state, ((event, at(state.version + n)) for n, event in enumerate(events, 1)))


def given(*events: Event | Erased) -> Given:
    """Begin with these events; with none of them nothing was ever recorded."""
    return Given(play(initial("default", "s-1"), *events))


def started(*events: Event) -> Given:
    """Begin with a session of alice and these events."""
    return given(STARTED, *events)


def state_of(*events: Event | Erased) -> SessionState:
    """Return the state after these events."""
    return given(*events).state


def naming(field: str) -> str:
    """Return how an ``InvalidInput`` names its field at the front of its message."""
    return f"{field}: "
