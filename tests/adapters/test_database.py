"""One SQLite database: lending connections, its lock, its errors, and what a fork or a close does to it."""

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic

import pytest

from tests.faults.processes import PROCESSES
from turnlog.adapters.sqlite.database import Busy, Database
from turnlog.domain.errors import CorruptLog, StoreUnavailable

LONG_S = 60.0
"""How long a test waits for what must happen."""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The database file, in a directory whose name a URI would misread."""
    directory = tmp_path / "50% of it? #1 &ü"
    directory.mkdir()
    return str(directory / "log.db")


@pytest.fixture
def database(path: str) -> Iterator[Database]:
    """A database with one table ``t``."""
    opened = Database(path, timeout_s=0.2)
    with opened.write() as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")
    yield opened
    opened.close()


def count(database: Database) -> int:
    """Return the number of rows of ``t``."""
    with database.read() as connection:
        return int(connection.execute("SELECT count(*) FROM t").fetchone()[0])


def insert(database: Database) -> None:
    """Commit a row."""
    with database.write() as connection:
        connection.execute("INSERT INTO t VALUES (1)")


def claim(database: Database) -> bool:
    """Claim a name; return whether it was got."""
    with database.claim("a") as got:
        return got


def insert_many(database: Database, n: int) -> None:
    """Commit ``n`` rows, one by one."""
    for _ in range(n):
        insert(database)


def interrupted_insert(database: Database) -> None:
    """Write a row, and be interrupted before the end."""
    with database.write() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        raise KeyboardInterrupt


class TestLending:
    def test_is_where_it_was_asked_to_be(self, database: Database, path: str) -> None:
        """A path is a path, whatever characters it has."""
        insert(database)
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT n FROM t").fetchall() == [(1,)]

    def test_commits_at_the_end(self, database: Database) -> None:
        """What was written inside is there afterwards, for other connections and other databases."""
        insert(database)
        assert count(database) == 1
        assert database.path is not None
        with closing(Database(database.path)) as other:
            assert count(other) == 1

    def test_undoes_on_any_exception(self, database: Database) -> None:
        """What raises inside leaves nothing behind, and the database goes on working."""
        with pytest.raises(KeyboardInterrupt):
            interrupted_insert(database)
        assert count(database) == 0
        insert(database)
        assert count(database) == 1

    def test_a_read_that_was_left_open_is_ended(self, database: Database) -> None:
        """A borrower that leaves a transaction open does not keep the next one in the past."""
        with database.read() as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT * FROM t").fetchall()
        insert(database)
        assert count(database) == 1

    def test_readers_see_one_moment_while_others_write(self, database: Database) -> None:
        """A reader in a transaction does not see what is committed meanwhile, and does not hold the writer up."""
        with database.read() as connection:
            connection.execute("BEGIN")
            before = connection.execute("SELECT count(*) FROM t").fetchone()
            insert(database)
            assert connection.execute("SELECT count(*) FROM t").fetchone() == before

    def test_reads_within_a_read(self, database: Database) -> None:
        """Reads may nest: each has its own connection."""
        with database.read() as one, database.read() as two:
            assert one is not two

    @pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
    def test_durability_is_what_the_connection_does(self, tmp_path: Path, durability: str, level: int) -> None:
        """``full`` syncs at every commit, ``normal`` at checkpoints; deleted bytes are zeroed."""
        with closing(Database(str(tmp_path / "d.db"), durability=durability)) as database:
            assert database.durability == durability
            with database.write() as connection:
                found = [
                    connection.execute(f"PRAGMA {name}").fetchone()[0]
                    for name in ("synchronous", "journal_mode", "secure_delete")
                ]
        assert found == [level, "wal", 1]

    def test_memory_is_private(self) -> None:
        """Without a path there is one connection, shared by threads, and no durability."""
        with closing(Database(None)) as one, closing(Database(None)) as two:
            assert one.durability == "none"
            with one.write() as connection:
                connection.execute("CREATE TABLE t (n INTEGER)")
            thread = threading.Thread(target=insert, args=(one,))
            thread.start()
            thread.join(LONG_S)
            assert count(one) == 1
            with pytest.raises(CorruptLog, match="no such table"):
                count(two)


class TestLocking:
    def test_without_waiting_it_is_busy(self, database: Database) -> None:
        """Whoever does not want to wait is told so, by a thread or by another handle on the file."""
        assert database.path is not None
        with closing(Database(database.path)) as other, database.write():
            caught = _in_thread(lambda: database.write(wait=False).__enter__())
            assert isinstance(caught, Busy)
            with pytest.raises(Busy), other.write(wait=False):
                pass
        insert(database)

    def test_a_foreign_writer_is_busy_too(self, database: Database, path: str) -> None:
        """A program that holds SQLite's own lock is waited for ``timeout_s``, then named; afterwards all is well."""
        with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            with pytest.raises(Busy), database.write(wait=False):
                pass
            with pytest.raises(StoreUnavailable, match=r"held the database for 0\.2 s") as caught:
                insert(database)
            assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
            assert count(database) == 0
            foreign.execute("ROLLBACK")
        insert(database)
        assert count(database) == 1

    def test_two_handles_take_turns(self, database: Database, path: str) -> None:
        """Threads on two handles of one file lose nothing."""
        with closing(Database(path)) as one, closing(Database(path)) as other:
            threads = [threading.Thread(target=insert_many, args=(used, 25)) for used in (one, other, one, other)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(LONG_S)
        assert count(database) == 100

    def test_claims(self, database: Database) -> None:
        """A claim is held by one at a time, thread or handle, without waiting; other names are free."""
        assert database.path is not None
        for other in (database, Database(database.path)):
            with database.claim("a") as got, other.claim("a") as second, other.claim("b") as free:
                assert (got, second, free) == (True, False, True)
            with other.claim("a") as again:
                assert again
            if other is not database:
                other.close()

    def test_claims_in_memory(self) -> None:
        """So it is without a file."""
        with closing(Database(None)) as database:
            with database.claim("a") as got, database.claim("a") as second, database.claim("b") as free:
                assert (got, second, free) == (True, False, True)
            with database.claim("a") as again:
                assert again

    def test_read_only(self, database: Database, path: str) -> None:
        """Read-only refuses to write, reads what others commit, and creates nothing."""
        with closing(Database(path, read_only=True)) as only:
            insert(database)
            assert count(only) == 1
            with pytest.raises(StoreUnavailable, match="read-only"):
                insert(only)
        absent = Path(path).with_name("absent.db")
        with closing(Database(str(absent), read_only=True)) as only, pytest.raises(StoreUnavailable):
            count(only)
        assert not absent.exists()


class TestTurns:
    def test_a_holder_that_stands_still(self, database: Database, path: str) -> None:
        """Whoever waits for its turn gives up after ``timeout_s``; when the holder goes on, so do all others."""
        pipe, report = PROCESSES.Pipe()
        holder = PROCESSES.Process(target=hold, args=(path, report), daemon=True)
        holder.start()
        assert pipe.recv() == "held"
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGSTOP)
        for _ in range(3):
            began = monotonic()
            with pytest.raises(StoreUnavailable, match=r"its turn to write did not come for 0\.2 s"):
                insert(database)
            assert monotonic() - began < LONG_S / 4
            with pytest.raises(Busy):
                database.write(wait=False)
        assert count(database) == 0
        os.kill(holder.pid, signal.SIGCONT)
        pipe.send("go on")
        assert pipe.recv() == "done"
        with closing(Database(path)) as patient:
            insert(patient)  # who had given up did not keep the lock that came too late
            insert(database)
        holder.join(LONG_S)
        assert count(database) == 2

    def test_threads_give_up_together(self, database: Database, path: str) -> None:
        """Each of several threads counts the time from when it began to wait, not from when it is the first."""
        ends: list[BaseException] = []
        database.timeout_s = 1.0
        with closing(Database(path)) as other, other.alone():
            threads = [threading.Thread(target=insert_or_tell, args=(database, ends)) for _ in range(8)]
            began = monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(LONG_S)
            took_s = monotonic() - began
        assert [type(error) for error in ends] == [StoreUnavailable] * 8
        assert took_s < 1.0 * 7

    def test_it_comes_as_soon_as_the_holder_is_done(self, database: Database, path: str) -> None:
        """Who waits is let in when the lock is given back, and leaves no thread behind when he closes."""
        before = _queues()
        with closing(Database(path)) as other:
            with other.alone():
                patient = Database(path, timeout_s=LONG_S)
                thread = threading.Thread(target=insert, args=(patient,))
                thread.start()
                thread.join(0.1)
                assert thread.is_alive()
            thread.join(LONG_S)
            assert count(database) == 1
            insert(other)
            insert(patient)
            patient.close()
        assert not [one for one in _queues() - before if _lives(one)]


def hold(path: str, pipe: Connection) -> None:
    """Take the lock, and give it back when told to."""
    database = Database(path)
    with database.alone():
        pipe.send("held")
        pipe.recv()
    pipe.send("done")
    database.close()


def insert_or_tell(database: Database, ends: list[BaseException]) -> None:
    """Commit a row, or tell why not."""
    try:
        insert(database)
    except BaseException as error:  # noqa: BLE001 - judged by the test
        ends.append(error)


def _queues() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name == "turnlog-queue"}


def _lives(thread: threading.Thread) -> bool:
    thread.join(LONG_S)
    return thread.is_alive()


class TestErrors:
    def test_what_is_no_database_is_corrupt(self, tmp_path: Path) -> None:
        """Another file is not written over; it is called by its name."""
        file = tmp_path / "letter.txt"
        file.write_text("Dear Sir or Madam, " * 200)
        before = file.read_bytes()
        with closing(Database(str(file))) as database:
            with pytest.raises(CorruptLog, match="letter"):
                count(database)
            with pytest.raises(CorruptLog, match="letter"):
                insert(database)
        assert file.read_bytes() == before

    def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        """A path that cannot be opened is unavailable; nothing is created."""
        with closing(Database(str(tmp_path / "no" / "log.db"))) as database:
            with pytest.raises(StoreUnavailable, match="unable to open"):
                count(database)
            with pytest.raises(StoreUnavailable):
                insert(database)
        assert not (tmp_path / "no").exists()

    def test_lock_files_that_cannot_be_opened(self, path: str) -> None:
        """Where a lock or a claim cannot be had, the storage is not available; no error of the system's comes out."""
        Path(f"{path}.lock").mkdir()
        Path(f"{path}-a.claim").mkdir()
        with closing(Database(path)) as database:
            for use in (insert, claim):
                with pytest.raises(StoreUnavailable, match="Is a directory") as caught:
                    use(database)
                assert isinstance(caught.value.__cause__, OSError)

    def test_text_that_is_not_utf8(self, database: Database) -> None:
        """Text that cannot be decoded is damage, not a crash."""
        with database.write() as connection:
            connection.execute("INSERT INTO t VALUES (CAST(x'ff' AS TEXT))")
        with pytest.raises(CorruptLog, match="decode"), database.read() as connection:
            connection.execute("SELECT n FROM t").fetchall()

    def test_closed(self, database: Database) -> None:
        """A closed database says so; closing twice does nothing."""
        database.close()
        database.close()
        for use in (count, insert):
            with pytest.raises(StoreUnavailable, match="closed"):
                use(database)

    def test_closing_beside_readers(self, path: str) -> None:
        """Closing while threads read ends them with "closed" and nothing else."""
        for _ in range(10):
            database = Database(path)
            with database.write() as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER)")
            reading = [threading.Event() for _ in range(3)]
            ends: list[BaseException] = []
            threads = [threading.Thread(target=read_on, args=(database, at, ends), daemon=True) for at in reading]
            for thread in threads:
                thread.start()
            for started in reading:
                assert started.wait(LONG_S)
            database.close()
            for thread in threads:
                thread.join(LONG_S)
            assert [type(error) for error in ends] == [StoreUnavailable] * 3


def read_on(database: Database, started: threading.Event, ends: list[BaseException]) -> None:
    """Read until that raises, and tell what."""
    try:
        while True:
            count(database)
            started.set()
    except BaseException as error:  # noqa: BLE001 - judged by the test
        ends.append(error)


def _in_thread(call: object) -> object:
    """Return what a call raises in a thread of its own."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            assert callable(call)
            call()
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(LONG_S)
    return caught[0] if caught else None
