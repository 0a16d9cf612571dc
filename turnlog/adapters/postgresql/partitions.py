"""A PostgreSQL log in partitions: its events, keys and snapshots are split by the hash of the session's name.

One session lies in one partition, so what appends or reads it touches only that. What reads the log in the order of
positions merges the partitions' indexes. No index keeps positions apart over all partitions, only the sequence does,
which gives none twice. The number is chosen when the tables are made, and holds.
"""

from turnlog.adapters.names import quoted
from turnlog.adapters.postgresql.pool import Pool
from turnlog.domain.errors import InvalidInput

BY_HASH = " PARTITION BY HASH (originator_id)"
"""Ends the statement that creates a table which is then split."""
TREE = (
    "SELECT to_regclass(name) AS relid FROM unnest(%s::text[]) AS name UNION"
    " SELECT tree.relid FROM unnest(%s::text[]) AS name, pg_partition_tree(to_regclass(name)) AS tree"
)
"""Tables, where they are there, and their partitions; both parameters are the tables' names as SQL text."""
_LONGEST = 63


def parts(table: str, n: int) -> list[str]:
    """Return the statements that create the partitions of ``table``, given as SQL text."""
    schema = table.rpartition('."')[0]
    return [
        f"CREATE TABLE IF NOT EXISTS {schema}.{beside(table, f'_p{i}')}"
        f" PARTITION OF {table} FOR VALUES WITH (MODULUS {n}, REMAINDER {i})"
        for i in range(n)
    ]


def beside(table: str, suffix: str) -> str:
    """Return the name, as SQL text, of what belongs to ``table``; no longer than PostgreSQL lets it be."""
    name = table.rpartition('."')[2].removesuffix('"')
    return quoted(name[: _LONGEST - len(suffix)] + suffix)


def require(pool: Pool, table: str, wanted: int | None) -> None:
    """Compare how many partitions ``table`` has (1: it is a plain table) with how many were asked for, if any were.

    Raises:
        InvalidInput: it has another number of them.
    """
    if wanted is None:
        return
    statement = (
        "SELECT CASE relkind WHEN 'p' THEN (SELECT count(*) FROM pg_catalog.pg_inherits WHERE inhparent = c.oid)"
        " ELSE 1 END FROM pg_catalog.pg_class AS c WHERE c.oid = to_regclass(%s)"
    )
    for (found,) in pool.rows(statement, (table,), prepare=False):
        if found != wanted:
            raise InvalidInput("partitions", f"expected {found}: the tables are made so; got {wanted}")
