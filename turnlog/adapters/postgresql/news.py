"""Waking those who wait for events: at once within a process, by LISTEN and NOTIFY across processes.

A NOTIFY inside an append would make commits queue up (measured: 25 to 40 % fewer), so a thread of the writing process
sends it afterwards, at most one in 5 ms, and only where somebody listens: listeners share an advisory lock, which then
cannot be had alone. Where nobody listened, it is not asked again for a moment, so who has just begun to listen is not
told of everything yet, and looks by himself every few ms until that moment has passed. All of it is a hint: one that is
lost costs the ceiling of a wait, never an event.
"""

import os
import threading
from contextlib import suppress
from time import monotonic

import psycopg
from psycopg.types.numeric import Int8

from turnlog.adapters.postgresql.connection import Connection, run
from turnlog.adapters.postgresql.pool import Pool
from turnlog.domain.errors import StoreError

BELL_S = 0.005
"""The least time between two notifications of one process."""
QUIET_S = 0.1
"""Where nobody listened, it is not looked again for so long."""
CEILING_S = 0.5
"""The longest time that a lost notification delays anybody."""


TELL = (
    "SELECT CASE WHEN pg_try_advisory_lock(%b) THEN NOT pg_advisory_unlock(%b) ELSE pg_notify(%b, '') IS NOT NULL END"
)
"""Notify if there are listeners, and say whether there are. The lock is let go at once: held until the commit, writers
who look at the same time would take each other for listeners, and look again every few ms."""


class News:
    """The bell of one log in one process. Its threads are started by the first who rings, or waits."""

    def __init__(self, pool: Pool, number: int) -> None:
        self._pool = pool
        self._listeners = Int8(number)
        self._channel = f"turnlog_{number & (1 << 63) - 1:x}"
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._heard = threading.Condition()
        self._count = 0
        self._told_from = 0.0
        self._due = threading.Event()
        self._closed = threading.Event()
        self._ringing: threading.Thread | None = None
        self._listening: threading.Thread | None = None

    @property
    def count(self) -> int:
        """How often there was news so far; to be read before looking, and given to ``wait``."""
        return self._count

    def ring(self) -> None:
        """Tell everybody, after a commit."""
        self._require_own()
        self._hear()
        if not self._due.is_set():
            self._due.set()
            self._ringing = self._running(self._ringing, self._ring)

    def wait(self, count: int, timeout_s: float) -> None:
        """Wait until there was news since ``count``, at most so long (and never longer than the ceiling)."""
        self._require_own()
        if self._listening is None:
            self._begin_to_listen()
        self._listening = self._running(self._listening, self._listen)
        now = monotonic()
        deadline = now + min(timeout_s, CEILING_S if now > self._told_from else BELL_S)
        with self._heard:
            while self._count == count and (left := deadline - monotonic()) > 0 and not self._closed.is_set():
                self._heard.wait(left)

    def close(self) -> None:
        """Ring once more if that is due, and have the threads end."""
        if self._pid != os.getpid() or self._closed.is_set():
            return
        self._closed.set()
        self._due.set()
        self._hear()
        if self._ringing is not None:
            self._ringing.join(CEILING_S)

    def _hear(self) -> None:
        with self._heard:
            self._count += 1
            self._heard.notify_all()

    def _begin_to_listen(self) -> None:
        """Note from when on writers know of it: until then, one may have found nobody, and not ask again yet."""
        self._told_from = monotonic() + 2 * QUIET_S

    def _require_own(self) -> None:
        if self._pid != os.getpid():
            self._start()

    def _running(self, thread: threading.Thread | None, target: object) -> threading.Thread | None:
        if (thread is not None and thread.is_alive()) or self._closed.is_set() or not callable(target):
            return thread
        started = threading.Thread(target=target, name="turnlog news", daemon=True)
        started.start()
        return started

    def _ring(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            over = self._closed.is_set()
            heard = False
            with suppress(StoreError):
                heard = self._notify()
            if over:
                return
            self._closed.wait(BELL_S if heard else QUIET_S)

    def _notify(self) -> bool:
        """Notify other processes unless nobody listens there; return whether somebody does."""
        ((heard,),) = self._pool.rows(TELL, (self._listeners, self._listeners, self._channel))
        return bool(heard)

    def _listen(self) -> None:
        while not self._closed.is_set():
            with suppress(StoreError, psycopg.Error), self._pool.session() as connection:
                run(connection, "SELECT pg_advisory_lock_shared(%b)", (self._listeners,), prepare=False)
                run(connection, f"LISTEN {self._channel}", prepare=False)
                self._begin_to_listen()
                self._hear()
                self._hear_from(connection)
            self._closed.wait(CEILING_S)

    def _hear_from(self, connection: Connection) -> None:
        while not self._closed.is_set():
            for _ in connection.notifies(timeout=CEILING_S, stop_after=1):
                self._hear()
