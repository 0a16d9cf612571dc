"""What the state machine says to a session: a method's name and its arguments.

They are drawn from few names, so that they meet.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from hypothesis import strategies as st

from turnlog import Message, Receipt, Session
from turnlog.domain.values import ROLES, RUN_STATUSES, STATUSES


class Said(NamedTuple):
    """One call on a session."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def to(self, session: Session) -> Receipt | Message | None:
        """Say it."""
        method: Callable[..., Receipt | Message | None] = getattr(session, self.name)
        return method(*self.args, **self.kwargs)


IDS = ("s1", "s2", "s3", "s4")
USERS = ("alice", "bob")
AGENTS = ("waiter", "cook")
ROUTES = ("booking", "support")

message_ids = st.sampled_from(["m1", "m2", "m3", "m4", "m5"])
call_ids = st.sampled_from(["c1", "c2"])
_texts = st.sampled_from(["", "hello", "a table\0for two", "👩‍👩‍👧"])
_maybe = st.none() | _texts
_contents = _texts | st.sampled_from([None, [], [{"type": "text", "text": "hi"}]])
_scalars = st.sampled_from([None, True, 1, 1.0, "1", -0.0, 1e22, 2**64])
_values = _scalars | st.lists(_scalars, max_size=2) | st.dictionaries(st.sampled_from(["a", ""]), _scalars, max_size=2)
objects = st.dictionaries(st.sampled_from(["a", "b", "c", ""]), _values, max_size=3)
_keys = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=3)
_routes = st.sampled_from(ROUTES)
_steps = st.sampled_from(["date", "size"])
_runs = st.sampled_from(["r1", "r2"])
_times = st.sampled_from([datetime(2020, 5, 5, tzinfo=UTC), datetime(2031, 5, 5, tzinfo=UTC)])
_tool_calls = st.lists(st.fixed_dictionaries({"id": call_ids, "name": st.just("find")}), max_size=2)
_roles = st.sampled_from(sorted(ROLES - {"tool", "assistant"}))

_words = st.fixed_dictionaries(
    {"role": _roles, "content": _contents}, optional={"name": _texts, "metadata": objects, "occurred_at": _times}
)
_calls = st.fixed_dictionaries({"role": st.just("assistant"), "content": st.none(), "tool_calls": _tool_calls})
_results = st.fixed_dictionaries({"role": st.just("tool"), "content": _texts, "tool_call_id": call_ids})
_messages = st.one_of(_words, _calls, _results)


def messages_with(ids: st.SearchStrategy[str], size: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Draw messages as dicts, their ids distinct."""
    pairs = st.tuples(ids, _messages).map(lambda pair: {"message_id": pair[0], **pair[1]})
    return st.lists(pairs, max_size=size, unique_by=lambda message: str(message["message_id"]))


_named = st.tuples(message_ids, _messages).map(lambda pair: {"message_id": pair[0], **pair[1]})


def _call(name: str, /, *args: st.SearchStrategy[Any], **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Said]:
    return st.builds(Said, st.just(name), st.tuples(*args), st.fixed_dictionaries({}, optional=optional))


_add = st.one_of(_messages, _messages, _named).map(lambda fields: Said("add_message", (), fields))
_COMMANDS: tuple[st.SearchStrategy[Said], ...] = (
    _add,
    _add,
    _add,
    _call("add_messages", messages_with(message_ids, 3)),
    _call("edit_message", message_ids, _contents),
    _call("remove_message", message_ids),
    _call("pop_message"),
    _call("clear_history"),
    _call("set_history", messages_with(st.sampled_from(["h1", "h2", "m1", "m2"]), 3)),
    _call("compact_history", _texts, st.integers(0, 4)),
    _call("collect", objects),
    _call("collect", objects),
    st.builds(Said, st.just("discard"), _keys.map(tuple), st.just({})),
    st.just(Said("discard", ("a", "b", "c", ""), {})),
    _call("clear_data"),
    _call("set_context", objects, unset=_keys),
    _call("set_metadata", objects, unset=_keys),
    _call("enter_route", _routes, title=_maybe, reason=_maybe),
    _call("exit_route", completed=st.booleans()),
    _call("enter_step", _steps, description=_maybe),
    _call("plan_transition", _routes, condition=_maybe, reason=_maybe),
    _call("cancel_transition"),
    _call("call_tool", st.just("find"), _values, call_id=call_ids),
    _call("return_tool", call_ids, _values, name=_maybe, error=_maybe),
    st.builds(Said, st.just("start_run"), st.tuples(_runs) | st.just(()), st.sampled_from([{}, {"model": "m"}])),
    _call(
        "finish_run", _runs, status=st.sampled_from(sorted(RUN_STATUSES)), result=_values, usage=st.none() | objects
    ).filter(lambda said: "status" in said.kwargs),
    _call("set_status", st.sampled_from(sorted(STATUSES)), reason=_maybe),
    _call("set_status", st.sampled_from(["active", "paused"])),
    st.sampled_from(["pause", "complete", "abandon", "fail", "expire", "archive", "reopen", "reopen", "reopen"]).map(
        lambda name: Said(name, (), {})
    ),
    _call("assign_owner", st.sampled_from(USERS)),
)

_options = st.one_of(
    st.just({}),
    st.just({}),
    st.just({}),
    st.fixed_dictionaries({"command_id": st.sampled_from(["k1", "k2"])}),
    st.fixed_dictionaries({"expected_version": st.sampled_from([0, 0, -1, 1])}),
    st.fixed_dictionaries({"occurred_at": _times}),
)
bare: st.SearchStrategy[Said] = st.one_of(*_COMMANDS)
"""Any command."""


def _with(pair: tuple[Said, Mapping[str, Any]]) -> Said:
    said, options = pair
    return said if "message_id" in said.kwargs else said._replace(kwargs={**said.kwargs, **options})


said: st.SearchStrategy[Said] = st.tuples(bare, _options).map(_with)
"""Any command, some with the keywords of a write; ``expected_version`` is relative to what it is."""


def expecting(said: Said, version: int) -> Said:
    """Make its ``expected_version``, if it has one, that of the session."""
    offset = said.kwargs.get("expected_version")
    if offset is None:
        return said
    return said._replace(kwargs={**said.kwargs, "expected_version": max(0, version + offset)})
