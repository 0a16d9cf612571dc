"""Structures that callers give as dicts, checked by pydantic: messages and tool calls.

Imported only when one is given: pydantic's classes take 50 ms to make.
"""

from datetime import datetime
from typing import Any, cast

from msgspec import structs
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from turnlog import inputs
from turnlog.domain.errors import InvalidInput
from turnlog.domain.events import Json, ReplacementMessage
from turnlog.domain.values import Message


class ToolCall(BaseModel):
    """One call inside an assistant's message; further keys are kept as they are."""

    model_config = ConfigDict(strict=True, extra="allow")

    id: str
    name: str | None = None
    arguments: Any = None


class GivenMessage(BaseModel):
    """One message given as a dict."""

    model_config = ConfigDict(strict=True, extra="forbid")

    role: str
    content: Any = None
    message_id: str | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    metadata: dict[str, Any] | None = None
    occurred_at: datetime | None = None
    recorded_at: datetime | None = None
    version: int | None = None
    route: str | None = None
    step: str | None = None


_tool_calls = TypeAdapter(list[ToolCall])
_message = TypeAdapter(GivenMessage)


def tool_calls(field: str, value: object) -> list[dict[str, Json]]:
    """Check a list of tool calls: each a dict with an ``id``, a ``name`` (or a ``function``) and ``arguments``."""
    copied = inputs.json_value(field, value)
    _validate(_tool_calls, field, copied)
    calls = cast("list[dict[str, Json]]", copied)
    for i, call in enumerate(calls):  # what answers it names it
        inputs.identifier(f"{field}[{i}].id", call["id"])
    return calls


def message(field: str, value: object, new_id: Any) -> ReplacementMessage:
    """Check one message, a dict or a ``Message``; one without an id gets one."""
    fields = structs.asdict(value) if isinstance(value, Message) else inputs.mapping(field, value)
    _validate(_message, field, fields)
    given = fields.get
    message_id = given("message_id")
    return ReplacementMessage(
        message_id=new_id() if message_id is None else inputs.identifier(f"{field}.message_id", message_id),
        role=inputs.role(f"{field}.role", given("role")),
        content=inputs.content(f"{field}.content", given("content")),
        name=inputs.optional(inputs.text, f"{field}.name", given("name")),
        tool_calls=inputs.optional(tool_calls, f"{field}.tool_calls", given("tool_calls")),
        tool_call_id=inputs.optional(inputs.identifier, f"{field}.tool_call_id", given("tool_call_id")),
        metadata=inputs.optional(inputs.json_object, f"{field}.metadata", given("metadata")),
        route=inputs.optional(inputs.text, f"{field}.route", given("route")),
        step=inputs.optional(inputs.text, f"{field}.step", given("step")),
        occurred_at=inputs.optional(inputs.when, f"{field}.occurred_at", given("occurred_at") or given("recorded_at")),
    )


def messages(field: str, value: object, new_id: Any) -> tuple[ReplacementMessage, ...]:
    """Check a list of messages."""
    return tuple(message(f"{field}[{i}]", item, new_id) for i, item in enumerate(inputs.sequence(field, value)))


def _validate(adapter: TypeAdapter[Any], field: str, value: object) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise invalid(field, error) from error


def invalid(field: str, error: ValidationError) -> InvalidInput:
    """Return the first of pydantic's refusals as ours, without the value."""
    first = error.errors(include_url=False, include_input=False)[0]
    context = first.get("ctx", {})
    tags = context.get("expected_tags") if first["type"] == "union_tag_invalid" else None  # its words quote the value
    expected = f"expected {context['discriminator']} to be one of {tags}" if tags else first["msg"]
    return InvalidInput(field + "".join(map(step, first["loc"])), expected)


def step(part: object) -> str:
    """Return how a path goes on to a part: an index or a key."""
    return f"[{part}]" if isinstance(part, int) else f".{part}"
