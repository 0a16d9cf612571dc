"""Waking those who wait for events: at once within a process, by a change stream across processes.

The stream is a hint: whoever is woken looks at the log itself, and looks now and then in any case. So one that breaks,
or whose history the server has dropped, costs the ceiling of a wait and no event. Where there are no change streams (a
standalone server) the log is looked at every few milliseconds.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from pymongo.errors import PyMongoError

from turnlog.adapters.mongodb.client import Client
from turnlog.domain.errors import StoreError

CEILING_S = 0.5
"""The longest time that lost news delays anybody."""
POLL_S, FIRST_POLL_S = 0.05, 0.002
"""How long, at most and at first, the pauses are between two looks where no stream is heard."""
IDLE_S = 10.0
"""The thread that listens ends when nobody has waited for so long."""
_INSERTS: Sequence[Mapping[str, Any]] = [{"$match": {"operationType": "insert"}}, {"$project": {"_id": 1}}]


class News:
    """The news of one collection in one process. Its thread is started by the first who waits."""

    def __init__(self, client: Client, events: str) -> None:
        self._client = client
        self._events = events
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._heard = threading.Condition()
        self._count = 0
        self._waiting = 0
        self._waited = 0.0
        self._listening = False
        self._thread: threading.Thread | None = None

    def tell(self) -> None:
        """Wake them, after a commit."""
        if self._waiting:
            self._hear()

    def wait(self, is_there: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``is_there``; it is asked whenever there was news, and now and then."""
        if self._pid != os.getpid():
            self._start()
        deadline = monotonic() + timeout_s
        pause_s = FIRST_POLL_S
        self._begin()
        try:
            while True:
                count = self._count
                if is_there():
                    return True
                left_s = deadline - monotonic()
                if left_s <= 0:
                    return False
                self._listen()
                self._pause(count, min(left_s, CEILING_S if self._listening else pause_s))
                pause_s = min(2 * pause_s, POLL_S)
        finally:
            self._end()

    def _begin(self) -> None:
        with self._heard:
            self._waiting += 1

    def _end(self) -> None:
        with self._heard:
            self._waiting -= 1
            self._waited = monotonic()

    def _pause(self, count: int, most_s: float) -> None:
        with self._heard:
            if self._count == count:
                self._heard.wait(most_s)

    def _hear(self) -> None:
        with self._heard:
            self._count += 1
            self._heard.notify_all()

    def _listen(self) -> None:
        if self._client.server.replicated and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="turnlog news", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            with suppress(PyMongoError, StoreError):
                self._follow()
        finally:
            self._listening = False
            self._hear()

    def _follow(self) -> None:
        """Hear of inserts until nobody waits for them, or the stream breaks: who waits then begins another."""
        events = self._client.collection(self._events)
        with events.watch(_INSERTS, max_await_time_ms=int(CEILING_S * 1000)) as stream:
            self._listening = True
            self._hear()  # whatever came before the stream began
            while stream.alive and (self._waiting or monotonic() - self._waited < IDLE_S):
                if stream.try_next() is not None:
                    self._hear()
