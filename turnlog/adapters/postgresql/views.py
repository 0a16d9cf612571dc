"""Views on PostgreSQL, in the log's database: what the projection engine asks, and the queries on them.

The built-in views' rows are in rows.py; how one generation takes the place of another is in
generations.py; which lock keeps whom out, and why, is said in places.py. Queries, folds and
bookkeeping are shared with SQLite. An application's projection is given a ``psycopg.Connection`` (parameters are
written ``%s``); it names its tables without a schema, must not commit, and to be built anew needs the right to create
schemas in the database.
"""

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Any, cast
from uuid import uuid4

from psycopg import errors

from turnlog.adapters.bookkeeping import Bookkeeping
from turnlog.adapters.held import Held
from turnlog.adapters.names import Names, quoted
from turnlog.adapters.postgresql import generations
from turnlog.adapters.postgresql.benches import Bench, Benches
from turnlog.adapters.postgresql.connection import Connection, run
from turnlog.adapters.postgresql.places import Home, Place, first_in_path
from turnlog.adapters.postgresql.pool import Pool
from turnlog.adapters.postgresql.rows import PostgreSQLRows
from turnlog.adapters.postgresql.savepoint import of_the_server, savepoint
from turnlog.adapters.postgresql.tables import BOOKKEEPING
from turnlog.adapters.postgresql.terms import PostgreSQLTerms
from turnlog.adapters.postgresql.trials import Trials
from turnlog.adapters.registered import BUILT_IN, Registered
from turnlog.adapters.telling import Place as RowPlace
from turnlog.adapters.view_queries import ViewQueries
from turnlog.adapters.wording import POSTGRESQL
from turnlog.domain.errors import InvalidInput, StoreError
from turnlog.projections.view_store import Checkpoint, Parked, StoredView, ViewStore, by_rows

PAGE = 2_000
"""Events a transaction; while it lasts, nobody can erase."""


class PostgreSQLViews:
    """The views of one log. The recorder is given it too, so that what is erased is forgotten here."""

    def __init__(self, pool: Pool, names: Names | None = None, bench: Bench | None = None) -> None:
        self._pool = pool
        self._names = names = names or Names()
        self._home = Home(pool, names)
        self._bench = bench
        self._benches = Benches(pool, names)
        place: Place = bench or self._home
        self._place = place
        self.schema = schema = place.schema
        self.read_only = pool.read_only and bench is None
        self.page = PAGE
        self.searches = True
        self._registered = registered = Registered(names, POSTGRESQL, PostgreSQLRows, PostgreSQLTerms)
        self.register = registered.register
        self._books = books = Bookkeeping(names, POSTGRESQL, self._table)
        self.checkpoints, self.record = books.checkpoints, books.record
        self.release = books.release
        held = Held(books)
        self.records, self.parked = books.parked, held.parked
        self.begin, self.hold, self.holding = held.begin, held.hold, held.holding
        trials = Trials(pool, None if bench is not None and bench.temporary else self._table(names.trials))
        self.trial, self.begin_trial, self.end_trial = trials.read, trials.begin, trials.end
        self.queries = queries = ViewQueries(place, names, PostgreSQLTerms(names), POSTGRESQL, schema)
        self.select_sessions = queries.select_sessions
        self.select_session = queries.select_session
        self.select_active = queries.select_active
        self.select_messages = queries.select_messages
        self.select_found = queries.select_found
        self.select_users = queries.select_users
        self.counts = queries.counts
        self.hold_still = self._home.hold_still

    # --- life ---------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()

    # --- erasing ------------------------------------------------------------------------------------------------------

    def forget(self, connection: Connection, tenant: str, session_id: str) -> list[str]:
        """Delete what views hold of a session, inside the transaction that erases it.

        That transaction reads what is committed (READ COMMITTED) and has called ``hold_still``, before anything that
        others may wait for. Returns the views that hold the session until they come to the erased events themselves.
        """
        stream = f"{tenant}/{session_id}"
        self.hold_still(connection)
        with first_in_path(connection, self.schema):
            self._books.forget(connection, stream)
            return self._registered.forget(self, connection, stream)

    def discard_builds(self) -> list[str]:
        """Drop what unfinished rebuilds left behind; return the views that are being built right now."""
        return [] if self.read_only else self._benches.discard()

    # --- what the engine asks (ViewStore) -----------------------------------------------------------------------------

    def read(self) -> AbstractContextManager[Connection]:
        """Lend a connection in autocommit mode: two statements may see two moments."""
        return self._place.read()

    def is_level(self, name: str, revision: int) -> bool:
        """Return whether a view has applied all that can be seen of the log: see ``Backend``."""
        return self._books.is_level(self._pool.rows, name, revision)

    def write(self, *, wait: bool = True) -> AbstractContextManager[Any]:
        """Lend a connection in a transaction under the catch-up lock: see ``ViewStore``."""
        return self._place.write(wait=wait)

    def attempt(self, connection: Connection) -> AbstractContextManager[None]:
        """Undo what is done inside if it raises, or if a statement failed there: see ``ViewStore``."""
        return savepoint(connection)

    def is_failure(self, error: Exception) -> bool:
        """Return whether the server is to blame for ``error``, not the event."""
        return of_the_server(error)

    def park(self, connection: Connection, parked: Parked) -> None:
        """Park a session, or count another attempt."""
        error = parked.error.replace("\0", "\ufffd").encode(errors="replace").decode()
        self._books.park(connection, parked._replace(error=error))

    def install(self, connection: Any, view: StoredView) -> None:
        """Create a view, empty: see ``ViewStore``."""
        if self._bench is None and not by_rows(view):
            created = self._created_apart(connection, view)
        else:
            created = self._created_here(connection, view)
        self._books.insert(connection, Checkpoint(view.name, view.revision), generations.written(created))

    def uninstall(self, connection: Any, name: str) -> None:
        """Drop a view with all that is kept of it."""
        generations.drop(connection, self.schema, generations.read(self._books.created(connection, name)))
        self._books.delete(connection, name)

    @contextmanager
    def workshop(self, view: StoredView, *, keep: bool) -> Generator["PostgreSQLViews | None", None, None]:
        """Lend a schema in which to build: see ``ViewStore``."""
        with self._bench_for(view, keep=keep) as bench:
            yield None if bench is None else self._opened(bench, view)

    def _bench_for(self, view: StoredView, *, keep: bool) -> AbstractContextManager[Bench | None]:
        """Return where to build; to check a built-in view, temporary tables will do: who only reads may have those."""
        if keep:
            return self._benches.beside(view.name, keep=True)
        if by_rows(view) or self.read_only:
            return self._benches.temporary()
        return self._benches.beside(f"{uuid4().hex[:8]} {view.name}", keep=False)

    def restart(self, view: StoredView) -> None:
        """Empty this workshop."""
        with self._place.write() as connection:
            self.uninstall(connection, view.name)
            self.install(connection, view)

    def lay_out(self, built: ViewStore, name: str) -> None:
        """Create, where it was built, the indexes that queries need, and have the server learn what the tables hold."""
        view, schema = self._registered.views[name], cast("PostgreSQLViews", built).schema
        with built.write() as connection:
            if isinstance(view, BUILT_IN):
                view.create_indexes(connection, generations.relations(connection, schema).values())
            generations.analyze(connection, schema, generations.items(connection, schema))

    @contextmanager
    def adopting(self, connection: Any, built: ViewStore, name: str) -> Generator[tuple[ViewStore, Any], None, None]:
        """Move the generation that was built to the place of the one here, in the caller's transaction.

        With it goes the bench: if this process dies at once, the next must not build on with what answers.
        """
        built = cast("PostgreSQLViews", built)
        without = self._bookkeeping()
        with built.read() as source:
            created = generations.items(source, built.schema, without)
            at, records = built.checkpoints(source)[name], built.records(source, name)
        old = generations.read(self._books.created(connection, name))
        generations.lock(connection, self.schema, old, monotonic() + self._pool.timeout_s)
        self.uninstall(connection, name)
        generations.require_free(connection, self.schema, built.schema, without)
        generations.move(connection, built.schema, self.schema, created)
        run(connection, f"DROP SCHEMA {quoted(built.schema)} CASCADE", prepare=False)
        self._books.insert(connection, at, generations.written(created))
        for record in records:
            self.park(connection, record)
        yield self, connection

    def merge(self, connection: Any) -> None:
        """Do nothing: PostgreSQL's search indexes let go of words with their rows, when they are vacuumed."""

    def clear_away(self, name: str) -> None:
        """Do nothing: what was replaced is gone with the swap."""

    def differences(
        self,
        connection: Any,  # noqa: ARG002 - the port's
        built: ViewStore,
        name: str,
        tenant: str | None,
    ) -> Iterator[str]:
        """Say where the rows here are not those that were built."""
        built = cast("PostgreSQLViews", built)
        place = RowPlace(self._names.column("tenant"), self._names.column("session_id"), tenant)
        with built.read() as theirs:
            created = generations.items(theirs, built.schema, self._bookkeeping())
            for words in generations.differences(theirs, self.schema, built.schema, created, place):
                yield f"view {name!r}, {words}"

    # --- creating -----------------------------------------------------------------------------------------------------

    def _created_here(self, connection: Any, view: StoredView) -> list[generations.Item]:
        """Create a view in this place, on a bench without the indexes that only queries need; return what is new."""
        before = generations.items(connection, self.schema)
        try:
            with self.attempt(connection):
                if isinstance(view, BUILT_IN):
                    view.create_tables(connection)
                    if self._bench is None:
                        view.create_indexes(connection)
                    return [generations.Item("TABLE", quoted(table)) for table in view.tables]
                self._create(connection, view)
        except (errors.DuplicateTable, errors.DuplicateObject) as error:
            raise InvalidInput("projection", f"{error.diag.message_primary}, and is not its own") from error
        return [item for item in generations.items(connection, self.schema) if item not in before]

    def _created_apart(self, connection: Any, view: StoredView) -> list[generations.Item]:
        """Create a view in a schema of its own and move it here, so that it touches nothing that is here.

        Raises:
            InvalidInput: it would.
        """
        schema = self._benches.schema(f"new {view.name}")
        run(connection, f"CREATE SCHEMA {quoted(schema)}", prepare=False)
        with first_in_path(connection, schema):
            self._create(connection, view)
            created = generations.items(connection, schema)
        generations.require_free(connection, self.schema, schema)
        generations.move(connection, schema, self.schema, created)
        run(connection, f"DROP SCHEMA {quoted(schema)}", prepare=False)
        return created

    def _create(self, connection: Any, view: StoredView) -> None:
        """Create an application's view, in a schema that comes before home in the search path.

        Raises:
            InvalidInput: it dropped what is at home.
        """
        home = self._home.schema
        before = generations.relations(connection, home)
        view.create(connection)
        gone = before.keys() - generations.relations(connection, home).keys()
        if gone:
            raise InvalidInput("projection", f"its create() dropped {before[min(gone)]!r}, which it had not made")

    def _opened(self, bench: Bench, view: StoredView) -> "PostgreSQLViews":
        """Open a workshop with the view in it; what cannot be read there is made anew."""
        workshop = PostgreSQLViews(self._pool, self._names, bench)
        try:
            workshop.furnish(view)
        except StoreError:
            if bench.temporary:
                raise
            bench.empty()
            workshop.furnish(view)
        return workshop

    def furnish(self, view: StoredView) -> None:
        """Have the view in this workshop, as it was left or empty."""
        with self.write() as connection:
            if not generations.items(connection, self.schema):
                tables = {field: self._table(getattr(self._names, field)) for field in ("views", "parked", "trials")}
                for statement in BOOKKEEPING:
                    run(connection, statement.format(**tables), prepare=False)
            if view.name not in self.checkpoints(connection):
                self.install(connection, view)

    def _table(self, name: str) -> str:
        return f"{quoted(self.schema)}.{quoted(name)}"

    def _bookkeeping(self) -> tuple[str, ...]:
        return (self._names.views, self._names.parked, self._names.trials)
