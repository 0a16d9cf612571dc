"""A storage whose errors are misses: counted, logged once a minute, and followed by a rest in which it is left alone.

What deletes is not guarded: whoever asks for an answer to be forgotten must hear that it was not.
"""

import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from turnlog.cache.counting import Counts
from turnlog.cache.entries import Answer, encoded, sealed, unsealed
from turnlog.cache.keys import Key
from turnlog.cache.leases import Renewing
from turnlog.cache.storage import Claim, Lease, Missing, Storage
from turnlog.domain.errors import InvalidInput
from turnlog.domain.events import Json

_log = logging.getLogger("turnlog.cache")
_LOG_EVERY_S = 60.0
_CLAIMS = 2
"""The second where the first came upon a damaged entry."""
_RENEWALS = 3
"""How often a lease is renewed in its time."""

T = TypeVar("T")
U = TypeVar("U")


class Guarded:
    """Answers in a storage.

    Args:
        max_value_bytes: larger answers are not stored.
        lease_s: how long after the end of its holder a lease lasts.
        rest_s: how long the storage is not asked after an error.
    """

    def __init__(self, storage: Storage, *, max_value_bytes: int, lease_s: float, rest_s: float) -> None:
        self.counts = Counts()
        self._storage = storage
        self._max_value_bytes = max_value_bytes
        self._lease_s = lease_s
        self._rest_s = rest_s
        self._rests_until = self._silent_until = 0.0
        self._renewing = Renewing(self._renew, lease_s / _RENEWALS)

    def read(self, key: Key) -> Answer | None:
        """Return the answer that is stored, if it is whole."""
        found = self._asked(partial(self._storage.read, key), Missing.ABSENT)
        if isinstance(found, Missing):
            if found is Missing.EXPIRED:
                self.counts.add("expired")
            return None
        return self._opened(key, found)

    def write(self, key: Key, value: Json, ttl_s: float | None) -> bool:
        """Store a value; return whether it is."""
        payload = self.encoded(value)
        if payload is None:
            return False
        entry = sealed(key, payload)

        def written() -> bool:
            self._storage.write(key, entry, ttl_s)
            return True

        return self._counted(self._asked(written, otherwise=None))

    def claim(self, lease: Lease) -> Answer | Claim:
        """Return the answer, or what became of asking for the lease; a lease that is held is renewed from now on."""
        for _ in range(_CLAIMS):
            claimed = self._asked(partial(self._storage.claim, lease, self._lease_s), Claim.UNKNOWN)
            if claimed is Claim.HELD:
                self._renewing.hold(lease)
            if isinstance(claimed, Claim):
                return claimed
            answer = self._opened(lease.key, claimed)
            if answer is not None:
                return answer
        return Claim.UNKNOWN

    def keep(self, lease: Lease, payload: bytes, ttl_s: float | None) -> bool:
        """Store what was made and end the lease; return whether it is stored."""
        self._renewing.let_go(lease)
        entry = sealed(lease.key, payload)
        return self._counted(self._asked(partial(self._storage.keep, lease, entry, ttl_s), otherwise=None))

    def release(self, lease: Lease) -> None:
        """End a lease for which there is nothing to store."""
        self._renewing.let_go(lease)
        self._asked(partial(self._storage.release, lease), None)

    def encoded(self, value: Json) -> bytes | None:
        """Return a value's JSON; None, counted, if it cannot be stored."""
        try:
            payload = encoded(value)
        except InvalidInput as error:
            self._say("an answer is not stored: %s", error)
        else:
            if len(payload) <= self._max_value_bytes:
                return payload
            self._say("an answer is not stored: it has %d bytes", len(payload))
        self.counts.add("unstored")
        return None

    def close(self) -> None:
        """Renew no lease any more."""
        self._renewing.close()

    def _opened(self, key: Key, entry: bytes) -> Answer | None:
        answer = unsealed(key, entry)
        if answer is None:
            self.counts.add("corrupt")
            self._say("a damaged entry of %s was deleted", self._storage.name)
            self._asked(partial(self._storage.drop, key, entry), None)
        return answer

    def _counted(self, stored: bool | None) -> bool:  # noqa: FBT001 - None: an error, which is counted already
        if stored is not None:
            self.counts.add("stores" if stored else "unstored")
        return bool(stored)

    def _renew(self, leases: list[Lease]) -> None:
        self._asked(partial(self._storage.renew, leases, self._lease_s), None)

    def _asked(self, question: Callable[[], T], otherwise: U) -> T | U:
        if monotonic() < self._rests_until:
            return otherwise
        try:
            return question()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the caller's
            self._rests_until = monotonic() + self._rest_s
            self.counts.add("errors")
            self._say("%s failed, so there are only misses for %g s: %s", self._storage.name, self._rest_s, error)
            return otherwise

    def _say(self, words: str, *values: Any) -> None:
        now = monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _LOG_EVERY_S
            _log.warning(words, *values)
