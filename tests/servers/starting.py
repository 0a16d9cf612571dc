"""What starting any server privately takes: a free port, another user than root, first files made once, an end."""

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
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NoReturn, Protocol, Self

import pytest

HOST = "127.0.0.1"
READY_S = 60.0
UNTESTED = "IS NOT TESTED"
"""By these words the run's summary knows of what no server was found."""
_DIE_WITH_PARENT = 1
_libc = ctypes.CDLL(None)
hostile = pytest.mark.skipif("TURNLOG_ORDER_S" not in os.environ, reason="depends on timing: TURNLOG_ORDER_S=3 runs it")
"""For tests that end connections all the time or count on chance: a busy machine must not fail the default run."""


class Server(Protocol):
    """What the server of every log can do for a test."""

    def new_place(self) -> str:
        """Make an empty place and return the URL that leads to it."""
        ...

    def drop_place(self, url: str) -> None:
        """Delete a place with all that is in it."""
        ...


class Running:
    """A server's process. It ends with the thread that started it.

    Args:
        name: what messages call it.
        log: the file that its output goes to.
        user: the arguments that start a process as another user.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, user: Mapping[str, Any] | None = None) -> None:
        self._name, self._log = name, log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one prctl call, which takes no lock
                **(user or {}),
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def wait(self, is_ready: Callable[[], object]) -> None:
        """Wait until it is ready.

        Raises:
            RuntimeError: it has ended, or takes too long; with the last that it said.
        """
        deadline = monotonic() + READY_S
        while not is_ready():
            if self._process.poll() is not None or monotonic() > deadline:
                said = self._log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{self._name} did not start; it said: {said}")
            sleep(0.01)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it at once, if it has not ended."""
        if self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(READY_S)


class Private(ABC):
    """A server of a test's own, which is stopped at the end of a ``with``."""

    @abstractmethod
    def stop(self) -> None:
        """End it and delete its files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def missing(server: str, where: str, remedy: str) -> NoReturn:
    """Skip the test for want of a server, loudly (in CI: fail it)."""
    words = f"{server} {UNTESTED}: no server in {where} ({remedy})"
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)


def template(name: str, command: Callable[[Path], list[str]], user: Mapping[str, Any]) -> Path:
    """Return a directory of a server's first files, made by whoever comes first."""
    path = Path(tempfile.gettempdir()) / f"turnlog-{name}"
    with Path(f"{path}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (path / "done").exists():
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o755)
            give(path, user)
            subprocess.run(command(path / "data"), check=True, stdout=subprocess.DEVNULL, cwd="/", **user)
            (path / "done").touch()
    return path / "data"


def unprivileged(name: str) -> dict[str, Any]:
    """Return the arguments that start a process as another user than root."""
    if os.geteuid() != 0:
        return {}
    found = pwd.getpwnam(name)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def give(path: Path, user: Mapping[str, Any]) -> None:
    """Make a directory, and what is in it, that user's."""
    if user:
        for each in (path, *path.rglob("*")):
            os.chown(each, user["user"], user["group"], follow_symlinks=False)


def _die_with_parent() -> None:
    """Run in the child, as its new user: the kernel ends it when the thread that started it ends."""
    os.setsid()
    _libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def free_port(*, also: int = 0) -> int:
    """Return a port that nobody listens on, nor on the one above by ``also``, below those that clients are given.

    It is this process's until that ends: no other is given it while a server starts, or is down.
    """
    while True:
        port = random.randrange(20000, 30000)  # noqa: S311 - not a secret
        if all(_take(each) and _is_free(each) for each in {port, port + also}):
            return port


def _take(port: int) -> bool:
    """Take a port, unless somebody has it: by UDP, which none of the servers speaks."""
    with socket.socket(type=socket.SOCK_DGRAM) as mark:
        try:
            mark.bind((HOST, port))
        except OSError:
            return False
        mark.detach()  # it stays
        return True


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex((HOST, port)) != 0
