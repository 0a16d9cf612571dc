"""Sessions of @falai/agent (1.x says route, 2.x says flow), from its tables ``agent_sessions`` and ``agent_messages``.

Its history stands in the session row's ``collected_data``, without ids and times; rows of messages are there only if
the application saved them, often the same messages again. Both are kept, and what stands in both is kept once.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import msgspec

from turnlog.adapters.migration.session import Found, Note, OldMessage, OldSession, OldVisit, Unreadable
from turnlog.adapters.migration.values import (
    Account,
    UnreadableValueError,
    a_list,
    an_object,
    content_of,
    decoded,
    message_of,
    role_of,
    text_or_none,
    tool_calls_of,
)
from turnlog.domain.events import Json

Row = Mapping[str, Any]

BLOB = frozenset(
    {
        "data",
        "routeHistory",
        "flowHistory",
        "history",
        "currentRouteTitle",
        "currentFlowTitle",
        "currentStepDescription",
        "metadata",
        "dataByRoute",
    }
)
"""The keys of ``collected_data`` that turnlog has a place for."""
STATUSES = frozenset({"active", "completed", "abandoned"})
_canonical = msgspec.json.Encoder(order="sorted").encode


def session_of(row: Row, messages: Iterable[Row]) -> Found:
    """Return what a row of the sessions' table and its messages' rows stand for."""
    account = Account(str(row["id"]))
    try:
        return _session(row, list(messages), account)
    except UnreadableValueError as error:
        note = Note(what="session", id=account.session_id, session_id=account.session_id, reason=str(error))
        return Unreadable(note=note)


def _session(row: Row, rows: Sequence[Row], account: Account) -> OldSession:
    blob = _blob(row, account)
    visits = _visits(a_list("the route history", blob.get("routeHistory", blob.get("flowHistory"))), account)
    history = a_list("the history", blob.get("history"))
    said = (message_of(item, f"{i} of the history", account) for i, item in enumerate(history))
    visited = {visit.route: visit for visit in visits}
    route = text_or_none(row.get("current_route")) or text_or_none(row.get("current_flow"))
    step = text_or_none(row.get("current_step"))
    if route in visited and visited[route].exited:
        account.change("route", route, "the row says that the session is there, its route history that it was left")
        route = step = None
    elif route is None and visits and not visits[-1].exited:
        route = visits[-1].route
    title = text_or_none(blob.get("currentRouteTitle")) or text_or_none(blob.get("currentFlowTitle"))
    status = _status(row, account)
    owner = _owner(row, account)
    saved = (_saved(one, owner, account) for one in rows)
    return OldSession(
        session_id=account.session_id,
        user_id=owner,
        agent=text_or_none(row.get("agent_name")),
        status=status,
        created_at=account.moment("created_at", row.get("created_at")),
        updated_at=account.moment("updated_at", row.get("updated_at")),
        completed_at=account.moment("completed_at", row.get("completed_at")) if status != "active" else None,
        data=an_object("data", blob.get("data")),
        data_by_route={
            name: an_object(f"dataByRoute.{name}", values)
            for name, values in an_object("dataByRoute", blob.get("dataByRoute")).items()
        },
        metadata=_metadata(row, blob),
        visits=tuple(_titled(visits, route, title)),
        route=route,
        route_title=title,
        step=step,
        step_description=text_or_none(blob.get("currentStepDescription")),
        messages=tuple(_together([one for one in said if one], [one for one in saved if one])),
        lost=tuple(account.lost),
        changed=tuple(account.changed),
    )


def _blob(row: Row, account: Account) -> dict[str, Json]:
    """Return what ``collected_data`` holds.

    ``updateCollectedData`` replaces all of it by what was meant to be merged: what is left then is data.
    """
    blob = an_object("collected_data", row.get("collected_data"), account)
    if blob and not BLOB & blob.keys():
        account.change("data", account.session_id, "it stands where the history was: that had been overwritten")
        return {"data": blob}
    return blob


def _owner(row: Row, account: Account) -> str | None:
    """Return the owner; 1.x wrote him as JSON, in quotes."""
    stored = text_or_none(row.get("user_id"))
    owner = _bare(stored)
    if owner != stored:
        account.change("owner", owner, f"it was stored as {stored}, in quotes")
    return owner


def _bare(owner: str | None) -> str | None:
    """Return a name without the quotes in which it may be stored."""
    if owner is None or not (owner.startswith('"') and owner.endswith('"')):
        return owner
    try:
        return text_or_none(json.loads(owner))
    except ValueError:
        return owner


def _status(row: Row, account: Account) -> str:
    status = row.get("status") or "active"
    if status not in STATUSES:
        account.change("status", status, "it is not known: the session is active")
        return "active"
    if status == "active" and row.get("completed_at"):
        account.lose("time", "completed_at", "the session was opened again: it is not completed any more")
    return str(status)


def _metadata(row: Row, blob: Mapping[str, Json]) -> dict[str, Json]:
    """Return the session's metadata, and under ``falai`` what turnlog has no place of its own for."""
    rest = {key: value for key, value in blob.items() if key not in BLOB}
    for column, key in (("pending_directive", "pendingDirective"), ("signals", "signals"), ("version", "version")):
        value = decoded(column, row.get(column))
        if value is not None:
            rest.setdefault(key, value)
    metadata = an_object("metadata", blob.get("metadata"))
    return {**metadata, **({"falai": rest} if rest else {})}


def _visits(history: Sequence[Json], account: Account) -> list[OldVisit]:
    visits: list[OldVisit] = []
    for i, item in enumerate(history):
        entry = an_object(f"entry {i} of the route history", item)
        route = text_or_none(entry.get("routeId")) or text_or_none(entry.get("flowId"))
        if route is None:
            account.lose("route", i, "an entry of the route history names none")
            continue
        exited_at = account.moment(f"exitedAt of route {route}", entry.get("exitedAt"))
        completed = entry.get("completed") is True
        visits.append(
            OldVisit(
                route=route,
                entered_at=account.moment(f"enteredAt of route {route}", entry.get("enteredAt")),
                exited_at=exited_at,
                exited=bool(entry.get("exitedAt")) or completed,
                completed=completed,
            )
        )
    return visits


def _titled(visits: Sequence[OldVisit], route: str | None, title: str | None) -> list[OldVisit]:
    if title is None or not visits or visits[-1].route != route:
        return list(visits)
    return [*visits[:-1], msgspec.structs.replace(visits[-1], title=title)]


def _saved(row: Row, owner: str | None, account: Account) -> OldMessage | None:
    """Return the message of a row; ``None``, and a note, where turnlog cannot hold it.

    Raises:
        UnreadableValueError: a column of it cannot be read.
    """
    place = str(row["id"])
    role = role_of(row.get("role"))
    if role is None:
        account.lose("message", place, f"its role is {row.get('role')!r:.40}")
        return None
    event = decoded(f"the event of message {place!r}", row.get("event"))
    user = _bare(text_or_none(row.get("user_id")))
    return OldMessage(
        role=role,
        content=content_of(row.get("content"), place, account),
        message_id=None if row["id"] is None else place,
        tool_calls=tool_calls_of(decoded(f"tool_calls of message {place!r}", row.get("tool_calls")), place, account),
        metadata={
            **({} if event is None else {"event": event}),
            **({} if user in (None, owner) else {"user_id": user}),
        },
        at=account.moment(f"of message {place}", row.get("created_at")),
        route=text_or_none(row.get("route")) or text_or_none(row.get("flow")),
        step=text_or_none(row.get("step")),
    )


def _together(history: list[OldMessage], saved: list[OldMessage]) -> list[OldMessage]:
    """Return the messages of both in one order; one that stands in both has the row's id, time and place."""
    one, other = ([(message.role, _canonical(message.content or "")) for message in side] for side in (history, saved))
    together: list[OldMessage] = []
    for kind, i, i_end, j, j_end in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if kind == "equal":
            together += [_merged(*both) for both in zip(history[i:i_end], saved[j:j_end], strict=True)]
        else:
            together += history[i:i_end] + saved[j:j_end]
    return together


def _merged(one: OldMessage, row: OldMessage) -> OldMessage:
    return msgspec.structs.replace(
        row,
        content=one.content,
        name=one.name,
        tool_calls=one.tool_calls or row.tool_calls,
        tool_call_id=one.tool_call_id,
        metadata={**row.metadata, **one.metadata},
    )
