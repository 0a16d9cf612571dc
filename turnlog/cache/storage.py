"""The port through which the cache keeps answers. Every backend implements it, blocking; its errors are turnlog's.

An entry is bytes to a backend (entries.py). A lease says that one caller, of all processes, is making an answer: it
ends when it is given back, deleted, or not renewed in time. Only its holder's answer is stored, so what was deleted
while the model was being called stays deleted.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol, TypeAlias

from turnlog.cache.keys import Key

Clock: TypeAlias = Callable[[], float]
"""Seconds since 1970."""


class Missing(Enum):
    """Why there is no entry."""

    ABSENT = "absent"
    EXPIRED = "expired"


class Claim(Enum):
    """What became of a claim where there was no entry."""

    HELD = "the lease is the caller's"
    BUSY = "somebody else has it"
    UNKNOWN = "the storage could not be asked"


class Lease:
    """One caller's right to make an answer. Renewed for as long as somebody refers to it (leases.py)."""

    __slots__ = ("__weakref__", "key", "token")

    def __init__(self, key: Key, token: str) -> None:
        self.key = key
        self.token = token


class Storage(Protocol):
    """A backend. ``ttl_s`` is seconds, or None for ever; every method but ``close`` may raise ``StoreError``."""

    name: str
    """What to call it in a message; no password in it."""
    answers_at_once: bool
    """Whether it may be asked on an event loop."""

    def read(self, key: Key) -> bytes | Missing:
        """Return an entry."""
        ...

    def write(self, key: Key, entry: bytes, ttl_s: float | None) -> None:
        """Store an entry in place of what is there."""
        ...

    def claim(self, lease: Lease, lease_s: float) -> bytes | Claim:
        """Return the entry; where there is none, take the lease if nobody has it. Said again it is still held."""
        ...

    def renew(self, leases: Sequence[Lease], lease_s: float) -> None:
        """Have those leases that are still held last so much longer from now."""
        ...

    def keep(self, lease: Lease, entry: bytes, ttl_s: float | None) -> bool:
        """Store an entry and end the lease; where it is not held any more, do nothing and return False."""
        ...

    def release(self, lease: Lease) -> None:
        """End a lease, if it is held."""
        ...

    def drop(self, key: Key, entry: bytes) -> None:
        """Delete an entry if it is still this one."""
        ...

    def delete(self, key: Key) -> bool:
        """Delete an entry, and a lease for it; return whether there was one."""
        ...

    def forget(self, path: str) -> int:
        """Delete every entry and lease whose key's path begins so, and return how many entries."""
        ...

    def clear(self) -> int:
        """Delete every entry and lease, and return how many entries."""
        ...

    def purge(self) -> int:
        """Delete what has expired, and return how many entries."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...
