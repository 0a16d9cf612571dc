"""What the blocking and the awaitable cache share: the storage, the flights of this process, the checked arguments."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import Enum
from functools import partial
from threading import Lock
from typing import NamedTuple, TypeVar

from turnlog import inputs
from turnlog.adapters import process_fork
from turnlog.cache.entries import Answer
from turnlog.cache.flights import Failed, Flights
from turnlog.cache.guarded import Guarded
from turnlog.cache.keys import Key, key_of, names, path
from turnlog.cache.storage import Storage
from turnlog.domain.errors import InvalidInput
from turnlog.domain.events import Json

LONGEST_TTL_S = 10 * 366 * 86_400.0
_THREADS = 4

T = TypeVar("T")


class Default(Enum):
    """What an argument is that was not given."""

    TTL = "the cache's own"


class Asked(NamedTuple):
    """A request that was checked, and copied: the key is that of what is sent to the model."""

    request: dict[str, Json]
    key: Key
    ttl_s: float | None


class Answers:
    """One storage, as threads and tasks of this process use it together."""

    def __init__(
        self, storage: Storage, *, ttl_s: float | None, max_value_bytes: int, lease_s: float, rest_s: float
    ) -> None:
        self.storage = storage
        self._ttl_s = ttl_s
        self._guard = partial(Guarded, storage, max_value_bytes=max_value_bytes, lease_s=lease_s, rest_s=rest_s)
        self._closed = False
        self._begin()
        process_fork.watch(self)

    def _begin(self) -> None:
        self.guarded = self._guard()
        self.flights = Flights()
        self._starting = Lock()
        self._threads: ThreadPoolExecutor | None = None

    def asked(self, request: object, scope: object, ttl_s: object = Default.TTL) -> Asked:
        """Check what every call is given."""
        copied = inputs.json_object("request", request)
        lasting_s = self._ttl_s if ttl_s is Default.TTL else time_to_live(ttl_s)
        return Asked(copied, key_of(copied, names(scope)), lasting_s)

    def read(self, key: Key) -> Answer | None:
        """Return what is stored. That is a hit; what comes of a miss is counted by whoever goes on."""
        stored = self.guarded.read(key)
        if stored is not None:
            self.guarded.counts.add("hits")
        return stored

    def get(self, key: Key, default: Json) -> Json:
        """Return what is stored, or ``default``."""
        stored = self.read(key)
        if stored is not None:
            return stored.value
        self.guarded.counts.add("misses")
        return default

    def shared(self, outcome: Answer | Failed) -> Json:
        """Return a copy of what somebody else in this process has made, or raise his error."""
        self.guarded.counts.add("waits")
        if isinstance(outcome, Failed):
            raise outcome.error
        return outcome.copy()

    def forget(self, scope: object) -> int:
        """Delete everything of a scope and of those below it."""
        checked = names(scope)
        if not checked:
            raise InvalidInput("scope", "expected at least one name; clear() deletes everything")
        return self.storage.forget(path(checked))

    def submitted(self, question: Callable[[], T]) -> Future[T] | None:
        """Have a thread ask the storage; None: it may be asked at once."""
        if self.storage.answers_at_once:
            return None
        with self._starting:
            if self._closed:
                return None
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="turnlog-cache")
            return self._threads.submit(question)

    def close(self) -> None:
        """Let go of the storage."""
        self.guarded.close()
        with self._starting:
            self._closed = True
            if self._threads is not None:
                self._threads.shutdown(wait=False)
        self.storage.close()

    def before_fork(self) -> None:
        """Do nothing: what a child must not share is made anew in it."""

    def after_fork(self, *, child: bool) -> None:
        """Begin anew in the child: it has none of its parent's threads, and so none of its calls."""
        if child:
            self._begin()


def time_to_live(value: object) -> float | None:
    """Return a time to live in seconds; None is for ever."""
    return None if value is None else inputs.seconds("ttl_s", value, most=LONGEST_TTL_S)
