"""The connection that an application lends to a store on PostgreSQL: which will do, how it is left, waiting."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.rows import dict_row
from psycopg.types.string import TextLoader
from psycopg_pool import ConnectionPool

import turnlog
from tests.api.test_following import Reader
from tests.lent.applications import DEADLINE_S
from tests.servers import PostgreSQL, binaries_or_skip
from turnlog import ConcurrencyConflict, ConversationStore, InvalidInput, StoreUnavailable
from turnlog.adapters.postgresql.connection import Connection


@pytest.fixture
def store(postgresql_url: str) -> Iterator[ConversationStore]:
    """A store with a session ``s``."""
    with turnlog.open(postgresql_url) as opened:
        opened.session("s")
        yield opened


@pytest.fixture
def connection(postgresql_url: str) -> Iterator[Connection]:
    """An application's connection."""
    with psycopg.connect(postgresql_url) as made:
        yield made
        if not made.closed:
            made.rollback()


# --- which will do ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, "postgresql://here", object()])
def test_it_is_a_connection(store: ConversationStore, given: object) -> None:
    """Anything but a connection of psycopg's is refused."""
    with pytest.raises(InvalidInput, match="connection: expected a psycopg.Connection, got"):
        store.using(given)


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_isolation_that_cannot_try_again_is_refused(
    store: ConversationStore, connection: Connection, level: IsolationLevel
) -> None:
    """At once where the transaction has it; else by the first write or query in such a one, which can go on."""
    bound = store.using(connection)
    session = bound.get("s")
    connection.rollback()
    connection.isolation_level = level
    refused: list[Callable[[], object]] = [
        lambda: store.using(connection),
        lambda: session.collect(n=1),
        bound.sessions,
        lambda: bound.position,
        lambda: list(bound.events()),
    ]
    for refuse in refused:
        with pytest.raises(InvalidInput, match="expected READ COMMITTED") as told:
            refuse()
        assert told.value.field == "connection"
    store.get("s").collect(overtaking=True)
    with pytest.raises(InvalidInput, match="expected READ COMMITTED"):
        session.collect(n=1)
    assert connection.execute("SELECT 1").fetchall() == [(1,)]
    connection.rollback()
    connection.isolation_level = None
    assert session.collect(n=1).version == 3


def test_in_autocommit_mode_a_transaction_is_needed(store: ConversationStore, connection: Connection) -> None:
    """Without one every statement would be committed at once; a transaction that was begun by hand will do."""
    connection.autocommit = True
    with pytest.raises(InvalidInput, match="in no transaction; begin one first"):
        store.using(connection)
    with connection.transaction():
        bound = store.using(connection)
        session = bound.get("s")
        session.collect(n=1)
        assert store.get("s").data == {}
    assert store.get("s").data == {"n": 1}
    for refuse in (lambda: session.collect(n=2), bound.sessions, lambda: bound.get("s")):
        with pytest.raises(InvalidInput, match="in no transaction; begin one first"):
            refuse()
    connection.execute("BEGIN")
    session.collect(n=3)
    connection.execute("COMMIT")
    assert store.get("s").data == {"n": 3}


def test_a_transaction_that_has_failed(store: ConversationStore, connection: Connection) -> None:
    """It is said that it has; when it is rolled back, all is well."""
    bound = store.using(connection)
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("SELECT 1 / 0")
    for refuse in (lambda: bound.get("s"), lambda: store.using(connection)):
        with pytest.raises(StoreUnavailable, match="has failed; roll it back"):
            refuse()
    connection.rollback()
    bound.get("s").collect(n=1)
    connection.commit()
    assert store.get("s").data == {"n": 1}


def test_a_connection_that_is_busy_or_over(store: ConversationStore, connection: Connection) -> None:
    """In the middle of something else it is refused; closed, it is said; and so is that the store is closed."""
    bound = store.using(connection)
    with connection.pipeline(), pytest.raises(InvalidInput, match="in the middle of something else"):
        bound.get("s")
    with connection.cursor() as cursor, cursor.copy("COPY (SELECT 1) TO STDOUT") as copy:
        with pytest.raises(InvalidInput, match="in the middle of something else"):
            bound.get("s")
        assert list(copy)
    assert bound.get("s").version == 1
    connection.close()
    with pytest.raises(StoreUnavailable, match="the connection is closed"):
        bound.get("s")
    store.close()
    with pytest.raises(StoreUnavailable, match="is closed"):
        bound.get("s")


def test_a_connection_cut_meanwhile(store: ConversationStore, connection: Connection, postgresql_url: str) -> None:
    """Where the server ends it during an append, nothing was written, and that is a storage failure."""
    session = store.using(connection).get("s")
    with psycopg.connect(postgresql_url) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
    with pytest.raises(StoreUnavailable):
        session.collect(n=1)
    assert connection.closed
    assert store.get("s").data == {}


def test_a_connection_to_another_database(store: ConversationStore, postgresql: PostgreSQL) -> None:
    """It does not lead to the store's log, and that is said without a password."""
    url = postgresql.url.replace("tester@", "tester:secret@").replace("/postgres", "/template1")
    with psycopg.connect(url) as connection:
        with pytest.raises(InvalidInput, match="got one to .*/template1") as told:
            store.using(connection)
        assert "secret" not in str(told.value)
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_a_connection_to_another_server(store: ConversationStore, postgresql_url: str) -> None:
    """Nor does one to a server that has the same tables in a database of the same name."""
    schema = postgresql_url.rpartition("%3D")[2]
    with PostgreSQL(binaries_or_skip()) as other, psycopg.connect(other.url, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{schema}"'.encode())
        with turnlog.open(other.url, schema=schema) as second, connection.transaction():
            with pytest.raises(InvalidInput, match=f"got one to .*:{other.port}/postgres"):
                store.using(connection)
            second.using(connection).session("t")


def test_a_server_that_was_started_anew() -> None:
    """It is the same server."""
    with PostgreSQL(binaries_or_skip()) as server, turnlog.open(server.url) as store:
        for n in (1, 2):
            with psycopg.connect(server.url) as connection:
                store.using(connection).session(f"s{n}")
            server.crash()
            server.start()
        assert store.exists("s1")
        assert store.exists("s2")


def test_a_connection_of_the_stores_own_pool(postgresql_url: str) -> None:
    """The last connection of the application's pool can be lent: nothing waits for another one."""
    with (
        ConnectionPool(postgresql_url, min_size=1, max_size=1, open=True) as pool,
        turnlog.open(postgresql_url, engine=pool, timeout_s=5) as store,
    ):
        with pool.connection() as connection:
            bound = store.using(connection)
            bound.session("s", user_id="alice").add_message("user", "hello")
            assert bound.stats().messages == 1
            assert bound.active_session("alice") is not None
            bound.get("s").reset(preserve_history=True)
        assert store.stats().sessions == 2


def test_what_is_refused_inside(store: ConversationStore, connection: Connection) -> None:
    """What erases, writes views or waits is refused by its name, and nothing happens."""
    bound = store.using(connection)
    session = bound.get("s")
    calls: dict[str, Callable[[], Any]] = {
        "delete": session.delete,
        "erase_user": lambda: bound.erase_user("alice"),
        "scrub": bound.scrub,
        "rebuild": bound.rebuild,
        "catch_up": bound.catch_up,
        "add_projection": lambda: bound.add_projection(object()),  # type: ignore[arg-type]
        "subscribe": bound.subscribe,
        "on_committed": lambda: bound.on_committed(print),
        "verify": bound.verify,
        "using": lambda: bound.using(connection),
    }
    for name, call in calls.items():
        with pytest.raises(InvalidInput, match="call it on the store itself") as told:
            call()
        assert told.value.field == name
    assert bound.verify("s").ok
    bound.close()
    bound.get("s").collect(n=1)
    connection.commit()
    assert store.get("s").data == {"n": 1}


def test_as_a_user_sees_it(store: ConversationStore, connection: Connection) -> None:
    """The store of one user stays that user's, from whichever side."""
    for bound in (store.for_user("alice").using(connection), store.using(connection).for_user("alice")):
        assert bound.session().user_id == "alice"
    store.session("of bob", user_id="bob")
    assert not store.for_user("alice").using(connection).exists("of bob")


# --- left as it was ---------------------------------------------------------------------------------------------------


class Shouted(TextLoader):
    """Reads text as nobody expects."""

    def load(self, data: Any) -> str:
        """Return it."""
        return f"{super().load(data)!s}!"


def test_what_a_connection_is_set_to_does_not_matter_and_stays(store: ConversationStore, postgresql_url: str) -> None:
    """Rows, cursors, adapters, preparing and the search path may be the application's own, also after errors."""
    given: Any = psycopg.connect(postgresql_url)
    with given as connection:
        connection.row_factory = dict_row
        connection.cursor_factory = psycopg.ClientCursor
        connection.prepare_threshold = None
        for name in ("int8", "text", "bytea", "float8", "oid"):
            connection.adapters.register_loader(name, Shouted)
        connection.execute("SET search_path = pg_temp; SET bytea_output = 'escape'; SET lock_timeout = '7s'")
        connection.execute("CREATE TEMP TABLE turnlog_events (position int)")
        bound = store.using(connection)
        session = bound.session("t", user_id="alice")
        session.add_message("user", "hello", message_id="m")
        with pytest.raises(InvalidInput):
            session.at(version=99)
        session.complete()
        with pytest.raises(turnlog.SessionClosed):
            session.collect(n=1)
        assert [one.session_id for one in bound.sessions(user_id="alice").items] == ["t"]
        assert [message.content for message in bound.messages(user_id="alice").items] == ["hello"]
        assert connection.row_factory is dict_row
        assert connection.cursor_factory is psycopg.ClientCursor
        assert connection.prepare_threshold is None
        assert not connection.autocommit
        assert connection.execute("SHOW search_path").fetchall() == [{"search_path": "pg_temp!"}]
        assert connection.execute("SHOW lock_timeout").fetchall() == [{"lock_timeout": "7s!"}]
        assert connection.execute("SELECT count(*) AS n FROM pg_prepared_statements").fetchall() == [{"n": "0!"}]
    assert store.get("t").version == 3


def test_a_commit_that_would_not_wait_for_the_disk_does(store: ConversationStore, connection: Connection) -> None:
    """Positions that readers have passed must not be given twice after a crash; so this is raised, for so long."""
    connection.execute("SET synchronous_commit = off")
    session = store.using(connection).get("s")
    assert connection.execute("SHOW synchronous_commit").fetchall() == [("off",)]
    session.collect(n=1)
    assert connection.execute("SHOW synchronous_commit").fetchall() == [("on",)]
    connection.commit()
    assert connection.execute("SHOW synchronous_commit").fetchall() == [("off",)]


def test_a_role_that_may_not(store: ConversationStore, connection: Connection) -> None:
    """It is told so, at every call, and its transaction goes on; given the rights, it may."""
    connection.execute("CREATE ROLE guest")
    session = store.using(connection).get("s")
    connection.execute("SET LOCAL ROLE guest")
    for refuse in (lambda: session.collect(n=1), session.history):
        with pytest.raises(StoreUnavailable, match="permission denied"):
            refuse()
    assert connection.execute("SELECT 1").fetchall() == [(1,)]
    connection.execute("RESET ROLE")
    schema = connection.execute("SELECT quote_ident(current_schema())").fetchall()[0][0]
    connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO guest".encode())
    connection.execute("GRANT SELECT, INSERT ON turnlog_events, turnlog_keys, turnlog_snapshots TO guest")
    connection.execute("SET LOCAL ROLE guest")
    session.collect(n=2, message="x")
    assert [event.version for event in session.events(last=1)] == [2]
    connection.rollback()


def test_text_in_another_encoding_is_refused(store: ConversationStore, connection: Connection) -> None:
    """An id that it cannot hold would fail in the middle of something."""
    connection.execute("SET client_encoding = 'LATIN1'")
    with pytest.raises(InvalidInput, match="its client_encoding is iso8859-1, expected UTF8"):
        store.using(connection)


def test_repeated_conflicts_with_prepared_statements(store: ConversationStore, connection: Connection) -> None:
    """Statements that the connection prepares survive what is undone between them."""
    connection.prepare_threshold = 0
    session = store.using(connection).get("s")
    for n in range(1, 9):
        store.get("s").collect(n=n)
        session.collect(n=-n)
        connection.execute("SELECT 1")
        connection.commit()
    assert store.get("s").version == 17
    assert store.verify().ok


# --- waiting, and readers in the log's order --------------------------------------------------------------------------


def test_two_that_wait_for_each_other(store: ConversationStore, postgresql_url: str) -> None:
    """One of them is told so, and can still roll back to what it likes; the other goes on."""
    store.session("t")
    first, second = psycopg.connect(postgresql_url), psycopg.connect(postgresql_url)
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
    first.close()
    second.close()


@pytest.mark.parametrize("committed", [True, False])
def test_a_subscriber_waits_for_what_may_still_come(
    store: ConversationStore, postgresql_url: str, connection: Connection, *, committed: bool
) -> None:
    """Around a transaction that ends late it gets every event once and in order, its own and those of others."""
    with turnlog.open(postgresql_url) as other:
        reader = Reader(other.subscribe(after=0))
        assert [event.version for event in reader.next(1)] == [1]
        bound = store.using(connection)
        bound.session("t").collect(n=1)
        late = store.get("s").add_message("user", "later, and committed first")
        bound.get("t").collect(n=2)
        assert late.position is not None
        assert other.position < late.position
        assert reader.found.empty()
        (connection.commit if committed else connection.rollback)()
        found = [(event.session_id, event.version) for event in reader.next(4 if committed else 1)]
        assert found == ([("t", 1), ("t", 2), ("s", 2), ("t", 3)] if committed else [("s", 2)])
        store.session("last")
        assert [event.session_id for event in reader.next(1)] == ["last"]


def test_strict_order(postgresql_url: str, connection: Connection) -> None:
    """Where appends exclude each other, a bound one excludes the others until the application commits."""
    with turnlog.open(postgresql_url, ordering="strict") as store:
        store.using(connection).session("s")
        waiting = threading.Thread(target=store.session, args=("t",))
        waiting.start()
        watching = psycopg.connect(postgresql_url, autocommit=True)
        statement = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while watching.execute(statement).fetchall() == [(0,)]:
            pass
        watching.close()
        assert not store.exists("t")
        connection.commit()
        waiting.join(DEADLINE_S)
        assert [event.session_id for event in store.events()] == ["s", "t"]
