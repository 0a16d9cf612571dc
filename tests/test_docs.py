"""README.md and docs/*.md are run: every Python block and every `turnlog` command in a shell block.

A block that cannot be run stands after a comment that says why: `<!-- not run: the reason -->`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import turnlog

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"(<!-- not run: .+? -->\n+)?^```(python|console|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^(?:\$ )?((?:turnlog|export) (?:.*\\\n)*.*)", re.MULTILINE)


class Block(NamedTuple):
    """A block to run; ``line`` is that of its first line in the file."""

    language: str
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    """Return the blocks of a file that are to be run, in order."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(found[2], found[3], text.count("\n", 0, found.start(3)) + 1)
        for found in FENCE.finditer(text)
        if not found[1] and (found[2] == "python" or COMMAND.search(found[3]))
    ]


def run_shell(commands: list[str], folder: Path) -> None:
    """Run the commands in one shell in which `turnlog` is this interpreter's."""
    prelude = ["set -euo pipefail", 'turnlog() { "$PYTHON" -W error -m turnlog "$@"; }']
    done = subprocess.run(
        ["/bin/bash", "-c", "\n".join([*prelude, *commands])],
        cwd=folder,
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, "\n".join([*commands, done.stdout, done.stderr])


PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if blocks(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_documentation_shows_can_be_done(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of one page, run in order in one namespace and one empty folder, all succeed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TURNLOG_STORE", raising=False)
    namespace: dict[str, Any] = {"__name__": "page"}
    exports: list[str] = []
    for language, text, line in blocks(page):
        if language == "python":
            padded = "\n" * (line - 1) + text  # so that a traceback names the page's own lines
            exec(compile(padded, str(page), "exec"), namespace)  # noqa: S102  # running it is what this test is for
        else:
            commands = COMMAND.findall(text)
            run_shell([*exports, *commands], tmp_path)
            exports += [command for command in commands if command.startswith("export ")]
    for value in namespace.values():
        if isinstance(value, turnlog.ConversationStore):
            value.close()
