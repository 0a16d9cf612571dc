"""Views for a log that keeps none: in an SQLite database in memory, that only this store sees (decisions 2 and 21).

They begin empty with every store and are folded from the log when they are first asked for. What the log erases is
forgotten here right after it, and in the views of other processes as soon as these come to the tombstone.
"""

from collections.abc import Callable, Sequence

from turnlog.adapters.names import Names
from turnlog.adapters.sqlite.database import Database
from turnlog.adapters.sqlite.views import SQLiteViews
from turnlog.domain.recorder import Again, Batch, Reader, Recorder
from turnlog.projections.backend import Backend


def private_views(names: Names | None = None) -> SQLiteViews:
    """Return views with nothing in them."""
    views = SQLiteViews(Database(None), names or Names())
    views.prepare()
    return views


def with_views(backend: Backend, names: Names | None = None) -> Backend:
    """Return the backend with views of its own, or else with private ones."""
    if backend.views is not None:
        return backend
    views = private_views(names)
    forgetting: Callable[[str, str], object] = views.forget_now
    return backend._replace(recorder=Forgetful(backend.recorder, forgetting), views=views)


class Forgetful:
    """A recorder that tells what was erased.

    Args:
        recorder: the log.
        forget: is told tenant and session id of every session that was erased, once that is committed.
    """

    def __init__(self, recorder: Recorder, forget: Callable[[str, str], object]) -> None:
        self._recorder = recorder
        self._forget = forget
        self.durability, self.expires = recorder.durability, recorder.expires
        self.select_stream, self.select_log = recorder.select_stream, recorder.select_log
        self.select_keys, self.select_all_keys = recorder.select_keys, recorder.select_all_keys
        self.select_snapshot, self.select_versions = recorder.select_snapshot, recorder.select_versions
        self.streams, self.position, self.visible = recorder.streams, recorder.position, recorder.visible
        self.wait_for_news = recorder.wait_for_news
        self.check, self.size_bytes = recorder.check, recorder.size_bytes
        self.lingering, self.scrub = recorder.lingering, recorder.scrub
        self.close = recorder.close

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Commit ``batches``, see ``Recorder``; then have what was erased forgotten."""
        written = batches

        def ask(reader: Reader) -> Sequence[Batch]:
            nonlocal written
            written = again(reader)
            return written

        positions = self._recorder.append(batches, ask)
        for batch in written:
            if batch.erase:
                tenant, _, session_id = batch.stream.partition("/")
                self._forget(tenant, session_id)
        return positions
