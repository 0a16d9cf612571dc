"""The edge: what is refused, with which words, and that nothing of it reaches the log."""

import enum
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeAlias

import pytest

import turnlog
from tests.api.conftest import Unchanged
from turnlog import ConversationStore, InvalidInput, Session

Use: TypeAlias = Callable[[ConversationStore, Session, Any], object]


class Colour(enum.StrEnum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


def nested(depth: int) -> list[Any]:
    """Return lists in lists, so many of them."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


SURROGATE = "a\ud800b"
HUGE = 10**5000
NOT_IDS: Mapping[str, Any] = {
    "number": 7,
    "bytes": b"id",
    "enum": Colour.RED,
    "empty": "",
    "too long": "x" * 256,
    "newline": "a\nb",
    "nul": "a\0",
    "delete": "a\x7f",
    "C1 control": "a\x85",
    "lone surrogate": SURROGATE,
}
NOT_TEXT: Mapping[str, Any] = {"number": 7, "bytes": b"x", "enum": Colour.RED, "lone surrogate": SURROGATE}
NOT_JSON: Mapping[str, Any] = {
    "set": {1},
    "frozenset": frozenset({1}),
    "tuple": (1, 2),
    "bytes": b"x",
    "bytearray": bytearray(b"x"),
    "not a number": float("nan"),
    "infinity": float("inf"),
    "minus infinity": float("-inf"),
    "complex": 1j,
    "datetime": datetime(2026, 1, 1, tzinfo=UTC),
    "str enum": Colour.RED,
    "int enum": Number.ONE,
    "object": object(),
    "function": len,
    "int as key": {1: "x"},
    "None as key": {None: "x"},
    "enum as key": {Colour.RED: "x"},
    "lone surrogate": SURROGATE,
    "lone surrogate in a key": {SURROGATE: 1},
    "too deep": nested(65),
    "an int of more digits than Python reads": HUGE,
    "an int of more digits than Python reads, as key": {HUGE: 1},
}


def cyclic() -> list[Any]:
    """Return a list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


IDS: Mapping[str, Use] = {
    "session_id": lambda store, _, x: store.session(x),
    "session_id of get": lambda store, _, x: store.get(x),
    "session_id of exists": lambda store, _, x: store.exists(x),
    "session_id of verify": lambda store, _, x: store.verify(x),
    "session_id of fork": lambda _, session, x: session.fork(x),
    "user_id": lambda store, _, x: store.session("new", user_id=x),
    "user_id of assign_owner": lambda _, session, x: session.assign_owner(x),
    "user_id of for_user": lambda store, _, x: store.for_user(x),
    "user_id of erase_user": lambda store, _, x: store.erase_user(x),
    "user_id of active_session": lambda store, _, x: store.active_session(x),
    "user_id of sessions": lambda store, _, x: store.sessions(user_id=x),
    "user_id of messages": lambda store, _, x: store.messages(user_id=x),
    "agent": lambda store, _, x: store.session("new", agent=x),
    "agent of sessions": lambda store, _, x: store.sessions(agent=x),
    "route of sessions": lambda store, _, x: store.sessions(route=x),
    "message_id": lambda _, session, x: session.add_message("user", "hi", message_id=x),
    "message_id of message": lambda _, session, x: session.message(x),
    "message_id of edit_message": lambda _, session, x: session.edit_message(x, "hi"),
    "message_id of remove_message": lambda _, session, x: session.remove_message(x),
    "messages[0].message_id": lambda _, s, x: s.add_messages([{"role": "user", "content": "hi", "message_id": x}]),
    "before": lambda _, session, x: session.history(before=x),
    "tool_call_id": lambda _, session, x: session.add_message("tool", "hi", tool_call_id=x),
    "call_id": lambda _, session, x: session.call_tool("find", {}, call_id=x),
    "call_id of return_tool": lambda _, session, x: session.return_tool(x, "found"),
    "run_id": lambda _, session, x: session.start_run(x),
    "run_id of finish_run": lambda _, session, x: session.finish_run(x, status="failed"),
    "route": lambda _, session, x: session.enter_route(x),
    "route of plan_transition": lambda _, session, x: session.plan_transition(x),
    "step": lambda _, session, x: session.enter_step(x),
    "actor": lambda _, session, x: session.pause(actor=x),
    "correlation_id": lambda _, session, x: session.pause(correlation_id=x),
    "causation_id": lambda _, session, x: session.pause(causation_id=x),
    "command_id": lambda _, session, x: session.pause(command_id=x),
    "command_id of a turn": lambda _, session, x: session.turn(command_id=x),
    "tenant": lambda _, __, x: turnlog.open("memory://", tenant=x),
}
TEXTS: Mapping[str, Use] = {
    "name": lambda _, session, x: session.add_message("user", "hi", name=x),
    "title": lambda _, session, x: session.enter_route("booking", title=x),
    "reason": lambda _, session, x: session.enter_route("booking", reason=x),
    "reason of set_status": lambda _, session, x: session.complete(reason=x),
    "description": lambda _, session, x: session.enter_step("date", description=x),
    "condition": lambda _, session, x: session.plan_transition("booking", condition=x),
    "reason of plan_transition": lambda _, session, x: session.plan_transition("booking", reason=x),
    "name of call_tool": lambda _, session, x: session.call_tool(x, {}),
    "name of return_tool": lambda _, session, x: session.return_tool("c-1", "found", name=x),
    "error": lambda _, session, x: session.return_tool("c-1", "found", error=x),
    "error of finish_run": lambda _, session, x: session.finish_run("r-1", status="failed", error=x),
    "keys[0]": lambda _, session, x: session.discard(x),
    "unset[0]": lambda _, session, x: session.set_context(unset=[x]),
    "unset[0] of set_metadata": lambda _, session, x: session.set_metadata(unset=[x]),
}
VALUES: Mapping[str, Use] = {
    "content[0].x": lambda _, session, x: session.add_message("user", [{"x": x}]),
    "metadata.x": lambda _, session, x: session.add_message("user", "hi", metadata={"x": x}),
    "tool_calls[0].arguments": lambda _, s, x: s.add_message(
        "assistant", None, tool_calls=[{"id": "c-1", "name": "find", "arguments": x}]
    ),
    "content[0] of edit_message": lambda _, session, x: session.edit_message("m-1", [x]),
    "summary[0]": lambda _, session, x: session.compact_history([x], 0),
    "messages[1].content[0]": lambda _, s, x: s.add_messages(
        [{"role": "user", "content": "hi"}, {"role": "user", "content": [x]}]
    ),
    "messages[0].metadata.x": lambda _, s, x: s.set_history([{"role": "user", "content": "hi", "metadata": {"x": x}}]),
    "values.x": lambda _, session, x: session.collect(x=x),
    "values.x of collect": lambda _, session, x: session.collect({"x": x}),
    "values.x of set_context": lambda _, session, x: session.set_context({"x": x}),
    "values.x of set_metadata": lambda _, session, x: session.set_metadata({"x": x}),
    "arguments": lambda _, session, x: session.call_tool("find", x),
    "content of return_tool": lambda _, session, x: session.return_tool("c-1", x),
    "details.x": lambda _, session, x: session.start_run(x=x),
    "result": lambda _, session, x: session.finish_run("r-1", status="completed", result=x),
    "usage.x": lambda _, session, x: session.finish_run("r-1", status="completed", usage={"x": x}),
    "data.x": lambda store, _, x: store.session("new", data={"x": x}),
    "context.x": lambda store, _, x: store.session("new", context={"x": x}),
    "metadata.x of session": lambda store, _, x: store.session("new", metadata={"x": x}),
    "history[0].content[0]": lambda store, _, x: store.session("new", history=[{"role": "user", "content": [x]}]),
}


def refused(store: ConversationStore, session: Session, unchanged: Unchanged, place: str, use: Use, value: Any) -> None:
    """Require that ``use`` refuses ``value``, naming the field, and leaves no trace."""
    field = place.partition(" of ")[0]
    session.call_tool("find", {}, call_id="c-1")
    session.start_run("r-1")
    session.add_message("user", "hello", message_id="m-1")
    with unchanged(), pytest.raises(InvalidInput) as raised:
        use(store, session, value)
    assert raised.value.field.startswith(field)
    assert str(raised.value).startswith(field)
    str(raised.value).encode()
    assert not store.exists("new")


@pytest.mark.parametrize("place", IDS)
def test_an_id_is_short_text_without_control_characters(
    store: ConversationStore, session: Session, unchanged: Unchanged, place: str
) -> None:
    """What is no id is refused wherever an id is taken, and the field is named."""
    for value in NOT_IDS.values():
        refused(store, session, unchanged, place, IDS[place], value)


@pytest.mark.parametrize("place", TEXTS)
def test_text_is_a_str_that_utf8_can_hold(
    store: ConversationStore, session: Session, unchanged: Unchanged, place: str
) -> None:
    """What is no text is refused wherever text is taken, and the field is named."""
    for value in NOT_TEXT.values():
        refused(store, session, unchanged, place, TEXTS[place], value)


@pytest.mark.parametrize("place", VALUES)
def test_values_are_json(store: ConversationStore, session: Session, unchanged: Unchanged, place: str) -> None:
    """What an encoder would coerce or refuse is refused with its path, wherever a value is taken."""
    for value in [*NOT_JSON.values(), cyclic()]:
        refused(store, session, unchanged, place, VALUES[place], value)


EXTREME = [
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
]
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - what is refused


def pause_in(session: Session, colour: Any) -> object:
    """Pause with a keyword that no write takes."""
    options: dict[str, Any] = {"colour": colour}
    return session.pause(**options)


WRONG: Mapping[str, tuple[Use, list[Any]]] = {
    "role": (lambda _, s, x: s.add_message(x, "hi"), ["robot", "", "User", None, 1, ["user"], SURROGATE, HUGE]),
    "content": (lambda _, s, x: s.add_message("user", x), [1, True, 1.5, {"text": "hi"}, b"hi", ("a",), SURROGATE]),
    "content of edit_message": (lambda _, s, x: s.edit_message("m-1", x), [1, {"text": "hi"}, b"hi"]),
    "tool_calls": (
        lambda _, s, x: s.add_message("assistant", None, tool_calls=x),
        ["find", {"id": "c"}, [1], [{}], [{"id": 5}], [{"id": "c", "name": 5}], 7],
    ),
    "metadata": (lambda _, s, x: s.add_message("user", "hi", metadata=x), ["x", [1], 7, [("a", 1)]]),
    "messages": (
        lambda _, s, x: s.add_messages(x),
        ["hi", 7, None, [7], ["hi"], [{}], [{"role": "user", "colour": "red"}], {"role": "user"}],
    ),
    "messages of set_history": (lambda _, s, x: s.set_history(x), ["hi", 7, None, [7], [{"content": "hi"}]]),
    "messages[0].role": (lambda _, s, x: s.add_messages([{"role": x, "content": "hi"}]), ["robot", None, 7]),
    "messages[0].occurred_at": (
        lambda _, s, x: s.add_messages([{"role": "user", "content": "hi", "occurred_at": x}]),
        ["yesterday", NAIVE, 7, *EXTREME],
    ),
    "history": (lambda store, _, x: store.session("new", history=x), ["hi", 7, [7], [{"role": "robot"}], "", {}, 0]),
    "summary": (lambda _, s, x: s.compact_history(x, 0), [1, {"text": "hi"}, b"x"]),
    "keep_last": (lambda _, s, x: s.compact_history("all", x), [-1, 1.5, "1", True, None]),
    "values": (lambda _, s, x: s.collect(x), [1, "x", [1], [("a", 1)], {1: 1}]),
    "values of set_context": (lambda _, s, x: s.set_context(x), [1, "x", [1], 0, "", [], False]),
    "values of set_metadata": (lambda _, s, x: s.set_metadata(x), [1, "x", [1], 0, "", [], False]),
    "keys": (lambda _, s, x: s.discard(*x), [[1], [None], [SURROGATE]]),
    "unset": (lambda _, s, x: s.set_context(unset=x), ["a", 7, {"a"}, [1], None]),
    "data": (lambda store, _, x: store.session("new", data=x), [[1], "x", 7, {1: 1}]),
    "context": (lambda store, _, x: store.session("new", context=x), [[1], "x", 7, [], "", 0, False]),
    "metadata of session": (lambda store, _, x: store.session("new", metadata=x), [[1], "x", 7, [], "", 0, False]),
    "completed": (lambda _, s, x: s.exit_route(completed=x), [1, "yes", None]),
    "status": (lambda _, s, x: s.set_status(x), ["open", "", None, 1, "Active", SURROGATE]),
    "status of finish_run": (lambda _, s, x: s.finish_run("r-1", status=x), ["active", None, 1]),
    "status of sessions": (lambda store, _, x: store.sessions(status=x), ["open", 1]),
    "occurred_at": (lambda _, s, x: s.pause(occurred_at=x), ["now", 7, NAIVE, *EXTREME]),
    "expected_version": (lambda _, s, x: s.pause(expected_version=x), [-1, 1.0, "1", True, -HUGE]),
    "colour": (lambda _, s, x: pause_in(s, x), ["red"]),
    "last": (lambda _, s, x: s.history(last=x), [-1, 1.5, "1", True]),
    "max_tokens": (lambda _, s, x: s.history(max_tokens=x, count=lambda _: 1), [-1, 1.5, "1", True]),
    "count": (lambda _, s, x: s.history(max_tokens=5, count=x), [None, 7]),
    "at": (lambda _, s, x: s.history(at=x), [-1, 99, 1.0, "1", True, NAIVE, *EXTREME, HUGE]),
    "at of fork": (lambda _, s, x: s.fork(at=x), [-1, 0, 99, 1.0, "1", True, NAIVE]),
    "at of routes": (lambda _, s, x: s.routes(at=x), [-1, 99, "1"]),
    "version": (lambda _, s, x: s.at(x), [-1, 99, 1.0, "1", True, None]),
    "time": (lambda _, s, x: s.at(time=x), ["now", 7, NAIVE, *EXTREME]),
    "from_version": (lambda _, s, x: s.diff(x, 1), [-1, 99, 1.0, "1", True, None]),
    "to_version": (lambda _, s, x: s.diff(1, x), [-1, 99, 1.0, "1", True, None]),
    "after": (lambda store, _, x: list(store.events(after=x)), [-1, 1.0, "1", True, None, 2**63]),
    "after of Session.events": (lambda _, s, x: list(s.events(x)), [-1, 1.0, "1", True, None]),
    "last of Session.events": (lambda _, s, x: list(s.events(last=x)), [-1, 0, 1.0, "1", True]),
    "after of subscribe": (lambda store, _, x: store.subscribe(after=x), [-1, 1.0, "1", True, 2**63]),
    "types": (
        lambda store, _, x: list(store.events(types=x)),
        [[], ["Nothing"], [7], [int], ["MessageAdded.v1"], "x", 7],
    ),
    "limit": (lambda store, _, x: store.sessions(limit=x), [0, -1, 1.5, "1", True, 10_001, HUGE]),
    "limit of messages": (lambda store, _, x: store.messages(user_id="alice", limit=x), [0, 10_001]),
    "limit of events": (lambda store, _, x: list(store.events(limit=x)), [-1, 1.5, "1", True]),
    "cursor": (
        lambda store, _, x: store.sessions(cursor=x),
        ["nonsense", "", "é", b"x", 7, "WzEsMl0", "bnVsbA", "MWU1", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk"],
    ),
    "cursor of messages": (
        lambda store, _, x: store.messages(user_id="alice", cursor=x),
        ["nonsense", "", "NQ", "WzFd", "Wzk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5LDFd"],
    ),
    "older_than": (lambda store, _, x: store.sessions(older_than=x), ["now", 7, NAIVE, *EXTREME]),
    "newer_than": (lambda store, _, x: store.sessions(newer_than=x), ["now", 7, NAIVE]),
    "consistency": (lambda store, _, x: store.sessions(consistency=x), ["weak", None, 7]),
    "vacuum": (lambda store, _, x: store.scrub(vacuum=x), [1, None, "yes"]),
    "preserve_history": (lambda _, s, x: s.reset(preserve_history=x), [1, None, "yes"]),
    "view": (lambda store, _, x: store.rebuild(x), ["nowhere", ""]),
    "callback": (lambda store, _, x: store.on_committed(x), [None, 7]),
    "data_model": (lambda store, _, x: store.session("new", data_model=x), [dict, 7, "model"]),
    "data_model of data_as": (lambda _, s, __: s.data_as(), [None]),
    "user_id of messages": (lambda store, _, __: store.messages(), [None]),
    "user_id of active_session": (lambda store, _, __: store.active_session(), [None]),
    "call_id": (lambda _, s, x: s.return_tool(x, "found"), ["never called"]),
    "run_id": (lambda _, s, x: s.finish_run(x, status="failed"), ["never started"]),
    "message_id": (lambda _, s, x: s.edit_message(x, "hi"), ["never said"]),
    "message_id of remove_message": (lambda _, s, x: s.remove_message(x), ["never said"]),
    "before": (lambda _, s, x: s.history(before=x), ["never said"]),
    "heads": (lambda store, _, x: store.verify(heads=x), ["/nowhere/heads.jsonl"]),
    "url": (
        lambda _, __, x: turnlog.open(x),
        ["", "oracle://x", "sqlite://", "sqlite:///", "sqlite://[x", None, 7, b"memory://"],
    ),
    "clock": (lambda _, __, x: turnlog.open("memory://", clock=x), [None, 7]),
    "new_id": (lambda _, __, x: turnlog.open("memory://", new_id=x), [None, 7]),
    "durability": (lambda _, __, x: turnlog.open("memory://", durability=x), ["none", None, 1]),
    "tenant": (lambda _, __, x: turnlog.open("memory://", tenant=x), ["a/b", None]),
    "engine": (lambda _, __, x: turnlog.open("memory://", engine=x), [object()]),
    "colour of open": (lambda _, __, x: turnlog.open("memory://", colour=x), ["red"]),
    "max_event_bytes": (lambda _, __, x: turnlog.open("memory://", max_event_bytes=x), [0, "1", True, 1e9]),
    "query_timeout_s": (lambda _, __, x: turnlog.open("memory://", query_timeout_s=x), ["1", -1, True]),
}


@pytest.mark.parametrize("place", WRONG)
def test_wrong_arguments_are_refused_by_name(
    store: ConversationStore, session: Session, unchanged: Unchanged, place: str
) -> None:
    """Any other wrong argument is an InvalidInput that names it, and leaves no trace."""
    use, values = WRONG[place]
    for value in values:
        refused(store, session, unchanged, place, use, value)


def test_ids_may_be_anything_printable(store: ConversationStore) -> None:
    """Ids of 255 characters of any script are taken as they are, slashes and wildcards too."""
    for session_id in ["x" * 255, "é" * 255, "👩‍👩‍👧", "a/b/c", "100%", "under_score", "[a-z]*?", "'; --", " ", "null"]:
        session = store.session(session_id, user_id=session_id)
        session.add_message("user", session_id, message_id=session_id, actor=session_id, command_id=session_id)
        assert store.get(session_id).user_id == session_id
        assert [m.message_id for m in store.messages(user_id=session_id).items] == [session_id]
        assert [s.session_id for s in store.sessions(user_id=session_id).items] == [session_id]


def test_nesting_of_64_is_taken(session: Session) -> None:
    """64 levels are taken and come back; 65 are refused, counted from the whole value."""
    session.add_message("user", nested(64))
    session.collect({"x": nested(63)})
    session.call_tool("find", nested(64))
    assert session.history()[0].content == nested(64)
    assert session.data == {"x": nested(63)}
    uses: list[Callable[[], object]] = [
        lambda: session.add_message("user", nested(65)),
        lambda: session.collect({"x": nested(64)}),
        lambda: session.call_tool("find", nested(65)),
    ]
    for use in uses:
        with pytest.raises(InvalidInput, match="64 levels"):
            use()


def test_nul_is_legal_and_exact(store: ConversationStore, session: Session) -> None:
    """NUL comes back as it was given, in every text and value, and in what other handles and views read."""
    text = "a\0b\0"
    session.add_message("user", text, name=text, metadata={text: text})
    session.collect({text: [text]})
    session.enter_route("booking", title=text, reason=text)
    session.complete(reason=text)
    again = store.get("s-1")
    (message,) = again.history()
    assert (message.content, message.name, message.metadata) == (text, text, {text: text})
    assert again.data == {text: [text]}
    assert again.routes()[0].title == text
    assert store.messages(user_id="alice").items == [message]


def test_not_given_is_not_empty(store: ConversationStore) -> None:
    """An empty text, list or dict stays what it is, and None stays None."""
    session = store.session()
    session.add_message("assistant", "", name="", tool_calls=[], metadata={})
    session.add_message("assistant", None)
    session.add_message("assistant", [])
    empty, none, parts = session.history()
    assert (empty.content, empty.name, empty.tool_calls, empty.metadata) == ("", "", [], {})
    assert (none.content, none.name, none.tool_calls, none.metadata) == (None, None, None, None)
    assert parts.content == []


MANY = 4 * 1024 * 1024


TOO_LARGE: Mapping[str, Callable[[ConversationStore, Session], object]] = {
    "content": lambda _, session: session.add_message("user", "x" * MANY),
    "metadata": lambda _, session: session.add_message("user", "hi", metadata={"x": "y" * MANY}),
    "values": lambda _, session: session.collect(small=1, big="x" * MANY),
    "arguments": lambda _, session: session.call_tool("find", ["x" * MANY]),
    "messages": lambda _, session: session.set_history([{"role": "user", "content": "x" * MANY}]),
    "data": lambda store, _: store.session("new", data={"x": "y" * MANY}),
}


def test_contents_of_many_megabytes_are_taken_up_to_the_limit(url: str) -> None:
    """Contents up to the limit come back whole; above it the field is named and the log stays as it was."""
    with turnlog.open(url, max_event_bytes=MANY, durability="normal") as store:
        session = store.session("s-1")
        session.add_message("user", "x" * (MANY - 2048))
        session.collect(big="é" * (MANY // 2 - 2048))
        position = store.position
        for field, use in TOO_LARGE.items():
            with pytest.raises(InvalidInput) as raised:
                use(store, session)
            assert raised.value.field == field
            assert str(MANY) in str(raised.value)
            assert len(str(raised.value)) < 500
        assert store.position == position
        assert not store.exists("new")
        again = store.get("s-1")
        assert again.history()[0].content == "x" * (MANY - 2048)
        assert again.data == {"big": "é" * (MANY // 2 - 2048)}
        assert store.verify().ok


def test_an_oversized_part_refuses_the_whole_turn(sqlite_url: str) -> None:
    """Nothing is half-written: one event too large, and nothing of its turn is there."""
    with turnlog.open(sqlite_url, max_event_bytes=4096) as store:
        session = store.session("s-1")

        def say_both() -> None:
            with session.turn():
                session.add_message("user", "small")
                session.add_message("user", "x" * 5000)

        with pytest.raises(InvalidInput, match="content"):
            say_both()
        assert session.history() == []
        assert store.get("s-1").version == 1


def test_a_clock_must_give_aware_times() -> None:
    """A clock of the application's that gives naive times is refused before anything is written."""
    with turnlog.open("memory://", clock=lambda: NAIVE) as store:
        with pytest.raises(InvalidInput, match="clock"):
            store.session("s-1")
        assert store.position == 0


def test_times_are_stored_in_utc(session: Session) -> None:
    """An aware time of any zone is the same moment, told in UTC."""
    there = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    session.add_message("user", "hi", occurred_at=there)
    told = session.history()[0].occurred_at
    assert told == there
    assert told.utcoffset() == timedelta(0)
