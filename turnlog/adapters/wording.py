"""How databases differ in the statements about views that all of them are sent. SQL text; no driver, no SQLAlchemy."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from turnlog.adapters.names import Names


def _execute(connection: Any, statement: str, parameters: Any = ()) -> Any:
    """Execute one statement on a connection of ``sqlite3`` or psycopg; return its cursor."""
    return connection.execute(statement, parameters)


def _as_json(ids: Collection[str]) -> object:
    return msgspec.json.encode(list(ids)).decode()


def _exact(value: Any) -> Any:
    return value


def without_nul(value: Any) -> Any:
    """Return a value as a column of PostgreSQL can hold it: no text there has a NUL."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


class Wording(NamedTuple):
    """What one database is told otherwise than others."""

    dialect: str
    """The name that sql.py has for it."""
    mark: str
    """How the driver writes a parameter."""
    quote: str = '"'
    """What names stand in."""
    conflict: str = "ON CONFLICT ({}) DO UPDATE SET"
    """How an insert goes on whose row may be there already, found by these columns."""
    given: str = "excluded.{}"
    """What would have been inserted into a column."""
    limits_changes: bool = False
    """Whether updates and deletes know ``ORDER BY`` and ``LIMIT``."""
    run: Callable[..., Any] = _execute
    """Executes a statement on a connection, with parameters if it has some; returns a cursor."""
    listed: Callable[[Collection[str]], object] = _as_json
    """Makes one parameter of ids, at least one."""
    shown: Callable[[Any], Any] = _exact
    """Makes a value one that a column can hold."""

    def quoted(self, name: str) -> str:
        """Return an identifier as SQL text."""
        return f"{self.quote}{name}{self.quote}"

    def listing(self, names: Sequence[str]) -> str:
        """Return identifiers as a list in SQL text."""
        return ", ".join(map(self.quoted, names))

    def marks(self, n: int) -> str:
        """Return ``n`` parameters as a list in SQL text."""
        return ", ".join([self.mark] * n)

    def replacing(self, key: Sequence[str], columns: Sequence[str]) -> str:
        """Return the end of an insert that takes the place of a row with the same key, in these columns."""
        updated = ", ".join(f"{self.quoted(c)} = {self.given.format(self.quoted(c))}" for c in columns)
        return f"{self.conflict.format(self.listing(key))} {updated}"


SQLITE = Wording("SQLITE", "?")
POSTGRESQL = Wording("POSTGRESQL", "%s", shown=without_nul)


class Table(NamedTuple):
    """A table of a built-in view: its name as SQL text, its columns' names, and what they are called by default.

    The first two columns, tenant and session id, tell whose a row is.
    """

    name: str
    columns: tuple[str, ...]
    fields: tuple[str, ...]

    @classmethod
    def named(cls, name: str, names: Names, fields: tuple[str, ...], wording: Wording) -> "Table":
        """Return the table as ``names`` and a database have it."""
        return cls(wording.quoted(name), tuple(names.column(field) for field in fields), fields)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that tell whose a row is."""
        return self.columns[:2]

    @property
    def changing(self) -> tuple[str, ...]:
        """The columns that may differ in a later row of the same session."""
        pairs = zip(self.columns[2:], self.fields[2:], strict=True)
        return tuple(column for column, field in pairs if not field.startswith("created_"))
