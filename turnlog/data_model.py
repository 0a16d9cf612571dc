"""An application's pydantic model of a session's data: checks each given field, and keeps it in its JSON form.

Imported only when a model is given, as structures.py.
"""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from pydantic import AliasChoices, BaseModel, RootModel, ValidationError
from pydantic_core import SchemaValidator, core_schema

from turnlog import inputs
from turnlog.domain.errors import InvalidInput
from turnlog.domain.events import Json
from turnlog.structures import invalid, step

_BY_NAME: Any = {"by_name": True, "by_alias": False}
_TO_JSON: Any = {"mode": "json", "by_alias": False, "round_trip": True, "warnings": False}


class DataModel:
    """An application's pydantic model of the data: each given field is checked and stored in its JSON form.

    Fields are given by name or alias and kept by name. What the model says of one field holds: type, validators,
    configuration, serializers. A validator finds in ``info.data`` the fields given with it; one that needs others
    refuses. What the model says of the whole (validators, defaults, ``frozen``) is left to ``instance``.

    What is stored reads back as what was given, so a value is refused where its JSON form says something else: NaN; a
    set, a tuple or a date in an ``Any``; a ``SecretStr``, unless a serializer of the model reveals it; what serializers
    round or leave out; what a validator changes anew each time. A key that a nested model would drop is refused like an
    unknown field, unless that model sets ``extra`` itself.
    """

    def __init__(self, model: object) -> None:
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or issubclass(model, RootModel):
            raise InvalidInput("data_model", "expected a pydantic BaseModel class, with fields")
        self.model: type[BaseModel] = model
        try:
            self._fields = _fields_alone(model)
        except Exception as error:
            raise InvalidInput(
                "data_model", f"pydantic cannot build {model.__name__} ({type(error).__name__})"
            ) from error

    def values(self, field: str, values: Mapping[str, Any]) -> dict[str, Json]:
        """Check the given fields; return them by name, in their JSON form."""
        given = self._by_name(field, values)
        made = _checked(field, given, lambda some: self._fields.validate_python(some, by_alias=True, by_name=True))
        forms = self._json_forms(field, made)
        try:
            again = _checked(field, forms, lambda some: self._fields.validate_json(json.dumps(some), **_BY_NAME))
        except InvalidInput as error:
            raise InvalidInput(error.field, f"its JSON form cannot be read back: {error.expected}") from error
        for name in given:
            with _failing(f"{field}.{name}", "cannot be compared with what its JSON form reads back as"):
                _require_same(f"{field}.{name}", made[name], again[name], forms[name])
                _require_known(f"{field}.{name}", given[name], made[name])
        return {name: forms[name] for name in given}

    def missing(self, data: Mapping[str, Json]) -> tuple[str, ...]:
        """Return the required fields that ``data`` lacks, in the model's order."""
        fields = self.model.model_fields.items()
        return tuple(name for name, field in fields if field.is_required() and name not in data)

    def instance(self, data: Mapping[str, Json]) -> BaseModel:
        """Return ``data`` as the model.

        Raises:
            InvalidInput: required fields are missing, or the fields do not fit together.
        """
        with _failing("data", f"{self.model.__name__} cannot be made of it"):
            return self.model.model_validate_json(json.dumps(data), **_BY_NAME)

    def _by_name(self, field: str, values: Mapping[str, Any]) -> dict[str, Any]:
        names = _names(self.model)
        given: dict[str, Any] = {}
        for key, value in values.items():
            name = names.get(key)
            if name is None:
                raise _no_field(f"{field}.{key}", self.model)
            if name in given:
                raise InvalidInput(f"{field}.{key}", f"expected {name} once, by its name or by an alias")
            given[name] = value
        return given

    def _json_forms(self, field: str, made: dict[str, Any]) -> dict[str, Json]:
        """Return the fields as the model writes them; its serializers may look at ``self``."""
        partial = object.__new__(self.model)
        BaseModel.__setstate__(partial, {"__dict__": dict(made), "__pydantic_fields_set__": set(made)})
        forms: dict[str, Json] = {}
        for name in made:
            with _failing(f"{field}.{name}", "the model gives it no JSON form"):
                dumped = BaseModel.model_dump(partial, include={name}, **_TO_JSON)
                forms[name] = inputs.json_value(f"{field}.{name}", dumped[name])
        return forms


def _fields_alone(model: type[BaseModel]) -> SchemaValidator:
    """Return a validator of any of the model's fields: none is required, has a default or is frozen."""
    model.model_rebuild()
    schema: Any = model.__pydantic_core_schema__
    config: Any = None
    definitions: list[Any] = []
    while schema["type"] != "model-fields":
        config = schema.get("config", config)
        definitions = schema.get("definitions", definitions)
        inner = schema.get("schema")
        schema = inner or next(one for one in definitions if one["ref"] == schema["schema_ref"])
    fields = {name: _without_default(field["schema"]) for name, field in schema["fields"].items()}
    some = core_schema.typed_dict_schema(
        {name: core_schema.typed_dict_field(field, required=False) for name, field in fields.items()}, config=config
    )
    return SchemaValidator(core_schema.definitions_schema(some, definitions))


def _without_default(schema: Any) -> Any:
    return schema["schema"] if schema["type"] == "default" else schema


def _names(model: type[BaseModel]) -> dict[str, str]:
    """Return the names of the model's fields by what they may be given as: their aliases and, first, their names."""
    names: dict[str, str] = {}
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        names |= {choice: name for choice in choices if isinstance(choice, str)}
    return names | {name: name for name in model.model_fields}


def _checked(field: str, values: dict[str, Any], check: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Return ``check(values)``; where a validator raises what pydantic does not take for a refusal, find out whose."""
    try:
        return cast("dict[str, Any]", check(values))
    except ValidationError as error:
        raise invalid(field, error) from error
    except Exception as error:
        *before, last = values
        _checked(field, {name: values[name] for name in before}, check)
        raise InvalidInput(f"{field}.{last}", f"a validator of the model raised {type(error).__name__}") from error


def _require_same(path: str, one: Any, other: Any, form: Any) -> None:
    """Refuse a value that reads back from its JSON form as another, naming the place; models are compared by field."""
    parts, others, forms = _parts(one), _parts(other), _parts(form)
    if type(one) is type(other):
        same = parts.keys() == others.keys() and (bool(parts) or one == other)
        became = "another"
    else:  # a str may read back as the date of a `date | str`: it is JSON itself, so nothing is lost
        same = not parts and type(one) is type(form) and one == form
        became = type(other).__name__
    if not same:
        raise InvalidInput(path, f"expected what JSON holds unchanged; this {type(one).__name__} would become {became}")
    for key, part in parts.items():
        _require_same(path + step(key), part, others[key], forms.get(key))


def _require_known(path: str, given: Any, made: Any) -> None:
    """Refuse a key that a nested model dropped, unless that model says itself what to do with such keys."""
    if isinstance(made, RootModel):
        return _require_known(path, given, vars(made)["root"])
    names: dict[Any, Any] = {}
    keys, parts = _parts(given), _parts(made)
    if isinstance(made, BaseModel) and isinstance(given, Mapping):
        names = dict(_names(type(made)))
        unknown = [key for key in keys if key not in names]
        dropped = len(made.model_fields_set) < len(keys)  # not so where a validator or a longer alias took it
        if unknown and dropped and "extra" not in made.model_config:
            raise _no_field(f"{path}.{unknown[0]}", type(made))
    for key, part in keys.items():
        if (name := names.get(key, key)) in parts:
            _require_known(path + step(key), part, parts[name])
    return None


def _parts(value: Any) -> dict[Any, Any]:
    """Return what a value is made of, by name, key or index; nothing where it is one piece."""
    if isinstance(value, BaseModel):
        fields: dict[Any, Any] = {name: vars(value).get(name) for name in type(value).model_fields}
        return fields | (value.model_extra or {})
    if isinstance(value, Mapping):
        return dict(cast("Any", value))
    if isinstance(value, (list, tuple)):
        return dict(enumerate(cast("list[Any]", value)))
    return {}


def _no_field(path: str, model: type[BaseModel]) -> InvalidInput:
    return InvalidInput(path, f"is not a field of {model.__name__}; expected one of {', '.join(model.model_fields)}")


@contextmanager
def _failing(field: str, message: str) -> Generator[None]:
    """Translate whatever pydantic, or the model's own code, raises."""
    try:
        yield
    except InvalidInput:
        raise
    except ValidationError as error:
        raise invalid(field, error) from error
    except Exception as error:
        raise InvalidInput(field, f"{message} ({type(error).__name__})") from error
