"""``rebuild``, ``verify``, ``heads``: views made again, and the log proven."""

from pathlib import Path
from typing import Annotated

import typer

from turnlog.adapters.cli.guard import BAD, DEFAULT_TENANT, JsonOption, StoreOption, TenantOption, opened
from turnlog.adapters.cli.output import print_json, print_line, print_table, progress_bar
from turnlog.domain.errors import SessionNotFound
from turnlog.domain.values import Failure, RebuildProgress


def rebuild(
    *,
    view: Annotated[str | None, typer.Argument(metavar="VIEW", help="Only this view; otherwise all.")] = None,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Make views again from the log; the old ones answer until the new ones are ready."""
    with opened(store, tenant) as db, progress_bar("rebuilding") as bar:

        def show(progress: RebuildProgress) -> None:
            bar.update(progress.position, progress.target, f"{progress.view}: {progress.events:,} events")

        db.rebuild(view, progress=show)
        views = [status for status in db.stats().views if view in (None, status.name)]
    if as_json:
        print_json(views)
        return
    rows = ((status.name, status.revision, status.position, status.parked) for status in views)
    print_table(("REBUILT", "REVISION", "POSITION", "PARKED"), rows)


def verify(
    *,
    session: Annotated[str | None, typer.Argument(metavar="SESSION", help="Only this session.")] = None,
    heads: Annotated[
        Path | None,
        typer.Option("--heads", exists=True, dir_okay=False, help="Compare with heads kept elsewhere (turnlog heads)."),
    ] = None,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Check the log's hashes, and the views against the log; exit 1 if anything is wrong."""
    with opened(store, tenant) as db:
        report = db.verify(session, heads=heads)
    if session is not None and report.ok and not report.sessions:
        raise SessionNotFound(session)
    if as_json:
        print_json(report)
    else:
        for failure in report.failures:
            print_line(_place(failure) + failure.reason, "red")
        verdict = "all is well" if report.ok else f"FAILED, {len(report.failures)} failures"
        print_line(
            f"{verdict}: {report.sessions:,} sessions, {report.events:,} events", "" if report.ok else "bold red"
        )
    if not report.ok:
        raise typer.Exit(BAD)


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
