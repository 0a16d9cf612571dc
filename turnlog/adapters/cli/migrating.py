"""``migrate``: existing sessions of other systems into a store."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from enum import StrEnum
from typing import Annotated

import typer

import turnlog
from turnlog.adapters.cli.guard import BAD, DEFAULT_TENANT, JsonOption, StoreOption, TenantOption, opened
from turnlog.adapters.cli.output import print_json, print_line, progress_bar, say
from turnlog.adapters.cli.there import is_there
from turnlog.adapters.migration import MigrationReport, Note, migrate

SHOWN = 20
"""How many of each kind of note are printed for people; --json has them."""


class Kind(StrEnum):
    """The systems that are known."""

    FALAI = "falai"
    CONFUSED_AI = "confused-ai"
    OPENAI_AGENTS = "openai-agents"


def migrate_(
    *,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="What to read, as sqlite:///agent.db or redis://host/0.")
    ],
    kind: Annotated[
        Kind | None, typer.Option("--from", help="Whose sessions, if it is not to be told by the tables.")
    ] = None,
    table: Annotated[str | None, typer.Option("--table", help="The sessions' table, if there are several.")] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", help="Of the sessions' keys in Redis.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; say what would come of it.")] = False,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Import sessions of @falai/agent, confused-ai or the OpenAI Agents SDK, and say what could not be carried over."""
    nowhere = dry_run and store is not None and not is_there(store)  # it is not made for a dry run
    opening = nullcontext(turnlog.open("memory://", tenant=tenant)) if nowhere else opened(store, tenant, create=True)
    with opening as db, progress_bar("migrating") as bar:
        report = migrate(
            db,
            source,
            kind=None if kind is None else kind.value,
            table=table,
            prefix=prefix,
            dry_run=dry_run,
            progress=lambda progress: bar.update(progress.sessions, None, f"{progress.sessions:,} sessions"),
        )
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(BAD)


def _print(report: MigrationReport) -> None:
    _say(report.notes_refused, "not imported", report.refused)
    _say(report.notes_lost, "lost", sum(report.lost.values()))
    _say(report.notes_changed, "changed", sum(report.changed.values()))
    done = "would be imported" if report.dry_run else "imported"
    came = f"{report.imported:,} {done} with {report.messages:,} messages, {report.already_there:,} there already"
    print_line(f"{report.sessions:,} sessions of {report.source}: {came}, {report.refused:,} refused")
    for words, counts in (("not carried over", report.lost), ("carried over otherwise", report.changed)):
        if counts:
            print_line(f"{words}: {_listed(counts)}")


def _say(notes: Sequence[Note], what: str, count: int) -> None:
    for note in notes[:SHOWN]:
        of = "" if note.session_id in (None, note.id) else f" of session {note.session_id}"
        say(f"{what}: {note.what} {note.id}{of}: {note.reason}")
    if count > SHOWN:
        say(f"in all {count:,} {what}; --json names them")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{what} ({count:,})" for what, count in sorted(counts.items()))
