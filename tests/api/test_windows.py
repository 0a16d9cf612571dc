"""Windows of a history: the newest n, those before a message, those that fit.

No window parts a tool's result from its call.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import pytest

import turnlog
from turnlog import ConversationStore, InvalidInput, Message, Session, SessionGone, index
from turnlog.adapters.connect import connect

Said: TypeAlias = dict[str, Any]


def user(content: str) -> Said:
    """Return a user's message."""
    return {"role": "user", "content": content, "message_id": content}


def call(content: str, *call_ids: str) -> Said:
    """Return an assistant's message that calls tools."""
    calls: list[Said] = [{"id": call_id, "name": "find", "arguments": {}} for call_id in call_ids]
    return {"role": "assistant", "content": content, "message_id": content, "tool_calls": calls}


def result(content: str, call_id: str) -> Said:
    """Return a tool's message."""
    return {"role": "tool", "content": content, "message_id": content, "tool_call_id": call_id}


PAIRED = [
    *(user("a"), call("call x", "x"), result("x", "x"), user("b")),
    *(call("call y z", "y", "z"), result("y", "y"), user("c"), result("z", "z"), user("d")),
]
ORPHAN = [user("a"), call("call x", "x"), result("x", "x"), user("b"), result("?", "nowhere"), user("c")]
AGAIN = [call("1", "x"), result("r1", "x"), user("a"), call("2", "x"), result("r2", "x"), user("b")]
LINKED = [call("call x", "x"), call("call y", "y"), result("x", "x"), user("a"), result("y", "y"), user("b")]

LAST: Mapping[str, tuple[list[Said], int, list[str]]] = {
    "none": (PAIRED, 0, []),
    "no tool": (PAIRED, 1, ["d"]),
    "between a call and its result": (PAIRED, 2, ["call y z", "y", "c", "z", "d"]),
    "between a call and one of its results": (PAIRED, 4, ["call y z", "y", "c", "z", "d"]),
    "at a call": (PAIRED, 5, ["call y z", "y", "c", "z", "d"]),
    "before a pair": (PAIRED, 6, ["b", "call y z", "y", "c", "z", "d"]),
    "at a result": (PAIRED, 7, ["call x", "x", "b", "call y z", "y", "c", "z", "d"]),
    "all": (PAIRED, 99, [message["content"] for message in PAIRED]),
    "a result whose call is nowhere": (ORPHAN, 2, ["?", "c"]),
    "the latest call of that id": (AGAIN, 2, ["2", "r2", "b"]),
    "an earlier call of that id": (AGAIN, 5, ["1", "r1", "a", "2", "r2", "b"]),
    "a pair that begins in another pair": (LINKED, 2, ["call x", "call y", "x", "a", "y", "b"]),
}
FITTING: Mapping[str, tuple[list[Said], int, list[str]]] = {
    "nothing fits": (PAIRED, 0, []),
    "no tool": (PAIRED, 1, ["d"]),
    "a result without its call begins later": (PAIRED, 2, ["d"]),
    "two results without their call": (PAIRED, 4, ["d"]),
    "a call and its results": (PAIRED, 5, ["call y z", "y", "c", "z", "d"]),
    "a result at the beginning": (PAIRED, 7, ["b", "call y z", "y", "c", "z", "d"]),
    "all": (PAIRED, 9, [message["content"] for message in PAIRED]),
    "a result whose call is nowhere": (ORPHAN, 2, ["?", "c"]),
    "all, with a result whose call is nowhere": (ORPHAN, 99, [message["content"] for message in ORPHAN]),
    "a call whose id comes again": (AGAIN, 5, ["a", "2", "r2", "b"]),
}


def contents(messages: list[Message]) -> list[Any]:
    """Return what they say."""
    return [message.content for message in messages]


@pytest.mark.parametrize("name", LAST)
def test_a_window_reaches_back_to_the_call(session: Session, name: str) -> None:
    """The newest n, and as many more as it takes not to begin between a tool's call and its result."""
    messages, last, expected = LAST[name]
    session.add_messages(messages)
    assert contents(session.history(last=last)) == expected
    everything = [message["content"] for message in messages]
    assert contents(session.history(last=last, exact=True)) == everything[max(0, len(everything) - last) :]


@pytest.mark.parametrize("name", FITTING)
def test_a_window_that_must_fit_begins_later(session: Session, name: str) -> None:
    """As many of the newest as fit; a limit is kept, so the window begins after a result whose call does not fit."""
    messages, budget, expected = FITTING[name]
    session.add_messages(messages)
    assert contents(session.history(max_tokens=budget, count=lambda _: 1)) == expected
    everything = [message["content"] for message in messages]
    exact = session.history(max_tokens=budget, count=lambda _: 1, exact=True)
    assert contents(exact) == everything[max(0, len(everything) - budget) :]


def test_tokens_are_counted_by_the_caller(session: Session) -> None:
    """The first message that does not fit ends the window, however small the ones before it are."""
    session.add_messages([user("a"), user("bb"), user("cccc"), user("d")])
    counted: list[str] = []

    def count(message: Message) -> int:
        counted.append(message.message_id)
        return len(message.content)

    assert contents(session.history(max_tokens=4, count=count)) == ["d"]
    assert contents(session.history(max_tokens=5, count=count)) == ["cccc", "d"]
    assert contents(session.history(max_tokens=5, count=count, last=1)) == ["d"]
    assert counted[:2] == ["d", "cccc"]


def test_before_and_last_go_through_a_history_in_pages(session: Session) -> None:
    """Going back from the oldest message seen meets every message once."""
    session.add_messages([user(f"{n}") for n in range(25)])
    pages = [contents(session.history(last=10))]
    while pages[-1]:
        pages.append(contents(session.history(last=10, before=pages[-1][0])))
    assert [len(page) for page in pages] == [10, 10, 5, 0]
    assert [content for page in reversed(pages) for content in page] == [f"{n}" for n in range(25)]


def test_before_names_a_visible_message(session: Session) -> None:
    """A removed message is no place to begin from, except where removed ones are asked for too."""
    session.add_messages([user("a"), user("b"), user("c")])
    session.remove_message("b")
    with pytest.raises(InvalidInput, match="before"):
        session.history(before="b")
    assert contents(session.history(before="c")) == ["a"]
    assert contents(session.history(before="c", include_removed=True)) == ["a", "b"]


def test_compacting_keeps_a_result_with_its_call(session: Session) -> None:
    """More is kept where the newest n would begin between a tool's call and its result."""
    session.add_messages(PAIRED)
    receipt = session.compact_history("so far", keep_last=2)
    assert contents(session.history()) == ["so far", "call y z", "y", "c", "z", "d"]
    summary = session.history()[0]
    assert (summary.role, summary.message_id) == ("system", receipt.message_id)
    assert session.compact_history("again", keep_last=2).event_ids != ()
    assert contents(session.history()) == ["again", "call y z", "y", "c", "z", "d"]
    session.compact_history("none", keep_last=0)
    assert contents(session.history()) == ["none"]


def _after_first(use: Callable[[], object]) -> Callable[[Message], int]:
    """Return a count that does something as soon as it is asked first."""
    waiting = [use]

    def count(_: Message) -> int:
        if waiting:
            waiting.pop()()
        return 1

    return count


def test_a_session_deleted_while_it_is_read_is_gone(store: ConversationStore, session: Session) -> None:
    """Content destroyed in the midst of a reading is told as that, never as damage or as a shorter history."""
    session.add_messages([user(f"{n}") for n in range(600)])
    with pytest.raises(SessionGone):
        session.history(max_tokens=600, count=_after_first(store.get("s-1").delete))


@pytest.mark.parametrize("read", [Session.events, Session.replay])
def test_a_replay_of_a_session_deleted_meanwhile_is_gone(
    store: ConversationStore, session: Session, read: Callable[[Session], Iterator[object]]
) -> None:
    """Replaying and reading events stop where the session was deleted in between."""
    session.add_messages([user(f"{n}") for n in range(600)])
    reading = read(session)
    next(reading)
    store.get("s-1").delete()
    with pytest.raises(SessionGone):
        list(reading)


def test_setting_what_is_there_changes_nothing(session: Session) -> None:
    """The same messages, to the last field, are no event; another wording is."""
    session.enter_route("booking")
    session.add_message("user", "hi", metadata={"n": 1})
    session.add_message("assistant", "hello")
    version = session.version
    with session.turn():
        session.set_history(session.history())
    assert session.set_history(session.history()).event_ids == ()
    assert session.version == version
    first, second = session.history()
    assert session.set_history(
        [first, {"message_id": second.message_id, "role": "assistant", "content": "hey"}]
    ).event_ids
    assert contents(session.history()) == ["hi", "hey"]
    assert contents(session.history(include_removed=True)) == ["hi", "hey"]


def test_pages_of_messages_are_stable_where_the_view_is_overlaid(sqlite_url: str) -> None:
    """A cursor names a place in the log, whether or not what was beside it is still visible."""
    with turnlog.open(sqlite_url) as store, turnlog.open(sqlite_url, read_only=True) as reader:
        session = store.session("s-1", user_id="alice")
        session.set_history([{"role": "user", "content": str(i), "message_id": f"m-{i}"} for i in range(4)])
        page = reader.messages(user_id="alice", limit=1)
        assert contents(page.items) == ["3"]
        session.remove_message("m-0")
        page = reader.messages(user_id="alice", cursor=page.next_cursor)
        assert contents(page.items) == ["2", "1"]


def test_counting_misses_no_session_that_moves(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the view is overlaid all sessions are walked through; one that is written to meanwhile is counted once."""
    with turnlog.open(sqlite_url) as store:
        for i in range(4):
            store.session(f"s-{i}", user_id="alice")
        store.catch_up()
        backend = connect(sqlite_url, durability="full", engine=None, options={"read_only": True})
        views: Any = backend.views
        select = views.select_sessions
        moving = [store.get("s-0"), store.get("s-2")]

        def select_slowly(*args: Any, **kwargs: Any) -> Any:
            rows = select(*args, **kwargs)
            if moving:
                moving.pop().add_message("user", "hi")
                store.catch_up()
            return rows

        monkeypatch.setattr(views, "select_sessions", select_slowly)
        monkeypatch.setattr(index, "_PAGE", 1)
        with turnlog.open(backend) as reader:
            store.get("s-3").add_message("user", "hi")
            assert reader.stats().sessions == 4


@pytest.mark.parametrize("counted", [None, -1, 1.5, True])
def test_a_count_of_tokens_is_a_number(session: Session, counted: Any) -> None:
    """What the caller's function gives is checked too."""
    session.add_message("user", "hi")

    def count(_: Message) -> Any:
        return counted

    with pytest.raises(InvalidInput, match="count"):
        session.history(max_tokens=5, count=count)
