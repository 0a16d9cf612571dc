"""What a page of the log writes, gathered and then sent: messages, sessions, and last the checkpoint.

A crash in between leaves the checkpoint where it was, and the page is applied again. The checkpoint is written only if
nobody else has meanwhile; where somebody has, both have applied what they say, and the farther one counts. Who was
overtaken may have been paused for long, and have written what was erased since: it looks, and deletes that again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec

from turnlog.adapters.opensearch.client import Rejected
from turnlog.adapters.opensearch.documents import Folded, Operation, folded_of
from turnlog.adapters.opensearch.generations import GONE, Generations, Held, State
from turnlog.adapters.opensearch.layout import stream_id
from turnlog.domain.mapper import LogRow
from turnlog.domain.recorder import Recorder
from turnlog.projections.brief import DELETED
from turnlog.projections.view_store import Parked

Change: TypeAlias = Callable[[State], State]
BATCH = 1_000
BATCH_BYTES = 8 * 1024 * 1024


class Bulk:
    """A transaction as far as there is one here: the "connection" that the engine passes on.

    Args:
        held: the generation that is written to, with its checkpoint as it was read; ``None`` where there is none.
    """

    def __init__(self, generations: Generations, held: Held | None, recorder: Recorder) -> None:
        self._generations = generations
        self._recorder = recorder
        self.held = held
        self.forgotten: dict[str, tuple[int, Sequence[str]]] = {}
        self._operations: dict[tuple[str, str], Operation] = {}
        self._folded: dict[str, Folded | None] = {}
        self._first: dict[str, LogRow] = {}
        self._changes: list[Change] = []

    @property
    def state(self) -> State | None:
        """The checkpoint, with what is to be changed."""
        return None if self.held is None else self._changed(self.held.state)

    def change(self, change: Change) -> None:
        """Change the checkpoint; it is done again on a newer one if that was written meanwhile."""
        self._changes.append(change)

    def folded(self, streams: Sequence[str]) -> dict[str, Folded | None]:
        """Return what is kept of these sessions, as it will be; ``None`` of those that are new."""
        missing = [stream for stream in streams if stream not in self._folded]
        for some in _batches(missing):
            self._folded |= dict(zip(some, self._get(some), strict=True))
        return {stream: self._folded[stream] for stream in streams}

    def add(self, stream: str, first: LogRow, folded: Folded, operations: Iterable[Operation]) -> None:
        """Add what a session's rows, of which ``first`` is the first, have come to."""
        self._folded[stream] = folded
        self._first.setdefault(stream, first)
        self._operations |= {(one.kind, one.id): one for one in operations}

    def forget(self, stream: str, position: int, ids: Sequence[str]) -> None:
        """Delete all of a session that was deleted at a position; ``ids`` are of messages that it may have had."""
        self._operations = {key: one for key, one in self._operations.items() if one.stream != stream}
        self._folded[stream] = None
        self.forgotten[stream] = (position, ids)

    def commit(self) -> None:
        """Send everything.

        Raises:
            StoreUnavailable: it could not be sent whole; the checkpoint is as it was.
        """
        if self.held is None or not (self._changes or self._operations or self.forgotten):
            return
        for stream, (position, ids) in self.forgotten.items():
            self._delete(stream, position, ids)
        operations = list(self._operations.values())
        bad = self._send([one for one in operations if one.kind == "messages"])
        bad |= self._send([one for one in operations if one.kind == "sessions" and one.stream not in bad])
        for stream, reason in bad.items():
            self._park(stream, reason)
        if self._save():
            self._delete_what_was_erased()

    def _changed(self, state: State) -> State:
        for change in self._changes:
            state = change(state)
        return state

    def _get(self, streams: Sequence[str]) -> Iterator[Folded | None]:
        """Read sessions by id, which sees what was written a moment ago."""
        if self.held is None:
            return iter([None] * len(streams))
        path = f"/{self._writing('sessions')}/_mget"
        found = self._generations.client.ask("POST", path, {"ids": [stream_id(stream) for stream in streams]}).body
        return (folded_of(one["_source"]) if one.get("found") else None for one in found["docs"])

    def _send(self, operations: Sequence[Operation]) -> dict[str, str]:
        """Send documents; return the sessions of those that the server will never take, and why."""
        streams = {one.id: one.stream for one in operations}
        bad: list[Rejected] = []
        for lines in _chunks(one.encoded(self._writing(one.kind)) for one in operations):
            bad += self._generations.client.bulk(lines)
        return {streams[one.id]: one.reason for one in bad if not self._is_gone(one)}

    def _delete(self, stream: str, position: int, ids: Sequence[str] = ()) -> None:
        """Delete a session's documents: those of these ids, those that can be found, and its own."""
        client, messages = self._generations.client, self._writing("messages")
        found: set[str] = set(ids)
        query = {"query": {"term": {"stream": stream_id(stream)}}, "size": 10_000, "_source": False}
        while True:
            operations = [Operation("messages", id_, stream, position) for id_ in found]
            self._send([*operations, Operation("sessions", stream_id(stream), stream, position)])
            client.ask("POST", f"/{messages}/_refresh")
            hits = client.ask("POST", f"/{messages}/_search", query).body["hits"]["hits"]
            if not hits or found == (found := {hit["_id"] for hit in hits}):
                return

    def _park(self, stream: str, reason: str) -> None:
        position, _, version, _, _ = self._first[stream]

        def change(state: State) -> State:
            return state.parking(Parked(state.name, stream, version, position, reason, 1, datetime.now(UTC)))

        self._changes.append(change)

    def _save(self) -> bool:
        """Write the checkpoint; return whether somebody else had."""
        overtaken = False
        while self.held is not None and not self._generations.save(self.held, self._changed(self.held.state)):
            overtaken = True
            self.held = self._generations.load(self.held.generation)
        return overtaken

    def _delete_what_was_erased(self) -> None:
        for stream in self._first:
            newest = self._recorder.select_stream(stream, desc=True, limit=1)[0]
            if self.held is not None and newest[2].startswith(DELETED):
                self._delete(stream, newest[0])

    def _writing(self, kind: str) -> str:
        """Return the alias to write through; where the generation is gone, one that never is there."""
        return self._generations.names.writing(kind, 0 if self.held is None else self.held.generation)

    def _is_gone(self, rejected: Rejected) -> bool:
        """Return whether it is not the document that is refused: the generation was replaced meanwhile."""
        return rejected.reason.startswith(GONE)


def _batches(streams: Sequence[str]) -> Iterator[Sequence[str]]:
    return (streams[i : i + BATCH] for i in range(0, len(streams), BATCH))


def _chunks(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield lines together, so many that a request stays small."""
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        if chunk and (size + len(line) > BATCH_BYTES or len(chunk) == BATCH):
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    if chunk:
        yield chunk


def settled(state: State, position: int, mark: bytes, revision: int) -> State:
    """Return the checkpoint moved on to a position, unless it is farther already."""
    if position <= state.position and revision == state.revision:
        return state
    return msgspec.structs.replace(state, position=position, mark=mark, revision=revision)
