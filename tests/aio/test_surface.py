"""Both surfaces agree: name by name, parameter by parameter, type by type; and the second is derived from the first."""

import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from types import FunctionType
from typing import Any

import pydantic
import pytest

import turnlog
import turnlog.aio
from scripts import derive_aio
from turnlog.aio.threads import MAX_THREADS, Opening

NAMES = ("ConversationStore", "Followed", "Session", "Subscription", "Turn", "follow", "open")
PAIRS = {getattr(turnlog, name): getattr(turnlog.aio, name) for name in NAMES}
INTERNAL = {
    turnlog.ConversationStore: derive_aio.NOT_PUBLIC,
    turnlog.Followed: frozenset[str](),
    turnlog.Session: frozenset[str](),
    turnlog.Subscription: {"is_over", "ready", "wait"},
    turnlog.Turn: {"begin", "end", "is_of", "is_open", "plain", "say", "was_dropped"},
}
"""What the blocking classes show to each other, and not to applications."""
MANAGED = {"__enter__": "__aenter__", "__exit__": "__aexit__", "__next__": "__anext__", "__iter__": "__aiter__"}
HINTS = {"BaseModel": pydantic.BaseModel}


def members(cls: type) -> dict[str, Any]:
    """Return what is public of a class, and how it is entered and iterated."""
    found = {name: value for name, value in vars(cls).items() if isinstance(value, FunctionType | property)}
    ours = INTERNAL.get(cls, frozenset[str]())
    return {
        MANAGED.get(name, name): value
        for name, value in found.items()
        if name not in ours and (name[0] != "_" or name in MANAGED or name in MANAGED.values())
    }


CASES = [(cls, name) for cls in INTERNAL for name in members(cls)]


def function_of(member: Any) -> Callable[..., Any]:
    """Return the function that a method or property is."""
    function = member.fget if isinstance(member, property) else member
    assert callable(function)
    return function


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any, Any]]:
    """Return name, kind, default and type of every parameter."""
    hints = typing.get_type_hints(function, localns=HINTS)
    found = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, one.default, hints.get(one.name)) for one in found]


def returned(function: Callable[..., Any]) -> Any:
    """Return the type of what is returned; of a coroutine function, of what awaiting it gives."""
    return typing.get_type_hints(function, localns=HINTS).get("return")


def awaitable(hint: Any) -> Any:
    """Return the type that stands for a blocking one."""
    if hint in PAIRS:
        return PAIRS[hint]
    if typing.get_origin(hint) is Iterator:
        return AsyncIterator[typing.get_args(hint)]  # type: ignore[misc]
    if type(None) in typing.get_args(hint):
        (inner,) = (one for one in typing.get_args(hint) if one is not type(None))
        return awaitable(inner) | None
    return hint


def test_it_is_derived() -> None:
    """What is checked in is what the script makes of the blocking classes."""
    assert derive_aio.SURFACE.read_text(encoding="utf-8") == derive_aio.derived()
    assert derive_aio.FOLLOWED.read_text(encoding="utf-8") == derive_aio.derived_followed()


def test_the_exported_names_are_the_public_ones() -> None:
    """`turnlog.aio` has what differs from `turnlog`; the rest is there."""
    assert turnlog.aio.__all__ == sorted(NAMES)
    assert set(NAMES) < set(turnlog.__all__)


@pytest.mark.parametrize("cls", INTERNAL, ids=lambda cls: cls.__name__)
def test_both_have_the_same_names(cls: type) -> None:
    """Each public method and property of the one is a method or property of the other."""
    blocking, aio = (
        {name: isinstance(value, property) for name, value in members(one).items()} for one in (cls, PAIRS[cls])
    )
    attributes = {"position": True} if cls is turnlog.Subscription else {}  # a plain one there, worked out here
    assert aio == blocking | attributes


@pytest.mark.parametrize(("cls", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_both_take_and_give_the_same(cls: type, name: str) -> None:
    """Parameters have the same names, kinds, defaults and types; what is awaited or iterated is of the same type."""
    blocking, aio = function_of(members(cls)[name]), function_of(members(PAIRS[cls])[name])
    assert parameters(aio) == parameters(blocking)
    if name not in MANAGED.values():
        assert returned(aio) == awaitable(returned(blocking))
        assert aio.__doc__


@pytest.mark.parametrize(("cls", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_what_does_io_is_awaited(cls: type, name: str) -> None:
    """Everything is, but for what the script says does no I/O, and what gives something to iterate or to enter."""
    aio = function_of(members(PAIRS[cls])[name])
    lazily = typing.get_origin(returned(aio)) is AsyncIterator or name in ("__aiter__", "turn", "subscribe")
    of_memory = isinstance(members(cls)[name], property) and name not in derive_aio.IO_PROPERTIES
    free = name in derive_aio.NO_IO or of_memory or (cls is turnlog.Subscription and name == "close")
    assert inspect.iscoroutinefunction(aio) is not (lazily or free)


def test_open_takes_the_same_and_max_threads() -> None:
    """It gives something that is awaited or entered."""
    blocking, aio = parameters(turnlog.open), parameters(turnlog.aio.open)
    extra = ("max_threads", inspect.Parameter.KEYWORD_ONLY, MAX_THREADS, int)
    assert [one for one in aio if one != extra] == blocking
    assert extra in aio
    assert returned(turnlog.aio.open) == Opening[turnlog.aio.ConversationStore]


def test_follow_takes_the_same() -> None:
    """It follows a store of its own kind, and gives something that is awaited or entered."""
    blocking, aio = parameters(turnlog.follow), parameters(turnlog.aio.follow)
    assert aio == [(*one[:3], awaitable(one[3])) for one in blocking]
    assert returned(turnlog.aio.follow) == Opening[turnlog.aio.Followed]
