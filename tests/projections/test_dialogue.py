"""What becomes of steps, and how long answers take: the fold."""

from datetime import UTC, datetime, timedelta

from turnlog.domain import events as e
from turnlog.projections.dialogue import MOST_STEPS, Dialogue

START = datetime(2025, 1, 1, tzinfo=UTC)


def folded(*events: e.Event) -> Dialogue:
    """Fold events a second apart."""
    dialogue = Dialogue()
    for i, event in enumerate(events):
        dialogue.meet(event, START + timedelta(seconds=i))
    return dialogue


def fates(dialogue: Dialogue, status: str = "active") -> list[tuple[str | None, str, str]]:
    """Return route, step and fate of each step."""
    return [(one.route, one.step, one.fate) for one in dialogue.outcomes(status)]


def said(role: str, content: str | None) -> e.MessageAdded:
    """Return a message."""
    return e.MessageAdded(message_id="m", role=role, content=content)


def test_how_stays_end() -> None:
    """By another step, by the route's end, by another route; the last stay on a step counts."""
    dialogue = folded(
        e.StepEntered("before"),
        e.RouteEntered("a"),
        e.StepEntered("x"),
        e.StepEntered("y"),
        e.RouteExited("a", completed=True),
        e.RouteEntered("b"),
        e.StepEntered("x"),
        e.RouteEntered("a"),
        e.StepEntered("x"),
    )
    ended = [(None, "before", "left"), ("a", "y", "completed"), ("b", "x", "left")]
    for status, fate in (
        ("active", "waiting"),
        ("paused", "waiting"),
        ("completed", "completed"),
        ("failed", "dropped"),
    ):
        assert sorted(fates(dialogue, status), key=str) == sorted([*ended, ("a", "x", fate)], key=str)


def test_steps_are_bounded() -> None:
    """A session that enters steps without end stays small; those that are known go on being followed."""
    dialogue = folded(*(e.StepEntered(f"s{i}") for i in range(MOST_STEPS + 5)), e.StepEntered("s1"))
    assert len(dialogue.fates) == MOST_STEPS
    assert (None, "s1", "waiting") in fates(dialogue)


def test_waiting() -> None:
    """The first unanswered message counts; a tool call is no answer; a clock that went back measures nothing."""
    dialogue = Dialogue()

    def meet(event: e.Event, seconds: float) -> float | None:
        return dialogue.meet(event, START + timedelta(seconds=seconds))

    assert meet(said("user", "a"), 0) is None
    assert meet(said("user", "b"), 5) is None
    assert meet(said("assistant", None), 6) is None
    assert meet(said("assistant", "c"), 8) == 8.0
    assert meet(said("assistant", "d"), 9) is None
    assert meet(said("user", "e"), 10) is None
    assert meet(said("assistant", "f"), 7) is None
    assert meet(said("user", "g"), 20) is None
    assert meet(e.HistoryCleared(), 21) is None
    assert meet(said("assistant", "h"), 22) is None


def test_a_copy_is_another() -> None:
    """Folding on a copy leaves the first as it was."""
    first = folded(e.StepEntered("x"))
    first.copy().meet(e.StepEntered("y"), START)
    assert fates(first) == [(None, "x", "waiting")]
