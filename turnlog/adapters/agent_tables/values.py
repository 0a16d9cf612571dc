"""Values as @falai/agent's readers know them: the blob ``collected_data``, items of a history, roles, times."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from turnlog.domain.events import Json
from turnlog.domain.values import RouteVisit, SessionState

STATUSES: Mapping[str, str] = {
    "active": "active",
    "paused": "active",
    "completed": "completed",
    "abandoned": "abandoned",
    "failed": "abandoned",
    "expired": "abandoned",
    "archived": "abandoned",
}
"""They know three: a session takes messages, or was completed, or was closed without that."""
_ROW_ROLES = {"tool": "agent", "developer": "system"}
_HISTORY_ROLES = {"developer": "system"}
_encode = msgspec.json.Encoder().encode


class Said(msgspec.Struct, frozen=True):
    """A message on its way into the tables."""

    message_id: str
    role: str
    content: Json
    name: str | None
    tool_calls: list[dict[str, Json]] | None
    tool_call_id: str | None
    route: str | None
    step: str | None


def iso(at: datetime | None) -> str | None:
    """Return a time as ISO text of one length, which sorts as time does; UTC."""
    return None if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def naive(at: datetime | None) -> datetime | None:
    """Return a time in UTC as columns without a time zone hold it."""
    return None if at is None else at.astimezone(UTC).replace(tzinfo=None)


def text_of(content: Json) -> str:
    """Return a content as text: that of its parts, where all are text; otherwise JSON."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list):
        parts: list[Any] = [_member(part, "text") for part in cast("Sequence[Json]", content)]
        if parts and all(isinstance(part, str) for part in parts):
            return "\n".join(parts)
    return json_of(content)


def json_of(value: Json) -> str:
    """Return a value as JSON."""
    return _encode(value).decode()


def row_role(role: str) -> str:
    """Return a role as a row of a message has it: what tools say is the agent's."""
    return _ROW_ROLES.get(role, role)


def row_tool_calls(calls: Sequence[Mapping[str, Json]] | None) -> list[dict[str, Json]] | None:
    """Return the calls of a message as its row has them."""
    return None if not calls else [{"toolName": _name(call), "arguments": _arguments(call)} for call in calls]


def history_item(said: Said) -> dict[str, Json]:
    """Return a message as the history inside the blob has it."""
    item: dict[str, Json] = {"role": _HISTORY_ROLES.get(said.role, said.role)}
    match item["role"]:
        case "tool":
            item |= {"tool_call_id": said.tool_call_id or "", "name": said.name or "", "content": said.content}
        case "assistant":
            item["content"] = None if said.content is None else text_of(said.content)
            if said.tool_calls:
                item["tool_calls"] = [
                    {"id": call.get("id"), "name": _name(call), "arguments": _arguments(call)}
                    for call in said.tool_calls
                ]
        case _:
            item["content"] = text_of(said.content)
            if said.name is not None and item["role"] == "user":
                item["name"] = said.name
    return item


def reworded(item: dict[str, Json], content: Json) -> dict[str, Json]:
    """Return an item of a history with another content."""
    keeps = item["role"] == "tool" or (item["role"] == "assistant" and content is None)
    return {**item, "content": content if keeps else text_of(content)}


def blob(state: SessionState, step_description: str | None, history: str | None, *, flows: bool) -> str:
    """Return ``collected_data`` as JSON; ``history`` is a JSON array, if it is wanted; with ``flows`` it is of 2.x."""
    route = "flow" if flows else "route"
    title = state.route_history[-1].title if state.route_history and state.current_route is not None else None
    found: dict[str, Any] = {
        "data": state.data,
        f"{route}History": [_visit(visit, route) for visit in state.route_history],
        "metadata": {
            **state.metadata,
            "createdAt": iso(state.created_at),
            "lastUpdatedAt": iso(state.updated_at),
        },
    }
    if history is not None:
        found["history"] = msgspec.Raw(history.encode())
    if title is not None:
        found[f"current{route.capitalize()}Title"] = title
    if state.current_step is not None and step_description is not None:
        found["currentStepDescription"] = step_description
    return json_of(found)


def _visit(visit: RouteVisit, route: str) -> dict[str, Json]:
    found: dict[str, Json] = {
        f"{route}Id": visit.route,
        "enteredAt": iso(visit.entered_at),
        "completed": visit.completed,
    }
    return found if visit.exited_at is None else {**found, "exitedAt": iso(visit.exited_at)}


def _name(call: Mapping[str, Any]) -> str:
    return str(call.get("name") or _member(call.get("function"), "name") or "")


def _arguments(call: Mapping[str, Any]) -> Json:
    given = call.get("arguments")
    return _member(call.get("function"), "arguments") if given is None else given


def _member(value: Json, name: str) -> Json:
    return cast("dict[str, Json]", value).get(name) if isinstance(value, dict) else None
