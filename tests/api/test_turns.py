"""Turns: everything said inside is one append, or nothing is."""

import threading
from collections.abc import Callable

import pytest

from turnlog import (
    ConcurrencyConflict,
    ConversationStore,
    InvalidInput,
    Receipt,
    Session,
    SessionClosed,
    SessionGone,
)


class Interrupted(Exception):
    """Raised inside a turn."""


def contents(session: Session) -> list[object]:
    """Return what the visible messages say."""
    return [message.content for message in session.history()]


def test_a_turn_is_one_append(store: ConversationStore, session: Session) -> None:
    """Every event says its place in the turn; positions and versions are contiguous; one receipt tells of all."""
    told: list[Receipt] = []
    store.on_committed(told.append)
    with session.turn(actor="bot", correlation_id="request-1") as turn:
        session.add_message("user", "hi")
        session.collect(n=1)
        session.complete()
    events = list(session.events(after=1))
    assert [event.turn for event in events] == [(1, 3), (2, 3), (3, 3)]
    assert {(event.actor, event.correlation_id) for event in events} == {("bot", "request-1")}
    assert turn.receipt.event_ids == tuple(event.event_id for event in events)
    assert (turn.receipt.version, turn.receipt.position) == (4, store.position)
    assert told == [turn.receipt]


def test_inside_the_reads_see_what_was_said(store: ConversationStore, session: Session) -> None:
    """State, data, history, routes and runs of the handle show it at once; other handles see it after the end."""
    session.add_message("user", "before")
    other = store.get("s-1")
    with session.turn() as turn:
        said = session.add_message("user", "hi", message_id="m-1")
        assert (said.version, said.position, said.hash, said.event_ids) == (None, None, None, ())
        assert said.message_id == "m-1"
        session.collect(n=1)
        session.enter_route("booking")
        session.start_run("r-1")
        session.edit_message("m-1", "edited")
        assert contents(session) == ["before", "edited"]
        assert (session.data, session.state.current_route, len(session.runs())) == ({"n": 1}, "booking", 1)
        assert session.state.message_count == 2
        assert [visit.route for visit in session.routes()] == ["booking"]
        assert session.message("m-1") is not None
        assert contents(other) == ["before"]
        assert other.refresh().data == {}
        with pytest.raises(InvalidInput, match="receipt"):
            _ = turn.receipt
    assert contents(other) == ["before", "edited"]
    assert other.refresh().data == {"n": 1}


def test_an_exception_leaves_nothing(store: ConversationStore, session: Session) -> None:
    """Whatever ends the turn, nothing of it was written, and the handle shows what is there."""
    position = store.position
    with pytest.raises(Interrupted), session.turn():
        session.add_message("user", "hi")
        session.collect(n=1)
        raise Interrupted
    assert store.position == position
    assert (contents(session), session.data, session.state.message_count) == ([], {}, 0)
    session.collect(n=2)
    assert store.get("s-1").data == {"n": 2}


def test_a_refusal_inside_can_be_dealt_with(session: Session) -> None:
    """A command that is refused at once does not end the turn, if it is caught."""
    with session.turn():
        session.complete()
        with pytest.raises(SessionClosed):
            session.collect(n=1)
        session.reopen()
        session.collect(n=2)
    assert (session.data, session.status, session.version) == ({"n": 2}, "active", 4)


def test_nested_turns_join(session: Session) -> None:
    """An inner turn belongs to the outer one: one append, one receipt."""
    with session.turn(actor="outer") as outer:
        session.collect(a=1)
        with session.turn(actor="inner", correlation_id="c-1") as inner:
            session.collect(b=2)
        session.collect(c=3)
    assert inner.receipt == outer.receipt
    assert [event.turn for event in session.events(after=1)] == [(1, 3), (2, 3), (3, 3)]
    assert [(event.actor, event.correlation_id) for event in session.events(after=1)] == [
        ("outer", None),
        ("inner", "c-1"),
        ("outer", None),
    ]


def test_an_inner_turn_can_be_dropped(session: Session) -> None:
    """An exception that the outer turn catches drops only what was said in the inner one."""
    with session.turn():
        session.collect(a=1)
        with pytest.raises(Interrupted), session.turn():
            session.add_message("user", "dropped")
            session.collect(a=2)
            raise Interrupted
        assert (session.data, contents(session)) == ({"a": 1}, [])
        session.collect(c=3)
    assert (session.data, contents(session), session.version) == ({"a": 1, "c": 3}, [], 3)


def test_a_dropped_inner_turn_is_dropped_though_all_was_decided_again(
    store: ConversationStore, session: Session
) -> None:
    """Where another's write made the turn decide again inside the inner one, still only that one is dropped."""
    session.pause()
    other = store.get("s-1")
    with session.turn():
        session.add_message("user", "hi")
        with pytest.raises(Interrupted), session.turn():
            other.reopen()
            other.add_message("user", "meanwhile", message_id="m-9")
            session.edit_message("m-9", "never")
            raise Interrupted
        session.collect(n=1)
    assert contents(session) == ["meanwhile", "hi"]
    assert contents(store.get("s-1")) == ["meanwhile", "hi"]
    assert session.data == {"n": 1}


def test_nothing_of_a_turn_is_lost_where_deciding_again_fails(store: ConversationStore, session: Session) -> None:
    """If what was said first is not allowed any more, the turn fails as a whole, and does not go on without it."""
    other = store.get("s-1")
    position = store.position
    with pytest.raises(SessionClosed), session.turn():
        session.collect(a=1)
        other.complete()
        with pytest.raises(SessionClosed):
            session.edit_message("nowhere", "hi")
        session.set_metadata({"m": 1})
    assert store.position == position + 1
    assert (store.get("s-1").data, store.get("s-1").state.metadata) == ({}, {})


def test_on_a_lost_race_all_of_it_is_decided_again(store: ConversationStore, session: Session) -> None:
    """Somebody else's write in the midst is neither lost nor overwritten; what it made superfluous falls away."""
    other = store.get("s-1")
    with session.turn() as turn:
        session.collect(a=1, b=1)
        other.collect(a=1, c=1)
        session.add_message("user", "hi")
    assert session.data == {"a": 1, "b": 1, "c": 1}
    assert [getattr(event.event, "values", None) for event in session.events(after=1)][:2] == [
        {"a": 1, "c": 1},
        {"b": 1},
    ]
    assert len(turn.receipt.event_ids) == 2


def test_what_the_rules_then_forbid_is_refused_whole(store: ConversationStore, session: Session) -> None:
    """A session that somebody closed in the midst takes nothing of the turn."""
    other = store.get("s-1")
    with pytest.raises(SessionClosed), session.turn():
        session.set_metadata({"m": 1})
        session.add_message("user", "hi")
        other.complete()
    assert session.refresh().state.metadata == {}
    assert contents(session) == []


def test_expected_version_holds_for_the_whole_turn(store: ConversationStore, session: Session) -> None:
    """It is that before the turn; another's write in the midst refuses it."""
    with session.turn(expected_version=1):
        session.collect(a=1)
        session.collect(b=1)
    other = store.get("s-1")
    with pytest.raises(ConcurrencyConflict, match="expected_version was 3"), session.turn(expected_version=3):
        session.collect(c=1)
        other.collect(d=1)
    assert store.get("s-1").data == {"a": 1, "b": 1, "d": 1}


def test_an_empty_turn_writes_nothing(store: ConversationStore, session: Session) -> None:
    """It gives the receipt of what is there."""
    with session.turn() as turn:
        pass
    assert (turn.receipt.version, turn.receipt.event_ids, store.position) == (1, (), 1)


def test_a_turn_is_used_once(session: Session) -> None:
    """A turn that was committed is not entered again."""
    with session.turn() as turn:
        session.collect(a=1)
    with pytest.raises(InvalidInput, match="turn"), turn:
        session.collect(b=1)
    assert session.data == {"a": 1}


def test_a_turn_belongs_to_one_thread(session: Session) -> None:
    """What another thread says on the same handle meanwhile is its own write, at once."""
    with session.turn():
        session.collect(mine=1)
        thread = threading.Thread(target=lambda: session.collect(theirs=1))
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        assert session.data == {"mine": 1}
    assert session.data == {"mine": 1, "theirs": 1}
    assert [event.turn for event in session.events(after=1)] == [(1, 1), (1, 1)]


@pytest.mark.parametrize("use", [Session.delete, Session.fork, Session.reset])
def test_what_is_an_append_of_its_own_is_refused_inside(session: Session, use: Callable[[Session], object]) -> None:
    """Deleting, forking and resetting do not join a turn, and say so."""
    with session.turn(), pytest.raises(InvalidInput, match="turn"):
        use(session)
    assert session.version == 1


def test_add_messages_is_all_or_none(session: Session) -> None:
    """One message that is refused, and none of them is there; otherwise they are one append, in order."""
    with pytest.raises(InvalidInput, match=r"messages\[2\].role"):
        session.add_messages([{"role": "user", "content": "a"}, {"role": "user"}, {"role": "robot", "content": "c"}])
    assert contents(session) == []
    receipt = session.add_messages([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    assert (contents(session), len(receipt.event_ids)) == (["a", "b"], 2)
    session.clear_history()
    session.add_messages(session.history(at=3))
    assert contents(session) == ["a", "b"]


def test_what_was_read_inside_cannot_change_what_is_written(session: Session) -> None:
    """Messages, runs and data read inside a turn are copies of what was said."""
    with session.turn():
        session.add_message("user", [{"type": "text", "text": "hi"}], metadata={"n": [1]})
        session.collect(n=[1])
        session.start_run("r-1", n=[1])
        message = session.history()[0]
        assert message.metadata is not None
        message.content.append("more")
        message.metadata["n"].append(2)
        session.data["n"].append(2)
        session.state.data["n"].append(2)
        session.runs()[0].details["n"].append(2)
        found = session.message(message.message_id)
        assert found is not None
        found.content.clear()
    (message,) = session.history()
    assert (message.content, message.metadata) == ([{"type": "text", "text": "hi"}], {"n": [1]})
    assert (session.data, session.runs()[0].details) == ({"n": [1]}, {"n": [1]})


def test_a_pop_inside_takes_what_it_returned(store: ConversationStore, session: Session) -> None:
    """Whatever others say before the end, the message that was given back goes, and no message nobody has seen."""
    session.add_message("user", "one", message_id="m-1")
    other = store.get("s-1")
    with session.turn():
        popped = session.pop_message()
        assert session.pop_message() is None
        other.add_message("user", "two", message_id="m-2")
        session.collect(n=1)
    assert popped is not None
    assert popped.message_id == "m-1"
    assert contents(session) == ["two"]


def test_an_open_turn_is_not_entered_again(session: Session) -> None:
    """Nothing is said twice by it."""
    turn = session.turn()
    with turn:
        session.collect(a=1)
        with pytest.raises(InvalidInput, match="open already"):
            turn.__enter__()
        session.collect(b=1)
    assert (session.data, session.version) == ({"a": 1, "b": 1}, 3)


def test_refusals_inside_come_in_the_order_they_come_in_outside(store: ConversationStore, session: Session) -> None:
    """What was said before under its id is not refused; then the version is looked at; then the rules."""
    session.add_message("user", "one", message_id="m-1")
    stale = store.get("s-1")
    session.complete()
    for handle in (session, stale):
        with handle.turn(expected_version=1):
            assert handle.add_message("user", "one", message_id="m-1").version == 2
            with pytest.raises(ConcurrencyConflict):
                handle.add_message("user", "two", message_id="m-2")
    with session.turn(expected_version=3), pytest.raises(SessionClosed):
        session.add_message("user", "two", message_id="m-2")
    assert session.version == 3


def test_a_turn_that_says_nothing_on_a_deleted_session_is_refused(store: ConversationStore, session: Session) -> None:
    """An empty turn is a call like any other: for a deleted session SessionGone."""
    other = store.get("s-1")
    session.delete()
    with pytest.raises(SessionGone), other.turn():
        pass
    with pytest.raises(SessionGone):
        other.add_messages([])
