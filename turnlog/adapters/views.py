"""Views on SQLite: in the log's own file, or (for a log in memory) in a database of their own.

The built-in views' rows are in view_tables.py, their queries in view_queries.py; how one generation takes the place of
another is in generations.py. Columns called ``tenant`` and ``session_id`` tell whose rows are whose.
"""

import logging
import re
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import cast
from uuid import uuid4

from turnlog.adapters import generations
from turnlog.adapters.bookkeeping import Bookkeeping, Trials
from turnlog.adapters.database import Busy, Database
from turnlog.adapters.names import Names
from turnlog.adapters.view_queries import ViewQueries
from turnlog.adapters.view_tables import MessageTable, SessionTable
from turnlog.domain.errors import InvalidInput, StoreError, StoreUnavailable
from turnlog.projections.applying import forget
from turnlog.projections.message_index import MessageIndex
from turnlog.projections.session_index import SessionIndex
from turnlog.projections.view_store import Checkpoint, Projection, RowProjection, StoredView, View, ViewStore

_FAILURES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
"""What SQLite says when the trouble is its own."""
PAGE = 500
"""Events a transaction; while it lasts, nobody can append."""
_BUILD = re.compile(r"(rebuild-\w+|check-\w+-[0-9a-f]{32})(?=[.-]|$)", re.ASCII)
"""How the names of scratch databases begin, after the database's own and a dash."""
_log = logging.getLogger("turnlog")


class SQLiteViews:
    """The views of one database. The recorder is given it too, so that what is erased is forgotten here."""

    def __init__(self, database: Database, names: Names | None = None) -> None:
        self._database = database
        self._names = names = names or Names()
        self._registered: dict[str, Projection | RowProjection] = {}
        self.read_only = database.read_only
        self.page = PAGE
        books, trials = Bookkeeping(names), Trials(database.path)
        self._books = books
        self.checkpoints, self.record = books.checkpoints, books.record
        self.parked, self.park, self.release = books.parked, books.park, books.release
        self.trial, self.begin_trial, self.end_trial = trials.read, trials.begin, trials.end
        queries = ViewQueries(database, names)
        self.select_sessions = queries.select_sessions
        self.select_session = queries.select_session
        self.select_active = queries.select_active
        self.select_messages = queries.select_messages
        self.select_users = queries.select_users
        self.counts = queries.counts

    # --- life ---------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the bookkeeping where it is missing; in a log's file the log's own DDL has done it."""
        with self._database.write() as connection:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (self._names.views,)).fetchone()
            if known is None:
                from turnlog.adapters import sql  # SQLAlchemy: 300 ms, for a new database only

                for statement in sql.bookkeeping_ddl(self._names):
                    connection.execute(statement)

    def clear(self) -> None:
        """Empty every registered view."""
        with self._database.write() as connection:
            for name, view in self._registered.items():
                self.uninstall(connection, name)
                self.install(connection, view)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    # --- erasing ------------------------------------------------------------------------------------------------------

    def forget(self, connection: sqlite3.Connection, tenant: str, session_id: str) -> list[str]:
        """Delete what views hold of a session, inside the transaction that erases it.

        Returns the views that hold it until they come to the erased events themselves: they cannot forget, are stored
        in another revision than this program's, or are not registered here.
        """
        stream = f"{tenant}/{session_id}"
        self._books.forget(connection, stream)
        stored = self.checkpoints(connection).values()
        return [at.name for at in stored if not self._forgets(connection, at, stream)]

    def forget_now(self, tenant: str, session_id: str) -> list[str]:
        """As ``forget``, in a transaction of its own: for a log that is not in this database."""
        with self._database.write() as connection:
            return self.forget(connection, tenant, session_id)

    def _forgets(self, connection: sqlite3.Connection, stored: Checkpoint, stream: str) -> bool:
        view = self._registered.get(stored.name)
        if view is None or view.revision != stored.revision:
            return False
        try:
            with self.attempt(connection):
                return forget(view, connection, stream)
        except Exception as error:
            if self.is_failure(error):
                raise
            _log.exception("view %s could not forget a session", stored.name)
            return False

    def discard_builds(self) -> list[str]:
        """Delete what unfinished rebuilds and checks left behind; return the views that are being built right now."""
        path = self._database.path
        if path is None:
            names = {f"rebuild-{name}" for name in self._registered}
        else:
            names = {found[1] for rest in _beside(path, "-*") if (found := _BUILD.match(rest[1:]))}
        pending: list[str] = []
        for name in sorted(names):
            with self._database.claim(name) as got:
                if got:
                    _discard(self._database, name)
                else:
                    pending.append(name.split("-")[1])
        return pending

    # --- what the engine asks (ViewStore) -----------------------------------------------------------------------------

    def register(self, view: View) -> Projection | RowProjection:
        """Know a view, and give it its place: see ``ViewStore``."""
        match view:
            case SessionIndex():
                stored: Projection | RowProjection = SessionTable(view, self._names)
            case MessageIndex():
                stored = MessageTable(view, self._names)
            case _:
                for method in ("create", "apply"):
                    if not callable(getattr(view, method, None)):
                        raise InvalidInput("projection", f"expected a method {method!r}")
                stored = cast("Projection", view)
        self._registered[stored.name] = stored
        return stored

    @contextmanager
    def read(self) -> Generator[sqlite3.Connection, None, None]:
        """Lend a connection whose reads all see one moment."""
        with self._database.read() as connection:
            begun = not connection.in_transaction
            if begun:
                connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if begun and connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def write(self, *, wait: bool = True) -> Generator[sqlite3.Connection | None, None, None]:
        """Lend the writing connection in a transaction; ``None`` if that would take waiting for, and must not."""
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(self._database.write(wait=wait, synced=False))
            except Busy:
                connection = None
            yield connection

    @contextmanager
    def attempt(self, connection: sqlite3.Connection) -> Generator[None, None, None]:
        """Undo what is done inside if it raises.

        Raises:
            StoreUnavailable: what was done inside ended the transaction.
        """
        connection.execute("SAVEPOINT turnlog_attempt")
        try:
            yield
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK TO turnlog_attempt")
                connection.execute("RELEASE turnlog_attempt")
            raise
        if not connection.in_transaction:
            raise StoreUnavailable("the transaction of a view's rows was ended inside; a projection must not commit")
        connection.execute("RELEASE turnlog_attempt")

    def is_failure(self, error: Exception) -> bool:
        """Return whether the database is to blame for ``error``, not the event."""
        code = getattr(error, "sqlite_errorcode", None)
        return isinstance(error, StoreUnavailable) or (isinstance(code, int) and code & 0xFF in _FAILURES)

    def install(self, connection: sqlite3.Connection, view: StoredView) -> None:
        """Create a view, empty: see ``ViewStore``."""
        planned = generations.blueprint(view)
        generations.require_free(connection, planned)
        view.create(connection)
        self._books.insert(connection, Checkpoint(view.name, view.revision), generations.to_drop(planned))

    def uninstall(self, connection: sqlite3.Connection, name: str) -> None:
        """Drop a view with all that is kept of it."""
        generations.drop(connection, self._books.created(connection, name))
        self._books.delete(connection, name)

    @contextmanager
    def workshop(self, view: StoredView, *, keep: bool) -> Generator["SQLiteViews | None", None, None]:
        """Lend a database beside this one in which to build: see ``ViewStore``."""
        with ExitStack() as stack:
            place = self._database
            if self.read_only:
                from tempfile import TemporaryDirectory  # with shutil: 3 ms, for a check only

                directory = stack.enter_context(TemporaryDirectory(prefix="turnlog-"))
                place = Database(f"{directory}/views")
            name = f"rebuild-{view.name}" if keep else f"check-{view.name}-{uuid4().hex}"
            if not stack.enter_context(place.claim(name)):
                yield None
                return
            workshop = stack.enter_context(closing(_workshop(place, name, view, self._names)))
            try:
                yield workshop
            except BaseException:
                if not keep:
                    workshop.close()
                    _discard(place, name)
                raise
            workshop.close()
            _discard(place, name)

    def restart(self, view: StoredView) -> None:
        """Empty this workshop."""
        with self._database.write() as connection:
            self.uninstall(connection, view.name)
            self.install(connection, view)
            generations.make_quick(connection, view)

    def finish(self, view: StoredView) -> None:
        """Do nothing: what is built here is copied."""

    def adopt(self, connection: sqlite3.Connection, built: ViewStore, name: str) -> None:
        """Put the generation that was built in the place of the one here, in the caller's transaction."""
        built = cast("SQLiteViews", built)
        with built.read() as source:
            created = generations.complete(generations.items(source, self._books.tables), self._registered[name])
            self.uninstall(connection, name)
            generations.require_free(connection, created)
            generations.copy(source, connection, created)
            self._books.insert(connection, built.checkpoints(source)[name], generations.to_drop(created))
            for parked in built.parked(source, name):
                self.park(connection, parked)

    def differences(self, connection: sqlite3.Connection, built: ViewStore, name: str) -> Iterator[str]:
        """Say where the rows here are not those that were built."""
        built = cast("SQLiteViews", built)
        session = (self._names.column("tenant"), self._names.column("session_id"))
        with built.read() as theirs:
            created = generations.items(theirs, self._books.tables)
            for words in generations.differences(connection, theirs, created, session):
                yield f"view {name!r}, {words}"


def _workshop(place: Database, name: str, view: StoredView, names: Names) -> SQLiteViews:
    """Open a scratch database with the view in it; what cannot be read there is made anew."""
    with suppress(StoreError):
        return _opened(place.beside(name), view, names)
    _discard(place, name)
    return _opened(place.beside(name), view, names)


def _opened(database: Database, view: StoredView, names: Names) -> SQLiteViews:
    workshop = SQLiteViews(database, names)
    try:
        workshop.prepare()
        with database.write() as connection:
            if view.name not in workshop.checkpoints(connection):
                workshop.install(connection, view)
                generations.make_quick(connection, view)
            connection.execute(f"PRAGMA cache_size=-{generations.CACHE_KB}")
    except BaseException:
        workshop.close()
        raise
    return workshop


def _discard(place: Database, name: str) -> None:
    """Delete a scratch database with the files beside it; its claim is held, and stays unless it is used once only."""
    place.discard(name)
    if place.path is None:
        return
    scratch = f"{place.path}-{name}"
    for rest in _beside(scratch, ".trial-*"):
        Path(scratch + rest).unlink(missing_ok=True)
    if name.startswith("check-"):
        Path(f"{scratch}.claim").unlink(missing_ok=True)


def _beside(path: str, pattern: str) -> list[str]:
    """Return how the names of files go on that begin with ``path``."""
    start = Path(path)
    from glob import escape  # with fnmatch: for builds only

    return [file.name[len(start.name) :] for file in start.parent.glob(escape(start.name) + pattern)]
