"""Benches: databases in which generations of views are built on MariaDB, each on a connection of its own.

A bench is a database beside the log's, claimed by a lock that ends with its connection, or temporary tables of that
connection, which end with it as well and hide those of the same names. The names of benches begin with that of the
log's database, so that one grant on names that begin so is enough: it takes the right to create and drop databases.
"""

from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256

import pymysql

from turnlog.adapters.mariadb.connection import Connection, number, quoted, run
from turnlog.adapters.mariadb.places import lock_name
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.names import Names
from turnlog.domain.errors import StoreError, StoreUnavailable

_LONGEST = 64
_DENIED = frozenset({1044, 1045, 1142, 1227})
"""Numbers of errors: the user lacks a right."""
_NOT_THERE = frozenset({1049, 1146})


class Bench:
    """A database, and the connection whose current one it is: one process builds there, nobody else looks."""

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
        with self._pool.translating():
            run(self._connection, "START TRANSACTION")
            try:
                yield self._connection
            except BaseException:
                if self._connection.open:
                    with suppress(pymysql.Error):  # what was raised first is told
                        run(self._connection, "ROLLBACK")
                raise
            run(self._connection, "COMMIT")


class Benches:
    """All benches of one log."""

    def __init__(self, pool: Pool, names: Names) -> None:
        self._pool = pool
        self._names = names
        ours = sha256(f"{pool.schema}\n{names.views}".encode()).hexdigest()[:8]
        self._prefix = f"{pool.schema[:30]}_build_{ours}_"

    def schema(self, name: str) -> str:
        """Return what the database is called in which a view is built; some servers know small letters only."""
        full = self._prefix + name.lower()
        if len(full) <= _LONGEST:
            return full
        return f"{full[: _LONGEST - 9]}_{sha256(name.encode()).hexdigest()[:8]}"

    def create(self, connection: Connection, schema: str) -> None:
        """Create a database in which texts are by default what they are in the log's; one that is there is left.

        Raises:
            StoreError: the user may not.
        """
        select = (
            "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA"
            " WHERE SCHEMA_NAME = %s"
        )
        ((charset, collation),) = run(connection, select, (self._pool.schema,)).fetchall()
        statement = f"CREATE DATABASE IF NOT EXISTS {quoted(schema)} CHARACTER SET {charset} COLLATE {collation}"
        with self._allowed():
            run(connection, statement)

    def drop(self, connection: Connection, schema: str) -> None:
        """Drop a database, if it is there.

        Raises:
            StoreError: the user may not.
        """
        with self._allowed():
            run(connection, f"DROP DATABASE IF EXISTS {quoted(schema)}")

    @contextmanager
    def _allowed(self) -> Generator[None, None, None]:
        """Say which right is missing, where one is."""
        try:
            yield
        except pymysql.Error as error:
            if number(error) not in _DENIED:
                raise
            pattern = self._prefix.replace("_", r"\_")
            words = "a view is built in a database of its own, which this user may not create; it takes"
            raise StoreError(f"{self._pool.name}: {words} GRANT ALL ON `{pattern}%`.*") from error

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
                    self.create(connection, schema)
                    run(connection, f"USE {quoted(schema)}")
            if not claimed:
                yield None
                return
            try:
                yield Bench(self._pool, connection, schema, temporary=False)
            except BaseException:
                if not keep and connection.open:
                    self._dropped(connection, schema)
                raise
            self._dropped(connection, schema)

    @contextmanager
    def temporary(self) -> Generator[Bench | None, None, None]:
        """Lend a bench of temporary tables; ``None`` where the user may not make any."""
        with self._session() as connection:
            try:
                with self._pool.translating():
                    run(connection, "SET SESSION TRANSACTION READ WRITE")
                    run(connection, f"USE {quoted(self._pool.schema)}")
                    run(connection, "CREATE TEMPORARY TABLE turnlog_here (there integer)")
                    run(connection, "DROP TEMPORARY TABLE turnlog_here")
            except StoreUnavailable as error:
                if error.__cause__ is None or number(error.__cause__) not in _DENIED:
                    raise
                yield None
                return
            yield Bench(self._pool, connection, self._pool.schema, temporary=True)

    def empty(self, bench: Bench) -> None:
        """Begin anew, with nothing in it."""
        with bench.read() as connection:
            self.drop(connection, bench.schema)
            self.create(connection, bench.schema)
            run(connection, f"USE {quoted(bench.schema)}")

    def discard(self, connection: Connection) -> list[str]:
        """Drop what unfinished builds and swaps left behind; return the views that are being built right now.

        The caller has the catch-up lock: no swap is under way.
        """
        pending: list[str] = []
        select = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE LEFT(SCHEMA_NAME, %s) = %s ORDER BY 1"
        for (schema,) in run(connection, select, (len(self._prefix), self._prefix)).fetchall():
            with self._session() as claiming:
                if self._claimed(claiming, schema):
                    self._dropped(claiming, schema)
                else:
                    pending += self._built_in(claiming, schema)
        return pending

    def _dropped(self, connection: Connection, schema: str) -> None:
        with self._pool.translating():
            self.drop(connection, schema)

    def _built_in(self, connection: Connection, schema: str) -> list[str]:
        """Return the name of the view that is built in a database, unless that is gone meanwhile."""
        try:
            rows = run(connection, f"SELECT `name` FROM {quoted(schema)}.{quoted(self._names.views)}").fetchall()
        except pymysql.Error as error:
            if number(error) not in _NOT_THERE:
                raise
            return []
        return [name for (name,) in rows]

    def _claimed(self, connection: Connection, schema: str) -> bool:
        lock = lock_name(self._pool.schema, self._names, f"build in {schema}")
        return run(connection, "SELECT GET_LOCK(%s, 0)", (lock,)).fetchall() == ((1,),)

    @contextmanager
    def _session(self) -> Generator[Connection, None, None]:
        """Lend a connection of its own, closed at the end: what it claims is free then, whatever becomes of us.

        A server notices a little later that it was closed; so what was claimed is given back first.
        """
        with closing(self._pool.session()) as connection:
            try:
                yield connection
            finally:
                if connection.open:
                    with suppress(pymysql.Error):
                        run(connection, "DO RELEASE_ALL_LOCKS()")
