"""What ``doctor`` looks at on a PostgreSQL server: what it promises, its clock, its order, how long a commit takes.

Nothing is left behind. A commit is measured by a transaction whose only content is a message of no words in the
write-ahead log (``pg_logical_emit_message``): it waits for the disk, and for standbys, as an append does.
"""

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from typing import Any, Protocol

import psycopg

from turnlog.adapters.cli import findings as shared
from turnlog.adapters.cli import postgresql_activity
from turnlog.adapters.cli.findings import Finding, unless
from turnlog.adapters.names import Names
from turnlog.adapters.postgresql.connection import Connection, run
from turnlog.adapters.postgresql.pool import Pool
from turnlog.adapters.postgresql.tables import Ordering

OLDEST = 14
SUPPORTED_UNTIL = {14: 2026, 15: 2027, 16: 2028, 17: 2029, 18: 2030}
"""The last release of a version comes in November of that year: https://www.postgresql.org/support/versioning"""
NAMES = (
    "server_version_num",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "synchronous_standby_names",
    "server_encoding",
    "autovacuum",
)
_MESSAGE = "SELECT pg_logical_emit_message(true, 'turnlog', '')"


class Log(Protocol):
    """What is looked at of the store's recorder."""

    pool: Pool
    durability: str

    @property
    def ordering(self) -> Ordering:
        """How positions come to be in order."""
        ...

    def position(self) -> int:
        """Return up to where readers may read."""
        ...


def findings(recorder: Log, names: Names) -> Iterator[Finding]:
    """Yield what there is to say of the server under a log."""
    pool, ordering = recorder.pool, recorder.ordering
    rows = pool.rows("SELECT name, setting, reset_val FROM pg_settings WHERE name = ANY(%s)", (list(NAMES),))
    settings = {name: str(setting) for name, setting, _ in rows}
    defaults = {name: str(default) for name, _, default in rows}
    yield version(int(settings["server_version_num"]), datetime.now(UTC).date())
    yield Finding("ok", "driver", f"psycopg {psycopg.__version__}, libpq {psycopg.pq.version() // 10000}")
    yield durability(settings, pool.durability, recorder.durability)
    yield from promises(settings, defaults["synchronous_commit"])
    yield encoding(settings["server_encoding"])
    ((replica,),) = pool.rows("SELECT pg_is_in_recovery()")
    role = list(_role(pool, settings["synchronous_standby_names"], replica=replica))
    yield from role
    yield order(ordering, _sequence(pool, names))
    yield shared.clock(lambda: pool.rows("SELECT clock_timestamp()")[0][0])
    if not replica and all(finding.level != "bad" for finding in role):  # it would wait for ever
        yield commit_time(pool, synced=settings["fsync"] == "on")
    yield from postgresql_activity.findings(pool, names, None if replica else recorder.position, settings["autovacuum"])


def version(number: int, today: date) -> Finding:
    """Judge the server's version (``server_version_num``)."""
    major, minor = divmod(number, 10_000)
    words = f"{major}.{minor}"
    if major < OLDEST:
        why = "turnlog is not tested with it"
        return Finding("bad", "PostgreSQL", words, f"{OLDEST} or newer", why, "Upgrade the server")
    year = SUPPORTED_UNTIL.get(major)
    worse = Finding(
        "warning",
        "PostgreSQL",
        words,
        "a version that is supported",
        f"its last release was due in November {year}: no corrections come any more",
        "Upgrade the server",
    )
    return unless(year is None or today < date(year, 12, 1), worse)


def durability(settings: dict[str, str], wanted: str, promised: str) -> Finding:
    """Judge what turnlog's own commits survive."""
    words = f"{promised} (synchronous_commit={settings['synchronous_commit']} on turnlog's connections)"
    why = "an acknowledged event may not survive the loss of power"
    return unless(wanted == promised, Finding("bad", "durability", words, wanted, why, "See fsync"))


def promises(settings: dict[str, str], commits: str) -> Iterator[Finding]:
    """Judge the settings on which a commit's promise rests; ``commits``: the server's own ``synchronous_commit``."""
    yield unless(
        settings["fsync"] == "on",
        Finding(
            "bad",
            "fsync",
            settings["fsync"],
            "on",
            "a commit is not on the disk when it is acknowledged, and after a crash of the machine the whole database"
            " may be damaged",
            "Set fsync = on and restart the server",
        ),
    )
    yield unless(
        settings["full_page_writes"] == "on",
        Finding(
            "bad",
            "full_page_writes",
            settings["full_page_writes"],
            "on",
            "a page that was half written when the power went cannot be repaired",
            "Set full_page_writes = on and reload, unless the file system never tears a page",
        ),
    )
    yield unless(
        commits != "off",
        Finding(
            "warning",
            "synchronous_commit",
            commits if commits != "off" else "off by default; turnlog's own connections set it on",
            "on",
            "a commit of the application's own connections is acknowledged before it is on the disk",
            "Set synchronous_commit = on for this database and user",
        ),
    )


def encoding(found: str) -> Finding:
    """Judge the database's encoding."""
    why = "not every message can be stored"
    return unless(found == "UTF8", Finding("bad", "encoding", found, "UTF8", why, "Move to a database in UTF8"))


def _role(pool: Pool, names: str, *, replica: bool) -> Iterator[Finding]:
    worse = Finding(
        "warning",
        "role",
        "standby" if replica else "primary",
        "the primary",
        "it cannot be written, and its log is read only as far as the primary's views have come",
        "Name the primary in the URL (target_session_attrs=read-write)",
    )
    yield unless(not replica, worse)
    if not replica:
        states = pool.rows("SELECT application_name, sync_state FROM pg_stat_replication ORDER BY 1", prepare=False)
        yield standbys(names, [(str(name), state) for name, state in states])


def standbys(names: str, connected: list[tuple[str, str | None]]) -> Finding:
    """Judge whether the standbys that commits wait for (``synchronous_standby_names``) are there."""
    words = ", ".join(f"{name} ({state or 'state not shown to this user'})" for name, state in connected)
    if not names.strip():
        there = words or "none"
        return Finding("ok", "standbys", f"{there}; commits wait for this server's disk only")
    found = re.match(r"\s*(?:(?:FIRST|ANY)\s+)?(\d+)\s*\(", names, re.IGNORECASE)
    wanted = int(found[1]) if found else 1
    worse = Finding(
        "bad",
        "standbys",
        f"{words or 'none'}; commits wait for {wanted} of {names}",
        f"{wanted} connected",
        "every commit waits until there are that many, and an append that gives up does not know whether it happened",
        "Bring the standby back, or change synchronous_standby_names",
    )
    unknown = any(state is None for _, state in connected)
    return unless(unknown or sum(state in ("sync", "quorum") for _, state in connected) >= wanted, worse)


def _sequence(pool: Pool, names: Names) -> str:
    statement = (
        "SELECT seqcache, seqincrement, seqcycle FROM pg_catalog.pg_sequence"
        " WHERE seqrelid = pg_get_serial_sequence(%s, 'position')::regclass"
    )
    rows = pool.rows(statement, (pool.table(names.events),), prepare=False)
    return "; ".join(f"CACHE {cache}, INCREMENT {step}{', CYCLE' if cycle else ''}" for cache, step, cycle in rows)


def order(ordering: Ordering, sequence: str) -> Finding:
    """Judge how positions come to be in order."""
    if ordering.proven:
        how = 'by lock, as ordering="strict" asks' if ordering.locked else "proven by readers; appends take no lock"
        return Finding("ok", "ordering", f"{how} (the sequence of positions: {sequence})")
    return Finding(
        "warning",
        "ordering",
        f"by lock: the sequence of positions has {sequence}",
        "CACHE 1, INCREMENT 1",
        "a session that draws numbers ahead would hide events from readers; so appends wait for each other",
        "ALTER TABLE … ALTER COLUMN position SET CACHE 1 SET INCREMENT 1 SET NO CYCLE, then restart all writers",
    )


def commit_time(pool: Pool, *, synced: bool) -> Finding:
    """Measure what an append waits for at its end, and the same without the waiting."""
    with pool.translating(), closing(pool.session()) as connection:
        durable_s = shared.timed(lambda: _commit(connection))
        run(connection, "SET synchronous_commit = off", prepare=False)
        return shared.commits(durable_s, shared.timed(lambda: _commit(connection)), synced=synced)


def _commit(connection: Connection) -> Any:
    return run(connection, _MESSAGE)
