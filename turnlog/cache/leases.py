"""Leases are renewed while their holder is at it, by one thread that is there only while there is something to renew.

A lease must outlast the slowest model, and yet end soon after its holder's process: so it is short, and renewed. It is
known here only weakly: a holder that was interrupted anywhere is no longer referring to it.
"""

from collections.abc import Callable
from contextlib import suppress
from threading import Condition, Thread
from weakref import WeakSet

from turnlog.cache.storage import Lease


class Renewing:
    """Calls ``renew`` with the leases that are held, every ``every_s`` seconds."""

    def __init__(self, renew: Callable[[list[Lease]], None], every_s: float) -> None:
        self._renew = renew
        self._every_s = every_s
        self._changed = Condition()
        self._held: WeakSet[Lease] = WeakSet()
        self._thread: Thread | None = None
        self._closed = False

    def hold(self, lease: Lease) -> None:
        """Renew a lease from now on."""
        with self._changed:
            self._held.add(lease)
            if self._thread is None and not self._closed:
                self._thread = Thread(target=self._run, name="turnlog-cache-leases", daemon=True)
                with suppress(RuntimeError):  # the interpreter is ending and starts no thread any more
                    self._thread.start()

    def let_go(self, lease: Lease) -> None:
        """Renew it no longer."""
        with self._changed:
            self._held.discard(lease)

    def close(self) -> None:
        """Renew nothing any more."""
        with self._changed:
            self._closed = True
            self._held.clear()
            self._changed.notify()

    def _run(self) -> None:
        while held := self._due():
            self._renew(held)
            del held  # a reference of our own would keep them

    def _due(self) -> list[Lease]:
        """Wait for the next turn; where there is nothing to renew by then, end the thread."""
        with self._changed:
            if not self._closed:
                self._changed.wait(self._every_s)
            held = list(self._held)
            if not held:
                self._thread = None
            return held
