"""A private MariaDB server."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pymysql

from tests.servers.again import Contents
from tests.servers.starting import HOST, Private, Running, free_port, give, missing, template, unprivileged

QUICK_MARIADB = {"innodb-flush-log-at-trx-commit": "2", "innodb-flush-method": "nosync", "sync-frm": "0"}
"""For tests of function; those of crashes start a server without it. What was committed outlives the server's process:
a test that crashes a server which others use must not bring back what ``fill`` has deleted."""
_MARIADB_SETTINGS = {
    "bind-address": HOST,
    "skip-name-resolve": "1",
    "max-connections": "200",
    "innodb-buffer-pool-size": "64M",
    "innodb-log-file-size": "32M",
    "performance-schema": "OFF",
}


def mariadbd_or_skip() -> Path:
    """Return MariaDB's server; without it skip the test, loudly (in CI: fail it)."""
    found = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return (
        Path(found)
        if found is not None
        else missing("MariaDB", "/usr/sbin or on PATH", "apt-get install mariadb-server")
    )


class MariaDB(Private):
    """A server; ``url`` names no database.

    Its character set and collation are those that MariaDB has without a configuration (latin1, case does not count):
    whatever needs others has to say so.

    Args:
        settings: its options, without the dashes; ``QUICK_MARIADB`` does not survive a crash of the machine.
    """

    def __init__(self, binary: Path, settings: Mapping[str, str] | None = None) -> None:
        self._binary = binary
        self._settings = {**_MARIADB_SETTINGS, **(QUICK_MARIADB if settings is None else settings)}
        self._user = unprivileged("mysql")
        self._directory = Path(tempfile.mkdtemp(prefix="turnlog-my-", dir="/tmp"))
        self._directory.chmod(0o755)
        self._databases = 0
        shutil.copytree(self._template(), self._directory / "data", symlinks=True)
        give(self._directory, self._user)
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        """The URL of the server, of its user who may do everything."""
        return f"mariadb://root@{HOST}:{self.port}/"

    def connect(self, **options: Any) -> "pymysql.Connection[Any]":
        """Connect as that user, in autocommit mode."""
        return pymysql.connect(host=HOST, port=self.port, user="root", autocommit=True, ssl_disabled=True, **options)

    def execute(self, statement: str) -> tuple[tuple[Any, ...], ...]:
        """Execute a statement on a connection of its own and return its rows."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return tuple(cursor.fetchall())

    def new_place(self) -> str:
        """Create an empty database and return the URL that leads to it."""
        self._databases += 1
        name = f"t{os.getpid()}_{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url + name

    def drop_place(self, url: str) -> None:
        """Delete a database; a transaction that a test left open in it is an error."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET lock_wait_timeout = 10")
            cursor.execute(f"DROP DATABASE IF EXISTS {_database_of(url)}")

    def shape(self, url: str) -> object:
        """Return what is in a database, see ``Again``: its columns and triggers, and what is called after it."""
        name = _database_of(url)
        columns = "SELECT table_name, column_name, column_type FROM information_schema.columns WHERE table_schema = %s"
        triggers = "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = %s"
        beside = "SELECT count(*) FROM information_schema.schemata WHERE schema_name REGEXP %s"
        with self.connect() as connection, connection.cursor() as cursor:
            found: list[object] = []
            for statement, given in ((columns, name), (triggers, name), (beside, f"{name}([^0-9]|$)")):
                cursor.execute(statement, (given,))
                found.append(sorted(cursor.fetchall()))
        return found

    def contents(self, url: str) -> Contents:
        """Return the rows of every table."""
        with self.connect(database=_database_of(url)) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW TABLES")
            return {table: _rows(cursor, table) for (table,) in cursor.fetchall()}

    def fill(self, url: str, contents: Contents) -> None:
        """Have tables hold these rows alone; a transaction that a test left open in them is an error."""
        with self.connect(database=_database_of(url)) as connection, connection.cursor() as cursor:
            cursor.execute("SET innodb_lock_wait_timeout = 10")
            cursor.execute("START TRANSACTION")
            for table, rows in contents.items():
                cursor.execute(f"DELETE FROM {table}")
                for row in rows:
                    cursor.execute(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))})", row)
            cursor.execute("COMMIT")

    def start(self) -> None:
        """Start it (again, on the same port)."""
        here = self._directory
        options = {
            **self._settings,
            "datadir": f"{here}/data",
            "socket": f"{here}/socket",
            "pid-file": f"{here}/pid",
            "tmpdir": str(here),
            "port": str(self.port),
        }
        command = [str(self._binary), "--no-defaults", *(f"--{name}={value}" for name, value in options.items())]
        self._process = Running("MariaDB", command, here / "log", self._user)
        self._process.wait(self._is_ready)

    def crash(self) -> None:
        """End it at once, without writing anything more."""
        self._process.end()

    def stop(self) -> None:
        """End it and delete its files."""
        self.crash()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _is_ready(self) -> bool:
        try:
            self.connect(connect_timeout=5).close()
        except pymysql.Error:
            return False
        return True

    def _template(self) -> Path:
        said = subprocess.run([str(self._binary), "--no-defaults", "--version"], check=True, capture_output=True)
        version = said.stdout.decode().partition("Ver ")[2].split()[0]
        program = shutil.which("mariadb-install-db") or "mariadb-install-db"

        def command(data: Path) -> list[str]:
            options = ["--skip-test-db", "--auth-root-authentication-method=normal", "--skip-name-resolve"]
            return [program, "--no-defaults", f"--datadir={data}", *options]

        return template(f"my-template-{os.geteuid()}-{version}", command, self._user)


def _database_of(url: str) -> str:
    return url.rpartition("/")[2]


def _rows(cursor: "pymysql.cursors.Cursor", table: str) -> list[tuple[Any, ...]]:
    cursor.execute(f"SELECT * FROM {table}")
    return list(cursor.fetchall())
