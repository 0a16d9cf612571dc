"""Connections to MariaDB: lending, replacing dead ones, errors without passwords, forks."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pymysql
import pytest
from sqlalchemy import create_engine

from tests.servers import HOST, MariaDB
from turnlog.adapters.mariadb.connection import Connection, run
from turnlog.adapters.mariadb.pool import Pool
from turnlog.domain.errors import CorruptLog, InvalidInput, OutcomeUnknown, StoreUnavailable

AWKWARD = "a'b\"c\\d\0e\nf%g\x1aé😀"


@pytest.fixture
def pool(mariadb_url: str) -> Iterator[Pool]:
    """A pool on an empty database."""
    with Pool(mariadb_url, timeout_s=10) as made:
        yield made


def kill_others(server: MariaDB) -> None:
    """End every connection to the server but the one that does it."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'root' AND id <> CONNECTION_ID()")
        for (one,) in cursor.fetchall():
            with suppress(pymysql.Error):  # it is gone already
                cursor.execute(f"KILL {one}")


def session(connection: Connection) -> int:
    """Return the number that the server has given to a connection."""
    return int(run(connection, "SELECT CONNECTION_ID()").fetchall()[0][0])


def test_a_transaction_is_committed_or_rolled_back(pool: Pool) -> None:
    """What is written is there after the end, and is not after an exception."""
    with pool.write() as connection:
        run(connection, "CREATE TABLE t (i int)")
        run(connection, "INSERT INTO t VALUES (1)")
    with suppress(ZeroDivisionError), pool.write() as connection:
        run(connection, "INSERT INTO t VALUES (2)")
        raise ZeroDivisionError
    assert pool.rows("SELECT i FROM t") == [(1,)]


def test_values_come_back_as_they_were_given(pool: Pool) -> None:
    """Texts and bytes with whatever would end a literal are exact; so are numbers and nothing."""
    values = AWKWARD, AWKWARD.encode(), bytes(range(256)), b"", "", 1 << 62, 0.1, None
    assert pool.rows("SELECT %s, %s, %s, %s, %s, %s, %s, %s", values) == [values]
    assert pool.rows("SELECT %(a)s, '%%'", {"a": AWKWARD}) == [(AWKWARD, "%")]
    assert pool.rows("SELECT 1 WHERE 'b' IN %s", (["a", "b"],)) == [(1,)]


def test_dead_connections_are_replaced_unseen(pool: Pool, mariadb: MariaDB) -> None:
    """Connections that the server has ended while they lay idle are not noticed by reads or writes."""
    with pool.read() as first, pool.read() as second, pool.read() as third:
        assert len({session(one) for one in (first, second, third)}) == 3
    kill_others(mariadb)
    with pool.write() as connection:
        run(connection, "CREATE TABLE t (i int)")
    kill_others(mariadb)
    assert pool.rows("SELECT i FROM t") == []


def test_killed_while_it_worked(pool: Pool, mariadb: MariaDB) -> None:
    """Broken inside a transaction: not available; broken under the commit: the outcome is unknown."""
    with pool.write() as connection:
        run(connection, "CREATE TABLE t (i int)")

    def write(*statements: str) -> None:
        with pool.write() as connection:
            kill_others(mariadb)
            for statement in statements:
                run(connection, statement)

    with pytest.raises(StoreUnavailable):
        write("INSERT INTO t VALUES (1)")
    with pytest.raises(OutcomeUnknown):
        write()


def test_a_forked_child_has_its_own(pool: Pool) -> None:
    """A child that was forked uses other connections than its parent, who goes on with his."""
    with pool.read() as connection:
        mine = session(connection)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with pool.read() as connection:
            os.write(writing, b"other" if session(connection) != mine else b"same")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 9) == b"other"
    os.close(reading)
    os.close(writing)
    with pool.read() as connection:
        assert session(connection) == mine


def test_an_application_s_own_engine(mariadb_url: str) -> None:
    """Its connections come back as they were, and it is not closed; whatever it has set does not matter."""
    mode = "PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES"
    engine = create_engine(
        mariadb_url.replace("mariadb://", "mariadb+pymysql://"),
        pool_size=1,
        max_overflow=1,
        connect_args={"charset": "latin1", "sql_mode": mode},
    )

    def settings() -> list[object]:
        with engine.raw_connection() as connection:
            lent: Any = connection.dbapi_connection
            statement = "SELECT @@sql_mode, @@autocommit, @@character_set_client, @@tx_isolation, @@lock_wait_timeout"
            return [*run(lent, statement).fetchall()[0], lent.charset]

    before = settings()
    with Pool("mariadb://", engine=engine) as pool:
        assert pool.rows("SELECT %s, %s", (AWKWARD, AWKWARD.encode())) == [(AWKWARD, AWKWARD.encode())]
        with pool.write() as connection:
            run(connection, "CREATE TABLE t (i int)")
            assert run(connection, "SELECT @@autocommit").fetchall() == ((1,),)
        with pool.session() as connection:
            assert run(connection, "SELECT 1").fetchall() == ((1,),)
    assert settings() == before
    assert before[:3] == [mode, 0, "latin1"]
    engine.dispose()


def test_an_engine_s_connections_are_waited_for(mariadb_url: str) -> None:
    """Where an engine lends no connection in its time, it is said."""
    url = mariadb_url.replace("mariadb://", "mysql+pymysql://")
    engine = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    with Pool("mariadb://", engine=engine) as pool:
        taken = engine.connect()
        with pytest.raises(StoreUnavailable, match="no connection came free"):
            pool.rows("SELECT 1")
        taken.close()
        assert pool.rows("SELECT 1") == [(1,)]
    engine.dispose()
    with pytest.raises(InvalidInput, match="PyMySQL"):
        Pool("mariadb://", engine=create_engine("sqlite://"))
    with pytest.raises(InvalidInput, match="PyMySQL"):
        Pool("mariadb://", engine=object())


def test_what_is_wrong_is_said_without_the_password(mariadb: MariaDB) -> None:
    """A server that is not there, or a URL that is none, is told at once; the password never."""
    for url, error in (
        (f"mariadb://tester:hush@{HOST}:1/there", StoreUnavailable),
        (f"mariadb://tester:hush@{HOST}:{mariadb.port}/there", StoreUnavailable),
        (f"mariadb://root@{HOST}:{mariadb.port}/nowhere?connect_timeout=5", StoreUnavailable),
        ("mariadb://tester:hush@host:port/there", InvalidInput),
        ("mariadb://tester:hush@host", InvalidInput),
        ("mariadb://tester:hush@host/there?password=hush", InvalidInput),
    ):
        with pytest.raises(error) as raised:
            Pool(url)
        told: BaseException | None = raised.value
        while told is not None:
            assert "hush" not in f"{told} {told!r}"
            told = told.__cause__


def test_errors_are_told_apart(pool: Pool, mariadb_url: str) -> None:
    """A missing table is a damaged log; writing to what was opened read-only is refused, by us and by the server."""
    with pytest.raises(CorruptLog, match="nothing"):
        pool.rows("SELECT * FROM nothing")
    with pytest.raises(StoreUnavailable, match="syntax"):
        pool.rows("SELEC 1")
    with Pool(mariadb_url, read_only=True) as only:
        with pytest.raises(StoreUnavailable, match="read-only"), only.write():
            pass
        with pytest.raises(StoreUnavailable, match="READ ONLY"), only.read() as connection:
            run(connection, "CREATE TABLE t (i int)")


def test_used_after_close(pool: Pool) -> None:
    """A closed pool says so."""
    pool.close()
    pool.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        pool.rows("SELECT 1")


def test_a_server_that_comes_back(pool: Pool, mariadb: MariaDB) -> None:
    """After the server was down, the pool goes on by itself."""
    assert pool.rows("SELECT 1") == [(1,)]
    mariadb.crash()
    with pytest.raises(StoreUnavailable):
        pool.rows("SELECT 1")
    mariadb.start()
    assert pool.rows("SELECT 1") == [(1,)]
