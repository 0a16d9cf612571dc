"""What SQLAlchemy is told of the databases and of the views' tables, so that queries on them are compiled for each.

Importing this file imports SQLAlchemy, which takes longer than opening a store: import it where a view is first
queried, never at the top of a file that every store loads.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.sql.operators import custom_op

from turnlog.adapters.names import Names
from turnlog.adapters.view_ddl import LAYOUTS, Kind, kind

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
    hint: str | None = None
    """How a query is told which index to walk, where that has to be said."""
    terms: sa.types.TypeEngine[Any] = sa.Text()
    """What the terms of a message are kept in."""
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
    terms=postgresql.TSVECTOR(),
    has_terms=_ts_match,
)


def _mysql(collation: str) -> Dialect:
    """Return the dialect of MariaDB or MySQL, with the columns' collation (see view_ddl.py)."""
    return Dialect(
        compiler=_pymysql.dialect(paramstyle="pyformat"),
        unindexed=_unchanged,  # the index is named
        outside=_not_in,
        text=mysql.VARCHAR(255, charset="utf8mb4", collation=collation),
        hint="FORCE INDEX ({})",
        terms=mysql.LONGTEXT(charset="ascii", collation="ascii_bin"),
        has_terms=_in_boolean_mode,
    )


MARIADB = _mysql("utf8mb4_nopad_bin")
MYSQL = _mysql("utf8mb4_0900_bin")


def table_of(names: Names, dialect: Dialect, schema: str | None, table: str) -> sa.Table:
    """Return a table of a built-in view, one of ``LAYOUTS``, under its chosen names: to compose queries of."""
    kinds: dict[Kind, Any] = {
        "text": dialect.text,
        "word": dialect.text,
        "number": sa.BigInteger(),
        "terms": dialect.terms,
    }
    columns = [sa.Column(names.column(column), kinds[kind(column)], key=column) for column in LAYOUTS[table].columns]
    return sa.Table(getattr(names, table), sa.MetaData(schema=schema), *columns)


def compiled(statement: Any, dialect: Dialect) -> str:
    """Return a statement as text for the driver, its parameters named."""
    return str(statement.compile(dialect=dialect.compiler)).strip()
