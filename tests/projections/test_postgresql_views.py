"""Views on PostgreSQL: what is only there. Erasing beside catching up, events that are not settled, schemas, locks."""

import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from threading import Event, Thread
from typing import Any

import psycopg
import pytest

import turnlog
from tests.faults.proxy import Cut, How, Proxy, When
from tests.projections.log import STARTED, Log, Words, filled, said, words
from tests.projections.views_beside import DEADLINE_S, known, shown, until
from tests.servers import PostgreSQL
from turnlog.adapters.postgresql import PostgreSQLRecorder
from turnlog.adapters.postgresql.pool import Pool
from turnlog.adapters.postgresql.views import PostgreSQLViews
from turnlog.domain import events as e
from turnlog.domain.errors import InvalidInput, StoreError, StoreUnavailable
from turnlog.domain.mapper import LogRow
from turnlog.domain.values import RebuildProgress, RecordedEvent
from turnlog.projections import building


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build in pages of ten events, so that few make many."""
    monkeypatch.setattr(building, "PAGE", 10)


@pytest.fixture
def log(postgresql_url: str) -> Iterator[Log]:
    """An empty log on PostgreSQL."""
    opened = Log(postgresql_url)
    yield opened
    opened.close()


@pytest.fixture
def other(log: Log) -> Iterator[Log]:
    """The same log, as another process has it."""
    opened = log.again()
    yield opened
    opened.close()


def waiting(log: Log) -> int:
    """Return how many transactions wait for an advisory lock."""
    return len(log.query("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))


@contextmanager
def held_back(log: Log) -> Generator[None, None, None]:
    """Hold back the log's head: a transaction has drawn a position and does not end."""
    with psycopg.connect(str(log.url)) as connection:
        columns = "originator_id, originator_version, topic, state"
        connection.execute(f"INSERT INTO turnlog_events ({columns}) VALUES ('default/open', 1, 'x', '')".encode())
        yield
        connection.rollback()


# --- erasing ----------------------------------------------------------------------------------------------------------


def test_a_page_that_was_read_before_an_erasure_leaves_no_row(
    log: Log, other: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasing transaction waits for the page, and deletes what it wrote."""
    known(log)
    known(other)
    log.append("a", STARTED, said("one"))
    erasing = Thread(target=other.delete, args=("a",))
    read = log.recorder.select_log

    def select_log(**options: Any) -> list[LogRow]:
        rows: list[LogRow] = read(**options)
        if erasing.ident is None:
            erasing.start()
            until(lambda: waiting(log) or not erasing.is_alive())
        return rows

    monkeypatch.setattr(log.recorder, "select_log", select_log)
    assert log.engine.catch_up(names=["session_index"])
    erasing.join(DEADLINE_S)
    assert shown(log, "a") == []
    assert log.engine.catch_up()
    assert shown(log, "a") == []


@pytest.mark.parametrize("name", ["session_index", "message_index", "words"])
def test_a_page_is_not_read_while_an_erasure_is_under_way(log: Log, other: Log, name: str) -> None:
    """Catching up does not wait for it, and what waits reads what is left."""
    known(log)
    log.append("a", STARTED, said("one"))
    with other.database.write() as connection:
        other.views.hold_still(connection)
        assert not log.engine.catch_up(names=[name])
        catching_up = Thread(target=log.engine.catch_up, kwargs={"names": [name], "wait": True})
        catching_up.start()
        until(lambda: waiting(other))
        recorder: Any = other.recorder
        recorder.writing.erase(connection, "default/a")
    catching_up.join(DEADLINE_S)
    assert shown(log, "a") == []


def test_an_erasure_waits_before_it_holds_back_the_log(log: Log, other: Log) -> None:
    """While it waits for views, it has drawn no position yet: others' events are settled."""
    known(log)
    log.append("a", STARTED, said("one"))
    known(other)
    with log.views.write():
        erasing = Thread(target=other.delete, args=("a",))
        erasing.start()
        until(lambda: waiting(log))
        last = log.append("b", STARTED)
        assert log.recorder.position() == last
    erasing.join(DEADLINE_S)
    assert log.engine.catch_up()
    assert shown(log, "a") == []


def test_an_erasure_that_is_not_settled_is_not_undone_by_a_rebuild(log: Log) -> None:
    """The new generation had the session's rows; the tombstone is above the log's head: it has no row."""
    view = Words()
    view.poison = "two"
    filled(log).with_views()
    log.engine.add(view)
    assert log.engine.catch_up()

    def erase_one(now: RebuildProgress) -> None:
        if now.position == 30:
            log.delete({"session_index": "s-1", "message_index": "s-2", "words": "s-3"}[now.view])

    with held_back(log):
        log.engine.rebuild(progress=erase_one)
        assert log.recorder.position() == 60
        assert [shown(log, session_id) for session_id in ("s-1", "s-2", "s-3")] == [[], [], []]
        assert "s-3" not in {parked.session_id for parked in log.engine.parked("words")}
        assert [log.engine.check(status.name) for status in log.engine.status()] == [[], [], []]
    assert log.engine.catch_up()
    assert [log.engine.check(status.name) for status in log.engine.status()] == [[], [], []]


def test_an_erasure_that_is_not_settled_is_pending_in_views(postgresql_url: str) -> None:
    """A view that has not read the tombstone is named, also while it cannot be read yet."""
    log = Log(postgresql_url)
    with turnlog.open(postgresql_url) as store:
        session = store.session("s")
        with held_back(log):
            receipt = session.delete()
    log.close()
    assert receipt.erasure is not None
    assert "view session_index, which has not read that far" in receipt.erasure.pending


# --- what is not settled ----------------------------------------------------------------------------------------------


def test_own_writes_are_read_while_the_log_is_held_back(postgresql_url: str) -> None:
    """Every query shows what was committed, whatever transaction is open; so does erasing a user."""
    log = Log(postgresql_url)
    with turnlog.open(postgresql_url) as store, turnlog.open(postgresql_url, read_only=True) as reader:
        store.session("before", user_id="alice").add_message("user", "0")
        assert len(store.sessions().items) == 1
        with held_back(log):
            store.session("after", user_id="alice").add_message("user", "1")
            store.session("before").add_message("user", "2")
            assert store.position == 2
            for looking in (store, reader):
                assert [one.session_id for one in looking.sessions().items] == ["before", "after"]
                assert [one.content for one in looking.messages(user_id="alice").items] == ["2", "1", "0"]
                assert [(one.sessions, one.messages) for one in looking.users().items] == [(2, 3)]
                assert (looking.stats().sessions, looking.stats().messages) == (2, 3)
                active = looking.active_session("alice")
                assert active is not None
                assert active.id == "after"
            assert store.sessions(consistency="eventual").items[0].message_count == 1
            assert store.erase_user("alice").sessions == 2
            assert store.sessions().items == []
        assert store.sessions().items == []
        assert store.verify().ok
    log.close()


def test_what_is_settled_meanwhile_is_not_missed(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a view's catching up and the look at what is not settled, another thread may settle it: it is shown."""
    log = Log(postgresql_url)
    with turnlog.open(postgresql_url) as store:
        parts: Any = vars(store)
        recorder, engine = parts["_recorder"], parts["_engine"]
        catch_up = engine.catch_up
        with held_back(log):
            store.session("s")

            def settled_after(**options: Any) -> bool:
                level: bool = catch_up(**options)
                done.set()
                until(lambda: recorder.position() > 0)
                return level

            done = Event()
            monkeypatch.setattr(engine, "catch_up", settled_after)
            found: list[int] = []
            asking = Thread(target=lambda: found.append(len(store.sessions().items)))
            asking.start()
            done.wait(DEADLINE_S)
        asking.join(DEADLINE_S)
    log.close()
    assert found == [1]


# --- failures ---------------------------------------------------------------------------------------------------------


class Troubled(Words):
    """``Words`` that does something else first, once."""

    def __init__(self, trouble: Callable[[Any], object]) -> None:
        self.trouble: Callable[[Any], object] | None = trouble

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Count, after the trouble."""
        if self.trouble is not None:
            self.trouble(connection)
        super().apply(events, connection)


FAILURES = {
    "killed": "SELECT pg_terminate_backend(pg_backend_pid())",
    "cancelled": "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(1)",
    "read-only": "SET TRANSACTION READ ONLY; UPDATE turnlog_views SET position = 9",
    "full": "DO $$ BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = '53100'; END $$",
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_trouble_of_the_server_parks_nobody(log: Log, failure: str) -> None:
    """The page is undone, the error comes out, and nothing was missed afterwards."""
    view = Troubled(lambda connection: connection.execute(failure.encode()))
    log.engine.add(view)
    log.append("a", STARTED, said("one"))
    with pytest.raises(StoreUnavailable):
        log.engine.catch_up()
    assert log.engine.parked("words") == ()
    view.trouble = None
    assert log.engine.catch_up()
    assert words(log) == [("a", "one", 1)]


def test_a_statement_that_failed_is_not_overlooked(log: Log) -> None:
    """A projection that swallows the driver's error has still not applied the event."""

    def swallow(connection: Any) -> None:
        with pytest.raises(psycopg.Error):
            connection.execute(b"SELECT 1 / 0")

    log.engine.add(Troubled(swallow))
    log.append("a", STARTED)
    assert log.engine.catch_up()
    (one,) = log.engine.parked("words")
    assert one.session_id == "a"


def test_what_text_cannot_hold_is_shown_as_a_replacement_character(log: Log) -> None:
    """A NUL in an id or in an error's words is U+FFFD in the views; the log has it as it was."""
    view = Words()
    view.poison = "a\0b"
    known_as = e.MessageAdded(message_id="a\0b", role="user", content="")
    log.with_views()
    log.append("s", e.SessionStarted(user_id="alice", agent="x\0y"), known_as)
    log.append("t", STARTED, said("one"), said("two"))
    assert log.engine.catch_up()
    assert log.row("s").summary.agent == "x\ufffdy"
    assert [row[0] for row in log.messages("s")] == ["a\ufffdb"]
    assert log.engine.check("session_index") + log.engine.check("message_index") == []
    log.append("s", e.MessageRemoved(message_id="a\0b"))
    assert log.engine.catch_up()
    assert log.messages("s") == []


def test_threads_that_wait_for_the_lock_leave_connections_for_whoever_has_it(postgresql_url: str) -> None:
    """With more threads than connections, all come through."""
    log = Log(postgresql_url)
    pool = Pool(postgresql_url, size=3)
    log.views = PostgreSQLViews(pool)
    log.recorder = PostgreSQLRecorder(pool, log.names, log.views)
    log.engine = building_engine(log)
    known(log)
    filled(log)
    done: list[bool] = []
    threads = [Thread(target=lambda: done.append(log.engine.catch_up(wait=True))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert done == [True] * 12
    assert len(words(log)) == 40
    pool.close()
    log.close()


def building_engine(log: Log) -> Any:
    """Return an engine on what the log has now."""
    return type(log.engine)(log.recorder, log.views, log.codec)


# --- generations ------------------------------------------------------------------------------------------------------


ELABORATE = """
CREATE TYPE mood AS ENUM ('calm', 'loud');
CREATE DOMAIN short AS text CHECK (length(VALUE) < 100);
CREATE SEQUENCE numbers;
CREATE TABLE notes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text short,
    size int GENERATED ALWAYS AS (length(text)) STORED,
    mood mood NOT NULL DEFAULT 'calm',
    n bigint NOT NULL DEFAULT nextval('numbers'));
CREATE TABLE plain (session_id text, text text, note bigserial REFERENCES notes);
CREATE FUNCTION noted(words text) RETURNS bigint LANGUAGE sql AS
    $$ INSERT INTO notes (text) VALUES (words) RETURNING id $$;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.note := noted(NEW.text); RETURN NEW; END $$;
CREATE TRIGGER noted BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION note();
CREATE VIEW loud AS SELECT session_id, upper(text) AS text FROM plain;
CREATE MATERIALIZED VIEW summary AS SELECT count(*) FROM notes;
CREATE INDEX notes_by_text ON notes (text) WHERE text IS NOT NULL;
CREATE TABLE parts (n int, text text) PARTITION BY RANGE (n);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (1000);
"""


class Elaborate(Words):
    """A read model with much of what PostgreSQL has."""

    def create(self, connection: Any) -> None:
        """Create the tables."""
        super().create(connection)
        connection.execute(ELABORATE)

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Note what is said."""
        for recorded in events:
            if isinstance(recorded.event, e.MessageAdded):
                row = (recorded.session_id, recorded.event.content)
                connection.execute("INSERT INTO plain (session_id, text) VALUES (%s, %s)", row)
                connection.execute("INSERT INTO parts VALUES (1, %s)", row[1:])


OBJECTS = (
    "SELECT 'relation', relname::text, relkind::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
    " UNION ALL SELECT 'routine', proname::text, '' FROM pg_proc WHERE pronamespace = current_schema()::regnamespace"
    " UNION ALL SELECT 'type', typname::text, '' FROM pg_type WHERE typnamespace = current_schema()::regnamespace"
    " AND typtype IN ('e', 'd') ORDER BY 1, 2"
)


def objects(log: Log) -> list[tuple[Any, ...]]:
    """Return everything that is in the log's schema."""
    with log.database.read() as connection:
        found: list[tuple[Any, ...]] = connection.execute(OBJECTS.encode()).fetchall()
    return found


def builds(log: Log) -> list[tuple[Any, ...]]:
    """Return the schemas of builds."""
    ours = sha256(f"{log.database.schema}\nturnlog_views".encode()).hexdigest()[:8]
    return log.query("SELECT nspname FROM pg_namespace WHERE strpos(nspname, ?) > 0", f"_build_{ours}")


def test_everything_that_a_projection_creates_is_swapped(log: Log) -> None:
    """Tables, types, routines, triggers, sequences, views, partitions: all work after, nothing is left."""
    view = Elaborate()
    log.engine.add(view)
    filled(log, 5)
    assert log.engine.catch_up()
    before = objects(log)
    contents = {table: log.query(f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("notes", "plain", "parts")}
    log.query("UPDATE plain SET text = 'wrong' WHERE note = 3")
    assert len(log.engine.check("words")) == 2  # it has no key: one too many, one missing
    log.engine.rebuild()
    assert objects(log) == before
    assert builds(log) == []
    for table, rows in contents.items():
        assert log.query(f"SELECT * FROM {table} ORDER BY 1, 2") == rows
    assert log.query("SELECT text FROM loud LIMIT 1") == [("CONTENT OF ONE",)]
    log.append("s-9", STARTED, said("three"))
    assert log.engine.catch_up()
    assert log.query("SELECT max(id), max(n) FROM notes") == [(11, 11)]
    assert log.engine.check("words") == []

    class Plain(Words):
        revision = 2

    other = log.again()
    other.engine.add(Plain())
    assert not {name for _, name, _ in objects(log)} & {"notes", "noted", "mood", "numbers", "loud", "parts_1"}
    other.close()


def test_a_projection_that_drops_what_it_has_not_made_is_refused(log: Log) -> None:
    """Also where it only makes sure: the generation that answers would be gone."""

    class Careful(Words):
        revision = 1

        def create(self, connection: Any) -> None:
            connection.execute("DROP TABLE IF EXISTS words")
            super().create(connection)

    log.engine.add(Careful())
    log.append("a", STARTED, said("one"))
    assert log.engine.catch_up()
    with pytest.raises(InvalidInput, match="dropped 'words"):
        log.engine.rebuild("words")
    assert words(log) == [("a", "one", 1)]


def test_what_depends_on_a_view_is_not_dropped_with_it(log: Log) -> None:
    """An SQL view of the application's on a table of ours keeps that from being swapped, and the error names it."""
    known(log).append("a", STARTED)
    assert log.engine.catch_up()
    log.query("CREATE VIEW mine AS SELECT session_id FROM turnlog_session_index")
    with pytest.raises(StoreError, match="mine depends on"):
        log.engine.rebuild("session_index")
    assert log.query("SELECT * FROM mine") == [("a",)]
    assert log.engine.check("session_index") == []


def test_a_reader_that_does_not_end_delays_the_swap_and_nobody_else(postgresql_url: str) -> None:
    """The rebuild gives up in time, others read on, and the old generation stays."""
    log = known(Log(postgresql_url))
    hasty = Log(postgresql_url)
    pool = Pool(postgresql_url)
    hasty.views = PostgreSQLViews(pool)
    hasty.engine = building_engine(hasty)
    known(hasty)
    filled(log)
    assert log.engine.catch_up()

    def hurry(now: RebuildProgress) -> None:
        if now.position == now.target:
            pool.timeout_s = 0.5  # not from the beginning: everything else may take its time

    def rebuild() -> None:
        with pytest.raises(StoreUnavailable, match="did not end"):
            hasty.engine.rebuild(progress=hurry)
        refused.set()

    with psycopg.connect(postgresql_url) as reader:
        reader.execute("SELECT count(*) FROM turnlog_session_index")

        refused, rebuilding = Event(), Thread(target=rebuild)
        rebuilding.start()
        while rebuilding.is_alive():
            assert log.row("s-1").summary.version == 3
        assert refused.is_set()
    pool.timeout_s = DEADLINE_S
    hasty.engine.rebuild()
    assert log.row("s-1").summary.version == 3
    pool.close()
    hasty.close()
    log.close()


def test_unfinished_builds_can_be_discarded(log: Log, other: Log) -> None:
    """What an interrupted rebuild left is dropped; one that is running is named instead."""
    filled(log).with_views()

    def stop(now: RebuildProgress) -> None:
        if now.position >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log.engine.rebuild("session_index", stop)
    assert len(builds(log)) == 1
    pending: list[list[str]] = []
    log.engine.rebuild("message_index", lambda _: pending.append(other.views.discard_builds()))
    assert pending[0] == ["message_index"]
    assert builds(log) == []
    assert log.views.discard_builds() == []


def test_a_damaged_build_is_begun_anew(log: Log, other: Log) -> None:
    """What was built of another log, or cannot be read, is made again; what is of use is used."""
    filled(log).with_views()
    given: list[int] = []

    def stop(now: RebuildProgress) -> None:
        given.append(now.position)
        if now.position >= 30:
            raise KeyboardInterrupt

    for damage, begun in (("", 30), ("DROP TABLE {}.turnlog_views", 0), ("UPDATE {}.turnlog_views SET mark = ''", 0)):
        with pytest.raises(KeyboardInterrupt):
            log.engine.rebuild("session_index", stop)
        ((schema,),) = builds(log)
        if damage:
            log.query(damage.format(f'"{schema}"'))
        given.clear()
        with pytest.raises(KeyboardInterrupt):
            other.with_views().engine.rebuild("session_index", stop)
        assert given[0] == begun
    log.engine.rebuild("session_index")
    assert log.engine.check("session_index") == []


def test_a_check_leaves_nothing_behind(log: Log) -> None:
    """It is made in temporary tables, also by a store that is read-only."""
    known(log).append("s", STARTED)
    assert log.engine.catch_up()
    before = objects(log)
    reader = log.again(read_only=True).with_views()
    assert reader.engine.check("session_index") + log.engine.check("words") == []
    log.query("UPDATE turnlog_session_index SET agent = 'x'")
    assert len(reader.engine.check("session_index")) == 1
    reader.close()
    assert (objects(log), builds(log)) == (before, [])


def test_a_check_that_is_cut_off_at_its_end_warns_of_nothing(postgresql: PostgreSQL, postgresql_url: str) -> None:
    """The driver takes a cursor for open whose connection broke as it was being closed: a warning fails this test."""
    with Proxy(postgresql.port) as proxy:
        log = filled(Log(proxy.url(postgresql_url))).with_views()
        assert log.engine.catch_up()
        proxy.arm(Cut(When.BEFORE, How.RESET, b"CLOSE "))
        with pytest.raises(StoreUnavailable):
            log.engine.check("session_index")
        assert proxy.cuts == 1
        log.close()
    gc.collect()
