"""``search``: messages by their words."""

import re
from typing import Annotated

import typer

from turnlog.adapters.cli.guard import DEFAULT_TENANT, JsonOption, StoreOption, TenantOption, opened
from turnlog.adapters.cli.moments import past_of
from turnlog.adapters.cli.output import print_json, print_line, say, text_of
from turnlog.adapters.cli.reading import Cursor, Limit
from turnlog.domain.values import ROLES, SearchHit
from turnlog.domain.words import Query
from turnlog.domain.words import text_of as said_in

BEFORE = 60
"""Characters shown before what was found."""
SHOWN = 200
"""Characters shown of a message."""
_CHUNK = re.compile(r"\S+")


def _known_role(role: str | None) -> str | None:
    if role is not None and role not in ROLES:
        raise typer.BadParameter(f"expected one of {', '.join(sorted(ROLES))}")
    return role


def search(
    *,
    text: Annotated[str, typer.Argument(help="Words that all have to occur; case and order do not count.")],
    user: Annotated[str | None, typer.Option("--user", help="Only in this user's sessions.")] = None,
    role: Annotated[str | None, typer.Option("--role", help="Only what this role said.", callback=_known_role)] = None,
    route: Annotated[str | None, typer.Option("--route", help="Only what was said on this route.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME|AGO", help="Said then or later, as 7d or 12h ago.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME|AGO", help="Said before then, as 7d or 12h ago.")
    ] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Search messages, the newest first."""
    begin, end = past_of("--since", since), past_of("--until", until)
    with opened(store, tenant) as db:
        page = db.search(text, user_id=user, role=role, route=route, since=begin, until=end, limit=limit, cursor=cursor)
    if as_json:
        print_json(page)
        return
    query = Query.of(text)
    for hit in page.items:
        _print_hit(hit, query)
    if page.next_cursor is not None:
        say(f"there are more: --cursor {page.next_cursor}")


def _print_hit(hit: SearchHit, query: Query) -> None:
    message = hit.message
    where = " / ".join(part for part in (message.route, message.step) if part)
    about = (hit.session_id, hit.user_id, message.role, text_of(message.occurred_at), where, message.message_id)
    print_line("  ".join(part for part in about if part), "bold")
    print_line(f"  {excerpt(said_in(message.content), query)}")


def excerpt(text: str, query: Query) -> str:
    """Return a piece of a text, on one line, in which the first of the words stands that was found."""
    found = next((chunk for chunk in _CHUNK.finditer(text) if query.touches(chunk[0])), None)
    start = 0 if found is None else max(0, found.start() - BEFORE)
    piece = " ".join(text[start : start + SHOWN].split())
    return f"{'…' if start else ''}{piece}{'…' if start + SHOWN < len(text) else ''}"
