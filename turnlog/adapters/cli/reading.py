"""``sessions``, ``show``, ``history``, ``users``, ``stats``: what is in the store."""

from typing import Annotated

import msgspec
import typer

from turnlog.adapters.cli.guard import DEFAULT_TENANT, JsonOption, SessionArgument, StoreOption, TenantOption, opened
from turnlog.adapters.cli.moments import moment_of, past_of
from turnlog.adapters.cli.output import (
    json_of,
    print_block,
    print_fields,
    print_json,
    print_line,
    print_table,
    say,
    text_of,
)
from turnlog.domain.values import STATUSES, Message, SessionSummary

Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many at most.")]
Cursor = Annotated[str | None, typer.Option("--cursor", help="Go on where a page ended.")]
At = Annotated[str | None, typer.Option("--at", metavar="VERSION|TIME", help="As it was then (times with offset).")]


def _known_status(status: str | None) -> str | None:
    if status is not None and status not in STATUSES:
        raise typer.BadParameter(f"expected one of {', '.join(sorted(STATUSES))}")
    return status


def sessions(
    *,
    user: Annotated[str | None, typer.Option("--user", help="Only this user's.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="Only this agent's.")] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="Only those with this status.", callback=_known_status)
    ] = None,
    route: Annotated[str | None, typer.Option("--route", help="Only those on this route now.")] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME|AGO", help="Last changed before then, as 7d or 12h ago.")
    ] = None,
    newer_than: Annotated[
        str | None, typer.Option("--newer-than", metavar="TIME|AGO", help="Last changed after then, as 7d or 12h ago.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """List sessions, the last changed first."""
    older, newer = past_of("--older-than", older_than), past_of("--newer-than", newer_than)
    with opened(store, tenant) as db:
        page = db.sessions(
            user_id=user,
            agent=agent,
            status=status,
            route=route,
            older_than=older,
            newer_than=newer,
            limit=limit,
            cursor=cursor,
        )
    if as_json:
        print_json(page)
        return
    headers = ("SESSION", "USER", "AGENT", "STATUS", "ROUTE", "STEP", "MESSAGES", "UPDATED")
    print_table(
        headers, map(_cells, page.items), spare=("STEP", "ROUTE", "AGENT", "MESSAGES", "UPDATED", "STATUS", "USER")
    )
    _say_more(page.next_cursor)


def _cells(row: SessionSummary) -> tuple[object, ...]:
    where = (row.current_route, row.current_step)
    return (row.session_id, row.user_id, row.agent, row.status, *where, row.message_count, row.updated_at)


def show(
    *,
    session: SessionArgument,
    at: At = None,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Show a session: everything but its messages."""
    moment = moment_of("--at", at)
    with opened(store, tenant) as db:
        handle = db.get(session)
        match moment:
            case None:
                state = handle.state
            case int():
                state = handle.at(version=moment)
            case _:
                state = handle.at(time=moment)
    if as_json:
        print_json(state)
        return
    fields = msgspec.structs.asdict(state)
    visits = fields.pop("route_history")
    print_fields((name.replace("_", " "), value) for name, value in fields.items() if value is not False)
    if visits:
        print_line("")
        print_line("routes, as they were visited", "bold")
        headers = ("ROUTE", "TITLE", "ENTERED", "EXITED", "COMPLETED")
        print_table(
            headers,
            ((visit.route, visit.title, visit.entered_at, visit.exited_at, visit.completed) for visit in visits),
        )


def history(
    *,
    session: SessionArgument,
    last: Annotated[int | None, typer.Option("--last", min=1, help="Only the newest N messages.")] = None,
    before: Annotated[
        str | None, typer.Option("--before", metavar="MESSAGE", help="Only those older than this message.")
    ] = None,
    at: At = None,
    include_removed: Annotated[
        bool, typer.Option("--include-removed", help="Everything ever said, removed messages too.")
    ] = False,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Show a session's messages, oldest first. With --json one message is one line."""
    moment = moment_of("--at", at)
    with opened(store, tenant) as db:
        found = db.get(session).history(last=last, before=before, at=moment, include_removed=include_removed)
    for message in found:
        if as_json:
            print_json(message)
        else:
            _print_message(message)


def _print_message(message: Message) -> None:
    where = " / ".join(part for part in (message.route, message.step) if part)
    about = (message.role, message.name, text_of(message.occurred_at), where, message.message_id)
    print_line("  ".join(part for part in about if part), "bold")
    for call in message.tool_calls or ():
        print_line(f"  calls {text_of(call)}", "dim")
    if isinstance(message.content, str):
        print_block("  ", "  ", message.content)
    elif message.content is not None:
        print_line(f"  {json_of(message.content)}")


def users(
    *,
    limit: Limit = 50,
    cursor: Cursor = None,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """List users with how many sessions and messages they have."""
    with opened(store, tenant) as db:
        page = db.users(limit=limit, cursor=cursor)
    if as_json:
        print_json(page)
        return
    rows = ((row.user_id, row.sessions, row.messages, row.updated_at) for row in page.items)
    print_table(("USER", "SESSIONS", "MESSAGES", "UPDATED"), rows, spare=("UPDATED", "SESSIONS", "MESSAGES"))
    _say_more(page.next_cursor)


def stats(*, store: StoreOption = None, tenant: TenantOption = DEFAULT_TENANT, as_json: JsonOption = False) -> None:
    """Count sessions, events, messages and users, and show how far the views are."""
    with opened(store, tenant) as db:
        found = db.stats()
    if as_json:
        print_json(found)
        return
    fields = msgspec.structs.asdict(found)
    views = fields.pop("views")
    print_fields((name.replace("_", " "), value) for name, value in fields.items())
    print_line("")
    rows = ((view.name, view.revision, view.position, view.lag, view.parked) for view in views)
    print_table(("VIEW", "REVISION", "POSITION", "BEHIND", "PARKED"), rows)


def _say_more(next_cursor: str | None) -> None:
    if next_cursor is not None:
        say(f"there are more: --cursor {next_cursor}")
