"""Running the command line in tests: in this process (the fixture ``cli``), or as a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
DEADLINE_S = 240
"""How long a command may take, on a machine that is busy with other things."""
TALK = '{"conversation_id": "c%d", "events": [{"type": "message", "role": "user", "content": "hi"}]}\n'
"""A conversation of one message in the neutral form, its number left out."""


class Done(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document that was printed."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The documents that were printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Done]


def process(
    *arguments: object, stdin: int | IO[str] | None = None, stdout: int | IO[str] = subprocess.PIPE
) -> "subprocess.Popen[str]":
    """Start a command as a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "turnlog", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
