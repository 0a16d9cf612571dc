"""An application with a connection of its own to a server, which it lends (`store.using`): the same on every server."""

from time import monotonic, sleep
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

import psycopg
import pymysql

READ_COMMITTED = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
DEADLINE_S = 60
Patience: TypeAlias = tuple[str, str, list[tuple[Any, ...]]]


class Application(Protocol):
    """An application; a transaction begins by itself. What differs between servers is told as SQL text."""

    connection: Any
    refusing: tuple[str, ...]
    """What makes a server refuse events in which the word `refused` stands."""
    patience: Patience
    """How the waiting for locks is set, how it is shown, and as what."""
    schema: str
    waiting: str
    """How many transactions wait for a lock."""
    killing: str
    """What ends the connection, said on another one."""

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows."""
        ...

    def commit(self) -> None:
        """Commit."""
        ...

    def rollback(self) -> None:
        """Roll back."""
        ...

    def close(self) -> None:
        """Close the connection, if it is still open."""
        ...


class OnPostgreSQL:
    """An application of psycopg's."""

    refusing: tuple[str, ...] = (
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$",
        """CREATE TRIGGER no BEFORE INSERT ON turnlog_events FOR EACH ROW
           WHEN (position('refused'::bytea IN NEW.state) > 0) EXECUTE FUNCTION refuse()""",
    )
    patience: Patience = ("SET lock_timeout = '1h'", "SHOW lock_timeout", [("1h",)])
    schema = "current_schema()"
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"

    def __init__(self, url: str, **options: Any) -> None:
        self.connection: psycopg.Connection[Any] = psycopg.connect(url, **options)
        self.commit, self.rollback, self.close = (
            self.connection.commit,
            self.connection.rollback,
            self.connection.close,
        )
        self.killing = f"SELECT pg_terminate_backend({self.connection.info.backend_pid}, {DEADLINE_S * 1000})"

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows."""
        cursor = self.connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


class OnMariaDB:
    """An application of PyMySQL's, under READ COMMITTED."""

    refusing: tuple[str, ...] = (
        """CREATE TRIGGER no BEFORE INSERT ON turnlog_events FOR EACH ROW BEGIN
           IF LOCATE('refused', NEW.state) THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF; END""",
    )
    patience: Patience = (
        "SET innodb_lock_wait_timeout = 3600, lock_wait_timeout = 3601",
        "SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout",
        [(3600, 3601)],
    )
    schema = "DATABASE()"
    waiting = (
        "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status"
        " WHERE variable_name = 'Innodb_row_lock_current_waits'"
    )

    def __init__(self, url: str, **options: Any) -> None:
        given: dict[str, Any] = {**address(url), "autocommit": False, "charset": "utf8mb4", **options}
        self.connection: pymysql.Connection[Any] = pymysql.connect(**given)
        self.execute(READ_COMMITTED)
        self.commit, self.rollback = self.connection.commit, self.connection.rollback
        driver: Any = self.connection  # types-pymysql does not say what this returns
        self.killing = f"KILL {driver.thread_id()}"

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def close(self) -> None:
        """Close the connection, if it is still open."""
        if self.connection.open:
            self.connection.close()


def address(url: str) -> dict[str, Any]:
    """Return where a URL of MariaDB's leads, as keywords of `pymysql.connect`."""
    parts = urlsplit(url)
    return {"host": parts.hostname, "port": parts.port, "user": parts.username, "database": parts.path[1:]}


def application(url: str, **options: Any) -> Application:
    """Return an application on the server of a store; ``options`` are the driver's."""
    return OnMariaDB(url, **options) if url.startswith("mariadb") else OnPostgreSQL(url, **options)


def wait_for_lock(watching: Application) -> None:
    """Wait until a transaction waits for another one."""
    deadline = monotonic() + DEADLINE_S
    while watching.execute(watching.waiting) == [(0,)]:
        watching.rollback()
        assert monotonic() < deadline
        sleep(0.01)
