"""Views on MariaDB (10.6 or newer) and MySQL (8.0, not tested), in the log's database.

How rows are read and written is in rows.py; how one generation takes the place of another, and what becomes of
a swap that was interrupted, in swapping.py; which lock keeps whom out, and why, in places.py. Queries,
folds and bookkeeping are shared with the other SQL databases.

An application's projection is given a ``pymysql.Connection`` (parameters are written ``%s``) and names its tables
without a database. Its ``create`` may create tables, with all that belongs to a table but triggers. In ``apply`` and
``forget`` it must not commit, and so neither create, alter nor drop what is not temporary: all those commit. Building
in a database of its own, which is what every such projection is created and rebuilt in, takes the right to create and
drop databases.
"""

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast
from uuid import uuid4

from turnlog.adapters.bookkeeping import Bookkeeping
from turnlog.adapters.held import Held
from turnlog.adapters.mariadb import generations
from turnlog.adapters.mariadb.benches import Bench, Benches
from turnlog.adapters.mariadb.connection import Connection, quoted, run
from turnlog.adapters.mariadb.places import Home, Place, inside
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.mariadb.rows import MARIADB, MYSQL, MariaDBRows
from turnlog.adapters.mariadb.savepoint import of_the_server, savepoint
from turnlog.adapters.mariadb.swapping import Plan, Swaps, is_planned
from turnlog.adapters.mariadb.tables import BOOKKEEPING
from turnlog.adapters.mariadb.terms import MariaDBTerms
from turnlog.adapters.mariadb.trials import Trials
from turnlog.adapters.names import Names
from turnlog.adapters.registered import BUILT_IN, Registered
from turnlog.adapters.telling import Place as RowPlace
from turnlog.adapters.view_queries import ViewQueries
from turnlog.domain.errors import InvalidInput, StoreError
from turnlog.projections.view_store import Checkpoint, Parked, StoredView, ViewStore, by_rows

PAGE = 2_000
"""Events a transaction; while it lasts, nobody can erase."""


class MariaDBViews:
    """The views of one log. The recorder is given it too, so that what is erased is forgotten here."""

    def __init__(self, pool: Pool, names: Names | None = None, bench: Bench | None = None) -> None:
        self._pool = pool
        self._names = names = names or Names()
        self._swaps = Swaps(pool, names)
        self._home = Home(pool, names, self._swaps)
        self._bench = bench
        self._benches = Benches(pool, names)
        place: Place = bench or self._home
        self._place = place
        self.schema = schema = place.schema
        self.read_only = pool.read_only and bench is None
        self.page = PAGE
        self.searches = True
        wording = MARIADB if pool.server.is_mariadb else MYSQL
        self._registered = registered = Registered(names, wording, MariaDBRows, MariaDBTerms)
        self.register = registered.register
        self._books = books = Bookkeeping(names, wording, self._table)
        self.record, self.release = books.record, books.release
        held = Held(books)
        self.records, self.parked = books.parked, held.parked
        self.begin, self.hold, self.holding = held.begin, held.hold, held.holding
        trials = Trials(pool, None if bench is not None and bench.temporary else self._table(names.trials))
        self.trial, self.begin_trial, self.end_trial = trials.read, trials.begin, trials.end
        self.queries = queries = ViewQueries(place, names, MariaDBTerms(names), wording, schema)
        self.select_sessions = queries.select_sessions
        self.select_session = queries.select_session
        self.select_active = queries.select_active
        self.select_messages = queries.select_messages
        self.select_found = queries.select_found
        self.select_users = queries.select_users
        self.counts = queries.counts
        self.hold_still = self._home.hold_still

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()

    # --- erasing ------------------------------------------------------------------------------------------------------

    def forget(self, connection: Connection, tenant: str, session_id: str) -> list[str]:
        """Delete what views hold of a session, inside the transaction that erases it.

        That transaction reads what is committed (READ COMMITTED) and has called ``hold_still`` before. Returns the
        views that hold the session until they come to the erased events themselves.
        """
        stream = f"{tenant}/{session_id}"
        with inside(connection, self.schema):
            self._books.forget(connection, stream)
            return self._registered.forget(self, connection, stream)

    def discard_builds(self) -> list[str]:
        """Drop what unfinished rebuilds left behind; return the views that are being built right now."""
        if self.read_only:
            return []
        with self._home.write() as connection:
            return [] if connection is None else self._benches.discard(connection)

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
        """Undo what is done inside if it raises: see ``ViewStore``."""
        return savepoint(connection)

    def is_failure(self, error: Exception) -> bool:
        """Return whether the server is to blame for ``error``, not the event."""
        return of_the_server(error)

    def checkpoints(self, connection: Connection) -> dict[str, Checkpoint]:
        """Return every view's checkpoint."""
        found = self._books.checkpoints(connection)
        return {name: at for name, at in found.items() if not is_planned(name)}

    def park(self, connection: Connection, parked: Parked) -> None:
        """Park a session, or count another attempt."""
        self._books.park(connection, parked._replace(error=parked.error.encode(errors="replace").decode()))

    def install(self, connection: Connection, view: StoredView) -> None:
        """Create a view, empty: see ``ViewStore``."""
        at = Checkpoint(view.name, view.revision)
        if self._bench is not None:
            self._books.insert(connection, at, self._created_on_bench(connection, view))
        elif isinstance(view, BUILT_IN):
            generations.require_free(connection, self.schema, view.tables)
            plan = Plan(None, view.tables)
            self._swaps.plan(connection, at, plan)
            view.create(connection)
            run(connection, "START TRANSACTION")
            self._swaps.settle(connection, view.name, plan)
        else:
            self._install_from(connection, view, self._benches.schema(f"new {view.name}"))

    @contextmanager
    def workshop(self, view: StoredView, *, keep: bool) -> Generator["MariaDBViews | None", None, None]:
        """Lend a database in which to build: see ``ViewStore``."""
        if not self.read_only:
            with self._home.write():  # what was built may be what an interrupted swap was about to take
                pass
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
        if self._bench is not None:
            self._benches.empty(self._bench)
        self.furnish(view)

    def lay_out(self, built: ViewStore, name: str) -> None:
        """Create, where it was built, the indexes that queries need, and have the server learn what the tables hold."""
        view, schema = self._registered.views[name], cast("MariaDBViews", built).schema
        with built.read() as connection:
            if isinstance(view, BUILT_IN):
                view.create_indexes(connection, generations.indexes(connection, schema))
            generations.analyze(connection, schema, generations.tables(connection, schema))

    @contextmanager
    def adopting(
        self, connection: Connection, built: ViewStore, name: str
    ) -> Generator[tuple[ViewStore, Any], None, None]:
        """Lend the generation that was built, to bring it level; then move it to the place of the one here."""
        with built.write() as building:
            yield built, building
        built = cast("MariaDBViews", built)
        with built.read() as source:
            tables = generations.tables(source, built.schema, self._bookkeeping())
            at, parked = built.checkpoints(source)[name], built.records(source, name)
        old = self._books.created(connection, name)
        generations.require_free(connection, self.schema, tables, old)
        gone, plan = self._gone(name), Plan(built.schema, tables)
        self._benches.drop(connection, gone)
        self._benches.create(connection, gone)
        self._swaps.plan(connection, at, plan, parked)
        self._swaps.perform(connection, name, plan, old, gone)

    def merge(self, connection: Connection) -> None:
        """Have full-text indexes, of all views, let go of words that were deleted."""
        created = [table for name in self.checkpoints(connection) for table in self._books.created(connection, name)]
        generations.merge(connection, self.schema, created)

    def clear_away(self, name: str) -> None:
        """Drop what was replaced."""
        with self._home.write() as connection:
            if connection is not None:
                self._benches.drop(connection, self._gone(name))

    def differences(self, connection: Connection, built: ViewStore, name: str, tenant: str | None) -> Iterator[str]:
        """Say where the rows here are not those that were built."""
        built = cast("MariaDBViews", built)
        place = RowPlace(self._names.column("tenant"), self._names.column("session_id"), tenant)
        with built.read() as theirs:
            tables = built.created(theirs, name)
            schemas = (self.schema, built.schema)
            for words in generations.differences(connection, theirs, schemas, tables, place):
                yield f"view {name!r}, {words}"

    def created(self, connection: Connection, name: str) -> list[str]:
        """Return the tables that a view created."""
        return self._books.created(connection, name)

    # --- creating -----------------------------------------------------------------------------------------------------

    def _created_on_bench(self, connection: Connection, view: StoredView) -> list[str]:
        """Create a view on a bench, without the indexes that only queries need; return its tables."""
        if isinstance(view, BUILT_IN):
            view.create_tables(connection, temporary=self._bench is not None and self._bench.temporary)
            created = list(view.tables)
        else:
            created = self._create(connection, view, self.schema)
        run(connection, "START TRANSACTION")
        return created

    def _install_from(self, connection: Connection, view: StoredView, schema: str) -> None:
        """Create a view in a database of its own and move it here, so that it touches nothing that is here.

        Raises:
            InvalidInput: it would.
        """
        self._benches.drop(connection, schema)
        self._benches.create(connection, schema)
        try:
            run(connection, f"USE {quoted(schema)}")
            try:
                plan = Plan(schema, self._create(connection, view, schema))
            finally:
                if connection.open:
                    run(connection, f"USE {quoted(self.schema)}")
            generations.require_free(connection, self.schema, plan.tables)
            self._swaps.plan(connection, Checkpoint(view.name, view.revision), plan)
            self._swaps.perform(connection, view.name, plan)
            run(connection, "COMMIT")
        finally:
            if connection.open:
                self._benches.drop(connection, schema)
        run(connection, "START TRANSACTION")

    def _create(self, connection: Connection, view: StoredView, schema: str) -> list[str]:
        """Have an application's view create its tables in the current database; return their names.

        Raises:
            InvalidInput: it created what cannot be moved, or dropped what is at home.
        """
        home = self._home.schema
        before = generations.tables(connection, home)
        view.create(connection)
        run(connection, "COMMIT")
        gone = set(before).difference(generations.tables(connection, home))
        if gone:
            raise InvalidInput("projection", f"its create() dropped {min(gone)!r}, which it had not made")
        generations.require_movable(connection, schema)
        return generations.tables(connection, schema, self._bookkeeping())

    def _opened(self, bench: Bench, view: StoredView) -> "MariaDBViews":
        """Open a workshop with the view in it; what cannot be read there is made anew."""
        workshop = MariaDBViews(self._pool, self._names, bench)
        try:
            workshop.furnish(view)
        except StoreError:
            if bench.temporary:
                raise
            workshop.restart(view)
        return workshop

    def furnish(self, view: StoredView) -> None:
        """Have the view in this workshop, as it was left or empty."""
        with self.write() as connection:
            tables = {field: self._table(getattr(self._names, field)) for field in ("views", "parked", "trials")}
            temporary = self._bench is not None and self._bench.temporary
            for statement in BOOKKEEPING:
                text = statement.format(collation=self._pool.collation, **tables)
                run(connection, text.replace("TABLE", "TEMPORARY TABLE", 1) if temporary else text)
            run(connection, "START TRANSACTION")
            if view.name not in self.checkpoints(connection):
                self.install(connection, view)
            elif not self._is_whole(connection, view.name):
                raise StoreError(f"of view {view.name!r}, which was built here, tables were moved away")

    def _is_whole(self, connection: Connection, name: str) -> bool:
        """Return whether what was built is here: a process that swapped it may not have lived to clear up."""
        return set(self._books.created(connection, name)).issubset(generations.tables(connection, self.schema))

    def _gone(self, name: str) -> str:
        return self._benches.schema(f"old {name}")

    def _table(self, name: str) -> str:
        return f"{quoted(self.schema)}.{quoted(name)}"

    def _bookkeeping(self) -> tuple[str, ...]:
        return (self._names.views, self._names.parked, self._names.trials)
