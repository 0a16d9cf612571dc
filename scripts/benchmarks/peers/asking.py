"""The side that asks: a package's program as a process of its own, and the size of the file that it keeps."""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

_ROOT = Path(__file__).resolve().parents[3]
_PROGRAMS = "scripts.benchmarks.peers.programs"


class Package(NamedTuple):
    """A package to measure: its name for the table, the interpreter that has it, its program with arguments."""

    name: str
    python: Path
    program: tuple[str, ...]


class Program:
    """A package's program (``answering.py``), running; a context manager.

    Args:
        package: whose.
        log: where what it prints goes; shown if it dies.
    """

    def __init__(self, package: Package, log: Path) -> None:
        self._package, self._log = package, log
        module, *arguments = package.program
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), "LANGSMITH_TRACING": "false"}
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [package.python, "-m", f"{_PROGRAMS}.{module}", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()  # the end of its input is its end

    def ask(self, name: str, *arguments: object) -> Any:
        """Ask for one thing; return the answer. See ``tell`` and ``answer``."""
        self.tell(name, *arguments)
        return self.answer()

    def tell(self, name: str, *arguments: object) -> None:
        """Ask for one thing without waiting for the answer."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        self._process.stdin.write(msgspec.json.encode((name, *arguments), enc_hook=str) + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Return the answer to what was told. Raises RuntimeError with the last that the program printed if it died."""
        assert self._process.stdout is not None  # noqa: S101 - as above
        line = self._process.stdout.readline()
        if not line:
            last = self._log.read_text(encoding="utf-8", errors="replace")[-2_000:]
            raise RuntimeError(f"the program of {self._package.name} died: {last}")
        return msgspec.json.decode(line)


def size_bytes(path: Path) -> int:
    """Return the size of a database that nobody has open, what waits in its write-ahead log included."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*") if not file.name.endswith("-shm"))
