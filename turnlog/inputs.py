"""The edge: what callers give is checked and copied here, once, before anything else sees it.

Every function takes the field's name for the message of ``InvalidInput``. Structures (messages, tool calls) are checked
by pydantic in structures.py, which is imported only when one is given.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any, TypedDict, TypeVar, cast
from unicodedata import category

from turnlog.domain.errors import InvalidInput
from turnlog.domain.events import Json
from turnlog.domain.values import ROLES, RUN_STATUSES, STATUSES

MAX_ID_LENGTH = 255
MAX_DEPTH = 64
MAX_LIMIT = 10_000
MAX_INT_BITS = 4_096
LARGEST = 2**63 - 1
"""The largest version, position or count."""
_EXPECTED = "expected str, bool, int, finite float, None, list or dict with str keys"

T = TypeVar("T")


class WriteOptions(TypedDict, total=False):
    """The keywords every write takes.

    ``occurred_at``: when it happened, if not now (aware). ``actor``, ``correlation_id``, ``causation_id``: ids for the
    audit. ``command_id``: makes the write idempotent. ``expected_version``: refuse with ``ConcurrencyConflict`` unless
    the session is at this version.
    """

    occurred_at: datetime | None
    actor: str | None
    correlation_id: str | None
    causation_id: str | None
    command_id: str | None
    expected_version: int | None


OPTIONS = frozenset(WriteOptions.__annotations__)


def identifier(field: str, value: object) -> str:
    """Return an id: 1 to 255 characters, none of them a control character or a lone surrogate."""
    if type(value) is not str:
        raise InvalidInput(field, f"expected a str of 1 to {MAX_ID_LENGTH} characters, got {_kind(value)}")
    if not 1 <= len(value) <= MAX_ID_LENGTH:
        raise InvalidInput(field, f"expected 1 to {MAX_ID_LENGTH} characters, got {len(value)}")
    if not (value.isascii() and value.isprintable()):
        bad = next((char for char in value if category(char) in ("Cc", "Cs")), None)
        if bad is not None:
            what = "a lone surrogate" if category(bad) == "Cs" else "a control character"
            raise InvalidInput(field, f"expected no control characters, got {what} (U+{ord(bad):04X})")
    return value


def tenant(value: object) -> str:
    """Return a tenant's name: an id without a slash."""
    name = identifier("tenant", value)
    if "/" in name:
        raise InvalidInput("tenant", "expected no '/' in it")
    return name


def optional(check: Callable[[str, object], T], field: str, value: object) -> T | None:
    """Return ``check(field, value)``, or ``None`` where nothing was given."""
    return None if value is None else check(field, value)


def text(field: str, value: object) -> str:
    """Return text: any str that UTF-8 can hold."""
    if type(value) is not str:
        raise InvalidInput(field, f"expected a str, got {_kind(value)}")
    if not value.isascii():
        _require_utf8(field, value)
    return value


def flag(field: str, value: object) -> bool:
    """Return a bool, and nothing that merely looks like one."""
    if type(value) is not bool:
        raise InvalidInput(field, f"expected a bool, got {_kind(value)}")
    return value


def content(field: str, value: object) -> Json:
    """Return a message's content: text, a list of parts, or null."""
    if type(value) is str:
        return text(field, value)
    if value is None or _kind(value) == "list":
        return json_value(field, value)
    raise InvalidInput(field, f"expected text, a list of parts (JSON) or None, got {_kind(value)}")


def role(field: str, value: object) -> str:
    """Return one of the roles."""
    return _one_of(field, value, ROLES)


def status(field: str, value: object) -> str:
    """Return one of the statuses of a session."""
    return _one_of(field, value, STATUSES)


def run_status(field: str, value: object) -> str:
    """Return one of the statuses a run ends with."""
    return _one_of(field, value, RUN_STATUSES)


def when(field: str, value: object) -> datetime:
    """Return an aware time, in UTC."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidInput(field, f"expected an aware datetime, got {_kind(value)}")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise InvalidInput(field, f"expected a time that UTC can tell, got {value.isoformat()}") from error


def number(field: str, value: object, *, least: int, most: int = LARGEST) -> int:
    """Return an int within bounds."""
    if type(value) is not int:
        raise InvalidInput(field, f"expected an int from {least} to {most}, got {_kind(value)}")
    if not least <= value <= most:
        raise InvalidInput(field, f"expected an int from {least} to {most}, got {shown(value)}")
    return value


def seconds(field: str, value: object, *, most: float) -> float:
    """Return a time span: a number of seconds above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
        raise InvalidInput(field, f"expected seconds, above 0 and at most {most}, got {shown(value)}")
    return float(value)


def limit(value: object) -> int:
    """Return a page size."""
    return number("limit", value, least=1, most=MAX_LIMIT)


def keys(field: str, value: object) -> tuple[str, ...]:
    """Return names of keys, each once."""
    return tuple(dict.fromkeys(text(f"{field}[{i}]", key) for i, key in enumerate(sequence(field, value))))


def sequence(field: str, value: object) -> Sequence[object]:
    """Return a list or tuple, whatever it holds."""
    if isinstance(value, (list, tuple)):
        return cast("Sequence[object]", value)
    raise InvalidInput(field, f"expected a list, got {_kind(value)}")


def json_object(field: str, value: object) -> dict[str, Json]:
    """Return a copy of a dict of JSON values with str keys."""
    return _walk_dict(field, mapping(field, value), 1)


def mapping(field: str, value: object) -> dict[Any, Any]:
    """Return a dict, whatever it holds."""
    if isinstance(value, Mapping):
        return dict(cast("Any", value))
    raise InvalidInput(field, f"expected a dict with str keys, got {_kind(value)}")


def json_value(field: str, value: object) -> Json:
    """Return a copy of a JSON value; what an encoder would coerce silently is refused with its path."""
    return _walk(field, value, 0)


def options(given: Mapping[str, Any]) -> WriteOptions:
    """Check the keywords of a write."""
    checked: WriteOptions = {}
    for name, value in given.items():
        if name not in OPTIONS:
            raise InvalidInput(name, f"is not a keyword of a write; expected one of {', '.join(sorted(OPTIONS))}")
        if value is None:
            continue
        if name == "occurred_at":
            checked["occurred_at"] = when(name, value)
        elif name == "expected_version":
            checked["expected_version"] = number(name, value, least=0)
        else:
            checked[name] = identifier(name, value)  # type: ignore[literal-required]  # one of WriteOptions
    return checked


def _walk(path: str, value: object, depth: int) -> Json:
    kind = type(value)
    if kind is str:
        return text(path, value)
    if value is None or kind is bool:
        return value
    if isinstance(value, int) and kind is int:
        if value.bit_length() > MAX_INT_BITS:
            raise InvalidInput(path, f"expected an int of at most {MAX_INT_BITS} bits, got {value.bit_length()}")
        return value
    if isinstance(value, float) and kind is float:
        if isfinite(value):
            return value
        raise InvalidInput(path, f"{_EXPECTED}, got {shown(value)}")
    if depth >= MAX_DEPTH:
        raise InvalidInput(path, f"expected at most {MAX_DEPTH} levels of nesting")
    if kind is dict:
        return _walk_dict(path, cast("dict[object, object]", value), depth + 1)
    if kind is list:
        return [_walk(f"{path}[{i}]", item, depth + 1) for i, item in enumerate(cast("list[object]", value))]
    raise InvalidInput(path, f"{_EXPECTED}, got {_kind(value)}")


def _walk_dict(path: str, value: Mapping[object, object], depth: int) -> dict[str, Json]:
    copied: dict[str, Json] = {}
    for key, item in value.items():
        if not isinstance(key, str) or type(key) is not str:
            raise InvalidInput(path, f"expected str keys, got the key {shown(key)} ({_kind(key)})")
        if not key.isascii():
            _require_utf8(f"{path} (a key)", key)
        copied[key] = _walk(f"{path}.{key}", item, depth)
    return copied


def _require_utf8(field: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(field, f"expected Unicode text, got a lone surrogate at index {error.start}") from None


def _one_of(field: str, value: object, allowed: frozenset[str]) -> str:
    if type(value) is not str or value not in allowed:
        raise InvalidInput(field, f"expected one of {', '.join(sorted(allowed))}, got {shown(value)}")
    return value


def _kind(value: object) -> str:
    return type(value).__name__


def shown(value: object) -> str:
    """Return a value as it may stand in a message: short, and whatever it is."""
    try:
        return f"{value!r:.100}"
    except ValueError:  # Python does not print an int of more than 4,300 digits
        return f"a very large {_kind(value)}"
