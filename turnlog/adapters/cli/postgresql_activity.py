"""What ``doctor`` looks at of a PostgreSQL server's sessions and tables: who holds back readers, vacuum and disk space.

Of other users' sessions the server shows age and state only to members of ``pg_read_all_stats``.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from turnlog.adapters.cli import findings as shared
from turnlog.adapters.cli.findings import Finding, Transaction, size, unless
from turnlog.adapters.names import Names
from turnlog.adapters.postgresql.pool import Pool

HOLDS_S = 10.0
"""An append takes milliseconds: who has held the events table for so long is at something else."""
DEAD_ROWS, DEAD_SHARE = 10_000, 0.2
_SESSION = "a.pid, a.application_name, a.state, extract(epoch FROM clock_timestamp() - a.xact_start)::float8"
_PREPARED = (
    "SELECT NULL::int4, gid, 'prepared', extract(epoch FROM clock_timestamp() - prepared)::float8"
    " FROM pg_prepared_xacts WHERE database = current_database()"
)


def transaction(pid: int | None, name: str | None, state: str | None, age_s: float | None) -> Transaction:
    """Return an open transaction; without ``pid`` a prepared one, of that name. ``None``: not shown to this user."""
    if pid is None:
        return Transaction(f"prepared transaction {name!r}", age_s, f"COMMIT PREPARED or ROLLBACK PREPARED '{name}'")
    who = f"pid {pid} ({name or 'without application_name'}, {state or 'state not shown'})"
    return Transaction(who, age_s, f"Have it commit; or SELECT pg_terminate_backend({pid})")


def findings(pool: Pool, names: Names, position: Callable[[], int] | None, autovacuum: str) -> Iterator[Finding]:
    """Yield what there is to say; ``position`` is up to where readers may read, ``None`` on a standby."""
    if position is not None:
        events = pool.table(names.events)
        ((top,),) = pool.rows(f"SELECT coalesce(max(position), 0) FROM {events}")  # first: later ones are of after that
        yield from held_back(position(), top, _holders(pool, events))
    yield from shared.too_long([transaction(*row) for row in pool.rows(_OPEN + _PREPARED, prepare=False)])
    yield slots(pool.rows(_SLOTS, prepare=False))
    rows = pool.rows(_TABLES, (pool.schema, list(names.tables())), prepare=False)
    yield from tables([Table(*row) for row in rows], autovacuum)
    yield shared.connections(*pool.rows(_CONNECTIONS, prepare=False)[0])


def _holders(pool: Pool, events: str) -> list[Transaction]:
    """Return the open transactions that write, or wrote, to the events table."""
    locks = (
        f"SELECT DISTINCT l.pid, {_SESSION[len('a.pid, ') :]} FROM pg_catalog.pg_locks l"
        " LEFT JOIN pg_stat_activity a ON a.pid = l.pid"
        " WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted"
        " AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())"
        " AND l.relation IN (SELECT %(events)s::text::regclass::oid"
        " UNION ALL SELECT relid::oid FROM pg_partition_tree(%(events)s::text::regclass))"
    )
    with pool.read() as connection:
        rows = connection.execute(locks.encode(), {"events": events}).fetchall()
    if any(pid is None for pid, *_ in rows):  # which of the prepared ones it is is not told
        rows = [*(row for row in rows if row[0] is not None), *pool.rows(_PREPARED, prepare=False)]
    return [transaction(*row) for row in rows]


def held_back(settled: int, top: int, holders: Sequence[Transaction]) -> Iterator[Finding]:
    """Judge up to where the log can be read in order, and who holds back the rest."""
    hidden = settled < top
    why = (
        "subscriptions and followed views get nothing beyond, until a transaction that may own a lower position is over"
    )
    words = f"up to position {settled} of {top}" if hidden else f"up to position {top}, the last"
    yield unless(not hidden, Finding("warning", "readable in order", words, why=why))
    for holder in holders:
        if hidden or (holder.age_s or 0) > HOLDS_S:
            why = "it has written to the table of events and is still open: what comes after is held back"
            yield Finding("warning", "held back by", holder.words, why=why, do=holder.end)


_OPEN = (
    f"SELECT {_SESSION} FROM pg_stat_activity a WHERE datname = current_database() AND a.pid <> pg_backend_pid()"
    " AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL) AND backend_type = 'client backend' UNION ALL "
)


_SLOTS = (
    "SELECT slot_name::text, active, wal_status = 'lost', CASE WHEN NOT pg_is_in_recovery()"
    " THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8 END FROM pg_replication_slots ORDER BY 1"
)


def slots(rows: Sequence[tuple[str, bool, bool | None, int | None]]) -> Finding:
    """Judge the replication slots: name, whether somebody reads, whether it is lost, bytes that are kept for it."""
    idle = [
        f"{name} ({'lost' if lost else f'keeps {size(kept or 0)}'})" for name, active, lost, kept in rows if not active
    ]
    worse = Finding(
        "warning",
        "replication slots",
        f"{len(rows)}, not in use: {', '.join(idle)}",
        why="nobody reads them, and the write-ahead log is kept for them until the disk is full",
        do="Bring the reader back, or SELECT pg_drop_replication_slot(name)",
    )
    return worse if idle else Finding("ok", "replication slots", f"{len(rows)}, all in use" if rows else "none")


class Table(NamedTuple):
    """What the server's statistics say of a table."""

    name: str
    live: int
    dead: int
    vacuumed: datetime | None


_TABLES = (
    "SELECT relname::text, n_live_tup, n_dead_tup, greatest(last_vacuum, last_autovacuum) FROM pg_stat_user_tables"
    " WHERE schemaname = %s AND relname = ANY(%s) ORDER BY 1"
)


def tables(found: Sequence[Table], autovacuum: str) -> Iterator[Finding]:
    """Judge whether dead rows are cleared away."""
    worse = Finding(
        "warning",
        "autovacuum",
        autovacuum,
        "on",
        "old versions of rows stay, tables grow, and in the end the server stops for want of transaction numbers",
        "Set autovacuum = on and reload",
    )
    yield unless(autovacuum == "on", worse)
    many = [table for table in found if table.dead > max(DEAD_ROWS, DEAD_SHARE * table.live)]
    for table in many:
        last = f"vacuumed {table.vacuumed:%Y-%m-%d %H:%M}Z" if table.vacuumed else "never vacuumed"
        words = f"{table.name}: {table.dead} besides {table.live} rows, {last}"
        why = "they cost space and time, and may hold erased content"
        yield Finding("warning", "dead rows", words, f"at most {DEAD_SHARE:.0%}", why, f"VACUUM {table.name}")
    if not many:
        yield Finding("ok", "dead rows", f"{sum(table.dead for table in found)} in {len(found)} tables")


_CONNECTIONS = (
    "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),"
    " current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8"
)
