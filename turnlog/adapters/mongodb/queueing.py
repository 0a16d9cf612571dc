"""Who lost a race for a session queues: that is fairness only, what keeps the log right are its unique indexes.

Without it a process that wrote last, and need not read, is first the next times too (measured: decision 17). So who has
lost counts up a word of warning, and who has not looks at it now and then: then both queue, for a while.

A place in the queue is a document that a transaction changes, which is undone in the end: the server lets go of it when
the process is killed (see abandoned.py). Who waits too long goes on without.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from random import uniform
from time import monotonic, sleep
from zlib import crc32

from pymongo.errors import PyMongoError

from turnlog.adapters.contended import Contended
from turnlog.adapters.mongodb.client import Client, Session
from turnlog.domain.recorder import Batch

LOOK_S = 0.05
"""So often, at most, who has not lost looks whether others have."""
WARN_S = 0.1
PATIENCE_S = 2.0
PAUSES_S = (0.05, 0.1, 0.2, 0.4)
"""At most, between looks whether a place is free."""
PLACES = 64
"""Sessions share them."""


class Queue:
    """The queues of one log, one for each contended session; ``collection`` holds their places."""

    def __init__(self, client: Client, collection: str) -> None:
        self._client = client
        self._collection = collection
        self._contended = Contended()
        self._warned: dict[str, int] = {}
        """What was read of each word of warning."""
        self._look = self._warn = 0.0

    def has(self, batches: Sequence[Batch]) -> bool:
        """Return whether there is a queue for one of the batches' streams; a standalone server has none."""
        if not self._client.server.replicated:
            return False
        if not self._contended.has(batches) and monotonic() > self._look:
            self._look = monotonic() + LOOK_S
            with suppress(PyMongoError):  # the append itself will tell of it
                if any(self._is_warned(word) for word in _named("warning", batches)):
                    self._contended.note(batches)
        return self._contended.has(batches)

    def _is_warned(self, word: str) -> bool:
        found = self._client.collection(self._collection, local=True).find_one({"_id": word})
        n = 0 if found is None else found["n"]
        before, self._warned[word] = self._warned.get(word, n), n
        return n != before

    def note(self, batches: Sequence[Batch]) -> None:
        """Note that a race over the streams of these batches was lost, and warn others."""
        self._contended.note(batches)
        if self._client.server.replicated and monotonic() > self._warn:
            self._warn = monotonic() + WARN_S
            words = self._client.collection(self._collection, local=True)
            for word in _named("warning", batches):
                words.update_one({"_id": word}, {"$inc": {"n": 1}}, upsert=True)

    @contextmanager
    def waited_for(self, batches: Sequence[Batch]) -> Generator[bool, None, None]:
        """Be alone inside among those who queue for the same streams, unless that takes too long.

        Lends whether nobody had to be waited for.
        """
        places = _named("queue", batches)
        deadline = monotonic() + min(PATIENCE_S, self._client.timeout_s)
        pauses = chain(PAUSES_S, repeat(PAUSES_S[-1]))
        was_free = True
        with self._client.client.start_session() as session:
            while not self._has_taken(session, places):
                was_free = False
                self._contended.note(batches)
                if monotonic() > deadline:
                    self._client.end_abandoned()
                    break
                sleep(uniform(0, next(pauses)))  # noqa: S311 - not a secret
            try:
                yield was_free
            finally:
                self._client.undo(session)

    def _has_taken(self, session: Session, places: Sequence[str]) -> bool:
        change = {"$inc": {"held": 1}}

        def take() -> None:
            for place in places:
                self._client.collection(self._collection).update_one(
                    {"_id": place}, change, upsert=True, session=session
                )

        return self._client.has_begun(session, take)


def _named(what: str, batches: Sequence[Batch]) -> list[str]:
    return sorted({f" {what} {crc32(batch.stream.encode()) % PLACES}" for batch in batches})
