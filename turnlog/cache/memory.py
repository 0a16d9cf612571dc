"""Answers in this process's memory, bounded: the least recently used go first.

Atomic under one lock; nothing outlives the process. A lease needs no time of its own: it is there while its holder
refers to it.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from turnlog.adapters import process_fork
from turnlog.cache.keys import Key
from turnlog.cache.storage import Claim, Clock, Lease, Missing


class _Kept(NamedTuple):
    entry: bytes
    path: str
    expires_at: float | None


class MemoryStorage:
    """See ``Storage``; of at most so many entries, and so many bytes of them."""

    name = "memory://"
    answers_at_once = True

    def __init__(self, *, clock: Clock, max_entries: int, max_bytes: int) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._leases: WeakValueDictionary[bytes, Lease] = WeakValueDictionary()
        self._size_bytes = 0
        process_fork.watch(self)

    def read(self, key: Key) -> bytes | Missing:
        """See ``Storage``."""
        with self._lock:
            return self._read(key)

    def write(self, key: Key, entry: bytes, ttl_s: float | None) -> None:
        """See ``Storage``."""
        with self._lock:
            self._write(key, entry, ttl_s)

    def claim(self, lease: Lease, lease_s: float) -> bytes | Claim:  # noqa: ARG002 - the port's
        """See ``Storage``."""
        with self._lock:
            found = self._read(lease.key)
            if isinstance(found, bytes):
                return found
            holder = self._leases.setdefault(lease.key.digest, lease)
            return Claim.HELD if holder.token == lease.token else Claim.BUSY

    def renew(self, leases: Sequence[Lease], lease_s: float) -> None:
        """Do nothing: a lease here lasts as long as somebody refers to it."""

    def keep(self, lease: Lease, entry: bytes, ttl_s: float | None) -> bool:
        """See ``Storage``."""
        with self._lock:
            if not self._end(lease):
                return False
            self._write(lease.key, entry, ttl_s)
            return True

    def release(self, lease: Lease) -> None:
        """See ``Storage``."""
        with self._lock:
            self._end(lease)

    def drop(self, key: Key, entry: bytes) -> None:
        """See ``Storage``."""
        with self._lock:
            kept = self._kept.get(key.digest)
            if kept is not None and kept.entry == entry:
                self._delete(key.digest)

    def delete(self, key: Key) -> bool:
        """See ``Storage``."""
        with self._lock:
            self._leases.pop(key.digest, None)
            return self._delete(key.digest)

    def forget(self, path: str) -> int:
        """See ``Storage``."""
        with self._lock:
            for lease in list(self._leases.values()):
                if lease.key.path.startswith(path):
                    del self._leases[lease.key.digest]
            return self._delete_all([digest for digest, kept in self._kept.items() if kept.path.startswith(path)])

    def clear(self) -> int:
        """See ``Storage``."""
        return self.forget("")

    def purge(self) -> int:
        """See ``Storage``."""
        with self._lock:
            now = self._clock()
            return self._delete_all([digest for digest, kept in self._kept.items() if _is_over(kept, now)])

    def close(self) -> None:
        """Delete everything, and keep nothing any more."""
        self._max_entries = 0
        self.clear()

    def before_fork(self) -> None:
        """Come to rest."""
        self._lock.acquire()

    def after_fork(self, *, child: bool) -> None:
        """Go on; what was being made is made by other threads, which the child does not have."""
        if child:
            self._leases.clear()
        self._lock.release()

    def _read(self, key: Key) -> bytes | Missing:
        kept = self._kept.get(key.digest)
        if kept is None:
            return Missing.ABSENT
        if _is_over(kept, self._clock()):
            self._delete(key.digest)
            return Missing.EXPIRED
        self._kept.move_to_end(key.digest)
        return kept.entry

    def _write(self, key: Key, entry: bytes, ttl_s: float | None) -> None:
        self._delete(key.digest)
        self._kept[key.digest] = _Kept(entry, key.path, None if ttl_s is None else self._clock() + ttl_s)
        self._size_bytes += len(entry)
        while len(self._kept) > self._max_entries or self._size_bytes > self._max_bytes:
            self._size_bytes -= len(self._kept.popitem(last=False)[1].entry)

    def _end(self, lease: Lease) -> bool:
        holder = self._leases.get(lease.key.digest)
        if holder is None or holder.token != lease.token:
            return False
        del self._leases[lease.key.digest]
        return True

    def _delete(self, digest: bytes) -> bool:
        kept = self._kept.pop(digest, None)
        if kept is None:
            return False
        self._size_bytes -= len(kept.entry)
        return True

    def _delete_all(self, digests: Sequence[bytes]) -> int:
        return sum(map(self._delete, digests))


def _is_over(kept: _Kept, now: float) -> bool:
    return kept.expires_at is not None and kept.expires_at <= now
