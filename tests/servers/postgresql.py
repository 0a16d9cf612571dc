"""A private PostgreSQL server."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep

import psycopg
from psycopg import sql

from tests.servers.again import Contents
from tests.servers.starting import HOST, READY_S, Private, Running, free_port, give, missing, template, unprivileged

QUICK = {"fsync": "off", "full_page_writes": "off"}
"""For tests of function; those of crashes start a server without it."""
_SETTINGS = {
    "listen_addresses": f"'{HOST}'",
    "unix_socket_directories": "''",
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "shared_buffers": "64MB",
    "deadlock_timeout": "100ms",
    "log_min_messages": "fatal",
    "wal_level": "logical",
}


def postgresql_binaries() -> Path | None:
    """Return the directory of the newest server's binaries that are installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    return None if on_path is None else Path(on_path).resolve().parent


def binaries_or_skip() -> Path:
    """Return where PostgreSQL's binaries are; without them skip the test, loudly (in CI: fail it)."""
    return postgresql_binaries() or missing(
        "PostgreSQL", "/usr/lib/postgresql or on PATH", "apt-get install postgresql"
    )


class PostgreSQL(Private):
    """A server; ``url`` is that of its database ``postgres``.

    Args:
        settings: of its configuration; ``QUICK`` does not survive a crash.
        primary: the server of which this one is a standby, until it is promoted.
    """

    def __init__(
        self, binaries: Path, settings: Mapping[str, str] = QUICK, *, primary: "PostgreSQL | None" = None
    ) -> None:
        self._binaries = binaries
        self._user = unprivileged("postgres")
        self._directory = Path(tempfile.mkdtemp(prefix="turnlog-pg-", dir="/tmp"))
        self._directory.chmod(0o755)
        self._data = self._directory / "data"
        self.port = free_port()
        self._schemas = 0
        if primary is None:
            shutil.copytree(self._template(), self._data, symlinks=True)
            give(self._data, self._user)
        else:
            give(self._directory, self._user)
            options = ["-h", HOST, "-p", str(primary.port), "-U", "tester", "-R", "-c", "fast", "--no-sync"]
            self._run("pg_basebackup", "-D", str(self._data), *options)
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in {**_SETTINGS, **settings}.items())
        self.start()

    @property
    def url(self) -> str:
        """The URL of the database that every server has."""
        return f"postgresql://tester@{HOST}:{self.port}/postgres"

    def new_place(self) -> str:
        """Create an empty schema, which is much quicker than a database, and return the URL that leads to it."""
        self._schemas += 1
        name = f"t{os.getpid()}_{self._schemas}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        return f"{self.url}?options=-csearch_path%3D{name}"

    def drop_place(self, url: str) -> None:
        """Delete a schema; a transaction that a test left open in it is an error."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '10s'")
            connection.execute("SET client_min_messages = warning")
            name = sql.Identifier(_schema_of(url))
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))

    def shape(self, url: str) -> object:
        """Return what is in a schema, see ``Again``: its relations, and what is called after it."""
        schema = _schema_of(url)
        statement = (
            "SELECT relname, relkind, relnatts, relchecks, relhasrules, relhastriggers, relpersistence, reloptions"
            " FROM pg_class WHERE relnamespace = %s::regnamespace ORDER BY relname"
        )
        beside = "SELECT count(*) FROM pg_namespace WHERE nspname ~ %s"
        with psycopg.connect(self.url, autocommit=True) as connection:
            relations = connection.execute(statement, (schema,)).fetchall()
            return relations, connection.execute(beside, (f"{schema}(\\D|$)",)).fetchall()

    def contents(self, url: str) -> Contents:
        """Return the rows of every table."""
        statement = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'"
        with psycopg.connect(url) as connection:
            tables = [name for (name,) in connection.execute(statement, (_schema_of(url),)).fetchall()]
            return {
                table: connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))).fetchall()
                for table in tables
            }

    def fill(self, url: str, contents: Contents) -> None:
        """Have tables hold these rows alone; a transaction that a test left open in them is an error."""
        with psycopg.connect(url) as connection:
            connection.execute("SET LOCAL lock_timeout = '10s'")
            for table, rows in contents.items():
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
                for row in rows:
                    marks = sql.SQL(", ").join([sql.Placeholder()] * len(row))
                    connection.execute(sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier(table), marks), row)
            connection.execute("SELECT setval(pg_get_serial_sequence('turnlog_events', 'position'), 1, false)")

    def start(self) -> None:
        """Start it (again, on the same port)."""
        command = [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        self._process = Running("PostgreSQL", command, self._directory / "log", self._user)
        self._process.wait(self._is_ready)

    def standby(self, settings: Mapping[str, str] = QUICK) -> "PostgreSQL":
        """Start a standby of this server; ``wait_for_standby`` says whether commits wait for it."""
        return PostgreSQL(self._binaries, settings, primary=self)

    def wait_for_standby(self, *, wanted: bool) -> None:
        """Have commits wait for a standby, or no longer."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            names = sql.Literal("*" if wanted else "")
            connection.execute(sql.SQL("ALTER SYSTEM SET synchronous_standby_names = {}").format(names))
            connection.execute("SELECT pg_reload_conf()")
            statement = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
            deadline = monotonic() + READY_S
            while bool(connection.execute(statement).fetchone()) != wanted:
                if monotonic() > deadline:
                    raise RuntimeError("the standby is not as it was wanted")
                sleep(0.01)

    def promote(self) -> None:
        """Make a standby a primary."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)

    def crash(self) -> None:
        """End it at once, without a checkpoint and without telling clients."""
        self._process.end(signal.SIGQUIT)

    def stop(self) -> None:
        """End it and delete its files."""
        self.crash()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _is_ready(self) -> bool:
        """Look where pg_ctl looks."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        mine = lines[:1] == [str(self._process.pid)]
        return mine and len(lines) > 7 and lines[7].strip() in {"ready", "standby"}

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **self._user)

    def _template(self) -> Path:
        def command(data: Path) -> list[str]:
            options = ["-U", "tester", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]
            return [str(self._binaries / "initdb"), "-D", str(data), *options]

        return template(f"pg-template-{os.geteuid()}-{self._binaries.parts[-2]}", command, self._user)


def _schema_of(url: str) -> str:
    return url.rpartition("%3D")[2]
