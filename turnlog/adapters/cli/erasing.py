"""``delete``, ``erase``, ``scrub``: what is not to be there any more."""

import re
import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from turnlog.adapters.cli.guard import (
    BAD,
    DEFAULT_TENANT,
    JsonOption,
    SessionArgument,
    StoreOption,
    TenantOption,
    opened,
)
from turnlog.adapters.cli.output import print_json, print_line, say, shown

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def delete(
    *,
    session: SessionArgument,
    yes: Yes = False,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Erase a session's content for ever; that it was there, and when, stays proven."""
    with opened(store, tenant) as db:
        handle = db.get(session)
        _ask(f"Erase all {handle.version} events of session {session!r} for ever?", yes=yes)
        receipt = handle.delete()
    if as_json:
        print_json(receipt)
        return
    print_line(f"session {session} is deleted")
    if receipt.erasure is not None:
        _say_pending(receipt.erasure.pending)


def erase(
    *,
    user: Annotated[str, typer.Option("--user", help="Whose sessions.")],
    yes: Yes = False,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Erase everything of a user for ever: all sessions, and forks of them."""
    with opened(store, tenant) as db:
        _ask(f"Erase all sessions of user {user!r} for ever?", yes=yes)
        report = db.erase_user(user)
    if as_json:
        print_json(report)
        return
    print_line(
        f"erased {report.sessions} sessions of user {user} ({report.forks} of them forks): {report.events} events"
    )
    _say_pending(report.pending)


def scrub(
    *,
    vacuum: Annotated[
        bool, typer.Option("--vacuum/--no-vacuum", help="Rewrite the whole file; without, free pages may keep copies.")
    ] = True,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Destroy what physically still holds erased content; exit 1 if some of it could not be reached."""
    with opened(store, tenant) as db:
        result = db.scrub(vacuum=vacuum)
    if as_json:
        print_json(result)
    elif result.complete:
        print_line("nothing is left of what was erased")
    else:
        _say_pending(result.pending)
    if not result.complete:
        raise typer.Exit(BAD)


def _ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    print(f"{shown(question)} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201 - a prompt
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        say("nothing was done")
        raise typer.Exit(BAD)


def _say_pending(pending: Iterable[str]) -> None:
    for words in pending:
        say(f"still to be scrubbed: {_as_commands(words)}")


def _as_commands(words: str) -> str:
    """Name the command where the words, written for Python, name the method."""
    return re.sub(r"(store\.)?scrub\((vacuum=True)?\)", "`turnlog scrub`", words)
