"""Values as plain dicts and lists, and what a model says about them: windows of a history, differences, repetitions."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import msgspec

from turnlog.testing.machine.commands import Said

Plain: TypeAlias = Any
"""None, bool, int, float, str, datetime, list or dict."""
OPTIONS = ("occurred_at", "command_id", "expected_version")
_STATUSES = {
    "pause": "paused",
    "complete": "completed",
    "abandon": "abandoned",
    "fail": "failed",
    "expire": "expired",
    "archive": "archived",
    "reopen": "active",
}
_NOT_COMPARED = ("id", "tenant", "version", "updated_at", "route_history")


def is_dict(value: object) -> TypeGuard[dict[str, Any]]:
    """Return whether it is a dict."""
    return isinstance(value, dict)


def is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """Return whether it is a list or a tuple."""
    return isinstance(value, (list, tuple))


def plain(value: Any) -> Plain:
    """Return a value of turnlog's as dicts and lists."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if is_dict(value):
        return {key: plain(item) for key, item in value.items()}
    if is_sequence(value):
        return [plain(item) for item in value]
    return value


def exact(value: Plain) -> str:
    """Return text that tells 1, 1.0 and True apart and does not mind the order of keys."""
    return json.dumps(value, sort_keys=True, default=str)


def same(one: Plain, other: Plain) -> bool:
    """Return whether two values are the same, to the type."""
    return exact(one) == exact(other)


def window(messages: Sequence[Mapping[str, Any]], last: int) -> list[Mapping[str, Any]]:
    """Return the newest ``last`` messages, and further ones back to the calls of the results among them."""
    start = max(0, len(messages) - last)
    while start < len(messages):
        calls = [_call_before(messages, i) for i in range(start, len(messages))]
        first = min([start, *(call for call in calls if call is not None)])
        if first == start:
            break
        start = first
    return list(messages[start:])


def fitting(messages: Sequence[Mapping[str, Any]], budget: int) -> list[Mapping[str, Any]]:
    """Return the newest ``budget`` messages, fewer where they would begin between a call and its result."""
    start = max(0, len(messages) - budget)
    while True:
        calls = {i: _call_before(messages, i) for i in range(start, len(messages))}
        parted = [i for i, call in calls.items() if call is not None and call < start]
        if not parted:
            return list(messages[start:])
        start = parted[-1] + 1


def _is_result(message: Mapping[str, Any]) -> bool:
    return message["role"] == "tool" and message["tool_call_id"] is not None


def _calls(message: Mapping[str, Any], call_id: str) -> bool:
    return any(call["id"] == call_id for call in message["tool_calls"] or ())


def _call_before(messages: Sequence[Mapping[str, Any]], i: int) -> int | None:
    """Return the place of the latest earlier call whose result stands at ``i``."""
    if not _is_result(messages[i]):
        return None
    return max((j for j in range(i) if _calls(messages[j], messages[i]["tool_call_id"])), default=None)


def differences(before: Mapping[str, Plain], after: Mapping[str, Plain], path: str = "") -> dict[str, str]:
    """Return what kind of difference there is at each dotted path; a key that is no plain name is in it as JSON."""
    found: dict[str, str] = {}
    for name in {*before, *after} - (set() if path else set(_NOT_COMPARED)):
        step = name if re.fullmatch(r"[\w-]+", name) else json.dumps(name, ensure_ascii=False)
        here = f"{path}.{step}" if path else name
        if name not in before:
            found[here] = "added"
        elif name not in after:
            found[here] = "removed"
        elif isinstance(before[name], dict) and isinstance(after[name], dict) and name not in _WHOLE:
            found.update(differences(before[name], after[name], here))
        elif not same(before[name], after[name]):
            found[here] = "changed"
    return found


_WHOLE = ("pending_transition", "forked_from")


def uniform(said: Said) -> Said:
    """Return what was said in the one form that other ways of saying it stand for."""
    kwargs = {name: value for name, value in said.kwargs.items() if value is not None and value is not False}
    unset = list(dict.fromkeys(kwargs.pop("unset", ())))
    if unset:
        kwargs["unset"] = unset
    if said.name in _STATUSES:
        return Said("set_status", (_STATUSES[said.name],), kwargs)
    if said.name == "discard":
        return Said("discard", tuple(dict.fromkeys(said.args)), kwargs)
    if said.name == "add_message":
        kwargs.setdefault("content", None)
    return said._replace(kwargs=kwargs)


def bare(parts: Iterable[Said]) -> str:
    """Return what tells one command (or turn of them) from another: all but the keywords of a write."""
    return exact(
        [
            [said.name, said.args, {name: value for name, value in said.kwargs.items() if name not in OPTIONS}]
            for said in map(uniform, parts)
        ]
    )
