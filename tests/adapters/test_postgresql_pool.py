"""Connections to PostgreSQL: lending, replacing dead ones, errors without passwords, forks."""

import os
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from tests.servers import HOST, PostgreSQL
from turnlog.adapters.postgresql import patience
from turnlog.adapters.postgresql import pool as pools
from turnlog.adapters.postgresql.connection import run
from turnlog.adapters.postgresql.patience import Inquiry, PatientConnection
from turnlog.adapters.postgresql.pool import Pool
from turnlog.domain.errors import CorruptLog, InvalidInput, OutcomeUnknown, StoreUnavailable


@pytest.fixture
def pool(postgresql_url: str) -> Iterator[Pool]:
    """A pool on an empty database."""
    with Pool(postgresql_url, timeout_s=10) as made:
        yield made


def kill_others(url: str) -> None:
    """End every connection to the database but this one."""
    statement = (
        "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def test_a_transaction_is_committed_or_rolled_back(pool: Pool) -> None:
    """What is written is there after the end, and is not after an exception."""
    with pool.write() as connection:
        connection.execute("CREATE TABLE t (i int)")
        connection.execute("INSERT INTO t VALUES (1)")
    with suppress(ZeroDivisionError), pool.write() as connection:
        connection.execute("INSERT INTO t VALUES (2)")
        raise ZeroDivisionError
    assert pool.rows("SELECT i FROM t") == [(1,)]


def test_a_transaction_that_failed_inside_is_not_taken_for_committed(pool: Pool) -> None:
    """An error that was swallowed inside is told at the end."""
    with pytest.raises(StoreUnavailable, match="rolled back"), pool.write() as connection, suppress(psycopg.Error):
        connection.execute("SELECT 1/0")


def test_dead_connections_are_replaced_unseen(pool: Pool, postgresql_url: str) -> None:
    """Connections that the server has ended while they lay idle are not noticed by reads or writes."""
    with pool.read() as first, pool.read() as second, pool.read() as third:
        assert len({one.info.backend_pid for one in (first, second, third)}) == 3
    kill_others(postgresql_url)
    with pool.write() as connection:
        connection.execute("CREATE TABLE t (i int)")
    kill_others(postgresql_url)
    assert pool.rows("SELECT i FROM t") == []


def test_a_server_that_comes_back(pool: Pool, postgresql: PostgreSQL) -> None:
    """After the server was down, the pool goes on by itself."""
    assert pool.rows("SELECT 1") == [(1,)]
    postgresql.crash()
    postgresql.start()
    assert pool.rows("SELECT 1") == [(1,)]


def test_killed_while_it_worked(pool: Pool, postgresql_url: str) -> None:
    """Broken inside a transaction: not available; broken under the commit: the outcome is unknown."""

    def write(*statements: str) -> None:
        with pool.write() as connection:
            kill_others(postgresql_url)
            for statement in statements:
                run(connection, statement)

    with pytest.raises(StoreUnavailable):
        write("SELECT 1")
    with pytest.raises(OutcomeUnknown):
        write()


def test_a_forked_child_has_its_own(pool: Pool) -> None:
    """A child that was forked uses other connections than its parent, who goes on with his."""
    with pool.read() as connection:
        mine = connection.info.backend_pid
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with pool.read() as connection:
            os.write(writing, b"other" if connection.info.backend_pid != mine else b"same")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 9) == b"other"
    os.close(reading)
    os.close(writing)
    with pool.read() as connection:
        assert connection.info.backend_pid == mine


def test_what_the_server_is_at_work_on_is_waited_for(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement may take longer than patience lasts: the server is asked, and is at it."""
    monkeypatch.setattr(pools, "PATIENCE_S", 0.1)
    for asking in (pools, patience):
        monkeypatch.setattr(asking, "ANSWER_S", 60)
    with Pool(postgresql_url, timeout_s=60) as pool:
        assert pool.rows("SELECT 1 FROM pg_sleep(1.5)") == [(1,)]


def test_a_server_that_refuses_to_tell() -> None:
    """It is believed to be at work for a while, and then no more."""
    given_up: list[str] = []

    def refuse() -> PatientConnection:
        raise psycopg.OperationalError("too many clients")

    inquiry = Inquiry(refuse, 0, lambda: given_up.append("given up"))
    assert [inquiry() for _ in range(3)] == [True, True, False]
    assert given_up == ["given up"]


def test_an_application_s_own_pool(postgresql_url: str) -> None:
    """Its connections come back as they were, and it is not closed; it may be of any row factory."""
    options: dict[str, object] = {"row_factory": dict_row}
    with ConnectionPool(postgresql_url, kwargs=options, min_size=1, open=True) as engine:
        with Pool("postgresql://", engine=engine) as pool:
            assert pool.rows("SELECT 1") == [(1,)]
            with pool.write() as connection:
                connection.execute("CREATE TABLE t (i int)")
            pool.session().close()
        with engine.connection() as connection:
            assert connection.autocommit is False
            row: object = connection.execute("SELECT 1 AS one").fetchone()
            assert row == {"one": 1}


def test_what_is_wrong_is_said_without_the_password(postgresql: PostgreSQL) -> None:
    """A server that is not there, or a URL that is none, is told at once; the password never."""
    for url, error in (
        (f"postgresql://tester:hush@{HOST}:1/postgres", StoreUnavailable),
        (f"postgresql://tester:hush@{HOST}:{postgresql.port}/nowhere", StoreUnavailable),
        ("postgresql://tester:hush@[::1/postgres", InvalidInput),
        ("postgresql://tester:hush@host/db?unknown=1", InvalidInput),
    ):
        with pytest.raises(error) as raised:
            Pool(url)
        told: BaseException | None = raised.value
        while told is not None:
            assert "hush" not in f"{told} {told!r}"
            told = told.__cause__


def test_errors_are_told_apart(pool: Pool, postgresql_url: str) -> None:
    """A missing table is a damaged log; writing to what was opened read-only is refused, by us and by the server."""
    with pytest.raises(CorruptLog, match="nothing"):
        pool.rows("SELECT * FROM nothing")
    with Pool(postgresql_url, read_only=True) as only:
        with pytest.raises(StoreUnavailable, match="read-only"), only.write():
            pass
        with pytest.raises(StoreUnavailable, match="read-only"), only.read() as connection:
            connection.execute("CREATE TABLE t (i int)")


def test_used_after_close(pool: Pool) -> None:
    """A closed pool says so."""
    pool.close()
    pool.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        pool.rows("SELECT 1")
