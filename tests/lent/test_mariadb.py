"""The connection that an application lends to a store on MariaDB: which will do, that it is left as it was; waiting."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest
from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions
from pymysql.cursors import DictCursor, SSCursor
from sqlalchemy import create_engine

import turnlog
from tests.api.test_following import Reader
from tests.lent.applications import DEADLINE_S, READ_COMMITTED, Application, OnMariaDB, wait_for_lock
from tests.lent.conftest import Connect
from tests.servers import MariaDB, mariadbd_or_skip
from turnlog import ConcurrencyConflict, ConversationStore, InvalidInput, SessionClosed, StoreUnavailable

AWKWARD = 'it\'s \\\' or "1"="1"; -- \\ \0 %s é 😀'


@pytest.fixture
def server_url(mariadb_url: str) -> str:
    """An empty database of MariaDB."""
    return mariadb_url


@pytest.fixture
def store(mariadb_url: str) -> Iterator[ConversationStore]:
    """A store with a session ``s``, and a table of the application's."""
    with turnlog.open(mariadb_url) as opened:
        owner = OnMariaDB(mariadb_url)
        owner.execute("CREATE TABLE orders (id int PRIMARY KEY, dish text)")
        owner.execute("INSERT INTO orders VALUES (1, 'soup'), (2, 'tea')")
        owner.commit()
        owner.close()
        opened.session("s")
        yield opened


# --- which will do ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, "mariadb://here", object()])
def test_it_is_a_connection(store: ConversationStore, given: object) -> None:
    """Anything but a connection of PyMySQL's is refused."""
    with pytest.raises(InvalidInput, match="connection: expected a pymysql.Connection, got"):
        store.using(given)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "READ UNCOMMITTED"])
def test_isolation_that_cannot_try_again_is_refused(store: ConversationStore, app: Application, level: str) -> None:
    """In every use, with what to do about it; the transaction can go on."""
    bound = store.using(app.connection)
    session = bound.get("s")
    app.rollback()
    app.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
    refused: list[Callable[[], object]] = [
        lambda: store.using(app.connection),
        lambda: session.collect(n=1),
        bound.sessions,
        lambda: bound.position,
        lambda: list(bound.events()),
    ]
    for refuse in refused:
        with pytest.raises(InvalidInput, match=f"is {level}, .*expected READ COMMITTED: {READ_COMMITTED}") as told:
            refuse()
        assert told.value.field == "connection"
    assert app.execute("SELECT 1") == [(1,)]
    app.rollback()
    app.execute(READ_COMMITTED)
    assert session.collect(n=1).version == 2


def test_a_level_that_the_session_does_not_tell(store: ConversationStore, app: Application) -> None:
    """One that was set for the next transaction only is noticed by what it does not see."""
    bound = store.using(app.connection)
    session = bound.get("s")
    app.rollback()
    app.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    app.execute("UPDATE orders SET dish = 'more soup' WHERE id = 1")
    assert session.refresh().data == {}
    store.get("s").collect(overtaking=True)
    for refuse in (lambda: session.collect(n=1), bound.sessions, lambda: bound.position):
        with pytest.raises(InvalidInput, match="sees an older moment"):
            refuse()
    app.commit()
    assert session.collect(n=1).version == 3
    assert app.execute("SELECT dish FROM orders WHERE id = 1") == [("more soup",)]


def test_in_autocommit_mode_a_transaction_is_needed(store: ConversationStore, app: Application) -> None:
    """Without one every statement would be committed at once."""
    app.execute("SET autocommit = 1")
    with pytest.raises(InvalidInput, match="in no transaction; begin one first"):
        store.using(app.connection)
    app.connection.begin()
    bound = store.using(app.connection)
    session = bound.get("s")
    session.collect(n=1)
    assert store.get("s").data == {}
    app.commit()
    assert store.get("s").data == {"n": 1}
    for refuse in (lambda: session.collect(n=2), bound.sessions, lambda: bound.get("s")):
        with pytest.raises(InvalidInput, match="in no transaction; begin one first"):
            refuse()
    app.execute("START TRANSACTION")
    session.collect(n=3)
    app.execute("COMMIT")
    assert store.get("s").data == {"n": 3}


def test_a_connection_that_is_busy_or_over(store: ConversationStore, app: Application) -> None:
    """In the middle of a result it is refused; closed, it is said; and so is that the store is closed."""
    bound = store.using(app.connection)
    with app.connection.cursor(SSCursor) as cursor:
        cursor.execute("SELECT id FROM orders ORDER BY id")
        assert cursor.fetchone() == (1,)
        with pytest.raises(InvalidInput, match="in the middle of something else"):
            bound.get("s")
        assert cursor.fetchall() == [(2,)]
    assert bound.get("s").version == 1
    app.close()
    with pytest.raises(StoreUnavailable, match="the connection is closed"):
        bound.get("s")
    store.close()
    with pytest.raises(StoreUnavailable, match="is closed"):
        bound.get("s")


def test_a_connection_cut_meanwhile(store: ConversationStore, app: Application, connect: Connect) -> None:
    """Where the server ends it during an append, nothing was written, and that is a storage failure."""
    session = store.using(app.connection).get("s")
    session.collect(n=1)
    connect().execute(app.killing)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            session.collect(n=2)
    assert not app.connection.open
    assert store.get("s").data == {}


def test_an_interruption_closes_the_connection(
    store: ConversationStore, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose answer the next one is would not be known; so nothing of the transaction is committed."""
    session = store.using(app.connection).get("s")
    session.collect(n=1)
    sent: Any = vars(pymysql.Connection)["query"]

    def interrupted(connection: Any, sql: Any, *more: Any, **options: Any) -> Any:
        sent(connection, sql, *more, **options)
        if b"INSERT" in sql:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pymysql.Connection, "query", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.collect(n=2)
    assert not app.connection.open
    assert store.get("s").collect(n=3).version == 2


def test_a_connection_to_another_server(store: ConversationStore, mariadb_url: str) -> None:
    """One that has the same tables in a database of the same name is refused, without a password."""
    name = mariadb_url.rpartition("/")[2]
    with MariaDB(mariadbd_or_skip()) as other:
        other.execute(f"CREATE DATABASE {name}")
        other.execute("CREATE USER guest IDENTIFIED BY 'secret'")
        other.execute(f"GRANT ALL ON {name}.* TO guest")
        with turnlog.open(other.url + name) as second:
            given: dict[str, Any] = {"user": "guest", "password": "secret"}
            guest = OnMariaDB(other.url + name, **given)
            with pytest.raises(InvalidInput, match=f"got one to .*:{other.port}") as told:
                store.using(guest.connection)
            assert "secret" not in str(told.value)
            second.using(guest.connection).session("t")
            other.crash()
            other.start()
            guest = OnMariaDB(other.url + name, **given)
            second.using(guest.connection).session("t")  # which is the same server
            guest.close()


def test_another_database_of_the_same_server(store: ConversationStore, mariadb: MariaDB) -> None:
    """The application's own database may be another one: a transaction knows no difference."""
    elsewhere = mariadb.new_place()
    app = OnMariaDB(elsewhere)
    bound = store.using(app.connection)
    bound.session("t", user_id="alice").add_message("user", "hello", message_id="m")
    assert [one.session_id for one in bound.sessions(user_id="alice").items] == ["t"]
    app.commit()
    app.close()
    mariadb.drop_place(elsewhere)
    assert store.get("t").version == 2


def test_the_last_connection_of_the_stores_engine(mariadb_url: str) -> None:
    """It can be lent: nothing waits for another one."""
    engine = create_engine(
        mariadb_url.replace("mariadb://", "mysql+pymysql://"),
        pool_size=1,
        max_overflow=0,
        pool_timeout=5,
        isolation_level="READ COMMITTED",
    )
    with turnlog.open(mariadb_url, engine=engine, timeout_s=5) as store:
        with engine.begin() as connection:
            bound = store.using(connection.connection.driver_connection)
            bound.session("s", user_id="alice").add_message("user", "hello")
            assert bound.stats().messages == 1
            assert bound.active_session("alice") is not None
            bound.get("s").reset(preserve_history=True)
        assert store.stats().sessions == 2
    engine.dispose()


def test_text_in_another_character_set_is_refused(store: ConversationStore, connect: Connect) -> None:
    """An id that it cannot hold would be another one; whether the driver was told or the server."""
    with pytest.raises(InvalidInput, match="its character set is latin1, expected utf8mb4"):
        store.using(connect(charset="latin1").connection)
    app = connect()
    app.execute("SET NAMES latin1")
    with pytest.raises(InvalidInput, match="its character set is latin1, expected utf8mb4"):
        store.using(app.connection)


# --- left as it was ---------------------------------------------------------------------------------------------------

MODES = "NO_BACKSLASH_ESCAPES,ANSI_QUOTES,EMPTY_STRING_IS_NULL,PIPES_AS_CONCAT,PAD_CHAR_TO_FULL_LENGTH"
SETTINGS = "sql_mode, sql_select_limit, unique_checks, innodb_lock_wait_timeout, lock_wait_timeout"


@pytest.mark.parametrize("modes", ["", MODES, "ORACLE"])
def test_what_a_connection_is_set_to_does_not_matter_and_stays(
    store: ConversationStore, connect: Connect, modes: str
) -> None:
    """Rows, values, modes and limits may be the application's own, also after errors."""

    def shouted(value: Any) -> str:
        return f"{value}!"

    odd = {**conversions, FIELD_TYPE.LONGLONG: shouted, FIELD_TYPE.VAR_STRING: shouted, FIELD_TYPE.BLOB: shouted}
    app = connect(conv=odd, use_unicode=False, cursorclass=DictCursor)
    app.execute(f"SET sql_mode = '{modes}', sql_select_limit = 1, unique_checks = 0, innodb_lock_wait_timeout = 7")
    looked = f"SELECT {', '.join(f'@@{name}' for name in SETTINGS.split(', '))}"
    before = app.execute(looked)
    shown = "SELECT 'x' AS said, @@sql_select_limit AS n"
    read: list[Any] = app.execute(shown)
    assert read == [{"said": "b'x'!", "n": "b'1'!"}]
    bound = store.using(app.connection)
    session = bound.session("it's \\", user_id="alice")
    for message_id in ("m", "n"):
        session.add_message("user", AWKWARD, message_id=message_id)
    assert session.add_message("user", AWKWARD, message_id="m").version == 2
    with pytest.raises(InvalidInput):
        session.at(version=99)
    session.complete()
    with pytest.raises(SessionClosed):
        session.collect(n=1)
    assert [one.session_id for one in bound.sessions(user_id="alice").items] == ["it's \\"]
    assert [message.content for message in bound.messages(user_id="alice").items] == [AWKWARD] * 2
    assert [user.user_id for user in bound.users().items] == ["alice"]
    assert app.execute(looked) == before
    assert app.connection.cursorclass is DictCursor
    assert app.execute(shown) == read
    app.commit()
    assert store.get("it's \\").version == 4
    assert store.verify().ok


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_everybody_waits_and_a_subscriber_sees_it_in_order(
    store: ConversationStore, mariadb_url: str, app: Application, connect: Connect
) -> None:
    """After the first append nobody else writes, to whatever session; who follows sees it when it is committed."""
    with turnlog.open(mariadb_url) as other:
        reader = Reader(other.subscribe(after=0))
        assert [event.session_id for event in reader.next(1)] == ["s"]
        bound = store.using(app.connection)
        bound.session("t").collect(n=1)
        waiting = threading.Thread(target=other.session, args=("u",))
        waiting.start()
        wait_for_lock(connect())
        bound.get("t").collect(n=2)
        assert bound.position == other.position == 1
        assert len(bound.sessions().items) == 2
        assert len(other.sessions().items) == 1
        assert reader.found.empty()
        app.commit()
        assert [(event.session_id, event.version) for event in reader.next(4)] == [
            ("t", 1),
            ("t", 2),
            ("t", 3),
            ("u", 1),
        ]
        waiting.join(DEADLINE_S)


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_deadlock_undoes_all_and_that_is_said(
    store: ConversationStore, connect: Connect, *, autocommit: bool
) -> None:
    """The append that the server chooses takes its whole transaction with it; nothing is written after it."""
    first, second = connect(), connect(autocommit=autocommit)
    second.connection.begin()
    first.execute("INSERT INTO orders SELECT seq, 'rice' FROM seq_10_to_99")  # more to undo: the other one is chosen
    bound = store.using(second.connection)
    session = bound.get("s")
    store.using(first.connection).get("s").collect(n=1)
    second.execute("UPDATE orders SET dish = 'lost' WHERE id = 2")

    def cross() -> None:
        wait_for_lock(connect())
        first.execute("UPDATE orders SET dish = 'more tea' WHERE id = 2")
        first.commit()

    crossing = threading.Thread(target=cross)
    crossing.start()
    with pytest.raises(ConcurrencyConflict, match="has undone all of this transaction"):
        session.collect(n=2)
    crossing.join(DEADLINE_S)
    words = "in no transaction; begin one first" if autocommit else "has failed; roll it back"
    refused: list[Callable[[], object]] = [
        lambda: session.collect(n=2),
        bound.sessions,
        lambda: store.using(second.connection),
    ]
    for refuse in refused:
        with pytest.raises((InvalidInput, StoreUnavailable), match=words):
            refuse()
    assert second.execute("SELECT dish FROM orders WHERE id = 2") == [("more tea",)]
    second.rollback()
    second.connection.begin()
    session.collect(n=2)
    second.commit()
    assert store.get("s").data == {"n": 2}
    assert store.get("s").version == 3
    assert store.verify().ok


def test_a_transaction_that_was_undone_behind_the_drivers_back(store: ConversationStore, connect: Connect) -> None:
    """After a deadlock of the application's own, in autocommit mode, there is none: nothing is written without one."""
    first, second = connect(), connect(autocommit=True)
    second.connection.begin()
    session = store.using(second.connection).get("s")
    first.execute("INSERT INTO orders SELECT seq, 'rice' FROM seq_10_to_99")
    first.execute("UPDATE orders SET dish = 'a' WHERE id = 1")
    second.execute("UPDATE orders SET dish = 'b' WHERE id = 2")

    def cross() -> None:
        wait_for_lock(connect())
        first.execute("UPDATE orders SET dish = 'a' WHERE id = 2")
        first.commit()

    crossing = threading.Thread(target=cross)
    crossing.start()
    with pytest.raises(pymysql.OperationalError, match="Deadlock"):
        second.execute("UPDATE orders SET dish = 'b' WHERE id = 1")
    crossing.join(DEADLINE_S)
    with pytest.raises(InvalidInput, match="in no transaction; begin one first"):
        session.collect(n=1)
    assert store.get("s").version == 1


def test_a_user_who_may_not(store: ConversationStore, mariadb: MariaDB, mariadb_url: str) -> None:
    """He is told so, at every call, and his transaction goes on; given the rights, he may."""
    name = mariadb_url.rpartition("/")[2]
    mariadb.execute(f"CREATE USER guest_{name}")
    mariadb.execute(f"GRANT SELECT ON {name}.* TO guest_{name}")
    guest = OnMariaDB(mariadb_url, user=f"guest_{name}")
    session = store.using(guest.connection).get("s")
    with pytest.raises(StoreUnavailable, match="denied"):
        session.collect(n=1)
    assert guest.execute("SELECT 1") == [(1,)]
    guest.rollback()
    for table, rights in (("events", "INSERT"), ("events_head", "UPDATE"), ("keys", "INSERT")):
        mariadb.execute(f"GRANT {rights} ON {name}.turnlog_{table} TO guest_{name}")
    session.collect(n=2, message="x")
    guest.commit()
    guest.close()
    mariadb.execute(f"DROP USER guest_{name}")
    assert store.get("s").data == {"n": 2, "message": "x"}
