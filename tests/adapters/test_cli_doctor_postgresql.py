"""`turnlog doctor` on PostgreSQL: real servers with every setting that breaks a promise, and judgements of the rest."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import pytest

import turnlog
from tests import servers
from tests.adapters.commands import Cli
from turnlog.adapters.cli import findings as shared
from turnlog.adapters.cli import postgresql_activity as activity
from turnlog.adapters.cli import postgresql_checks as checks
from turnlog.adapters.cli.findings import Finding, Look
from turnlog.adapters.cli.postgresql_activity import Table, transaction
from turnlog.adapters.postgresql.tables import Ordering
from turnlog.domain.values import ViewStatus


@pytest.fixture(scope="module")
def careful() -> Iterator[servers.PostgreSQL]:
    """A server that keeps what it promises."""
    with servers.PostgreSQL(servers.binaries_or_skip(), {}) as server:
        yield server


@pytest.fixture
def careful_url(careful: servers.PostgreSQL) -> Iterator[str]:
    """A store on it with a session."""
    url = careful.new_place()
    _begin(url, "s")
    yield url
    careful.drop_place(url)


def _begin(url: str, session_id: str) -> None:
    with turnlog.open(url) as store:
        store.session(session_id).add_message("user", "hello")


def diagnosed(cli: Cli, url: str, code: int = 0) -> dict[str, Any]:
    """Return the findings by name; of several of one name the last."""
    diagnosis = cli("doctor", "--store", url, "--json", code=code).json
    assert diagnosis["ok"] == (code == 0)
    return {finding["name"]: finding for finding in diagnosis["findings"]}


def not_ok(found: dict[str, Any]) -> set[str]:
    """Return the names of what is not ok.

    But for the measured time: in memory a file is stored at once; and the version: one day it is no longer maintained.
    """
    return {name for name, finding in found.items() if finding["level"] != "ok"} - {"one durable commit", "PostgreSQL"}


def test_all_is_well(cli: Cli, careful_url: str) -> None:
    """On a server with the settings it comes with nothing is amiss, and every promise is looked at."""
    found = diagnosed(cli, careful_url)
    assert not_ok(found) == set()
    assert {
        "PostgreSQL",
        "durability",
        "fsync",
        "full_page_writes",
        "synchronous_commit",
        "encoding",
        "role",
        "standbys",
        "ordering",
        "clock",
        "one durable commit",
        "readable in order",
        "open transactions",
        "replication slots",
        "autovacuum",
        "dead rows",
        "connections",
        "view session_index",
    } <= set(found)
    assert found["readable in order"]["found"] == "up to position 2, the last"
    assert found["view session_index"]["found"] == "2 positions behind, 0 sessions parked"
    assert set(found["fsync"]) == {"level", "name", "found"}


def test_measuring_commits_leaves_nothing(cli: Cli, careful_url: str) -> None:
    """No table and no row."""
    with psycopg.connect(careful_url, autocommit=True) as connection:

        def there() -> list[Any]:
            tables = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' ORDER BY oid"
            names = [row[0] for row in connection.execute(tables)]
            mine = [name for name in names if name.startswith("turnlog_")]
            return [names, *(connection.execute(f"SELECT * FROM {name}".encode()).fetchall() for name in mine)]

        before = there()
        assert len(before) > 5
        diagnosed(cli, careful_url)
        assert there() == before


def test_settings_that_break_the_promise(cli: Cli, postgresql_url: str) -> None:
    """A server that does not sync its files: what, what should be, why, and what to do; the exit code is 1."""
    _begin(postgresql_url, "s")
    found = diagnosed(cli, postgresql_url, code=1)
    assert not_ok(found) == {"durability", "fsync", "full_page_writes"}
    assert {found[name]["level"] for name in ("durability", "fsync", "full_page_writes")} == {"bad"}
    assert found["fsync"]["found"] == "off"
    assert found["fsync"]["expected"] == "on"
    assert "damaged" in found["fsync"]["why"]
    assert "fsync = on" in found["fsync"]["do"]
    assert found["durability"]["found"].startswith("normal ")
    words = cli("doctor", "--store", postgresql_url, code=1).out
    assert "off; expected on: a commit is not on the disk" in words


def test_commits_that_do_not_wait(cli: Cli, careful_url: str) -> None:
    """`synchronous_commit=off` as the default: turnlog's own commits wait, an application's would not."""
    found = diagnosed(cli, f"{careful_url}%20-csynchronous_commit%3Doff")
    assert not_ok(found) == {"synchronous_commit"}
    assert found["synchronous_commit"]["found"].startswith("off")
    assert found["durability"]["found"] == "full (synchronous_commit=on on turnlog's connections)"


def test_who_holds_back_readers_is_named(cli: Cli, careful_url: str) -> None:
    """With process id, application and state; when that transaction is over, all is well."""
    with psycopg.connect(careful_url, application_name="forgetful") as holder:
        holder.execute(
            "INSERT INTO turnlog_events (originator_id, originator_version, topic, state) VALUES ('x/y', 1, 't', 'x')"
        )
        _begin(careful_url, "later")
        found = diagnosed(cli, careful_url)
        assert not_ok(found) == {"readable in order", "held back by"}
        assert found["readable in order"]["found"] == "up to position 2 of 5"
        pid = holder.info.backend_pid
        assert found["held back by"]["found"].startswith(f"pid {pid} (forgetful, idle in transaction), open for ")
        assert f"pg_terminate_backend({pid})" in found["held back by"]["do"]
        holder.rollback()
    assert not_ok(diagnosed(cli, careful_url)) == set()


def test_a_prepared_transaction_that_holds_back_readers_is_named(cli: Cli, careful_url: str) -> None:
    """It has no process; it has a name."""
    with psycopg.connect(careful_url, autocommit=True) as holder:
        holder.execute("BEGIN")
        holder.execute(
            "INSERT INTO turnlog_events (originator_id, originator_version, topic, state) VALUES ('x/y', 1, 't', 'x')"
        )
        holder.execute("PREPARE TRANSACTION 'left behind'")
        _begin(careful_url, "later")
        found = diagnosed(cli, careful_url)
        assert "held back by" in not_ok(found)
        assert found["held back by"]["found"].startswith("prepared transaction 'left behind'")
        holder.execute("ROLLBACK PREPARED 'left behind'")
    assert not_ok(diagnosed(cli, careful_url)) == set()


def test_a_sequence_that_hands_out_numbers_ahead(cli: Cli, careful_url: str) -> None:
    """Then appends take a lock, and the doctor says why."""
    with psycopg.connect(careful_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE turnlog_events ALTER COLUMN position SET CACHE 10")
    found = diagnosed(cli, careful_url)
    assert not_ok(found) == {"ordering"}
    assert found["ordering"]["found"] == "by lock: the sequence of positions has CACHE 10, INCREMENT 1"


def test_a_standby_that_commits_wait_for_and_a_slot_that_nobody_reads(
    cli: Cli, careful: servers.PostgreSQL, careful_url: str
) -> None:
    """Both are named; no commit is tried, it would wait for ever."""
    with psycopg.connect(careful.url, autocommit=True) as connection:
        connection.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
        connection.execute("SELECT pg_reload_conf()")
        try:
            found = diagnosed(cli, careful_url, code=1)
        finally:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("SELECT pg_drop_replication_slot('forgotten')")
    assert not_ok(found) == {"standbys", "replication slots"}
    assert found["standbys"]["found"] == "none; commits wait for 1 of gone"
    assert "forgotten (keeps " in found["replication slots"]["found"]
    assert "one durable commit" not in found


def test_a_long_transaction_is_named(cli: Cli, careful_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that only reads keeps vacuum from its work too."""
    monkeypatch.setattr(shared, "LONG_S", 0.0)
    with psycopg.connect(careful_url, application_name="reader") as reader:
        reader.execute("SELECT pg_current_xact_id()")
        found = diagnosed(cli, careful_url)
        assert f"pid {reader.info.backend_pid} (reader, idle in transaction)" in found["open transaction"]["found"]


NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (checks.version(130_022, NOW.date()), "bad"),
        (checks.version(140_020, date(2026, 11, 30)), "ok"),
        (checks.version(140_020, date(2026, 12, 1)), "warning"),
        (checks.version(990_000, date(2050, 1, 1)), "ok"),
        (checks.standbys("", []), "ok"),
        (checks.standbys("", [("a", "async")]), "ok"),
        (checks.standbys("a", [("a", "sync")]), "ok"),
        (checks.standbys("a", [("a", "async")]), "bad"),
        (checks.standbys("a", [("a", None)]), "ok"),
        (checks.standbys("FIRST 2 (a, b)", [("a", "sync"), ("b", "potential")]), "bad"),
        (checks.standbys("2 (a, b)", [("a", "sync"), ("b", "sync")]), "ok"),
        (checks.standbys("ANY 1 (*)", [("a", "quorum")]), "ok"),
        (checks.order(Ordering(proven=True), "CACHE 1"), "ok"),
        (checks.order(Ordering(proven=True, locked=True), "CACHE 1"), "ok"),
        (checks.order(Ordering(proven=False, locked=True, drawn=True), "CACHE 9"), "warning"),
        (checks.encoding("LATIN1"), "bad"),
        (activity.slots([]), "ok"),
        (activity.slots([("a", True, False, 5)]), "ok"),
        (activity.slots([("a", True, False, 5), ("b", False, True, None)]), "warning"),
        (shared.clocks_apart(Look(0.9, 0.0)), "ok"),
        (shared.clocks_apart(Look(-1.1, 0.2)), "ok"),
        (shared.clocks_apart(Look(-1.3, 0.2)), "warning"),
        (shared.commits(0.002, 0.001, synced=True), "ok"),
        (shared.commits(0.001, 0.001, synced=True), "warning"),
        (shared.commits(0.001, 0.001, synced=False), "ok"),
        (shared.connections(80, 100), "ok"),
        (shared.connections(81, 100), "warning"),
    ],
)
def test_judgements(finding: Finding, level: str) -> None:
    """Where no server of that kind is at hand: by the numbers it would give."""
    assert finding.level == level


def test_judgements_of_several() -> None:
    """Dead rows, sessions and views are judged one by one."""
    vacuumed = Table("a", 10, 20_000, NOW)
    assert [finding.level for finding in activity.tables([vacuumed], "on")] == ["ok", "warning"]
    assert [finding.level for finding in activity.tables([vacuumed._replace(live=200_000)], "off")] == ["warning", "ok"]
    assert [finding.level for finding in activity.held_back(5, 5, [transaction(7, "app", "active", 1.0)])] == ["ok"]
    assert [finding.level for finding in activity.held_back(5, 5, [transaction(7, "", None, 11.0)])] == [
        "ok",
        "warning",
    ]
    assert [finding.level for finding in shared.too_long([transaction(7, "app", None, None)])] == ["ok"]
    view = ViewStatus(name="v", revision=1, position=5, lag=10_000, parked=0)
    behind = ViewStatus(name="v", revision=1, position=5, lag=10_001, parked=0)
    parked = ViewStatus(name="v", revision=1, position=5, lag=0, parked=1)
    assert [finding.level for finding in shared.views([view, behind, parked])] == ["ok", "warning", "warning"]


def test_a_finding_in_one_line() -> None:
    """What was found, what is expected, why it matters, what to do."""
    assert Finding("bad", "a", "x", "y", "z", "Do it").words == "x; expected y: z. Do it"
    assert Finding("bad", "a", "x", why="z").words == "x: z"
    assert Finding("ok", "a", "x").words == "x"
