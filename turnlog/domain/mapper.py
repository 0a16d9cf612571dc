"""Between events and stored bytes. Nothing else in turnlog encodes or decodes an event.

``Codec`` is the fast path, a table from topic to a typed decoder. ``Mapper`` offers it to ``eventsourcing``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, cast

import msgspec
from eventsourcing.persistence import Cipher, Compressor, JSONTranscoder, StoredEvent, Transcoder
from eventsourcing.persistence import Mapper as LibraryMapper

from turnlog.domain.envelope import Brief, Told, ToldPrivate, Whole, seal
from turnlog.domain.errors import CorruptLog, UnknownEvent
from turnlog.domain.events import Erased, Event, SessionDeleted
from turnlog.domain.typed import converter, decoder
from turnlog.domain.upcasting import REGISTRY, Registry
from turnlog.domain.values import RecordedEvent

StreamRow = tuple[int, int, str, bytes]
"""(position, version, topic, state) of one event of a stream."""
LogRow = tuple[int, str, int, str, bytes]
"""(position, stream, version, topic, state) of one event of the log."""
Fact = tuple[Event | Erased, datetime]
"""An event and when it was recorded: what a fold eats."""


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, UnknownEvent)
"""What decoding an event may raise; see ``unreadable``."""
_ERASED: ToldPrivate[Any] = ToldPrivate(body=None)


class Codec:
    """Encodes and decodes the events of a registry. Holds decoders only, made on first use."""

    def __init__(self, registry: Registry = REGISTRY) -> None:
        self.registry = registry
        self.topics = registry.topics
        self._told: dict[str, Callable[[bytes], Told[Any]]] = {}
        self._brief: dict[str, Callable[[bytes], Brief[Any]]] = {}
        self._runs: dict[str, Callable[[bytes], list[Whole[Any]]]] = {}

    def facts(self, stream: str, rows: Iterable[StreamRow], version: int = 0) -> Iterator[Fact]:
        """Decode a stream's rows for a fold, checking that their versions follow ``version`` without a gap.

        Raises:
            UnknownEvent: a newer turnlog wrote one of them.
            CorruptLog: one cannot be read, or is missing; the message says which.
        """
        decoders = self._brief
        for _, found, topic, state in rows:
            version += 1
            if found != version:
                raise CorruptLog(f"session {stream!r}: version {version} is missing, found {found}")
            try:
                brief = (decoders.get(topic) or self._brief_decoder(topic))(state)
            except UNREADABLE as error:
                raise unreadable(stream, version, error) from error
            private = brief.private
            yield (absent(topic) if private is None else private.body), brief.header.recorded_at

    def brief(self, topic: str) -> Callable[[bytes], Brief[Any]]:
        """Return what decodes the events of a topic for a fold that goes through many: it raises ``UNREADABLE``.

        Raises:
            UnknownEvent: there is no such topic; without the place.
        """
        return self._brief.get(topic) or self._brief_decoder(topic)

    def occurrence(self, stream: str, row: StreamRow) -> tuple[Event | Erased, datetime, datetime]:
        """Decode one row: the event, when it was recorded, and when it occurred.

        Raises:
            UnknownEvent, CorruptLog: with the place.
        """
        _, version, topic, state = row
        try:
            brief = (self._brief.get(topic) or self._brief_decoder(topic))(state)
        except UNREADABLE as error:
            raise unreadable(stream, version, error) from error
        header, private = brief.header, brief.private
        recorded_at = header.recorded_at
        return (absent(topic) if private is None else private.body), recorded_at, header.occurred_at or recorded_at

    def run(self, stream: str, rows: Sequence[StreamRow]) -> list[Whole[Any]]:
        """Decode rows of one topic, none of them erased, in one call of the decoder.

        Raises:
            UnknownEvent, CorruptLog: with the place.
        """
        topic = rows[0][2]
        try:
            decode = self._runs.get(topic) or self._run_decoder(topic)
            briefs = decode(b"[%b]" % b",".join([row[3] for row in rows]))
        except UNREADABLE:
            briefs = []
        if len(briefs) == len(rows) and all(row[3].startswith(b'{"header":{') for row in rows):
            return briefs
        found = [(row, *self.occurrence(stream, row)) for row in rows]  # says which one cannot be read
        damaged = next((row for row, event, _, _ in found if isinstance(event, Erased)), rows[0])
        raise CorruptLog(f"session {stream!r}, version {damaged[1]}: the content is gone")

    def event(self, topic: str, state: bytes) -> Event | Erased:
        """Decode one event's body.

        Raises:
            UnknownEvent, CorruptLog: as ``facts``, without the place.
        """
        try:
            private = (self._brief.get(topic) or self._brief_decoder(topic))(state).private
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptLog(str(error)) from error
        return absent(topic) if private is None else private.body

    def recorded(self, row: LogRow) -> RecordedEvent:
        """Decode one event with everything that is known of it.

        Raises:
            UnknownEvent, CorruptLog: with the place.
        """
        position, stream, version, topic, state = row
        try:
            stored = (self._told.get(topic) or self._told_decoder(topic))(state)
        except UNREADABLE as error:
            raise unreadable(stream, version, error) from error
        header = stored.header
        private = stored.private or _ERASED
        tenant, _, session_id = stream.partition("/")
        return RecordedEvent(
            tenant,
            session_id,
            version,
            position,
            topic,
            absent(topic) if private is _ERASED else private.body,
            header.event_id,
            header.recorded_at,
            header.occurred_at or header.recorded_at,
            header.turn,
            private.actor,
            private.correlation_id,
            private.causation_id,
            header.hash,
        )

    def _brief_decoder(self, topic: str) -> Callable[[bytes], Brief[Any]]:
        return self._brief.setdefault(topic, self._decoder(topic, Brief))

    def _told_decoder(self, topic: str) -> Callable[[bytes], Told[Any]]:
        return self._told.setdefault(topic, self._decoder(topic, Told))

    def _run_decoder(self, topic: str) -> Callable[[bytes], list[Whole[Any]]]:
        cls = self.registry.newest.get(topic)
        if cls is not None:
            form: Any = Whole
            decode = cast("Callable[[bytes], list[Whole[Any]]]", decoder(list[form[cls]]))
            return self._runs.setdefault(topic, decode)
        brief = self._brief_decoder(topic)
        split_up = decoder(list[msgspec.Raw])

        def one(state: bytes) -> Whole[Any]:
            found = brief(state)
            if found.private is None:
                raise msgspec.ValidationError("the content is gone")
            return Whole(found.header, found.private)

        return self._runs.setdefault(topic, lambda states: [one(bytes(state)) for state in split_up(states)])

    def _decoder(self, topic: str, form: Any) -> Callable[[bytes], Any]:
        if topic in self.registry.newest:
            return cast("Callable[[bytes], Any]", decoder(form[self.registry.newest[topic]]))
        decode = decoder(form[dict[str, Any]])

        def decode_and_upcast(state: bytes) -> Any:
            whole = decode(state)
            if whole.private is None:
                return whole  # nothing is asked of the schema: what is unknown here can have been erased too
            try:
                cls, body = self.registry.upcast(topic, whole.private.body)
                private = msgspec.structs.replace(whole.private, body=converter(cls)(body))
            except (LookupError, TypeError, ValueError) as error:
                raise msgspec.ValidationError(f"it cannot be brought to a newer schema: {error!r}") from error
            return msgspec.structs.replace(whole, private=private)

        return decode_and_upcast


def unreadable(stream: str, version: int, error: Exception) -> UnknownEvent | CorruptLog:
    """Return the error that says which event could not be decoded, one of ``UNREADABLE``."""
    kind = UnknownEvent if isinstance(error, UnknownEvent) else CorruptLog
    return kind(f"session {stream!r}, version {version}: {error}")


def absent(topic: str) -> Event | Erased:
    """Return what stands for an event whose content was destroyed; a tombstone has none to lose."""
    return SessionDeleted() if topic.startswith("SessionDeleted.") else Erased(topic)


def text_hash(digest: bytes) -> str:
    """Return a hash as it is written in the log: base64, 44 characters."""
    return msgspec.to_builtins(digest)  # type: ignore[no-any-return]  # bytes become text


class Mapper(LibraryMapper[str]):
    """``eventsourcing``'s mapper over turnlog's format: ``NewEvent`` in, ``RecordedEvent`` out.

    A cipher or compressor of the library's environment is honoured; the store itself uses neither.
    """

    def __init__(
        self,
        transcoder: Transcoder | None = None,
        compressor: Compressor | None = None,
        cipher: Cipher | None = None,
        codec: Codec | None = None,
    ) -> None:
        super().__init__(transcoder or JSONTranscoder(), compressor, cipher)
        self.codec = codec or Codec()

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        """Seal a ``NewEvent``."""
        state, _ = seal(domain_event)
        if self.compressor:
            state = self.compressor.compress(state)
        if self.cipher:
            state = self.cipher.encrypt(state)
        return StoredEvent(domain_event.originator_id, domain_event.originator_version, domain_event.topic, state)

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """Decode a ``RecordedEvent``."""
        state = stored_event.state
        if self.cipher:
            state = self.cipher.decrypt(state)
        if self.compressor:
            state = self.compressor.decompress(state)
        position = getattr(stored_event, "id", 0)
        stream = str(stored_event.originator_id)
        return self.codec.recorded((position, stream, stored_event.originator_version, stored_event.topic, state))
