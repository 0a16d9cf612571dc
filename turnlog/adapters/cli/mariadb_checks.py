"""What ``doctor`` looks at on a MariaDB server: what it promises, its clock, the time of a commit, who is in the way.

A commit is measured on a table of its own, which is deleted afterwards: no commit of this server that waits for the
disk leaves nothing at all. MySQL has the same settings, but nothing here was tried on it.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, date, datetime
from secrets import token_hex
from typing import NamedTuple, Protocol

from turnlog.adapters.cli import findings as shared
from turnlog.adapters.cli.findings import Finding, Transaction, size, unless
from turnlog.adapters.mariadb.connection import SQL_MODE, Connection, run
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.names import Names
from turnlog.domain.errors import StoreUnavailable

LITTLE_PACKET_BYTES = 4 * 2**20
UNTIL_10_6 = date(2026, 7, 6)
"""https://mariadb.org/about/#maintenance-policy; of later versions nothing is said here."""
WAIT_S = 1
"""An append holds the row of the head for milliseconds."""
VARIABLES = (
    "innodb_doublewrite",
    "innodb_flush_log_at_trx_commit",
    "innodb_flush_method",
    "log_bin",
    "max_allowed_packet",
    "max_connections",
    "read_only",
    "sync_binlog",
)
_FLUSHED = {
    "0": "what was committed is written about once a second: the last commits are lost when the server ends",
    "2": "what was committed is synced about once a second: the last commits are lost with the power",
}
"""1 and, on MariaDB, 3 sync it before a commit is acknowledged."""


class Log(Protocol):
    """What is looked at of the store's recorder."""

    pool: Pool
    durability: str


def findings(recorder: Log, names: Names) -> Iterator[Finding]:
    """Yield what there is to say of the server under a log."""
    pool = recorder.pool
    found = pool.rows("SHOW GLOBAL VARIABLES WHERE Variable_name IN %s", (list(VARIABLES),))
    settings: dict[str, str] = dict(found)
    ((number, mode, level),) = pool.rows(f"SELECT VERSION(), @@sql_mode, @@{_isolation(pool)}")
    yield version(number, datetime.now(UTC).date())
    yield durability(pool.durability, recorder.durability)
    yield from promises(settings)
    yield role(settings["read_only"])
    yield from session(mode, level)
    yield packets(int(settings["max_allowed_packet"]))
    yield collations(_collations(pool, names), pool.collation)
    yield shared.clock(lambda: pool.rows("SELECT UTC_TIMESTAMP(6)")[0][0].replace(tzinfo=UTC))
    held = False
    if not pool.read_only and settings["read_only"] == "OFF":
        yield commit_time(pool, synced=settings["innodb_flush_log_at_trx_commit"] not in _FLUSHED)
        yield held_up(held := _is_held(pool, names))
    yield from _transactions(pool, held=held)
    used = pool.rows("SHOW GLOBAL STATUS LIKE 'Threads_connected'")[0][1]
    yield shared.connections(int(used), int(settings["max_connections"]))


def _isolation(pool: Pool) -> str:
    return "tx_isolation" if pool.server.is_mariadb else "transaction_isolation"


def version(number: str, today: date) -> Finding:
    """Judge the server's version; one that is too old is refused by the pool."""
    worse = Finding(
        "warning",
        "MariaDB" if "mariadb" in number.lower() else "MySQL",
        number,
        "a version that is maintained",
        f"10.6 was maintained until {UNTIL_10_6}: no corrections come any more",
        "Upgrade the server",
    )
    return unless(not number.startswith("10.6.") or today <= UNTIL_10_6, worse)


def durability(wanted: str, promised: str) -> Finding:
    """Judge what turnlog's commits survive."""
    why = "an acknowledged event may not survive the loss of power"
    return unless(wanted == promised, Finding("bad", "durability", promised, wanted, why, "See below"))


def promises(settings: Mapping[str, str]) -> Iterator[Finding]:
    """Judge the settings on which a commit's promise rests."""
    name = "innodb_flush_log_at_trx_commit"
    flush = settings[name]
    do = f"SET GLOBAL {name} = 1, and in the configuration"
    yield unless(flush not in _FLUSHED, Finding("bad", name, flush, "1", _FLUSHED.get(flush, ""), do))
    if settings["log_bin"] == "ON":
        synced = settings["sync_binlog"]
        why = "after a crash the binary log may lack what is committed, and replicas lack it for ever"
        worse = Finding("bad", "sync_binlog", synced, "1", why, "SET GLOBAL sync_binlog = 1, and in the configuration")
        yield unless(synced == "1", worse)
    doublewrite = settings["innodb_doublewrite"]
    why = "a page that was half written when the power went cannot be repaired"
    do = "Set innodb_doublewrite = ON and restart, unless the file system never tears a page"
    good = doublewrite in ("ON", "1", "DETECT_AND_RECOVER")
    yield unless(good, Finding("bad", "innodb_doublewrite", doublewrite, "ON", why, do))
    method = settings.get("innodb_flush_method", "")
    if method.lower() in ("nosync", "littlesync"):
        why = "files are not synced at all"
        yield Finding("bad", "innodb_flush_method", method, "fsync or O_DIRECT", why, "Set it and restart the server")


def role(read_only: str) -> Finding:
    """Judge whether the server may be written."""
    if read_only == "OFF":
        return Finding("ok", "role", "writable")
    why = "nothing can be appended"
    return Finding("warning", "role", f"read_only={read_only}", "OFF", why, "Name the primary in the URL")


def session(mode: str, level: str) -> Iterator[Finding]:
    """Judge how turnlog's own connections are set."""
    why = "a value that does not fit would be cut off"
    missing = set(SQL_MODE.split(",")) - set(mode.split(","))
    yield unless(
        not missing, Finding("bad", "sql_mode", mode, SQL_MODE, why, "Let nothing change turnlog's connections")
    )
    why = "an append would not see what others have committed since it began"
    worse = Finding("bad", "isolation", level, "READ-COMMITTED", why, "Let nothing change turnlog's connections")
    yield unless(level == "READ-COMMITTED", worse)


def packets(largest: int) -> Finding:
    """Judge ``max_allowed_packet``."""
    worse = Finding(
        "warning",
        "max_allowed_packet",
        f"{size(largest)}; no event can be larger",
        f"at least {size(LITTLE_PACKET_BYTES)}",
        "a long message, or a tool's result, is refused",
        "SET GLOBAL max_allowed_packet, and in the configuration",
    )
    return unless(largest >= LITTLE_PACKET_BYTES, worse)


def _collations(pool: Pool, names: Names) -> list[tuple[str, str]]:
    statement = (
        "SELECT CONCAT(table_name, '.', column_name), collation_name FROM information_schema.columns"
        " WHERE table_schema = %s AND table_name IN %s AND collation_name IS NOT NULL AND collation_name <> 'ascii_bin'"
    )
    return pool.rows(statement, (pool.schema, list(names.tables())))


def collations(columns: list[tuple[str, str]], wanted: str) -> Finding:
    """Judge by which collations the columns of turnlog's tables are compared."""
    others = [f"{column} is {collation}" for column, collation in columns if collation != wanted]
    worse = Finding(
        "bad",
        "collation",
        ", ".join(others),
        wanted,
        "ids that differ in case, accents or trailing blanks are taken for the same",
        f"Convert the columns to {wanted}",
    )
    return worse if others else Finding("ok", "collation", wanted)


def commit_time(pool: Pool, *, synced: bool) -> Finding:
    """Measure what an append waits for at its end, and the same rolled back, which waits for nothing."""
    table = pool.table(f"turnlog_doctor_{token_hex(4)}")
    with pool.translating(), closing(pool.session()) as connection:
        run(connection, f"CREATE TABLE {table} (id int NOT NULL) ENGINE=InnoDB")
        try:
            durable_s = shared.timed(lambda: _insert(connection, table, "COMMIT"))
            unsynced_s = shared.timed(lambda: _insert(connection, table, "ROLLBACK"))
        finally:
            run(connection, f"DROP TABLE {table}")
    return shared.commits(durable_s, unsynced_s, synced=synced)


def _insert(connection: Connection, table: str, end: str) -> None:
    run(connection, "START TRANSACTION")
    run(connection, f"INSERT INTO {table} VALUES (1)")
    run(connection, end)


def _is_held(pool: Pool, names: Names) -> bool:
    """Return whether the row that gives positions is locked for longer than an append takes."""
    head = pool.table(f"{names.events}_head")
    with closing(pool.session()) as connection:
        run(connection, f"SET innodb_lock_wait_timeout = {WAIT_S}")
        try:
            with pool.translating():
                run(connection, f"SELECT position FROM {head} WHERE id = 1 FOR UPDATE")
        except StoreUnavailable:
            return True
    return False


def held_up(held: bool) -> Finding:
    """Judge whether appends get through."""
    worse = Finding(
        "warning",
        "appends",
        f"they wait: the row that gives positions has been locked for more than {WAIT_S} s",
        why="appends take turns, and somebody keeps his",
        do="See the open transactions below",
    )
    return worse if held else Finding("ok", "appends", "nobody is in the way")


class Open(NamedTuple):
    """A transaction that is open; nothing but its number is shown of other users' without the right PROCESS."""

    number: int
    user: str | None
    command: str | None
    age_s: int
    locked: int

    @property
    def transaction(self) -> Transaction:
        """It in the words of all servers."""
        state = "in a query" if self.command == "Query" else "idle"
        who = f"connection {self.number} ({self.user or 'user not shown'}, {state}, {self.locked} rows locked)"
        return Transaction(who, self.age_s, f"Have it commit; or KILL {self.number}")


_OPEN = (
    "SELECT t.trx_mysql_thread_id, p.user, p.command, TIMESTAMPDIFF(SECOND, t.trx_started, NOW()), t.trx_rows_locked"
    " FROM information_schema.innodb_trx t LEFT JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id"
    " WHERE t.trx_mysql_thread_id <> CONNECTION_ID()"
)


def _transactions(pool: Pool, *, held: bool) -> Iterator[Finding]:
    try:
        found = [Open(*row) for row in pool.rows(_OPEN)]
    except StoreUnavailable as error:
        yield Finding("warning", "open transactions", f"cannot be looked at: {error}", do="GRANT PROCESS to this user")
        return
    for one in found:
        if held and one.locked and one.age_s >= WAIT_S:
            why = "it has locked rows for longer than an append does"
            yield Finding("warning", "held up by", one.transaction.words, why=why, do=one.transaction.end)
    yield from shared.too_long([one.transaction for one in found])
