"""Getting, creating and finding sessions."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import turnlog
from turnlog import (
    ConcurrencyConflict,
    ConversationStore,
    InvalidInput,
    NotOwner,
    RecordedEvent,
    Session,
    SessionClosed,
    SessionGone,
    SessionNotFound,
    SessionSummary,
    StoreUnavailable,
)
from turnlog.store import CATCH_UP_EVERY
from turnlog.testing import Clock


def ids(summaries: list[SessionSummary]) -> list[str]:
    """Return the ids, in order."""
    return [summary.session_id for summary in summaries]


def test_a_session_is_created_once_and_then_got(store: ConversationStore) -> None:
    """The first call creates, the next ones get, and tell so."""
    first = store.session("s-1", user_id="alice", agent="waiter", data={"n": 1})
    again = store.session("s-1")
    assert (first.created, again.created) == (True, False)
    assert (again.user_id, again.agent, again.data, again.version) == ("alice", "waiter", {"n": 1}, 1)


def test_initial_values_are_ignored_where_the_session_exists(store: ConversationStore) -> None:
    """What is given to create a session changes nothing of one that exists."""
    store.session("s-1", user_id="alice", data={"n": 1})
    said = [{"role": "user", "content": "hi"}]
    again = store.session("s-1", agent="cook", data={"n": 2}, context={"c": 1}, metadata={"m": 1}, history=said)
    assert (again.agent, again.data, again.state.context, again.state.metadata) == (None, {"n": 1}, {}, {})
    assert again.history() == []
    assert store.position == 1


def test_initial_values_are_one_append(store: ConversationStore) -> None:
    """A session begins with what is given: values, and messages of which the order and the ids are kept."""
    said = [{"role": "system", "content": "Be kind.", "message_id": "m-1"}, {"role": "user", "content": "hi"}]
    session = store.session("s-1", context={"c": None}, metadata={"m": [1]}, history=said)
    assert (session.state.context, session.state.metadata) == ({"c": None}, {"m": [1]})
    assert [message.content for message in session.history()] == ["Be kind.", "hi"]
    assert session.history()[0].message_id == "m-1"
    assert [event.turn for event in session.events()] == [(1, 3), (2, 3), (3, 3)]


def test_without_an_id_every_session_is_new(store: ConversationStore) -> None:
    """Ids that are made are told apart and rise with time."""
    made = [store.session().id for _ in range(20)]
    assert len(set(made)) == 20
    assert all(len(one) == 36 and one[14] == "7" for one in made)


def test_an_ownerless_session_belongs_to_the_first_who_names_himself(store: ConversationStore) -> None:
    """Naming oneself takes it; naming another afterwards is refused, naming nobody is not."""
    store.session("s-1")
    assert store.session("s-1", user_id="alice").user_id == "alice"
    with pytest.raises(NotOwner, match="another user") as raised:
        store.session("s-1", user_id="bob")
    assert "alice" not in str(raised.value)
    assert store.session("s-1").user_id == "alice"
    assert store.get("s-1").version == 2


def test_a_closed_session_is_got_and_may_still_be_owned(store: ConversationStore) -> None:
    """Getting does not need an open session."""
    store.session("s-1").archive()
    session = store.session("s-1", user_id="alice")
    assert (session.status, session.user_id) == ("archived", "alice")


def test_of_several_racing_callers_one_creates(reopen: Callable[[], ConversationStore]) -> None:
    """However many ask at once, there is one session, and one of them made it."""
    barrier = threading.Barrier(8)

    def get(n: int) -> Session:
        store = reopen()
        barrier.wait(30)
        return store.session("s-1", data={"made_by": n})

    with ThreadPoolExecutor(8) as pool:
        sessions = list(pool.map(get, range(8)))
    assert sum(session.created for session in sessions) == 1
    assert len({session.data["made_by"] for session in sessions}) == 1
    assert [session.version for session in sessions] == [1] * 8


def test_unknown_is_not_found_and_never_silently_nothing(store: ConversationStore) -> None:
    """An unknown id is an error that is a KeyError and names it."""
    with pytest.raises(SessionNotFound, match="nowhere") as raised:
        store.get("nowhere")
    assert isinstance(raised.value, KeyError)
    assert raised.value.session_id == "nowhere"
    assert not store.exists("nowhere")
    assert store.position == 0


def test_deleted_is_gone_and_never_comes_back(store: ConversationStore) -> None:
    """A deleted session is told from one that never was, also when asked to create it."""
    store.session("s-1").delete()
    uses: list[Callable[[], object]] = [
        lambda: store.get("s-1"),
        lambda: store.session("s-1"),
        lambda: store.session("s-1", user_id="alice"),
    ]
    for use in uses:
        with pytest.raises(SessionGone, match="s-1"):
            use()
    assert not store.exists("s-1")


def test_the_active_session_is_the_one_created_last(store: ConversationStore, clock: Clock) -> None:
    """Created last by the order of the log, whatever the clock says; other statuses and users do not count."""
    assert store.active_session("alice") is None
    first = store.session("first", user_id="alice")
    clock.advance(-3600)
    second = store.session("second", user_id="alice")
    store.session("of bob", user_id="bob")
    first.add_message("user", "the newest update")
    active = store.active_session("alice")
    assert active is not None
    assert active.id == "second"
    second.pause()
    active = store.active_session("alice")
    assert active is not None
    assert active.id == "first"
    first.complete()
    assert store.active_session("alice") is None


def test_sessions_are_listed_newest_update_first(store: ConversationStore, clock: Clock) -> None:
    """The order is that of each session's last event in the log, never that of a clock."""
    for name in ("a", "b", "c"):
        store.session(name)
        clock.advance(-60)
    store.get("a").collect(n=1)
    assert ids(store.sessions().items) == ["a", "c", "b"]


def test_sessions_are_filtered(store: ConversationStore, clock: Clock) -> None:
    """By user, agent, status, current route and time of the last update; all that are given must hold."""
    store.session("a", user_id="alice", agent="waiter").enter_route("booking")
    middle = clock.advance(60)
    clock.advance(60)
    store.session("b", user_id="alice", agent="cook").complete()
    store.session("c", user_id="bob", agent="cook").enter_route("booking")
    assert ids(store.sessions(user_id="alice").items) == ["b", "a"]
    assert ids(store.sessions(agent="cook").items) == ["c", "b"]
    assert ids(store.sessions(status="completed").items) == ["b"]
    assert ids(store.sessions(route="booking").items) == ["c", "a"]
    assert ids(store.sessions(older_than=middle).items) == ["a"]
    assert ids(store.sessions(newer_than=middle).items) == ["c", "b"]
    assert ids(store.sessions(route="booking", agent="cook", user_id="bob", status="active").items) == ["c"]
    assert ids(store.sessions(route="booking", user_id="nobody").items) == []


def test_pages_join_to_the_whole_also_while_others_write(store: ConversationStore) -> None:
    """Going on from a cursor misses nothing and repeats nothing of what has stood still."""
    for n in range(10):
        store.session(f"s-{n}", user_id="alice").add_message("user", f"{n}")
    page = store.sessions(limit=4)
    store.get("s-9").collect(n=1)
    store.session("later")
    rest = store.sessions(limit=100, cursor=page.next_cursor)
    assert ids(page.items) + ids(rest.items) == [f"s-{n}" for n in range(9, -1, -1)]
    assert rest.next_cursor is None
    first = store.messages(user_id="alice", limit=7)
    last = store.messages(user_id="alice", limit=7, cursor=first.next_cursor)
    assert [message.content for message in first.items + last.items] == [f"{n}" for n in range(9, -1, -1)]


def test_messages_of_a_user_are_those_visible_in_his_sessions(store: ConversationStore) -> None:
    """Newest first over all his sessions, as history shows them: edited, without what was removed."""
    one, other = store.session("s-1", user_id="alice"), store.session("s-2", user_id="alice")
    store.session("s-3", user_id="bob").add_message("user", "of bob")
    one.add_message("user", "first", message_id="m-1")
    other.add_message("user", "removed", message_id="m-2")
    one.add_message("assistant", "last", metadata={"n": 1})
    one.edit_message("m-1", "edited")
    other.remove_message("m-2")
    assert store.messages(user_id="alice").items == one.history()[::-1]
    assert [message.content for message in one.history()] == ["edited", "last"]


def test_eventual_consistency_answers_from_the_view_as_it_stands(store: ConversationStore) -> None:
    """A query that asks for less waits for nothing; the next one that does not sees everything."""
    store.session("s-1", user_id="alice").add_message("user", "hi")
    store.sessions()
    store.session("s-2", user_id="alice").add_message("user", "ho")
    assert ids(store.sessions(consistency="eventual").items) == ["s-1"]
    assert store.messages(user_id="alice", consistency="eventual").items == []
    assert ids(store.sessions().items) == ["s-2", "s-1"]
    assert len(store.messages(user_id="alice").items) == 2


def test_whoever_comes_so_far_brings_the_views_along(
    store: ConversationStore, reopen: Callable[[], ConversationStore]
) -> None:
    """It is the log's length that counts, not what one process has written."""
    some = [{"role": "user", "content": "hi"}] * (CATCH_UP_EVERY // 2)
    store.session("s-1").add_messages(some)
    assert ids(store.sessions(consistency="eventual").items) == []
    reopen().session("s-2").add_messages(some)
    assert ids(store.sessions(consistency="eventual").items) == ["s-2", "s-1"]


def test_users_and_stats_count(store: ConversationStore) -> None:
    """Users come in order of their ids, in pages; the counts are those of what is there."""
    store.session("s-1", user_id="alice").add_message("user", "hi")
    store.session("s-2", user_id="alice").complete()
    store.session("s-3", user_id="bob")
    store.session("s-4")
    store.session("s-5", user_id="carol").delete()
    page = store.users(limit=1)
    rest = store.users(cursor=page.next_cursor)
    assert [(user.user_id, user.sessions, user.messages) for user in page.items + rest.items] == [
        ("alice", 2, 1),
        ("bob", 1, 0),
    ]
    stats = store.stats()
    assert (stats.sessions, stats.messages, stats.users, stats.position) == (4, 1, 2, 8)
    assert dict(stats.statuses) == {"active": 3, "completed": 1}
    assert {view.name: view.lag for view in stats.views} == {"session_index": 0, "message_index": 0}


def test_summaries_say_what_the_session_is(store: ConversationStore, clock: Clock) -> None:
    """Every field of a summary is that of the session's state."""
    session = store.session("s-1", user_id="alice", agent="waiter")
    clock.advance(1)
    session.add_message("user", "hi")
    session.enter_route("booking")
    session.enter_step("date")
    clock.advance(1)
    session.complete()
    (summary,) = store.sessions().items
    state = session.state
    for field in summary.__struct_fields__:
        assert getattr(summary, field) == getattr(state, "id" if field == "session_id" else field)
    assert summary.completed_at == clock.now


def test_ping_and_close(store: ConversationStore) -> None:
    """A store that is closed says so in every call, and closing twice does nothing."""
    session = store.session("s-1")
    store.ping()
    store.close()
    store.close()
    uses: list[Callable[[], object]] = [
        store.ping,
        store.sessions,
        lambda: store.get("s-1"),
        lambda: store.session("s-2"),
        lambda: session.add_message("user", "hi"),
        session.history,
        lambda: list(store.events()),
        store.scrub,
    ]
    for use in uses:
        with pytest.raises(StoreUnavailable, match="closed"):
            use()


def test_only_memory_can_be_cleared(store: ConversationStore, url: str) -> None:
    """A log on a file is never emptied; one in memory is, and starts again."""
    store.session("s-1", user_id="alice").add_message("user", "hi", message_id="m-1")
    store.sessions()
    if url == "memory://":
        store.clear()
        assert (store.position, store.sessions().items, store.users().items) == (0, [], [])
        assert not store.exists("s-1")
        assert store.session("s-1").created
        assert store.verify().ok
    else:
        with pytest.raises(InvalidInput, match="memory"):
            store.clear()
        assert store.exists("s-1")


def test_closed_sessions_refuse_with_a_word_on_what_to_do(store: ConversationStore) -> None:
    """The refusal names the session, its status, and reopening."""
    session = store.session("s-1")
    session.expire()
    with pytest.raises(SessionClosed, match=r"'s-1' is expired.*reopen"):
        session.add_message("user", "hi")


class Counts:
    """Another program's read model."""

    name = "counts"
    revision = 1

    def create(self, connection: Any) -> None:
        """Create its table."""
        connection.execute("CREATE TABLE counts (n INTEGER)")

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Count."""
        connection.execute("INSERT INTO counts VALUES (?)", (len(events),))


def test_a_view_of_another_program_is_left_to_it(sqlite_url: str) -> None:
    """A store that does not know a view goes on without it, catches up what it knows, and tells how it stands."""
    with turnlog.open(sqlite_url) as theirs, turnlog.open(sqlite_url) as store:
        theirs.add_projection(Counts())
        store.session("s-1", user_id="alice").add_message("user", "hi")
        store.catch_up()
        assert {view.name: view.lag for view in store.stats().views} == {
            "session_index": 0,
            "message_index": 0,
            "counts": 2,
        }
        store.rebuild()
        assert store.verify().ok
        theirs.catch_up()
        assert {view.lag for view in store.stats().views} == {0}


def test_the_first_messages_keep_when_they_occurred(store: ConversationStore, clock: Clock) -> None:
    """A history that a session begins with may be older than the session."""
    then = clock.now.replace(year=2020)
    said = {"role": "user", "content": "hi", "occurred_at": then}
    session = store.session("s-1", history=[said, {"role": "user", "content": "again"}])
    assert [message.occurred_at for message in session.history()] == [then, clock.now]
    assert session.history()[0].recorded_at == clock.now


def test_handles_from_before_memory_was_cleared_begin_nothing(clock: Clock) -> None:
    """What they say goes to no session, and the log stays sound."""
    with turnlog.open("memory://", clock=clock) as store:
        session = store.session("s-1")
        session.add_message("user", "hi")
        store.clear()
        with pytest.raises(ConcurrencyConflict):
            session.add_message("user", "again")
        assert store.session("s-1").created
        assert store.verify().ok
