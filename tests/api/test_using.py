"""Inside an application's transaction (`store.using`): all or nothing, what is seen before the commit, races."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import psycopg
import pytest

import turnlog
from tests.api.test_following import Reader
from turnlog import (
    ConcurrencyConflict,
    ConversationStore,
    IdempotencyConflict,
    InvalidInput,
    Receipt,
    SessionClosed,
    SessionNotFound,
    StoreUnavailable,
    index,
)
from turnlog.adapters.postgresql.connection import Connection

Connect = Callable[[], Connection]
DEADLINE_S = 30


@pytest.fixture
def store(postgresql_url: str) -> Iterator[ConversationStore]:
    """A store with alice's session ``s``, in which one message was said, and a table of the application's beside it."""
    with turnlog.open(postgresql_url) as opened, psycopg.connect(postgresql_url) as connection:
        connection.execute("CREATE TABLE orders (dish text)")
        connection.commit()
        opened.session("s", user_id="alice").add_message("user", "before")
        opened.catch_up()
        yield opened


@pytest.fixture
def connect(postgresql_url: str) -> Iterator[Connect]:
    """Connect as an application does; what is left open is rolled back."""
    made: list[Connection] = []

    def connected() -> Connection:
        made.append(psycopg.connect(postgresql_url))
        return made[-1]

    yield connected
    for connection in made:
        connection.close()


@pytest.fixture
def connection(connect: Connect) -> Connection:
    """An application's connection."""
    return connect()


def said(store: ConversationStore, session_id: str = "s") -> list[object]:
    """Return what was said in a session."""
    return [message.content for message in store.get(session_id).history()]


def orders(connection: Connection) -> list[str]:
    """Return the application's rows."""
    return [row[0] for row in connection.execute("SELECT dish FROM orders ORDER BY dish").fetchall()]


# --- together, or not at all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [True, False])
def test_events_and_rows_are_committed_together_or_not_at_all(
    store: ConversationStore, connect: Connect, *, committed: bool
) -> None:
    """Nobody else sees either before the commit; after it, or after a rollback, both are there or neither is."""
    connection = connect()
    connection.execute("INSERT INTO orders VALUES ('soup')")
    bound = store.using(connection)
    bound.session("s").add_message("user", "soup")
    bound.session("t", user_id="bob").collect(dish="soup")
    assert said(store) == ["before"]
    assert not store.exists("t")
    assert store.sessions(user_id="bob").items == []
    if committed:
        connection.commit()
    else:
        connection.rollback()
    assert said(store) == (["before", "soup"] if committed else ["before"])
    assert store.exists("t") is committed
    assert [one.session_id for one in store.sessions(user_id="bob").items] == ["t"] * committed
    assert orders(connect()) == ["soup"] * committed
    assert store.verify().ok


def test_a_receipt_is_pending_and_tells_where_it_will_be(store: ConversationStore, connection: Connection) -> None:
    """Version, hash and position of a receipt are those of the committed event; its durability promises nothing."""
    receipt = store.using(connection).get("s").add_message("user", "soup")
    assert receipt.durability == "pending"
    connection.commit()
    (event,) = store.get("s").events(last=1)
    assert (event.version, event.position, event.hash) == (receipt.version, receipt.position, receipt.hash)


def test_nothing_but_events_and_keys_is_written(store: ConversationStore, connection: Connection) -> None:
    """No snapshot, view or checkpoint is, however much is said and whatever is asked."""
    bound = store.using(connection)
    session = bound.session("s")
    for i in range(120):
        session.add_message("user", str(i), message_id=f"m-{i}")
    session.fork("f")
    session.reset()
    assert len(bound.sessions(user_id="alice").items) == 3
    assert len(bound.messages(user_id="alice", limit=500).items) == 242
    written = connection.execute(
        "SELECT relname FROM pg_stat_xact_user_tables WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 ORDER BY 1"
    ).fetchall()
    assert written == [("turnlog_events",), ("turnlog_keys",)]
    connection.commit()
    assert store.verify().ok


def test_what_fails_is_undone_alone(store: ConversationStore, connection: Connection) -> None:
    """The rules, the input and the server may refuse an append: the application's rows stay, and it can go on."""
    bound = store.using(connection)
    session = bound.session("s")
    connection.execute("INSERT INTO orders VALUES ('soup')")
    session.complete()
    with pytest.raises(SessionClosed):
        session.add_message("user", "too late")
    with pytest.raises(InvalidInput):
        session.set_metadata({"dish": {1, 2}})
    with pytest.raises(SessionClosed), session.turn():
        session.add_messages([{"role": "user", "content": "too"}, {"role": "user", "content": "late"}])
    connection.execute("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$")
    connection.execute("CREATE TRIGGER no BEFORE INSERT ON turnlog_events FOR EACH ROW EXECUTE FUNCTION refuse()")
    with pytest.raises(StoreUnavailable, match="no"):
        session.reopen()
    connection.execute("DROP TRIGGER no ON turnlog_events")
    connection.execute("INSERT INTO orders VALUES ('tea')")
    session.reopen()
    connection.commit()
    assert orders(connection) == ["soup", "tea"]
    assert store.get("s").status == "active"
    assert store.get("s").version == 4
    assert store.verify().ok


def test_a_turn_is_one_append(store: ConversationStore, connection: Connection) -> None:
    """What is said in a turn is one append there too, under its command's id."""
    session = store.using(connection).get("s")
    for _ in range(2):
        with session.turn(command_id="c") as turn:
            session.enter_route("booking")
            session.add_message("assistant", "Gladly")
        assert turn.receipt.version == 4
    connection.commit()
    assert store.get("s").version == 4


def test_ids_make_a_write_idempotent_across_the_commit(store: ConversationStore, connection: Connection) -> None:
    """A key is written with its event: the same one is found before the commit, after it, and not after a rollback."""
    bound = store.using(connection)
    for end in (connection.rollback, connection.commit, connection.commit):
        receipts = [bound.get("s").add_message("user", "soup", message_id="m") for _ in range(2)]
        assert receipts[0] == receipts[1]
        with pytest.raises(IdempotencyConflict):
            bound.get("s").add_message("user", "tea", message_id="m")
        end()
    assert said(store) == ["before", "soup"]
    assert store.get("s").add_message("user", "soup", message_id="m").position == receipts[0].position


def test_nobody_is_told_of_a_commit_that_cannot_be_known(store: ConversationStore, connection: Connection) -> None:
    """Callbacks are not called for what is written inside, neither before the commit nor after it."""
    told: list[Receipt] = []
    store.on_committed(told.append)
    store.using(connection).get("s").add_message("user", "soup")
    connection.commit()
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
        "users": store.users(),
        "counts": (stats.sessions, stats.events, stats.messages, stats.users, stats.statuses),
        "heads": list(store.heads()),
        "for alice": store.for_user("alice").sessions(),
    }


def test_everything_reads_what_is_not_committed_yet(store: ConversationStore, connection: Connection) -> None:
    """Before the commit a bound store gives the answers that the store gives after it."""
    store.session("x", user_id="bob").add_message("user", "committed, and in no view yet")
    bound = store.using(connection)
    session = bound.get("s")
    session.set_history([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    session.add_message("user", "tea", message_id="m-1")
    session.edit_message("m-1", "coffee")
    bound.session("t", user_id="bob").pause()
    bound.session("u", user_id="alice").add_message("user", "hello")
    before = asked(bound)
    connection.commit()
    assert before == asked(store)


def test_the_log_in_order_ends_before_what_is_not_committed(store: ConversationStore, connection: Connection) -> None:
    """`events` and `position` leave it out until then: whoever keeps a position inside misses nothing by it."""
    bound = store.using(connection)
    bound.get("s").add_message("user", "soup")
    store.session("t")
    assert [(event.session_id, event.version) for event in bound.events()] == [("s", 1), ("s", 2)]
    position = bound.position
    connection.commit()
    assert [(event.session_id, event.version) for event in bound.events(after=position)] == [("s", 3), ("t", 1)]


def test_an_overlay_that_is_too_long(
    store: ConversationStore, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has written, or is to look through, too much for a query is told what to do; a view as it stands answers."""
    monkeypatch.setattr(index, "OVERLAY_EVENTS", 5)
    bound = store.using(connection)
    for i in range(6):
        bound.get("s").collect(n=i)
    with pytest.raises(StoreUnavailable, match="ask again when it has ended"):
        bound.sessions()
    assert [one.version for one in bound.sessions(consistency="eventual").items] == [2]
    connection.commit()
    with pytest.raises(StoreUnavailable, match="have one that can call catch_up"):
        bound.sessions()
    store.catch_up()
    assert [one.version for one in bound.sessions().items] == [8]


# --- races ------------------------------------------------------------------------------------------------------------


def test_who_was_overtaken_decides_anew(store: ConversationStore, connection: Connection) -> None:
    """What others committed since the handle was read, or the transaction began, is seen, and written after."""
    session = store.using(connection).get("s")
    store.get("s").add_message("user", "overtaking")
    assert session.add_message("user", "soup").version == 4
    store.get("s")
    with pytest.raises(ConcurrencyConflict, match="expected_version was 3"):
        session.add_message("user", "tea", expected_version=3)
    store.session("t", user_id="bob")
    assert not store.using(connection).session("t").created
    connection.commit()
    assert said(store) == ["before", "overtaking", "soup"]


@pytest.mark.parametrize("committed", [True, False])
def test_who_meets_an_open_append_waits_for_it(store: ConversationStore, connect: Connect, *, committed: bool) -> None:
    """Of two transactions that append to one session the second goes on when the first has ended, and after it."""
    first, second = connect(), connect()
    store.using(first).get("s").add_message("user", "first")
    versions: list[int | None] = []
    waiting = threading.Thread(
        target=lambda: versions.append(store.using(second).get("s").add_message("user", "second").version)
    )
    waiting.start()
    wait_for_lock(connect())
    (first.commit if committed else first.rollback)()
    waiting.join(DEADLINE_S)
    second.commit()
    assert versions == [4 if committed else 3]
    assert said(store) == (["before", "first", "second"] if committed else ["before", "second"])
    assert store.verify().ok


def wait_for_lock(connection: Connection) -> None:
    """Wait until a transaction waits for another one."""
    connection.autocommit = True
    statement = "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
    while connection.execute(statement).fetchall() == [(0,)]:
        pass


def test_two_that_wait_for_each_other(store: ConversationStore, connect: Connect) -> None:
    """One of them is told so, and can still roll back to what it likes; the other goes on."""
    store.session("t")
    first, second = connect(), connect()
    store.using(first).get("s").collect(n=1)
    store.using(second).get("t").collect(n=2)
    told: list[Exception] = []

    def cross(connection: Connection, session_id: str) -> None:
        try:
            store.using(connection).get(session_id).collect(n=3)
            connection.commit()
        except ConcurrencyConflict as error:
            told.append(error)
            connection.execute("SELECT 1")
            connection.rollback()

    crossing = [threading.Thread(target=cross, args=pair) for pair in ((first, "t"), (second, "s"))]
    for thread in crossing:
        thread.start()
    for thread in crossing:
        thread.join(DEADLINE_S)
    assert [str(error) for error in told] == [
        "this transaction and another one wait for each other; roll back, and do it again"
    ]
    assert sorted((store.get("s").data["n"], store.get("t").data["n"])) in ([1, 3], [2, 3], [3, 3])
    assert store.verify().ok


def test_a_row_held_for_too_long(postgresql_url: str, connect: Connect) -> None:
    """An append waits as long as the store's timeout, whatever the connection says; then the transaction goes on."""
    with turnlog.open(postgresql_url, timeout_s=0.2) as store:
        store.session("s")
        first, second = connect(), connect()
        store.using(first).get("s").collect(n=1)
        second.execute("SET lock_timeout = '1h'")
        with pytest.raises(StoreUnavailable, match="held a lock"):
            store.using(second).get("s").collect(n=2)
        assert second.execute("SHOW lock_timeout").fetchall() == [("1h",)]
        store.using(second).session("t")
        assert second.execute("SHOW lock_timeout").fetchall() == [("1h",)]
        second.commit()
        first.commit()
        assert store.get("s").data == {"n": 1}
        assert store.exists("t")


# --- rolled back to a savepoint ---------------------------------------------------------------------------------------


def test_a_handle_forgets_what_was_rolled_back(store: ConversationStore, connection: Connection) -> None:
    """After the application's own savepoint is undone, a handle writes on what is there, without a gap."""
    session = store.using(connection).get("s")
    with suppress(psycopg.Rollback), connection.transaction() as inner:
        session.add_message("user", "lost", message_id="m")
        session.collect(lost=True)
        raise psycopg.Rollback(inner)
    assert session.add_message("user", "kept", message_id="m").version == 3
    assert (session.version, session.data) == (3, {})
    with suppress(psycopg.Rollback), connection.transaction() as inner:
        session.collect(n=1)
        raise psycopg.Rollback(inner)
    store.using(connection).get("s").collect(n=2)  # the same version, another event
    session.collect(n=2)
    session.collect(m=3)
    assert (session.version, session.data) == (5, {"n": 2, "m": 3})
    connection.commit()
    assert [type(event.event).__name__ for event in store.get("s").events(after=2)] == [
        "MessageAdded",
        "DataCollected",
        "DataCollected",
    ]
    assert store.verify().ok


def test_what_was_rolled_back_is_not_stood_on(store: ConversationStore, connection: Connection) -> None:
    """Neither a refusal, a repetition, a turn nor what changes nothing is decided on it; `refresh` reads anew."""
    bound = store.using(connection)
    session, created = bound.get("s"), bound.session("t")
    connection.rollback()
    with pytest.raises(SessionNotFound):
        created.refresh()
    with pytest.raises(SessionNotFound):
        created.add_message("user", "to nobody")
    session.complete()
    connection.rollback()
    assert session.status == "completed"
    assert session.add_message("user", "not completed after all").version == 3
    session.collect(n=1)
    connection.rollback()
    assert session.collect(n=1, command_id="c").version == 3
    connection.rollback()
    with session.turn():
        session.collect(n=1)
        session.exit_route()
    assert session.version == 3
    connection.rollback()
    with session.turn():
        session.collect(n=1)
        connection.rollback()
    assert session.refresh().version == 3
    connection.commit()
    assert store.verify().ok
    assert store.get("s").data == {"n": 1}


# --- readers in the log's order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [True, False])
def test_a_subscriber_waits_for_what_may_still_come(
    store: ConversationStore, postgresql_url: str, connection: Connection, *, committed: bool
) -> None:
    """Around a transaction that ends late it gets every event once and in order, its own and those of others."""
    with turnlog.open(postgresql_url) as other:
        reader = Reader(other.subscribe(after=0))
        assert [event.version for event in reader.next(2)] == [1, 2]
        bound = store.using(connection)
        bound.session("t").collect(n=1)
        late = store.get("s").add_message("user", "later, and committed first")
        bound.get("t").collect(n=2)
        assert late.position is not None
        assert other.position < late.position
        assert reader.found.empty()
        (connection.commit if committed else connection.rollback)()
        found = [(event.session_id, event.version) for event in reader.next(4 if committed else 1)]
        assert found == ([("t", 1), ("t", 2), ("s", 3), ("t", 3)] if committed else [("s", 3)])
        store.session("last")
        assert [event.session_id for event in reader.next(1)] == ["last"]


def test_strict_order(postgresql_url: str, connection: Connection, connect: Connect) -> None:
    """Where appends exclude each other, a bound one excludes the others until the application commits."""
    with turnlog.open(postgresql_url, ordering="strict") as store:
        store.using(connection).session("s")
        waiting = threading.Thread(target=store.session, args=("t",))
        waiting.start()
        watching = connect()
        watching.autocommit = True
        statement = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while watching.execute(statement).fetchall() == [(0,)]:
            pass
        assert not store.exists("t")
        connection.commit()
        waiting.join(DEADLINE_S)
        assert [event.session_id for event in store.events()] == ["s", "t"]
