"""What an append gave: its receipt, read back at any later time from the keys and events that it left."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from turnlog.domain import events as e
from turnlog.domain.envelope import header_of
from turnlog.domain.errors import CorruptLog, IdempotencyConflict
from turnlog.domain.mapper import Codec, StreamRow, text_hash
from turnlog.domain.recorder import FINGERPRINT_BYTES, NOTHING_CHANGED, KeyRow, Reader, Recorder
from turnlog.domain.values import Receipt

Key: TypeAlias = tuple[str, str, bytes]
"""A kind of id, the id, and the fingerprint of the command that is written at most once under it."""


def earlier(reader: Reader, stream: str, keys: Sequence[Key]) -> KeyRow | None:
    """Return the row of one of these keys, if it was used.

    Raises:
        IdempotencyConflict: a key was used for something else.
    """
    wanted = {(kind, key): print_ for kind, key, print_ in keys}
    used = reader.select_keys(stream, list(wanted))
    for row in used:
        if row.fingerprint[:FINGERPRINT_BYTES] != wanted[row.kind, row.key]:
            raise IdempotencyConflict(f"{row.kind}_id {row.key!r} was already used for something else in this session")
    return used[0] if used else None


class Receipts(NamedTuple):
    """Finds what the appends to one stream, that of the session ``session_id``, gave."""

    recorder: Recorder
    codec: Codec
    stream: str
    session_id: str

    def under(self, keys: Sequence[Key]) -> Receipt | None:
        """Return the first receipt of a write that was made under one of these keys.

        Raises:
            IdempotencyConflict: a key was used for something else.
        """
        row = earlier(self.recorder, self.stream, keys)
        return None if row is None else self.first(row)

    def first(self, row: KeyRow) -> Receipt:
        """Return the receipt of the write that used this key, with the ids that it gave."""
        if row.fingerprint[FINGERPRINT_BYTES:] == NOTHING_CHANGED:
            return self.at(row.version, nothing=True)
        rows = self._append_of(row.version)
        receipt = self._of(rows)
        if row.kind == "message":
            return replace(receipt, message_id=row.key)
        _, _, topic, state = next(one for one in rows if one[1] == row.version)
        match self.codec.event(topic, state):
            case e.MessageAdded(message_id) | e.HistoryCompacted(message_id) | e.MessageRemoved(message_id):
                return replace(receipt, message_id=message_id)
            case e.ToolCalled(call_id) | e.ToolReturned(call_id):
                return replace(receipt, call_id=call_id)
            case e.RunStarted(run_id) | e.RunFinished(run_id):
                return replace(receipt, run_id=run_id)
            case _:
                return receipt

    def at(self, version: int, *, nothing: bool = False) -> Receipt:
        """Return the receipt of the append that wrote ``version``, or of writing ``nothing`` when it was the newest.

        Raises:
            CorruptLog: the version is missing.
        """
        if nothing:
            return replace(self._of(self._row(version)), event_ids=())
        return self._of(self._append_of(version))

    def _of(self, rows: Sequence[StreamRow]) -> Receipt:
        last = header_of(rows[-1][3])
        return Receipt(
            session_id=self.session_id,
            version=last.version,
            position=rows[-1][0],
            event_ids=tuple(header_of(row[3]).event_id for row in rows),
            recorded_at=last.recorded_at,
            durability=self.recorder.durability,
            hash=text_hash(last.hash),
        )

    def events_under(self, command_id: str) -> list[e.Event | e.Erased] | None:
        """Return the events of the append that was made under this ``command_id``; ``None`` if there was none."""
        used = self.recorder.select_keys(self.stream, (("command", command_id),))
        if not used:
            return None
        if used[0].fingerprint[FINGERPRINT_BYTES:] == NOTHING_CHANGED:
            return []
        return [self.codec.event(row[2], row[3]) for row in self._append_of(used[0].version)]

    def _append_of(self, version: int) -> list[StreamRow]:
        """Return the rows of the append that wrote ``version``."""
        rows = self._row(version)
        i, n = header_of(rows[0][3]).turn
        return rows if n == 1 else self.recorder.select_stream(self.stream, after=version - i, upto=version - i + n)

    def _row(self, version: int) -> list[StreamRow]:
        rows = self.recorder.select_stream(self.stream, after=version - 1, upto=version)
        if not rows:
            raise CorruptLog(f"session {self.stream!r}: version {version} is missing")
        return rows
