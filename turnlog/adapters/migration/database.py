"""Reading a foreign SQL database: its tables by their columns, its rows as the driver gives them. Nothing is written.

All is read in one transaction, so that what the other system writes meanwhile is seen wholly or not at all (but on
SQLite in rollback mode, where it waits).
"""

import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from turnlog.adapters.connect import sqlite_path
from turnlog.domain.errors import InvalidInput, StoreUnavailable

PAGE = 100
"""How many sessions' rows are read at a time; their ids are read at once."""
_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mariadb": "mariadb+pymysql",
    "mysql": "mysql+pymysql",
}


class Database:
    """A database that is open for reading."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._inspector = sa.inspect(connection)
        names = self._inspector.get_table_names()
        self.tables = {name: tuple(column["name"] for column in self._inspector.get_columns(name)) for name in names}

    def referring(self, table: str, columns: set[str]) -> str | None:
        """Return the table with these columns whose rows belong to those of ``table``: by foreign key, or by name."""
        fitting = [name for name, has in self.tables.items() if columns <= set(has) and name != table]
        for name in fitting:
            if any(key["referred_table"] == table for key in self._inspector.get_foreign_keys(name)):
                return name
        named = [table.replace("sessions", "messages"), table.replace("sessions", "session_runs")]
        return next((name for name in named if name in fitting), None)

    def in_order(self, table: str, key: str, order: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield all rows of a table that have a key, the oldest first; where a key is there twice, both."""
        columns = [_column(name) for name in self.tables[table]]
        order_by = [_column(name) for name in order]
        keys = sa.select(_column(key)).select_from(sa.table(table)).where(_column(key).is_not(None))
        ids = list(dict.fromkeys(row[0] for row in self._run(keys.order_by(*order_by))))
        for i in range(0, len(ids), PAGE):
            page = ids[i : i + PAGE]
            wanted = sa.select(*columns).select_from(sa.table(table)).where(_column(key).in_(page))
            rows: dict[object, list[dict[str, Any]]] = {}
            for row in self._run(wanted.order_by(*order_by)).mappings():
                rows.setdefault(row[key], []).append(dict(row))
            for id_ in page:
                yield from rows.get(id_, ())

    def nameless(self, table: str, key: str) -> int:
        """Count the rows of a table that have no key."""
        counted = sa.select(sa.func.count()).select_from(sa.table(table)).where(_column(key).is_(None))
        return int(self._run(counted).scalar_one())

    def of_session(self, table: str, session_id: object, order: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of a table that belong to a session."""
        columns = [_column(name) for name in self.tables[table]]
        wanted = sa.select(*columns).select_from(sa.table(table)).where(_column("session_id") == session_id)
        return [dict(row) for row in self._run(wanted.order_by(*map(_column, order))).mappings()]

    def astray(self, table: str, sessions: str, key: str) -> Iterator[tuple[object, object]]:
        """Yield the ids of rows of a table that belong to no session, and the session that they name."""
        there = sa.select(_column(key)).select_from(sa.table(sessions)).where(_column(key).is_not(None))
        lost = sa.select(_column("id"), _column("session_id")).select_from(sa.table(table))
        of = _column("session_id")
        for row in self._run(lost.where(of.not_in(there) | of.is_(None)).order_by(_column("id"))).mappings():
            yield row["id"], row["session_id"]

    def _run(self, statement: sa.Executable) -> sa.CursorResult[Any]:
        return self._connection.execute(statement)


@contextmanager
def open_database(url: str) -> Generator[Database, None, None]:
    """Open the database that a URL names; it must be there.

    Raises:
        InvalidInput: there is no such file, the URL is none, or its driver is not installed.
        StoreUnavailable: it cannot be reached or read; no password is in the message.
    """
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            yield Database(connection)
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or type(error).__name__
        where = make_url(url).set(query={}).render_as_string(hide_password=True)
        raise StoreUnavailable(f"{where}: {cause}") from error
    finally:
        engine.dispose()


def _engine(url: str) -> sa.Engine:
    if url.startswith("sqlite"):
        path = sqlite_path(url)
        if not Path(path).is_file():
            raise InvalidInput("source", f"there is no file {path!r}")

        def connect() -> sqlite3.Connection:
            opened = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)
            opened.execute("BEGIN")
            return opened

        return sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)
    scheme, _, rest = url.partition("://")
    driver = _DRIVERS[scheme.partition("+")[0]]
    try:
        engine = sa.create_engine(f"{driver}://{rest}", poolclass=sa.NullPool)
    except (ArgumentError, ValueError) as error:  # its words quote the URL
        raise InvalidInput("source", "expected scheme://user:password@host:port/database") from error
    except ImportError as error:
        raise InvalidInput("source", f"reading it needs a driver that is not installed: {error.name}") from error
    return engine.execution_options(isolation_level="REPEATABLE READ")


def _column(name: str) -> sa.ColumnClause[Any]:
    return sa.column(name)
