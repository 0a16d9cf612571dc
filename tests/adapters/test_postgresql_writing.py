"""Writing to PostgreSQL under difficulties: races, connections cut around the commit, many processes that start."""

import random
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import turnlog
from tests.faults.processes import together
from turnlog.adapters import contended
from turnlog.adapters.connect import connect
from turnlog.adapters.postgresql import PostgreSQLRecorder, tables
from turnlog.adapters.postgresql.connection import Connection
from turnlog.adapters.postgresql.statement import Statement
from turnlog.domain.errors import ConcurrencyConflict, OutcomeUnknown, StoreError, StoreUnavailable
from turnlog.domain.recorder import Batch, Reader, Recorder
from turnlog.testing.contracts.rows import batch, grow, key, not_again, tombstone, write

S, T = "default/s", "default/t"
LONG_S = 60.0


@pytest.fixture
def recorder(postgresql_url: str) -> Iterator[Recorder]:
    """A recorder on an empty log."""
    backend = connect(postgresql_url, durability="full", engine=None, options={"timeout_s": LONG_S})
    yield backend.recorder
    backend.recorder.close()
    backend.views.close()


@contextmanager
def impatient(url: str) -> Generator[PostgreSQLRecorder, None, None]:
    """Lend a recorder that waits 0.2 s for a lock, on the one connection that it has, but long for the server."""
    backend = connect(url, durability="full", engine=None, options={"timeout_s": LONG_S})
    assert isinstance(backend.recorder, PostgreSQLRecorder)
    with backend.recorder.pool.read() as connection:
        connection.execute("SET lock_timeout = 200")
    yield backend.recorder
    backend.recorder.close()
    backend.views.close()


def one_more(name: str, stream: str = S) -> "_Next":
    """Return what decides on one more event of a stream."""
    return _Next(name, stream)


class _Next:
    def __init__(self, name: str, stream: str) -> None:
        self._name, self._stream = name, stream

    def __call__(self, reader: Reader) -> Sequence[Batch]:
        rows = reader.select_stream(self._stream, desc=True, limit=1)
        return (Batch(self._stream, [(rows[0][1] + 1 if rows else 1, self._name, b"{}")]),)


def append_many(url: str, name: str, n: int) -> int:
    """Append ``n`` events to one stream, each of them contested."""
    backend = connect(url, durability="full", engine=None, options={"timeout_s": 300.0})
    for _ in range(n):
        backend.recorder.append((), one_more(name))
    backend.recorder.close()
    return n


def test_sixteen_writers_of_one_session(recorder: Recorder, postgresql_url: str) -> None:
    """All of sixteen processes come through, and nothing is lost."""
    together(append_many, *((postgresql_url, str(i), 20) for i in range(16)))
    rows = recorder.select_stream(S)
    assert [row[1] for row in rows] == list(range(1, 321))
    assert {topic: sum(row[2] == topic for row in rows) for topic in {row[2] for row in rows}} == {
        str(i): 20 for i in range(16)
    }
    assert [row[0] for row in recorder.select_log(limit=999)] == [row[0] for row in rows]


def open_and_write(url: str, name: str) -> int | None:
    """Open a store that may not be there yet, and write to it."""
    with turnlog.open(url) as store:
        return store.session(name).add_message("user", "hello").version


def test_many_processes_start_at_once(postgresql_url: str) -> None:
    """Whoever comes first makes the tables; nobody fails."""
    assert together(open_and_write, *((postgresql_url, f"s{i}") for i in range(8))) == [2] * 8


def test_a_newer_schema_is_refused(recorder: Recorder, postgresql_url: str) -> None:
    """Tables of a newer turnlog are left alone, and the error says so."""
    assert recorder.position() == 0
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("UPDATE turnlog_tracking SET notification_id = notification_id + 1")
    with pytest.raises(StoreError, match="schema 2, this turnlog knows 1"):
        turnlog.open(postgresql_url)


def test_tables_that_are_missing_are_not_made_by_readers(postgresql_url: str) -> None:
    """Opened read-only, an empty schema is an error."""
    with pytest.raises(StoreError, match="no tables"):
        turnlog.open(postgresql_url, read_only=True)


def test_a_new_migration_runs_once(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an upgrade adds is added to tables that are there, by whoever opens them first."""
    turnlog.open(postgresql_url).close()
    added = ("ALTER TABLE {events} ADD COLUMN extra int",)
    monkeypatch.setattr(tables, "MIGRATIONS", (*tables.MIGRATIONS, added))
    for _ in range(2):
        turnlog.open(postgresql_url).close()


class Cut:
    """Cuts the connection of the next statement that begins with some words: before it is sent, or after its answer.

    At the end of the block it must have.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        words: str,
        *,
        after: bool,
        times: int = 1,
        then: Callable[[], object] = lambda: None,
        noticed: bool = True,
    ) -> None:
        self._monkeypatch = monkeypatch
        self._words = words
        self._after = after
        self._left = self._times = times
        self._then = then
        self._noticed = noticed

    def __enter__(self) -> None:
        by_psycopg: Any = psycopg.Connection.execute
        by_hand = Statement.run

        def execute(connection: Connection, query: str, *arguments: Any, **options: Any) -> object:
            return self._cut(connection, str(query), lambda: by_psycopg(connection, query, *arguments, **options))

        def run(statement: Statement, connection: Connection, parameters: Sequence[bytes]) -> object:
            return self._cut(connection, statement.text, lambda: by_hand(statement, connection, parameters))

        self._monkeypatch.setattr(psycopg.Connection, "execute", execute)
        self._monkeypatch.setattr(Statement, "run", run)

    def __exit__(self, *_: object) -> None:
        assert self._left < self._times, f"nothing that begins with {self._words} was sent"
        self._left = 0

    def _cut(self, connection: Connection, text: str, send: Callable[[], object]) -> object:
        if not self._left or not text.startswith(self._words):
            return send()
        self._left -= 1
        if self._after:
            send()
        if self._noticed:
            connection.close()
        self._then()
        raise psycopg.OperationalError("cut")


@pytest.mark.parametrize("after", [False, True])
class TestCut:
    """A connection that is cut before a commit, or after it and before the answer."""

    def test_a_plain_append(self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        """It is written once, and its position is known."""
        rows = grow(recorder, S, 1)
        with Cut(monkeypatch, "INSERT", after=after):
            (position,) = write(recorder, batch(S, 1, before=rows))
        assert [row[1] for row in recorder.select_stream(S)] == [1, 2]
        assert recorder.select_stream(S)[-1][0] == position

    def test_with_keys(self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        """So is one with keys, and one of keys alone."""
        with Cut(monkeypatch, "WITH", after=after):
            write(recorder, batch(S, 2, keys=[key("k", 1)]), batch(T, 3))
        assert [len(recorder.select_stream(stream)) for stream in (S, T)] == [2, 3]
        with Cut(monkeypatch, "WITH", after=after):
            assert write(recorder, Batch(S, (), [key("l", 2)])) == [0]
        assert len(recorder.select_all_keys(S)) == 2

    def test_decided_anew(self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        """So is one that was decided inside a transaction."""
        grow(recorder, S, 1)
        with Cut(monkeypatch, "COMMIT", after=after):
            (position,) = recorder.append((), one_more("again"))
        assert [row[1] for row in recorder.select_stream(S)] == [1, 2]
        assert recorder.select_stream(S)[-1][0] == position

    def test_an_erasure(self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        """So is an erasure."""
        rows = grow(recorder, S, 3)
        with Cut(monkeypatch, "COMMIT", after=after):
            (position,) = write(recorder, tombstone(S, rows))
        assert len(recorder.select_stream(S)) == 4
        assert recorder.select_stream(S)[-1][0] == position

    def test_overtaken_meanwhile(self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
        """What was not written, and has lost its place since, is decided anew; what was written is found."""
        rows = grow(recorder, S, 1)
        with Cut(monkeypatch, "INSERT", after=after, then=lambda: recorder.append((), one_more("other"))):
            recorder.append((batch(S, 1, before=rows),), not_again if after else one_more("anew"))
        topics = [row[2] for row in recorder.select_stream(S)]
        assert topics[1:] == (["MessageAdded.v1", "other"] if after else ["other", "anew"])


def test_a_cut_that_the_driver_did_not_notice(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not the server's is one of the connection, although the driver may take that for open."""
    rows = grow(recorder, S, 1)
    with Cut(monkeypatch, "INSERT", after=True, noticed=False):
        (position,) = write(recorder, batch(S, 1, before=rows))
    assert recorder.select_stream(S)[-1][0] == position


def test_cut_while_it_is_looked_whether_it_happened(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look is taken again."""
    rows = grow(recorder, S, 1)
    look = Cut(monkeypatch, "SELECT position", after=False, times=2)
    with Cut(monkeypatch, "INSERT", after=True, then=look.__enter__):
        (position,) = write(recorder, batch(S, 1, before=rows))
    assert recorder.select_stream(S)[-1][0] == position


def test_cut_for_good(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every further try is cut too, nobody can know, and that is what is said."""
    assert isinstance(recorder, PostgreSQLRecorder)
    recorder.appends.timeout_s = 0.5
    with Cut(monkeypatch, "INSERT", after=False, times=1_000_000), pytest.raises(OutcomeUnknown):
        write(recorder, batch(S, 1))


def test_killed_backends(recorder: Recorder, postgresql_url: str) -> None:
    """While connections are killed all the time, every append is there exactly once, and its position is known."""
    told: list[int] = []
    over = threading.Event()

    def kill() -> None:
        """Kill all after one to three more appends, and a moment: a busy machine needs time to connect."""
        statement = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND application_name = 'victim'"
        )
        dice = random.Random(1)  # noqa: S311 - no secret
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            while not over.is_set():
                enough = len(told) + dice.randint(1, 3)
                while len(told) < enough and not over.wait(dice.uniform(0, 0.002)):
                    pass
                connection.execute(statement)

    victim = connect(
        postgresql_url + "&application_name=victim", durability="full", engine=None, options={"timeout_s": 30.0}
    )
    killing = threading.Thread(target=kill)
    killing.start()
    try:
        for n in range(1, 151):
            told += victim.recorder.append((Batch(S, [(n, "t", b"%d" % n)]),), not_again)
    finally:
        over.set()
        killing.join()
        victim.recorder.close()
        victim.views.close()
    rows = recorder.select_stream(S)
    assert [row[0] for row in rows] == told
    assert [row[3] for row in rows] == [b"%d" % n for n in range(1, 151)]


def test_a_row_held_by_somebody_else(recorder: Recorder, postgresql_url: str) -> None:
    """A version that an open transaction has taken is waited for, and then it is said what was waited for."""
    rows = grow(recorder, S, 1)
    with impatient(postgresql_url) as short, psycopg.connect(postgresql_url) as connection:
        connection.execute(
            "INSERT INTO turnlog_events (originator_id, originator_version, topic, state) VALUES (%s, 2, 't', '')", (S,)
        )
        with pytest.raises(StoreUnavailable, match="held a lock"):
            write(short, batch(S, 1, before=rows))
        connection.rollback()
        write(short, batch(S, 1, before=rows))


def test_who_lost_a_race_queues_for_the_stream(
    recorder: Recorder, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a while its appends to that stream hold it from the start: who won does not win for ever. Others do not."""
    monkeypatch.setattr(contended, "CONTENDED_S", LONG_S)
    rows = grow(recorder, S, 1)
    with impatient(postgresql_url) as loser, psycopg.connect(postgresql_url, autocommit=True) as connection:
        hold = "SELECT pg_advisory_lock(%s)", (tables.lock_key(loser.events_table, S),)
        loser.append((batch(S, 1, before=rows),), not_again)
        connection.execute(*hold)
        loser.append((batch(S, 1, before=loser.select_stream(S)),), not_again)
        connection.execute("SELECT pg_advisory_unlock_all()")
        loser.append((batch(S, 1, before=rows),), one_more("lost"))
        connection.execute(*hold)
        loser.append((batch(T, 1),), not_again)
        with pytest.raises(StoreUnavailable, match="held a lock"):
            loser.append((Batch(S, [(5, "in the queue", b"{}")]),), not_again)
        connection.execute("SELECT pg_advisory_unlock_all()")
        loser.append((Batch(S, [(5, "in the queue", b"{}")]),), not_again)
    assert [row[2] for row in recorder.select_stream(S)][3:] == ["lost", "in the queue"]


def test_losing_all_the_time(recorder: Recorder, postgresql_url: str) -> None:
    """Who is overtaken until the deadline is told of a conflict."""

    def again(reader: Reader) -> Sequence[Batch]:
        found = one_more("loser")(reader)
        grow(recorder, S, 1)
        return found

    with impatient(postgresql_url) as short:
        short.appends.timeout_s = 0.2
        with pytest.raises(ConcurrencyConflict, match="other writers were first"):
            short.append((), again)
