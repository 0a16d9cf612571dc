"""What contract tests write into a recorder: sealed events of short sessions, as batches."""

from collections.abc import Sequence

from turnlog.domain import events as e
from turnlog.domain.envelope import header_of
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Batch, KeyRow, Reader, Recorder, SnapshotRow
from turnlog.testing.sealing import seal_stream

S, T = "default/s", "default/t"


class Patience:
    """What contracts that wait for something share."""

    patience_s: float = 20.0
    """How long a test waits for what must happen."""


def batch(
    stream: str,
    n: int,
    *,
    before: Sequence[StreamRow] = (),
    words: str = "said",
    keys: Sequence[KeyRow] = (),
    snapshot: SnapshotRow | None = None,
    erase: bool = False,
) -> Batch:
    """Return a turn of ``n`` events that go on after the rows ``before``; the first event of all starts the session."""
    after = before[-1][1] if before else 0
    first: list[e.Event] = [] if before else [e.SessionStarted(user_id=f"owner of {stream}")]
    said = [
        e.MessageAdded(message_id=f"m-{i}", role="user", content=f"{words} {i}")
        for i in range(after + len(first) + 1, after + n + 1)
    ]
    previous = header_of(before[-1][3]).hash if before else b""
    turns = [(0, 0)] * after + [(i, n) for i in range(1, n + 1)]
    rows = seal_stream([*first, *said], stream=stream, after=after, previous=previous, turns=turns)
    return Batch(stream, [(version, topic, state) for _, version, topic, state in rows], keys, snapshot, erase)


def tombstone(stream: str, before: Sequence[StreamRow]) -> Batch:
    """Return the append that deletes the session of which ``before`` are the rows."""
    version, previous = before[-1][1], header_of(before[-1][3]).hash
    rows = seal_stream(
        [e.SessionDeleted()], stream=stream, after=version, previous=previous, turns=[(1, 1)] * (version + 1)
    )
    return Batch(stream, [(version, topic, state) for _, version, topic, state in rows], erase=True)


def write(recorder: Recorder, *batches: Batch) -> list[int]:
    """Append batches that nobody contests."""
    return recorder.append(batches, not_again)


def grow(recorder: Recorder, stream: str, n: int, words: str = "said") -> list[StreamRow]:
    """Append ``n`` events to a stream, in one turn, and return all its rows."""
    write(recorder, batch(stream, n, before=recorder.select_stream(stream), words=words))
    return recorder.select_stream(stream)


def not_again(_: Reader) -> Sequence[Batch]:
    """Stand for ``again`` where nobody else writes."""
    raise AssertionError("asked again, although nobody else has written")


def key(name: str, version: int, kind: str = "message") -> KeyRow:
    """Return a key with a fingerprint of its own."""
    return KeyRow(kind, name, version, name.encode().ljust(16, b".")[:16])


def append_many(recorder: Recorder, name: str, n: int, stream: str = S) -> None:
    """Append ``n`` events of the topic ``name``, each at the version it expects, deciding again when it is taken."""

    def next_batch(reader: Reader, i: int) -> Batch:
        rows = reader.select_stream(stream, desc=True, limit=1)
        return Batch(stream, [(rows[0][1] + 1 if rows else 1, name, b"%d" % i)])

    for i in range(n):

        def again(reader: Reader, i: int = i) -> Sequence[Batch]:
            return (next_batch(reader, i),)

        recorder.append((next_batch(recorder, i),), again)


def record(recorder: Recorder, stream: str, *events: e.Event, erase: bool = False) -> int:
    """Append these events to a stream, as one turn, and return the position of the last."""
    before = recorder.select_stream(stream, desc=True, limit=1)
    version = before[0][1] if before else 0
    previous = header_of(before[0][3]).hash if before else b""
    turns = [(0, 0)] * version + [(i, len(events)) for i in range(1, len(events) + 1)]
    rows = seal_stream(events, stream=stream, after=version, previous=previous, turns=turns)
    written = [(version, topic, state) for _, version, topic, state in rows]
    return write(recorder, Batch(stream, written, erase=erase))[0]
