"""What a cache has done, counted by one handle in one process."""

from threading import Lock

import msgspec


class CacheStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the handle was opened (in a forked child: since the fork), of this process alone.

    Each ``get`` is a hit or a miss; each ``get_or_call`` is a hit, a miss (it called the model) or a wait (it was given
    what another caller's call of the model led to, be it an error), unless it was cancelled.
    """

    hits: int = 0
    misses: int = 0
    waits: int = 0
    stores: int = 0
    """Answers that were stored."""
    unstored: int = 0
    """Answers that were not: no JSON, too large, or deleted while they were made."""
    expired: int = 0
    """Misses for which there had been an answer. Redis deletes such by itself, and is not asked."""
    corrupt: int = 0
    """Damaged entries that were deleted; each was a miss."""
    errors: int = 0
    """Times that the storage could not do what was asked."""


class Counts:
    """The counts, as they rise."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts = dict.fromkeys(CacheStats.__struct_fields__, 0)

    def add(self, name: str) -> None:
        """Count one more."""
        with self._lock:
            self._counts[name] += 1

    def read(self) -> CacheStats:
        """Return all of them as of one moment."""
        with self._lock:
            return CacheStats(**self._counts)
