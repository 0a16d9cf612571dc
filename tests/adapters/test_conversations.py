"""Importing conversations in the neutral form: what the events become, and that again adds nothing."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

import turnlog
from tests.adapters.talks import Json, Write, call, data, result, said, talk
from turnlog.adapters.transfer.conversations import import_files
from turnlog.domain import events as e


def recorded(store: turnlog.ConversationStore, session_id: str = "c1") -> list[Any]:
    """Return a session's events, message ids made for them left out."""
    found: list[Any] = [event.event for event in store.get(session_id).events()]
    return [replace(one, message_id="") if isinstance(one, e.MessageAdded) else one for one in found]


def test_every_kind_of_event_becomes_its_event(store: turnlog.ConversationStore, write: Write) -> None:
    """message, data, route, step, tool_call, tool_result and status are stored as what they are, in order."""
    calls = [{"id": "t1", "name": "find", "arguments": {"n": 2}}]
    path = write(
        talk(
            said("Hi", "system"),
            {"type": "route", "route": "booking"},
            {"type": "step", "step": "size"},
            data(n=2, gone=None, kept="x"),
            said(None, "assistant", tool_calls=calls),
            call("t1", n=2),
            result("t1", ["a", {"b": None}]),
            said("two", "tool", name="find", tool_call_id="t1", metadata={"k": 1}),
            {"type": "status", "status": "completed"},
            user_id="alice",
            agent="concierge",
            source="here",
            licence="MIT",
            meta={"channel": "web"},
        )
    )
    assert import_files(store, [path]).ok
    where: Json = {"message_id": "", "route": "booking", "step": "size"}
    assert recorded(store) == [
        e.SessionStarted(
            user_id="alice",
            agent="concierge",
            metadata={"source": "here", "licence": "MIT", "meta": {"channel": "web"}},
        ),
        e.MessageAdded(message_id="", role="system", content="Hi"),
        e.RouteEntered(route="booking"),
        e.StepEntered(step="size"),
        e.DataCollected(values={"n": 2, "kept": "x"}),
        e.MessageAdded(role="assistant", content=None, tool_calls=calls, **where),
        e.ToolCalled(call_id="t1", name="find", arguments={"n": 2}),
        e.ToolReturned(call_id="t1", name="find", content=["a", {"b": None}]),
        e.MessageAdded(role="tool", content="two", name="find", tool_call_id="t1", metadata={"k": 1}, **where),
        e.StatusChanged(status="completed"),
    ]


EDGE_CASES: dict[str, tuple[list[Json], Json]] = {
    "a removed slot": ([data(a=1, b=2), data(a=None)], {"data": {"b": 2}}),
    "a removed slot that comes back": ([data(a=1), data(a=None), data(a=1)], {"data": {"a": 1}}),
    "a slot changed and another removed at once": ([data(a=1, b=2), data(a=3, b=None)], {"data": {"a": 3}}),
    "a slot changed several times": ([data(a=1), data(a=2), data(a=2), data(a=3)], {"data": {"a": 3}}),
    "numbers that are equal and differ": ([data(a=1), data(a=1.0), data(a=True)], {"data": {"a": True}}),
    "list values": ([data(a=["x", "y"]), data(a=["y", "x"])], {"data": {"a": ["y", "x"]}}),
    "no values": ([data(), said("x")], {"data": {}, "message_count": 1}),
    "Chinese keys": ([data(**{"1.餐馆.推荐菜": ["烤鸭"]})], {"data": {"1.餐馆.推荐菜": ["烤鸭"]}}),
    "data before any route": ([data(a=1), {"type": "route", "route": "r"}], {"data": {"a": 1}, "route": "r"}),
    "a step before a route": (
        [{"type": "step", "step": "s"}, {"type": "route", "route": "r"}],
        {"route": "r", "step": "s"},
    ),
    "a route entered twice in a row": (
        [{"type": "route", "route": "r"}, {"type": "step", "step": "s"}, {"type": "route", "route": "r"}],
        {"route": "r", "step": "s"},
    ),
    "empty and absent content": ([said(""), said(None, "assistant")], {"message_count": 2}),
    "blanks and line breaks": ([said("  a\n\tb \r\n ")], {"message_count": 1}),
    "beyond the basic plane, and NUL": ([said("𝄞 🙂 \x00")], {"message_count": 1}),
    "a run of one role": ([said("a"), said("b"), said("c")], {"message_count": 3}),
    "content in parts": ([said([{"type": "text", "text": "a"}])], {"message_count": 1}),
    "an id of several calls": (
        [call("t"), result("t", 1), call("t", "other"), result("t", 2)],
        {"tool_call_count": 2},
    ),
    "no status": ([said("a")], {"status": "open"}),
    "abandoned": ([said("a"), {"type": "status", "status": "abandoned"}], {"status": "abandoned"}),
    "opened again": (
        [{"type": "status", "status": "completed"}, {"type": "status", "status": "open"}, said("a")],
        {"status": "open"},
    ),
    "nothing at all": ([], {"data": {}, "route": None, "step": None, "message_count": 0, "status": "open"}),
}


@pytest.mark.parametrize("case", EDGE_CASES)
def test_edge_cases_of_real_conversations_fold_to_their_final_state(
    store: turnlog.ConversationStore, write: Write, case: str
) -> None:
    """What occurs in real data is imported and reaches the state that its line names."""
    events, final = EDGE_CASES[case]
    report = import_files(store, [write(talk(*events, final_state=final))], check=True)
    assert (report.refusals, report.mismatches, report.checked) == ((), (), 1)
    contents = [event["content"] for event in events if event["type"] == "message"]
    assert [message.content for message in store.get("c1").history()] == contents


def test_a_result_belongs_to_the_latest_earlier_call(store: turnlog.ConversationStore, write: Write) -> None:
    """Of several calls with one id the result takes the name of the latest, where it has none of its own."""
    nameless = {"type": "tool_result", "id": "t", "content": 1}
    assert import_files(store, [write(talk(call("t", "first"), call("t", "second"), nameless))]).ok
    assert recorded(store)[-1] == e.ToolReturned(call_id="t", name="second", content=1)


def test_times_are_kept_as_occurred_at(store: turnlog.ConversationStore, write: Write) -> None:
    """``ts`` becomes ``occurred_at``, to the microsecond; an event without one occurred when it was recorded."""
    events = [{**data(a=1, b=None), "ts": 1767225600}, {**data(b=1), "ts": 1767225600.25}, data(c=1)]
    assert import_files(store, [write(talk(*events))]).ok
    _, first, second, third = store.get("c1").events()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert (first.occurred_at, second.occurred_at) == (start, start.replace(microsecond=250_000))
    assert third.occurred_at == third.recorded_at


def test_trees_keep_their_parents_and_can_be_made_again(store: turnlog.ConversationStore, write: Write) -> None:
    """``parent_id`` and ``rank`` are in the message's metadata, and the branches follow from them."""
    tree = talk(
        said("root", message_id="r"),
        said("b", "assistant", message_id="b", parent_id="r", rank=1),
        said("a", "assistant", message_id="a", parent_id="r", rank=0),
        said("c", message_id="c", parent_id="a", metadata={"k": "v"}),
        final_state={"branches": [["r", "a", "c"], ["r", "b"]], "message_count": 4},
    )
    report = import_files(store, [write(tree)], check=True)
    assert (report.ok, report.checked) == (True, 1)
    found = {message.message_id: message.metadata for message in store.get("c1").history()}
    expected = {"b": {"parent_id": "r", "rank": 1}, "a": {"parent_id": "r", "rank": 0}}
    assert found == {"r": None, **expected, "c": {"k": "v", "parent_id": "a"}}


def test_a_given_message_id_stays_idempotent(store: turnlog.ConversationStore, write: Write) -> None:
    """Saying an imported message again through the API, with its id, adds nothing."""
    assert import_files(store, [write(talk(said("root", message_id="r")))]).ok
    session = store.get("c1")
    before = session.version
    assert session.add_message("user", "root", message_id="r").version == before
    with pytest.raises(turnlog.IdempotencyConflict):
        session.add_message("user", "something else", message_id="r")


def test_importing_again_adds_nothing(store: turnlog.ConversationStore, write: Write) -> None:
    """The same conversation, also written another way or with its outcome added, is there already."""
    line = talk(said("a"), said("b", "assistant"), {"type": "status", "status": "completed"}, user_id="alice")
    first = import_files(store, [write(line)])
    position = store.position
    turned = json.dumps(dict(reversed(line.items())), indent=None, separators=(" ,  ", ":  "))
    again = import_files(
        store, [write(line), write(turned, {**line, "final_state": {"message_count": 2}}, name="2")], check=True
    )
    assert (first.imported, first.already_there) == (1, 0)
    assert (again.imported, again.already_there, again.conversations, again.checked, again.ok) == (0, 3, 3, 1, True)
    assert store.position == position


def test_the_report_counts(store: turnlog.ConversationStore, write: Write) -> None:
    """Files, conversations, events and messages are counted; without --check nothing is checked."""
    one = write(talk(said("a"), data(a=1)), talk(said("b"), conversation_id="c2", final_state={"message_count": 7}))
    report = import_files(store, [one, write(talk(said("d"), said("e"), conversation_id="c3"), name="2")])
    assert (report.files, report.conversations, report.imported) == (2, 3, 3)
    assert (report.events, report.messages, report.checked, report.mismatches) == (5, 4, 0, ())
    assert report.seconds > 0
