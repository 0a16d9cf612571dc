"""A private Redis server."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from types import MappingProxyType
from typing import Any, Self

import redis

from tests.servers.starting import HOST, READY_S, die_with_parent, free_port, give, missing, unprivileged

QUICK_REDIS: Mapping[str, str] = MappingProxyType({"appendonly": "no"})
"""For tests of function; those of crashes start a server that writes its log."""
_DATABASES = 10_000
_REDIS_SETTINGS = {"bind": HOST, "save": "", "databases": str(_DATABASES), "repl-diskless-sync-delay": "0"}


def redis_server_or_skip() -> Path:
    """Return Redis's server; without it skip the test, loudly (in CI: fail it)."""
    found = shutil.which("redis-server")
    return Path(found) if found is not None else missing("Redis", "PATH", "apt-get install redis-server")


class Redis:
    """A server; ``url`` names no database.

    Args:
        settings: its options, without the dashes; ``QUICK_REDIS`` does not survive a crash.
    """

    def __init__(self, binary: Path, settings: Mapping[str, str] = QUICK_REDIS) -> None:
        self._binary = binary
        self._settings = {**_REDIS_SETTINGS, **settings}
        self._user = unprivileged("redis")
        self._directory = Path(tempfile.mkdtemp(prefix="turnlog-redis-", dir="/tmp"))
        self._directory.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None
        self._used = 0
        give(self._directory, self._user)
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"redis://{HOST}:{self.port}/"

    def execute(self, *command: str | bytes | int, database: int = 0) -> Any:
        """Send a command on a connection of its own and return the reply."""
        client: Any = redis.Redis(HOST, self.port, database, socket_timeout=READY_S)
        try:
            return client.execute_command(*command)
        finally:
            client.close()

    def new_database(self) -> str:
        """Return the URL of a database in which there is nothing."""
        self._used = (self._used + 1) % _DATABASES
        return f"{self.url}{self._used}"

    def drop_database(self, url: str) -> None:
        """Delete what is in a database."""
        self.execute("FLUSHDB", database=int(url.rpartition("/")[2]))

    def start(self) -> None:
        """Start it (again, on the same port and files)."""
        options = {**self._settings, "port": str(self.port), "dir": str(self._directory)}
        with (self._directory / "log").open("ab") as log:
            process: Any = subprocess.Popen(
                [str(self._binary), *(part for name, value in options.items() for part in (f"--{name}", value))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl call, which takes no lock
                **self._user,
            )
        self._process = process
        deadline = monotonic() + READY_S
        while not self._is_ready():
            if process.poll() is not None or monotonic() > deadline:
                said = (self._directory / "log").read_text(errors="replace")
                raise RuntimeError(f"Redis did not start; it said: {said[-2000:]}")
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
            return bool(self.execute("PING"))
        except redis.RedisError:  # not yet listening, or loading its files
            return False
