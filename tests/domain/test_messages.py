"""Messages: adding, editing, removing, replacing, compacting, and the count that state keeps of them."""

import pytest

from turnlog.domain import commands as c
from turnlog.domain import events as e
from turnlog.domain.commands import Found, FoundMessage
from turnlog.domain.events import Event
from turnlog.testing.scenario import Given, at, started, state_of


def message(n: int) -> e.MessageAdded:
    """Return the n-th message."""
    return e.MessageAdded(message_id=f"m{n}", role="user", content=f"message {n}")


def talk(n: int) -> Given:
    """Begin with n messages."""
    return started(*(message(i) for i in range(1, n + 1)))


def test_a_message_is_stored_with_all_it_was_given() -> None:
    """Every field of the command is a field of the event; outside a route it has neither route nor step."""
    calls = [{"id": "c1", "function": {"name": "search"}}]
    after = (
        started()
        .when(c.AddMessage("m1", "assistant", [{"text": "hi"}], "bot", calls, "c0", {"lang": "en"}))
        .then(
            e.MessageAdded(
                message_id="m1",
                role="assistant",
                content=[{"text": "hi"}],
                name="bot",
                tool_calls=calls,
                tool_call_id="c0",
                metadata={"lang": "en"},
            )
        )
    )
    assert (after.message_count, after.last_message_at) == (1, at(2))


def test_not_given_is_not_empty() -> None:
    """An empty list of calls, an empty name and empty metadata stay what they are."""
    started().when(c.AddMessage("m1", "user", "", "", [], "", {})).then(
        e.MessageAdded(message_id="m1", role="user", content="", name="", tool_calls=[], tool_call_id="", metadata={})
    )


def test_null_content_is_content() -> None:
    """A message without content is stored as one."""
    started().when(c.AddMessage("m1", "assistant", None)).then(
        e.MessageAdded(message_id="m1", role="assistant", content=None)
    )


def test_a_message_carries_the_route_and_step_it_was_said_on() -> None:
    """History can tell them without a second fold."""
    on_step = started(e.RouteEntered(route="booking"), e.StepEntered(step="party"))
    on_step.when(c.AddMessage("m1", "user", "two")).then(
        e.MessageAdded(message_id="m1", role="user", content="two", route="booking", step="party")
    )


def test_the_same_words_twice_are_two_messages() -> None:
    """A message is a fact of its own whatever it says."""
    talk(1).when(c.AddMessage("m2", "user", "message 1")).then(
        e.MessageAdded(message_id="m2", role="user", content="message 1")
    )


def test_editing_leaves_the_count_and_the_time_of_the_last_message() -> None:
    """An edit is no new message."""
    before = talk(2)
    after = before.when(c.EditMessage("m2", "better"), Found(message=FoundMessage("m2", "message 2"))).then(
        e.MessageEdited(message_id="m2", content="better")
    )
    assert (after.message_count, after.last_message_at) == (2, before.state.last_message_at)


def test_popping_removes_the_last_message_and_nothing_from_nothing() -> None:
    """What is removed is the message the store found last; of no messages none is removed."""
    after = talk(2).when(c.PopMessage(), Found(message=FoundMessage("m2", "x"))).then(e.MessageRemoved(message_id="m2"))
    assert after.message_count == 1
    started().when(c.PopMessage()).nothing()


def test_clearing_an_empty_history_is_no_event() -> None:
    """Only what is there can be cleared."""
    started().when(c.ClearHistory()).nothing()
    assert talk(3).when(c.ClearHistory()).then(e.HistoryCleared()).message_count == 0
    started(message(1), e.HistoryCleared()).when(c.ClearHistory()).nothing()
    started(message(1), e.MessageRemoved(message_id="m1")).when(c.ClearHistory()).nothing()


def test_replacing_counts_what_came_instead() -> None:
    """A replaced history counts its own messages; replacing nothing by nothing is no event."""
    new = tuple(e.ReplacementMessage(message_id=f"n{i}", role="user", content=i, occurred_at=at(0)) for i in range(3))
    after = talk(5).when(c.SetHistory(new)).then(e.HistoryReplaced(messages=new))
    assert (after.message_count, after.last_message_at) == (3, at(7))
    assert talk(5).when(c.SetHistory(())).then(e.HistoryReplaced(messages=())).message_count == 0
    assert started().when(c.SetHistory(new)).then(e.HistoryReplaced(messages=new)).message_count == 3
    started().when(c.SetHistory(())).nothing()


@pytest.mark.parametrize(("kept", "count"), [(0, 1), (1, 2), (4, 5)])
def test_compacting_leaves_the_summary_and_what_is_kept(kept: int, count: int) -> None:
    """One summary stands for all but the newest messages, as many as the store says are kept."""
    after = (
        talk(5)
        .when(c.CompactHistory("s1", {"text": "so far"}, 99), Found(kept=kept))
        .then(e.HistoryCompacted(message_id="s1", summary={"text": "so far"}, kept=kept))
    )
    assert (after.message_count, after.last_message_at) == (count, at(6))


@pytest.mark.parametrize(("messages", "kept"), [(0, 0), (5, 5), (5, 6)])
def test_compacting_nothing_is_no_event(messages: int, kept: int) -> None:
    """Where every message is kept there is nothing to sum up."""
    talk(messages).when(c.CompactHistory("s1", "so far", kept), Found(kept=kept)).nothing()


NO_MESSAGES: list[Event] = [
    e.ToolCalled(call_id="c1", name="search", arguments={}),
    e.ToolReturned(call_id="c1", name="search", content="x"),
    e.RunStarted(run_id="r1"),
    e.RunFinished(run_id="r1", status="completed"),
    e.StepEntered(step="party"),
    e.DataCollected(values={"a": 1}),
]


@pytest.mark.parametrize("event", NO_MESSAGES, ids=lambda event: type(event).__name__)
def test_what_is_not_a_message_is_not_counted(event: Event) -> None:
    """A tool's call and its return are no messages, nor is anything else."""
    before = talk(2).state
    after = state_of(e.SessionStarted(user_id="alice"), message(1), message(2), event)
    assert (after.message_count, after.last_message_at) == (before.message_count, before.last_message_at)


def test_the_last_message_is_remembered_when_the_history_is_gone() -> None:
    """``last_message_at`` says when somebody last spoke, whatever is still visible."""
    after = state_of(e.SessionStarted(), message(1), message(2), e.MessageRemoved(message_id="m2"), e.HistoryCleared())
    assert (after.message_count, after.last_message_at) == (0, at(3))
