"""``replay``, ``diff``, ``fork``: what happened, and going on from there."""

import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer

from turnlog.adapters.cli.guard import DEFAULT_TENANT, JsonOption, SessionArgument, StoreOption, TenantOption, opened
from turnlog.adapters.cli.moments import moment_of
from turnlog.adapters.cli.output import json_of, precise_of, print_block, print_json, print_line, text_of
from turnlog.domain.events import Erased
from turnlog.domain.values import Change, RecordedEvent, Step
from turnlog.past import compare

_MARKS = {"added": "+", "removed": "-", "changed": "~"}


def replay(
    *,
    session: SessionArgument,
    to: Annotated[int | None, typer.Option("--to", min=1, metavar="VERSION", help="Stop after this version.")] = None,
    step: Annotated[bool, typer.Option("--step", help="Wait for Enter after each event; q and Enter ends.")] = False,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Show each event of a session with the change it made. With --json one event is one line."""
    with opened(store, tenant) as db:
        for one in db.get(session).replay():
            if to is not None and one.event.version > to:
                break
            _print_step(one, as_json=as_json)
            if step and not _next_wanted():
                break


def _print_step(step: Step, *, as_json: bool) -> None:
    changes = compare(step.before, step.after).changes
    if as_json:
        print_json({"event": step.event, "changes": changes})
        return
    event = step.event
    who = f"by {event.actor}" if event.actor else ""
    about = (f"{event.version:>4}", text_of(event.occurred_at), event.topic.partition(".")[0], who)
    print_line("  ".join(part for part in about if part), "bold")
    for name, value in _fields(event):
        if isinstance(value, str):
            print_block(f"        {name}: ", "          ", value)
        else:
            print_line(f"        {name}: {text_of(value)}")
    _print_changes(changes, "      ")


def _fields(event: RecordedEvent) -> Iterable[tuple[str, Any]]:
    if isinstance(event.event, Erased):
        return [("content", "erased")]
    return [(name, value) for name, value in msgspec.structs.asdict(event.event).items() if value not in (None, {}, ())]


def _print_changes(changes: Iterable[Change], indent: str = "") -> None:
    styles = {"added": "green", "removed": "red", "changed": "yellow"}
    for change in changes:
        before, after = _values(change)
        what = {"added": after, "removed": before, "changed": f"{before} → {after}"}[change.kind]
        print_line(f"{indent}{_MARKS[change.kind]} {change.path}: {what}", styles[change.kind])


def _values(change: Change) -> tuple[str, str]:
    """Return both values as people read them: those of the application as JSON, times so that they differ."""
    before, after = change.before, change.after
    if "." in change.path:
        return json_of(before), json_of(after)
    texts = text_of(before) or "nothing", text_of(after) or "nothing"
    if isinstance(before, datetime) and isinstance(after, datetime) and texts[0] == texts[1]:
        return precise_of(before, after)
    return texts


def _next_wanted() -> bool:
    """Wait for a line; return whether to go on. The end of the input ends the replay."""
    sys.stdout.flush()
    if sys.stdin.isatty():
        print("Enter: next event; q: end ", end="", file=sys.stderr, flush=True)  # noqa: T201 - a prompt
    line = sys.stdin.readline()
    return bool(line) and line.strip().lower() not in ("q", "quit")


def diff(
    *,
    session: SessionArgument,
    from_version: Annotated[int, typer.Argument(metavar="FROM", min=0, help="The earlier version; 0 is nothing.")],
    to_version: Annotated[int, typer.Argument(metavar="TO", min=0, help="The later version.")],
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Show what changed in a session between two versions."""
    with opened(store, tenant) as db:
        found = db.get(session).diff(from_version, to_version)
    if as_json:
        print_json(found)
        return
    _print_changes(found.changes)


def fork(
    *,
    session: SessionArgument,
    new_id: Annotated[str | None, typer.Option("--id", metavar="SESSION", help="The new session's id.")] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="VERSION|TIME", help="Take what was there then (times with offset).")
    ] = None,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Begin a new session with what happened in this one until now, or until --at; print its id."""
    moment = moment_of("--at", at)
    with opened(store, tenant) as db:
        forked = db.get(session).fork(new_id, at=moment)
        state = forked.state
    if as_json:
        print_json({"session_id": state.id, "version": state.version, "forked_from": state.forked_from})
        return
    print_line(state.id)
