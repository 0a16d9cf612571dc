"""A PostgreSQL log in partitions: all that a plain one promises, one partition a session, and plans that stay small."""

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import psycopg
import pytest
from eventsourcing.utils import Environment

import turnlog
from tests.adapters import test_postgresql_recorders as plain
from tests.adapters.exports import exported, fill
from tests.conftest import ROOT
from tests.servers import PostgreSQL
from turnlog.adapters import postgresql as pg
from turnlog.adapters.connect import connect
from turnlog.adapters.transfer.restore import restore_log
from turnlog.domain.errors import CorruptLog, InvalidInput
from turnlog.domain.recorder import Recorder
from turnlog.testing.contracts.rows import grow

N = 3
S = "default/s"
R = TypeVar("R", bound=pg.PostgreSQLAggregateRecorder | pg.PostgreSQLTrackingRecorder)
damage = plain.damage


@pytest.fixture
def recorder(postgresql_url: str) -> Iterator[Recorder]:
    """An empty recorder on partitions."""
    options = {"timeout_s": 20.0, "partitions": N}
    backend = connect(postgresql_url, durability="normal", engine=None, options=options)
    yield backend.recorder
    backend.recorder.close()
    backend.views.close()


class TestRecorder(plain.TestRecorder):
    """Our contracts."""


class InPartitions(plain.Recorders):
    """Has the events of every recorder in partitions."""

    def made(self, cls: type[R], **options: Any) -> R:
        """Return a recorder."""
        if issubclass(cls, pg.PostgreSQLAggregateRecorder):
            options["partitions"] = N
        return super().made(cls, **options)


class TestAggregateRecorder(InPartitions, plain.TestAggregateRecorder):
    pass


class TestApplicationRecorder(InPartitions, plain.TestApplicationRecorderOfText):
    pass


class TestProcessRecorder(InPartitions, plain.TestProcessRecorder):
    pass


class TestNonInterleaving(InPartitions, plain.TestNonInterleaving):
    pass


def test_the_number_is_chosen_once(postgresql_url: str) -> None:
    """Who asks for another number than the tables have is told; who asks for none takes what is there."""
    turnlog.open(postgresql_url, partitions=N).close()
    assert [name for name in _tables(postgresql_url) if name.startswith("turnlog_events_p")] == [
        f"turnlog_events_p{i}" for i in range(N)
    ]
    for opened in (None, N):
        turnlog.open(postgresql_url, partitions=opened, read_only=True).close()
    for wrong in (1, N + 1):
        with pytest.raises(InvalidInput, match=f"expected {N}: the tables are made so; got {wrong}"):
            turnlog.open(postgresql_url, partitions=wrong)


def test_a_plain_log_stays_one(postgresql_url: str) -> None:
    """A log in one table is not split by opening it."""
    turnlog.open(postgresql_url).close()
    turnlog.open(postgresql_url, partitions=1).close()
    with pytest.raises(InvalidInput, match="expected 1"):
        turnlog.open(postgresql_url, partitions=N)


@pytest.mark.parametrize("wrong", [0, 257, "8", True])
def test_what_is_no_number_of_partitions(postgresql_url: str, wrong: object) -> None:
    """Partitions are counted."""
    with pytest.raises(InvalidInput, match="partitions"):
        turnlog.open(postgresql_url, partitions=wrong)


def test_names_as_long_as_they_may_be(postgresql_url: str) -> None:
    """Partitions and indexes of a table with the longest name have names of their own."""
    names = {"events": "e" * 63, "keys": "k" * 63}
    with turnlog.open(postgresql_url, partitions=12, names=names) as store:
        store.session("s").add_message("user", "hello", message_id="m")
        assert store.verify().ok


def test_a_store(postgresql_url: str) -> None:
    """What a store does on partitions: keys, lists, erasing, scrubbing, its size, the JSON of events."""
    with turnlog.open(postgresql_url, partitions=N) as store:
        empty = store.stats().size_bytes or 0
        for i in range(2 * N):
            session = store.session(f"s{i}", user_id="alice")
            first = session.add_message("user", f"secret {i} " * 9_000, message_id="m")
            assert session.add_message("user", f"secret {i} " * 9_000, message_id="m").position == first.position
        assert len(store.sessions(user_id="alice").items) == 2 * N
        assert (store.stats().size_bytes or 0) > empty + 2 * N * 8192
        store.get("s3").delete()
        assert "pages" not in str(store.scrub(vacuum=True))
        assert store.verify().ok
    with psycopg.connect(postgresql_url) as connection:
        ((told,),) = connection.execute("SELECT count(*) FROM turnlog_events_json WHERE private IS NULL").fetchall()
        assert told == 3
        select = "SELECT 1 FROM turnlog_events WHERE strpos(convert_from(state, 'UTF8'), 'secret 3') > 0"
        assert connection.execute(select).fetchall() == []


def test_amcheck_looks_into_partitions(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of indexes is one of every partition's."""
    recorder = connect(postgresql_url, durability="normal", engine=None, options={"partitions": N}).recorder
    assert isinstance(recorder, pg.PostgreSQLRecorder)
    grow(recorder, S, 3)
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("CREATE EXTENSION amcheck")
    checked: list[Any] = []
    rows = recorder.pool.rows

    def noted(statement: str, parameters: Sequence[object] = (), *, prepare: bool = True) -> list[Any]:
        checked.extend(parameters if "bt_index_check" in statement else ())
        return rows(statement, parameters, prepare=prepare)

    monkeypatch.setattr(recorder.pool, "rows", noted)
    assert recorder.check() == []
    assert len(checked) == 4 * N, "two indexes of events, one of keys, one of snapshots"
    recorder.close()


def test_a_sequence_that_would_repeat_itself(postgresql_url: str) -> None:
    """No index keeps positions apart over all partitions: a sequence that lags behind them is refused."""
    with turnlog.open(postgresql_url, partitions=N) as store:
        store.session("s")
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("ALTER SEQUENCE turnlog_events_position_seq RESTART")
    with turnlog.open(postgresql_url) as store, pytest.raises(CorruptLog, match="behind its positions"):
        store.session("t")


def _tables(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        statement = "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
        return sorted(name for (name,) in connection.execute(statement).fetchall())


@pytest.fixture
def split_url(postgresql: PostgreSQL) -> Iterator[str]:
    """Another empty schema of the same database."""
    made = postgresql.new_place()
    yield made
    postgresql.drop_place(made)


def test_from_one_table_to_partitions(postgresql_url: str, split_url: str) -> None:
    """As docs/scale.md shows it: positions stay, and everything goes on from there."""
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    (statements,) = re.findall(r"^```sql\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    for name, url in (("public", postgresql_url), ("split", split_url)):
        statements = statements.replace(f"{name}.", f"{url.rpartition('%3D')[2]}.")
    with turnlog.open(postgresql_url) as plain_store:
        fill(plain_store)
        events, heads = list(plain_store.events()), list(plain_store.heads())
    turnlog.open(split_url, partitions=N).close()
    with psycopg.connect(split_url, autocommit=True) as connection:
        connection.execute(statements.encode())
    with turnlog.open(split_url) as store:
        assert list(store.events()) == events
        assert store.verify(heads=heads).ok
        again = store.get("one").add_message("user", 'Größe 🙂 \x00 "quoted" \\ \u2028', message_id="m-1")
        assert again.version == 2
        assert (store.get("one").add_message("user", "more").position or 0) > events[-1].position
        assert {item.session_id for item in store.sessions().items} == {"one", "two/with a slash", "three"}


def test_an_export_into_partitions(postgresql_url: str, split_url: str) -> None:
    """What was exported from one table is restored into partitions with the same heads."""
    with turnlog.open(postgresql_url) as plain_store, turnlog.open(split_url, partitions=N) as store:
        fill(plain_store)
        restore_log(store, io.BytesIO(exported(plain_store)))
        assert list(store.heads()) == list(plain_store.heads())
        assert store.verify().ok


def test_an_application_of_eventsourcing(postgresql: PostgreSQL, postgresql_url: str) -> None:
    """It asks for partitions by a variable."""
    given = {**plain.variables(postgresql, postgresql_url), "POSTGRES_PARTITIONS": str(N)}
    factory = pg.PostgreSQLFactory(Environment(name="Test", env=given))
    factory.application_recorder()
    factory.close()
    assert [name for name in _tables(postgresql_url) if "stored_events" in name] == [
        f"stored_events_p{i}" for i in range(N)
    ]


class TestPlans:
    """How PostgreSQL does it: one partition for a session, and no sorting for the order of positions."""

    @pytest.fixture
    def full(self, postgresql_url: str) -> Iterator[pg.PostgreSQLRecorder]:
        """A recorder on 20,000 events of 400 sessions."""
        backend = connect(postgresql_url, durability="normal", engine=None, options={"partitions": N})
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO turnlog_events (originator_id, originator_version, topic, state)"
                " SELECT 'default/' || i % 400, i / 400 + 1, 't', 'x' FROM generate_series(0, 19999) AS i"
            )
            connection.execute(
                "INSERT INTO turnlog_keys"
                " SELECT 'default/' || i, 'k', 'k', 1, '', '' FROM generate_series(0, 9999) AS i"
            )
            connection.execute("ANALYZE turnlog_events, turnlog_keys")
        assert isinstance(backend.recorder, pg.PostgreSQLRecorder)
        yield backend.recorder
        backend.recorder.close()
        backend.views.close()

    @pytest.fixture
    def plans(self, full: pg.PostgreSQLRecorder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The plan of every statement that the recorder sends from now on."""
        plans: list[str] = []
        rows = full.pool.rows

        def explained(statement: str, parameters: Sequence[object] = (), *, prepare: bool = True) -> list[Any]:
            plan = rows(f"EXPLAIN (ANALYZE, COSTS OFF) {statement}", parameters, prepare=False)
            plans.append("\n".join(line for (line,) in plan))
            return rows(statement, parameters, prepare=prepare)

        assert full.position() == 20_000
        monkeypatch.setattr(full.pool, "rows", explained)
        return plans

    def test_a_page_of_the_log(self, full: pg.PostgreSQLRecorder, plans: list[str]) -> None:
        """The partitions' indexes are merged."""
        assert [row[0] for row in full.select_log(after=100, upto=20_000, limit=50)] == list(range(101, 151))
        (plan,) = plans
        assert "Merge Append" in plan
        assert plan.count("Index Scan using") == N
        assert not re.search(r"->  (Sort|Seq Scan)", plan)

    def test_the_names_of_streams(self, full: pg.PostgreSQLRecorder, plans: list[str]) -> None:
        """So they are for one name after the other."""
        names = full.streams(prefix="default/", limit=3)
        assert names == ["default/0", "default/1", "default/10"]
        (plan,) = plans
        assert plan.count("Merge Append") == 2
        assert not re.search(r"->  (Sort|Seq Scan)", plan)

    def test_one_session(self, full: pg.PostgreSQLRecorder, plans: list[str]) -> None:
        """Its events, keys and snapshot are each looked for in one partition."""
        assert len(full.select_stream("default/7", desc=True, limit=50)) == 50
        assert full.select_keys("default/7", [("k", "another")]) == []
        assert full.select_snapshot("default/7") is None
        assert [len(set(re.findall(r"\w+_p\d", plan))) for plan in plans] == [1, 1, 1]
