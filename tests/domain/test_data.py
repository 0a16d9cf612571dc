"""Data, context and metadata: merging, discarding, clearing, and what was collected on which route."""

from collections.abc import Callable

import pytest

from turnlog.domain import commands as c
from turnlog.domain import events as e
from turnlog.domain.commands import Command
from turnlog.domain.events import Event, Json
from turnlog.testing.scenario import started, state_of

ON_A = e.RouteEntered(route="a")
ON_B = e.RouteEntered(route="b")


def collected(**values: Json) -> e.DataCollected:
    """Return the event of these values."""
    return e.DataCollected(values=values)


def test_collecting_merges_shallowly() -> None:
    """A value replaces the one of its key as a whole; other keys stay."""
    after = started(collected(a={"x": 1, "y": 2}, b=1)).when(c.Collect({"a": {"x": 3}})).then(collected(a={"x": 3}))
    assert after.data == {"a": {"x": 3}, "b": 1}


def test_data_before_any_route_is_in_data_only() -> None:
    """``data_by_route`` knows only what was collected on a route."""
    after = state_of(e.SessionStarted(data={"a": 1}), collected(b=2), ON_A, collected(c=3))
    assert (after.data, after.data_by_route) == ({"a": 1, "b": 2, "c": 3}, {"a": {"c": 3}})


def test_data_after_leaving_a_route_is_in_data_only() -> None:
    """Once the route is left, values belong to none again."""
    after = state_of(e.SessionStarted(), ON_A, collected(a=1), e.RouteExited(route="a"), collected(b=2))
    assert (after.data, after.data_by_route) == ({"a": 1, "b": 2}, {"a": {"a": 1}})


def test_each_route_keeps_what_was_collected_on_it() -> None:
    """The same key on two routes is kept for both; a route entered again goes on where it was."""
    after = state_of(e.SessionStarted(), ON_A, collected(k=1, x=1), ON_B, collected(k=2), ON_A, collected(k=3))
    assert after.data == {"k": 3, "x": 1}
    assert after.data_by_route == {"a": {"k": 3, "x": 1}, "b": {"k": 2}}


def test_discarding_reaches_every_route() -> None:
    """A discarded key is gone from data and from each route; a route left without values is gone as well."""
    session = started(ON_A, collected(k=1, x=1), ON_B, collected(k=2))
    after = session.when(c.Discard(("k",))).then(e.DataCollected(removed=("k",)))
    assert (after.data, after.data_by_route) == ({"x": 1}, {"a": {"x": 1}})


def test_discarding_names_only_what_is_there() -> None:
    """Keys that are missing are not mentioned; of missing keys alone nothing is recorded."""
    session = started(collected(a=1, b=None))
    session.when(c.Discard(("z", "b", "y"))).then(e.DataCollected(removed=("b",)))
    session.when(c.Discard(("z",))).nothing()
    session.when(c.Discard(())).nothing()


def test_collecting_nothing_is_no_event() -> None:
    """No values, no event."""
    started().when(c.Collect({})).nothing()


def test_a_discarded_key_can_be_collected_again() -> None:
    """Discarding leaves no trace that would make a later value look like the present one."""
    session = started(collected(a=1), e.DataCollected(removed=("a",)))
    assert session.when(c.Collect({"a": 1})).then(collected(a=1)).data == {"a": 1}


def test_clearing_empties_data_and_routes() -> None:
    """Cleared is cleared everywhere; a second time it is no event. Context and metadata are not data."""
    session = started(ON_A, collected(k=1), e.ContextSet(values={"c": 1}), e.MetadataSet(values={"m": 1}))
    after = session.when(c.ClearData()).then(e.DataCleared())
    assert (after.data, after.data_by_route, after.context, after.metadata) == ({}, {}, {"c": 1}, {"m": 1})
    started(collected(k=1), e.DataCleared()).when(c.ClearData()).nothing()
    started().when(c.ClearData()).nothing()


Patch = tuple[
    Callable[[dict[str, Json], tuple[str, ...]], Command], Callable[[dict[str, Json], tuple[str, ...]], Event], str
]
PATCHES: dict[str, Patch] = {
    "context": (
        c.SetContext,
        lambda values, removed: e.ContextSet(values=values, removed=removed),
        "context",
    ),
    "metadata": (
        c.SetMetadata,
        lambda values, removed: e.MetadataSet(values=values, removed=removed),
        "metadata",
    ),
}

patches = pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)


@patches
def test_a_key_set_to_null_stays_null(patch: Patch) -> None:
    """Null is kept as a value; only ``unset`` takes a key away."""
    command, event, field = patch
    session = started(event({"a": 1, "b": 2}, ()))
    after = session.when(command({"a": None}, ())).then(event({"a": None}, ()))
    assert getattr(after, field) == {"a": None, "b": 2}


@patches
def test_setting_and_unsetting_in_one_event(patch: Patch) -> None:
    """Both happen at once; keys that are missing or given a value are not removed."""
    command, event, field = patch
    session = started(event({"a": 1, "b": 2, "c": 3}, ()))
    after = session.when(command({"c": 4, "d": 5}, ("a", "z", "c"))).then(event({"c": 4, "d": 5}, ("a",)))
    assert getattr(after, field) == {"b": 2, "c": 4, "d": 5}


@patches
def test_a_patch_without_effect_is_no_event(patch: Patch) -> None:
    """Equal values, missing keys or nothing at all: nothing is recorded."""
    command, event, _ = patch
    session = started(event({"a": 1}, ()))
    for without_effect in (command({"a": 1}, ("z",)), command({}, ("z",)), command({"a": 1}, ("a",)), command({}, ())):
        session.when(without_effect).nothing()
