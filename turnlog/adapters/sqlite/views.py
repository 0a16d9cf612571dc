"""Views on SQLite: in the log's own file, or (for a log in memory) in a database of their own.

The built-in views' rows are in view_tables.py, their queries in view_queries.py; how one generation takes the place of
another is in generations.py, and for the built-in views in swapping.py. Columns called ``tenant`` and ``session_id``
tell whose rows are whose.
"""

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from typing import Any, cast

from turnlog.adapters.bookkeeping import Bookkeeping, Trials
from turnlog.adapters.held import Held
from turnlog.adapters.names import Names
from turnlog.adapters.registered import BUILT_IN, Registered
from turnlog.adapters.sqlite import generations, scratch, swapping, tables
from turnlog.adapters.sqlite.database import Busy, Database
from turnlog.adapters.sqlite.rows import SQLiteRows
from turnlog.adapters.sqlite.terms import SQLiteTerms, has_fts5
from turnlog.adapters.telling import Place
from turnlog.adapters.view_queries import ViewQueries
from turnlog.adapters.wording import SQLITE
from turnlog.domain.errors import StoreError, StoreUnavailable
from turnlog.projections.view_store import Checkpoint, StoredView, ViewStore

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


class SQLiteViews:
    """The views of one database. The recorder is given it too, so that what is erased is forgotten here."""

    def __init__(self, database: Database, names: Names | None = None) -> None:
        self._database = database
        self._names = names = names or Names()
        self._registered = registered = Registered(names, SQLITE, SQLiteRows, SQLiteTerms)
        self.register = registered.register
        self.read_only = database.read_only
        self.searches = has_fts5()
        self.page = PAGE
        books, trials = Bookkeeping(names), Trials(database.path)
        self._books = books
        self.checkpoints, self.record = books.checkpoints, books.record
        self.park, self.release = books.park, books.release
        held = Held(books)
        self.records, self.parked = books.parked, held.parked
        self.begin, self.hold, self.holding = held.begin, held.hold, held.holding
        self.trial, self.begin_trial, self.end_trial = trials.read, trials.begin, trials.end
        queries = ViewQueries(database, names, SQLiteTerms(names))
        self.select_sessions = queries.select_sessions
        self.select_session = queries.select_session
        self.select_active = queries.select_active
        self.select_messages = queries.select_messages
        self.select_found = swapping.across_swaps(queries.select_found)
        self.select_users = queries.select_users
        self.counts = queries.counts

    # --- life ---------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the bookkeeping where it is missing; in a log's file the log's own DDL has done it."""
        with self._database.write() as connection:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (self._names.views,)).fetchone()
            if known is None:
                for statement in tables.bookkeeping(self._names):
                    connection.execute(statement)

    def clear(self) -> None:
        """Empty every registered view."""
        with self._database.write() as connection:
            there = self.checkpoints(connection)
            for name, view in self._registered.views.items():
                if name in there:
                    self.uninstall(connection, name)
                    self.install(connection, view)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    # --- erasing ------------------------------------------------------------------------------------------------------

    def forget(self, connection: sqlite3.Connection, tenant: str, session_id: str) -> list[str]:
        """Delete what views hold of a session, inside the transaction that erases it.

        Returns the views that hold it until they come to the erased events themselves.
        """
        stream = f"{tenant}/{session_id}"
        self._books.forget(connection, stream)
        return self._registered.forget(self, connection, stream)

    def forget_now(self, tenant: str, session_id: str) -> list[str]:
        """As ``forget``, in a transaction of its own: for a log that is not in this database."""
        with self._database.write() as connection:
            return self.forget(connection, tenant, session_id)

    def discard_builds(self) -> list[str]:
        """Delete what unfinished rebuilds and checks left behind; return the views that are being built right now."""
        path = self._database.path
        names = [f"rebuild-{name}" for name in self._registered.views] if path is None else scratch.left_beside(path)
        pending: list[str] = []
        for name in names:
            kind, view, *_ = name.split("-")
            with self._database.claim(name) as got:
                if not got:
                    pending.append(view)
                    continue
                if kind == "rebuild":
                    self.clear_away(view)
                scratch.discard(self._database, name)
        return pending

    # --- what the engine asks (ViewStore) -----------------------------------------------------------------------------

    def is_level(self, name: str, revision: int) -> bool:
        """Return whether a view has applied all that can be seen of the log: see ``Backend``."""
        return self._books.is_level(self._rows, name, revision)

    def _rows(self, statement: str, parameters: tuple[Any, ...]) -> list[Any]:
        with self._database.read() as connection:
            return connection.execute(statement, parameters).fetchall()

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

    def write(self, *, wait: bool = True) -> AbstractContextManager[sqlite3.Connection | None]:
        """Lend the writing connection in a transaction; ``None`` if that would take waiting for, and must not."""
        try:
            return self._database.write(wait=wait, synced=False)
        except Busy:
            return nullcontext()

    @contextmanager
    def attempt(self, connection: sqlite3.Connection) -> Generator[None, None, None]:
        """Undo what is done inside if it raises; what is no ``Exception`` ends the whole transaction.

        Raises:
            StoreUnavailable: what was done inside ended the transaction.
        """
        connection.execute("SAVEPOINT turnlog_attempt")
        try:
            yield
        except Exception as error:
            if connection.in_transaction or not self.is_failure(error):
                _end_attempt(connection, "ROLLBACK TO turnlog_attempt")
            raise
        _end_attempt(connection)

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
            try:
                place = self._place(stack)
            except OSError as error:
                raise StoreUnavailable(f"{self._database.name}: no place to build a view: {error.strerror}") from error
            name = scratch.name_of(view.name, once=not keep)
            while not stack.enter_context(place.claim(name)):
                if keep:
                    yield None
                    return
                name = scratch.name_of(view.name, once=True)  # somebody is clearing away what he took for left behind
            workshop = stack.enter_context(closing(_workshop(place, name, view, self._names)))
            try:
                yield workshop
            except BaseException:
                if not keep:
                    workshop.close()
                    scratch.discard(place, name)
                raise
            workshop.close()
            scratch.discard(place, name)

    def _place(self, stack: ExitStack) -> Database:
        """Return the database beside which to build."""
        if not self.read_only:
            return self._database
        from tempfile import TemporaryDirectory  # with shutil: 3 ms, for a check only

        return Database(f"{stack.enter_context(TemporaryDirectory(prefix='turnlog-'))}/views")

    def restart(self, view: StoredView) -> None:
        """Empty this workshop."""
        with self._database.write() as connection:
            self.uninstall(connection, view.name)
            self.install(connection, view)
            generations.make_quick(connection, view)

    def lay_out(self, built: ViewStore, name: str) -> None:
        """Copy what was built beside the generation here, if that can be done bit by bit."""
        view = self._registered.views[name]
        if isinstance(view, BUILT_IN):
            with cast("SQLiteViews", built).read() as source:
                swapping.lay_out(self._database, self._names, view, source)

    @contextmanager
    def adopting(
        self, connection: sqlite3.Connection, built: ViewStore, name: str
    ) -> Generator[tuple[ViewStore, Any], None, None]:
        """Put the generation that was built in the place of the one here, in the caller's transaction."""
        built, view = cast("SQLiteViews", built), self._registered.views[name]
        with built.read() as source:
            created = generations.complete(generations.items(source, self._books.tables), view)
            if isinstance(view, BUILT_IN):
                swapping.switch(connection, view, self._books.created(connection, name))
                self._books.delete(connection, name)
            else:
                self.uninstall(connection, name)
                generations.require_free(connection, created)
                generations.copy(source, connection, created)
            self._books.insert(connection, built.checkpoints(source)[name], generations.to_drop(created))
            for record in built.records(source, name):
                self.park(connection, record)
        yield self, connection

    def merge(self, connection: sqlite3.Connection) -> None:
        """Merge the parts of full-text search in all views: see ``ViewStore``."""
        for name in self.checkpoints(connection):
            generations.merge(connection, self._books.created(connection, name))

    def clear_away(self, name: str) -> None:
        """Drop what was laid out or replaced, bit by bit."""
        view = self._registered.views.get(name)
        if isinstance(view, BUILT_IN):
            swapping.clear(self._database, view)

    def differences(
        self, connection: sqlite3.Connection, built: ViewStore, name: str, tenant: str | None
    ) -> Iterator[str]:
        """Say where the rows here are not those that were built."""
        built = cast("SQLiteViews", built)
        place = Place(self._names.column("tenant"), self._names.column("session_id"), tenant)
        with built.read() as theirs:
            created = generations.items(theirs, self._books.tables)
            for words in generations.differences(connection, theirs, created, place):
                yield f"view {name!r}, {words}"


def _end_attempt(connection: sqlite3.Connection, *statements: str) -> None:
    try:
        for statement in (*statements, "RELEASE turnlog_attempt"):
            connection.execute(statement)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        words = "the transaction of a view's rows was ended inside; a projection must not commit or roll back"
        raise StoreUnavailable(words) from error


def _workshop(place: Database, name: str, view: StoredView, names: Names) -> SQLiteViews:
    """Open a scratch database with the view in it; what cannot be read there is made anew."""
    with suppress(StoreError):
        return _opened(place.beside(name), view, names)
    scratch.discard(place, name)
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
