"""Between values and documents, both ways. Nothing else here encodes or decodes one."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from turnlog.domain.typed import decoder
from turnlog.domain.values import Message, SessionSummary
from turnlog.domain.words import text_of
from turnlog.projections.dialogue import Dialogue
from turnlog.projections.session_index import Entry, microseconds, moment

_encode = msgspec.json.Encoder().encode
_decode_message = decoder(tuple[bool, Message])


class Folded(msgspec.Struct, gc=False):
    """What is kept of a session to fold on: its row, and what analytics need besides."""

    entry: Entry
    dialogue: Dialogue

    def copy(self) -> "Folded":
        """Return one to fold on."""
        return Folded(msgspec.structs.replace(self.entry), self.dialogue.copy())


class Operation(NamedTuple):
    """A document to write (``source``) or to delete (``None``), made of the log up to ``position``."""

    kind: str
    id: str
    stream: str
    position: int
    source: bytes | None = None

    def encoded(self, index: str) -> bytes:
        """Return it as lines of a bulk request: it wins over what is older, and loses to what is newer."""
        at = {"_index": index, "_id": self.id, "version": self.position, "version_type": "external_gte"}
        action = _encode({"delete" if self.source is None else "index": at})
        return b"%b\n" % action if self.source is None else b"%b\n%b\n" % (action, self.source)


def session_document(folded: Folded) -> bytes:
    """Return a session's document."""
    entry = folded.entry
    times = ("created_at", "updated_at", "last_message_at", "completed_at")
    return _document(
        {
            "tenant": entry.tenant,
            "session_id": entry.session_id,
            "user_id": entry.user_id,
            "agent": entry.agent,
            "status": entry.status,
            "route": entry.current_route,
            "step": entry.current_step,
            "message_count": entry.message_count,
            **{name: None if getattr(entry, name) is None else moment(getattr(entry, name)) for name in times},
            "version": entry.version,
            "created_position": entry.created_position,
            "updated_position": entry.updated_position,
            "steps": folded.dialogue.outcomes(entry.status),
            "folded": _encode(folded).decode(),
        }
    )


_decode_folded = decoder(Folded)


def folded_of(source: Mapping[str, Any]) -> Folded:
    """Return what a session's document was made of."""
    return _decode_folded(source["folded"])


def summary_of(source: Mapping[str, Any]) -> SessionSummary:
    """Return the summary that a session's document holds."""
    entry = folded_of(source).entry
    return SessionSummary(
        session_id=entry.session_id,
        user_id=entry.user_id,
        agent=entry.agent,
        status=entry.status,
        current_route=entry.current_route,
        current_step=entry.current_step,
        message_count=entry.message_count,
        created_at=moment(entry.created_at),
        updated_at=moment(entry.updated_at),
        last_message_at=None if entry.last_message_at is None else moment(entry.last_message_at),
        completed_at=None if entry.completed_at is None else moment(entry.completed_at),
        version=entry.version,
    )


class Said(NamedTuple):
    """A visible message with its place. ``waited_s``: how long the user waited for it, if it is an answer."""

    message: Message
    position: int
    item: int
    waited_s: float | None = None


def message_document(stream_id: str, entry: Entry, said: Said) -> bytes:
    """Return a message's document; the message is in it as JSON text, but for a text that is its whole content."""
    message = said.message
    text = text_of(message.content)
    plain = isinstance(message.content, str)
    kept = msgspec.structs.replace(message, content=None) if plain else message
    return _document(
        {
            "stream": stream_id,
            "tenant": entry.tenant,
            "session_id": entry.session_id,
            "user_id": entry.user_id,
            "agent": entry.agent,
            "message_id": message.message_id,
            "role": message.role,
            "route": message.route,
            "step": message.step,
            "content": message.content if plain else text or None,
            "occurred_at": message.occurred_at,
            "occurred_us": microseconds(message.occurred_at),
            "version": message.version,
            "position": said.position,
            "item": said.item,
            "waited_s": said.waited_s,
            "message": _encode((plain, kept)).decode(),
        }
    )


def message_of(source: Mapping[str, Any]) -> Message:
    """Return the message that a document holds."""
    plain, message = _decode_message(source["message"])
    return msgspec.structs.replace(message, content=source["content"]) if plain else message


def _document(fields: Mapping[str, Any]) -> bytes:
    return _encode({name: value for name, value in fields.items() if value is not None})
