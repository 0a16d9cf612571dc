"""Group commit: appends that threads of one process make at the same time share a transaction.

Who finds a free way appends by himself, as ever. Who would have to wait puts his append into a queue instead, and a
thread, which no signal interrupts, writes whatever has come together meanwhile. Each append stays whole, with errors
and positions of its own: inside the transaction they are written one by one.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from turnlog.domain.errors import StoreUnavailable
from turnlog.domain.recorder import Again, Batch

MOST = 64
"""As many appends share a transaction, at most."""
IDLE_S = 1.0
"""The thread ends when there was nothing to write for so long."""


class Request:
    """An append in the queue, and what became of it: ``positions``, or an ``error``."""

    __slots__ = ("again", "batches", "done", "error", "positions")

    def __init__(self, batches: Sequence[Batch], again: Again) -> None:
        self.batches = batches
        self.again = again
        self.positions: list[int] | None = None
        self.error: Exception | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def write_by(self, write: Callable[[Sequence[Batch], Again], list[int]]) -> None:
        """Have it written by what writes one append, and keep what becomes of it."""
        try:
            self.positions = write(self.batches, self.again)
        except Exception as error:  # noqa: BLE001 - it is raised where the append was called
            self.error = error


Take = Callable[[], list[Request]]


class Grouping:
    """The queue of one log in one process.

    Args:
        write: writes the requests that it gets by calling its argument, at the latest moment, and gives each its
            ``positions`` or its ``error``; what it raises, all get that have neither.
        ways: how many appends find a free way at the same time (see ``alone_or_together``).
    """

    def __init__(self, write: Callable[[Take], None], timeout_s: float, *, ways: int = 0) -> None:
        self._write = write
        self._timeout_s = timeout_s
        self._number_of_ways = ways
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._ways = deque([None] * self._number_of_ways)
        self._queue: deque[Request] = deque()
        self._come = threading.Semaphore(0)
        self._guard = threading.Lock()
        self._running = False

    @property
    def waiting(self) -> int:
        """How many appends are in the queue."""
        return len(self._queue)

    def alone_or_together(
        self, alone: Callable[[Sequence[Batch], Again], list[int]], batches: Sequence[Batch], again: Again
    ) -> list[int]:
        """Write an append by ``alone``, if there is a free way, or else with others'."""
        if self._pid != os.getpid():
            self._start()
        try:
            self._ways.pop()
        except IndexError:
            return self.append(batches, again)
        try:
            return alone(batches, again)
        finally:
            self._ways.append(None)

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Have an append written with others'; return its positions, or raise what it raised.

        Raises:
            StoreUnavailable: its turn did not come in time.
        """
        if self._pid != os.getpid():  # in a forked child: the thread stayed with the parent
            self._start()
        request = Request(batches, again)
        try:
            self._queue.append(request)
            self._require_thread()
            self._come.release()
            if not request.done.acquire(timeout=self._timeout_s) and not self._withdrawn(request):
                request.done.acquire()  # it is being written, which takes no longer than the storage allows
        except BaseException:  # interrupted: what nobody has taken up yet will not be written
            self._withdrawn(request)
            raise
        if request.positions is None:
            raise request.error or StoreUnavailable("it was not written")
        return request.positions

    def _withdrawn(self, request: Request) -> bool:
        try:
            self._queue.remove(request)
        except ValueError:
            return False
        request.error = StoreUnavailable(f"its turn to write did not come for {self._timeout_s:g} s")
        return True

    def _require_thread(self) -> None:
        if not self._running:
            with self._guard:
                if not self._running:
                    threading.Thread(target=self._run, name="turnlog group", daemon=True).start()
                    self._running = True

    def _run(self) -> None:
        while True:
            if not self._come.acquire(timeout=IDLE_S):
                with self._guard:
                    if not self._queue:
                        self._running = False
                        return
            self._write_all()

    def _write_all(self) -> None:
        taken: list[Request] = []

        def take() -> list[Request]:
            with suppress(IndexError):
                while len(taken) < MOST:
                    taken.append(self._queue.popleft())
            return taken

        try:
            if self._queue:
                self._write(take)
        except Exception as error:  # noqa: BLE001 - it is raised where the appends were called
            for request in take():
                request.error = request.error or error
        finally:
            for request in taken:
                request.done.release()
