"""Benches: schemas in which generations of views are built on PostgreSQL, each on a connection of its own.

A bench is a schema beside the log's, claimed by an advisory lock that ends with its connection, or the connection's
temporary schema, which ends with it as well. Schemas are of a database, so the log's own is part of their names.
"""

from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256

import psycopg
from psycopg import errors
from psycopg.types.numeric import Int8

from turnlog.adapters.names import Names, quoted
from turnlog.adapters.postgresql.connection import Connection, run
from turnlog.adapters.postgresql.places import advisory_key
from turnlog.adapters.postgresql.pool import Pool
from turnlog.domain.errors import StoreUnavailable

_LONGEST = 63


class Bench:
    """A schema, and the connection that finds its tables first: one process builds there, nobody else looks."""

    def __init__(self, pool: Pool, connection: Connection, schema: str, *, temporary: bool) -> None:
        self._pool = pool
        self._connection = connection
        self.schema = schema
        self.temporary = temporary

    @contextmanager
    def read(self) -> Generator[Connection, None, None]:
        """Lend the connection in autocommit mode."""
        with self._pool.translating():
            yield self._connection

    @contextmanager
    def write(self, *, wait: bool = True) -> Generator[Connection, None, None]:  # noqa: ARG002 - the port's
        """Lend the connection in a transaction."""
        with self._pool.translating(), self._connection.transaction():
            yield self._connection

    def empty(self) -> None:
        """Begin anew, with nothing in it."""
        with self.write() as connection:
            run(connection, f"DROP SCHEMA IF EXISTS {quoted(self.schema)} CASCADE", prepare=False)
            run(connection, f"CREATE SCHEMA {quoted(self.schema)}", prepare=False)


class Benches:
    """All benches of one log."""

    def __init__(self, pool: Pool, names: Names) -> None:
        self._pool = pool
        self._names = names
        ours = sha256(f"{pool.schema}\n{names.views}".encode()).hexdigest()[:8]
        self._prefix = f"{names.views[:20]}_build_{ours}_"

    def schema(self, name: str) -> str:
        """Return what the schema is called in which a view is built."""
        full = self._prefix + name
        if len(full) <= _LONGEST:
            return full
        return f"{full[: _LONGEST - 9]}_{sha256(name.encode()).hexdigest()[:8]}"

    @contextmanager
    def beside(self, name: str, *, keep: bool) -> Generator[Bench | None, None, None]:
        """Lend a bench by its name, as it was left; ``None`` where somebody else is at it. It is gone at the end.

        With ``keep``, what the caller raises leaves it, for the next to go on.
        """
        schema = self.schema(name)
        with self._session() as connection:
            with self._pool.translating():
                claimed = self._claimed(connection, schema)
                if claimed:
                    run(connection, f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}", prepare=False)
                    self._enter(connection, schema)
            if not claimed:
                yield None
                return
            try:
                yield Bench(self._pool, connection, schema, temporary=False)
            except BaseException:
                if not keep and not connection.closed:
                    self._drop(connection, schema)
                raise
            self._drop(connection, schema)

    @contextmanager
    def temporary(self) -> Generator[Bench | None, None, None]:
        """Lend a bench of temporary tables; ``None`` where the server makes none: a standby, or a lack of rights."""
        with self._session() as connection:
            yield self._temporary(connection)

    def discard(self) -> list[str]:
        """Drop what unfinished builds left behind; return the views that are being built right now."""
        pending: list[str] = []
        select = "SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, %s) ORDER BY nspname"
        for (schema,) in self._pool.rows(select, (self._prefix,)):
            with self._session() as connection, self._pool.translating():
                if self._claimed(connection, schema):
                    self._drop(connection, schema)
                else:
                    pending += self._built_in(connection, schema)
        return pending

    def _temporary(self, connection: Connection) -> Bench | None:
        try:
            with self._pool.translating():
                run(connection, "SET default_transaction_read_only = off", prepare=False)
                self._enter(connection, "pg_temp")
                run(connection, "CREATE TEMPORARY TABLE turnlog_here (there integer)", prepare=False)
                run(connection, "DROP TABLE pg_temp.turnlog_here", prepare=False)
                row = run(connection, "SELECT pg_my_temp_schema()::regnamespace::text", prepare=False).fetchone()
        except StoreUnavailable as error:
            if isinstance(error.__cause__, errors.ReadOnlySqlTransaction | errors.InsufficientPrivilege):
                return None
            raise
        return Bench(self._pool, connection, row[0] if row else "pg_temp", temporary=True)

    def _drop(self, connection: Connection, schema: str) -> None:
        with self._pool.translating():
            run(connection, f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE", prepare=False)

    def _built_in(self, connection: Connection, schema: str) -> list[str]:
        """Return the name of the view that is built in a schema, unless that is gone meanwhile."""
        with suppress(errors.UndefinedTable):
            statement = f'SELECT "name" FROM {quoted(schema)}.{quoted(self._names.views)}'
            return [row[0] for row in run(connection, statement, prepare=False).fetchall()]
        return []

    def _claimed(self, connection: Connection, schema: str) -> bool:
        key = advisory_key(self._pool.schema, self._names, f"build in {schema}")
        row = run(connection, "SELECT pg_try_advisory_lock(%s)", (Int8(key),), prepare=False).fetchone()
        return row is not None and bool(row[0])

    def _enter(self, connection: Connection, schema: str) -> None:
        """Have tables of a schema found first, then those at home; commits need not wait for the disk."""
        path = f"{quoted(schema)}, {quoted(self._pool.schema)}"
        statement = (
            "SELECT set_config('search_path', concat_ws(', ', %s::text, nullif(current_setting('search_path'), '')),"
            " false), set_config('synchronous_commit', 'off', false)"
        )
        run(connection, statement, (path,), prepare=False)

    @contextmanager
    def _session(self) -> Generator[Connection, None, None]:
        """Lend a connection of its own, closed at the end: what it claims is free then, whatever becomes of us.

        A server notices a little later that it was closed; so what was claimed is given back first.
        """
        with closing(self._pool.session()) as connection:
            try:
                yield connection
            finally:
                with suppress(psycopg.Error):
                    run(connection, "SELECT pg_advisory_unlock_all()", prepare=False)
