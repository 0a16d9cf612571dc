"""From the log to documents: the view that the engine runs.

A document at position p is a function of the log up to p, whoever writes it and whatever is there already. So pages may
be applied twice, or by two followers at once. An event that concerns messages said before (an edit, a removal, another
owner) is looked up in the log: the session's visible messages before the page and after it are compared.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from turnlog.adapters.opensearch.documents import Folded, Operation, Said, message_document, session_document
from turnlog.adapters.opensearch.layout import message_id, stream_id
from turnlog.domain import events as e
from turnlog.domain.errors import CorruptLog
from turnlog.domain.events import Erased
from turnlog.domain.mapper import Codec, LogRow, StreamRow
from turnlog.domain.recorder import Recorder
from turnlog.domain.values import Message
from turnlog.projections.brief import DELETED, Abridged
from turnlog.projections.dialogue import Dialogue
from turnlog.projections.history import Occurrence, message_of, messages_back, pages_back
from turnlog.projections.session_index import CLASSES, Entry, fold_rows

if TYPE_CHECKING:
    from turnlog.adapters.opensearch.writing import Bulk

Key: TypeAlias = tuple[int, int]
"""(version, item) of a visible message: the ``item``-th of those that the event at ``version`` brought."""
_REARRANGING = (
    e.OwnerAssigned,
    e.MessageEdited,
    e.MessageRemoved,
    e.HistoryCleared,
    e.HistoryReplaced,
    e.HistoryCompacted,
)


class Conversations:
    """The view: one document a session, one a visible message. Raise ``revision`` with every change to either."""

    name = "conversations"
    revision = 1
    key = "session"

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._brief = Abridged(CLASSES)

    def create(self, connection: "Bulk") -> None:
        """Do nothing: a generation is made with its indices."""

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: "Bulk") -> None:
        """Add the documents that a page of the log makes, or none of them if it raises."""
        by_stream: dict[str, list[LogRow]] = {}
        for row in rows:
            by_stream.setdefault(row[1], []).append(row)
        folded = connection.folded([stream for stream in by_stream if stream not in connection.forgotten])
        for stream, before in folded.items():
            page = self._page(stream, before, by_stream[stream], codec)
            if page is not None:
                made, documents = page
                connection.add(stream, by_stream[stream][0], made, documents)

    def forget(self, tenant: str, session_id: str, connection: "Bulk") -> None:
        """Delete the documents of a session that was erased."""
        stream = f"{tenant}/{session_id}"
        rows = self._recorder.select_stream(stream)
        brought = [version for _, version, topic, _ in rows if topic.startswith(("MessageAdded.", "HistoryCompacted."))]
        connection.forget(stream, rows[-1][0], [message_id(stream, version, 0) for version in brought])

    def _page(
        self, stream: str, before: Folded | None, rows: Sequence[LogRow], codec: Codec
    ) -> tuple[Folded, list[Operation]] | None:
        """Fold what is new of one session; ``None`` where there is nothing, or nothing any more."""
        known = before.entry.version if before else 0
        rows = [row for row in rows if row[2] > known]
        entries = {stream: before.copy().entry} if before else {}
        entry = fold_rows(entries, rows, self._brief.of(codec)).get(stream) if rows else None
        if entry is None:
            return None
        after = Folded(entry, before.dialogue.copy() if before else Dialogue())
        read = _read(stream, rows, after.dialogue, codec)
        if read.erased and self._is_deleted(stream):
            return None
        documents = _added(stream, entry, read)
        if read.rearranged:
            try:
                documents = self._rearranged(stream, before, entry, read, codec)
            except CorruptLog:
                if self._is_deleted(stream):
                    return None
                raise
        session = Operation("sessions", stream_id(stream), stream, entry.updated_position, session_document(after))
        return after, [*documents, session]

    def _rearranged(
        self, stream: str, before: Folded | None, entry: Entry, read: "_Read", codec: Codec
    ) -> list[Operation]:
        old = {} if before is None else self._visible(stream, before.entry.version, codec)
        new = self._visible(stream, entry.version, codec)
        same_owner = before is not None and before.entry.user_id == entry.user_id
        changed = [key for key, said in new.items() if not (same_owner and old.get(key) == said)]
        waited = read.waited
        if any(version < read.first for version, _ in changed):
            waited = self._all_waited(stream, entry.version, codec)
        at, hashed = entry.updated_position, stream_id(stream)
        return [
            *(
                _write(stream, at, message_document(hashed, entry, new[key]._replace(waited_s=waited.get(key))), key)
                for key in changed
            ),
            *(_write(stream, at, None, key) for key in (old.keys() | read.brought) - new.keys()),
        ]

    def _visible(self, stream: str, version: int, codec: Codec) -> dict[Key, Said]:
        """Return a session's visible messages as of a version, oldest first."""
        positions: dict[int, int] = {}
        pages = _noting(pages_back(self._recorder, stream, upto=version), positions)
        messages = list(messages_back(codec, stream, pages))[::-1]
        return {key: Said(message, positions[message.version], key[1]) for key, message in _numbered(messages)}

    def _all_waited(self, stream: str, version: int, codec: Codec) -> dict[Key, float | None]:
        rows = [(row[0], stream, *row[1:]) for row in self._recorder.select_stream(stream, upto=version)]
        return _read(stream, rows, Dialogue(), codec).waited

    def _is_deleted(self, stream: str) -> bool:
        newest = self._recorder.select_stream(stream, desc=True, limit=1)
        return newest[0][2].startswith(DELETED)


class _Read(NamedTuple):
    """What the new rows of one session say. ``first`` is the version of the first of them."""

    first: int
    added: list[Said]
    waited: dict[Key, float | None]
    brought: set[Key]
    rearranged: bool
    erased: bool


def _read(stream: str, rows: Sequence[LogRow], dialogue: Dialogue, codec: Codec) -> _Read:
    added: list[Said] = []
    waited: dict[Key, float | None] = {}
    brought: set[Key] = set()
    rearranged = erased = False
    for position, _, version, topic, state in rows:
        event, recorded_at, occurred_at = codec.occurrence(stream, (position, version, topic, state))
        waited_s = dialogue.meet(event, occurred_at)
        rearranged = rearranged or isinstance(event, _REARRANGING)
        erased = erased or isinstance(event, Erased)
        match event:
            case e.MessageAdded():
                message = message_of(Occurrence(version, event, recorded_at, occurred_at))
                if message is not None:
                    added.append(Said(message, position, 0, waited_s))
                waited[version, 0] = waited_s
                brought.add((version, 0))
            case e.HistoryReplaced(messages):
                brought |= {(version, item) for item in range(len(messages))}
            case e.HistoryCompacted():
                brought.add((version, 0))
            case _:
                pass
    return _Read(rows[0][2], added, waited, brought, rearranged, erased)


def _added(stream: str, entry: Entry, read: _Read) -> list[Operation]:
    hashed = stream_id(stream)
    return [
        _write(stream, said.position, message_document(hashed, entry, said), (said.message.version, said.item))
        for said in read.added
    ]


def _write(stream: str, position: int, source: bytes | None, key: Key) -> Operation:
    return Operation("messages", message_id(stream, *key), stream, position, source)


def _numbered(messages: Iterable[Message]) -> Iterator[tuple[Key, Message]]:
    """Yield messages, oldest first, with their place among the visible ones that one event brought."""
    seen: Counter[int] = Counter()
    for message in messages:
        yield (message.version, seen[message.version]), message
        seen[message.version] += 1


def _noting(pages: Iterable[list[StreamRow]], positions: dict[int, int]) -> Iterator[list[StreamRow]]:
    for rows in pages:
        positions.update((row[1], row[0]) for row in rows)
        yield rows
