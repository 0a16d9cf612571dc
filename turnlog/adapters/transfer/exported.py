"""Reading a log export (export.py): its form, and whether all of it is as it should be."""

from collections.abc import Callable, Iterator

import msgspec

from turnlog.adapters.transfer.export import FORMAT, EndEntry, EventEntry, FirstLine, KeyEntry, Line
from turnlog.adapters.transfer.foreign import Turn, Turns
from turnlog.adapters.transfer.lines import Lines
from turnlog.domain.errors import CorruptLog, InvalidInput
from turnlog.domain.mapper import Codec
from turnlog.domain.recorder import FINGERPRINT_BYTES, NOTHING_CHANGED, KeyRow
from turnlog.domain.typed import decoder
from turnlog.domain.values import Failure
from turnlog.domain.verification import StreamCheck

TELL_EVERY = 500
"""How many events are checked between two calls of ``tell``."""
KEY_KINDS = ("message", "command")

_decode_first = decoder(FirstLine)
_decode_line = decoder(Line)

_Entry = EventEntry | KeyEntry


class ExportReading:
    """The entries of an export in order; checks what the form of the file promises."""

    def __init__(self, lines: Lines, tenant: str) -> None:
        self.lines = lines
        self.tenant = tenant
        self.number = 0

    def __iter__(self) -> Iterator[_Entry]:
        numbered = iter(self.lines)
        head = self._first(numbered)
        events = keys = position = 0
        for self.number, text in numbered:
            match self._line(text):
                case EventEntry() as event if not keys:
                    if not position < event.position <= head.position:
                        raise self.wrong(f"position {event.position} is not above {position} and up to {head.position}")
                    position = event.position
                    events += 1
                    yield event
                case KeyEntry() as key:
                    keys += 1
                    yield key
                case EndEntry() as end:
                    return self._end(numbered, end, EndEntry(events, keys))
                case _:
                    raise self.wrong("an event stands after the keys")
        raise InvalidInput(self.lines.name, f"the file is cut: it ends after line {self.number} without its last line")

    def wrong(self, what: str) -> InvalidInput:
        """Return the error that names the present line."""
        return InvalidInput(f"{self.lines.name}, line {self.number}", what)

    def _first(self, numbered: Iterator[tuple[int, bytes]]) -> FirstLine:
        self.number, text = next(numbered, (1, b""))
        try:
            head = _decode_first(text)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self.wrong(f"this is not the first line of an export: {error}") from error
        if head.format != FORMAT:
            raise self.wrong(f"format {head.format}: this turnlog reads format {FORMAT}; upgrade it")
        if head.tenant != self.tenant:
            raise self.wrong(f"the export is of tenant {head.tenant!r}, the store was opened for {self.tenant!r}")
        return head

    def _line(self, text: bytes) -> EventEntry | KeyEntry | EndEntry:
        try:
            line = _decode_line(text)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self.wrong(f"it is not a line of an export: {error}") from error
        entries = [entry for entry in (line.event, line.key, line.end) if entry is not None]
        if len(entries) != 1:
            raise self.wrong("expected exactly one of event, key and end")
        return entries[0]

    def _end(self, numbered: Iterator[tuple[int, bytes]], said: EndEntry, found: EndEntry) -> None:
        if said != found:
            raise self.wrong(
                f"it says {said.events} events and {said.keys} keys; {found.events} and {found.keys} are here"
            )
        for self.number, _ in numbered:
            raise self.wrong("something follows the end")


def turns(reading: ExportReading) -> Iterator[Turn]:
    """Yield whole turns, each where its last event stands, then keys.

    Raises:
        InvalidInput, CorruptLog: as ``check_export``, but for what only a session's chain shows.
    """
    gathered = Turns()
    for entry in reading:
        if isinstance(entry, KeyEntry):
            _require_whole(reading, gathered)
            yield Turn(entry.stream, (), KeyRow(entry.kind, entry.key, entry.version, entry.fingerprint))
            continue
        stream, state = entry.stream, entry.state.encode()
        if not stream.startswith(f"{reading.tenant}/"):
            raise reading.wrong(f"the session {stream!r} is not of tenant {reading.tenant!r}")
        try:
            turn = gathered.take(stream, (entry.position, entry.version, entry.topic, state))
        except CorruptLog as error:
            raise CorruptLog(f"{reading.lines.name}, line {reading.number}: session {stream!r}: {error}") from error
        if turn is not None:
            yield turn
    _require_whole(reading, gathered)


def _require_whole(reading: ExportReading, gathered: Turns) -> None:
    if gathered.unfinished is not None:
        raise reading.wrong(f"the last turn of session {gathered.unfinished!r} is not whole")


class Checked(msgspec.Struct, frozen=True):
    """What a whole export holds."""

    sessions: int
    events: int
    keys: int


def check_export(reading: ExportReading, codec: Codec, tell: Callable[[int], None]) -> Checked:
    """Read all of the file; ``tell`` is told how many events are checked.

    Raises:
        InvalidInput: the form is not that of an export, or it is cut; the message names the line.
        CorruptLog: a session does not verify; the message names it with its first bad event.
    """
    checks: dict[str, StreamCheck] = {}
    events = keys = 0
    for turn in turns(reading):
        check = checks.get(turn.stream)
        if turn.key is not None:
            keys += 1
            if check is None or not 1 <= turn.key.version <= check.version:
                raise reading.wrong(f"a key names an event of session {turn.stream!r} that is not here")
            print_ = turn.key.fingerprint
            if len(print_) < FINGERPRINT_BYTES or print_[FINGERPRINT_BYTES:] not in (b"", NOTHING_CHANGED):
                raise reading.wrong(f"a key's fingerprint has {FINGERPRINT_BYTES} bytes, or one more that is zero")
            if turn.key.kind not in KEY_KINDS:
                raise reading.wrong(f"a key is of a message or a command, not of {turn.key.kind!r}")
            continue
        if check is None:
            check = checks[turn.stream] = StreamCheck(turn.stream, turn.stream.partition("/")[2])
        check.feed(turn.rows, codec.event)
        _require(reading, check.failure)
        events += len(turn.rows)
        if events % TELL_EVERY < len(turn.rows):
            tell(events)
    for check in checks.values():
        _require(reading, check.finish())
    return Checked(len(checks), events, keys)


def _require(reading: ExportReading, failure: Failure | None) -> None:
    if failure is not None:
        where = f"{reading.lines.name}: session {failure.session_id!r}, version {failure.version}"
        raise CorruptLog(f"{where}: {failure.reason}; nothing was restored")
