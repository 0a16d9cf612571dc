"""The tree of errors."""

import copy
import pickle

import pytest

from turnlog.domain import errors
from turnlog.domain.errors import InvalidInput, SessionNotFound, TurnlogError

TREE: dict[str, tuple[str, ...]] = {
    "TurnlogError": ("Exception",),
    "InvalidInput": ("TurnlogError", "ValueError"),
    "SessionNotFound": ("TurnlogError", "KeyError"),
    "RuleViolation": ("TurnlogError",),
    "SessionClosed": ("RuleViolation",),
    "SessionGone": ("RuleViolation",),
    "NotOwner": ("RuleViolation",),
    "IdempotencyConflict": ("RuleViolation",),
    "StoreError": ("TurnlogError",),
    "ConcurrencyConflict": ("StoreError",),
    "StoreUnavailable": ("StoreError",),
    "OutcomeUnknown": ("StoreError",),
    "UnknownEvent": ("StoreError",),
    "CorruptLog": ("StoreError",),
}
CLASSES: dict[str, type[Exception]] = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
}


def test_the_tree_is_the_one_that_is_drawn() -> None:
    """Every error stands where users catch it, and each is in the picture above them."""
    assert {name: tuple(base.__name__ for base in cls.__bases__) for name, cls in CLASSES.items()} == TREE
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in TREE)


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("content[2].text", "expected a str, got bytes"),
        SessionNotFound("s-1"),
        *(cls("why") for name, cls in CLASSES.items() if name not in ("InvalidInput", "SessionNotFound")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_being_copied(error: Exception) -> None:
    """Sent to another process or copied, it is the same error with the same words."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)


def test_invalid_input_names_its_field() -> None:
    """The message begins with the field; field and expectation can be asked for."""
    error = InvalidInput("content[2].text", "expected a str, got bytes")
    assert str(error) == "content[2].text: expected a str, got bytes"
    assert (error.field, error.expected) == ("content[2].text", "expected a str, got bytes")


def test_session_not_found_reads_as_a_sentence() -> None:
    """A KeyError would show its message in quotes."""
    error: TurnlogError = SessionNotFound("s-1")
    assert str(error) == "no session 's-1'"
