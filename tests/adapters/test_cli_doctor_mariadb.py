"""What `turnlog doctor` finds on MariaDB: real servers with every setting that breaks a promise, and judgements."""

from collections.abc import Iterator
from datetime import date

import pytest

from tests import servers
from turnlog.adapters.cli import mariadb_checks as checks
from turnlog.adapters.cli.findings import Finding
from turnlog.adapters.mariadb.connection import SQL_MODE
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.names import Names

HEAD = "CREATE TABLE turnlog_events_head (id tinyint NOT NULL PRIMARY KEY, position bigint NOT NULL) ENGINE=InnoDB"
UNSAFE = {
    "innodb-flush-log-at-trx-commit": "2",
    "innodb-doublewrite": "0",
    "log-bin": "binlog",
    "server-id": "1",
    "sync-binlog": "0",
    "max-allowed-packet": "1M",
}


class Log:
    """What the doctor needs of a recorder."""

    def __init__(self, pool: Pool, durability: str) -> None:
        self.pool = pool
        self.durability = durability


@pytest.fixture(scope="module")
def careful() -> Iterator[servers.MariaDB]:
    """A server that keeps what it promises."""
    with servers.MariaDB(servers.mariadbd_or_skip(), {}) as server:
        yield server


@pytest.fixture
def pool(careful: servers.MariaDB) -> Iterator[Pool]:
    """A pool on it, in a database with the one row that gives positions."""
    url = careful.new_place()
    with Pool(url, timeout_s=10) as made:
        _begin(made)
        yield made
    careful.drop_place(url)


def _begin(pool: Pool) -> None:
    with pool.write() as connection, connection.cursor() as cursor:
        cursor.execute(HEAD)
        cursor.execute("INSERT INTO turnlog_events_head VALUES (1, 0)")


def found(pool: Pool, promised: str = "full") -> dict[str, Finding]:
    """Return the findings by name."""
    return {finding.name: finding for finding in checks.findings(Log(pool, promised), Names())}


def not_ok(findings: dict[str, Finding]) -> set[str]:
    """Return the names of what is not ok.

    But for the measured time: in memory a file is stored at once; and the version: one day it is no longer maintained.
    """
    return {name for name, finding in findings.items() if finding.level != "ok"} - {"one durable commit", "MariaDB"}


def test_all_is_well_and_nothing_is_left(pool: Pool) -> None:
    """On a server with the settings it comes with nothing is amiss; the table of the measurement is gone."""
    findings = found(pool)
    assert not_ok(findings) == set()
    assert {
        "MariaDB",
        "durability",
        "innodb_flush_log_at_trx_commit",
        "innodb_doublewrite",
        "role",
        "sql_mode",
        "isolation",
        "max_allowed_packet",
        "collation",
        "clock",
        "one durable commit",
        "appends",
        "open transactions",
        "connections",
    } == set(findings)
    assert pool.rows("SHOW TABLES") == [("turnlog_events_head",)]


def test_settings_that_break_the_promise() -> None:
    """What, what should be, why, and what to do."""
    with servers.MariaDB(servers.mariadbd_or_skip(), UNSAFE) as server, Pool(server.new_place()) as pool:
        _begin(pool)
        findings = found(pool, "normal")
    settings = {"innodb_flush_log_at_trx_commit", "sync_binlog", "innodb_doublewrite"}
    assert not_ok(findings) == settings | {"durability", "max_allowed_packet"}
    assert {findings[name].level for name in settings} == {"bad"}
    flush = findings["innodb_flush_log_at_trx_commit"]
    assert (flush.found, flush.expected) == ("2", "1")
    assert "lost with the power" in flush.why
    assert "SET GLOBAL" in flush.do


def test_who_keeps_appends_waiting_is_named(pool: Pool, careful: servers.MariaDB) -> None:
    """By the number of the connection; when that transaction is over, all is well."""
    with careful.connect(database=pool.schema) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        ((number,),) = cursor.fetchall()
        cursor.execute("START TRANSACTION")
        cursor.execute("SELECT position FROM turnlog_events_head FOR UPDATE")
        findings = found(pool)
        assert not_ok(findings) == {"appends", "held up by"}
        assert findings["held up by"].found.startswith(f"connection {number} (root, idle, ")
        assert findings["held up by"].do.endswith(f"KILL {number}")
        holder.rollback()
        assert not_ok(found(pool)) == set()


def test_columns_that_take_different_ids_for_the_same(pool: Pool) -> None:
    """A table that somebody converted."""
    with pool.write() as connection, connection.cursor() as cursor:
        text = "CHARACTER SET utf8mb4 COLLATE"
        cursor.execute(
            f"CREATE TABLE turnlog_events (topic varchar(9) {text} {pool.collation},"
            f" originator_id varchar(9) {text} utf8mb4_general_ci)"
        )
    findings = found(pool)
    assert not_ok(findings) == {"collation"}
    assert findings["collation"].found == "turnlog_events.originator_id is utf8mb4_general_ci"


def test_without_the_right_to_see_others(pool: Pool, careful: servers.MariaDB) -> None:
    """The doctor says which right it lacks, and goes on."""
    user = f"limited_{pool.schema}"
    careful.execute(f"CREATE USER {user}@'%'")
    careful.execute(f"GRANT ALL ON {pool.schema}.* TO {user}@'%'")
    with Pool(f"mariadb://{user}@{servers.HOST}:{careful.port}/{pool.schema}") as limited:
        findings = found(limited)
    assert not_ok(findings) == {"open transactions"}
    assert "PROCESS" in findings["open transactions"].do
    assert "connections" in findings


def test_a_server_that_cannot_be_written(pool: Pool, careful: servers.MariaDB) -> None:
    """Nothing is tried on it."""
    careful.execute("SET GLOBAL read_only = 1")
    try:
        findings = found(pool)
    finally:
        careful.execute("SET GLOBAL read_only = 0")
    assert not_ok(findings) == {"role"}
    assert "one durable commit" not in findings


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (checks.version("10.6.1-MariaDB", date(2026, 7, 6)), "ok"),
        (checks.version("10.6.1-MariaDB", date(2026, 7, 7)), "warning"),
        (checks.version("10.11.6-MariaDB", date(2050, 1, 1)), "ok"),
        (checks.packets(16 << 20), "ok"),
        (checks.packets(1 << 20), "warning"),
        (checks.durability("full", "normal"), "bad"),
        (checks.durability("normal", "normal"), "ok"),
    ],
)
def test_judgements(finding: Finding, level: str) -> None:
    """Where no server of that kind is at hand: by what it would say."""
    assert finding.level == level


def test_sessions_that_somebody_has_changed() -> None:
    """Connections of turnlog's own have to be strict, and see what others commit."""
    assert [finding.level for finding in checks.session(SQL_MODE + ",ANSI", "READ-COMMITTED")] == ["ok", "ok"]
    assert [finding.level for finding in checks.session("ANSI", "REPEATABLE-READ")] == ["bad", "bad"]
