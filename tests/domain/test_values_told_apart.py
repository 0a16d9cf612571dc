"""When two JSON values are the same, everywhere it decides whether a command changes something."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from turnlog.domain import commands as c
from turnlog.domain import events as e
from turnlog.domain.commands import Command, Found, FoundMessage, FoundRun, fingerprint
from turnlog.domain.errors import InvalidInput, RuleViolation
from turnlog.domain.events import Event, Json
from turnlog.domain.session import same_json
from turnlog.testing.scenario import Outcome, given, naming, started

SAME: list[tuple[Json, Json]] = [
    (1, 1),
    (1.0, 1.0),
    (True, True),
    (None, None),
    ("", ""),
    ("é\0", "é\0"),
    (10**30, 10**30),
    ([], []),
    ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
    ([{"a": {"x": 1, "y": 2}}], [{"a": {"y": 2, "x": 1}}]),
]
DIFFERENT: list[tuple[Json, Json]] = [
    (1, 1.0),
    (1, True),
    (1.0, True),
    (0, False),
    (0, None),
    (0.0, -0.0),
    (1e22, 10**22),
    (2**53, 2.0**53),
    (1, "1"),
    ("", None),
    ([], {}),
    ([], None),
    ("é", "e\u0301"),
    ([1, 2], [2, 1]),
    ([1], [1.0]),
    ({"a": 1}, {"a": True}),
    ({"a": {"b": [1]}}, {"a": {"b": [1.0]}}),
    ({"a": None}, {}),
]


class Place(NamedTuple):
    """Somewhere a value is held: how a command offers it another one, and what that one's event is."""

    offer: Callable[[Json, Json], Outcome]
    event: Callable[[Json], Event]


def offered(event: Callable[[Json], Event], command: Callable[[Json], Command]) -> Place:
    """Return a place that an event fills and a command offers to."""

    def offer(old: Json, new: Json) -> Outcome:
        return started(event(old)).when(command(new))

    return Place(offer, event)


def collected(value: Json) -> e.DataCollected:
    """Return the event of this value."""
    return e.DataCollected(values={"k": value})


def edited(content: Json) -> e.MessageEdited:
    """Return the event of this content."""
    return e.MessageEdited(message_id="m1", content=content)


def offer_content(old: Json, new: Json) -> Outcome:
    """Edit a message that says the old."""
    return started().when(c.EditMessage("m1", new), Found(message=FoundMessage("m1", old)))


def offer_start(old: Json, new: Json) -> Outcome:
    """Start a run that was started with the old."""
    return started().when(c.StartRun("r1", {"k": new}), Found(run=FoundRun({"k": old})))


def offer_finish(old: Json, new: Json) -> Outcome:
    """Finish a run that has finished with the old."""
    finished = c.FinishRun("r1", "completed", old)
    return started().when(c.FinishRun("r1", "completed", new), Found(run=FoundRun({}, finished)))


def offer_initial(old: Json, new: Json) -> Outcome:
    """Collect in a session that was started with the old."""
    return given(e.SessionStarted(data={"k": old})).when(c.Collect({"k": new}))


PLACES = {
    "data": offered(collected, lambda value: c.Collect({"k": value})),
    "initial data": Place(offer_initial, collected),
    "context": offered(lambda value: e.ContextSet(values={"k": value}), lambda value: c.SetContext({"k": value})),
    "metadata": offered(lambda value: e.MetadataSet(values={"k": value}), lambda value: c.SetMetadata({"k": value})),
    "content": Place(offer_content, edited),
}

places = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
repeats = pytest.mark.parametrize("offer", [offer_start, offer_finish])
same = pytest.mark.parametrize(("old", "new"), SAME, ids=repr)
different = pytest.mark.parametrize(("old", "new"), DIFFERENT, ids=repr)


@same
def test_same_json_is_true_of_equal_values_in_any_order_of_keys(old: Json, new: Json) -> None:
    """The order of keys does not matter."""
    assert same_json(old, new)
    assert same_json(new, old)


@different
def test_same_json_tells_values_apart_that_python_calls_equal(old: Json, new: Json) -> None:
    """1, 1.0 and true are three values."""
    assert not same_json(old, new)
    assert not same_json(new, old)


@places
@same
def test_an_equal_value_is_no_event(place: Place, old: Json, new: Json) -> None:
    """Saying again what is already so changes nothing."""
    place.offer(old, new).nothing()


@places
@different
def test_a_value_of_another_kind_is_an_event(place: Place, old: Json, new: Json) -> None:
    """Stored values come back as they were given, so 1.0 replaces 1 and true replaces both."""
    for before, after in ((old, new), (new, old)):
        place.offer(before, after).then(place.event(after))


@repeats
@same
def test_a_run_told_again_in_the_same_words_is_no_event(
    offer: Callable[[Json, Json], Outcome], old: Json, new: Json
) -> None:
    """Starting or finishing a run a second time with equal values changes nothing."""
    offer(old, new).nothing()


@repeats
@different
def test_a_run_told_again_in_other_words_is_refused(
    offer: Callable[[Json, Json], Outcome], old: Json, new: Json
) -> None:
    """A run does not change its details or its result afterwards."""
    offer(old, new).refused(RuleViolation, "'r1'")


@same
def test_equal_commands_have_one_fingerprint(old: Json, new: Json) -> None:
    """A retry is known as such by its values, in whatever order its keys come."""
    assert fingerprint((c.Collect({"k": old}),)) == fingerprint((c.Collect({"k": new}),))
    assert len(fingerprint((c.Collect({"k": old}),))) == 16


@different
def test_other_commands_have_another_fingerprint(old: Json, new: Json) -> None:
    """A key that is used again for something else is noticed, also where Python calls the values equal."""
    assert fingerprint((c.Collect({"k": old}),)) != fingerprint((c.Collect({"k": new}),))


def test_only_what_differs_is_stored() -> None:
    """Of several values given, the event holds those that change something."""
    session = started(e.DataCollected(values={"a": 1, "b": 2}))
    after = session.when(c.Collect({"b": 2, "a": True, "c": None})).then(e.DataCollected(values={"a": True, "c": None}))
    assert repr(after.data) == "{'a': True, 'b': 2, 'c': None}"


def test_null_is_a_value_and_a_missing_key_is_none() -> None:
    """A key never given and a key given as null are different sessions."""
    started().when(c.Collect({"k": None})).then(e.DataCollected(values={"k": None}))
    started(e.DataCollected(values={"k": None})).when(c.Collect({"k": None})).nothing()


def test_what_is_named_must_be_there() -> None:
    """An id that the session does not know is InvalidInput, naming the field and the id."""
    session = started()
    session.when(c.EditMessage("m9", "x")).refused(InvalidInput, naming("message_id"), "'m9'")
    session.when(c.RemoveMessage("m9")).refused(InvalidInput, naming("message_id"), "'m9'")
    session.when(c.ReturnTool("c9", "x")).refused(InvalidInput, naming("call_id"), "'c9'")
    session.when(c.FinishRun("r9", "completed")).refused(InvalidInput, naming("run_id"), "'r9'")
