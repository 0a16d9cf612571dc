"""What analytics need of a session and its summary does not hold: what became of each step, how long answers took.

A pure fold. How long a user waited is from the first message not answered yet to the next answer, by ``occurred_at``;
an assistant's message without content (it calls a tool) is no answer, and a clock that went back measured nothing.
"""

from datetime import datetime

import msgspec

from turnlog.domain import events as e
from turnlog.domain.events import Erased, Event
from turnlog.domain.values import CLOSED

MOST_STEPS = 1_000
"""Steps that are kept of one session; those entered for the first time after that are not counted."""


class StepFate(msgspec.Struct, frozen=True, gc=False):
    """How a session's last stay on a step ended; ``here`` while it lasts."""

    route: str | None
    step: str
    fate: str


class Dialogue(msgspec.Struct, gc=False):
    """It changes in place while it is folded."""

    asked_at: datetime | None = None
    route: str | None = None
    step: str | None = None
    fates: list[StepFate] = []

    def meet(self, event: Event | Erased, occurred_at: datetime) -> float | None:
        """Take in an event; return how long the user waited for it, in seconds, if it is an answer."""
        match event:
            case e.MessageAdded():
                return self._waited(event, occurred_at)
            case e.HistoryCleared() | e.HistoryReplaced():
                self.asked_at = None
            case e.RouteEntered(route):
                self._leave("left")
                self.route = route
            case e.RouteExited(_, completed):
                self._leave("completed" if completed else "left")
                self.route = None
            case e.StepEntered(step):
                self._leave("went_on")
                self.step = step
                self._note("here")
            case _:
                pass
        return None

    def outcomes(self, status: str) -> list[StepFate]:
        """Return the fates, that of the step it is on by the session's status."""
        return [_closed(one, status) if one.fate == "here" else one for one in self.fates]

    def copy(self) -> "Dialogue":
        """Return one to fold on."""
        return Dialogue(self.asked_at, self.route, self.step, list(self.fates))

    def _waited(self, event: e.MessageAdded, occurred_at: datetime) -> float | None:
        if event.role == "user":
            self.asked_at = self.asked_at or occurred_at
        elif event.role == "assistant" and event.content and self.asked_at is not None:
            waited = (occurred_at - self.asked_at).total_seconds()
            self.asked_at = None
            return waited if waited >= 0 else None
        return None

    def _leave(self, fate: str) -> None:
        if self.step is not None:
            self._note(fate)
            self.step = None

    def _note(self, fate: str) -> None:
        if self.step is None:
            return
        noted = StepFate(self.route, self.step, fate)
        known = [i for i, one in enumerate(self.fates) if one.step == self.step and one.route == self.route]
        if known:
            self.fates[known[0]] = noted
        elif len(self.fates) < MOST_STEPS:
            self.fates.append(noted)


def _closed(one: StepFate, status: str) -> StepFate:
    fate = "completed" if status == "completed" else "dropped" if status in CLOSED else "waiting"
    return StepFate(one.route, one.step, fate)
