"""A private Redis server: durable as it is, and quick, for its files are in memory where the machine allows."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.starting import HOST, READY_S, Private, Running, free_port, missing

DURABLE = {"appendonly": "yes", "appendfsync": "always"}
_SETTINGS = {"bind": HOST, "save": "", "daemonize": "no", "databases": "10000", "enable-debug-command": "yes"}
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of its own is made there


def redis_server_or_skip() -> Path:
    """Return Redis's server; without it skip the test, loudly (in CI: fail it)."""
    found = shutil.which("redis-server")
    return Path(found) if found is not None else missing("Redis", "PATH", "apt-get install redis-server")


class Redis(Private):
    """A server; a store of ``durability="full"`` can be opened on it, unless other ``settings`` forbid that.

    Args:
        bus: whether the port above by 1000 has to be free too: nodes of a cluster talk there.
    """

    def __init__(self, binary: Path, settings: Mapping[str, str] | None = None, *, bus: bool = False) -> None:
        self._binary = binary
        self._settings = {**_SETTINGS, **(DURABLE if settings is None else settings)}
        place = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
        self._directory = Path(tempfile.mkdtemp(prefix="turnlog-redis-", dir=place))
        self._databases = 0
        self.port = free_port(also=1000 if bus else 0)
        if bus:
            self._settings["cluster-port"] = str(self.port + 1000)
        self.start()

    @property
    def url(self) -> str:
        """The URL of the first of its databases."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def files(self) -> Path:
        """Where it writes."""
        return self._directory

    def execute(self, *command: str | bytes | int, database: int = 0) -> Any:
        """Execute a command, once, on a connection of its own and return the answer."""
        once: Any = Retry(NoBackoff(), 0)  # by itself the driver says it again after 5 s
        with redis.Redis(host=HOST, port=self.port, db=database, socket_timeout=READY_S, retry=once) as client:
            driver: Any = client
            driver.response_callbacks.clear()  # answers as they come
            return driver.execute_command(*command)

    def new_place(self) -> str:
        """Return the URL of a database that is empty."""
        self._databases += 1
        return f"redis://{HOST}:{self.port}/{self._databases}"

    def drop_place(self, url: str) -> None:
        """Empty a database."""
        self.execute("FLUSHDB", database=int(url.rpartition("/")[2]))

    def start(self) -> None:
        """Start it (again, on the same port and files)."""
        options = {**self._settings, "port": str(self.port), "dir": str(self._directory)}
        command = [str(self._binary), *(part for name, value in options.items() for part in (f"--{name}", value))]
        self._process = Running("Redis", command, self._directory / "log")
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
            self.execute("PING")
        except redis.RedisError:
            return False
        return True
