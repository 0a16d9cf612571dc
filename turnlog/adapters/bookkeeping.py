"""What is kept of views besides their rows: checkpoints, the tables they created, parked sessions, open trials."""

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from turnlog.adapters.names import Names
from turnlog.adapters.wording import SQLITE, Wording
from turnlog.domain.errors import StoreUnavailable
from turnlog.projections.session_index import microseconds, moment
from turnlog.projections.view_store import Checkpoint, Parked, Trial

Rows: TypeAlias = Callable[[str, tuple[object, ...]], Sequence[Any]]


class Bookkeeping:
    """Two tables, under their chosen names.

    Args:
        table: makes SQL text of a table's name.
    """

    def __init__(self, names: Names, wording: Wording = SQLITE, table: Callable[[str], str] | None = None) -> None:
        self.tables = (names.views, names.parked)
        self._run = wording.run
        views, parked = map(table or wording.quoted, self.tables)
        mark, q = wording.mark, wording.quoted
        replacing = wording.replacing(("view", "stream"), ("version", "position", "error", "attempts", "parked_at"))
        named = f"WHERE {q('name')} = {mark}"
        of_view = f"WHERE {q('view')} = {mark}"
        checkpoint = ("revision", "position", "mark")
        self._checkpoints = f"SELECT {wording.listing(('name', *checkpoint))} FROM {views} ORDER BY {q('name')}"
        newest = f"(SELECT coalesce(max(position), 0) FROM {(table or wording.quoted)(names.events)})"
        self._is_level = f"SELECT {q('revision')}, {q('position')} = {newest} FROM {views} {named}"
        self._record = f"UPDATE {views} SET {', '.join(f'{q(column)} = {mark}' for column in checkpoint)} {named}"
        self._insert = f"INSERT INTO {views} VALUES ({wording.marks(5)})"
        self._created = f"SELECT {q('tables')} FROM {views} {named}"
        self._delete = (f"DELETE FROM {views} {named}", f"DELETE FROM {parked} {of_view}")
        self._parked = f"SELECT * FROM {parked} {of_view} ORDER BY {q('position')}"
        self._park = f"INSERT INTO {parked} VALUES ({wording.marks(7)}) {replacing}"
        self._release = f"DELETE FROM {parked} {of_view} AND {q('stream')} = {mark}"
        self._forget = f"DELETE FROM {parked} WHERE {q('stream')} = {mark}"

    def checkpoints(self, connection: Any) -> dict[str, Checkpoint]:
        """Return every view's checkpoint."""
        return {row[0]: Checkpoint(*row) for row in self._run(connection, self._checkpoints).fetchall()}

    def is_level(self, rows: Rows, name: str, revision: int) -> bool:
        """Return whether a view of this revision has applied the log's newest event, in whose database it is.

        All events up to a checkpoint are settled, so there is none that the view lacks. ``rows`` reads what a statement
        gives, as patiently as the log is read.
        """
        return any(found == revision and is_newest for found, is_newest in rows(self._is_level, (name,)))

    def record(self, connection: Any, checkpoint: Checkpoint) -> None:
        """Set a view's checkpoint."""
        self._run(connection, self._record, (*checkpoint[1:], checkpoint.name))

    def insert(self, connection: Any, at: Checkpoint, created: Sequence[str]) -> None:
        """Begin a view's record, with the names of the tables and SQL views that it created."""
        self._run(connection, self._insert, (*at, json.dumps(created)))

    def created(self, connection: Any, name: str) -> list[str]:
        """Return the names of what a view created."""
        row = self._run(connection, self._created, (name,)).fetchone()
        return [] if row is None else json.loads(row[0])

    def delete(self, connection: Any, name: str) -> None:
        """Delete a view's record and its parked sessions."""
        for statement in self._delete:
            self._run(connection, statement, (name,))

    def parked(self, connection: Any, name: str) -> list[Parked]:
        """Return a view's parked sessions, in the order of their positions."""
        rows = self._run(connection, self._parked, (name,)).fetchall()
        return [Parked._make((*row[:-1], moment(row[-1]))) for row in rows]

    def park(self, connection: Any, parked: Parked) -> None:
        """Park a session, or take the place of its record."""
        self._run(connection, self._park, (*parked[:-1], microseconds(parked.parked_at)))

    def release(self, connection: Any, name: str, stream: str) -> None:
        """Delete a parked session's record."""
        self._run(connection, self._release, (name, stream))

    def forget(self, connection: Any, stream: str) -> None:
        """Delete what is kept of a session in all views."""
        self._run(connection, self._forget, (stream,))


class Trials:
    """Trials as small files beside the database: they must outlive a process, but not a power failure."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def read(self, name: str) -> Trial | None:
        """Return the open trial; one whose file was cut is none."""
        if self._path is None:
            return None
        with self._translating(name):
            try:
                return Trial(*json.loads(self._file(name).read_text()))
            except (FileNotFoundError, ValueError, TypeError):
                return None

    def begin(self, name: str, trial: Trial) -> None:
        """Note a trial."""
        if self._path is not None:
            with self._translating(name):
                self._file(name).write_text(json.dumps(trial))

    def end(self, name: str) -> None:
        """Take the note back."""
        if self._path is not None:
            with self._translating(name):
                self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return Path(f"{self._path}.trial-{name}")

    @contextmanager
    def _translating(self, name: str) -> Generator[None, None, None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(f"the note that view {name!r} is being tried: {error}") from error
