"""Private database servers for tests: on 127.0.0.1, in a directory of their own, ended with the test run.

A server's first files are made once and copied then, which takes a fifth of a second. Root is dropped: the servers
refuse it. Ports lie below those that the kernel gives to clients. Where there are no server binaries, tests are
skipped and the run's last lines say so; in CI that is a failure.
"""

import ctypes
import fcntl
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NoReturn, Self

import psycopg
import pymysql
import pytest
from psycopg import sql

HOST = "127.0.0.1"
READY_S = 60.0
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
QUICK_MARIADB = {"innodb-flush-log-at-trx-commit": "0", "innodb-flush-method": "nosync", "sync-frm": "0"}
"""As ``QUICK``."""
_MARIADB_SETTINGS = {
    "bind-address": HOST,
    "skip-name-resolve": "1",
    "max-connections": "200",
    "innodb-buffer-pool-size": "64M",
    "innodb-log-file-size": "32M",
    "performance-schema": "OFF",
}
_DIE_WITH_PARENT = 1
_libc = ctypes.CDLL(None)
hostile = pytest.mark.skipif("TURNLOG_ORDER_S" not in os.environ, reason="depends on timing: TURNLOG_ORDER_S=3 runs it")
"""For tests that end connections all the time or count on chance: a busy machine must not fail the default run."""
UNTESTED = "IS NOT TESTED"
"""By these words the run's summary knows of what no server was found."""


def postgresql_binaries() -> Path | None:
    """Return the directory of the newest server's binaries that are installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    return None if on_path is None else Path(on_path).resolve().parent


def binaries_or_skip() -> Path:
    """Return where PostgreSQL's binaries are; without them skip the test, loudly (in CI: fail it)."""
    return postgresql_binaries() or _missing("PostgreSQL", "/usr/lib/postgresql or on PATH", "postgresql")


def mariadbd_or_skip() -> Path:
    """Return MariaDB's server; without it skip the test, loudly (in CI: fail it)."""
    found = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return Path(found) if found is not None else _missing("MariaDB", "/usr/sbin or on PATH", "mariadb-server")


def _missing(server: str, where: str, package: str) -> NoReturn:
    words = f"{server} {UNTESTED}: no server binaries in {where} (apt-get install {package})"
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)


class PostgreSQL:
    """A server; ``url`` is that of its database ``postgres``.

    Args:
        settings: of its configuration; ``QUICK`` does not survive a crash.
        primary: the server of which this one is a standby, until it is promoted.
    """

    def __init__(
        self, binaries: Path, settings: Mapping[str, str] = QUICK, *, primary: "PostgreSQL | None" = None
    ) -> None:
        self._binaries = binaries
        self._user = _unprivileged("postgres")
        self._directory = Path(tempfile.mkdtemp(prefix="turnlog-pg-", dir="/tmp"))
        self._directory.chmod(0o755)
        self._data = self._directory / "data"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._schemas = 0
        if primary is None:
            shutil.copytree(self._template(), self._data, symlinks=True)
            _give(self._data, self._user)
        else:
            _give(self._directory, self._user)
            options = ["-h", HOST, "-p", str(primary.port), "-U", "tester", "-R", "-c", "fast", "--no-sync"]
            self._run("pg_basebackup", "-D", str(self._data), *options)
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in {**_SETTINGS, **settings}.items())
        self.start()

    @property
    def url(self) -> str:
        """The URL of the database that every server has."""
        return f"postgresql://tester@{HOST}:{self.port}/postgres"

    def new_schema(self) -> str:
        """Create an empty schema, which is much quicker than a database, and return the URL that leads to it."""
        self._schemas += 1
        name = f"t{os.getpid()}_{self._schemas}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        return f"{self.url}?options=-csearch_path%3D{name}"

    def drop_schema(self, url: str) -> None:
        """Delete a schema; a transaction that a test left open in it is an error."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '10s'")
            connection.execute("SET client_min_messages = warning")
            name = sql.Identifier(url.rpartition("%3D")[2])
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))

    def start(self) -> None:
        """Start it (again, on the same port)."""
        self._log = self._directory / "log"
        with self._log.open("ab") as log:
            command = [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port)]
            process: Any = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one prctl call, which takes no lock
                **self._user,
            )
        self._process = process
        deadline = monotonic() + READY_S
        while not self._is_ready():
            if process.poll() is not None or monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text(errors='replace')[-2000:]}")
            sleep(0.01)

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
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """End it and delete its files."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(READY_S)

    def _is_ready(self) -> bool:
        """Look where pg_ctl looks."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        mine = self._process is not None and lines[:1] == [str(self._process.pid)]
        return mine and len(lines) > 7 and lines[7].strip() in {"ready", "standby"}

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **self._user)

    def _template(self) -> Path:
        def command(data: Path) -> list[str]:
            options = ["-U", "tester", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]
            return [str(self._binaries / "initdb"), "-D", str(data), *options]

        return _template(f"pg-template-{os.geteuid()}-{self._binaries.parts[-2]}", command, self._user)


class MariaDB:
    """A server; ``url`` names no database.

    Its character set and collation are those that MariaDB has without a configuration (latin1, case does not count):
    whatever needs others has to say so.

    Args:
        settings: its options, without the dashes; ``QUICK_MARIADB`` does not survive a crash.
    """

    def __init__(self, binary: Path, settings: Mapping[str, str] | None = None) -> None:
        self._binary = binary
        self._settings = {**_MARIADB_SETTINGS, **(QUICK_MARIADB if settings is None else settings)}
        self._user = _unprivileged("mysql")
        self._directory = Path(tempfile.mkdtemp(prefix="turnlog-my-", dir="/tmp"))
        self._directory.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        shutil.copytree(self._template(), self._directory / "data", symlinks=True)
        _give(self._directory, self._user)
        self.port = _free_port()
        self.start()

    @property
    def url(self) -> str:
        """The URL of the server, of its user who may do everything."""
        return f"mariadb://root@{HOST}:{self.port}/"

    def connect(self, **options: Any) -> "pymysql.Connection[Any]":
        """Connect as that user, in autocommit mode."""
        return pymysql.connect(host=HOST, port=self.port, user="root", autocommit=True, **options)

    def execute(self, statement: str) -> tuple[tuple[Any, ...], ...]:
        """Execute a statement on a connection of its own and return its rows."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return tuple(cursor.fetchall())

    def new_database(self) -> str:
        """Create an empty database and return the URL that leads to it."""
        self._databases += 1
        name = f"t{os.getpid()}_{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url + name

    def drop_database(self, url: str) -> None:
        """Delete a database; a transaction that a test left open in it is an error."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET lock_wait_timeout = 10")
            cursor.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]}")

    def start(self) -> None:
        """Start it (again, on the same port)."""
        here = self._directory
        options = {
            **self._settings,
            "datadir": f"{here}/data",
            "socket": f"{here}/socket",
            "pid-file": f"{here}/pid",
            "tmpdir": str(here),
            "log-error": f"{here}/log",
            "port": str(self.port),
        }
        process: Any = subprocess.Popen(
            [str(self._binary), "--no-defaults", *(f"--{name}={value}" for name, value in options.items())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one prctl call, which takes no lock
            **self._user,
        )
        self._process = process
        deadline = monotonic() + READY_S
        while not self._is_ready():
            if process.poll() is not None or monotonic() > deadline:
                log = here / "log"
                said = log.read_text(errors="replace") if log.exists() else "nothing"
                raise RuntimeError(f"MariaDB did not start; it said: {said[-2000:]}")
            sleep(0.01)

    def crash(self) -> None:
        """End it at once, without writing anything more."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(READY_S)

    def stop(self) -> None:
        """End it and delete its files."""
        self.crash()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

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

        return _template(f"my-template-{os.geteuid()}-{version}", command, self._user)


def _template(name: str, command: Callable[[Path], list[str]], user: Mapping[str, Any]) -> Path:
    """Return a directory of a server's first files, made by whoever comes first."""
    path = Path(tempfile.gettempdir()) / f"turnlog-{name}"
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (path / "done").exists():
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o755)
            _give(path, user)
            subprocess.run(command(path / "data"), check=True, stdout=subprocess.DEVNULL, cwd="/", **user)
            (path / "done").touch()
    return path / "data"


def _unprivileged(name: str) -> dict[str, Any]:
    """Return the arguments that start a process as another user than root."""
    if os.geteuid() != 0:
        return {}
    found = pwd.getpwnam(name)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def _give(path: Path, user: Mapping[str, Any]) -> None:
    if user:
        for each in (path, *path.rglob("*")):
            os.chown(each, user["user"], user["group"], follow_symlinks=False)


def _die_with_parent() -> None:
    """Run in the child, as its new user: the kernel ends it when the thread that started it ends."""
    os.setsid()
    _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _free_port() -> int:
    while True:
        port = random.randrange(20000, 30000)  # noqa: S311 - not a secret
        with socket.socket() as tried:
            if tried.connect_ex((HOST, port)) != 0:
                return port
