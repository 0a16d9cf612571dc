"""One lock between the threads of a process, which a forked child does not inherit as held."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock


class Mutex:
    """Lets one thread through; the child of a fork begins with a new one."""

    def __init__(self) -> None:
        self._lock, self._pid = Lock(), os.getpid()

    @contextmanager
    def held(self, timeout_s: float) -> Generator[bool, None, None]:
        """Hold it, or say within ``timeout_s`` that somebody else does."""
        if self._pid != os.getpid():
            self._lock, self._pid = Lock(), os.getpid()  # the parent's may be held by a thread that is not here
        lock = self._lock
        got = lock.acquire(timeout=timeout_s)
        try:
            yield got
        finally:
            if got:
                lock.release()
