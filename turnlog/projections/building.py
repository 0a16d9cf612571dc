"""Building a view anew: to take the place of the one that answers, or to check it against."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from turnlog.domain.errors import StoreError
from turnlog.domain.values import RebuildProgress
from turnlog.projections.applying import Applied, Applier, mark, try_to_forget
from turnlog.projections.brief import DELETED
from turnlog.projections.standing import until_it_stands
from turnlog.projections.view_store import Checkpoint, ViewStore, WriteUndone
from turnlog.projections.watching import UNWATCHED, Watch

Progress: TypeAlias = Callable[[RebuildProgress], object]
PAGE = 10_000
"""Events a transaction; nobody else writes where a view is built."""
MOST = 1 << 40
"""Without a limit."""
DIFFERENCES = 100
"""So many are told of a view."""


class Builder:
    """Builds views from the log's beginning, beside those that answer."""

    def __init__(self, applier: Applier, watch: Watch = UNWATCHED) -> None:
        self._applier = applier
        self._watch = watch
        self._recorder = applier.recorder

    @until_it_stands
    def rebuild(self, views: ViewStore, view: Applied, progress: Progress | None, *, anew: bool = False) -> bool:
        """Build a new generation and put it in the place of the old one; return False if somebody else is building.

        What was built is kept when this is interrupted, and the next call goes on with it, unless ``anew``. Only the
        last step, the swap and the tail, keeps out whoever writes views or erases. The tail holds the ends of the
        sessions that were erased meanwhile: what was built of them is forgotten in the transaction that makes it
        visible, also where such an end stands above the log's head. The new generation comes at least as far as the old
        one: the head is never behind a view that is stored.
        """
        with self._watch.doing("rebuild", view=view.name), views.workshop(view, keep=True) as workshop:
            if workshop is None:
                return False
            if anew or not self._is_of_this_log(workshop, view):
                workshop.restart(view)
            self._begin(workshop, view)
            self._fill(workshop, view, self._recorder.position(), self._telling(progress))
            self._fill(workshop, view, self._recorder.position(), None)
            views.lay_out(workshop, view.name)
            with views.write() as connection, views.adopting(connection, workshop, view.name) as (place, inside):
                self._applier.finish(place, view, inside)
                reached = _checkpoint(place, view, inside).position
                self._forget_deleted(place, view, inside, reached)
            views.clear_away(view.name)
        return True

    @until_it_stands
    def check(self, views: ViewStore, view: Applied, tenant: str | None) -> list[str]:
        """Build the view anew and say where the stored rows are not the same."""
        with views.workshop(view, keep=False) as workshop:
            if workshop is None:
                raise StoreError(f"view {view.name!r} cannot be checked: there is no place to build it")
            with views.read() as connection:
                at = views.checkpoints(connection).get(view.name)
            self._fill(workshop, view, at.position if at else 0, None)
            with views.read() as connection:
                found = self._compare(views, view, connection, workshop, tenant)
            if found:
                # A session that was erased in between shows as a difference; with writers kept out there is no between.
                with views.read() if views.read_only else views.write() as connection:
                    found = self._compare(views, view, connection, workshop, tenant)
        return found

    def _begin(self, workshop: ViewStore, view: Applied) -> None:
        """Note where the log ends, if nothing of it was applied yet."""
        position = self._recorder.position()
        with workshop.write() as connection:
            if _checkpoint(workshop, view, connection).position == 0:
                workshop.begin(connection, view.name, position)

    def _fill(self, workshop: ViewStore, view: Applied, target: int | None, progress: Progress | None) -> None:
        """Apply the log up to ``target``, or to its end."""
        events = 0
        with workshop.read() as connection:
            at = _checkpoint(workshop, view, connection)
        while target is None or at.position < target:
            if progress is not None and target is not None:
                progress(RebuildProgress(view=view.name, position=at.position, target=target, events=events))
            with self._watch.doing("rebuild_page", view=view.name) as facts:
                reached = self._applier.advance(workshop, view, limit=PAGE, upto=target)
                if reached is None or reached == at:
                    break
                facts["positions"] = reached.position - at.position
            events += reached.position - at.position
            at = reached
        if progress is not None and target is not None:
            progress(RebuildProgress(view=view.name, position=at.position, target=target, events=events))

    def _telling(self, progress: Progress | None) -> Progress:
        """Return what tells whoever watches, and then ``progress``."""

        def tell(reached: RebuildProgress) -> None:
            self._watch.reached(reached)
            if progress is not None:
                progress(reached)

        return tell

    def _is_of_this_log(self, workshop: ViewStore, view: Applied) -> bool:
        with workshop.read() as connection:
            at = workshop.checkpoints(connection).get(view.name)
        return at is not None and at.revision == view.revision and self._marks(at)

    def _marks(self, at: Checkpoint) -> bool:
        """Return whether the event at a checkpoint is the one that was applied."""
        rows = self._recorder.select_log(after=at.position - 1, upto=at.position, limit=1)
        return at.position == 0 or (len(rows) == 1 and mark(rows[0]) == at.mark)

    def _compare(
        self, views: ViewStore, view: Applied, connection: Any, workshop: ViewStore, tenant: str | None
    ) -> list[str]:
        at = views.checkpoints(connection).get(view.name)
        if at is None or at.revision != view.revision:
            return [f"view {view.name!r} is not there in revision {view.revision}: rebuild it"]
        if not self._marks(at):
            return [f"view {view.name!r} has applied another event at position {at.position} than the log has there"]
        self._fill(workshop, view, at.position, None)
        with workshop.write() as building:
            self._forget_deleted(workshop, view, building, at.position)
        return _distinct(views.differences(connection, workshop, view.name, tenant), DIFFERENCES)

    def _forget_deleted(self, views: ViewStore, view: Applied, connection: Any, after: int) -> None:
        """Forget the sessions that were erased, as is done at once, by events that the view has not come to."""
        topics = [topic for topic in self._applier.codec.registry.newest if topic.startswith(DELETED)]
        unsettled = self._recorder.visible(limit=MOST) or ()  # first: what is settled after this is found below
        self._forget(views, view, connection, (stream for stream in unsettled if self._is_deleted(stream)))
        while rows := self._recorder.select_log(after=after, limit=PAGE, topics=topics):
            self._forget(views, view, connection, (row[1] for row in rows))
            after = rows[-1][0]

    def _is_deleted(self, stream: str) -> bool:
        newest = self._recorder.select_stream(stream, desc=True, limit=1)
        return newest[0][2].startswith(DELETED)

    def _forget(self, views: ViewStore, view: Applied, connection: Any, streams: Iterable[str]) -> None:
        for stream in streams:
            views.release(connection, view.name, stream)
            try_to_forget(views, view, connection, stream)


def _checkpoint(workshop: ViewStore, view: Applied, connection: Any) -> Checkpoint:
    """Return how far a view is that is being built.

    Raises:
        WriteUndone: it is not there: on a server that may happen between two transactions, which hold the place.
    """
    at = workshop.checkpoints(connection).get(view.name)
    if at is None:
        raise WriteUndone(f"view {view.name!r}: somebody else has taken over what was built")
    return at


def _distinct(words: Iterable[str], limit: int) -> list[str]:
    """Return the first ``limit`` different ones; rows that may not be named are all called the same."""
    found: dict[str, None] = {}
    for word in words:
        found[word] = None
        if len(found) == limit:
            break
    return list(found)
