"""What commands print: JSON for programs and tables for people on stdout, words and progress bars on stderr.

Stored text cannot pass for output: ``shown`` makes it one line without control characters; text of several lines is
printed by ``print_block``, each of its lines further in than what names it.
"""

import re
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from unicodedata import category

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_UNLIMITED = 1_000_000
_GAP = 2
"""Blanks between two columns."""
_TAB = "\t"
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_BREAKS = "\u2028\u2029"
_UNSAFE = re.compile(f"[{_DIRECTIONS}{_BREAKS}]")
_UNSAFE_IN_JSON = re.compile(f"[\x7f-\x9f{_DIRECTIONS}{_BREAKS}]")
_encode = msgspec.json.Encoder().encode


def print_json(value: Any) -> None:
    """Print one JSON document on one line, UTF-8 whatever the terminal's encoding; what a terminal obeys is escaped."""
    document = _encode(value)
    if not document.isascii() or b"\x7f" in document:
        document = _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document.decode()).encode()
    sys.stdout.flush()
    sys.stdout.buffer.write(document + b"\n")


def say(words: str) -> None:
    """Print one line for people on stderr."""
    print(f"turnlog: {shown(' '.join(words.split()))}", file=sys.stderr)  # noqa: T201 - a command line prints


def print_line(words: str, style: str = "") -> None:
    """Print one line for people on stdout, however long it is."""
    _print_line(shown(words), style)


def print_block(first: str, rest: str, text: str) -> None:
    """Print a text for people, line by line as it is: after ``first`` its first line, after ``rest`` the others."""
    for i, line in enumerate(text.split("\n")):
        _print_line((rest if i else first) + shown(line, but=_TAB))


def _print_line(line: str, style: str = "") -> None:
    if style and sys.stdout.isatty():
        _print(Text(line, style))
    else:
        sys.stdout.write(f"{line}\n")


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], spare: Sequence[str] = ()) -> None:
    """Print a table for people. Where it is too wide for the terminal the columns ``spare`` are left out, in order."""
    cells = [[text_of(cell) for cell in row] for row in rows]
    columns = {header: [row[i] for row in cells] for i, header in enumerate(headers)}
    for header in spare:
        if sys.stdout.isatty() and _width(columns) > Console(file=sys.stdout).width:
            del columns[header]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in columns:
        table.add_column(header, overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, row))
    _print(table, whole=bool(spare))


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    return sum(max(map(cell_len, (header, *cells))) + _GAP for header, cells in columns.items()) - _GAP


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one a line; what is absent is left out."""
    grid = Table.grid(padding=(0, _GAP))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in fields:
        if value not in (None, (), {}):
            grid.add_row(name, Text(text_of(value)))
    _print(grid)


def _print(what: Table | Text, *, whole: bool = False) -> None:
    """Print in colour at a terminal; in a pipe, and if ``whole``, nothing is wrapped or cut."""
    width = None if sys.stdout.isatty() and not whole else _UNLIMITED
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:  # rich would end the process itself at a closed pipe
        console.print(what, soft_wrap=isinstance(what, Text))
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def text_of(value: Any) -> str:
    """Return a value in the form people read, on one line: text as it is, times to the second, the rest as JSON."""
    match value:
        case None:
            return ""
        case str():
            return shown(value)
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%SZ}"
        case _:
            return json_of(value)


def precise_of(one: datetime, other: datetime) -> tuple[str, str]:
    """Return two times to the millisecond, or where that does not tell them apart to the microsecond."""
    unit = "milliseconds" if one.microsecond // 1_000 != other.microsecond // 1_000 else "microseconds"
    first, second = (time.replace(tzinfo=None).isoformat(" ", unit) for time in (one, other))
    return f"{first}Z", f"{second}Z"


def json_of(value: Any) -> str:
    """Return a value as JSON for people, which tells 1 from "1" and "" from null."""
    return shown(_encode(value).decode())


def shown(text: str, but: str = "") -> str:
    """Return text safe for one line of a terminal: control characters and line breaks are shown, not obeyed."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char.encode("unicode_escape").decode() if _is_unsafe(char, but) else char for char in text)


def _is_unsafe(char: str, but: str) -> bool:
    return char not in but and (category(char) in ("Cc", "Cs") or _UNSAFE.match(char) is not None)


@contextmanager
def progress_bar(what: str, *, total: float | None = None) -> Generator["Bar", None, None]:
    """Show a bar on stderr while the block runs; nothing where stderr is no terminal."""
    out = Console(stderr=True)
    words = TextColumn("{task.fields[words]}", markup=False)  # they name files
    columns = (TextColumn("{task.description}"), BarColumn(), words, TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        yield Bar(progress, what, total)


class Bar:
    """A progress bar: ``update`` moves it."""

    def __init__(self, progress: Progress, what: str, total: float | None) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total, words="")

    def update(self, done: float, total: float | None, words: str) -> None:
        """Show that ``done`` of ``total`` is done."""
        self._progress.update(self._task, completed=done, total=total, words=shown(words))
