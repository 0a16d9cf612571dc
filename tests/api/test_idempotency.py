"""Idempotency: the same id and the same command give the first receipt, however long ago that was."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pytest

import turnlog
from turnlog import ConcurrencyConflict, ConversationStore, IdempotencyConflict, Receipt, Session

Call: TypeAlias = Callable[[Session, str], Receipt]
"""Say a command under a ``command_id``."""

COMMANDS: Mapping[str, Call] = {
    "add_message": lambda s, key: s.add_message("user", "hi", metadata={"a": 1, "b": 2}, command_id=key),
    "add_messages": lambda s, key: s.add_messages([{"role": "user", "content": "hi"}] * 2, command_id=key),
    "edit_message": lambda s, key: s.edit_message("m-1", "edited", command_id=key),
    "remove_message": lambda s, key: s.remove_message("m-1", command_id=key),
    "clear_history": lambda s, key: s.clear_history(command_id=key),
    "set_history": lambda s, key: s.set_history([{"role": "user", "content": "hi"}], command_id=key),
    "compact_history": lambda s, key: s.compact_history("so far", 0, command_id=key),
    "collect": lambda s, key: s.collect({"a": 1, "b": [2]}, command_id=key),
    "discard": lambda s, key: s.discard("n", command_id=key),
    "clear_data": lambda s, key: s.clear_data(command_id=key),
    "set_context": lambda s, key: s.set_context({"a": 1}, command_id=key),
    "set_metadata": lambda s, key: s.set_metadata({"a": 1}, unset=["m"], command_id=key),
    "enter_route": lambda s, key: s.enter_route("support", title="Support", command_id=key),
    "exit_route": lambda s, key: s.exit_route(completed=True, command_id=key),
    "enter_step": lambda s, key: s.enter_step("date", command_id=key),
    "plan_transition": lambda s, key: s.plan_transition("support", command_id=key),
    "cancel_transition": lambda s, key: s.cancel_transition(command_id=key),
    "call_tool": lambda s, key: s.call_tool("find", {"n": 1}, command_id=key),
    "return_tool": lambda s, key: s.return_tool("c-1", "found", command_id=key),
    "start_run": lambda s, key: s.start_run(model="m", command_id=key),
    "finish_run": lambda s, key: s.finish_run("r-1", status="failed", command_id=key),
    "set_status": lambda s, key: s.set_status("paused", reason="tired", command_id=key),
    "assign_owner": lambda s, key: s.assign_owner("bob", command_id=key),
}


@pytest.fixture
def busy(session: Session) -> Session:
    """A session on which every command changes something."""
    session.add_message("user", "hello", message_id="m-1")
    session.collect(n=1)
    session.set_metadata({"m": 1})
    session.enter_route("booking")
    session.plan_transition("goodbye")
    session.call_tool("find", {}, call_id="c-1")
    session.start_run("r-1")
    return session


def visible(session: Session) -> dict[str, Any]:
    """Return what a user sees of it."""
    return {"state": session.state, "history": session.history(), "runs": session.runs(), "version": session.version}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_id_makes_any_write_idempotent(store: ConversationStore, busy: Session, name: str) -> None:
    """Said again, by any handle, it gives the first receipt, with the ids made for it, and changes nothing."""
    first = COMMANDS[name](busy, "k-1")
    assert first.event_ids
    before = visible(store.get("s-1"))
    for session in (busy, store.get("s-1")):
        assert COMMANDS[name](session, "k-1") == first
    assert visible(store.get("s-1")) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_an_id_used_for_something_else_is_a_conflict(store: ConversationStore, busy: Session, name: str) -> None:
    """The same command_id with any other command is refused, and names the id."""
    first = COMMANDS[name](busy, "k-1")
    for other, use in COMMANDS.items():
        if other != name:
            with pytest.raises(IdempotencyConflict, match="k-1"):
                use(busy, "k-1")
    assert store.position == first.position


@pytest.mark.parametrize("name", ["clear_data", "discard", "cancel_transition", "clear_history", "exit_route"])
def test_what_changed_nothing_is_idempotent_too(session: Session, name: str) -> None:
    """A command that changed nothing under an id still changes nothing when there is something by then."""
    first = COMMANDS[name](session, "k-1")
    assert first.event_ids == ()
    session.collect(n=1)
    session.add_message("user", "hi")
    session.enter_route("booking")
    session.plan_transition("goodbye")
    before = visible(session)
    assert COMMANDS[name](session, "k-1") == first
    assert visible(session) == before


def test_popping_nothing_pops_nothing_again(session: Session) -> None:
    """A pop that found nothing gives None again, and one that took a message gives that message again."""
    session.add_message("user", "hi", message_id="m-1")
    taken = session.pop_message(command_id="k-1")
    assert taken is not None
    assert session.pop_message(command_id="k-2") is None
    session.add_message("user", "ho", message_id="m-2")
    assert session.pop_message(command_id="k-1") == taken
    assert session.pop_message(command_id="k-2") is None
    assert [message.message_id for message in session.history()] == ["m-2"]


def test_a_message_id_makes_a_message_idempotent(store: ConversationStore, session: Session) -> None:
    """The same message under its id is written once; another under the same id is refused."""
    first = session.add_message("user", {"text": "hi"}["text"], message_id="m-1", metadata={"a": 1, "b": 2})
    assert store.get("s-1").add_message("user", "hi", message_id="m-1", metadata={"b": 2, "a": 1}) == first
    again = {"role": "user", "content": "hi", "message_id": "m-1", "metadata": {"a": 1, "b": 2}}
    assert session.add_messages([again]) == first
    uses: list[Callable[[], Receipt]] = [
        lambda: session.add_message("user", "ho", message_id="m-1", metadata={"a": 1, "b": 2}),
        lambda: session.add_message("assistant", "hi", message_id="m-1", metadata={"a": 1, "b": 2}),
        lambda: session.add_message("user", "hi", message_id="m-1"),
        lambda: session.add_message("user", "hi", message_id="m-1", metadata={"a": 1.0, "b": 2}),
        lambda: session.add_messages([{"role": "user", "content": "ho", "message_id": "m-1"}]),
    ]
    for use in uses:
        with pytest.raises(IdempotencyConflict, match="m-1"):
            use()
    assert [message.content for message in session.history()] == ["hi"]


def test_ids_hold_within_one_session(store: ConversationStore) -> None:
    """The same ids in another session are other ids."""
    for name in ("s-1", "s-2"):
        receipt = store.session(name).add_message("user", "hi", message_id="m-1", command_id="k-1")
        assert receipt.event_ids
        assert receipt.session_id == name


def test_a_message_id_and_a_command_id_are_told_apart(session: Session) -> None:
    """The two kinds do not meet; given both, either is enough to know a repetition."""
    session.add_message("user", "hi", message_id="x")
    assert session.collect(n=1, command_id="x").event_ids
    both = session.add_message("user", "ho", message_id="m-1", command_id="k-1")
    assert session.add_message("user", "ho", message_id="m-1") == both
    assert session.add_message("user", "ho", message_id="m-1", command_id="k-1") == both
    with pytest.raises(IdempotencyConflict):
        session.add_message("user", "ho", message_id="m-2", command_id="k-1")
    with pytest.raises(IdempotencyConflict):
        session.add_message("user", "ha", message_id="m-1", command_id="k-9")


def test_a_repetition_needs_no_fitting_version(session: Session) -> None:
    """A client that repeats a write, its expected_version included, gets the first receipt."""
    first = session.collect(n=1, command_id="k-1", expected_version=1)
    assert session.collect(n=1, command_id="k-1", expected_version=1) == first
    with pytest.raises(ConcurrencyConflict):
        session.collect(n=2, command_id="k-2", expected_version=1)


def test_removed_messages_are_not_said_again(session: Session) -> None:
    """A message that was said and taken away is not added again by a repetition."""
    first = session.add_message("user", "hi", message_id="m-1")
    session.clear_history()
    assert session.add_message("user", "hi", message_id="m-1") == first
    assert session.history() == []


def test_a_call_id_is_no_idempotency_key(session: Session) -> None:
    """Tool calls with the same id are several calls."""
    for _ in range(2):
        session.call_tool("find", {}, call_id="c-1")
    assert session.state.tool_call_count == 2


@pytest.mark.parametrize("status", ["completed", "archived", "expired"])
def test_repetitions_on_a_closed_session_give_the_first_receipt(busy: Session, status: str) -> None:
    """What is refused on a closed session is still known as a repetition."""
    message = busy.add_message("user", "hi", message_id="m-2")
    collected = busy.collect(n=2, command_id="k-1")
    with busy.turn(command_id="k-2") as turn:
        busy.add_message("user", "in a turn")
    busy.set_status(status)
    assert busy.add_message("user", "hi", message_id="m-2") == message
    assert busy.collect(n=2, command_id="k-1") == collected
    with busy.turn(command_id="k-2") as again:
        busy.add_message("user", "in a turn")
    assert again.receipt == turn.receipt
    with pytest.raises(IdempotencyConflict):
        busy.collect(n=3, command_id="k-1")


def say_a_turn(session: Session, *, command_id: str, n: int = 1) -> Receipt:
    """Say a turn of several commands, and return its receipt."""
    with session.turn(command_id=command_id) as turn:
        session.add_message("user", "hi", message_id="m-1")
        session.add_message("assistant", "ho")
        session.collect(n=n)
        session.call_tool("find", {})
    return turn.receipt


def test_a_turn_is_idempotent_as_a_whole(store: ConversationStore, session: Session) -> None:
    """The same turn under its command_id is written once; another turn under it is refused, whole."""
    first = say_a_turn(session, command_id="k-1")
    session.collect(other=1)
    assert say_a_turn(store.get("s-1"), command_id="k-1") == first
    position = store.position
    with pytest.raises(IdempotencyConflict):
        say_a_turn(session, n=2, command_id="k-1")
    assert store.position == position


def test_a_turn_that_repeats_a_message_is_idempotent(session: Session) -> None:
    """A turn in which something was said before is known when it is repeated."""
    session.add_message("user", "hi", message_id="m-1")
    first = say_a_turn(session, command_id="k-1")
    assert len(first.event_ids) == 3
    assert say_a_turn(session, command_id="k-1") == first


class Interrupted(Exception):
    """Raised inside a turn."""


def interrupt_a_turn(session: Session, **said: int) -> None:
    """Begin a turn, say something, and do not come to its end."""
    with session.turn():
        if said:
            session.collect(said)
        raise Interrupted


def test_what_was_dropped_from_a_turn_does_not_count(session: Session) -> None:
    """A turn of which an inner one was dropped is the same as one in which that was never said."""
    with session.turn(command_id="k-1") as first:
        session.collect(a=1)
        with pytest.raises(Interrupted):
            interrupt_a_turn(session)
        with pytest.raises(Interrupted):
            interrupt_a_turn(session, b=1)
    with session.turn(command_id="k-1") as again:
        session.collect(a=1)
    assert again.receipt == first.receipt
    assert session.data == {"a": 1}


def test_a_message_is_said_once_within_a_turn(session: Session) -> None:
    """The same message_id twice in one turn is one message; for another message it is a conflict."""
    with session.turn():
        session.add_message("user", "hi", message_id="m-1")
        session.add_message("user", "hi", message_id="m-1")
        with pytest.raises(IdempotencyConflict, match="m-1"):
            session.add_message("user", "ho", message_id="m-1")
    assert [message.content for message in session.history()] == ["hi"]


def test_an_inner_turn_has_no_command_id_of_its_own(session: Session) -> None:
    """A turn that joins another cannot be idempotent by itself, and says so instead of ignoring the id."""
    with session.turn(), pytest.raises(turnlog.InvalidInput, match="command_id"):
        session.add_messages([{"role": "user", "content": "hi"}], command_id="k-1")
    with session.turn(), pytest.raises(turnlog.InvalidInput, match="command_id"):
        session.turn(command_id="k-1")


def test_idempotent_after_many_events(url: str) -> None:
    """Ids used before 100,000 further events (10,000 on a server), on a session that was closed since, are known."""
    many = 100_000 if url.startswith(("memory", "sqlite")) else 10_000
    with turnlog.open(url, durability="normal") as store:
        session = store.session("s-1")
        message = session.add_message("user", "hi", message_id="m-1")
        collected = session.collect(n=1, command_id="k-1")
        say_many(session, many)
        session.complete()
        for handle in (session, store.get("s-1")):
            assert handle.version == many + 4
            assert handle.add_message("user", "hi", message_id="m-1") == message
            assert handle.collect(n=1, command_id="k-1") == collected
            with pytest.raises(IdempotencyConflict):
                handle.collect(n=2, command_id="k-1")


def say_many(session: Session, n: int) -> None:
    """Say n messages, in few appends."""
    for start in range(0, n, 10_000):
        messages = [{"role": "user", "content": f"{i}"} for i in range(start, min(n, start + 10_000))]
        session.add_messages(messages)


def run_a_tool(session: Session) -> list[str | None]:
    """Call a tool, a run and a message, each without an id of one's own, and refer to them; return the ids."""
    with session.turn(command_id="k-1"):
        call = session.call_tool("find", {"n": 1}).call_id
        assert call is not None
        said = session.add_message("assistant", None, tool_calls=[{"id": call, "name": "find"}]).message_id
        session.return_tool(call, "found")
        run = session.start_run(model="m").run_id
        assert run is not None
        session.finish_run(run, status="completed")
        popped = session.pop_message()
        return [call, said, run, None if popped is None else popped.message_id]


def test_a_turn_is_repeated_though_it_names_ids_made_in_it(session: Session) -> None:
    """The ids that were given out the first time are given out again, and what names them is the same command."""
    first = run_a_tool(session)
    version = session.version
    assert run_a_tool(session) == first
    assert session.version == version
    assert first[0] is not None
    assert session.return_tool(first[0], "found again").event_ids


def test_a_turn_that_names_another_id_is_another_turn(session: Session) -> None:
    """An id counts by the place where it was made."""
    with session.turn(command_id="k-1"):
        one, _ = (session.call_tool("find", {"n": n}).call_id or "" for n in (1, 2))
        session.return_tool(one, "found")
    turn = session.turn(command_id="k-1")
    turn.__enter__()
    _, two = (session.call_tool("find", {"n": n}).call_id or "" for n in (1, 2))
    session.return_tool(two, "found")
    with pytest.raises(IdempotencyConflict):
        turn.__exit__(None, None, None)


def test_the_turns_own_id_is_not_used_inside_it(session: Session) -> None:
    """One id is one command's: the turn's, or one in it."""
    with session.turn(command_id="k-1"):
        with pytest.raises(IdempotencyConflict, match="k-1"):
            session.collect(a=1, command_id="k-1")
        session.collect(b=1)
    assert session.data == {"b": 1}


def test_said_twice_in_a_turn_under_one_id_it_is_told_twice(session: Session) -> None:
    """The second receipt names the message that is there."""
    with session.turn():
        first = session.add_message("user", "hi", command_id="k-1")
        again = session.add_message("user", "hi", command_id="k-1")
    assert again.message_id == first.message_id == session.history()[0].message_id
    assert session.state.message_count == 1


@pytest.mark.parametrize("in_turn", [False, True])
def test_a_pop_that_is_repeated_returns_what_it_took(session: Session, *, in_turn: bool) -> None:
    """However it was said the first time, and whatever came after it."""
    for content in ("one", "two"):
        session.add_message("user", content)

    def pop() -> str | None:
        if not in_turn:
            popped = session.pop_message(command_id="k-1")
        else:
            with session.turn():
                popped = session.pop_message(command_id="k-1")
                session.collect(n=1)
        return None if popped is None else popped.content

    assert pop() == "two"
    session.add_message("user", "three")
    assert (pop(), pop()) == ("two", "two")
    popped = session.pop_message(command_id="k-1")
    assert popped is not None
    assert (popped.content, [message.content for message in session.history()]) == ("two", ["one", "three"])


def test_a_pop_that_took_nothing_takes_nothing_when_repeated(session: Session) -> None:
    """Also within a turn, where something is there to take later."""

    def take() -> list[bool]:
        with session.turn(command_id="k-1"):
            nothing = session.pop_message()
            session.add_message("user", "hi")
            something = session.pop_message()
        return [nothing is None, something is None]

    assert take() == [True, False]
    session.add_message("user", "left alone")
    assert take() == [True, False]
    assert [message.content for message in session.history()] == ["left alone"]


def test_every_id_that_is_given_must_fit(session: Session) -> None:
    """A message repeated under its id, with the id of another command, is a conflict."""
    session.add_message("user", "one", message_id="m-1")
    session.add_message("user", "two", message_id="m-2", command_id="k-1")
    with pytest.raises(IdempotencyConflict, match="k-1"):
        session.add_message("user", "one", message_id="m-1", command_id="k-1")


def begun(store: ConversationStore) -> Session:
    """A session that begins with m-1."""
    return store.session("s-2", history=[{"role": "user", "content": "one", "message_id": "m-1"}])


def replaced(store: ConversationStore) -> Session:
    """A session whose history was set to m-1."""
    session = store.session("s-2")
    session.set_history([{"role": "user", "content": "one", "message_id": "m-1"}])
    return session


def continued(store: ConversationStore) -> Session:
    """A session that continues one in which m-1 was said."""
    return begun(store).reset(preserve_history=True)


@pytest.mark.parametrize("get", [begun, replaced, continued])
def test_a_message_id_counts_however_the_message_came(
    store: ConversationStore, get: Callable[[ConversationStore], Session]
) -> None:
    """By the first history, by setting it, or taken along by a reset: said again it is not there twice."""
    session = get(store)
    version = session.version
    assert session.add_message("user", "one", message_id="m-1").message_id == "m-1"
    assert (session.version, len(session.history())) == (version, 1)
    with pytest.raises(IdempotencyConflict):
        session.add_message("user", "two", message_id="m-1")


def test_a_message_id_counts_in_the_turn_in_which_the_history_was_set(session: Session) -> None:
    """Said again there it is not there twice, and for another message it is a conflict."""
    with session.turn():
        session.set_history([{"role": "user", "content": "one", "message_id": "m-1"}])
        assert session.add_message("user", "one", message_id="m-1").message_id == "m-1"
        with pytest.raises(IdempotencyConflict):
            session.add_message("user", "two", message_id="m-1")
    assert [message.content for message in session.history()] == ["one"]
