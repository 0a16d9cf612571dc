"""For which sessions appends queue: those over which this process lost a race a moment ago.

There each append holds, from the start, what it raced for. Were it only the loser that does, whoever won the last race,
and need not read, would win the next ones too (measured: docs/decisions/0014).
"""

from collections.abc import Sequence
from time import monotonic

from turnlog.domain.recorder import Batch

CONTENDED_S = 1.0
"""So long after a lost race."""
MOST = 1_000


class Contended:
    """The streams of one log. Safe to share between threads."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def note(self, batches: Sequence[Batch]) -> None:
        """Note that a race over the streams of these batches was lost."""
        now = monotonic()
        if len(self._until) > MOST:
            self._until = {stream: until for stream, until in tuple(self._until.items()) if until > now}
        self._until.update((batch.stream, now + CONTENDED_S) for batch in batches)

    def has(self, batches: Sequence[Batch]) -> bool:
        """Return whether one of the batches' streams is among them."""
        return bool(self._until) and any(self._until.get(batch.stream, 0.0) > monotonic() for batch in batches)
