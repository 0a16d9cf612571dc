"""What an append writes to MongoDB: one document where that is enough, else a transaction of several; and erasing.

Where there are no transactions, it is a plan (plans.py).
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from threading import RLock
from typing import Protocol

import pymongo

from turnlog.adapters import process_fork
from turnlog.adapters.attempt import Lost, Taken
from turnlog.adapters.mongodb import documents
from turnlog.adapters.mongodb.client import Client, Session
from turnlog.adapters.mongodb.documents import Document
from turnlog.adapters.mongodb.erasing import erase_stream
from turnlog.adapters.mongodb.head import Head
from turnlog.adapters.mongodb.queueing import Queue
from turnlog.adapters.reading import Inside, Reading
from turnlog.domain.errors import ConcurrencyConflict
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Again, Batch, KeyRow

PATIENCE_S = 5.0
"""After so long without an answer it is looked what is in the way, and the same sent again."""


class Turn:
    """A lock between the threads of a process; the child of a fork begins with a new one."""

    def __init__(self) -> None:
        self._lock = RLock()
        process_fork.watch(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        """See ``Forking``."""

    def after_fork(self, *, child: bool) -> None:
        """Renew it in the child, where the thread that may have held it does not exist; see ``Forking``."""
        if child:
            self._lock = RLock()


class Forgetting(Protocol):
    """What the views do when a session is erased, inside the erasing transaction."""

    def hold_still(self, session: Session) -> None:
        """Keep views from being written until the transaction ends."""
        ...

    def forget(self, session: Session, tenant: str, session_id: str) -> list[str]:
        """Delete the session's rows; return the views that forget only when they catch up."""
        ...


class Recording(Reading[Session | None], Protocol):
    """What an append needs of its recorder."""

    client: Client
    head: Head
    events: str
    tracking_table: str

    def select_stream(self, stream: str, *, after: int = 0, upto: int | None = None) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        ...

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``."""
        ...


class Appending:
    """What an append does to its recorder's collection; see ``attempt.Log``."""

    def __init__(self, recorder: Recording, views: Forgetting | None) -> None:
        self._recorder = recorder
        self._client, self._head, self._views = recorder.client, recorder.head, views
        self.name = self._client.name
        self._queue = Queue(self._client, recorder.tracking_table)
        self.turn = Turn()
        """Held by the thread that numbers a document, or decides anew: two would only be in each other's way."""
        self.translating = self._client.translating

    def write(self, batches: Sequence[Batch]) -> list[int]:
        """Commit ``batches``."""
        return self._write(batches, None)

    def queues(self, batches: Sequence[Batch]) -> bool:
        """Return whether their streams are contended."""
        return self._queue.has(batches)

    def ask(self, again: Again, before: Sequence[Batch], losses: int) -> list[int]:
        """Commit what ``again`` returns, if nothing was erased since it began to read.

        Who lost a race queues; who queues, and finds that what he has decided fits, has it committed as it is.

        Raises:
            ConcurrencyConflict: it does not fit, although nobody else has written meanwhile.
        """
        if losses:
            self._queue.note(before)
        if not self._queue.has(before):
            return self._ask(again)
        with self._queue.waited_for(before) as was_free:
            if not losses and (was_free or not self._is_late(before)):
                with suppress(Taken):
                    return self._write(before, None)
            return self._ask(again)

    def _is_late(self, batches: Sequence[Batch]) -> bool:
        """Return whether a version is taken that is to be written."""
        firsts = ((batch.stream, batch.rows[0][0]) for batch in batches if batch.rows)
        return any(self._recorder.select_stream(stream, after=n - 1, upto=n) for stream, n in firsts)

    def _ask(self, again: Again) -> list[int]:
        with self.turn:
            with self._client.reading() as session:
                newest = self._head.newest(session=session)
                batches = again(Inside(self._recorder, session))
            try:
                return self._write(batches, newest["erasures"])
            except Taken as error:
                if self._head.newest(local=True)["_id"] != newest["_id"]:
                    raise
                words = f"what was decided again does not fit the log: {error.__cause__}"
                raise ConcurrencyConflict(f"{self.name}: {words}") from error.__cause__

    def select_stream(self, stream: str, *, after: int = 0, upto: int | None = None) -> list[StreamRow]:
        """Return events of one stream, when all that can be read lasts; see ``Reader``."""
        self._head.settle()
        return self._recorder.select_stream(stream, after=after, upto=upto)

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, when all that can be read lasts; see ``Reader``."""
        self._head.settle()
        return self._recorder.select_keys(stream, keys)

    def _write(self, batches: Sequence[Batch], erasures: int | None) -> list[int]:
        """Commit ``batches``; with ``erasures``, only if so many erasures have been committed."""
        self._client.require_writable()
        made = documents.of_batches(batches)
        erasing = any(batch.erase for batch in batches)
        if not made:
            return [0] * len(batches)
        if len(made) == 1 and not erasing:
            with self.turn:
                return documents.positions(batches, self._append(made[0], erasures))
        if not self._client.server.replicated:
            with self.turn:
                erased = [batch.stream for batch in batches if batch.erase]
                place = self._head.insert_by_plan(made, erasures=erasures, erase=erased)
            return documents.positions(batches, place["position"])
        with self._writing(erasing=erasing) as session:
            place = self._head.insert(session, made, erasures=erasures, erasing=erasing)
            for batch in batches:
                if batch.erase:
                    self._erase(session, batch.stream)
        return documents.positions(batches, place["position"])

    def _append(self, document: Document, erasures: int | None) -> int:
        self._client.end_what_broke()
        try:
            with pymongo.timeout(min(PATIENCE_S, self._client.timeout_s)):
                return self._head.append(document, erasures=erasures)
        except Lost:  # the number may be held by a transaction whose process is no more
            self._client.end_abandoned()
            raise

    @contextmanager
    def _writing(self, *, erasing: bool) -> Generator[Session, None, None]:
        with self._client.transaction() as session:
            if erasing and self._views is not None:
                self._views.hold_still(session)
            yield session

    def _erase(self, session: Session, stream: str) -> None:
        """Destroy the content of every event of a stream, with its keys, snapshots and view rows."""
        erase_stream(self._client.collection(self._recorder.events), stream, session)
        if self._views is not None:
            tenant, _, session_id = stream.partition("/")
            self._views.forget(session, tenant, session_id)
