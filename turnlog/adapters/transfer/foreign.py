"""Writing what was sealed elsewhere: events and keys as they are, by whole turns, what is there already passed over.

Restoring an export and copying from another store end here. A group of turns is one commit, in the order it came in; so
whatever stops it leaves whole turns, and doing it again goes on. What is there under the same place and is not the same
is left alone, with everything else of that session, and named.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from turnlog.domain.envelope import header_of, split
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Batch, KeyRow, Reader, Recorder, SnapshotRow
from turnlog.domain.values import Failure
from turnlog.domain.verification import DELETED

PAGE = 500
"""How many events or keys are committed at once, if no turn is longer."""


class Turn(msgspec.Struct, frozen=True, gc=False):
    """The events of one append, or a single key: what is written whole."""

    stream: str
    rows: tuple[StreamRow, ...] = ()
    key: KeyRow | None = None


class Turns:
    """Gathers rows of a log into whole turns; where writers take no lock, rows of others stand between those of one."""

    def __init__(self) -> None:
        self._begun: dict[str, list[StreamRow]] = {}

    def take(self, stream: str, row: StreamRow) -> Turn | None:
        """Take the next row; return the turn that it ends, if it does.

        Raises:
            CorruptLog: its header cannot be read.
        """
        i, n = header_of(row[3]).turn
        if i < n:
            self._begun.setdefault(stream, []).append(row)
            return None
        return Turn(stream, (*self._begun.pop(stream, ()), row))

    @property
    def unfinished(self) -> str | None:
        """A stream of which a turn has begun and not ended."""
        return next(iter(self._begun), None)


def groups(all_turns: Iterable[Turn]) -> Iterator[list[Turn]]:
    """Gather turns to commit at once: in one group the turns of a session stand together, so that order is kept."""
    group: list[Turn] = []
    size = 0
    streams: set[str] = set()
    for turn in all_turns:
        apart = turn.stream in streams and group[-1].stream != turn.stream
        mixed = bool(group) and (group[-1].key is None) != (turn.key is None)
        if size >= PAGE or apart or mixed:
            yield group
            group, size = [], 0
            streams.clear()
        group.append(turn)
        size += len(turn.rows) or 1
        streams.add(turn.stream)
    if group:
        yield group


class Written(NamedTuple):
    """What came of a group: events and keys that were written now, and events that were there already."""

    events: int = 0
    keys: int = 0
    already_there: int = 0


class ForeignRows:
    """Appends groups of turns to a log.

    ``refused`` holds, by stream, why sessions were left alone. ``snapshot`` is asked for the snapshot of a stream that
    has come to a version, to be written with it.
    """

    def __init__(
        self, recorder: Recorder, snapshot: Callable[[str, int, int], SnapshotRow | None] | None = None
    ) -> None:
        self._recorder = recorder
        self._snapshot = snapshot
        self._erased: set[str] = set()
        self.refused: dict[str, Failure] = {}

    def add(self, group: Sequence[Turn]) -> Written:
        """Append the group, or what of it is not there yet.

        Raises:
            StoreError: the storage failed; nothing of the group was written.
        """
        batches = self._batches([turn for turn in group if turn.stream not in self.refused])
        written: Sequence[Batch] = batches

        def again(reader: Reader) -> Sequence[Batch]:
            nonlocal written
            written = [rest for batch in batches if (rest := self._missing(reader, batch)) is not None]
            return written

        if batches:
            self._recorder.append(batches, again)
        events = sum(len(batch.rows) for batch in written)
        there = sum(len(batch.rows) for batch in batches if batch.stream not in self.refused) - events
        return Written(events, sum(len(batch.keys) for batch in written), there)

    def _batches(self, group: Iterable[Turn]) -> list[Batch]:
        """Return a batch for each session; of one that is erased here nothing but its events is wanted."""
        batches: list[Batch] = []
        for turn in group:
            if turn.key is not None and turn.stream in self._erased:
                continue
            rows = tuple((version, topic, state) for _, version, topic, state in turn.rows)
            keys = () if turn.key is None else (turn.key,)
            if batches and batches[-1].stream == turn.stream:
                last = batches.pop()
                rows, keys = (*last.rows, *rows), (*last.keys, *keys)
            batches.append(Batch(turn.stream, rows, keys, erase=bool(rows) and rows[-1][1].startswith(DELETED)))
        return [self._with_snapshot(batch) for batch in batches]

    def _with_snapshot(self, batch: Batch) -> Batch:
        if self._snapshot is None or not batch.rows or batch.erase:
            return batch
        return batch._replace(snapshot=self._snapshot(batch.stream, batch.rows[0][0], batch.rows[-1][0]))

    def _missing(self, reader: Reader, batch: Batch) -> Batch | None:
        """Return what of the batch is not there yet; note the session if what is there is not the same."""
        if batch.rows:
            return self._missing_rows(reader, batch)
        there = {row[:2]: row for row in reader.select_keys(batch.stream, [key[:2] for key in batch.keys])}
        for key in batch.keys:
            if there.get(key[:2], key) != key:
                self._refuse(batch.stream, key.version, f"the {key.kind} id {key.key!r} was used for something else")
                return None
        missing = tuple(key for key in batch.keys if key[:2] not in there)
        return batch._replace(keys=missing) if missing else None

    def _missing_rows(self, reader: Reader, batch: Batch) -> Batch | None:
        first, last = batch.rows[0][0], batch.rows[-1][0]
        there = {row[1]: row for row in reader.select_stream(batch.stream, after=first - 1, upto=last)}
        missing: list[tuple[int, str, bytes]] = []
        for row in batch.rows:
            found = there.get(row[0])
            if found is None:
                missing.append(row)
            elif not self._same(batch.stream, row, found):
                self._refuse(batch.stream, row[0], "it is there already with another event of this version")
                return None
        return batch._replace(rows=tuple(missing)) if missing else None

    def _same(self, stream: str, row: tuple[int, str, bytes], found: StreamRow) -> bool:
        header, digest, private = split(row[2])
        header_here, digest_here, private_here = split(found[3])
        if private_here is None:
            self._erased.add(stream)
        known = private is None or private_here is None or private == private_here
        return known and (row[1], header, digest) == (found[2], header_here, digest_here)

    def _refuse(self, stream: str, version: int, reason: str) -> None:
        session_id = stream.partition("/")[2]
        self.refused[stream] = Failure(session_id=session_id, version=version, reason=reason)
