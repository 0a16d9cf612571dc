"""What makes two requests the same: SHA-256 over canonical JSON of the request and of whom it is for.

Canonical JSON is RFC 8785 but for two things. Numbers stand as Python writes them, exactly: an int with all its digits,
a float with the fewest that give it back; so 1, 1.0 and true are three values, as are 0.0 and -0.0. What is sent to a
model differs there too, and a miss costs a call where a wrong hit costs an answer. Keys are sorted by code point, not
by UTF-16 unit. As in RFC 8785 nothing is normalised: "é" composed and decomposed are two texts.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple, TypeAlias

from turnlog import inputs
from turnlog.domain.errors import InvalidInput
from turnlog.domain.events import Json

Scope: TypeAlias = str | Sequence[str]
"""Whom an answer is for, from the widest to the narrowest: ``("acme", "alice")``; a str is a scope of one name."""
MOST_NAMES = 8
_TAG = b"turnlog.cache.1\n"
"""A new way to make keys takes a new number: nothing that was stored under the old one is found by it."""
_SCOPE_TAG = b"turnlog.cache.scope.1\n"
_SCOPE_HEX = 32


class Key(NamedTuple):
    """Where an answer is kept. ``path`` has 33 characters for each name of its scope, the widest first."""

    digest: bytes
    path: str


def key(request: Mapping[str, Json], scope: Scope = ()) -> str:
    """Return the key of a request as 64 hexadecimal digits. The order of a dict's items makes no difference.

    Raises:
        InvalidInput: the request is not JSON; the scope is not made of ids.
    """
    return key_of(inputs.json_object("request", request), names(scope)).digest.hex()


def key_of(request: Json, scope: Sequence[str]) -> Key:
    """Return the key of a request and a scope that were checked."""
    return Key(sha256(_TAG + canonical([list(scope), request])).digest(), path(scope))


def names(scope: object) -> tuple[str, ...]:
    """Return a scope's names, each an id as a session's is; no names: the scope of everybody."""
    given = (scope,) if isinstance(scope, str) else inputs.sequence("scope", scope)
    if len(given) > MOST_NAMES:
        raise InvalidInput("scope", f"expected at most {MOST_NAMES} names, got {len(given)}")
    return tuple(inputs.identifier(f"scope[{i}]", name) for i, name in enumerate(given))


def path(scope: Sequence[str]) -> str:
    """Return a scope as text that begins with that of every wider one, and tells nobody's name at sight."""
    widening = (canonical(list(scope[: n + 1])) for n in range(len(scope)))
    return "".join(f"{sha256(_SCOPE_TAG + wide).hexdigest()[:_SCOPE_HEX]}." for wide in widening)


def canonical(value: Json) -> bytes:
    """Return the one way to write a JSON value; it has been checked by ``inputs.json_value``."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()
