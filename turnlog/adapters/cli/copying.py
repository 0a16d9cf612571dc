"""``copy``: a log from one store to another, on whatever backends."""

from typing import Annotated

import typer

import turnlog
from turnlog.adapters.cli.guard import DEFAULT_TENANT, JsonOption, opened
from turnlog.adapters.cli.output import Bar, print_json, print_line, progress_bar, say
from turnlog.adapters.cli.stopping import stopping
from turnlog.adapters.transfer.copying import CopyProgress, CopyReport, copy_log


def copy(
    *,
    source: Annotated[str, typer.Argument(metavar="FROM", help="The store to copy, as sqlite:///sessions.db.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The store to make the same, as postgresql://host/db.")],
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what is written from then on, until stopped.")
    ] = False,
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", envvar="TURNLOG_TENANT", metavar="NAME", help="Only this tenant's; otherwise all."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the log to another store until both are level: ids, times, versions, hashes, keys; again goes on."""
    if source == target:
        raise typer.BadParameter("FROM and TO are the same store")
    whose, every = tenant or DEFAULT_TENANT, tenant is None
    with opened(source, whose) as here, opened(target, whose, create=True) as there, progress_bar("copying") as bar:
        if follow:
            report = _follow(here, there, bar, every_tenant=every)
        else:
            report = copy_log(here, there, every_tenant=every, progress=lambda progress: _show(bar, progress))
    if as_json:
        print_json(report)
        return
    what = f"{report.events:,} events of {report.sessions:,} sessions and {report.keys:,} keys"
    print_line(f"{what} are in both, up to position {report.position:,} of the source")
    say(f"copied {report.copied:,} events and {report.copied_keys:,} keys in {report.seconds:.1f} s")


def _follow(
    here: turnlog.ConversationStore, there: turnlog.ConversationStore, bar: Bar, *, every_tenant: bool
) -> CopyReport:
    """Copy until stopped; what is stopped before both are level is interrupted."""
    level = False
    with stopping() as stop:

        def go_on() -> bool:
            nonlocal level
            level = True
            return not stop

        def show(progress: CopyProgress) -> None:
            if stop and not level:
                raise KeyboardInterrupt
            _show(bar, progress)

        return copy_log(here, there, every_tenant=every_tenant, follow=go_on, progress=show)


def _show(bar: Bar, progress: CopyProgress) -> None:
    bar.update(progress.position, progress.head, f"{progress.copied:,} events copied")
