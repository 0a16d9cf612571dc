"""Applying a page of the log to a view: its rows, its checkpoint and what it had to park, in one transaction.

A session whose event cannot be applied is parked, alone and visibly. That is told from trouble of the storage, which
parks nobody. An event that ends the process is noticed by the next one, see ``Trial``.
"""

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeAlias

from turnlog.domain.chain import row_seal
from turnlog.domain.mapper import Codec, LogRow
from turnlog.domain.recorder import Recorder
from turnlog.projections.brief import DELETED
from turnlog.projections.standing import until_it_stands
from turnlog.projections.view_store import Checkpoint, Parked, Projection, RowProjection, Trial, ViewStore, by_rows

DEATHS = 2
"""After so many processes that ended with the same event first in hand, its session is parked."""

Applied: TypeAlias = Projection | RowProjection
_log = logging.getLogger("turnlog")


class Applier:
    """Brings views forward, in any store of views."""

    def __init__(self, recorder: Recorder, codec: Codec, clock: Callable[[], datetime]) -> None:
        self.recorder = recorder
        self.codec = codec
        self._clock = clock

    @until_it_stands
    def advance(
        self, views: ViewStore, view: Applied, *, limit: int | None = None, upto: int | None = None, wait: bool = True
    ) -> Checkpoint | None:
        """Apply the page after the view's checkpoint and return the checkpoint reached.

        ``None`` is returned, and nothing done, where somebody else is writing (without ``wait``), or where the view
        that is stored is not of this revision.
        """
        with self._trying(views, view), views.write(wait=wait) as connection:
            at = None if connection is None else views.checkpoints(connection).get(view.name)
            if at is None or at.revision != view.revision:
                return None
            reached = self._page(views, view, connection, at, limit or views.page, upto)
        self._end_trial(views, view, reached)
        return reached

    def finish(self, views: ViewStore, view: Applied, connection: Any) -> None:
        """Bring the view to the log's end inside the caller's transaction."""
        at, reached = None, views.checkpoints(connection)[view.name]
        with self._trying(views, view):
            while reached != at:
                at, reached = reached, self._page(views, view, connection, reached, views.page, None)
        self._end_trial(views, view, reached)

    def apply(self, views: ViewStore, view: Applied, connection: Any, rows: Sequence[LogRow]) -> None:
        """Hand rows over, but for those of parked sessions; park the sessions of those that cannot be applied."""
        for row in _deleted(rows):
            views.release(connection, view.name, row[1])
            self._let_go(views, view, connection, row)
        parked = {parked.stream for parked in views.parked(connection, view.name)}
        if parked:
            rows = [row for row in rows if row[1] not in parked]
        if self._attempt(views, view, connection, rows) is None:
            return
        for row in rows:
            if row[1] not in parked:
                error = self._attempt(views, view, connection, (row,))
                if error is not None:
                    parked.add(row[1])
                    self._park(views, view, connection, row, f"{type(error).__name__}: {error}")

    def retry(self, views: ViewStore, view: Applied, connection: Any, parked: Parked, upto: int) -> bool:
        """Apply what a parked session missed; return whether it went through. Otherwise it is parked as it was."""
        rows = self.recorder.select_stream(parked.stream, after=parked.version - 1)
        waiting = [(row[0], parked.stream, *row[1:]) for row in rows if row[0] <= upto]
        error = self._attempt(views, view, connection, waiting)
        if error is None:
            views.release(connection, parked.view, parked.stream)
            return True
        again = parked._replace(attempts=parked.attempts + 1, error=f"{type(error).__name__}: {error}")
        views.park(connection, again._replace(parked_at=self._clock()))
        return False

    def _page(
        self, views: ViewStore, view: Applied, connection: Any, at: Checkpoint, limit: int, upto: int | None
    ) -> Checkpoint:
        trial = None if by_rows(view) else views.trial(view.name)
        alone = trial is not None and trial.last > at.position
        rows = self.recorder.select_log(after=at.position, upto=upto, limit=1 if alone else limit)
        if not rows:
            return at
        first, last = rows[0][0], rows[-1][0]
        if trial is not None and alone and trial.position == first and trial.tries >= DEATHS:
            self._park(views, view, connection, rows[0], f"{trial.tries} processes ended while they applied it")
            for row in _deleted(rows):
                views.hold(connection, view.name, row[0])
        else:
            if not by_rows(view):
                tries = trial.tries + 1 if trial is not None and trial.position == first else 1
                views.begin_trial(view.name, Trial(first, trial.last if trial is not None and alone else last, tries))
            self.apply(views, view, connection, rows)
        reached = at._replace(position=last, mark=mark(rows[-1]))
        views.record(connection, reached)
        return reached

    @contextmanager
    def _trying(self, views: ViewStore, view: Applied) -> Generator[None, None, None]:
        """End the trial where an error is told: that is no death of the process."""
        try:
            yield
        except SystemExit:
            raise
        except BaseException:
            self._end_trial(views, view, None)
            raise

    def _end_trial(self, views: ViewStore, view: Applied, reached: Checkpoint | None) -> None:
        """End the trial, unless what was tried one by one is not through yet."""
        if not by_rows(view):
            trial = views.trial(view.name)
            if trial is not None and (reached is None or reached.position >= trial.last):
                views.end_trial(view.name)

    def _attempt(self, views: ViewStore, view: Applied, connection: Any, rows: Sequence[LogRow]) -> Exception | None:
        """Hand rows over; where that raises, undo it and return the error."""
        try:
            with views.attempt(connection):
                self._hand_over(view, connection, rows)
        except Exception as error:
            if views.is_failure(error):
                raise
            return error
        return None

    def _hand_over(self, view: Applied, connection: Any, rows: Sequence[LogRow]) -> None:
        if not rows:
            return
        if by_rows(view):
            view.apply_rows(rows, self.codec, connection)
        else:
            view.apply([self.codec.recorded(row) for row in rows], connection)

    def _let_go(self, views: ViewStore, view: Applied, connection: Any, tombstone: LogRow) -> None:
        position, stream, *_ = tombstone
        if not try_to_forget(views, view, connection, stream):
            views.hold(connection, view.name, position)

    def _park(self, views: ViewStore, view: Applied, connection: Any, row: LogRow, error: str) -> None:
        position, stream, version, _, _ = row
        views.park(connection, Parked(view.name, stream, version, position, error, 1, self._clock()))


def _deleted(rows: Sequence[LogRow]) -> list[LogRow]:
    """Return those of the rows that are the ends of their streams."""
    return [row for row in rows if row[3].startswith(DELETED)]


def try_to_forget(views: ViewStore, view: object, connection: Any, stream: str) -> bool:
    """As ``forget``; a view that raises has not forgotten, and nothing of what it did then stays."""
    try:
        with views.attempt(connection):
            return forget(view, connection, stream)
    except Exception as error:
        if views.is_failure(error):
            raise
        _log.exception("view %s could not forget a session", getattr(view, "name", ""))
        return False


def forget(view: object, connection: Any, stream: str) -> bool:
    """Have the view delete what it holds of a session; return whether it knows how to."""
    forgetting = getattr(view, "forget", None)
    if forgetting is None:
        return False
    tenant, _, session_id = stream.partition("/")
    forgetting(tenant, session_id, connection)
    return True


def mark(row: LogRow) -> bytes:
    """Return 16 bytes that tell this event from any other, erased or not."""
    position, stream, version, topic, state = row
    return row_seal(position, stream, version, topic, state[: state.find(b',"private":')])
