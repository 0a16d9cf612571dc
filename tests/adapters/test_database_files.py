"""One SQLite database: its files, beside it and open; and what a fork or a close does to it."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.adapters import test_database
from tests.adapters.test_database import LONG_S, count, insert
from tests.conftest import ROOT
from tests.faults.processes import PROCESSES
from turnlog.adapters.sqlite.database import Busy, Database
from turnlog.adapters.sqlite.scratch import discard
from turnlog.domain.errors import StoreUnavailable

path, database = test_database.path, test_database.database


class TestFiles:
    def test_scratch_databases(self, database: Database, path: str) -> None:
        """A scratch database lies beside its owner and leaves nothing when it is discarded."""
        with closing(database.beside("scratch")) as scratch, scratch.write() as connection:
            connection.execute("CREATE TABLE t (n INTEGER)")
        beside = {file.name for file in Path(path).parent.iterdir()}
        assert "log.db-scratch" in beside
        discard(database, "scratch")
        left = {file.name for file in Path(path).parent.iterdir()}
        assert not {name for name in left if "scratch" in name}

    def test_a_link_is_as_good_as_the_file(self, database: Database, path: str, tmp_path: Path) -> None:
        """Through a link it is the same database: one lock, the same claims, one place for scratch databases."""
        link = tmp_path / "link.db"
        link.symlink_to(path)
        with closing(Database(str(link))) as other:
            assert (other.name, other.path) == (str(link), database.path)
            with database.write(), pytest.raises(Busy):
                other.write(wait=False)
            with database.claim("a"), other.claim("a") as got:
                assert not got
            with closing(other.beside("scratch")) as scratch, scratch.write():
                pass
            discard(database, "scratch")
        assert {file.name for file in tmp_path.iterdir()} == {"link.db", Path(path).parent.name}
        assert not [file for file in Path(path).parent.iterdir() if "scratch" in file.name]

    def test_a_path_stays_where_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative path is of the directory that was the current one when it was opened, for every connection."""
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        with closing(Database("t.db")) as database:
            with database.write() as connection:
                connection.execute("CREATE TABLE t (n INTEGER)")
            monkeypatch.chdir("elsewhere")
            with database.read() as one, closing(database.beside("scratch")) as scratch:
                assert count(database) == 0
                assert one.execute("SELECT count(*) FROM t").fetchone() == (0,)
                with scratch.write():
                    pass
        assert list(Path().iterdir()) == []

    def test_the_last_to_close_leaves_one_file(self, database: Database, path: str) -> None:
        """Closed, the log is in one file again, which holds everything; the lock file may stay."""
        insert(database)
        count(database)
        assert Path(f"{path}-wal").exists()
        database.close()
        assert {file.name for file in Path(path).parent.iterdir()} == {"log.db", "log.db.lock"}
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT n FROM t").fetchall() == [(1,)]

    def test_forgotten_is_closed(self, path: str) -> None:
        """A database that nobody refers to any more has closed its files."""
        database = Database(path)
        with database.write() as connection:
            connection.execute("CREATE TABLE t (n INTEGER)")
        count(database)
        opened = _open_files(path)
        del database, connection
        assert opened
        assert not _open_files(path)


ENDING = """
import atexit, sys, threading
atexit.register(lambda: write(1))  # before the end of databases is provided for, and so called after it
from turnlog.adapters.sqlite.database import Database
database = Database(sys.argv[1] or None)
with database.write() as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER)")
begun = threading.Event()

def write(n):
    with database.write() as connection:
        connection.executemany("INSERT INTO t VALUES (?)", [(1,)] * n)

def keep_writing():
    while True:
        write(1_000)
        begun.set()

threading.Thread(target=keep_writing, daemon=True).start()
begun.wait()
"""


@pytest.mark.parametrize("kept", [True, False], ids=["file", "memory"])
def test_a_process_that_ends_while_a_thread_writes(tmp_path: Path, kept: bool) -> None:
    """It ends without a crash, and what it does then is written; what the thread was writing is there whole or not."""
    path = str(tmp_path / "log.db") if kept else ""
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", ENDING, path], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
    if kept:
        with closing(Database(path)) as database:
            assert count(database) % 1_000 == 5


def read_at_rest(pipe: Connection, path: str) -> None:
    """As somebody who may not write there, read what nobody has open; tell what is found."""
    send, wait = pipe.send, pipe.recv
    if os.getuid() == 0:
        os.setuid(65534)
    with closing(Database(path, read_only=True)) as only:
        send((count(only), os.access(Path(path).parent, os.W_OK)))
        wait()
        try:
            with only.read() as connection:
                connection.execute("SELECT * FROM t").fetchall()
                send("reading")
                wait()
        except StoreUnavailable as error:
            send(str(error))
        send(count(only))
        wait()
    with closing(Database(path, read_only=True)) as only:
        send(count(only))


def test_what_nobody_has_open_is_read_in_a_directory_that_is_not_ours() -> None:
    """Where SQLite can make no lock it is read without, and never taken for unchanged when it was written meanwhile."""
    with TemporaryDirectory() as directory:
        path = f"{directory}/t.db"
        with closing(Database(path)) as database, database.write() as connection:
            connection.execute("CREATE TABLE t (n INTEGER)")
        Path(directory).chmod(0o555)
        pipe, theirs = PROCESSES.Pipe()
        reader = PROCESSES.Process(target=read_at_rest, args=(theirs, path), daemon=True)
        reader.start()
        assert pipe.recv() == (0, False)
        pipe.send("go on")
        assert pipe.recv() == "reading"
        Path(directory).chmod(0o755)
        with closing(Database(path)) as database:
            insert(database)
            pipe.send("written")
            assert "was written while it was read" in pipe.recv()
            assert pipe.recv() == 1
            pipe.send("go on")
            assert pipe.recv() == 1
        reader.join(LONG_S)


FORKING = """
import os, sys
from turnlog.adapters.sqlite.database import Database

def count(database):
    with database.read() as connection:
        return connection.execute("SELECT count(*) FROM t").fetchone()[0]

def insert(database):
    with database.write() as connection:
        connection.execute("INSERT INTO t VALUES (1)")

database = Database(sys.argv[1])
with database.write() as connection:
    connection.execute("CREATE TABLE t (n INTEGER)")
insert(database)
assert count(database) == 1
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        insert(database)
        assert count(database) >= 2
        database.close()
        sys.exit(0)
    insert(database)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
insert(database)
assert count(database) == 8, count(database)
with database.read() as connection:
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
database.close()
"""


def test_a_fork_shares_nothing(tmp_path: Path) -> None:
    """Children of a process with an open database write, read, close and exit; the parent's goes on unharmed."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING, str(tmp_path / "log.db")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stderr) == (0, "")


def _open_files(path: str) -> list[str]:
    """Return which of this process's open files begin with ``path``."""
    found: list[str] = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith(path):
            found.append(target)
    return found
