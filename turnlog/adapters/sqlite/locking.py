"""Lock files beside a database: whose turn it is to write, and who alone builds something. POSIX only (flock).

flock's queue is first come, first served, where SQLite's own waiting is not (measured: DESIGN.md section 6). The kernel
frees the lock of a process that dies; for one that is stopped the others wait no longer than they want to.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

from turnlog.domain.errors import StoreUnavailable


class LockFile:
    """A lock between processes. Its threads take it one at a time: a mutex around it is theirs to have."""

    def __init__(self, path: str) -> None:
        self._descriptor = opened(path)
        self._queue: _Queue | None = None
        self.free: Callable[[], object] = partial(fcntl.flock, self._descriptor, fcntl.LOCK_UN)
        """Give it back; harmless where it is not held. C throughout, so that no signal finds a gap in it."""

    def take(self, timeout_s: float) -> bool:
        """Take it; return False if it could not be had within ``timeout_s``."""
        queue = self._queue
        if queue is None or not queue.waiting:
            if _try(self._descriptor):
                return True
            if timeout_s <= 0:
                return False
            if queue is None:
                try:
                    queue = self._queue = _Queue(self._descriptor)
                except RuntimeError:  # the interpreter is ending and starts no thread any more
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                    return True
        return queue.wait(max(timeout_s, 0))

    def close(self, *, join_s: float = 0) -> None:
        """Give the lock back and close the file; wait so long for the thread to end, if there is one."""
        if self._queue is None:
            _close(self._descriptor)
        else:
            self._queue.close(join_s)

    def disown(self) -> None:
        """Close it in a forked child: the lock stays the parent's."""
        os.close(self._descriptor)


class _Queue:
    """A thread that waits in flock, which cannot be given up, for somebody who can.

    It is started when there is somebody to wait for. If the lock comes after its taker has gone, it goes straight back.
    """

    def __init__(self, descriptor: int) -> None:
        self.waiting = False
        self._wanted = self._closed = False
        self._descriptor = descriptor
        self._guard, self._begin, self._granted = threading.Lock(), threading.Lock(), threading.Lock()
        self._begin.acquire()
        self._granted.acquire()
        self._thread = threading.Thread(target=self._run, name="turnlog-queue", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        try:
            with self._guard:
                self._granted.acquire(blocking=False)  # what was granted to somebody who had gone
                self._wanted = True
                if not self.waiting:
                    self.waiting = True
                    self._begin.release()
            return self._granted.acquire(timeout=timeout_s)
        finally:
            self._wanted = False

    def close(self, join_s: float) -> None:
        with self._guard:
            self._closed = True
            if not self.waiting:
                _close(self._descriptor)
                self._begin.release()
        if join_s and not self.waiting:
            self._thread.join(join_s)

    def _run(self) -> None:
        while True:
            self._begin.acquire()
            if self._closed:
                return
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            with self._guard:
                self.waiting = False
                if self._closed:
                    _close(self._descriptor)
                    return
                if self._wanted:
                    self._granted.release()
                else:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)


class Claims:
    """Names, each held by one at a time among all processes and threads, without waiting.

    Args:
        path: what the files that stand for them lie beside; None if there are no other processes.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._held: dict[str, object] = {}
        self._descriptors: set[int] = set()

    @contextmanager
    def claim(self, name: str) -> Generator[bool, None, None]:
        """Hold a name; yield whether it was got.

        Raises:
            StoreUnavailable: the file that stands for it cannot be opened.
        """
        if self._path is not None:
            with self._claim_file(f"{self._path}-{name}.claim") as got:
                yield got
            return
        claimant = object()
        try:
            yield self._held.setdefault(name, claimant) is claimant
        finally:
            if self._held.get(name) is claimant:
                del self._held[name]

    @contextmanager
    def _claim_file(self, path: str) -> Generator[bool, None, None]:
        descriptor = opened(path, "no place to build a view: ")
        self._descriptors.add(descriptor)
        try:
            got = _try(descriptor)
            if not got or _is_at(path, descriptor):
                yield got
                return
        finally:
            if descriptor in self._descriptors:  # in a forked child it is closed, and its number another file's
                self._descriptors.discard(descriptor)
                _close(descriptor)
        with self._claim_file(path) as got:  # whoever held it before has deleted the file
            yield got

    def disown(self) -> None:
        """Close the files in a forked child: the locks stay the parent's."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def opened(path: str, words: str = "") -> int:
    """Open a lock file, creating it if it is not there.

    Raises:
        StoreUnavailable: that cannot be done; ``words`` say what for.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreUnavailable(f"{words}{error.strerror}: {path}") from error


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: str, descriptor: int) -> bool:
    """Return whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))  # noqa: PTH116 - nothing else is asked of the path
    except FileNotFoundError:
        return False


def _close(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing alone would not do: a forked child may have the file open too
    os.close(descriptor)
