"""Figures for people: a table in the terminal, the same in docs/benchmarks.md, and the file it was made from."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from scripts.benchmarks.host import Host
from scripts.benchmarks.measuring import Figure, shown, shown_target

_DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
_BEGIN, _END = "<!-- figures -->", "<!-- /figures -->"
_SMALL = 0.1
"""Ratios below are shown with two digits that are not zeros."""
_COLUMNS = ("what", "turnlog", "against", "", "ratio", "of the best", "target", "")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run: on what, and what came out."""

    quick: bool
    host: Host
    figures: tuple[Figure, ...]


def show(report: Report, console: Console) -> None:
    """Print the table, what it was measured on, and the notes."""
    title = "a quick run: it works, the figures mean nothing" if report.quick else None
    table = Table(*_COLUMNS, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    table.columns[2].justify = "left"
    for figure in report.figures:
        met = {None: "", True: "[green]✓[/green]", False: "[red]✗[/red]"}[figure.met]
        table.add_row(*_cells(figure), met)
    console.print(table)
    console.print(_about(report.host), highlight=False)
    for figure in report.figures:
        if figure.note:
            console.print(f"{figure.what}: {figure.note}", highlight=False, markup=False)


def line(figure: Figure) -> str:
    """Return a figure in a line, for those who wait."""
    what, ours, against, theirs, ratio, _, target = _cells(figure)
    other = f"; {against} {theirs}; ratio {ratio}" if against else ""
    return f"{what}: {ours}{other}{f' ({target})' if target else ''}"


def record(report: Report) -> None:
    """Write docs/benchmarks.json and put the table into docs/benchmarks.md."""
    data = msgspec.json.format(msgspec.json.encode(report), indent=2)
    (_DOCS / "benchmarks.json").write_bytes(data + b"\n")
    page = _DOCS / "benchmarks.md"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n{markdown(report)}\n{_END}{after}", encoding="utf-8")


def markdown(report: Report) -> str:
    """Return the table and what it was measured on as Markdown."""
    head = ["what", "turnlog", "against", "", "ratio", "of the best", "target", "met"]
    lines = ["| " + " | ".join(head) + " |", "| --- | ---: | --- | ---: | ---: | ---: | ---: | --- |"]
    for figure in report.figures:
        met = {None: "", True: "yes", False: "**no**"}[figure.met]
        lines.append("| " + " | ".join((*_cells(figure), met)) + " |")
    today = datetime.now(UTC).date()
    return "\n".join([f"Measured on {today}: {_about(report.host)}", "", *lines])


def _cells(figure: Figure) -> tuple[str, ...]:
    return (
        figure.what,
        shown(figure.ours, figure.unit),
        figure.against,
        shown(figure.raw, figure.unit),
        _shown_ratio(figure.ratio),
        _shown_ratio(figure.ratio_best),
        shown_target(figure.target, figure.unit),
    )


def _shown_ratio(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.2f}" if ratio >= _SMALL else f"{ratio:.2g}"


def _about(host: Host) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in host.packages.items())
    return (
        f"{host.cpu}, {host.cores} cores, load {host.load:.1f} at the start; {host.system}; Python {host.python},"
        f" SQLite {host.sqlite}; {packages}; {host.filesystem}, one synced write of 4 kB takes"
        f" {shown(host.synced_write_s, 's')}."
    )
