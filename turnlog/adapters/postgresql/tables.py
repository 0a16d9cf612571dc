"""The tables of a log on PostgreSQL, as numbered migrations that run once, and the look at whether order can be proven.

``MIGRATIONS`` are never edited once released: a change is a new one. Of many processes that start at once, one runs
them; the others wait. The number of the last one is kept in the tracking table.
"""

import logging
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from psycopg.types.numeric import Int8

from turnlog.adapters.names import Names
from turnlog.adapters.postgresql.connection import Connection, run
from turnlog.adapters.postgresql.partitions import BY_HASH, beside, parts, require
from turnlog.adapters.postgresql.pool import Pool
from turnlog.domain.errors import CorruptLog, StoreError

_EVENTS = """CREATE TABLE IF NOT EXISTS {events} (
    position bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
    originator_id text COLLATE "C" NOT NULL,
    originator_version bigint NOT NULL,
    topic text NOT NULL,
    state bytea NOT NULL,
    """
EVENTS = _EVENTS + "PRIMARY KEY (position), UNIQUE (originator_id, originator_version))"
# What is unique in a table of partitions contains what it is split by.
SPLIT_EVENTS = _EVENTS + "PRIMARY KEY (originator_id, originator_version))" + BY_HASH
SPLIT_EVENTS_INDEX = "CREATE INDEX IF NOT EXISTS {events_index} ON {events} (position)"
TRACKING = """CREATE TABLE IF NOT EXISTS {tracking} (
    application_name text COLLATE "C" PRIMARY KEY,
    notification_id bigint NOT NULL)"""
KEYS = """CREATE TABLE {keys} (
    originator_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    fingerprint bytea NOT NULL,
    seal bytea NOT NULL)"""
# Stream and key may be 3,000 bytes together, more than an index entry holds: hence the two hashes for the key.
KEYS_INDEX = """CREATE UNIQUE INDEX {keys_index}
    ON {keys} (originator_id, kind, hashtextextended(key, 0), hashtextextended(key, 1))"""
SNAPSHOTS = """CREATE TABLE {snapshots} (
    originator_id text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    revision bigint NOT NULL,
    hash bytea NOT NULL,
    state bytea NOT NULL,
    seal bytea NOT NULL)"""
VIEWS = """CREATE TABLE {views} (
    name text COLLATE "C" PRIMARY KEY,
    revision bigint NOT NULL,
    position bigint NOT NULL,
    mark bytea NOT NULL,
    tables text NOT NULL)"""
PARKED = """CREATE TABLE {parked} (
    view text COLLATE "C" NOT NULL,
    stream text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    position bigint NOT NULL,
    error text NOT NULL,
    attempts bigint NOT NULL,
    parked_at bigint NOT NULL,
    UNIQUE (view, stream))"""
TRIALS = """CREATE TABLE {trials} (
    view text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL,
    last bigint NOT NULL,
    tries bigint NOT NULL)"""
# jsonb cannot hold U+0000, which content may: such content is NULL there, and in private_text in any case.
JSON = r"""CREATE VIEW {json} AS
    SELECT position, originator_id, originator_version, topic, (body::json ->> 'header')::jsonb AS header,
           CASE WHEN strpos(body, '\u0000') = 0 THEN (body::json ->> 'private')::jsonb END AS private,
           body::json ->> 'private' AS private_text
      FROM (SELECT position, originator_id, originator_version, topic, convert_from(state, 'UTF8') AS body
              FROM {events}) AS read"""

SPLIT = {
    EVENTS: ("events", (SPLIT_EVENTS, SPLIT_EVENTS_INDEX)),
    KEYS: ("keys", (KEYS + BY_HASH,)),
    SNAPSHOTS: ("snapshots", (SNAPSHOTS + BY_HASH,)),
}
"""What creates a table that is to be split, in place of what creates a plain one."""
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (EVENTS, TRACKING, KEYS, KEYS_INDEX, SNAPSHOTS, VIEWS, PARKED, TRIALS, JSON),
)
BOOKKEEPING = (VIEWS, PARKED, TRIALS)
"""What a place has in which views are built."""
_SCHEMA = "turnlog.schema"
_log = logging.getLogger("turnlog")


class Ordering(NamedTuple):
    """How positions come to be in order.

    ``proven``: what readers may read is proven. ``locked``: appends exclude each other. ``drawn``: an append takes the
    number after the highest, not the sequence's next.
    """

    proven: bool
    locked: bool = False
    drawn: bool = False


def lock_key(*parts: str) -> int:
    """Return the number of the advisory lock on what ``parts`` name."""
    return int.from_bytes(sha256("\n".join(("turnlog", *parts)).encode()).digest()[:8], "big", signed=True)


def prepare(pool: Pool, names: Names, partitions: int | None = None) -> None:
    """Bring the tables to this turnlog's schema; many processes may do so at once.

    ``partitions``: into how many those of the log are split when they are made; ``None``: not, or as they are.

    Raises:
        StoreError: a newer turnlog made them, or they are not there and may not be made.
        InvalidInput: they are there, in another number of partitions.
    """
    version = _version(pool, names)
    if version < len(MIGRATIONS) and not pool.read_only:
        with pool.write() as connection:
            run(connection, "SELECT pg_advisory_xact_lock(%b)", (Int8(lock_key("schema", pool.schema)),))
            _migrate(connection, pool, names, partitions)
        version = len(MIGRATIONS)
    if version != len(MIGRATIONS):
        found = "there are no tables of turnlog" if version == 0 else f"its tables have schema {version}"
        raise StoreError(f"{pool.name}: {found}, this turnlog knows {len(MIGRATIONS)}; upgrade")
    require(pool, pool.table(names.events), partitions)


def statements(migration: Sequence[str], partitions: int | None, **tables: str) -> list[str]:
    """Return what a migration runs on tables of these names, given as SQL text."""
    tables["events_index"] = beside(tables["events"], "_position")
    made: list[str] = []
    for statement in migration:
        field, split = SPLIT.get(statement, ("", ()))
        if split and partitions not in (None, 1):
            made += [*(each.format(**tables) for each in split), *parts(tables[field], partitions)]
        else:
            made.append(statement.format(**tables))
    return made


def _version(pool: Pool, names: Names) -> int:
    tracking = pool.table(names.tracking)
    if pool.rows("SELECT to_regclass(%s)::text", (tracking,), prepare=False) == [(None,)]:
        return 0
    statement = f"SELECT notification_id FROM {tracking} WHERE application_name = %s"
    rows = pool.rows(statement, (_SCHEMA,), prepare=False)
    return rows[0][0] if rows else 0


def _migrate(connection: Connection, pool: Pool, names: Names, partitions: int | None) -> None:
    schema = pool.table("").rpartition(".")[0]
    if not run(connection, "SELECT 1 FROM pg_namespace WHERE nspname = %s", (pool.schema,), prepare=False).fetchall():
        run(connection, f"CREATE SCHEMA {schema}", prepare=False)
    tracking = pool.table(names.tracking)
    done = 0
    if run(connection, "SELECT to_regclass(%s)::text", (tracking,), prepare=False).fetchall() != [(None,)]:
        statement = f"SELECT notification_id FROM {tracking} WHERE application_name = %s"
        rows = run(connection, statement, (_SCHEMA,), prepare=False).fetchall()
        done = rows[0][0] if rows else 0
    tables = {field: pool.table(getattr(names, field)) for field in names.__struct_fields__ if field != "columns"}
    tables["json"] = f"{schema}.{beside(tables['events'], '_json')}"
    tables["keys_index"] = beside(tables["keys"], "_key")
    for migration in MIGRATIONS[done:]:
        for statement in statements(migration, partitions, **tables):
            run(connection, statement, prepare=False)
    if done < len(MIGRATIONS):
        upsert = f"INSERT INTO {tracking} VALUES (%s, %s) ON CONFLICT (application_name) DO UPDATE"
        run(connection, f"{upsert} SET notification_id = excluded.notification_id", (_SCHEMA, len(MIGRATIONS)))


def ordering(pool: Pool, events: str, wanted: str = "auto") -> Ordering:
    """Look whether a reader can prove the order of the table ``events``; if not, appends must lock.

    The proof needs a primary, and a sequence that no session draws from ahead (see tail.py).

    Raises:
        CorruptLog: the sequence would give numbers again. A plain table's index refuses those; partitions have none.
    """
    statement = (
        "SELECT pg_is_in_recovery(), coalesce((SELECT seqcache = 1 AND seqincrement = 1 AND NOT seqcycle"
        " FROM pg_catalog.pg_sequence WHERE seqrelid = name::regclass), false),"
        " CASE WHEN has_sequence_privilege(name, 'SELECT') THEN coalesce(pg_sequence_last_value(name::regclass), 0)"
        f" < (SELECT max(position) FROM {events}) END"
        " FROM pg_get_serial_sequence(%s, 'position') AS name"
    )
    ((replica, drawn_one_by_one, behind),) = pool.rows(statement, (events,), prepare=False)
    if drawn_one_by_one and behind and not pool.read_only:
        raise CorruptLog(f"{pool.name}: the sequence of {events} is behind its positions; setval() it to the highest")
    if replica:
        _log.warning("%s is a replica: its log is read only as far as the primary's views have come", pool.name)
    if not drawn_one_by_one:
        _log.warning('%s: the sequence of %s is not as turnlog made it: ordering="strict"', pool.name, events)
        return Ordering(proven=False, locked=True, drawn=True)
    return Ordering(proven=True, locked=wanted == "strict")
