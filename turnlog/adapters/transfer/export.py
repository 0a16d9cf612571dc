"""The log as a file: ``export_log`` writes it as line-JSON; restore.py makes the same log of it again.

    {"turnlog":"export","format":1,"tenant":"default","position":7}       the first line
    {"event":{"position":1,"stream":…,"version":1,"topic":…,"state":…}}   in the order of positions; state to the byte
    {"key":{"stream":…,"kind":…,"key":…,"version":…,"fingerprint":…}}     message and command ids that were used
    {"end":{"events":7,"keys":2}}                                         without it the file was cut

docs/import-format.md says it for other programs; scripts/verify_log.py checks such a file without turnlog.
"""

from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import BinaryIO, Literal

import msgspec

from turnlog.adapters.inside import decider_of
from turnlog.domain.errors import CorruptLog, SessionNotFound, StoreError
from turnlog.domain.mapper import LogRow
from turnlog.domain.recorder import KeyRow, Recorder
from turnlog.domain.verification import DELETED
from turnlog.store import ConversationStore

FORMAT = 1
PAGE = 1_000
"""How many events, streams or keys are held at a time."""

_encode = msgspec.json.Encoder().encode


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The options that every line shares: what is not expected is not read over."""


class FirstLine(_Entry, frozen=True):
    """What begins an export: of which tenant it is, and the log's position when it was made."""

    turnlog: Literal["export"]
    format: int
    tenant: str
    position: int


class EventEntry(_Entry, frozen=True):
    """One event; ``state`` is what is stored, byte for byte."""

    position: int
    stream: str
    version: int
    topic: str
    state: str


class KeyEntry(_Entry, frozen=True):
    """One key; ``fingerprint`` is base64 in the file."""

    stream: str
    kind: str
    key: str
    version: int
    fingerprint: bytes


class EndEntry(_Entry, frozen=True):
    """How many lines of each kind there are."""

    events: int
    keys: int


class Line(_Entry, frozen=True, omit_defaults=True):
    """Any line but the first: exactly one of the three."""

    event: EventEntry | None = None
    key: KeyEntry | None = None
    end: EndEntry | None = None


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was written, up to which position of the log, in how many seconds."""

    sessions: int
    events: int
    keys: int
    position: int
    seconds: float


def export_log(
    store: ConversationStore,
    file: BinaryIO,
    *,
    session_id: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Write the log of the store's tenant (or of one session) as it is now; what is appended meanwhile stays out.

    ``progress`` is told the position reached and the one to reach.

    Raises:
        SessionNotFound: there is no such session. A deleted one is exported: its skeleton is evidence.
        StoreError: a session was deleted while it was being exported; do it again.
        CorruptLog: stored bytes are not text; the message says where.
    """
    began = perf_counter()
    recorder, tenant = decider_of(store).recorder, store.tenant
    position = recorder.position()
    stream = None if session_id is None else f"{tenant}/{session_id}"
    if stream is not None and not _version_at(recorder, stream, position):
        raise SessionNotFound(session_id or "")
    _write(file, [FirstLine("export", FORMAT, tenant, position)])
    sessions = events = keys = 0
    for rows in _event_pages(recorder, tenant, stream, position):
        _write(file, [Line(event=_event_entry(row)) for row in rows])
        events += len(rows)
        sessions += sum(row[2] == 1 for row in rows)
        if progress is not None:
            progress(rows[-1][0], position)
    for name in _streams(recorder, tenant, stream):
        found = _keys(recorder, name, position)
        _write(file, [Line(key=KeyEntry(name, *key)) for key in found])
        keys += len(found)
    _require_none_deleted(recorder, tenant, stream, position)
    _write(file, [Line(end=EndEntry(events, keys))])
    return ExportReport(sessions=sessions, events=events, keys=keys, position=position, seconds=perf_counter() - began)


def _event_pages(recorder: Recorder, tenant: str, stream: str | None, position: int) -> Iterator[list[LogRow]]:
    after = 0
    while True:
        if stream is None:
            rows = recorder.select_log(after=after, upto=position, limit=PAGE, prefix=f"{tenant}/")
        else:
            page = recorder.select_stream(stream, after=after, limit=PAGE)
            rows = [(at, stream, version, topic, state) for at, version, topic, state in page if at <= position]
        if not rows:
            return
        yield rows
        after = rows[-1][0] if stream is None else rows[-1][2]


def _event_entry(row: LogRow) -> EventEntry:
    position, stream, version, topic, state = row
    try:
        return EventEntry(position, stream, version, topic, state.decode())
    except UnicodeDecodeError as error:
        raise CorruptLog(f"session {stream!r}, version {version}: {error}") from error


def _streams(recorder: Recorder, tenant: str, stream: str | None) -> Iterator[str]:
    if stream is not None:
        yield stream
        return
    after = ""
    while names := recorder.streams(prefix=f"{tenant}/", after=after, limit=PAGE):
        yield from names
        after = names[-1]


def _keys(recorder: Recorder, stream: str, position: int) -> list[KeyRow]:
    """Return the keys whose events are in the export."""
    keys = recorder.select_all_keys(stream)
    last = _version_at(recorder, stream, position) if keys else 0
    return [key for key in keys if key.version <= last]


def _version_at(recorder: Recorder, stream: str, position: int) -> int:
    upto = None
    while rows := recorder.select_stream(stream, upto=upto, desc=True, limit=1):
        if rows[0][0] <= position:
            return rows[0][1]
        upto = rows[0][1] - 1
    return 0


def _require_none_deleted(recorder: Recorder, tenant: str, stream: str | None, position: int) -> None:
    """Refuse an export that holds one half of a session from before its erasure and the other from after it."""
    after = position
    while rows := recorder.select_log(after=after, limit=PAGE, prefix=f"{tenant}/"):
        for _, name, _, topic, _ in rows:
            if topic.startswith(DELETED) and name == (stream or name) and _version_at(recorder, name, position):
                raise StoreError(f"session {name!r} was deleted while it was being exported; export again")
        after = rows[-1][0]


def _write(file: BinaryIO, lines: Iterable[msgspec.Struct]) -> None:
    file.write(b"".join(_encode(line) + b"\n" for line in lines))
