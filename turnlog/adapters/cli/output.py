"""What commands print: JSON for programs and tables for people on stdout, words and progress bars on stderr."""

import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from unicodedata import category

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_UNLIMITED = 1_000_000
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_encode = msgspec.json.Encoder().encode


def print_json(value: Any) -> None:
    """Print one JSON document on one line, UTF-8 whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(_encode(value) + b"\n")


def say(words: str) -> None:
    """Print one line for people on stderr."""
    print(f"turnlog: {' '.join(shown(words).split())}", file=sys.stderr)  # noqa: T201 - a command line prints


def print_line(words: str, style: str = "") -> None:
    """Print a line for people on stdout, however long it is."""
    if style and sys.stdout.isatty():
        _print(Text(shown(words), style))
    else:
        sys.stdout.write(f"{shown(words)}\n")


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(text_of(cell)) for cell in row))
    _print(table)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one a line; what is absent is left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in fields:
        if value not in (None, (), {}):
            grid.add_row(name, Text(text_of(value)))
    _print(grid)


def _print(what: Table | Text) -> None:
    """Print in colour at a terminal; in a pipe nothing is wrapped or cut."""
    width = None if sys.stdout.isatty() else _UNLIMITED
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:  # rich would end the process itself at a closed pipe
        console.print(what, soft_wrap=isinstance(what, Text))
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def text_of(value: Any) -> str:
    """Return a value in the form people read: text as it is, times to the second, the rest as JSON."""
    match value:
        case None:
            return ""
        case str():
            return shown(value)
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%SZ}"
        case _:
            return shown(_encode(value).decode())


def shown(text: str) -> str:
    """Return text safe for a terminal: control characters in it are shown, not obeyed."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if not _is_control(char) else char.encode("unicode_escape").decode() for char in text)


def _is_control(char: str) -> bool:
    return char in _BIDIRECTIONAL or (category(char) in ("Cc", "Cs") and char not in "\n\t")


@contextmanager
def progress_bar(what: str, *, total: float | None = None) -> Generator["Bar", None, None]:
    """Show a bar on stderr while the block runs; nothing where stderr is no terminal."""
    out = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        yield Bar(progress, what, total)


class Bar:
    """A progress bar: ``update`` moves it."""

    def __init__(self, progress: Progress, what: str, total: float | None) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total, words="")

    def update(self, done: float, total: float | None, words: str) -> None:
        """Show that ``done`` of ``total`` is done."""
        self._progress.update(self._task, completed=done, total=total, words=words)
