"""Checks one stream of the log, event by event, without trusting anything but its bytes."""

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime, timedelta

from turnlog.domain.chain import commitment, event_hash, genesis
from turnlog.domain.envelope import FORMAT, Header, header_of, private_of, split
from turnlog.domain.errors import CorruptLog, UnknownEvent
from turnlog.domain.values import Failure

DELETED = "SessionDeleted."
STARTED = "SessionStarted."
_UTC = timedelta(0)

Decode = Callable[[str, bytes], object]


class StreamCheck:
    """Checks one stream event by event; ``failure`` is the first thing found wrong, ``None`` while all is well.

    ``watched`` are the hashes of the events at the versions ``watch``, as they were met; ``facts`` the events up to the
    version ``collect`` that were read last and not erased, each with its time.
    """

    def __init__(self, stream: str, session_id: str, watch: Collection[int] = (), collect: int = 0) -> None:
        self.stream = stream
        self.session_id = session_id
        self.failure: Failure | None = None
        self.version = 0
        self.hash = b""
        self.watch = watch
        self.watched: dict[int, bytes] = {}
        self.facts: list[tuple[object, datetime]] = []
        self._collect = collect
        self._turn = (0, 0)
        self._erased: int | None = None
        self._content: int | None = None
        self._last_topic = ""
        self._position = 0
        self._recorded_at: datetime | None = None

    def feed(self, rows: Iterable[tuple[int, int, str, bytes]], decode: Decode) -> None:
        """Check the next ``rows``: (position, version, topic, state). ``decode`` proves that P is a known event."""
        self.facts.clear()
        for position, version, topic, state in rows:
            if self.failure is not None:
                return
            for reason in self._reasons(position, version, topic, state, decode):
                self.failure = Failure(session_id=self.session_id, version=version, reason=reason)
                break

    def finish(self) -> Failure | None:
        """Return the stream's first failure, after the checks that need its end."""
        self.require(self._end)
        return self.failure

    def require(self, check: Callable[[], tuple[int, str] | None]) -> None:
        """If nothing was found yet, have ``check`` look: it returns a version and what is wrong there, or ``None``."""
        if self.failure is None and (found := check()) is not None:
            self.failure = Failure(session_id=self.session_id, version=found[0], reason=found[1])

    @property
    def deleted(self) -> bool:
        """Whether the events so far end in the session's deletion."""
        return self._last_topic.startswith(DELETED)

    def _end(self) -> tuple[int, str] | None:
        deleted = self.deleted
        if self._turn[0] != self._turn[1]:
            return self.version, f"the last turn is cut: event {self._turn[0]} of {self._turn[1]} is the last one there"
        if deleted and self._content is not None:
            return self._content, "the session was deleted, but the content of this event is still there"
        if not deleted and self._erased is not None:
            return self._erased, "the content is gone, but the session was never deleted"
        return None

    def _reasons(self, position: int, version: int, topic: str, state: bytes, decode: Decode) -> Iterator[str]:
        if version != self.version + 1:
            yield f"expected version {self.version + 1}, found {version}"
        try:
            cut, stored_hash, private = split(state)
            header = header_of(state)
        except CorruptLog as error:
            yield str(error)
            return
        if event_hash(cut) != stored_hash:
            yield "the header does not match its hash"
        yield from _header_reasons(header, version, topic)
        yield from self._place_reasons(header, position, version, topic)
        yield from self._turn_reasons(header.turn)
        yield from self._private_reasons(private, header, version, topic, state, decode)
        self.version, self.hash, self._last_topic, self._turn = version, stored_hash, topic, header.turn
        self._position, self._recorded_at = position, header.recorded_at
        if version in self.watch:
            self.watched[version] = stored_hash

    def _place_reasons(self, header: Header, position: int, version: int, topic: str) -> Iterator[str]:
        if version == 1 and not topic.startswith(STARTED):
            yield f"the first event is {topic}, not SessionStarted"
        if version > 1 and header.previous != self.hash:
            yield "the chain is broken: `previous` is not the hash of the event before"
        if self.deleted:
            yield "an event follows SessionDeleted"
        if position <= self._position:
            yield f"position {position} does not rise with the version"
        if self._recorded_at is not None and header.recorded_at < self._recorded_at:
            yield "recorded_at goes back"

    def _turn_reasons(self, turn: tuple[int, int]) -> Iterator[str]:
        done = self._turn[0] == self._turn[1]
        expected = (1, turn[1]) if done else (self._turn[0] + 1, self._turn[1])
        if turn != expected or not 1 <= turn[0] <= turn[1]:
            yield f"a turn is not whole: event {turn[0]} of {turn[1]} follows {self._turn[0]} of {self._turn[1]}"

    def _private_reasons(
        self, private: bytes | None, header: Header, version: int, topic: str, state: bytes, decode: Decode
    ) -> Iterator[str]:
        if private is None:
            self._erased = self._erased or version
            return
        self._content = self._content or version
        if commitment(private) != header.commitment:
            yield "the content does not match its commitment"
            return
        try:
            content = private_of(state)
            salt = None if content is None else content.genesis
            if version == 1 and (salt is None or genesis(salt, self.stream) != header.previous):
                yield "version 1 is not bound to this session's name"
            if version > 1 and salt is not None:
                yield "a genesis salt stands above version 1"
            event = decode(topic, state)
            if version <= self._collect:
                self.facts.append((event, header.recorded_at))
        except (UnknownEvent, CorruptLog) as error:
            yield f"the content cannot be read: {error}"


def _header_reasons(header: Header, version: int, topic: str) -> Iterator[str]:
    if any(time.utcoffset() != _UTC for time in (header.recorded_at, header.occurred_at) if time is not None):
        yield "a time is not in UTC"
    if header.format != FORMAT:
        yield f"format {header.format} is not known: a newer turnlog wrote it"
    if (header.version, header.topic) != (version, topic):
        yield f"the row says version {version} and {topic}, the header {header.version} and {header.topic}"
