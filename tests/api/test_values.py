"""Values come back as they were given, to the type, on every backend, from the log, snapshots and views."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

import turnlog
from turnlog import ConversationStore, Session
from turnlog.testing import strategies

EXACT: list[Any] = [
    *(None, True, False, 0, 1, -1, 0.0, -0.0, 1.0, 1e22, 1e-300, 5e-324, 1.7976931348623157e308, 0.1),
    *(2**53 + 1, 2**63, 2**64, -(2**64), 10**40, 10**1000),
    *("", "\0", "1", "null", "é", "e\u0301", "👩‍👩‍👧", "\u2028", "\ufeff", "\uffff", "\U0010ffff", '"\\/\b\x7f'),
    *([], {}, [[]], [{}], {"": {}}, {"\0": "\0"}, {"a": [1, 1.0, True, "1", None]}),
]


def told_apart(value: JsonValue) -> Any:
    """Return a form in which 1, 1.0, True and -0.0 are not equal."""
    if isinstance(value, dict):
        return {key: told_apart(item) for key, item in value.items()}
    if isinstance(value, list):
        return [told_apart(item) for item in value]
    sign = math.copysign(1, value) if isinstance(value, float) else 0
    return type(value).__name__, value, sign


def everywhere(session: Session, value: Any) -> None:
    """Put a value in every place that takes one."""
    session.collect({"x": value})
    session.set_context({"x": value})
    session.set_metadata({"x": value})
    session.add_message("user", [value], metadata={"x": value})
    session.call_tool("find", value, call_id="c-1")
    session.return_tool("c-1", value)
    session.start_run("r-1", x=value)
    session.finish_run("r-1", status="completed", result=value, usage={"x": value})


def found(session: Session) -> list[Any]:
    """Return it from every place."""
    state, message, run = session.state, session.history()[0], session.runs()[0]
    call, result = session.events(after=5), session.events(after=6)
    return [
        state.data["x"],
        state.context["x"],
        state.metadata["x"],
        message.content[0],
        (message.metadata or {})["x"],
        getattr(next(call).event, "arguments", ...),
        getattr(next(result).event, "content", ...),
        run.details["x"],
        run.result,
        (run.usage or {})["x"],
    ]


@pytest.mark.parametrize("value", EXACT, ids=[f"{n}" for n in range(len(EXACT))])
def test_every_value_comes_back_exactly_from_everywhere(sqlite_url: str, value: Any) -> None:
    """From the handle that wrote it, from the log, from a snapshot and from a view, type and sign included."""
    with turnlog.open(sqlite_url, durability="normal") as store:
        session = store.session("s-1", user_id="alice")
        with session.turn():
            everywhere(session, value)
        assert told_apart(found(session)) == [told_apart(value)] * 10
        session.add_messages([{"role": "user", "content": f"{n}"} for n in range(100)])
    with turnlog.open(sqlite_url) as store:
        again = store.get("s-1")
        assert told_apart(found(again)) == [told_apart(value)] * 10
        message = store.messages(user_id="alice", limit=101).items[-1]
        assert told_apart(message.content) == [told_apart(value)]
        assert again.collect({"x": value}).event_ids == ()


@given(value=strategies.json_values, other=strategies.json_values)
@settings(max_examples=60)
def test_any_json_comes_back_exactly(value: Any, other: Any) -> None:
    """What was collected is what is read; collecting it again changes nothing, collecting another value does."""
    with turnlog.open("memory://") as store:
        session = store.session("s-1")
        session.collect({"x": value})
        assert told_apart(store.get("s-1").data) == {"x": told_apart(value)}
        assert session.collect({"x": value}).event_ids == ()
        differs = told_apart(value) != told_apart(other)
        assert bool(session.collect({"x": other}).event_ids) is differs


@given(texts=st.lists(strategies.text, min_size=4, max_size=4))
@settings(max_examples=60)
def test_any_text_comes_back_exactly(texts: list[str]) -> None:
    """Names, contents, titles and reasons are what was given."""
    content, name, title, key = texts
    with turnlog.open("memory://") as store:
        session = store.session("s-1")
        session.add_message("user", content, name=name, metadata={key: title})
        session.enter_route("booking", title=title)
        session.plan_transition("support", condition=content, reason=name)
        again = store.get("s-1")
        (message,) = again.history()
        assert (message.content, message.name, message.metadata) == (content, name, {key: title})
        assert again.routes()[0].title == title
        planned = again.state.pending_transition
        assert planned is not None
        assert (planned.condition, planned.reason) == (content, name)


def test_1_and_1_0_and_true_are_three_values(store: ConversationStore, session: Session) -> None:
    """Each replaces the other; keys in another order are the same value."""
    values: list[JsonValue] = [1, 1.0, True, "1", [1], [1.0], {"a": 1, "b": 2}]
    for value in values:
        assert session.collect(x=value).event_ids
        assert told_apart(store.get("s-1").data["x"]) == told_apart(value)
    assert session.collect(x={"b": 2, "a": 1}).event_ids == ()
