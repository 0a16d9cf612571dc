"""Inside an application's transaction (`store.using`): all or nothing, and what is seen before the commit."""

import pytest

import turnlog
from tests.lent.applications import Application
from tests.lent.conftest import Connect
from turnlog import (
    ConversationStore,
    IdempotencyConflict,
    InvalidInput,
    Receipt,
    SessionClosed,
    StoreUnavailable,
    index,
)


def said(store: ConversationStore, session_id: str = "s") -> list[object]:
    """Return what was said in a session."""
    return [message.content for message in store.get(session_id).history()]


def orders(app: Application) -> list[str]:
    """Return the application's rows."""
    return [row[0] for row in app.execute("SELECT dish FROM orders ORDER BY dish")]


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
def test_it_takes_a_server(scheme: str, sqlite_url: str) -> None:
    """Elsewhere it is refused, and said why."""
    with (
        turnlog.open("memory://" if scheme == "memory" else sqlite_url) as store,
        pytest.raises(InvalidInput, match="using: needs a store on PostgreSQL or MariaDB"),
    ):
        store.using(object())


# --- together, or not at all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [True, False])
def test_events_and_rows_are_committed_together_or_not_at_all(
    store: ConversationStore, connect: Connect, *, committed: bool
) -> None:
    """Nobody else sees either before the commit; after it, or after a rollback, both are there or neither is."""
    app = connect()
    app.execute("INSERT INTO orders VALUES ('soup')")
    bound = store.using(app.connection)
    bound.session("s").add_message("user", "soup")
    bound.session("t", user_id="bob").collect(dish="soup")
    assert said(store) == ["before"]
    assert not store.exists("t")
    assert store.sessions(user_id="bob").items == []
    if committed:
        app.commit()
    else:
        app.rollback()
    assert said(store) == (["before", "soup"] if committed else ["before"])
    assert store.exists("t") is committed
    assert [one.session_id for one in store.sessions(user_id="bob").items] == ["t"] * committed
    assert orders(connect()) == ["soup"] * committed
    assert store.verify().ok


def test_a_receipt_is_pending_and_tells_where_it_will_be(store: ConversationStore, app: Application) -> None:
    """Version, hash and position of a receipt are those of the committed event; its durability promises nothing."""
    receipt = store.using(app.connection).get("s").add_message("user", "soup")
    assert receipt.durability == "pending"
    app.commit()
    (event,) = store.get("s").events(last=1)
    assert (event.version, event.position, event.hash) == (receipt.version, receipt.position, receipt.hash)


def test_nothing_but_events_and_keys_is_written(store: ConversationStore, app: Application) -> None:
    """No snapshot, view or checkpoint is, however much is said and whatever is asked."""
    before = others(app)
    bound = store.using(app.connection)
    session = bound.session("s")
    for i in range(120):
        session.add_message("user", str(i), message_id=f"m-{i}")
    session.fork("f")
    session.reset()
    assert len(bound.sessions(user_id="alice").items) == 3
    assert len(bound.messages(user_id="alice", limit=500).items) == 242
    assert others(app) == before
    app.commit()
    assert store.verify().ok


def others(app: Application) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of all tables, as the application sees them, but for those of events and keys."""
    statement = (
        f"SELECT table_name FROM information_schema.tables WHERE table_schema = {app.schema}"
        " AND table_type = 'BASE TABLE' AND table_name NOT IN ('turnlog_events', 'turnlog_events_head', 'turnlog_keys')"
    )
    return {name: app.execute(f"SELECT * FROM {name}") for (name,) in app.execute(statement)}


def test_what_fails_is_undone_alone(store: ConversationStore, app: Application) -> None:
    """The rules, the input and the server may refuse an append: the application's rows stay, and it can go on."""
    for statement in app.refusing:
        app.execute(statement)
    app.commit()
    bound = store.using(app.connection)
    session = bound.session("s")
    app.execute("INSERT INTO orders VALUES ('soup')")
    session.complete()
    with pytest.raises(SessionClosed):
        session.add_message("user", "too late")
    with pytest.raises(InvalidInput):
        session.set_metadata({"dish": {1, 2}})
    with pytest.raises(SessionClosed), session.turn():
        session.add_messages([{"role": "user", "content": "too"}, {"role": "user", "content": "late"}])
    with pytest.raises(StoreUnavailable, match="no"):
        session.set_metadata({"dish": "refused"})
    app.execute("INSERT INTO orders VALUES ('tea')")
    session.reopen()
    app.commit()
    assert orders(app) == ["soup", "tea"]
    assert store.get("s").status == "active"
    assert store.get("s").version == 4
    assert store.verify().ok


def test_a_turn_is_one_append(store: ConversationStore, app: Application) -> None:
    """What is said in a turn is one append there too, under its command's id."""
    session = store.using(app.connection).get("s")
    for _ in range(2):
        with session.turn(command_id="c") as turn:
            session.enter_route("booking")
            session.add_message("assistant", "Gladly")
        assert turn.receipt.version == 4
    app.commit()
    assert store.get("s").version == 4


def test_ids_make_a_write_idempotent_across_the_commit(store: ConversationStore, app: Application) -> None:
    """A key is written with its event: the same one is found before the commit, after it, and not after a rollback."""
    bound = store.using(app.connection)
    for end in (app.rollback, app.commit, app.commit):
        receipts = [bound.get("s").add_message("user", "soup", message_id="m") for _ in range(2)]
        assert receipts[0] == receipts[1]
        with pytest.raises(IdempotencyConflict):
            bound.get("s").add_message("user", "tea", message_id="m")
        end()
    assert said(store) == ["before", "soup"]
    assert store.get("s").add_message("user", "soup", message_id="m").position == receipts[0].position


def test_nobody_is_told_of_a_commit_that_cannot_be_known(store: ConversationStore, app: Application) -> None:
    """Callbacks are not called for what is written inside, neither before the commit nor after it."""
    told: list[Receipt] = []
    store.on_committed(told.append)
    store.using(app.connection).get("s").add_message("user", "soup")
    app.commit()
    store.get("s").add_message("user", "tea")
    assert [receipt.version for receipt in told] == [4]


# --- reading ----------------------------------------------------------------------------------------------------------


def asked(store: ConversationStore) -> dict[str, object]:
    """Return the answers to everything that can be asked, but what is of the log's order."""
    session = store.get("s")
    stats = store.stats()
    active = store.active_session("alice")
    return {
        "history": session.history(),
        "state": session.state,
        "at": session.at(version=3),
        "events": [event.hash for event in session.events()],
        "replay": [step.after for step in session.replay()],
        "message": session.message("m-1"),
        "diff": session.diff(1, 4),
        "exists": [store.exists(name) for name in ("s", "t", "u", "x")],
        "active": active and active.id,
        "sessions": store.sessions(),
        "page": store.sessions(limit=1),
        "of bob": store.sessions(user_id="bob", status="paused"),
        "messages": store.messages(user_id="alice"),
        "found": store.search("coffee", user_id="alice"),
        "users": store.users(),
        "counts": (stats.sessions, stats.events, stats.messages, stats.users, stats.statuses),
        "heads": list(store.heads()),
        "for alice": store.for_user("alice").sessions(),
    }


def test_everything_reads_what_is_not_committed_yet(store: ConversationStore, app: Application) -> None:
    """Before the commit a bound store gives the answers that the store gives after it."""
    store.session("x", user_id="bob").add_message("user", "committed, and in no view yet")
    bound = store.using(app.connection)
    session = bound.get("s")
    session.set_history([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    session.add_message("user", "tea", message_id="m-1")
    session.edit_message("m-1", "coffee")
    bound.session("t", user_id="bob").pause()
    bound.session("u", user_id="alice").add_message("user", "hello")
    before = asked(bound)
    app.commit()
    assert before == asked(store)


def test_the_log_in_order_ends_before_what_is_not_committed(store: ConversationStore, app: Application) -> None:
    """`events` and `position` leave it out until then: whoever keeps a position inside misses nothing by it."""
    bound = store.using(app.connection)
    store.session("t")
    bound.get("s").add_message("user", "soup")
    assert [(event.session_id, event.version) for event in bound.events(after=1)] == [("s", 2), ("t", 1)]
    assert bound.position == store.position
    position = bound.position
    app.commit()
    assert [(event.session_id, event.version) for event in bound.events(after=position)] == [("s", 3)]


def test_an_overlay_that_is_too_long(
    store: ConversationStore, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has written, or is to look through, too much for a query is told what to do; a view as it stands answers."""
    monkeypatch.setattr(index, "OVERLAY_EVENTS", 5)
    bound = store.using(app.connection)
    for i in range(6):
        bound.get("s").collect(n=i)
    with pytest.raises(StoreUnavailable, match="ask again when it has ended"):
        bound.sessions()
    assert [one.version for one in bound.sessions(consistency="eventual").items] == [2]
    app.commit()
    with pytest.raises(StoreUnavailable, match="have one that can call catch_up"):
        bound.sessions()
    store.catch_up()
    assert [one.version for one in bound.sessions().items] == [8]
