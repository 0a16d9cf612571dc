"""Views on PostgreSQL, in the log's database: what the projection engine asks, and the queries on them.

The built-in views' rows are in postgresql_view_tables.py; how one generation takes the place of another is in
postgresql_generations.py; which lock keeps whom out, and why, is said in postgresql_places.py. Queries, folds and
bookkeeping are shared with SQLite. An application's projection is given a ``psycopg.Connection`` (parameters are
written ``%s``); it names its tables without a schema, must not commit, and to be built anew needs the right to create
schemas in the database.
"""

import logging
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from hashlib import sha256
from time import monotonic
from typing import Any, cast

import psycopg
from psycopg import errors, pq

from turnlog.adapters import postgresql_generations as generations
from turnlog.adapters.bookkeeping import Bookkeeping
from turnlog.adapters.names import Names, quoted
from turnlog.adapters.postgresql_places import Bench, Home, Place, advisory_key, first_in_path
from turnlog.adapters.postgresql_pool import Connection, Pool
from turnlog.adapters.postgresql_view_tables import MessageTable, SessionTable
from turnlog.adapters.view_queries import ViewQueries
from turnlog.domain.errors import InvalidInput, StoreError, StoreUnavailable
from turnlog.projections.applying import forget
from turnlog.projections.message_index import MessageIndex
from turnlog.projections.session_index import SessionIndex
from turnlog.projections.view_store import (
    Checkpoint,
    Parked,
    Projection,
    RowProjection,
    StoredView,
    Trial,
    View,
    ViewStore,
    by_rows,
)

_FAILURES = frozenset({"08", "25", "28", "40", "53", "55", "57", "58", "XX"})
"""Classes of SQLSTATE that say the trouble is the server's, or another transaction's."""
_LONGEST = 63
_log = logging.getLogger("turnlog")


class PostgreSQLViews:
    """The views of one log. The recorder is given it too, so that what is erased is forgotten here."""

    def __init__(self, pool: Pool, names: Names | None = None, bench: Bench | None = None) -> None:
        self._pool = pool
        self._names = names = names or Names()
        self._home = Home(pool, names)
        self._place: Place = bench or self._home
        self.schema = schema = self._place.schema
        self.read_only = pool.read_only and bench is None
        self._registered: dict[str, Projection | RowProjection] = {}
        self._books = books = Bookkeeping(names, "%s", lambda name: f"{quoted(schema)}.{quoted(name)}")
        self._trials = f"{quoted(schema)}.{quoted(names.trials)}"
        self.checkpoints, self.record, self.parked, self.release = (
            books.checkpoints,
            books.record,
            books.parked,
            books.release,
        )
        queries = ViewQueries(self._place, names, "POSTGRESQL", schema)
        self.select_sessions = queries.select_sessions
        self.select_session = queries.select_session
        self.select_active = queries.select_active
        self.select_messages = queries.select_messages
        self.select_users = queries.select_users
        self.counts = queries.counts
        self.hold_still = self._home.hold_still

    # --- life ---------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the bookkeeping where it is missing; several processes may do so at once."""
        with self.read() as connection:
            row = connection.execute("SELECT to_regclass(%s)", (self._trials,)).fetchone()
        if row is not None and row[0] is not None:
            return
        from turnlog.adapters import sql  # SQLAlchemy: 300 ms, for a new database only

        with self._place.write() as connection:
            assert connection is not None
            for statement in sql.bookkeeping_ddl(self._names, dialect=sql.POSTGRESQL):
                connection.execute(statement.encode())

    def clear(self) -> None:
        """Empty every registered view."""
        with self._place.write() as connection:
            for name, view in self._registered.items():
                self.uninstall(connection, name)
                self.install(connection, view)

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()

    # --- erasing ------------------------------------------------------------------------------------------------------

    def forget(self, connection: Connection, tenant: str, session_id: str) -> list[str]:
        """Delete what views hold of a session, inside the transaction that erases it.

        That transaction reads what is committed (READ COMMITTED) and has called ``hold_still``, before anything that
        others may wait for. Returns the views that hold the session until they come to the erased events themselves:
        they cannot forget, are stored in another revision than this program's, or are not registered here.
        """
        stream = f"{tenant}/{session_id}"
        self.hold_still(connection)
        with first_in_path(connection, self.schema):
            self._books.forget(connection, stream)
            stored = self.checkpoints(connection).values()
            return [at.name for at in stored if not self._forgets(connection, at, stream)]

    def _forgets(self, connection: Connection, stored: Checkpoint, stream: str) -> bool:
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
        """Drop what unfinished rebuilds left behind; return the views that are being built right now."""
        pending: list[str] = []
        if self.read_only:
            return pending
        select = "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s) ORDER BY nspname"
        for (schema,) in self._pool.rows(select, (self._build_schema(""),)):
            with self._session() as connection, self._pool.translating():
                if self._claimed(connection, schema):
                    connection.execute(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE".encode())
                else:
                    pending += self._built_in(connection, schema)
        return pending

    def _built_in(self, connection: Connection, schema: str) -> list[str]:
        """Return the name of the view that is built in a schema, unless that is gone meanwhile."""
        with suppress(errors.UndefinedTable):
            statement = f'SELECT "name" FROM {quoted(schema)}.{quoted(self._names.views)}'
            return [row[0] for row in connection.execute(statement.encode()).fetchall()]
        return []

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

    def read(self) -> AbstractContextManager[Connection]:
        """Lend a connection in autocommit mode: two statements may see two moments."""
        return self._place.read()

    def write(self, *, wait: bool = True) -> AbstractContextManager[Connection | None]:
        """Lend a connection in a transaction under the catch-up lock: see ``ViewStore``."""
        return self._place.write(wait=wait)

    @contextmanager
    def attempt(self, connection: Connection) -> Generator[None, None, None]:
        """Undo what is done inside if it raises, or if a statement failed there.

        Raises:
            StoreUnavailable: what was done inside ended the transaction.
        """
        connection.execute("SAVEPOINT turnlog_attempt")
        try:
            yield
            if connection.info.transaction_status == pq.TransactionStatus.INERROR:
                raise errors.InFailedSqlTransaction("a statement failed, and its error was not let out")
        except BaseException:
            if connection.info.transaction_status in _INSIDE:
                connection.execute("ROLLBACK TO turnlog_attempt")
                connection.execute("RELEASE turnlog_attempt")
            raise
        if connection.info.transaction_status not in _INSIDE:
            raise StoreUnavailable("the transaction of a view's rows was ended inside; a projection must not commit")
        connection.execute("RELEASE turnlog_attempt")

    def is_failure(self, error: Exception) -> bool:
        """Return whether the server is to blame for ``error``, not the event."""
        if not isinstance(error, psycopg.Error):
            return isinstance(error, StoreUnavailable)
        if error.sqlstate is None:
            return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return error.sqlstate[:2] in _FAILURES and not isinstance(error, errors.InFailedSqlTransaction)

    def park(self, connection: Connection, parked: Parked) -> None:
        """Park a session, or count another attempt."""
        error = parked.error.replace("\0", "\ufffd").encode(errors="replace").decode()
        self._books.park(connection, parked._replace(error=error))

    def install(self, connection: Any, view: StoredView) -> None:
        """Create a view, empty: see ``ViewStore``."""
        if self._place is self._home and not by_rows(view):
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
        """Lend a schema in which to build: see ``ViewStore``. What is not kept is built in temporary tables."""
        with self._session() as connection:
            if not keep:
                yield self._temporary(connection, view)
                return
            schema = self._build_schema(view.name)
            with self._pool.translating():
                claimed = self._claimed(connection, schema)
            if not claimed:
                yield None
                return
            yield self._kept(connection, schema, view)
            with self._pool.translating():
                connection.execute(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE".encode())

    def restart(self, view: StoredView) -> None:
        """Empty this workshop."""
        with self._place.write() as connection:
            self.uninstall(connection, view.name)
            self.install(connection, view)

    def adopt(self, connection: Any, built: ViewStore, name: str) -> None:
        """Move the generation that was built to the place of the one here, in the caller's transaction."""
        built = cast("PostgreSQLViews", built)
        without = self._bookkeeping()
        with built.read() as source:
            created = generations.items(source, built.schema, without)
            generations.analyze(source, built.schema, created)
            at, parked = built.checkpoints(source)[name], built.parked(source, name)
        old = generations.read(self._books.created(connection, name))
        generations.lock(connection, self.schema, old, monotonic() + self._pool.timeout_s)
        self.uninstall(connection, name)
        generations.require_free(connection, self.schema, built.schema, without)
        generations.move(connection, built.schema, self.schema, created)
        self._books.insert(connection, at, generations.written(created))
        for one in parked:
            self.park(connection, one)

    def differences(self, connection: Any, built: ViewStore, name: str) -> Iterator[str]:  # noqa: ARG002 - the port's
        """Say where the rows here are not those that were built."""
        built = cast("PostgreSQLViews", built)
        session = (self._names.column("tenant"), self._names.column("session_id"))
        with built.read() as theirs:
            created = generations.items(theirs, built.schema, self._bookkeeping())
            for words in generations.differences(theirs, self.schema, built.schema, created, session):
                yield f"view {name!r}, {words}"

    # --- trials -------------------------------------------------------------------------------------------------------

    def trial(self, name: str) -> Trial | None:
        """Return the open trial. Temporary tables end with the process, and keep none."""
        if self._is_temporary():
            return None
        statement = f'SELECT "position", "last", "tries" FROM {self._trials} WHERE "view" = %s'
        rows = self._pool.rows(statement, (name,))
        return Trial(*rows[0]) if rows else None

    def begin_trial(self, name: str, trial: Trial) -> None:
        """Note a trial, at once: not in the transaction that may never end."""
        statement = (
            f"WITH quick AS (SELECT set_config('synchronous_commit', 'off', true))"
            f" INSERT INTO {self._trials} SELECT %s, %s, %s, %s FROM quick ON CONFLICT (\"view\") DO UPDATE"
            f' SET "position" = excluded."position", "last" = excluded."last", "tries" = excluded."tries"'
        )
        self._note(statement, (name, *trial))

    def end_trial(self, name: str) -> None:
        """Take the note back."""
        quick = "WITH quick AS (SELECT set_config('synchronous_commit', 'off', true))"
        self._note(f'{quick} DELETE FROM {self._trials} USING quick WHERE "view" = %s', (name,))

    def _note(self, statement: str, parameters: tuple[object, ...]) -> None:
        if not self._is_temporary():
            with self._pool.translating(), self._pool.autocommit() as connection:
                connection.execute(statement.encode(), parameters)

    # --- schemas ------------------------------------------------------------------------------------------------------

    def _created_here(self, connection: Any, view: StoredView) -> list[generations.Item]:
        """Create a view in this place; return what is new in it."""
        before = set(generations.items(connection, self.schema))
        try:
            with self.attempt(connection):
                view.create(connection)
        except (errors.DuplicateTable, errors.DuplicateObject) as error:
            words = f"{error.diag.message_primary}, and is not its own"
            raise InvalidInput("projection", words) from error
        if isinstance(view, SessionTable | MessageTable):
            return [generations.Item("TABLE", quoted(table)) for table in view.tables]
        return [item for item in generations.items(connection, self.schema) if item not in before]

    def _created_apart(self, connection: Any, view: StoredView) -> list[generations.Item]:
        """Create a view in a schema of its own and move it here, so that it touches nothing that is here.

        Raises:
            InvalidInput: it would.
        """
        schema = self._build_schema(f"new {view.name}")
        before = generations.relations(connection, self.schema)
        connection.execute(f"CREATE SCHEMA {quoted(schema)}".encode())
        with first_in_path(connection, schema):
            view.create(connection)
            created = generations.items(connection, schema)
        gone = before.keys() - generations.relations(connection, self.schema).keys()
        if gone:
            raise InvalidInput("projection", f"its create() dropped {before[min(gone)]!r}, which it had not made")
        generations.require_free(connection, self.schema, schema)
        generations.move(connection, schema, self.schema, created)
        connection.execute(f"DROP SCHEMA {quoted(schema)}".encode())
        return created

    def _kept(self, connection: Connection, schema: str, view: StoredView) -> "PostgreSQLViews":
        """Open a workshop with the view in it; what cannot be read there is made anew."""
        with suppress(StoreError):
            return self._opened(connection, schema, view)
        with self._pool.translating():
            connection.execute(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE".encode())
        return self._opened(connection, schema, view)

    def _opened(self, connection: Connection, schema: str, view: StoredView) -> "PostgreSQLViews":
        with self._pool.translating():
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}".encode())
            self._enter(connection, schema)
        workshop = PostgreSQLViews(self._pool, self._names, Bench(self._pool, connection, schema))
        workshop.prepare()
        with workshop.write() as writing:
            if view.name not in workshop.checkpoints(writing):
                workshop.install(writing, view)
        return workshop

    def _temporary(self, connection: Connection, view: StoredView) -> "PostgreSQLViews | None":
        """Open a workshop of temporary tables; ``None`` where the server makes none: a standby."""
        from turnlog.adapters import sql

        try:
            with self._pool.translating():
                connection.execute("SET default_transaction_read_only = off")
                self._enter(connection, "pg_temp")
                for statement in sql.bookkeeping_ddl(self._names, dialect=sql.POSTGRESQL):
                    connection.execute(statement.encode())
                row = connection.execute("SELECT pg_my_temp_schema()::regnamespace::text").fetchone()
        except StoreUnavailable as error:
            if isinstance(error.__cause__, errors.ReadOnlySqlTransaction | errors.InsufficientPrivilege):
                return None
            raise
        workshop = PostgreSQLViews(self._pool, self._names, Bench(self._pool, connection, row[0] if row else ""))
        with workshop.write() as writing:
            workshop.install(writing, view)
        return workshop

    def _enter(self, connection: Connection, schema: str) -> None:
        """Have tables of a schema found first, then those at home; commits need not wait for the disk."""
        path = f"{quoted(schema)}, {quoted(self._home.schema)}"
        connection.execute(
            "SELECT set_config('search_path', concat_ws(', ', %s::text, nullif(current_setting('search_path'), '')),"
            " false), set_config('synchronous_commit', 'off', false)",
            (path,),
        )

    @contextmanager
    def _session(self) -> Generator[Connection, None, None]:
        """Lend a connection of its own, closed at the end: what it claims is free then, whatever becomes of us."""
        with closing(self._pool.session()) as connection:
            yield connection

    def _claimed(self, connection: Connection, schema: str) -> bool:
        key = advisory_key(self._home.schema, self._names, f"build in {schema}")
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
        return row is not None and bool(row[0])

    def _build_schema(self, name: str) -> str:
        """Return what the schema is called in which a view is built; schemas are of a database, so ours is in it."""
        ours = sha256(f"{self._home.schema}\n{self._names.views}".encode()).hexdigest()[:8]
        full = f"{self._names.views[:20]}_build_{ours}_{name}"
        if len(full) <= _LONGEST:
            return full
        return f"{full[: _LONGEST - 9]}_{sha256(name.encode()).hexdigest()[:8]}"

    def _bookkeeping(self) -> tuple[str, ...]:
        return (self._names.views, self._names.parked, self._names.trials)

    def _is_temporary(self) -> bool:
        return self.schema.startswith("pg_temp")


_INSIDE = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)
