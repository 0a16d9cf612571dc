"""The built-in views' tables on every SQL database: columns, keys and indexes as data, and what creates them as text.

No SQLAlchemy here, whose import takes a third of what building a view of 100,000 events does; sql.py makes of the same
data what queries are composed of. A column is of the same kind wherever it stands.
"""

from collections.abc import Collection, Iterator
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from turnlog.adapters.names import MESSAGE_COLUMNS, OWNER_COLUMNS, SEARCH_COLUMNS, SESSION_COLUMNS, Names
from turnlog.adapters.wording import Wording

Kind: TypeAlias = Literal["text", "word", "number", "terms"]
_TEXTS = frozenset({"tenant", "session_id", "user_id", "agent", "current_route", "current_step", "message_id", "route"})
_WORDS = frozenset({"status", "role"})
NULLABLE = frozenset({"user_id", "agent", "current_route", "current_step", "last_message_at", "completed_at", "route"})
"""The columns that may hold nothing."""


def kind(column: str) -> Kind:
    """Return what a column holds: a text, one of turnlog's own words, a whole number, or the terms of a message."""
    if column in _TEXTS:
        return "text"
    if column in _WORDS:
        return "word"
    return "terms" if column == "terms" else "number"


class Index(NamedTuple):
    """An index that only queries need; it is called as its table, and by how its name ends."""

    ending: str
    columns: tuple[str, ...]
    where: tuple[tuple[str, str], ...] = ()
    """What is true of the rows that it has, where a database knows such indexes."""
    otherwise: tuple[str, ...] = ()
    """Its columns where a database does not, if they are others."""
    planned: bool = False
    """Whether it is made only where the planner can be trusted to leave it alone."""


class Layout(NamedTuple):
    """One table."""

    columns: tuple[str, ...]
    key: tuple[str, ...]
    """The columns that tell rows apart."""
    indexes: tuple[Index, ...] = ()
    place: str | None = None
    """The column that an index beside the table finds rows by, where there is one."""


_SESSION = ("tenant", "session_id")
_MESSAGE = (*_SESSION, "ordinal")
_OWNED = (("user_id", "IS NOT NULL"),)
_OWNERS = Layout(OWNER_COLUMNS, _SESSION)
LAYOUTS: Final = {
    "session_index": Layout(
        SESSION_COLUMNS,
        _SESSION,
        (
            Index("all", ("tenant", "updated_position")),
            Index("user", ("tenant", "user_id", "updated_position"), _OWNED),
            Index("agent", ("tenant", "agent", "updated_position"), (("agent", "IS NOT NULL"),)),
            Index("status", ("tenant", "status", "updated_position")),
            Index("route", ("tenant", "current_route", "updated_position"), (("current_route", "IS NOT NULL"),)),
            Index(
                "active",
                ("tenant", "user_id", "created_position"),
                (*_OWNED, ("status", "= 'active'")),
                otherwise=("tenant", "user_id", "status", "created_position"),
            ),
        ),
    ),
    "message_index": Layout(
        MESSAGE_COLUMNS, _MESSAGE, (Index("user", ("tenant", "user_id", "position", "item"), _OWNED),)
    ),
    "message_owners": _OWNERS,
    "message_search": Layout(
        SEARCH_COLUMNS,
        _MESSAGE,
        (
            Index("all", ("tenant", "place"), planned=True),
            Index("user", ("tenant", "user_id", "place"), planned=True),
        ),
        place="place",
    ),
    "search_owners": _OWNERS,
}
"""By the names that ``Names`` has for the tables. Every list is a scan of the index that has its filter and order."""


class Terms(NamedTuple):
    """How a database writes what differs."""

    kinds: dict[Kind, str]
    key: str = "UNIQUE"
    """What the columns are that tell rows apart."""
    partial: bool = True
    """Whether there are indexes of some rows only."""
    planned: bool = False
    """See ``Index``."""
    of_terms: tuple[str, str] | None = None
    """An index of terms: what it is, and how it is written; ``None`` where that is a table beside."""
    ending: str = ""
    """What stands behind the columns."""


_C = 'TEXT COLLATE "C"'


def _mysql(collation: str) -> Terms:
    """Return MariaDB's or MySQL's: of whose collations one counts case, accents and trailing blanks.

    Columns that an index is on may have 3,072 bytes together: so they hold 255 characters, which ids have at most.
    """
    compared = f"CHARACTER SET utf8mb4 COLLATE {collation}"
    kinds: dict[Kind, str] = {
        "text": f"VARCHAR(255) {compared}",
        "word": f"VARCHAR(32) {compared}",
        "number": "BIGINT",
        "terms": "LONGTEXT CHARACTER SET ascii COLLATE ascii_bin",
    }
    return Terms(kinds, "PRIMARY KEY", partial=False, of_terms=("FULLTEXT INDEX", "({})"), ending=" ENGINE=InnoDB")


_TERMS = {
    "SQLITE": Terms({"text": "TEXT", "word": "TEXT", "number": "INTEGER", "terms": "TEXT"}),
    "POSTGRESQL": Terms(
        {"text": _C, "word": _C, "number": "BIGINT", "terms": "TSVECTOR"},
        planned=True,
        of_terms=("INDEX", "USING gin ({}) WITH (fastupdate = off)"),
    ),
    "MARIADB": _mysql("utf8mb4_nopad_bin"),
    "MYSQL": _mysql("utf8mb4_0900_bin"),
}


class Ddl:
    """Creates the tables of a view."""

    def __init__(self, names: Names, wording: Wording, *tables: str) -> None:
        self._names = names
        self._wording = wording
        self._terms = _TERMS[wording.dialect]
        self._tables = tables

    def all(self, connection: Any) -> None:
        """Create the tables and their indexes."""
        self.tables(connection)
        self.indexes(connection)

    def tables(self, connection: Any, *, temporary: bool = False) -> None:
        """Create the tables."""
        for table in self._tables:
            self._wording.run(connection, self._creating(table, "TEMPORARY " if temporary else ""))

    def indexes(self, connection: Any, there: Collection[str] = ()) -> None:
        """Create the indexes that only queries need, but for those that are ``there``."""
        for table in self._tables:
            for name, statement in self._indexing(table):
                if name not in there:
                    self._wording.run(connection, statement)

    def _creating(self, table: str, kind_of_table: str) -> str:
        layout, terms = LAYOUTS[table], self._terms
        parts = [f"{self._column(column)} {self._type(column)}" for column in layout.columns]
        if layout.place is not None and terms.of_terms is None:
            parts.append(f"PRIMARY KEY ({self._column(layout.place)})")
        parts.append(f"{terms.key} ({self._columns(layout.key)})")
        return f"CREATE {kind_of_table}TABLE {self._table(table)} ({', '.join(parts)}){terms.ending}"

    def _indexing(self, table: str) -> Iterator[tuple[str, str]]:
        """Yield the names of indexes, and what creates them."""
        layout, terms, on = LAYOUTS[table], self._terms, f"ON {self._table(table)}"
        name = getattr(self._names, table)
        for index in layout.indexes:
            if terms.planned or not index.planned:
                columns = index.columns if terms.partial else index.otherwise or index.columns
                where = " AND ".join(f"{self._column(column)} {what}" for column, what in index.where)
                ending = f" WHERE {where}" if where and terms.partial else ""
                called = f"{name}_{index.ending}"
                yield called, f"CREATE INDEX {self._quoted(called)} {on} ({self._columns(columns)}){ending}"
        if "terms" in layout.columns and terms.of_terms is not None:
            what, how = terms.of_terms
            called = f"{name}_terms"
            yield called, f"CREATE {what} {self._quoted(called)} {on} {how.format(self._column('terms'))}"

    def _type(self, column: str) -> str:
        return self._terms.kinds[kind(column)] + ("" if column in NULLABLE else " NOT NULL")

    def _table(self, table: str) -> str:
        return self._quoted(getattr(self._names, table))

    def _column(self, column: str) -> str:
        return self._quoted(self._names.column(column))

    def _columns(self, columns: tuple[str, ...]) -> str:
        return ", ".join(map(self._column, columns))

    def _quoted(self, name: str) -> str:
        return self._wording.quoted(name)
