"""What the SQL dialects share: tables as SQLAlchemy Core, their DDL, and the queries on views as compiled text.

Importing this file imports SQLAlchemy, which takes longer than opening a store: import it where a table is created or
a view is first queried, never at the top of a file that every store loads.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.sql.operators import custom_op

from turnlog.adapters.names import Names

Column = sa.ColumnElement[Any]


class Dialect(NamedTuple):
    """What the queries on views are told of a database."""

    compiler: Any
    """SQLAlchemy's dialect; parameters are written as the driver wants them."""
    unindexed: Callable[[Column], Column]
    """Marks a column as not to be looked for in an index, where the planner needs to be told."""
    outside: Callable[[Column, Column], Any]
    """Says that a column is none of the ids that are listed in one parameter, see ``Wording.listed``."""
    text: sa.types.TypeEngine[str] = sa.Text()
    """Text that is compared and sorted by its bytes, as SQLite does it: pages come in the same order everywhere."""
    word: sa.types.TypeEngine[str] = sa.Text()
    """As ``text``, for words that turnlog chose: they are short."""
    key: type[sa.UniqueConstraint | sa.PrimaryKeyConstraint] = sa.UniqueConstraint
    """What the columns are that tell a view's rows apart."""
    partial: bool = True
    """Whether there are indexes of some rows only."""
    hint: str | None = None
    """How a query is told which index to walk, where that has to be said."""
    terms: sa.types.TypeEngine[Any] = sa.Text()
    """What the terms of a message are kept in."""
    terms_index: Mapping[str, Any] | None = None
    """What makes an index one of terms; ``None`` where that is a table beside."""
    has_terms: Callable[[Column], Any] | None = None
    """Says that a column has the terms that are wanted, by the parameters that ``Terms.wanted`` gives."""


def _plus(column: Column) -> Column:
    """Return the column as ``+column``, which SQLite does not look for in an index: the better one is named by hand."""
    return sa.UnaryExpression(column, operator=custom_op[Any]("+"), type_=column.type)


def _unchanged(column: Column) -> Column:
    return column


def _json_each(column: Column, ids: Column) -> Any:
    return column.not_in(sa.select(sa.func.json_each(ids).table_valued("value").c.value))


def _json_elements(column: Column, ids: Column) -> Any:
    listed = sa.func.json_array_elements_text(sa.cast(ids, sa.JSON)).table_valued("value")
    return column.not_in(sa.select(listed.c.value))


def _ts_match(column: Column) -> Any:
    return column.op("@@", is_comparison=True)(sa.cast(sa.bindparam("terms"), postgresql.TSQUERY))


def _in_boolean_mode(column: Column) -> Any:
    found = mysql.match(column, against=sa.bindparam("terms")).in_boolean_mode()
    return sa.and_(found, sa.or_(column.like(sa.bindparam("pattern")), column.like(sa.bindparam("every"))))


def _not_in(column: Column, ids: Column) -> Any:
    """Return a condition whose parameter the driver writes as a list."""
    return column.op("NOT IN", is_comparison=True)(ids)


_psycopg: Any = postgresql.psycopg  # SQLAlchemy has no types for making one
_pymysql: Any = mysql.pymysql  # as above
SQLITE = Dialect(compiler=sqlite.dialect(paramstyle="named"), unindexed=_plus, outside=_json_each)
POSTGRESQL = Dialect(
    compiler=_psycopg.dialect(paramstyle="pyformat"),
    unindexed=_unchanged,  # its planner has statistics
    outside=_json_elements,
    text=sa.Text(collation="C"),
    word=sa.Text(collation="C"),
    terms=postgresql.TSVECTOR(),
    terms_index={"postgresql_using": "gin", "postgresql_with": {"fastupdate": "off"}},
    has_terms=_ts_match,
)


def _mysql(collation: str) -> Dialect:
    """Return the dialect of MariaDB or MySQL: of whose collations one counts case, accents and trailing blanks.

    Columns that an index is on may have 3,072 bytes together: so they hold 255 characters, which ids have at most.
    """
    return Dialect(
        compiler=_pymysql.dialect(paramstyle="pyformat"),
        unindexed=_unchanged,  # the index is named
        outside=_not_in,
        text=mysql.VARCHAR(255, charset="utf8mb4", collation=collation),
        word=mysql.VARCHAR(32, charset="utf8mb4", collation=collation),
        key=sa.PrimaryKeyConstraint,
        partial=False,
        hint="FORCE INDEX ({})",
        terms=mysql.LONGTEXT(charset="ascii", collation="ascii_bin"),
        terms_index={"mysql_prefix": "FULLTEXT"},
        has_terms=_in_boolean_mode,
    )


MARIADB = _mysql("utf8mb4_nopad_bin")
MYSQL = _mysql("utf8mb4_0900_bin")
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ROWID = sa.Integer()


def ddl(names: Names) -> list[str]:
    """Return the SQLite statements that create the log's tables and the views' bookkeeping."""
    return Tables(names).creating("events", "keys", "snapshots", "tracking", "views", "parked", if_missing=True)


def bookkeeping_ddl(names: Names) -> list[str]:
    """Return the SQLite statements that create the views' bookkeeping alone."""
    return Tables(names).creating("views", "parked", if_missing=True)


class Tables:
    """Every table under its chosen name; columns are found by the names that names.py lists."""

    def __init__(
        self, names: Names, dialect: Dialect = SQLITE, schema: str | None = None, *, temporary: bool = False
    ) -> None:
        self.names = names
        self.dialect = dialect
        self._prefixes = ["TEMPORARY"] if temporary else []
        self.metadata = sa.MetaData(schema=schema)

    def creating(self, *tables: str, if_missing: bool = False) -> list[str]:
        """Return the statements that create these tables, without their indexes."""
        return [compiled(CreateTable(getattr(self, name), if_not_exists=if_missing), self.dialect) for name in tables]

    def indexing(self, *tables: str) -> dict[str, str]:
        """Return the statements that create the indexes of these tables, by the indexes' names."""
        indexes = {str(index.name): index for name in tables for index in getattr(self, name).indexes}
        return {name: compiled(CreateIndex(indexes[name]), self.dialect) for name in sorted(indexes)}

    @cached_property
    def events(self) -> sa.Table:
        """The log. Positions are the rowid: no row is ever deleted, so none is given twice."""
        return self._table(
            self.names.events,
            sa.Column("position", _ROWID, primary_key=True),
            sa.Column("originator_id", sa.Text, nullable=False),
            sa.Column("originator_version", _BIG, nullable=False),
            sa.Column("topic", sa.Text, nullable=False),
            sa.Column("state", sa.LargeBinary, nullable=False),
            sa.UniqueConstraint("originator_id", "originator_version"),
        )

    @cached_property
    def keys(self) -> sa.Table:
        """Ids that make a write idempotent, see ``KeyRow``."""
        return self._table(
            self.names.keys,
            sa.Column("originator_id", sa.Text, nullable=False),
            sa.Column("kind", sa.Text, nullable=False),
            sa.Column("key", sa.Text, nullable=False),
            sa.Column("version", _BIG, nullable=False),
            sa.Column("fingerprint", sa.LargeBinary, nullable=False),
            sa.Column("seal", sa.LargeBinary, nullable=False),
            sa.UniqueConstraint("originator_id", "kind", "key"),
        )

    @cached_property
    def snapshots(self) -> sa.Table:
        """The newest cached state of a session, see ``SnapshotRow``."""
        return self._table(
            self.names.snapshots,
            sa.Column("originator_id", sa.Text, nullable=False, unique=True),
            sa.Column("version", _BIG, nullable=False),
            sa.Column("revision", _BIG, nullable=False),
            sa.Column("hash", sa.LargeBinary, nullable=False),
            sa.Column("state", sa.LargeBinary, nullable=False),
            sa.Column("seal", sa.LargeBinary, nullable=False),
        )

    @cached_property
    def tracking(self) -> sa.Table:
        """How far readers of other applications have come, and the version of these tables."""
        return self._table(
            self.names.tracking,
            sa.Column("application_name", sa.Text, primary_key=True, nullable=False),
            sa.Column("notification_id", _BIG, nullable=False),
        )

    @cached_property
    def views(self) -> sa.Table:
        """One row a view: its checkpoint, and (as JSON) the tables it created."""
        return self._table(
            self.names.views,
            sa.Column("name", self.dialect.text, nullable=False, unique=True),
            sa.Column("revision", _BIG, nullable=False),
            sa.Column("position", _BIG, nullable=False),
            sa.Column("mark", sa.LargeBinary, nullable=False),
            sa.Column("tables", self.dialect.text, nullable=False),
        )

    @cached_property
    def parked(self) -> sa.Table:
        """One row a session that a view could not apply, see ``Parked``; and one a view, of no session, see held.py."""
        return self._table(
            self.names.parked,
            sa.Column("view", self.dialect.text, nullable=False),
            sa.Column("stream", self.dialect.text, nullable=False),
            sa.Column("version", _BIG, nullable=False),
            sa.Column("position", _BIG, nullable=False),
            sa.Column("error", self.dialect.text, nullable=False),
            sa.Column("attempts", _BIG, nullable=False),
            sa.Column("parked_at", _BIG, nullable=False),
            sa.UniqueConstraint("view", "stream"),
        )

    @cached_property
    def session_index(self) -> sa.Table:
        """One row a session. Every list is a scan of the one index that has its filter and its order."""
        name = self.names.session_index
        table = self._table(
            name,
            self._text("tenant"),
            self._text("session_id"),
            self._text("user_id", nullable=True),
            self._text("agent", nullable=True),
            self._column("status", self.dialect.word),
            self._text("current_route", nullable=True),
            self._text("current_step", nullable=True),
            self._column("message_count", _BIG),
            self._column("created_at", _BIG),
            self._column("updated_at", _BIG),
            self._column("last_message_at", _BIG, nullable=True),
            self._column("completed_at", _BIG, nullable=True),
            self._column("version", _BIG),
            self._column("created_position", _BIG),
            self._column("updated_position", _BIG),
            unique=("tenant", "session_id"),
        )
        c = table.c
        sa.Index(f"{name}_all", c.tenant, c.updated_position)
        sa.Index(f"{name}_user", c.tenant, c.user_id, c.updated_position, **_where(c.user_id.is_not(None)))
        sa.Index(f"{name}_agent", c.tenant, c.agent, c.updated_position, **_where(c.agent.is_not(None)))
        sa.Index(f"{name}_status", c.tenant, c.status, c.updated_position)
        sa.Index(f"{name}_route", c.tenant, c.current_route, c.updated_position, **_where(c.current_route.is_not(None)))
        active = sa.and_(c.user_id.is_not(None), c.status == sa.literal_column("'active'"))
        which = [] if self.dialect.partial else [c.status]
        sa.Index(f"{name}_active", c.tenant, c.user_id, *which, c.created_position, **_where(active))
        return table

    @cached_property
    def message_index(self) -> sa.Table:
        """One row a visible message."""
        name = self.names.message_index
        table = self._table(
            name,
            self._text("tenant"),
            self._text("session_id"),
            self._column("ordinal", _BIG),
            self._text("user_id", nullable=True),
            self._text("message_id"),
            self._column("position", _BIG),
            self._column("item", _BIG),
            self._column("version", _BIG),
            self._column("content_version", _BIG),
            unique=("tenant", "session_id", "ordinal"),
        )
        c = table.c
        sa.Index(f"{name}_user", c.tenant, c.user_id, c.position, c.item, **_where(c.user_id.is_not(None)))
        return table

    @cached_property
    def message_owners(self) -> sa.Table:
        """One row a session: whose its messages are."""
        return self._owners(self.names.message_owners)

    @cached_property
    def message_search(self) -> sa.Table:
        """One row a visible message, with its terms; on PostgreSQL, whose planner chooses, also found by place."""
        name = self.names.message_search
        rowid = {"primary_key": True} if self.dialect.terms_index is None else {}
        table = self._table(
            name,
            self._text("tenant"),
            self._text("session_id"),
            self._column("ordinal", _BIG),
            self._text("user_id", nullable=True),
            self._text("message_id"),
            self._column("place", _BIG, **rowid),
            self._column("version", _BIG),
            self._column("content_version", _BIG),
            self._column("role", self.dialect.word),
            self._text("route", nullable=True),
            self._column("said_at", _BIG),
            self._column("terms", self.dialect.terms),
            unique=("tenant", "session_id", "ordinal"),
        )
        c = table.c
        if self.dialect.terms_index is not None:
            sa.Index(f"{name}_terms", c.terms, **self.dialect.terms_index)
        if self.dialect.terms_index and "postgresql_using" in self.dialect.terms_index:
            sa.Index(f"{name}_all", c.tenant, c.place)
            sa.Index(f"{name}_user", c.tenant, c.user_id, c.place)
        return table

    @cached_property
    def search_owners(self) -> sa.Table:
        """One row a session: whose the messages are that can be found."""
        return self._owners(self.names.search_owners)

    def _owners(self, name: str) -> sa.Table:
        return self._table(
            name,
            self._text("tenant"),
            self._text("session_id"),
            self._text("user_id", nullable=True),
            self._column("ordinal", _BIG),
            self._column("version", _BIG),
            unique=("tenant", "session_id"),
        )

    def _table(self, name: str, *parts: Any, unique: Sequence[str] = ()) -> sa.Table:
        constraints = [self.dialect.key(*unique)] if unique else []
        return sa.Table(name, self.metadata, *parts, *constraints, prefixes=self._prefixes, mysql_engine="InnoDB")

    def _text(self, column: str, *, nullable: bool = False) -> sa.Column[Any]:
        return self._column(column, self.dialect.text, nullable=nullable)

    def _column(self, column: str, kind: Any, *, nullable: bool = False, **more: Any) -> sa.Column[Any]:
        return sa.Column(self.names.column(column), kind, key=column, nullable=nullable, **more)


def compiled(statement: Any, dialect: Dialect) -> str:
    """Return a statement as text for the driver, its parameters named."""
    return str(statement.compile(dialect=dialect.compiler)).strip()


def _where(condition: Any) -> dict[str, Any]:
    return {"sqlite_where": condition, "postgresql_where": condition}
