"""Structures that callers give as dicts, checked by pydantic: messages and tool calls, and an application's data model.

Imported only when one is given: pydantic's classes take 50 ms to make.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, cast

from msgspec import structs
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

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
    return cast("list[dict[str, Json]]", copied)


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


class DataModel:
    """An application's pydantic model of the data: each given field is checked on its own, in its JSON form."""

    def __init__(self, model: object) -> None:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise InvalidInput("data_model", "expected a pydantic BaseModel class")
        self.model: type[BaseModel] = model
        self._adapters = {name: _field_adapter(field) for name, field in model.model_fields.items()}

    def values(self, field: str, values: Mapping[str, Any]) -> dict[str, Json]:
        """Check the given fields; return them in their JSON form."""
        return {name: self._value(f"{field}.{name}", name, value) for name, value in values.items()}

    def _value(self, path: str, name: str, value: object) -> Json:
        adapter = self._adapters.get(name)
        if adapter is None:
            known = ", ".join(self._adapters)
            raise InvalidInput(path, f"is not a field of {self.model.__name__}; expected one of {known}")
        checked = self._by_own_validators(path, name, value, _validate(adapter, path, value))
        return adapter.dump_python(checked, mode="json")

    def _by_own_validators(self, path: str, name: str, value: object, checked: object) -> object:
        """Run the model's own validators of this field; what they say of several fields is for ``data_as``."""
        try:
            self.model.__pydantic_validator__.validate_assignment(blank := self.model.model_construct(), name, value)
        except ValidationError as error:
            if error.errors()[0]["loc"][:1] == (name,):
                raise _invalid(path.removesuffix(f".{name}"), error) from error
            return checked
        except AttributeError:  # a validator of the whole model met a field that is not there yet
            return checked
        return getattr(blank, name)

    def missing(self, data: Mapping[str, Json]) -> tuple[str, ...]:
        """Return the required fields that ``data`` lacks, in the model's order."""
        fields = self.model.model_fields.items()
        return tuple(name for name, field in fields if field.is_required() and name not in data)

    def instance(self, data: Mapping[str, Json]) -> BaseModel:
        """Return ``data`` as the model.

        Raises:
            InvalidInput: required fields are missing, or the fields do not fit together.
        """
        try:
            return self.model.model_validate(dict(data))
        except ValidationError as error:
            raise _invalid("data", error) from error


def _field_adapter(field: FieldInfo) -> TypeAdapter[Any]:
    annotation: Any = field.annotation
    for constraint in field.metadata:
        annotation = Annotated[annotation, constraint]
    return TypeAdapter(annotation)


def _validate(adapter: TypeAdapter[Any], field: str, value: object) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise _invalid(field, error) from error


def _invalid(field: str, error: ValidationError) -> InvalidInput:
    first = error.errors(include_url=False, include_input=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    return InvalidInput(field + path, first["msg"])
