"""Sessions of the OpenAI Agents SDK's ``SQLiteSession`` and ``SQLAlchemySession``: a row for each item of a history.

Items that are no messages and no calls of functions (reasoning, calls of the provider's own tools) have no place in
turnlog's history: they are named as lost.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from turnlog.adapters.migration.session import Found, Note, OldMessage, OldSession, Unreadable
from turnlog.adapters.migration.values import (
    Account,
    UnreadableValueError,
    an_object,
    content_of,
    role_of,
    text_or_none,
)
from turnlog.domain.events import Json

Row = Mapping[str, Any]

_MESSAGE = {"role", "content", "type"}
_CALL = {"type", "call_id", "name", "arguments"}
_OUTPUT = {"type", "call_id", "output"}
_EMPTY = ("annotations", "logprobs")
"""What a part of plain text may have, if there is nothing in it."""
_TEXTS = {"input_text", "output_text", "text"}


def session_of(row: Row, items: Iterable[Row]) -> Found:
    """Return what a row of the sessions' table and the rows of its items stand for."""
    session_id = str(row["session_id"])
    account = Account(session_id)
    try:
        said = [_message(item, account) for item in items]
    except UnreadableValueError as error:
        return Unreadable(note=Note(what="session", id=session_id, session_id=session_id, reason=str(error)))
    return OldSession(
        session_id=session_id,
        created_at=account.moment("created_at", row.get("created_at")),
        updated_at=account.moment("updated_at", row.get("updated_at")),
        messages=tuple(one for one in said if one is not None),
        lost=tuple(account.lost),
        changed=tuple(account.changed),
    )


def _message(row: Row, account: Account) -> OldMessage | None:
    place = str(row["id"])
    item = an_object(f"item {place}", row["message_data"], account)
    at = account.moment(f"of item {place}", row.get("created_at"))
    match item.get("type", "message"):
        case "message" if (role := role_of(item.get("role"))) is not None:
            return OldMessage(
                role=role,
                content=_text(content_of(item.get("content"), place, account)),
                metadata=_rest(item, _MESSAGE),
                at=at,
            )
        case "function_call":
            call = {
                "id": str(item.get("call_id")),
                "name": item.get("name"),
                "arguments": _arguments(item, account, place),
            }
            return OldMessage(role="assistant", content=None, tool_calls=[call], metadata=_rest(item, _CALL), at=at)
        case "function_call_output":
            return OldMessage(
                role="tool",
                content=_text(content_of(item.get("output"), place, account)),
                tool_call_id=text_or_none(item.get("call_id")),
                metadata=_rest(item, _OUTPUT),
                at=at,
            )
        case kind:
            account.lose(f"item of type {kind}", place, "turnlog's history has no place for it")
            return None


def _rest(item: Mapping[str, Json], known: set[str]) -> dict[str, Json]:
    """Return the fields of an item that a message has no place for."""
    return {key: value for key, value in item.items() if key not in known and value is not None}


def _text(content: Json) -> Json:
    """Return the text of a content that is one part of plain text; other contents as they are."""
    if not isinstance(content, list):
        return content
    parts = list(cast("Sequence[Json]", content))
    return parts if len(parts) != 1 or (text := _plain(parts[0])) is None else text


def _plain(part: Json) -> str | None:
    """Return the text of a part that says nothing else."""
    given = cast("dict[str, Json]", part) if isinstance(part, dict) else {}
    if given.get("type") not in _TEXTS or not given.keys() <= {"type", "text", *_EMPTY}:
        return None
    text = given.get("text")
    return text if isinstance(text, str) and not any(given.get(name) for name in _EMPTY) else None


def _arguments(item: Mapping[str, Json], account: Account, place: str) -> Json:
    """Return the arguments of a call, which are JSON in text; what is none is kept as it is."""
    given = item.get("arguments")
    try:
        return an_object("arguments", given) if isinstance(given, str) else given
    except UnreadableValueError as error:
        account.change("tool call", place, f"{error}: they are kept as text")
        return given
