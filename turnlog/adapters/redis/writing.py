"""How turnlog's appends go to Redis: what was decided is written if it still fits, or decided anew until it does.

Nothing keeps other writers out while it is decided anew. What is read then is noted in the stream it is read from, and
whoever would erase that waits until it is committed, or for as long as ``HOLD_S``: who takes longer decides once more.
An append that erases has its turn at the views, too, so that what they forget is written by the same script.
"""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from time import monotonic
from typing import Any, Protocol
from uuid import uuid4

from turnlog.adapters.attempt import Taken, Undone, appended
from turnlog.adapters.redis.log import HOLD_S, NOTHING, Also, Log, Overdue
from turnlog.adapters.redis.wire import Cut, Unsent, translating
from turnlog.domain.errors import StoreError
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Again, Batch, KeyRow, SnapshotRow

SOME = 100
"""So many sessions are looked for at a time that are overdue."""


class Erasing(Protocol):
    """A transaction of the views in which they forget."""

    @property
    def lease(self) -> bytes:
        """The token of the turn at the views."""
        ...

    def writes(self) -> list[bytes | str | int]:
        """Return what is to be written, as arguments of a script."""
        ...


class Forgetting(Protocol):
    """What the views do when a session is erased."""

    def erasing(self, *, wait: bool = True) -> "AbstractContextManager[Erasing | None]":
        """Keep views from being written by others, and lend what takes up what is to be written with the erasure.

        Without ``wait`` it lends ``None`` where somebody else is writing.
        """
        ...

    def commit(self, connection: Any) -> None:
        """Write what they forget, where the append cannot."""
        ...

    def forget(self, connection: Any, tenant: str, session_id: str) -> list[str]:
        """Delete the session's rows; return the views that forget only when they catch up."""
        ...


class Appending:
    """What an append does; see attempt.py, which says when."""

    def __init__(self, log: Log, views: Forgetting | None, sweeper: "Sweeper") -> None:
        self._log = log
        self._views = views
        self._sweeper = sweeper
        self.name = log.server.name

    def translating(self) -> AbstractContextManager[None]:
        """Turn the driver's errors into turnlog's."""
        return translating(self.name)

    def write(self, batches: Sequence[Batch]) -> list[int]:
        """Commit ``batches`` in one round trip."""
        return self._write(batches, NOTHING)

    def queues(self, batches: Sequence[Batch]) -> bool:  # noqa: ARG002 - the port's
        """Return that they do not: there is no queue."""
        return False

    def ask(self, again: Again, before: Sequence[Batch], losses: int) -> list[int]:  # noqa: ARG002 - the port's
        """Commit what ``again`` returns, if it fits what is there by then."""
        if self._views is None or not _erases(before):
            return self._ask(again, None)
        # His turn from the start: those who have read, and wait for theirs, keep each other busy.
        with self._views.erasing() as turn:
            if turn is None:
                raise Undone
            return self._ask(again, turn)

    def _ask(self, again: Again, turn: Erasing | None) -> list[int]:
        reader = Holding(self._log)
        try:
            decided = again(reader)
        except BaseException:
            reader.let_go()
            raise
        return self._write(decided, Also(token=reader.token, read=tuple(reader.held), since=reader.since), turn)

    def select_stream(self, stream: str, *, after: int = 0, upto: int | None = None) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        return self._log.stream(stream, after=after, upto=upto)

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``."""
        return self._log.used(stream, keys)

    def _write(self, batches: Sequence[Batch], also: Also, turn: Erasing | None = None) -> list[int]:
        try:
            if self._views is None or not _erases(batches):
                return self._log.append(batches, also)
            if turn is not None:
                return self._erase(self._views, turn, batches, also)
            with self._views.erasing() as taken:
                if taken is None:
                    raise Undone
                return self._erase(self._views, taken, batches, also)
        except Overdue as error:
            if not self._sweeper.sweep((str(error),)):
                raise
            raise Taken from error

    def _erase(self, views: Forgetting, turn: Erasing, batches: Sequence[Batch], also: Also) -> list[int]:
        for batch in batches:
            if batch.erase:
                tenant, _, session_id = batch.stream.partition("/")
                views.forget(turn, tenant, session_id)
        if self._log.views_apart:
            positions = self._log.append(batches, also)
            views.commit(turn)  # if that is not to be: they forget when they catch up
            return positions
        return self._log.append(batches, also._replace(lease=turn.lease, views=turn.writes()))


def _erases(batches: Sequence[Batch]) -> bool:
    return any(batch.erase for batch in batches)


class OneByOne:
    """Appends that are never put together: on a cluster those of several sessions are not one."""

    def __init__(self, appending: Appending, timeout_s: float) -> None:
        self._appending = appending
        self.timeout_s = timeout_s

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Commit ``batches``, see ``Recorder``."""
        return appended(self._appending, batches, again, timeout_s=self.timeout_s)


class Sweeper:
    """Ends sessions whose time is over, each with what views hold of it in one script."""

    def __init__(self, log: Log, views: Forgetting | None) -> None:
        self._log = log
        self._views = views

    def sweep_all(self) -> None:
        """End those that are overdue, as far as nobody is in the way."""
        if self._log.server.read_only:
            return
        while (overdue := self._log.overdue(SOME)) and self.sweep(overdue):
            pass

    def sweep(self, streams: Sequence[str]) -> bool:
        """End streams; return whether all are ended by now. Nobody is waited for."""
        if self._views is None:
            return all(self._log.sweep(stream) for stream in streams)
        ended: list[bool] = []
        for stream in streams:
            with self._views.erasing(wait=False) as connection:
                if connection is None:
                    return False
                self._views.forget(connection, *stream.split("/", 1))
                also = Also(lease=connection.lease, views=connection.writes())
                with translating(self._log.server.name):
                    ended.append(self._log.sweep(stream, NOTHING if self._log.views_apart else also))
                if self._log.views_apart and ended[-1]:
                    self._views.commit(connection)
        return all(ended)


class Holding:
    """A ``Reader`` who notes, in each stream that he reads, that he decides by it."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.token = uuid4().hex
        self.since = monotonic()
        self.held: dict[str, None] = {}
        """The streams."""

    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        self._hold(stream)
        return self._log.stream(stream, after=after, upto=upto, desc=desc, limit=limit)

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``."""
        self._hold(stream)
        return self._log.used(stream, keys)

    def select_snapshot(self, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot, see ``Reader``."""
        self._hold(stream)
        return self._log.snapshot(stream)

    def let_go(self) -> None:
        """Say that nothing is decided by it: whoever wants to erase it need not wait."""
        with suppress(StoreError):  # then it expires
            if self.held:
                self._log.let_go(self.held, self.token)

    def _hold(self, stream: str) -> None:
        if stream in self.held:
            return
        with _undone():
            self._log.hold(stream, self.token, round(HOLD_S * 1000))
        self.held[stream] = None


@contextmanager
def _undone() -> Generator[None, None, None]:
    try:
        yield
    except (Cut, Unsent) as error:
        raise Undone from error
