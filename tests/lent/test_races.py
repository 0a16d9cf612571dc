"""Inside an application's transaction (`store.using`): races, deaths, and what is rolled back to a savepoint."""

import threading
from contextlib import ExitStack
from time import monotonic

import pytest

import turnlog
from tests.lent.applications import DEADLINE_S, Application, wait_for_lock
from tests.lent.conftest import Connect
from tests.lent.test_together import said
from turnlog import (
    ConcurrencyConflict,
    ConversationStore,
    SessionNotFound,
    StoreUnavailable,
)

# --- races ------------------------------------------------------------------------------------------------------------


def test_who_was_overtaken_decides_anew(store: ConversationStore, app: Application) -> None:
    """What others committed since the handle was read, or the transaction began, is seen, and written after."""
    session = store.using(app.connection).get("s")
    store.get("s").add_message("user", "overtaking")
    store.session("t", user_id="bob")
    assert session.add_message("user", "soup").version == 4
    with pytest.raises(ConcurrencyConflict, match="expected_version was 3"):
        session.add_message("user", "tea", expected_version=3)
    assert not store.using(app.connection).session("t").created
    app.commit()
    assert said(store) == ["before", "overtaking", "soup"]


@pytest.mark.parametrize("committed", [True, False])
def test_who_meets_an_open_append_waits_for_it(store: ConversationStore, connect: Connect, *, committed: bool) -> None:
    """Of two transactions that append to one session the second goes on when the first has ended, and after it."""
    first, second = connect(), connect()
    store.using(first.connection).get("s").add_message("user", "first")
    versions: list[int | None] = []
    waiting = threading.Thread(
        target=lambda: versions.append(store.using(second.connection).get("s").add_message("user", "second").version)
    )
    waiting.start()
    wait_for_lock(connect())
    (first.commit if committed else first.rollback)()
    waiting.join(DEADLINE_S)
    second.commit()
    assert versions == [4 if committed else 3]
    assert said(store) == (["before", "first", "second"] if committed else ["before", "second"])
    assert store.verify().ok


def test_an_order_held_for_too_long(store: ConversationStore, server_url: str, connect: Connect) -> None:
    """An append waits as long as the store's timeout, whatever the connection says; then the transaction goes on."""
    first, second = connect(), connect()
    set_, show, shown = second.patience
    store.using(first.connection).get("s").collect(n=1)
    second.execute(set_)
    with ExitStack() as stack:
        bound = bound_impatiently(stack, server_url, second)
        session = bound.get("s")
        with pytest.raises(StoreUnavailable, match="held a lock for 0.2 s"):
            session.collect(n=2)
        assert second.execute(show) == shown
        first.commit()
        bound.session("t")
        assert second.execute(show) == shown
        second.commit()
    assert store.get("s").data == {"n": 1}
    assert store.exists("t")


def bound_impatiently(stack: ExitStack, url: str, app: Application) -> ConversationStore:
    """Bind a store that waits for 0.2 s only, as soon as its own connections come about in that time."""
    deadline = monotonic() + DEADLINE_S
    while True:
        try:
            return stack.enter_context(turnlog.open(url, timeout_s=0.2)).using(app.connection)
        except StoreUnavailable:
            assert monotonic() < deadline


def test_applications_that_race(store: ConversationStore, connect: Connect) -> None:
    """Many transactions of several, some rolled back: what is in the log is what is in their table."""

    def work(app: Application, who: int) -> None:
        for n in range(8):
            app.execute(f"INSERT INTO orders VALUES ('{who}-{n}')")
            bound = store.using(app.connection)
            bound.get("s").add_message("user", f"{who}-{n}")
            bound.session(f"of {who}").collect(n=n)
            (app.rollback if n % 3 == who % 3 else app.commit)()

    working = [threading.Thread(target=work, args=(connect(), who)) for who in range(4)]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join(DEADLINE_S)
    kept = [row[0] for row in connect().execute("SELECT dish FROM orders")]
    assert sorted(map(str, said(store)[1:])) == sorted(kept)
    assert len(kept) == 21
    assert [event.position for event in store.events()] == sorted({event.position for event in store.events()})
    assert store.verify().ok


def test_an_application_that_dies_before_its_commit(store: ConversationStore, connect: Connect) -> None:
    """Nothing of what it wrote is there, nobody has seen it, and others go on."""
    app = connect()
    before = store.position
    store.using(app.connection).session("t", user_id="bob").collect(n=1)
    connect().execute(app.killing)
    assert store.session("u", user_id="bob").created
    assert not store.exists("t")
    assert [event.session_id for event in store.events(after=before)] == ["u"]
    assert [one.session_id for one in store.sessions(user_id="bob").items] == ["u"]


# --- rolled back to a savepoint ---------------------------------------------------------------------------------------


def test_a_handle_forgets_what_was_rolled_back(store: ConversationStore, app: Application) -> None:
    """After the application's own savepoint is undone, a handle writes on what is there, without a gap."""
    session = store.using(app.connection).get("s")
    app.execute("SAVEPOINT dinner")
    session.add_message("user", "lost", message_id="m")
    session.collect(lost=True)
    app.execute("ROLLBACK TO SAVEPOINT dinner")
    assert session.add_message("user", "kept", message_id="m").version == 3
    assert (session.version, session.data) == (3, {})
    app.execute("SAVEPOINT dinner")
    session.collect(n=1)
    app.execute("ROLLBACK TO SAVEPOINT dinner")
    store.using(app.connection).get("s").collect(n=2)  # the same version, another event
    session.collect(n=2)
    session.collect(m=3)
    assert (session.version, session.data) == (5, {"n": 2, "m": 3})
    app.commit()
    assert [type(event.event).__name__ for event in store.get("s").events(after=2)] == [
        "MessageAdded",
        "DataCollected",
        "DataCollected",
    ]
    assert store.verify().ok


def test_what_was_rolled_back_is_not_stood_on(store: ConversationStore, app: Application) -> None:
    """Neither a refusal, a repetition, a turn nor what changes nothing is decided on it; `refresh` reads anew."""
    bound = store.using(app.connection)
    session, created = bound.get("s"), bound.session("t")
    app.rollback()
    with pytest.raises(SessionNotFound):
        created.refresh()
    with pytest.raises(SessionNotFound):
        created.add_message("user", "to nobody")
    session.complete()
    app.rollback()
    assert session.status == "completed"
    assert session.add_message("user", "not completed after all").version == 3
    session.collect(n=1)
    app.rollback()
    assert session.collect(n=1, command_id="c").version == 3
    app.rollback()
    with session.turn():
        session.collect(n=1)
        session.exit_route()
    assert session.version == 3
    app.rollback()
    with session.turn():
        session.collect(n=1)
        app.rollback()
    assert session.refresh().version == 3
    app.commit()
    assert store.verify().ok
    assert store.get("s").data == {"n": 1}
