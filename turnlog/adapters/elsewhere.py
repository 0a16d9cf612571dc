"""Read models of a store that are kept in another SQL database than its log: they follow it.

Rows and checkpoint are committed together there, so a follower that was killed goes on where it was, and of several one
at a time writes. What is erased in the store is erased there when the follower comes to it, not before. turnlog's own
tables stand there too, called ``turnlog_followed_…``; those of a log among them stay empty.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from turnlog.adapters.connect import connect
from turnlog.adapters.inside import decider_of
from turnlog.adapters.names import Names
from turnlog.domain.errors import InvalidInput
from turnlog.domain.values import RebuildProgress, ViewStatus
from turnlog.projections.applying import mark
from turnlog.projections.engine import Engine
from turnlog.projections.view_store import Projection
from turnlog.store import ConversationStore

WAIT_S = 0.25
"""How long one wait for news lasts before it is asked whether to go on."""
_PREFIX = "turnlog_followed_"
Progress = Callable[[RebuildProgress], object]


class Elsewhere:
    """Projections of a store in another database; a context manager. The store stays the caller's to close.

    Args:
        store: whose log is followed.
        url: of SQLite, PostgreSQL or MariaDB.
        projections: as for ``store.add_projection``.
        options: as for ``turnlog.open``, but ``names``.

    Raises:
        InvalidInput: the URL is of no SQL database, or the views there follow another log.
        StoreError: the database cannot be opened.
    """

    def __init__(self, store: ConversationStore, url: str, *projections: Projection, **options: Any) -> None:
        scheme = url.partition("://")[0].partition("+")[0]
        if scheme not in ("sqlite", "postgresql", "postgres", "mariadb", "mysql"):
            raise InvalidInput("url", "expected a database with tables: sqlite:///, postgresql:// or mariadb://")
        fields = [name for name in Names.__struct_fields__ if name != "columns"]
        names = {name: f"{_PREFIX}{name}" for name in fields}
        self._recorder = decider_of(store).recorder
        backend = connect(url, durability="normal", engine=None, options={**options, "names": names})
        self._backend = backend
        try:
            self._engine = Engine(self._recorder, backend.views, decider_of(store).codec)
            self._require_this_log()
            for projection in projections:
                self.add_projection(projection)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add_projection(self, projection: Projection, progress: Progress | None = None) -> None:
        """Keep one more; see ``store.add_projection``."""
        self._engine.add(projection, progress)

    def catch_up(self, progress: Progress | None = None) -> None:
        """Bring the views to the log's head; what ``progress`` raises interrupts, and the next call goes on."""
        self._engine.catch_up(wait=True, progress=progress)

    def follow(self, go_on: Callable[[], bool], progress: Progress | None = None) -> None:
        """Keep the views at the log's head as long as ``go_on``, which is asked four times a second, says so."""
        self.catch_up(progress)
        while go_on():
            head = self._recorder.position()
            if any(view.position < head for view in self.status()):
                self.catch_up(progress)
            else:
                self._recorder.wait_for_news(head, WAIT_S)

    def rebuild(self, name: str | None = None, progress: Progress | None = None) -> None:
        """Build a view, or all, anew beside those that answer; see ``store.rebuild``."""
        self._engine.rebuild(name, progress)

    def status(self) -> tuple[ViewStatus, ...]:
        """Return how far each view is, and how far behind the log."""
        return self._engine.status()

    def close(self) -> None:
        """Close the other database."""
        self._backend.recorder.close()
        self._backend.views.close()

    def _require_this_log(self) -> None:
        """Refuse views that have applied another event at their checkpoint than the log has there."""
        with self._backend.views.read() as connection:
            stored = self._backend.views.checkpoints(connection)
        for at in stored.values():
            rows = self._recorder.select_log(after=at.position - 1, upto=at.position, limit=1) if at.position else []
            if at.position and (not rows or mark(rows[0]) != at.mark):
                raise InvalidInput("url", f"view {at.name!r} there follows another log, or this one before a restore")
