"""Sealed streams for tests: what a store would have written, from plain events, with no randomness."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from turnlog.domain.chain import genesis
from turnlog.domain.envelope import NewEvent, erase, seal
from turnlog.domain.mapper import Codec, StreamRow
from turnlog.domain.upcasting import REGISTRY, Registry
from turnlog.domain.values import Failure
from turnlog.domain.verification import StreamCheck
from turnlog.testing.scenario import at

STREAM = "default/s-1"
CODEC = Codec()


def salt(version: int) -> bytes:
    """Return 16 bytes that stand for random ones."""
    return bytes([version % 256]) * 16


def seal_stream(
    events: Iterable[Any],
    *,
    stream: str = STREAM,
    registry: Registry = REGISTRY,
    turns: Sequence[tuple[int, int]] = (),
    recorded_at: Callable[[int], datetime] = at,
    previous: bytes = b"",
    after: int = 0,
) -> list[StreamRow]:
    """Return the rows of a stream: chained, each event a turn of its own unless ``turns`` says otherwise.

    To go on with a stream, give the last hash as ``previous`` and the last version as ``after``.
    """
    rows: list[StreamRow] = []
    for version, event in enumerate(events, after + 1):
        first = salt(200) if version == 1 else None
        new = NewEvent(
            originator_id=stream,
            originator_version=version,
            topic=registry.topic_of(event),
            event=event,
            event_id=f"01900000-0000-7000-8000-{version:012x}",
            recorded_at=recorded_at(version),
            occurred_at=None,
            turn=turns[version - 1] if turns else (1, 1),
            previous=genesis(first, stream) if first else previous,
            salt=salt(version),
            genesis=first,
        )
        state, previous = seal(new)
        rows.append((version * 10, version, new.topic, state))
    return rows


def erased(rows: Iterable[StreamRow]) -> list[StreamRow]:
    """Return the rows with their content destroyed."""
    return [(position, version, topic, erase(state)) for position, version, topic, state in rows]


def check(rows: Iterable[StreamRow], *, stream: str = STREAM, codec: Codec = CODEC) -> Failure | None:
    """Verify a whole stream."""
    checked = StreamCheck(stream, stream.partition("/")[2])
    checked.feed(rows, codec.event)
    return checked.finish()
