"""README.md and docs/*.md are run: every Python block and every `turnlog` command in a shell block.

What a `console` block shows under a command is what it prints, but for times and measures: `…` stands for the rest of a
line or, alone, for more lines. A block that cannot be run stands after a comment that says why: `<!-- not run: the
reason -->`.
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


def run_shell(before: list[str], commands: list[str], folder: Path) -> list[str]:
    """Run the commands in one shell in which `turnlog` is this interpreter's; return what each printed."""
    prelude = ["set -euo pipefail", 'turnlog() { "$PYTHON" -W error -m turnlog "$@"; }', *before]
    marked = [f"{command}\nprintf '\\036'" for command in commands]
    done = subprocess.run(
        ["/bin/bash", "-c", "\n".join([*prelude, *marked])],
        cwd=folder,
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, "\n".join([*prelude, *commands, done.stdout, done.stderr])
    return done.stdout.split("\x1e")[:-1]


def outputs_shown(text: str) -> dict[str, str]:
    """Return what a `console` block shows under each of its commands."""
    shown = [part.partition("\n") for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]]
    return {command: output for command, _, output in shown if output}


def as_pattern(shown: str) -> str:
    """Return the regular expression of what may be printed where the documentation shows this."""
    lines = [line.strip() for line in shown.splitlines()]
    return "".join("(?:.*\n)*" if line == "…" else f" *{_line_pattern(line)} *\n" for line in lines)


def _line_pattern(line: str) -> str:
    parts = re.split(rf"({VARYING.pattern})", line)
    return "".join(
        _varying(part) if i % 2 else re.sub(r"(\\ )+", " +", re.escape(part)) for i, part in enumerate(parts)
    )


def _varying(part: str) -> str:
    return ".*" if part == "…" else TIME if part.endswith("Z") else r"[\d.,]+"


TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?Z"
VARYING = re.compile(rf"…|{TIME}|\d+\.\d+|[\d,]+(?= events/s)|\d{{5,}}")
OF_THE_MACHINE = ("turnlog doctor",)
"""What these print is shown as an example; the tests of the command line check it."""


PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if blocks(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_documentation_shows_can_be_done(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of one page, run in order in one namespace and one empty folder, succeed and print what is shown."""
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
            printed = dict(zip(commands, run_shell(exports, commands, tmp_path), strict=True))
            for command, shown in outputs_shown(text).items():
                if command not in OF_THE_MACHINE:
                    assert re.fullmatch(as_pattern(shown), printed[command]), f"{command}\n{printed[command]}"
            exports += [command for command in commands if command.startswith("export ")]
    for value in namespace.values():
        if isinstance(value, turnlog.ConversationStore):
            value.close()


@pytest.mark.parametrize(
    ("printed", "fits"),
    [
        ("a   2025-02-03 04:05:06Z  x\nmore\nmore\nend 12 in 3.5 s\n", True),
        ("a  2025-02-03 04:05:06Z  anything\nend 12 in 0.1 s\n", True),
        ("a  2025-02-03 04:05:06Z  x\nend 13 in 0.1 s\n", False),
        ("a  yesterday  x\nend 12 in 0.1 s\n", False),
        ("b  2025-02-03 04:05:06Z  x\nend 12 in 0.1 s\n", False),
        ("a  2025-02-03 04:05:06Z  x\n", False),
    ],
)
def test_only_what_varies_may_differ_from_what_is_shown(printed: str, fits: bool) -> None:
    """Times and measures are any, `…` is anything, the rest is to the word."""
    shown = "a  2026-01-31 12:00:00Z  …\n…\nend 12 in 0.0 s\n"
    assert (re.fullmatch(as_pattern(shown), printed) is not None) == fits
