"""The upkeep of a PostgreSQL log: its check, its size, what it promises, and where erased bytes linger."""

import logging

from turnlog.adapters.names import Names
from turnlog.adapters.postgresql.connection import run
from turnlog.adapters.postgresql.partitions import TREE
from turnlog.adapters.postgresql.pool import Pool

_log = logging.getLogger("turnlog")
WAL = "the write-ahead log of the server, until its old segments are overwritten"
ARCHIVES = "archives of the write-ahead log, and backups: yours to deal with"
STANDBYS = "standbys and logical replicas, until they have replayed and vacuumed"
PAGES = "free space inside the pages of the tables (scrub(vacuum=True) rewrites them)"
SNAPSHOTS = "an open transaction, prepared transaction or replication slot keeps old rows; end it and scrub again"


def durability(pool: Pool) -> str:
    """Return what a commit really survives: less than was asked for where the server does not sync its files."""
    if pool.rows("SELECT current_setting('fsync')", prepare=False) == [("on",)]:
        return pool.durability
    _log.warning("%s: the server runs with fsync=off; a commit does not survive the end of its machine", pool.name)
    return "normal"


def check(pool: Pool, names: Names) -> list[str]:
    """Return what amcheck finds in the indexes (nothing where it is not installed), and how much is of no session."""
    events, keys = pool.table(names.events), pool.table(names.keys)
    found: list[str] = []
    tables = [events, keys, pool.table(names.snapshots)]
    for (index,) in pool.rows(
        f"SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid AND relkind = 'i'"
        f" WHERE indrelid IN ({TREE}) AND EXISTS"
        " (SELECT FROM pg_extension WHERE extname = 'amcheck') ORDER BY 1",
        (tables, tables),
        prepare=False,
    ):
        found += _checked(pool, index)
    astray = f"SELECT count(*) FROM {events} WHERE strpos(originator_id, '/') < 2 OR originator_version < 1"
    lost = (
        f"SELECT count(*) FROM {keys} k WHERE NOT EXISTS"
        f" (SELECT FROM {events} e WHERE e.originator_id = k.originator_id)"
    )
    for what, statement in (("events", astray), ("keys", lost)):
        ((n,),) = pool.rows(statement, prepare=False)
        found += [f"there are {n} {what} of no session"] if n else []
    return found


def _checked(pool: Pool, index: str) -> list[str]:
    from turnlog.domain.errors import CorruptLog

    try:
        pool.rows("SELECT bt_index_check(%s::text::regclass)", (index,), prepare=False)
    except CorruptLog as error:
        return [f"index {index}: {error}"]
    return []


def size_query(pool: Pool, names: Names) -> tuple[str, tuple[list[str], list[str]]]:
    """Return the statement that says how much the tables and their indexes use, and its parameters."""
    tables = [pool.table(name) for name in names.tables()]
    statement = f"SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::int8 FROM ({TREE}) AS tree"
    return statement, (tables, tables)


def lingering(pool: Pool) -> list[str]:
    """Return where bytes that were just erased may be."""
    return [f"old versions of rows in the tables of {pool.name}, until store.scrub()", *_beyond(pool)]


def scrub(pool: Pool, names: Names, *, vacuum: bool) -> list[str]:
    """Rewrite every table of turnlog's that is there (``VACUUM FULL``: readers and writers wait), or vacuum it.

    Returns what still holds erased bytes.
    """
    pool.require_writable()
    pending = [SNAPSHOTS] if _old_snapshots(pool) else []
    how = "VACUUM (FULL)" if vacuum else "VACUUM"
    for name in names.tables():
        table = pool.table(name)
        if pool.rows("SELECT to_regclass(%s)::text", (table,), prepare=False) != [(None,)]:
            with pool.read() as connection:
                run(connection, f"{how} {table}", prepare=False)
    with pool.read() as connection:
        run(connection, "DISCARD PLANS", prepare=False)
    return [*([] if vacuum else [PAGES]), *pending, *_beyond(pool)]


def _old_snapshots(pool: Pool) -> bool:
    statement = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND backend_type = 'client backend')"
        " OR EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database())"
        " OR EXISTS (SELECT FROM pg_replication_slots WHERE xmin IS NOT NULL)"
    )
    return bool(pool.rows(statement, prepare=False)[0][0])


def _beyond(pool: Pool) -> list[str]:
    """Return what no statement reaches."""
    statement = "SELECT current_setting('archive_mode') <> 'off', EXISTS (SELECT FROM pg_replication_slots)"
    ((archived, slots),) = pool.rows(statement, prepare=False)
    standbys = slots or bool(pool.rows("SELECT 1 FROM pg_stat_replication LIMIT 1", prepare=False))
    return [WAL, *([ARCHIVES] if archived else []), *([STANDBYS] if standbys else [])]
