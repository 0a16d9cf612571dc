"""What holds of every session, whatever was said to it."""

from copy import deepcopy
from typing import get_args

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from turnlog.domain import commands as c
from turnlog.domain.commands import NOTHING, Command, fingerprint
from turnlog.domain.errors import TurnlogError
from turnlog.domain.events import Event, Json
from turnlog.domain.session import ROUTE_HISTORY, decide, evolve, fold, initial, same_json
from turnlog.domain.values import SessionState
from turnlog.testing.conversation import Conversation
from turnlog.testing.scenario import at, play
from turnlog.testing.strategies import COMMANDS, commands, conversations, events, json_values

NOT_IDEMPOTENT = (c.AddMessage, c.SetHistory, c.CompactHistory, c.PopMessage, c.CallTool, c.ReturnTool)
"""Each of these is a fact of its own however often it is said; by its key the store tells a retry from a repetition."""
GONE_AFTERWARDS = (c.RemoveMessage, c.DeleteSession)
"""Said again, these name what is no longer there."""

START = initial("default", "s-1")


def states(conversation: Conversation) -> list[SessionState]:
    """Return the state after each of its events, the empty one first, one event at a time."""
    passed = [START]
    for event in conversation.events:
        passed.append(evolve(passed[-1], event, at(passed[-1].version + 1)))
    return passed


def shown(value: object) -> bytes:
    """Return bytes that differ wherever two values do, also where Python calls them equal."""
    return msgspec.json.encode(value)


def test_every_command_is_drawn() -> None:
    """The properties below speak of all commands."""
    assert set(COMMANDS) == set(get_args(Command))


@given(conversations)
def test_the_state_at_n_is_the_fold_of_the_first_n_events(conversation: Conversation) -> None:
    """Folding at once, folding on from any state before, and going event by event come to the same."""
    passed = states(conversation)
    facts = [(event, at(version)) for version, event in enumerate(conversation.events, 1)]
    for n, state in enumerate(passed):
        assert state.version == n
        assert shown(fold(START, facts[:n])) == shown(state)
        assert shown(fold(state, facts[n:])) == shown(passed[-1])
    assert shown(conversation.state) == shown(passed[-1])


@given(conversations, events)
def test_evolve_changes_neither_the_state_nor_the_event(conversation: Conversation, event: Event) -> None:
    """Any event whatever: what went in is afterwards what it was before."""
    state = conversation.state
    before, told = shown(state), shown(event)
    kept = deepcopy(state)
    evolve(evolve(state, event, at(99)), event, at(100))
    assert (shown(state), shown(event), state) == (before, told, kept)


@given(conversations, commands)
def test_decide_changes_neither_the_state_nor_the_command(conversation: Conversation, command: Command) -> None:
    """Asked again with the same, it gives the same answer."""
    state, found = conversation.state, conversation.found(command)
    before, told = shown(state), shown(command)
    answers = [answer(state, command, found) for _ in range(2)]
    assert answers[0] == answers[1]
    assert (shown(state), shown(command)) == (before, told)


def answer(state: SessionState, command: Command, found: c.Found) -> str:
    """Return what is decided, or how it is refused, in words."""
    try:
        return repr(decide(state, command, found))
    except TurnlogError as error:
        return repr(error)


@given(conversations, commands)
def test_a_command_is_no_event_exactly_when_it_changes_nothing(conversation: Conversation, command: Command) -> None:
    """An event of a session always changes something that can be seen: its state, its messages, its calls or runs."""
    before = visible(conversation)
    said = conversation.say(command)
    if isinstance(command, NOT_IDEMPOTENT):
        return
    assert (visible(conversation) == before) == (said == ())


def visible(conversation: Conversation) -> bytes:
    """Return all that can be seen of a session but its version and its time."""
    state = msgspec.structs.replace(conversation.state, version=0, updated_at=None)
    runs = [conversation.found(c.StartRun(run_id, {})).run for run_id in ("r1", "r2")]
    return shown([msgspec.json.Encoder(order="sorted").encode(state).decode(), conversation.messages, runs])


@given(conversations, commands)
def test_what_was_said_is_not_said_again(conversation: Conversation, command: Command) -> None:
    """Repeating a command that set something gives nothing."""
    conversation.say(command)
    after = shown(conversation.state)
    if isinstance(command, (*NOT_IDEMPOTENT, *GONE_AFTERWARDS)):
        return
    assert conversation.say(command) == ()
    assert shown(conversation.state) == after


@given(conversations)
def test_messages_are_counted_right(conversation: Conversation) -> None:
    """``message_count`` is how many are visible, after any mixture of editing, removing, replacing and compacting."""
    assert conversation.state.message_count == len(conversation.messages)
    kinds = [type(event).__name__ for event in conversation.events]
    assert conversation.state.tool_call_count == kinds.count("ToolCalled")
    assert conversation.state.route_count == kinds.count("RouteEntered")


@given(conversations)
def test_what_state_says_of_itself_agrees(conversation: Conversation) -> None:
    """The open visit is the current route, data holds all that any route holds, completed means a time, and so on."""
    for state in states(conversation)[1:]:
        open_visits = [visit.route for visit in state.route_history if visit.exited_at is None]
        assert open_visits == ([] if state.current_route is None else [state.current_route])
        assert {key for data in state.data_by_route.values() for key in data} <= set(state.data)
        assert all(state.data_by_route.values())
        assert (state.status == "completed") == (state.completed_at is not None)
        assert (state.created_at, state.updated_at) == (at(1), at(state.version))
        assert len(state.route_history) == min(state.route_count, ROUTE_HISTORY)


@given(conversations)
def test_state_does_not_grow_with_the_number_of_events(conversation: Conversation) -> None:
    """The same things happening again leave state as large as it was, but for counts and the bounded visits."""
    again = conversation.events[1:]
    some, many = (play(conversation.state, *(again * times)) for times in (2, 40))
    assert len(shown(settled(some))) == len(shown(settled(many)))
    assert len(many.route_history) <= ROUTE_HISTORY


def settled(state: SessionState) -> SessionState:
    """Return the state without its counts, times and visits."""
    return msgspec.structs.replace(
        state,
        version=0,
        message_count=0,
        tool_call_count=0,
        route_count=0,
        route_history=(),
        updated_at=None,
        last_message_at=None,
        completed_at=None,
    )


@given(json_values, json_values)
def test_same_json_is_an_equality(one: Json, other: Json) -> None:
    """Every value is the same as itself and as its copy; two values are the same both ways or neither way."""
    assert same_json(one, deepcopy(one))
    assert same_json(one, other) == same_json(other, one)
    assert same_json(one, other) == (canonical(one) == canonical(other))


def canonical(value: Json) -> object:
    """Return the value with its types said, so that 1, 1.0 and true differ, and zeros with their signs."""
    if isinstance(value, dict):
        return "object", {key: canonical(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list):
        return "array", [canonical(item) for item in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return type(value).__name__, repr(value)


@given(st.lists(commands, max_size=3), st.lists(commands, max_size=3))
def test_a_fingerprint_tells_turns_apart(one: list[Command], other: list[Command]) -> None:
    """Two turns have the same fingerprint exactly when they are the same commands in the same order."""
    same = [(type(command), canonical(msgspec.to_builtins(command))) for command in one] == [
        (type(command), canonical(msgspec.to_builtins(command))) for command in other
    ]
    assert (fingerprint(tuple(one)) == fingerprint(tuple(other))) == same
    assert fingerprint(tuple(one)) == fingerprint(tuple(deepcopy(one)))


def test_nothing_found_is_nothing() -> None:
    """``NOTHING`` is what most commands are decided with."""
    assert c.Found() == NOTHING
