"""``rebuild``, ``verify``, ``heads``: views made again, and the log proven."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from turnlog.adapters.cli.guard import BAD, DEFAULT_TENANT, JsonOption, StoreOption, TenantOption, opened
from turnlog.adapters.cli.output import print_json, print_line, print_table, progress_bar
from turnlog.adapters.transfer.lines import STANDARD_INPUT, open_lines
from turnlog.domain.errors import InvalidInput, SessionNotFound
from turnlog.domain.typed import decoder
from turnlog.domain.values import Failure, Head, RebuildProgress, VerificationReport


def rebuild(
    *,
    view: Annotated[str | None, typer.Argument(metavar="VIEW", help="Only this view; otherwise all.")] = None,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Make views again from the log; the old ones answer until the new ones are ready."""
    rebuilt: set[str] = set()  # a view of another program's is left to it
    with opened(store, tenant) as db, progress_bar("rebuilding") as bar:

        def show(progress: RebuildProgress) -> None:
            rebuilt.add(progress.view)
            bar.update(progress.position, progress.target, f"{progress.view}: {progress.events:,} events")

        db.rebuild(view, progress=show)
        views = [status for status in db.stats().views if status.name in rebuilt]
    if as_json:
        print_json(views)
        return
    rows = ((status.name, status.revision, status.position, status.parked) for status in views)
    print_table(("REBUILT", "REVISION", "POSITION", "PARKED"), rows)


def verify(
    *,
    session: Annotated[str | None, typer.Argument(metavar="SESSION", help="Only this session.")] = None,
    heads: Annotated[
        str | None,
        typer.Option("--heads", metavar="FILE", help="Compare with heads kept elsewhere (turnlog heads); - is stdin."),
    ] = None,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Check the log's hashes, and the views against the log; exit 1 if anything is wrong."""
    kept = None if heads is None else _heads_in(heads, session)
    with opened(store, tenant) as db:
        report = db.verify(session, heads=kept)
    if session is not None and report.ok and not report.sessions:
        raise SessionNotFound(session)
    compared = {} if kept is None else _compared(report, kept)
    if as_json:
        print_json({**msgspec.structs.asdict(report), **compared})
    else:
        _print_report(report, compared)
    if not report.ok:
        raise typer.Exit(BAD)


def _heads_in(file: str, session: str | None) -> list[Head]:
    """Read heads, or those of one session.

    Raises:
        InvalidInput: a line is not a head, or has a field that is not known.
    """
    if file != STANDARD_INPUT and not Path(file).exists():
        raise typer.BadParameter(f"--heads: there is no file {file!r}")
    heads: list[Head] = []
    with open_lines(file) as lines:
        for number, line in lines:
            try:
                head = _decode_head(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise InvalidInput(f"{lines.name}, line {number}", f"is not a head: {error}") from error
            if session in (None, head.session_id):
                heads.append(Head(session_id=head.session_id, version=head.version, hash=head.hash))
    return heads


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a file of heads (docs/format.md)."""

    session_id: str
    version: int
    hash: str


_decode_head = decoder(_Line)


def _compared(report: VerificationReport, heads: list[Head]) -> dict[str, int]:
    """Return how many heads were compared and how many sessions none of them names (if all named ones are there)."""
    named = len({head.session_id for head in heads})
    return {"heads": len(heads), "sessions_without_head": max(0, report.sessions - named)}


def _print_report(report: VerificationReport, compared: dict[str, int]) -> None:
    for failure in report.failures:
        print_line(_place(failure) + failure.reason, "red")
    verdict = "all is well" if report.ok else f"FAILED, {len(report.failures)} failures"
    seen = f"{report.sessions:,} sessions, {report.events:,} events"
    if compared:
        seen += f", {compared['heads']:,} heads; {compared['sessions_without_head']:,} sessions have none"
    print_line(f"{verdict}: {seen}", "" if report.ok else "bold red")


def _place(failure: Failure) -> str:
    if failure.session_id is None:
        return ""
    version = "" if failure.version is None else f", version {failure.version}"
    return f"session {failure.session_id!r}{version}: "


def heads(*, store: StoreOption = None, tenant: TenantOption = DEFAULT_TENANT, as_json: JsonOption = False) -> None:
    """Print the last hash of every session, one JSON line each: keep them elsewhere for verify --heads."""
    del as_json  # there is no other form
    with opened(store, tenant) as db:
        for head in db.heads():
            print_json(head)
