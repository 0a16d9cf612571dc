"""Reading events of many streams at once, each by its version: what the recorders have in common."""

from collections.abc import Iterable, Iterator, Sequence

from turnlog.domain.mapper import LogRow, StreamRow
from turnlog.domain.recorder import StreamVersion

MOST = 500
"""So many events, at most, one statement asks for."""


def pages(wanted: Sequence[StreamVersion]) -> Iterator[list[StreamVersion]]:
    """Yield what is wanted, each once, as much at a time as one statement asks for."""
    each = list(dict.fromkeys(wanted))
    return (each[start : start + MOST] for start in range(0, len(each), MOST))


def by_version(rows: Iterable[LogRow]) -> Iterator[tuple[StreamVersion, StreamRow]]:
    """Yield rows of the log, each with the stream and the version by which it was asked for."""
    return (((stream, version), (position, version, topic, state)) for position, stream, version, topic, state in rows)
