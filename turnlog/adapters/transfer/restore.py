"""A log export (export.py) back into a store, as the same log: ids, times, versions, hashes, keys.

The file is read twice. The first reading checks every line, every chain and the end, before anything is written; the
second appends whole turns in the file's order. So a restore that was stopped has left a prefix of whole turns, and goes
on when it is started again: what is already there with the same hashes is passed over.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from time import perf_counter
from typing import BinaryIO

import msgspec

from turnlog.adapters.inside import decider_of
from turnlog.adapters.transfer.exported import ExportReading, Turn, check_export, turns
from turnlog.adapters.transfer.lines import Lines
from turnlog.domain.envelope import split
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Batch, Reader
from turnlog.domain.values import Failure
from turnlog.domain.verification import DELETED
from turnlog.store import ConversationStore

PAGE = 500
"""How many events or keys are committed at once, if no turn is longer."""


class RestoreProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Given to ``restore_log(progress=…)``; ``total`` events are known once all have been checked."""

    checked: int
    restored: int
    total: int | None


class RestoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds, and of it what was restored now or already there; ``refused`` differs from what is there."""

    sessions: int
    events: int
    keys: int
    restored: int
    already_there: int
    refused: tuple[Failure, ...]
    seconds: float


Progress = Callable[[RestoreProgress], None]


def restore_log(store: ConversationStore, file: BinaryIO | Lines, *, progress: Progress | None = None) -> RestoreReport:
    """Make the log in ``file`` (plain or gzip) part of the store.

    Sessions that are there already and differ are left alone and named in the report; those erased here stay erased.

    Raises:
        InvalidInput: the file is no export, is cut, damaged, of another tenant or a newer format; nothing is written.
        CorruptLog: a session in it does not verify; the message names the first bad event, and nothing is written.
    """
    began = perf_counter()
    given = file if isinstance(file, Lines) else Lines(file, str(getattr(file, "name", "the export")))
    tell = progress or _silent

    def tell_checked(events: int) -> None:
        tell(RestoreProgress(checked=events, restored=0, total=None))

    with given.rewindable() as lines:
        checked = check_export(ExportReading(lines, store.tenant), decider_of(store).codec, tell_checked)
        lines.rewind()
        restoring = _Restoring(store, checked.events, tell)
        for group in _groups(turns(ExportReading(lines, store.tenant))):
            restoring.add(group)
    store.catch_up()
    return RestoreReport(
        sessions=checked.sessions,
        events=checked.events,
        keys=checked.keys,
        restored=restoring.restored,
        already_there=restoring.already_there,
        refused=tuple(restoring.refused.values()),
        seconds=perf_counter() - began,
    )


def _silent(_: RestoreProgress) -> None:
    return


def _groups(all_turns: Iterable[Turn]) -> Iterator[list[Turn]]:
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


def _batches(group: Iterable[Turn]) -> list[Batch]:
    batches: list[Batch] = []
    for turn in group:
        rows = tuple((version, topic, state) for _, version, topic, state in turn.rows)
        keys = () if turn.key is None else (turn.key,)
        if batches and batches[-1].stream == turn.stream:
            last = batches.pop()
            rows, keys = (*last.rows, *rows), (*last.keys, *keys)
        batches.append(Batch(turn.stream, rows, keys, erase=bool(rows) and rows[-1][1].startswith(DELETED)))
    return batches


class _Restoring:
    """Appends groups of turns, and keeps the account of it."""

    def __init__(self, store: ConversationStore, total: int, tell: Progress) -> None:
        self._recorder = decider_of(store).recorder
        self._total = total
        self._tell = tell
        self._erased: set[str] = set()
        self.refused: dict[str, Failure] = {}
        self.restored = 0
        self.already_there = 0

    def add(self, group: Sequence[Turn]) -> None:
        """Append the group, or what of it is not there yet."""
        wanted = [turn for turn in group if turn.stream not in self.refused]
        batches = [batch for batch in _batches(wanted) if batch.rows or batch.stream not in self._erased]
        written: Sequence[Batch] = batches

        def again(reader: Reader) -> Sequence[Batch]:
            nonlocal written
            written = [rest for batch in batches if (rest := self._missing(reader, batch)) is not None]
            return written

        if batches:
            self._recorder.append(batches, again)
        rows = sum(len(batch.rows) for batch in written)
        self.restored += rows
        self.already_there += sum(len(batch.rows) for batch in batches if batch.stream not in self.refused) - rows
        self._tell(RestoreProgress(checked=self._total, restored=self.restored, total=self._total))

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
