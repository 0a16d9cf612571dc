"""One stored event as bytes: ``{"header":H,"private":P}``. See docs/format.md for every byte of it.

H is never changed; P may be destroyed. Everything that can be personal is in P.
"""

from binascii import b2a_base64
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from turnlog.domain.chain import commitment, event_hash
from turnlog.domain.errors import CorruptLog
from turnlog.domain.events import Event
from turnlog.domain.typed import decoder

FORMAT = 1
E = TypeVar("E")

_PRIVATE = b',"private":'
_HASH = b',"hash":"'
_TAIL_LENGTH = len(_HASH) + 44 + len(b'"}')
_encode = msgspec.json.Encoder().encode


class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """An event about to be stored. ``salt`` and ``genesis`` are 16 random bytes each; ``genesis`` only at version 1."""

    originator_id: str
    originator_version: int
    topic: str
    event: Event
    event_id: str
    recorded_at: datetime
    occurred_at: datetime | None
    turn: tuple[int, int]
    previous: bytes
    salt: bytes
    genesis: bytes | None = None
    actor: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None


class OpenHeader(msgspec.Struct, frozen=True, gc=False):
    """H but for its last field, in the order it is stored."""

    format: int
    event_id: str
    version: int
    topic: str
    recorded_at: datetime
    occurred_at: datetime | None
    turn: tuple[int, int]
    previous: bytes
    commitment: bytes


class Header(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """H as read: 32-byte hashes, aware UTC times."""

    format: int
    event_id: str
    version: int
    topic: str
    recorded_at: datetime
    occurred_at: datetime | None
    turn: tuple[int, int]
    previous: bytes
    commitment: bytes
    hash: bytes


class NewPrivate(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """P as written; ids that are not given are left out."""

    salt: bytes
    body: Any
    actor: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    genesis: bytes | None = None


class Private(msgspec.Struct, Generic[E], frozen=True, gc=False):
    """P as read, its body decoded as ``E``."""

    salt: bytes
    body: E
    actor: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    genesis: bytes | None = None


class ToldHeader(msgspec.Struct, frozen=True, gc=False):
    """What is told of H with a recorded event; the hash as it is written."""

    event_id: str
    recorded_at: datetime
    occurred_at: datetime | None
    turn: tuple[int, int]
    hash: str


class ToldPrivate(msgspec.Struct, Generic[E], frozen=True, gc=False):
    """What is told of P with a recorded event."""

    body: E
    actor: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None


class Told(msgspec.Struct, Generic[E], frozen=True, gc=False):
    """What is told of a stored event."""

    header: ToldHeader
    private: ToldPrivate[E] | None


class BriefHeader(msgspec.Struct, frozen=True, gc=False):
    """All of H that a fold needs."""

    recorded_at: datetime
    occurred_at: datetime | None


class BriefPrivate(msgspec.Struct, Generic[E], frozen=True, gc=False):
    """All of P that a fold needs."""

    body: E


class Brief(msgspec.Struct, Generic[E], frozen=True, gc=False):
    """What a fold needs of a stored event; the rest is skipped, which makes it the faster of the two."""

    header: BriefHeader
    private: BriefPrivate[E] | None


class Whole(msgspec.Struct, Generic[E], frozen=True, gc=False):
    """A ``Brief`` of an event that cannot have been erased."""

    header: BriefHeader
    private: BriefPrivate[E]


def seal(new: NewEvent) -> tuple[bytes, bytes]:
    """Return the bytes to store for ``new`` and its 32-byte hash."""
    private = _encode(NewPrivate(new.salt, new.event, new.actor, new.correlation_id, new.causation_id, new.genesis))
    return seal_private(new, private)


def seal_private(new: NewEvent, private: bytes) -> tuple[bytes, bytes]:
    """Like ``seal`` with the bytes of P already made."""
    header = OpenHeader(
        FORMAT,
        new.event_id,
        new.originator_version,
        new.topic,
        new.recorded_at,
        new.occurred_at,
        new.turn,
        new.previous,
        commitment(private),
    )
    cut = _encode(header)[:-1]
    digest = event_hash(cut)
    tail = b2a_base64(digest, newline=False)
    return b"".join((b'{"header":', cut, _HASH, tail, b'"}', _PRIVATE, private, b"}")), digest


def split(state: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Cut a stored event into (H before its last field, hash, P); P is ``None`` where it was erased.

    Raises:
        CorruptLog: the bytes do not have the form of a stored event.
    """
    end = state.find(_PRIVATE)
    start = end - _TAIL_LENGTH
    if not state.startswith(b'{"header":{') or start < 0 or state[start : start + len(_HASH)] != _HASH:
        raise CorruptLog("the bytes are not a stored event")
    private = state[end + len(_PRIVATE) : -1]
    if state[-1:] != b"}":
        raise CorruptLog("the bytes are not a stored event")
    digest = header_of(state).hash
    if b2a_base64(digest, newline=False) != state[start + len(_HASH) : end - 2]:  # one hash has several spellings
        raise CorruptLog("the hash is not in canonical base64")
    return state[len(b'{"header":') : start], digest, None if private == b"null" else private


def erase(state: bytes) -> bytes:
    """Return the stored event with its P destroyed; H stays byte for byte."""
    end = state.find(_PRIVATE)
    if end < 0:
        raise CorruptLog("the bytes are not a stored event")
    return state[: end + len(_PRIVATE)] + b"null}"


class _OnlyHeader(msgspec.Struct, frozen=True, gc=False):
    header: Header


class _OnlyPrivate(msgspec.Struct, frozen=True, gc=False):
    private: Private[msgspec.Raw] | None


_decode_header = decoder(_OnlyHeader)
_decode_private = decoder(_OnlyPrivate)


def header_of(state: bytes) -> Header:
    """Decode H alone.

    Raises:
        CorruptLog: it is not the header of a stored event.
    """
    try:
        return _decode_header(state).header
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptLog(f"the header cannot be read: {error}") from error


def private_of(state: bytes) -> Private[msgspec.Raw] | None:
    """Decode P alone, its body left as bytes.

    Raises:
        CorruptLog: it is not the P of a stored event.
    """
    try:
        return _decode_private(state).private
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptLog(f"the content cannot be read: {error}") from error
