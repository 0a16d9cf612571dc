"""Views on MariaDB: what is only there. Locks that outlive a transaction, swaps in two steps, databases, rights."""

import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pymysql
import pytest

from tests import servers
from tests.projections.log import STARTED, Log, Words, execute, filled, said, words
from tests.projections.mariadb_crash import as_bytes
from tests.projections.test_session_index import INDEXES, SHAPES
from tests.projections.views_beside import DEADLINE_S, known, shown, until
from turnlog.adapters.mariadb import MariaDBRecorder
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.mariadb.views import MariaDBViews
from turnlog.adapters.names import Names
from turnlog.domain import events as e
from turnlog.domain.errors import InvalidInput, StoreError, StoreUnavailable
from turnlog.domain.mapper import LogRow
from turnlog.domain.values import RebuildProgress, RecordedEvent
from turnlog.projections import building
from turnlog.projections.engine import Engine

DRIVER: Any = pymysql.connections.Connection


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build in pages of ten events, so that few make many."""
    monkeypatch.setattr(building, "PAGE", 10)


@pytest.fixture
def log(mariadb_url: str) -> Iterator[Log]:
    """An empty log on MariaDB."""
    opened = Log(mariadb_url)
    yield opened
    opened.close()


@pytest.fixture
def other(log: Log) -> Iterator[Log]:
    """The same log, as another process has it."""
    opened = log.again()
    yield opened
    opened.close()


def waits(log: Log) -> bool:
    """Return whether somebody waits for a lock of the server's."""
    return bool(log.query("SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE = 'User lock'"))


def builds(log: Log) -> list[tuple[Any, ...]]:
    """Return the databases beside the log's."""
    select = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE LEFT(SCHEMA_NAME, ?) = ?"
    ours = f"{log.database.schema}_build_"
    return log.query(select, len(ours), ours)


def tables(log: Log) -> list[tuple[Any, ...]]:
    """Return everything that is in the log's database, with the columns of indexes."""
    return log.query(
        "SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS"
        " WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1, 2, SEQ_IN_INDEX"
    )


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
            until(lambda: waits(log) or not erasing.is_alive())
        return rows

    monkeypatch.setattr(log.recorder, "select_log", select_log)
    assert log.engine.catch_up(names=["session_index"])
    erasing.join(DEADLINE_S)
    assert shown(log, "a") == []
    assert log.engine.catch_up()
    assert shown(log, "a") == []


def test_nobody_writes_views_while_an_erasure_is_under_way(log: Log, other: Log) -> None:
    """Catching up does not wait for it; what waits comes through once it is committed, for then the lock is let go."""
    known(log)
    log.append("a", STARTED, said("one"))
    with other.database.write(lets_go=True) as connection:
        other.views.hold_still(connection)
        assert not log.engine.catch_up(names=["session_index"])
        catching_up = Thread(target=log.engine.catch_up, kwargs={"wait": True})
        catching_up.start()
        until(lambda: waits(other))
    catching_up.join(DEADLINE_S)
    other.delete("a")
    assert log.engine.catch_up()
    assert shown(log, "a") == []


def test_what_is_erased_during_a_rebuild_is_never_seen_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new generation had its rows; it forgets them before it takes the old one's place, not after."""
    known(filled(log))
    assert log.engine.catch_up()
    seen: list[list[Any]] = []
    query = DRIVER.query

    def looked_after(connection: Any, statement: Any, *args: Any, **options: Any) -> Any:
        done = query(connection, statement, *args, **options)
        if b"RENAME TABLE" in as_bytes(statement):
            monkeypatch.undo()
            seen.append(shown(log, "s-1"))
        return done

    def erase_one(now: RebuildProgress) -> None:
        if now.position == 30:
            log.delete("s-1")

    monkeypatch.setattr(DRIVER, "query", looked_after)
    log.engine.rebuild("session_index", erase_one)
    assert seen == [[]]
    assert [log.engine.check(status.name) for status in log.engine.status()] == [[], [], []]


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
    "killed": "KILL CONNECTION_ID()",
    "cancelled": "KILL QUERY CONNECTION_ID()",
    "full": "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1021",
    "deadlock": "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213",
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
def test_trouble_of_the_server_parks_nobody(log: Log, failure: str) -> None:
    """The page is undone, the error comes out, and nothing was missed afterwards."""
    view = Troubled(lambda connection: execute(connection, failure))
    log.engine.add(view)
    log.append("a", STARTED, said("one"))
    with pytest.raises(StoreUnavailable):
        log.engine.catch_up()
    assert log.engine.parked("words") == ()
    view.trouble = None
    assert log.engine.catch_up(wait=True)
    assert words(log) == [("a", "one", 1)]


def test_what_commits_by_itself_is_refused(log: Log) -> None:
    """Creating a table ends the transaction, as a commit does."""
    log.engine.add(Troubled(lambda connection: execute(connection, "CREATE TABLE IF NOT EXISTS more (n INTEGER)")))
    log.append("a", STARTED)
    with pytest.raises(StoreUnavailable, match="nor create, alter or drop"):
        log.engine.catch_up()
    assert log.engine.parked("words") == ()


def test_ids_are_told_apart_by_their_bytes(log: Log) -> None:
    """By case, accents, blanks at the end; a NUL is kept; pages come in the order of bytes."""
    users = ["U", "u", "u ", "ü", "u\0", "U ", "\U0001f600", "\uffff"]
    log.with_views()
    for n, user in enumerate(users):
        log.append(f"s{user}", e.SessionStarted(user_id=user, agent="x\0y"), said(f"m{user}"))
        log.append(f"s{user}", e.MessageEdited(message_id=f"m{user}", content=str(n)))
    assert log.engine.catch_up()
    for user in users:
        assert log.row(f"s{user}").summary.user_id == user
        assert [row.message_id for row in log.views.select_messages("default", user, limit=9)] == [f"m{user}"]
    assert [one.user_id for one in log.views.select_users("default", limit=9)] == sorted(users)
    assert log.row("su").summary.agent == "x\0y"
    assert log.engine.check("session_index") + log.engine.check("message_index") == []


def test_the_longest_ids_have_room(log: Log) -> None:
    """255 characters of four bytes each, in every column at once."""
    longest = "\U0001f600" * 255
    started = e.SessionStarted(user_id=longest, agent=longest)
    log.with_views().append(longest, started, said(longest), e.RouteEntered(route=longest), tenant=longest)
    assert log.engine.catch_up()
    assert log.views.select_session(longest, longest).summary.current_route == longest
    assert log.engine.check("session_index") == []


def test_threads_that_wait_for_the_lock_leave_connections_for_whoever_has_it(mariadb_url: str) -> None:
    """With more threads than connections, all come through."""
    log = Log(mariadb_url)
    with Pool(mariadb_url, size=3) as pool:
        views = MariaDBViews(pool)
        recorder = MariaDBRecorder(pool, log.names, views)
        engine = Engine(recorder, views, log.codec)
        engine.add(Words())
        filled(log)
        done: list[bool] = []
        threads = [Thread(target=lambda: done.append(engine.catch_up(wait=True))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert done == [True] * 8
        assert len(words(log)) == 40
    log.close()


# --- queries ----------------------------------------------------------------------------------------------------------


@contextmanager
def sent(monkeypatch: pytest.MonkeyPatch) -> Generator[list[bytes], None, None]:
    """Note down what is sent to the server."""
    statements: list[bytes] = []
    query = DRIVER.query

    def noted(connection: Any, statement: Any, *args: Any, **options: Any) -> Any:
        statements.append(as_bytes(statement))
        return query(connection, statement, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(DRIVER, "query", noted)
        yield statements


def test_every_list_is_the_scan_of_one_index(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """No query sorts, each walks the index of its most selective filter, in a table of some thousand rows."""
    log.with_views()
    row = "'default', CONCAT('s-', seq), IF(seq % 9, CONCAT('user-', seq % 70), 'alice'), CONCAT('agent-', seq % 5)"
    log.query(
        f"INSERT INTO turnlog_session_index SELECT {row}, IF(seq % 4, 'active', 'completed'), CONCAT('r-', seq % 7),"
        " NULL, 1, seq, seq, NULL, NULL, 1, seq, seq FROM seq_1_to_4000"
    )
    log.query(
        "INSERT INTO turnlog_message_index SELECT 'default', CONCAT('s-', seq), 1,"
        " IF(seq % 9, CONCAT('user-', seq % 70), 'alice'), seq, seq, 0, 1, 1 FROM seq_1_to_4000"
    )
    for shape, index in zip(SHAPES, INDEXES, strict=True):
        with sent(monkeypatch) as statements:
            shape(log)
        (statement,) = (text for text in statements if text.startswith(b"SELECT") and b"_index" in text)
        (plan,) = log.query(f"EXPLAIN {statement.decode()}".replace("?", "'?'"))
        assert plan[5] == ("PRIMARY" if index == "autoindex" else f"turnlog_{_table(statement)}_{index}"), plan
        assert plan[3] in ("ref", "range", "const"), plan
        assert "filesort" not in plan[9], plan
        assert "temporary" not in plan[9], plan


def _table(statement: bytes) -> str:
    return "message_index" if b"turnlog_message_index" in statement else "session_index"


def test_catching_up_scans_no_table(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sessions there are, a page costs what it holds."""
    filled(log, 300).with_views().engine.catch_up()
    for table in ("session_index", "message_index", "message_owners"):
        log.query(f"ANALYZE TABLE turnlog_{table}")
    replaced = e.HistoryReplaced(messages=(e.ReplacementMessage(message_id="8", role="user", content=""),))
    edit, remove = e.MessageEdited(message_id="one", content=""), e.MessageRemoved(message_id="one")
    compacted = e.HistoryCompacted(message_id="9", summary="", kept=1)
    log.append("s-1", edit, remove, compacted, replaced, e.HistoryCleared(), e.OwnerAssigned(user_id="bob"))
    log.delete("s-3")
    with sent(monkeypatch) as statements:
        assert log.engine.catch_up()
    about = [text for text in statements if b"_index`" in text or b"_owners`" in text]
    assert len(about) > 8
    for statement in about:
        if not statement.startswith(b"INSERT"):
            for plan in log.query(f"EXPLAIN {statement.decode()}"):
                assert plan[3] not in ("ALL", "index") or "derived" in str(plan[2]), (statement, plan)


def test_tables_and_columns_under_other_names(mariadb_url: str) -> None:
    """Chosen names, reserved words too, are used everywhere; the queries give the same."""
    columns = {"user_id": "order", "tenant": "group", "session_id": "where", "position": "select"}
    names = Names.chosen({"session_index": "my_sessions", "views": "table", "parked": "Index", "columns": columns})
    log = Log(mariadb_url, names=names).with_views()
    log.append("s", STARTED, said("1"))
    assert log.engine.catch_up()
    assert log.row("s").summary.user_id == "alice"
    assert [row.message_id for row in log.views.select_messages("default", "alice", limit=5)] == ["1"]
    log.engine.rebuild()
    assert log.query("SELECT `group`, `where`, `order` FROM my_sessions") == [("default", "s", "alice")]
    log.query("UPDATE my_sessions SET `order` = '1'")
    (difference,) = log.engine.check("session_index")
    assert difference.endswith("differs in order")
    log.close()


# --- generations ------------------------------------------------------------------------------------------------------


class Elaborate(Words):
    """A read model with much of what a table can have on MariaDB."""

    def create(self, connection: Any) -> None:
        """Create the tables."""
        super().create(connection)
        execute(
            connection,
            "CREATE TABLE notes (id BIGINT AUTO_INCREMENT PRIMARY KEY, text TEXT, "
            "size INT AS (CHAR_LENGTH(text)) STORED,"
            " mood ENUM('calm', 'loud') NOT NULL DEFAULT 'calm', FULLTEXT (text))",
        )
        execute(
            connection,
            "CREATE TABLE plain (session_id VARCHAR(255), note BIGINT, text VARCHAR(99) CHECK (text <> ''),"
            " CONSTRAINT of_note FOREIGN KEY (note) REFERENCES notes (id))",
        )

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Note what is said."""
        for recorded in events:
            if isinstance(recorded.event, e.MessageAdded):
                noted = execute(connection, "INSERT INTO notes (text) VALUES (?)", (recorded.event.content,))
                row = (recorded.session_id, noted.lastrowid, recorded.event.content)
                execute(connection, "INSERT INTO plain VALUES (?, ?, ?)", row)


def test_everything_that_a_table_can_have_is_swapped(log: Log) -> None:
    """Keys, foreign keys, numbers, full-text search, generated columns: all work after, nothing is left."""
    log.engine.add(Elaborate())
    filled(log, 5)
    assert log.engine.catch_up()
    before = tables(log)
    contents = {table: log.query(f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("notes", "plain")}
    log.query("UPDATE plain SET text = 'wrong' WHERE note = 3")
    assert len(log.engine.check("words")) == 2  # it has no key: one too many, one missing
    log.engine.rebuild()
    assert (tables(log), builds(log)) == (before, [])
    for table, rows in contents.items():
        assert log.query(f"SELECT * FROM {table} ORDER BY 1, 2") == rows
    assert len(log.query("SELECT id FROM notes WHERE MATCH (text) AGAINST ('content')")) == 10
    log.append("s-9", STARTED, said("three"))
    assert log.engine.catch_up()
    assert log.query("SELECT max(id) FROM notes") == [(11,)]
    with pytest.raises(StoreUnavailable, match="foreign key"), log.views.write() as connection:
        execute(connection, "DELETE FROM notes")
    log.engine.purge()
    assert log.engine.check("words") == []


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("CREATE TRIGGER t BEFORE INSERT ON words FOR EACH ROW SET NEW.said = 1", "trigger 't'"),
        ("CREATE VIEW t AS SELECT * FROM words", "view 't'"),
        ("CREATE FUNCTION t () RETURNS INT RETURN 1", "function 't'"),
    ],
)
def test_what_cannot_be_moved_is_refused(log: Log, statement: str, kind: str) -> None:
    """The view is not installed, and nothing of it is left."""

    class Much(Words):
        revision = 1

        def create(self, connection: Any) -> None:
            super().create(connection)
            execute(connection, statement)

    before = tables(log)
    with pytest.raises(InvalidInput, match=f"its {kind} cannot be moved"):
        log.engine.add(Much())
    assert (tables(log), builds(log), log.engine.status()) == (before, [], ())


def test_a_projection_that_drops_what_it_has_not_made_is_refused(log: Log) -> None:
    """Names that lead out of the database where it is built are the only way there."""

    class Careless(Words):
        revision = 1

        def create(self, connection: Any) -> None:
            execute(connection, f"DROP TABLE IF EXISTS {log.database.schema}.mine")
            super().create(connection)

    log.query("CREATE TABLE mine (n INTEGER)")
    with pytest.raises(InvalidInput, match="dropped 'mine'"):
        log.engine.add(Careless())


def test_a_reader_that_does_not_end_delays_the_swap_and_nobody_for_long(mariadb_url: str) -> None:
    """The rebuild gives up in time, others read on, and the old generation stays; later it goes through."""
    log = known(Log(mariadb_url))
    filled(log)
    assert log.engine.catch_up()

    def hurry(now: RebuildProgress) -> None:
        if now.position == now.target:
            pool.timeout_s = 1  # not from the beginning: everything else may take its time

    with Pool(mariadb_url) as pool, Pool(mariadb_url) as readers:
        views = MariaDBViews(pool)
        hasty = Engine(MariaDBRecorder(pool, log.names, views), views, log.codec)
        log.engine, engine = hasty, log.engine
        log.with_views()
        with readers.write() as reader:
            execute(reader, "SELECT count(*) FROM turnlog_session_index")
            with pytest.raises(StoreUnavailable, match="did not end"):
                hasty.rebuild("session_index", hurry)
            pool.timeout_s = DEADLINE_S
            assert log.row("s-1").summary.version == 3
        log.engine = engine
        assert log.engine.check("session_index") == []
        hasty.rebuild("session_index")
    assert log.row("s-1").summary.version == 3
    assert builds(log) == []
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
    """What was built of another log, or lacks a table, is made again; what is of use is used."""
    filled(log).with_views()
    given: list[int] = []

    def stop(now: RebuildProgress) -> None:
        given.append(now.position)
        if now.position >= 30:
            raise KeyboardInterrupt

    damages = {
        "": 30,
        "DROP TABLE {}.turnlog_views": 0,
        "DROP TABLE {}.turnlog_session_index": 0,
        "UPDATE {}.turnlog_views SET mark = ''": 0,
    }
    for damage, begun in damages.items():
        with pytest.raises(KeyboardInterrupt):
            log.engine.rebuild("session_index", stop)
        ((schema,),) = builds(log)
        if damage:
            log.query(damage.format(f"`{schema}`"))
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
    before = tables(log)
    reader = log.again(read_only=True).with_views()
    assert reader.engine.check("session_index") + log.engine.check("words") == []
    log.query("UPDATE turnlog_session_index SET agent = 'x'")
    assert len(reader.engine.check("session_index")) == 1
    reader.close()
    assert (tables(log), builds(log)) == (before, [])


def test_a_swap_killed_at_any_statement(mariadb_url: str) -> None:
    """The views are whole after each death, and so are those that were being created; see mariadb_crash.py."""
    command = [sys.executable, "-m", "tests.projections.mariadb_crash", mariadb_url]
    root = Path(__file__).parents[2]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    told = [line for line in run.stderr.splitlines() if "innodb_flush_log" not in line]
    assert (run.returncode, told) == (0, [])
    assert int(run.stdout) > 30


# --- rights -----------------------------------------------------------------------------------------------------------


def test_a_user_of_one_database_alone(mariadb: servers.MariaDB, mariadb_url: str) -> None:
    """The built-in views work; what takes a database of its own says which grant it takes, and that is enough."""
    database = mariadb_url.rpartition("/")[2]
    user = f"{database}_user"
    mariadb.execute(f"CREATE USER {user}@'%' IDENTIFIED BY 'secret'")
    mariadb.execute(f"GRANT ALL ON `{database}`.* TO {user}@'%'")
    log = Log(f"mariadb://{user}:secret@{servers.HOST}:{mariadb.port}/{database}")
    filled(log).with_views()
    assert log.engine.catch_up()
    assert log.engine.check("session_index") == []
    with pytest.raises(StoreError, match="GRANT ALL ON") as refused:
        log.engine.rebuild("session_index")
    with pytest.raises(StoreError, match="GRANT ALL ON"):
        log.engine.add(Words())
    assert log.engine.catch_up()
    mariadb.execute(f"{str(refused.value).partition('it takes ')[2]} TO {user}@'%'")
    log.engine.rebuild("session_index")
    log.engine.add(Words())
    assert log.engine.catch_up()
    assert [log.engine.check(status.name) for status in log.engine.status()] == [[], [], []]
    log.close()
    mariadb.execute(f"DROP USER {user}@'%'")
