"""What Hypothesis draws, for the tests of all rooms: JSON as turnlog takes it, events, commands, whole histories."""

from collections.abc import Callable
from datetime import UTC, datetime
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from turnlog.domain import commands as c
from turnlog.domain.commands import Command
from turnlog.domain.events import Event, Json, ReplacementMessage
from turnlog.domain.values import ROLES, RUN_STATUSES, STATUSES
from turnlog.testing.conversation import Conversation

T = TypeVar("T")

# --- values -----------------------------------------------------------------------------------------------------------

AWKWARD = [
    "",
    "\0",
    "\x7f",
    "é",
    "e\u0301",
    "👩‍👩‍👧",
    "\u2028",
    "\ufeff",
    "\uffff",
    "\U0010ffff",
    '"',
    "\\u0000",
    "null",
    '","private":',
]
text: st.SearchStrategy[str] = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(AWKWARD)
ids: st.SearchStrategy[str] = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=255)
times: st.SearchStrategy[datetime] = st.datetimes(timezones=st.just(UTC), allow_imaginary=False).map(
    lambda time: time.replace(fold=0)
)

EDGES: list[int | float] = [
    1e22,
    -0.0,
    5e-324,
    1.7976931348623157e308,
    0.1,
    1e16,
    2**53,
    2**63,
    2**64,
    -(2**63) - 1,
    10**40,
]
floats: st.SearchStrategy[float] = st.floats(allow_nan=False, allow_infinity=False)
scalars: st.SearchStrategy[Json] = st.one_of(
    st.none(), st.booleans(), st.integers(), floats, st.sampled_from(EDGES), st.sampled_from([0, 1, 0.0, 1.0]), text
)


def _nested(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3)


json_values: st.SearchStrategy[Json] = st.recursive(scalars, _nested, max_leaves=8)
json_objects: st.SearchStrategy[dict[str, Json]] = st.dictionaries(text, json_values, max_size=3)

# --- events, from their declared fields -------------------------------------------------------------------------------


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Draw a value for a field as the events declare it; a field of a new type fails here, and is not left untested."""
    known: dict[Any, st.SearchStrategy[Any]] = {
        Any: json_values,
        str: text,
        bool: st.booleans(),
        int: st.integers(0, 2**53),
        datetime: times,
        NoneType: st.none(),
    }
    if hint in known:
        return known[hint]
    arguments = get_args(hint)
    match get_origin(hint):
        case origin if origin in (Union, UnionType):
            return st.one_of(*map(of_type, arguments))
        case origin if origin is dict:
            return st.dictionaries(of_type(arguments[0]), of_type(arguments[1]), max_size=3)
        case origin if origin is list:
            return st.lists(of_type(arguments[0]), max_size=3)
        case origin if origin is tuple:
            return st.lists(of_type(arguments[0]), max_size=3).map(tuple)
        case _:
            return struct(hint)


def struct(cls: type[T]) -> st.SearchStrategy[T]:
    """Draw any value of a class of events, each of its fields filled."""
    assert issubclass(cls, msgspec.Struct), cls
    return st.builds(cls, **{name: of_type(hint) for name, hint in get_type_hints(cls).items()})


EVENTS: tuple[type[Event], ...] = get_args(Event)
events: st.SearchStrategy[Event] = st.sampled_from(EVENTS).flatmap(struct)

# --- commands, from few names, so that they meet ----------------------------------------------------------------------

_keys = st.sampled_from(["a", "b", "c", ""])
_small = scalars | st.lists(scalars, max_size=2) | st.dictionaries(_keys, scalars, max_size=2)
_values = st.dictionaries(_keys, _small, max_size=2)
_some_keys = st.lists(_keys, max_size=3, unique=True).map(tuple)
_users = st.sampled_from(["alice", "bob"])
_routes = st.sampled_from(["booking", "support", "goodbye"])
_steps = st.sampled_from(["one", "two"])
_messages = st.integers(1, 9).map("m{}".format)
_calls = st.sampled_from(["c1", "c2"])
_runs = st.sampled_from(["r1", "r2"])
_maybe = st.none() | st.sampled_from(["", "why", "é\0"])
_tool_calls = st.none() | st.lists(_values, max_size=2)
_roles = st.sampled_from(sorted(ROLES))
_new_message = st.builds(c.AddMessage, _messages, _roles, _small, _maybe, _tool_calls, _maybe, st.none() | _values)


def _message_id(message: Any) -> str:
    return str(message.message_id)


def _distinct(messages: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(messages, max_size=3, unique_by=_message_id).map(tuple)


@st.composite
def _replacements(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    drawn = draw(struct(ReplacementMessage))
    return msgspec.structs.replace(drawn, message_id=draw(_messages), role=draw(_roles))


COMMANDS: dict[type[Any], st.SearchStrategy[Any]] = {
    c.StartSession: st.builds(
        c.StartSession,
        user_id=st.none() | _users,
        agent=_maybe,
        data=_values,
        context=_values,
        metadata=_values,
        continued_from=_maybe,
    ),
    c.AddMessage: _new_message,
    c.EditMessage: st.builds(c.EditMessage, _messages, _small),
    c.RemoveMessage: st.builds(c.RemoveMessage, _messages),
    c.PopMessage: st.just(c.PopMessage()),
    c.ClearHistory: st.just(c.ClearHistory()),
    c.SetHistory: st.builds(c.SetHistory, _distinct(_replacements())),
    c.CompactHistory: st.builds(c.CompactHistory, _messages, _small, st.integers(0, 5)),
    c.Collect: st.builds(c.Collect, _values),
    c.Discard: st.builds(c.Discard, _some_keys),
    c.ClearData: st.just(c.ClearData()),
    c.SetContext: st.builds(c.SetContext, _values, _some_keys),
    c.SetMetadata: st.builds(c.SetMetadata, _values, _some_keys),
    c.EnterRoute: st.builds(c.EnterRoute, _routes, _maybe, _maybe),
    c.ExitRoute: st.builds(c.ExitRoute, st.booleans()),
    c.EnterStep: st.builds(c.EnterStep, _steps, _maybe),
    c.PlanTransition: st.builds(c.PlanTransition, _routes, _maybe, _maybe),
    c.CancelTransition: st.just(c.CancelTransition()),
    c.CallTool: st.builds(c.CallTool, _calls, text, _small),
    c.ReturnTool: st.builds(c.ReturnTool, _calls, _small, _maybe, _maybe),
    c.StartRun: st.builds(c.StartRun, _runs, _values),
    c.FinishRun: st.builds(
        c.FinishRun, _runs, st.sampled_from(sorted(RUN_STATUSES)), _small, _maybe, st.none() | _values
    ),
    c.SetStatus: st.builds(c.SetStatus, st.sampled_from(sorted(STATUSES)), _maybe),
    c.AssignOwner: st.builds(c.AssignOwner, _users),
    c.DeleteSession: st.just(c.DeleteSession()),
}
"""Every command by its class."""

_said = st.one_of(*(strategy for cls, strategy in COMMANDS.items() if cls not in (c.StartSession, c.DeleteSession)))
_in_full = st.lists(_said, max_size=6) | st.lists(_said, min_size=20, max_size=40)
_goodbye: list[list[Command]] = [[], [c.SetStatus("active"), c.AddMessage("last", "user", "bye")]]
commands: st.SearchStrategy[Command] = st.one_of(*COMMANDS.values())


def converse(said: list[Command]) -> Conversation:
    """Say all of it to a new session; what the rules forbid falls away."""
    conversation = Conversation()
    for command in said:
        conversation.say(command)
    return conversation


def _joined(parts: tuple[Command, list[Command], list[Command]]) -> list[Command]:
    return [parts[0], *parts[1], *parts[2]]


def _conversations(ends: list[list[Command]]) -> st.SearchStrategy[Conversation]:
    parts = st.tuples(COMMANDS[c.StartSession], _in_full, st.sampled_from(ends))
    return parts.map(_joined).map(converse)


conversations: st.SearchStrategy[Conversation] = _conversations([*_goodbye, [c.DeleteSession()]])
"""Sessions with a valid past: what ``decide`` made of what was said."""
living: st.SearchStrategy[Conversation] = _conversations(_goodbye)
"""Those of them that were not deleted."""
