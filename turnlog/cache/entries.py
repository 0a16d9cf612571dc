"""An answer as stored bytes: 32 bytes of SHA-256 over its key and its JSON, then the JSON.

So an entry that was damaged, cut, or stands under another key is known for it. Reading one decodes JSON and nothing
else; nothing is imported or executed because of what it says.
"""

from hashlib import sha256
from hmac import compare_digest
from typing import NamedTuple

import msgspec

from turnlog import inputs
from turnlog.cache.keys import Key
from turnlog.domain.events import Json

_TAG = b"turnlog.cache.entry.1\n"
_SUM = 32


class Answer(NamedTuple):
    """An answer and, where it is JSON that could be stored, its bytes, from which to make copies."""

    value: Json
    payload: bytes | None

    def copy(self) -> Json:
        """Return the value such that changing it changes nobody else's; one that is not JSON is shared."""
        return self.value if self.payload is None else msgspec.json.decode(self.payload)


def encoded(value: object) -> bytes:
    """Return an answer's JSON.

    Raises:
        InvalidInput: it is not JSON as ``inputs.json_value`` has it.
    """
    return msgspec.json.encode(inputs.json_value("answer", value))


def sealed(key: Key, payload: bytes) -> bytes:
    """Return an entry."""
    return _checksum(key, payload) + payload


def unsealed(key: Key, entry: bytes) -> Answer | None:
    """Return what an entry holds; None if it is damaged."""
    payload = entry[_SUM:]
    if not compare_digest(entry[:_SUM], _checksum(key, payload)):
        return None
    try:
        return Answer(msgspec.json.decode(payload), payload)
    except (ValueError, RecursionError):  # somebody else's bytes, with a checksum of their own making
        return None


def _checksum(key: Key, payload: bytes) -> bytes:
    return sha256(_TAG + key.digest + payload).digest()
