"""The upkeep of a log on MariaDB: its check, its size, what the server promises, and where erased bytes linger."""

import logging
from contextlib import closing

from turnlog.adapters.mariadb.connection import Source, run
from turnlog.adapters.mariadb.head import head_name
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.names import Names

_log = logging.getLogger("turnlog")
REDO = "the redo log and the doublewrite buffer of the server, until they are overwritten"
UNDO = "the undo log, until the server has purged it: an open transaction keeps it from that; end it and scrub again"
BINLOG = "binary logs, relay logs and whoever replicates from them, until they expire or are purged: yours to deal with"
BACKUPS = "backups: yours to deal with"
PAGES = "free space inside the pages of the tables (scrub(vacuum=True) rewrites them)"
FILES = "blocks of the old table files, which the file system gave free"


def durability(pool: Pool) -> str:
    """Return what a commit really survives: less than was asked for where the server does not sync its logs."""
    ((flushed, binlog, synced, how),) = pool.rows(
        "SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@sync_binlog, @@innodb_flush_method"
    )
    missing = [] if flushed == 1 else [f"innodb_flush_log_at_trx_commit={flushed}"]
    missing += [f"sync_binlog={synced}"] if binlog and synced != 1 else []
    missing += [f"innodb_flush_method={how}"] if str(how).lower() in ("nosync", "littlesync") else []
    if not missing:
        return pool.durability
    _log.warning("%s: the server runs with %s; a commit may not survive its end", pool.name, ", ".join(missing))
    return "normal"


def check(pool: Pool, names: Names) -> list[str]:
    """Return what ``CHECK TABLE`` finds, and what is of no session or above the head."""
    events, keys = pool.table(names.events), pool.table(names.keys)
    head = pool.table(head_name(names.events))
    tables = ", ".join((events, head, keys, pool.table(names.snapshots)))
    with pool.translating(), closing(pool.session()) as connection:  # which may take its time
        said = run(connection, f"CHECK TABLE {tables}").fetchall()
    found = [f"{table}: {words}" for table, _, kind, words in said if kind in ("error", "warning")]
    astray = f"SELECT COUNT(*) FROM {events} WHERE LOCATE('/', originator_id) < 2 OR originator_version < 1"
    lost = (
        f"SELECT COUNT(*) FROM {keys} k WHERE NOT EXISTS"
        f" (SELECT 1 FROM {events} e WHERE e.originator_id = k.originator_id)"
    )
    for what, statement in (("events", astray), ("keys", lost)):
        ((n,),) = pool.rows(statement)
        found += [f"there are {n} {what} of no session"] if n else []
    ((n,),) = pool.rows(f"SELECT COUNT(*) FROM {events} WHERE position > (SELECT position FROM {head} WHERE id = 1)")
    return [*found, *([f"{n} events have positions that were not given yet"] if n else [])]


def size_bytes(source: Source, names: Names) -> int:
    """Return how much the tables and their indexes use, as the server last counted."""
    statement = (
        "SELECT CAST(COALESCE(SUM(data_length + index_length), 0) AS SIGNED) FROM information_schema.tables"
        " WHERE table_schema = %s AND table_name IN %s"
    )
    return int(source.rows(statement, (source.schema, [*names.tables(), head_name(names.events)]))[0][0])


def lingering(pool: Pool) -> list[str]:
    """Return where bytes that were just erased may be."""
    return [f"old versions of rows in the tables of {pool.name}, until store.scrub()", UNDO, *_beyond(pool)]


def scrub(pool: Pool, names: Names, *, vacuum: bool) -> list[str]:
    """Rewrite every table of turnlog's that is there, by ``OPTIMIZE TABLE``; without ``vacuum`` there is nothing to do.

    Returns what still holds erased bytes.
    """
    pool.require_writable()
    if not vacuum:
        return [PAGES, UNDO, *_beyond(pool)]
    there = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_name IN %s"
    with pool.translating(), closing(pool.session()) as connection:  # which may take its time
        for (name,) in pool.rows(there, (pool.schema, list(names.tables()))):
            run(connection, f"OPTIMIZE TABLE {pool.table(name)}").fetchall()
    return [FILES, UNDO, *_beyond(pool)]


def _beyond(pool: Pool) -> list[str]:
    """Return what no statement of ours reaches."""
    ((binlog,),) = pool.rows("SELECT @@log_bin")
    return [REDO, *([BINLOG] if binlog else []), BACKUPS]
