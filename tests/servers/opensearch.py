"""A private OpenSearch node, embedded in a Java process; one for all processes of a test run, as it starts slowly.

``scripts/servers`` fetches what it takes from Maven Central, into a directory outside the repository.
"""

import fcntl
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.servers.starting import HOST, free_port, missing

HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "turnlog" / "opensearch-2.19.1"
READY_S = 240.0
"""Ten seconds of computing; a busy machine has little to spare."""
_OPTIONS = ("-Xms512m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xlog:disable")


def opensearch_or_skip() -> Path:
    """Return where its class path is written down; without it skip the test, loudly (in CI: fail it)."""
    there = (HOME / "stamp").exists() and shutil.which("java")
    return HOME if there else missing("OpenSearch", str(HOME), "scripts/servers, which needs Maven and a JDK")


class OpenSearch:
    """A node that a test run shares; ``url`` leads to it.

    Whoever comes first starts it. It ends with the test run: it watches the process that runs the tests, or that has
    started those which do.

    Args:
        shared: a directory of this test run.
    """

    def __init__(self, home: Path, shared: Path) -> None:
        self._home = home
        self._directory = shared / "opensearch"
        self._prefixes = 0
        with (shared / "opensearch.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._directory.exists():
                self._start()
        self.port = int((self._directory / "port").read_text())

    @property
    def url(self) -> str:
        """The URL of the node."""
        return f"opensearch://{HOST}:{self.port}"

    def new_prefix(self) -> str:
        """Return a prefix that no other test uses."""
        self._prefixes += 1
        return f"t{os.getpid()}-{self._prefixes}"

    def drop(self, prefix: str) -> None:
        """Delete the indices of a prefix."""
        request = urllib.request.Request(f"http://{HOST}:{self.port}/{prefix}-*", method="DELETE")
        urllib.request.urlopen(request, timeout=READY_S).close()  # noqa: S310 - http

    def _start(self) -> None:
        self._directory.mkdir()
        owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
        port = free_port()
        log = (self._directory / "log").open("wb")
        classes = f"{self._home}:{(self._home / 'classpath').read_text().strip()}"
        arguments = (str(self._directory), str(port), str(free_port()), str(owner))
        with log:
            process: Any = subprocess.Popen(
                [shutil.which("java") or "java", *_OPTIONS, "-cp", classes, "Launch", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # it outlives the process that starts it
            )
        deadline = monotonic() + READY_S
        while not (self._directory / "ready").exists():
            if process.poll() is not None or monotonic() > deadline:
                said = (self._directory / "log").read_text(errors="replace")
                raise RuntimeError(f"OpenSearch did not start; it said: {said[-3000:]}")
            sleep(0.05)
        (self._directory / "port").write_text(str(port))
