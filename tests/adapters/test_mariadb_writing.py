"""Writing to MariaDB under difficulties: races, connections cut around the commit, locks held by others."""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import sleep
from typing import Any

import pymysql
import pytest
from pymysql.constants import CR

from tests.faults.processes import together
from tests.servers import MariaDB, hostile
from turnlog.adapters.connect import connect
from turnlog.adapters.mariadb import MariaDBRecorder
from turnlog.adapters.mariadb.connection import run
from turnlog.adapters.mariadb.pool import Pool
from turnlog.domain.envelope import private_of
from turnlog.domain.errors import CorruptLog, OutcomeUnknown, StoreUnavailable
from turnlog.domain.recorder import Batch, Reader, Recorder
from turnlog.testing.contracts.rows import batch, grow, key, not_again, tombstone, write

S, T = "default/s", "default/t"
PLAIN, COMMIT = b"START TRANSACTION; DO", b"COMMIT"
"""How what is sent begins: an append in one packet; the end of one of several."""


@pytest.fixture
def recorder(mariadb_url: str) -> Iterator[Recorder]:
    """A recorder on an empty log."""
    with opened(mariadb_url) as made:
        yield made


@contextmanager
def opened(url: str, timeout_s: float = 60.0) -> Generator[MariaDBRecorder, None, None]:
    """Lend a recorder, closed in the end."""
    recorder = connect(url, durability="full", engine=None, options={"timeout_s": timeout_s}).recorder
    assert isinstance(recorder, MariaDBRecorder)
    try:
        yield recorder
    finally:
        recorder.close()


def one_more(name: str, stream: str = S) -> Callable[[Reader], Sequence[Batch]]:
    """Return what decides on one more event of a stream."""

    def decide(reader: Reader) -> Sequence[Batch]:
        rows = reader.select_stream(stream, desc=True, limit=1)
        return (Batch(stream, [(rows[0][1] + 1 if rows else 1, name, b"{}")]),)

    return decide


def append_many(url: str, name: str, n: int) -> int:
    """Append ``n`` events to one stream, each of them contested."""
    with opened(url, timeout_s=300.0) as recorder:
        for _ in range(n):
            recorder.append((), one_more(name))
    return n


def test_sixteen_writers_of_one_session(recorder: Recorder, mariadb_url: str) -> None:
    """All of sixteen processes come through, and nothing is lost."""
    together(append_many, *((mariadb_url, str(i), 20) for i in range(16)))
    rows = recorder.select_stream(S)
    assert [row[1] for row in rows] == list(range(1, 321))
    assert [row[0] for row in rows] == list(range(1, 321))
    topics = [row[2] for row in rows]
    assert {topic: topics.count(topic) for topic in topics} == {str(i): 20 for i in range(16)}


class Cut:
    """Cuts the connection of the next packet that begins with some words: before it is sent, or after its answer."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        words: bytes,
        *,
        after: bool,
        times: int = 1,
        then: Callable[[], object] = lambda: None,
    ) -> None:
        self.left = times
        driver: Any = pymysql.connections.Connection
        original = driver._execute_command  # noqa: SLF001 - all that is sent passes here

        def execute(connection: Any, command: int, query: str | bytes) -> None:
            text = query.encode() if isinstance(query, str) else query
            if not self.left or not text.startswith(words):
                original(connection, command, query)
                return
            self.left -= 1
            if after:
                original(connection, command, query)
                connection._read_query_result()  # noqa: SLF001 - the answer, which nobody hears of
                while connection._result.has_next:  # noqa: SLF001 - as above
                    connection.next_result()
            connection.close()
            then()
            raise pymysql.OperationalError(CR.CR_SERVER_LOST, "cut")

        monkeypatch.setattr(pymysql.connections.Connection, "_execute_command", execute)


@pytest.mark.parametrize("after", [False, True])
class TestCut:
    """A connection that is cut before a commit, or after it and before the answer."""

    def test_a_plain_append(self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        """It is written once, and its position is known."""
        rows = grow(recorder, S, 1)
        cut = Cut(monkeypatch, PLAIN, after=after)
        (position,) = write(recorder, batch(S, 1, before=rows))
        assert cut.left == 0
        assert [row[1] for row in recorder.select_stream(S)] == [1, 2]
        assert recorder.select_stream(S)[-1][0] == position == recorder.position() == 2

    def test_with_keys(self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        """So is one with keys, and one of keys alone."""
        Cut(monkeypatch, PLAIN, after=after)
        assert write(recorder, batch(S, 2, keys=[key("k", 1)]), batch(T, 3)) == [2, 5]
        assert [len(recorder.select_stream(stream)) for stream in (S, T)] == [2, 3]
        cut = Cut(monkeypatch, PLAIN, after=after)
        assert write(recorder, Batch(S, (), [key("l", 2)])) == [0]
        assert cut.left == 0
        assert len(recorder.select_all_keys(S)) == 2

    def test_decided_anew(self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        """So is one that was decided inside a transaction."""
        grow(recorder, S, 1)
        cut = Cut(monkeypatch, COMMIT, after=after)
        (position,) = recorder.append((), one_more("again"))
        assert cut.left == 0
        assert [row[1] for row in recorder.select_stream(S)] == [1, 2]
        assert recorder.select_stream(S)[-1][0] == position

    def test_an_erasure(self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        """So is an erasure."""
        rows = grow(recorder, S, 3)
        cut = Cut(monkeypatch, COMMIT, after=after)
        (position,) = write(recorder, tombstone(S, rows))
        assert cut.left == 0
        there = recorder.select_stream(S)
        assert len(there) == 4
        assert there[-1][0] == position
        assert [private_of(row[3]) for row in there] == [None] * 4

    def test_overtaken_meanwhile(self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        """What was not written, and has lost its place since, is decided anew; what was written is found."""
        rows = grow(recorder, S, 1)
        Cut(monkeypatch, PLAIN, after=after, then=lambda: recorder.append((), one_more("other")))
        recorder.append((batch(S, 1, before=rows),), not_again if after else one_more("anew"))
        topics = [row[2] for row in recorder.select_stream(S)]
        assert topics[1:] == (["MessageAdded.v1", "other"] if after else ["other", "anew"])


def test_cut_for_good(recorder: Recorder, monkeypatch: pytest.MonkeyPatch, mariadb_url: str) -> None:
    """Where every further try is cut too, nobody can know, and that is what is said; a later call finds out."""
    with opened(mariadb_url) as short:
        short.appends.timeout_s = 0.2
        cut = Cut(monkeypatch, PLAIN, after=False, times=1_000_000)
        with pytest.raises(OutcomeUnknown):
            write(short, batch(S, 1))
        cut.left = 0
        assert write(short, batch(S, 1)) == [recorder.position()] == [1]


@hostile
def test_killed_connections(recorder: Recorder, mariadb: MariaDB) -> None:
    """While connections are killed all the time, every append is there exactly once."""
    over = threading.Event()

    def kill() -> None:
        with mariadb.connect() as connection, connection.cursor() as cursor:
            while not over.wait(0.02):
                cursor.execute(
                    "SELECT id FROM information_schema.processlist WHERE db IS NOT NULL AND id <> CONNECTION_ID()"
                )
                for (one,) in cursor.fetchall():
                    with suppress(pymysql.Error):  # it is gone already
                        cursor.execute(f"KILL {one}")

    killing = threading.Thread(target=kill)
    killing.start()
    told: list[int] = []
    try:
        for n in range(1, 301):
            told += recorder.append((Batch(S, [(n, "t", b"%d" % n)]),), not_again)
    finally:
        over.set()
        killing.join()
    rows = recorder.select_stream(S)
    assert [row[0] for row in rows] == told == list(range(1, 301))
    assert [row[3] for row in rows] == [b"%d" % n for n in range(1, 301)]


def test_a_head_held_by_somebody_else(recorder: Recorder, mariadb_url: str) -> None:
    """A transaction that holds the head is waited for, and then it is said what was waited for."""
    rows = grow(recorder, S, 1)
    with opened(mariadb_url) as short, Pool(mariadb_url) as pool, pool.read() as other:
        short.appends.timeout_s = 0.5
        with short.pool.read() as connection:  # the one that it has
            run(connection, "SET innodb_lock_wait_timeout = 1")
        run(other, "START TRANSACTION")
        run(other, "SELECT position FROM turnlog_events_head FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="gave up.*Lock wait timeout"):
            write(short, batch(S, 1, before=rows))
        assert short.position() == 1
        other.rollback()
        assert write(short, batch(S, 1, before=rows)) == [2]


def test_a_deadlock_is_none_of_an_application_s_business(recorder: Recorder, mariadb_url: str) -> None:
    """Whoever of two is undone, the append is written in the end."""
    assert isinstance(recorder, MariaDBRecorder)
    rows = grow(recorder, S, 1)
    with Pool(mariadb_url) as pool, pool.read() as other:
        run(other, "START TRANSACTION")
        run(other, "INSERT INTO turnlog_keys VALUES (%s, 'message', 'k', 1, '', '')", (S,))
        told: list[int] = []
        appending = threading.Thread(
            target=lambda: told.extend(write(recorder, batch(S, 1, before=rows, keys=[key("k", 2)])))
        )
        appending.start()
        with suppress(pymysql.OperationalError):  # where it is this one that is undone
            for _ in range(300):
                sleep(0.2)  # the server tells of lock waits only where it was not asked for a tenth of a second
                if run(other, "SELECT 1 FROM information_schema.innodb_lock_waits").fetchall():
                    break
            run(other, "SELECT position FROM turnlog_events_head FOR UPDATE")
        other.rollback()
        appending.join()
    assert told == [2]
    assert [row[1] for row in recorder.select_stream(S)] == [1, 2]


def test_a_head_that_is_missing(recorder: Recorder, mariadb_url: str) -> None:
    """Without the row that says which position comes next nothing is written, and the damage is told."""
    rows = grow(recorder, S, 2)
    with Pool(mariadb_url) as pool, pool.write() as connection:
        run(connection, "DELETE FROM turnlog_events_head")
    for n in (1, 2):
        with pytest.raises(CorruptLog, match="head"):
            write(recorder, batch(S, n, before=rows))
    with pytest.raises(CorruptLog, match="head"):
        recorder.append((), one_more("anew"))
    with pytest.raises(CorruptLog, match="head"):
        recorder.position()
    assert recorder.select_stream(S) == rows


def test_an_application_s_engine_writes_as_well(mariadb_url: str) -> None:
    """Over connections that take one statement at a time, all of it works too."""
    from sqlalchemy import create_engine

    engine = create_engine(mariadb_url.replace("mariadb://", "mariadb+pymysql://"))
    recorder = connect("mariadb://", durability="full", engine=engine, options={}).recorder
    rows = grow(recorder, S, 2)
    assert write(recorder, batch(S, 1, before=rows, keys=[key("k", 3)]), batch(T, 2)) == [3, 5]
    recorder.append((batch(S, 1, before=rows),), one_more("anew"))
    write(recorder, tombstone(T, recorder.select_stream(T)))
    assert [row[0] for row in recorder.select_log(limit=99)] == list(range(1, 8))
    recorder.close()
    engine.dispose()
