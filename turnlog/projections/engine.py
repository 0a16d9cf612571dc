"""The projection engine, one for every backend: register, catch up, park, rebuild, check.

Catching up is: select a page after the checkpoint, fold, write, checkpoint, commit. A page that was applied is not
applied again: checkpoint and rows are of one transaction, under the lock that keeps other writers out.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime

from turnlog.domain.errors import InvalidInput, StoreError
from turnlog.domain.mapper import Codec
from turnlog.domain.recorder import Recorder
from turnlog.domain.values import RebuildProgress, ViewStatus
from turnlog.projections.applying import Applied, Applier
from turnlog.projections.backend import IsLevel
from turnlog.projections.building import Builder, Progress
from turnlog.projections.standing import until_it_stands
from turnlog.projections.view_store import Checkpoint, Parked, Projection, View, ViewStore
from turnlog.projections.watching import UNWATCHED, Watch

__all__ = ["Engine", "Projection"]

_log = logging.getLogger("turnlog")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)


def _now() -> datetime:
    return datetime.now(UTC)


class Engine:
    """Keeps views up to date with the log. Safe to share between threads.

    Args:
        recorder: the log.
        views: where views are kept.
        codec: decodes the log's events for projections.
        clock: tells when a session was parked.
        watch: is told of views that are caught up and rebuilt.
        is_level: see ``Backend``.
    """

    def __init__(
        self,
        recorder: Recorder,
        views: ViewStore,
        codec: Codec,
        *,
        clock: Callable[[], datetime] = _now,
        watch: Watch = UNWATCHED,
        is_level: IsLevel | None = None,
    ) -> None:
        self._recorder = recorder
        self._views = views
        self._applier = Applier(recorder, codec, clock)
        self._watch = watch
        self._builder = Builder(self._applier, watch)
        self._known: dict[str, Applied] = {}
        self._classes: dict[str, type[object]] = {}
        self._late: set[str] = set()
        self._is_level = is_level

    def add(self, projection: View, progress: Progress | None = None, *, late: bool = False) -> None:
        """Register a projection; create its view where there is none, rebuild it where it is of an older revision.

        With ``late`` it is created by the first ``catch_up`` or ``rebuild`` that names it. Until then, and where a
        newer program has made it, those that name no view pass over it. What is erased it forgets in any case.

        While another process rebuilds it, the older generation goes on answering programs of its own revision. This one
        does not believe its rows, another fold made them: ``catch_up`` says False and ``tail`` ``None`` until the new
        one is there. What ``progress`` raises interrupts the rebuild.

        Raises:
            InvalidInput: it is not a projection, its name is taken, or its tables are somebody else's.
            StoreError: a newer program has made the view in a newer revision.
        """
        name, revision = _name(projection), _revision(projection)
        if self._classes.get(name, type(projection)) is not type(projection):
            raise InvalidInput("projection", f"another one is called {name!r}")
        view = self._views.register(projection)
        if late:
            self._late.add(name)
            stored = self._checkpoints().get(name)
            if stored is not None and stored.revision < revision and not self._views.read_only:
                self._install(view, progress)
        elif not self._views.read_only:
            self._install(view, progress)
        elif (stored := self._checkpoints().get(name)) is not None:
            _require_not_newer(stored, revision)
        self._known[name] = view
        self._classes[name] = type(projection)

    def elsewhere(self, recorder: Recorder, views: ViewStore) -> "Engine":
        """Return an engine that knows the same views, and reads them and the log through other connections."""
        engine = copy(self)
        engine._recorder, engine._views, engine._is_level = recorder, views, None  # noqa: SLF001 - it is one of these
        return engine

    def is_level(self, name: str) -> bool:
        """Return whether a single look shows that a view has applied all that can be seen; False shows nothing."""
        view = self._known.get(name)
        return view is not None and self._is_level is not None and self._is_level(name, view.revision)

    def catch_up(
        self,
        *,
        names: Sequence[str] | None = None,
        wait: bool = False,
        progress: Progress | None = None,
        pages: int | None = None,
    ) -> bool:
        """Bring views (all, or those named) to the log's head as it is now; return whether they are there.

        Without ``wait`` nothing is waited for: where somebody else is writing, what is missing is left missing. A store
        that is read-only is not caught up. ``progress`` is told after every page; what it raises interrupts. With
        ``pages`` each view goes on by so many transactions at most.

        Raises:
            InvalidInput: there is no such view.
            StoreError: the storage fails, or a view is ahead of the log or of a newer revision than this program's.
        """
        stored = self._checkpoints()
        views = self._named(names, stored)
        head = self._recorder.position()
        levels = [self._bring_to(head, view, stored.get(view.name), progress, wait=wait, pages=pages) for view in views]
        return all(levels)

    def tail(self, name: str, limit: int) -> list[str] | None:
        """Return the streams with events that the view has not applied; ``None`` if those are more than ``limit``.

        Sessions that are parked are not among them.
        """
        (view,) = self._named((name,))
        stored = self._checkpoints().get(name)
        if stored is None or stored.revision != view.revision:
            return None
        rows = self._recorder.select_log(after=stored.position, limit=limit + 1)
        return None if len(rows) > limit else list({row[1]: None for row in rows})

    def stands(self, name: str) -> bool:
        """Return whether a view is there, in the revision that this program knows."""
        return name in self._known and _stands(self._known[name], self._checkpoints())

    def checkpoint(self, name: str) -> int:
        """Return the position up to which a view has applied the log; 0 where it is not there."""
        stored = self._checkpoints().get(name)
        return 0 if stored is None else stored.position

    def status(self) -> tuple[ViewStatus, ...]:
        """Return how every stored view stands, also those that this program did not register."""
        head = self._recorder.position()
        with self._views.read() as connection:
            return tuple(
                ViewStatus(
                    name=at.name,
                    revision=at.revision,
                    position=at.position,
                    lag=max(head - at.position, 0),
                    parked=len(self._views.parked(connection, at.name)),
                )
                for at in self._views.checkpoints(connection).values()
            )

    def parked(self, name: str) -> tuple[Parked, ...]:
        """Return the sessions that a view has parked, and why."""
        with self._views.read() as connection:
            return tuple(self._views.parked(connection, name))

    @until_it_stands
    def retry(self, name: str) -> bool:
        """Try the parked sessions of a view again, from where they were parked; return whether all went through."""
        (view,) = self._named((name,))
        with self._views.write() as connection:
            at = self._views.checkpoints(connection).get(name)
            if at is None or at.revision != view.revision:
                return False
            waiting = self._views.parked(connection, name)
            done = [self._applier.retry(self._views, view, connection, parked, at.position) for parked in waiting]
        return all(done)

    def rebuild(self, name: str | None = None, progress: Progress | None = None) -> None:
        """Build a view (or every one) anew from the log; the old one answers until the new one takes its place.

        What ``progress`` raises interrupts it; the next call goes on from there.

        Raises:
            InvalidInput: there is no such view.
            StoreError: somebody else is rebuilding it.
        """
        for view in self._named(None if name is None else (name,)):
            if not self._builder.rebuild(self._views, view, progress):
                raise StoreError(f"view {view.name!r} is being rebuilt by another process or thread")

    def check(self, name: str, tenant: str | None = None) -> list[str]:
        """Fold the log independently, up to where the view is, and say where the view's rows are not the same.

        Sessions are named; with ``tenant``, only that tenant's.

        Raises:
            StoreUnavailable: the storage fails, which says nothing of the view.
        """
        (view,) = self._named((name,))
        return self._builder.check(self._views, view, tenant)

    def holding(self) -> list[str]:
        """Return the views that may hold something of deleted sessions though they have read of the deletion.

        They have no ``forget``, or it raised. What has not read that far yet, see ``status``, is not among them.
        """
        with self._views.read() as connection:
            return self._views.holding(connection)

    def purge(self) -> None:
        """Rebuild those of these views that this program knows: from a log that has erased it, nothing of it comes.

        Search indexes, of whatever view, let go of words that were deleted.
        """
        if self._views.read_only:
            return
        self._merge()
        for name in self.holding():
            view, stored = self._known.get(name), self._checkpoints().get(name)
            if view is not None and stored is not None and stored.revision == view.revision:
                try:
                    self._builder.rebuild(self._views, view, None, anew=True)
                except Exception:  # noqa: BLE001 - an application's; the view stays among those that hold
                    _log.exception("view %s could not be rebuilt", name)

    @until_it_stands
    def _merge(self) -> None:
        with self._views.write() as connection:
            self._views.merge(connection)

    def _install(self, view: Applied, progress: Progress | None) -> None:
        stored = self._checkpoints().get(view.name)
        if stored is None:
            stored = self._created(view)
        if stored is None:
            return
        _require_not_newer(stored, view.revision)
        if stored.revision < view.revision:
            self._builder.rebuild(self._views, view, progress)

    @until_it_stands
    def _created(self, view: Applied) -> Checkpoint | None:
        """Create a view; return the checkpoint of one that is there meanwhile."""
        position = self._recorder.position()
        with self._views.write() as connection:
            stored = self._views.checkpoints(connection).get(view.name)
            if stored is None:
                self._views.install(connection, view)
                self._views.begin(connection, view.name, position)
        return stored

    def _bring_to(
        self,
        head: int,
        view: Applied,
        at: Checkpoint | None,
        progress: Progress | None,
        *,
        wait: bool,
        pages: int | None,
    ) -> bool:
        if at is not None:
            _require_not_newer(at, view.revision)
            if at.position > head:
                words = f"view {view.name!r} has applied events up to {at.position}, but the log ends at {head}"
                raise StoreError(f"{words}: it was restored from an older copy; rebuild the view")
        if self._views.read_only:
            return at is not None and at.revision == view.revision and at.position == head
        if at is None or at.revision < view.revision:
            self._install(view, progress)
            at = self._checkpoints().get(view.name)
        if at is None or at.revision != view.revision:
            return False
        return at.position >= head or self._advance(head, view, at, progress, wait=wait, pages=pages)

    def _advance(
        self, head: int, view: Applied, at: Checkpoint, progress: Progress | None, *, wait: bool, pages: int | None
    ) -> bool:
        """Apply page after page; return whether the view came to ``head``."""
        began, reached = at.position, at
        with self._watch.doing("catch_up", view=view.name, lag=head - began) as facts:
            while reached.position < head and pages != 0:
                page = self._applier.advance(self._views, view, wait=wait)
                if page is None or page.revision != view.revision:
                    return False
                reached, pages = page, None if pages is None else pages - 1
                facts["positions"] = events = reached.position - began
                if progress is not None:
                    progress(RebuildProgress(view=view.name, position=reached.position, target=head, events=events))
        return reached.position >= head

    def _named(self, names: Sequence[str] | None, stored: Mapping[str, Checkpoint] | None = None) -> list[Applied]:
        if names is None:
            stored = self._checkpoints() if stored is None else stored
            return [view for view in self._known.values() if view.name not in self._late or _stands(view, stored)]
        for name in names:
            if name not in self._known:
                raise InvalidInput("view", f"there is no view {name!r}; known: {', '.join(self._known) or 'none'}")
        return [self._known[name] for name in names]

    def _checkpoints(self) -> dict[str, Checkpoint]:
        with self._views.read() as connection:
            return self._views.checkpoints(connection)


def _stands(view: Applied, stored: Mapping[str, Checkpoint]) -> bool:
    at = stored.get(view.name)
    return at is not None and at.revision == view.revision


def _name(projection: View) -> str:
    name: object = getattr(projection, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput("projection", f"expected a name of letters, digits and _, at most 63, got {name!r:.100}")
    return name


def _revision(projection: View) -> int:
    revision: object = getattr(projection, "revision", None)
    if type(revision) is not int or revision < 1:
        raise InvalidInput("projection", f"expected a revision of 1 or more, got {revision!r:.100}")
    return revision


def _require_not_newer(stored: Checkpoint, revision: int) -> None:
    if stored.revision > revision:
        words = f"view {stored.name!r} is stored in revision {stored.revision}, this program knows {revision}"
        raise StoreError(f"{words}: a newer program made it; use that")
