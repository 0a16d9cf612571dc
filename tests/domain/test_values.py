"""Constants that say the same thing twice say the same."""

from typing import Any, get_args

import msgspec
import pytest

from turnlog.domain import values
from turnlog.domain.commands import ALLOWED_WHEN_CLOSED, LOOKING_UP, Command
from turnlog.domain.events import TOPICS, Event
from turnlog.domain.values import CLOSED, ROLES, RUN_STATUSES, STATUSES, Role, RunStatus, Status

STRUCTS: list[type[Any]] = [
    *get_args(Event),
    *get_args(Command),
    *(value for value in vars(values).values() if isinstance(value, type) and issubclass(value, msgspec.Struct)),
]


def test_types_and_sets_name_the_same_words() -> None:
    """What a type checker accepts is what is accepted."""
    assert set(get_args(Role)) == ROLES
    assert set(get_args(Status)) == STATUSES
    assert set(get_args(RunStatus)) == RUN_STATUSES
    assert {"active", "paused", *CLOSED} == STATUSES
    assert len(CLOSED) == 5


def test_every_event_has_one_topic() -> None:
    """Each class is stored under its own name and the number of its schema."""
    assert set(TOPICS.values()) == set(get_args(Event))
    assert len(TOPICS) == len(get_args(Event))
    assert all(topic.rpartition(".v")[0] == cls.__name__ for topic, cls in TOPICS.items())


def test_the_lists_of_commands_are_of_commands() -> None:
    """A tuple that is asked with ``isinstance`` names nothing but commands."""
    assert {*ALLOWED_WHEN_CLOSED, *LOOKING_UP} <= set(get_args(Command))


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_values_are_frozen(struct: type[Any]) -> None:
    """Whoever is given an event, a command or a value can rely on it."""
    assert struct.__struct_config__.frozen
