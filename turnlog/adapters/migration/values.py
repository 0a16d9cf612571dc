"""Values as the other systems wrote them: times of every kind, JSON in text, messages of several shapes."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from turnlog.adapters.migration.session import Note, OldMessage
from turnlog.domain.events import Json
from turnlog.domain.values import ROLES

FIRST_MILLISECONDS = 100_000_000_000
"""A whole number from here on is milliseconds since 1970, below it seconds (until the year 5138)."""
_NUMBER = re.compile(r"-?\d{1,15}(\.\d+)?|\d{9,}", re.ASCII)
_ROLES = {"agent": "tool", "function": "tool", "human": "user", "ai": "assistant", "model": "assistant"}
"""Roles that turnlog calls otherwise."""
_MESSAGE_ID = ("id", "message_id", "messageId")
_TOOL_CALL_ID = ("tool_call_id", "toolCallId")
_TOOL_CALLS = ("tool_calls", "toolCalls")
_NAME = ("name", "toolName")
_AT = ("createdAt", "created_at", "timestamp")
_TAKEN = {"role", "content", *_MESSAGE_ID, *_TOOL_CALL_ID, *_TOOL_CALLS, *_NAME, *_AT}


class UnreadableValueError(ValueError):
    """A stored value is not what it has to be; the message names it."""


class Account:
    """Takes notes about one session."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.lost: list[Note] = []
        self.changed: list[Note] = []

    def lose(self, what: str, id_: object, reason: str) -> None:
        """Note that something is not carried over."""
        self.lost.append(Note(what=what, id=str(id_), session_id=self.session_id, reason=reason))

    def change(self, what: str, id_: object, reason: str) -> None:
        """Note that something is carried over otherwise than it stood there."""
        self.changed.append(Note(what=what, id=str(id_), session_id=self.session_id, reason=reason))

    def moment(self, what: str, value: object) -> datetime | None:
        """Return a time; one that cannot be read is noted and left out."""
        try:
            return moment(value)
        except UnreadableValueError as error:
            self.lose("time", what, str(error))
            return None


def moment(value: object) -> datetime | None:
    """Return a time: a datetime, seconds or milliseconds since 1970, or ISO 8601; without an offset it is UTC.

    Raises:
        UnreadableValueError: it is none of these.
    """
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str):
            return moment(float(value)) if _NUMBER.fullmatch(value) else _utc(datetime.fromisoformat(value))
        if isinstance(value, datetime):
            return _utc(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if abs(value) >= FIRST_MILLISECONDS else value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise UnreadableValueError(f"{value!r:.60} is no time")


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.utcoffset() is None else value.astimezone(UTC)


def decoded(what: str, value: object, account: Account | None = None) -> Json:
    """Return JSON that stands in a column as text, or as the driver has decoded it.

    Text that JavaScript has cut in the middle of a character is mended, where there is an ``account`` to note it in.

    Raises:
        UnreadableValueError: it is not JSON.
    """
    if isinstance(value, (str, bytes)):
        try:
            return msgspec.json.decode(value)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            mended = None if account is None else _without_halves(value)
            if account is None or mended is None:
                raise UnreadableValueError(f"{what} is no JSON ({error})") from error
            account.change("text", what, "a character in it was cut in half: U+FFFD stands in its place")
            return msgspec.json.decode(mended)
    return value


def _without_halves(value: str | bytes) -> bytes | None:
    """Return JSON with U+FFFD for each surrogate that stands alone; ``None`` if it is no JSON even so."""
    try:
        found = json.loads(value)
        text = json.dumps(found, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def an_object(what: str, value: object, account: Account | None = None) -> dict[str, Json]:
    """Return a JSON object; none where there is none. ``account`` as in ``decoded``.

    Raises:
        UnreadableValueError: it is something else.
    """
    found = decoded(what, value, account)
    if found is None:
        return {}
    if isinstance(found, dict):
        return cast("dict[str, Json]", found)
    raise UnreadableValueError(f"{what} is no JSON object")


def a_list(what: str, value: object, account: Account | None = None) -> list[Json]:
    """Return a JSON array; an empty one where there is none. ``account`` as in ``decoded``.

    Raises:
        UnreadableValueError: it is something else.
    """
    found = decoded(what, value, account)
    if found is None:
        return []
    if isinstance(found, list):
        return list(cast("Sequence[Json]", found))
    raise UnreadableValueError(f"{what} is no JSON array")


def text_or_none(value: object) -> str | None:
    """Return text that is not empty."""
    return value if isinstance(value, str) and value else None


def message_of(item: Json, place: str, account: Account) -> OldMessage | None:
    """Return a message of a history; ``None``, and a note, where turnlog cannot hold it.

    ``place`` is what it is called in notes, if it has no id.
    """
    if not isinstance(item, dict):
        account.lose("message", place, "it is no JSON object")
        return None
    given = cast("dict[str, Json]", item)
    message_id = text_or_none(_first(given, _MESSAGE_ID))
    role = role_of(given.get("role"))
    if role is None:
        account.lose("message", message_id or place, f"its role is {given.get('role')!r:.40}")
        return None
    return OldMessage(
        role=role,
        content=content_of(given.get("content"), message_id or place, account),
        message_id=message_id,
        name=text_or_none(_first(given, _NAME)),
        tool_calls=tool_calls_of(_first(given, _TOOL_CALLS), message_id or place, account),
        tool_call_id=text_or_none(_first(given, _TOOL_CALL_ID)),
        metadata={key: value for key, value in given.items() if key not in _TAKEN},
        at=account.moment(f"of message {message_id or place}", _first(given, _AT)),
    )


def role_of(value: Json) -> str | None:
    """Return the role as turnlog calls it; ``None`` if it has none such."""
    role = _ROLES.get(value, value) if isinstance(value, str) else None
    return role if role in ROLES else None


def content_of(value: Json, place: str, account: Account) -> Json:
    """Return a content: text, a list of parts or null; anything else as JSON in text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return list(cast("Sequence[Json]", value))
    account.change("message", place, "its content is no text: it is kept as JSON in text")
    return json.dumps(value, ensure_ascii=False)


def tool_calls_of(value: Json, place: str, account: Account) -> list[dict[str, Json]] | None:
    """Return the calls inside a message, each with an id and under the name ``name``."""
    if not value:
        return None
    if not isinstance(value, list):
        account.lose("tool calls", place, "they are no list")
        return None
    calls: list[dict[str, Json]] = []
    for i, one in enumerate(cast("Sequence[Json]", value)):
        if not isinstance(one, dict):
            account.lose("tool call", f"{place}, number {i}", "it is no JSON object")
            continue
        call = dict(cast("dict[str, Json]", one))
        if "toolName" in call:
            call["name"] = call.pop("toolName")
        calls.append({"id": f"call_{i}", **call} if not text_or_none(call.get("id")) else call)
    return calls or None


def _first(given: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((given[name] for name in names if given.get(name) is not None), None)
