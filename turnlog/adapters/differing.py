"""Comparing two generations of a table row by row, both read in the same order, and saying where they differ."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from turnlog.adapters.telling import Place

Row: TypeAlias = tuple[Any, ...]


def differing(
    place: Place, table: str, columns: Sequence[str], width: int, ours: Iterator[Row], theirs: Iterator[Row]
) -> Iterator[str]:
    """Say in words which rows differ, without what stands in them.

    Rows come in the order of their first ``width`` columns, which tell them apart.
    """
    for have, want in _merged(ours, theirs, width):
        row = place.words(table, dict(zip(columns[:width], want or have or (), strict=False)))
        if have is None:
            yield f"{row} is missing"
        elif want is None:
            yield f"{row} should not be there"
        else:
            yield f"{row} differs in {', '.join(c for c, a, b in zip(columns, have, want, strict=True) if a != b)}"


class Renew(Protocol):
    """Renews a claim: where that was not done for a while, or at once; raises if it is somebody else's by now."""

    def __call__(self, *, at_once: bool = False) -> None:
        """Do it."""
        ...


def renewing(rows: Iterator[Row], renew: Renew) -> Iterator[Row]:
    """Yield rows, and renew the claim on what they are read from."""
    for row in rows:
        renew()
        yield row


def while_claimed(found: Iterator[str], renew: Renew) -> Iterator[str]:
    """Yield what was found, sure each time, and in the end, that what it was found in was not dropped by others."""
    for words in found:
        renew(at_once=True)
        yield words
    renew(at_once=True)


def _merged(ours: Iterator[Row], theirs: Iterator[Row], width: int) -> Iterator[tuple[Row | None, Row | None]]:
    """Yield the pairs of rows that are not equal, by their first ``width`` values."""
    have, want = next(ours, None), next(theirs, None)
    while have is not None or want is not None:
        if have == want:
            have, want = next(ours, None), next(theirs, None)
        elif want is None or (have is not None and _ranked(have[:width]) < _ranked(want[:width])):
            yield have, None
            have = next(ours, None)
        elif have is None or _ranked(want[:width]) < _ranked(have[:width]):
            yield None, want
            want = next(theirs, None)
        else:
            yield have, want
            have, want = next(ours, None), next(theirs, None)


def _ranked(values: Row) -> list[tuple[int, Any]]:
    """Return values as Python sorts them the way databases do: null, numbers, text, bytes."""
    return [(0, 0) if v is None else (3 if isinstance(v, bytes) else 2 if isinstance(v, str) else 1, v) for v in values]
