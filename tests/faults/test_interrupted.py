"""Ctrl-C at any instant: an application that catches it goes on, and so do all others."""

import fcntl
import os
import random
import signal
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

import pytest

import turnlog
from tests.faults.every_call import what_all_are_at
from tests.faults.processes import Victim, alone
from turnlog.adapters.sqlite.database import Busy, Database
from turnlog.domain.errors import StoreUnavailable

LONGEST_S = 0.006
"""The latest instant of an interruption, after a call that takes some 100 µs was begun."""
TIMES = 10
"""More interruptions than this there are, however long that takes."""
LONG_S = 60.0
"""How long a test waits for what must happen."""


class Interruptions:
    """Raises KeyboardInterrupt at a random instant, from a signal; in the main thread only."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - no secret
        self.is_due = False
        """Whether it is still to come: one only, however long it takes to tidy up after it."""
        signal.signal(signal.SIGALRM, self._raise)

    def _raise(self, *_: object) -> None:
        if self.is_due:
            self.is_due = False
            raise KeyboardInterrupt

    def __enter__(self) -> None:
        self.is_due = True
        signal.setitimer(signal.ITIMER_REAL, self._dice.uniform(1e-6, LONGEST_S))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.is_due = False
        signal.setitimer(signal.ITIMER_REAL, 0)


class Application:
    """Writes, lists and writes with an id, until it is interrupted; catches that, keeps it, and begins anew."""

    def __init__(self, path: str, seed: int) -> None:
        self.store = turnlog.open(f"sqlite:///{path}", timeout_s=LONG_S)
        self.session = self.store.session("s", user_id="u")
        self.acknowledged = 1
        self._interruptions = Interruptions(seed)
        self._said = 0
        self.store.sessions(limit=1)  # what is imported on first use; a module cut short is not turnlog's affair

    def interrupted(self) -> KeyboardInterrupt:
        """Go on until interrupted. The exception is returned: what its traceback refers to stays."""
        try:
            with self._interruptions:
                while self._interruptions.is_due:
                    self._say()
        except KeyboardInterrupt as error:
            return error
        return KeyboardInterrupt("where it was raised it was lost, as in a callback")

    def _say(self) -> None:
        self._said += 1
        key = None if self._said % 3 else f"{os.getpid()}/{self._said}"
        self.acknowledged = version_of(self.session.add_message("user", "hello", message_id=key))
        if self._said % 2 == 0:
            self.store.sessions(limit=1)


def version_of(receipt: turnlog.Receipt) -> int:
    """Return the version that was acknowledged."""
    assert receipt.version is not None
    return receipt.version


def interrupt(path: str, seed: int, seconds: float) -> int:
    """Interrupt an application again and again, and look after each time at what others then find."""
    application = Application(path, seed)
    lock = os.open(f"{path}.lock", os.O_RDWR)
    others = sqlite3.connect(path, timeout=0, isolation_level=None)
    stored = "SELECT max(originator_version) FROM turnlog_events"
    until = monotonic() + seconds
    times = 0
    while monotonic() < until or times <= TIMES:
        error = application.interrupted()
        times += 1
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        others.execute("BEGIN IMMEDIATE")
        assert others.execute(stored).fetchone()[0] >= application.acknowledged, times
        others.execute("ROLLBACK")
        fcntl.flock(lock, fcntl.LOCK_UN)
        del error
    others.close()
    application.store.close()
    return times


@pytest.mark.parametrize("seed", range(3))
def test_at_any_instant(tmp_path: Path, seed: int) -> None:
    """Whenever it comes, others can write at once, and find everything that was acknowledged."""
    path = f"{tmp_path}/log.db"
    assert alone(interrupt, path, seed, 5.0) > TIMES
    with turnlog.open(f"sqlite:///{path}") as store:
        assert store.verify().ok


def write_on(report: object, path: str) -> None:
    """Write without an end."""
    with turnlog.open(f"sqlite:///{path}", durability="normal") as store:
        session = store.session("other")
        getattr(report, "send")("writing")  # noqa: B009 - a Connection
        while True:
            session.add_message("user", "hello")


def interrupt_in_turn(path: str, seed: int, seconds: float) -> int:
    """Interrupt an application that has to wait for its turn; see after each time that it can still write."""
    application = Application(path, seed)
    until = monotonic() + seconds
    times = 0
    while monotonic() < until or times <= TIMES:
        error = application.interrupted()
        times += 1
        stored = application.store.get("s").version
        assert stored >= application.acknowledged
        application.acknowledged = version_of(application.session.add_message("user", "hello"))
        assert application.acknowledged == stored + 1
        del error
    application.store.close()
    return times


def test_while_waiting_for_its_turn(tmp_path: Path) -> None:
    """So it is where another process writes all the time: neither is kept out afterwards."""
    path = f"{tmp_path}/log.db"
    turnlog.open(f"sqlite:///{path}").close()
    other = Victim(write_on, path)
    assert other.first() == "writing"
    assert alone(interrupt_in_turn, path, 1, 5.0) > TIMES
    other.kill()
    with turnlog.open(f"sqlite:///{path}") as store:
        assert store.verify().ok


def interrupted_behind_a_foreign_writer(path: str) -> tuple[int, int]:
    """Be interrupted while SQLite waits; then append. Return the version told, and what others find."""
    with turnlog.open(f"sqlite:///{path}", timeout_s=60) as store:
        session = store.session("s")
        session.add_message("user", "hello")
        foreign = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        foreign.execute("BEGIN IMMEDIATE")

        def interrupt_and_end() -> None:
            while " in rebuild\n" not in what_all_are_at():
                sleep(0.01)
            sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)
            foreign.execute("ROLLBACK")

        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupting = threading.Thread(target=interrupt_and_end)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            store.rebuild("session_index")
        interrupting.join()
        version = version_of(session.add_message("user", "acknowledged"))
        foreign.execute("BEGIN IMMEDIATE")
        found = foreign.execute("SELECT count(*) FROM turnlog_events").fetchone()[0]
        foreign.close()
    return version, found


def test_while_a_foreign_writer_is_waited_for(tmp_path: Path) -> None:
    """Interrupted in the middle of ``BEGIN``, no transaction stays open that swallows what is acknowledged next."""
    assert alone(interrupted_behind_a_foreign_writer, f"{tmp_path}/log.db") == (3, 3)


# --- what an interruption leaves in a database ------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A database file with a table ``t``."""
    path = f"{tmp_path}/t.db"
    with closing(Database(path)) as database, database.write() as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")
    return path


def settings(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how a commit is synced (2: fully), and for how many ms SQLite waits."""
    found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "busy_timeout")]
    return found[0], found[1]


def of_a_write(database: Database) -> tuple[int, int]:
    """Return the settings of an ordinary write."""
    with database.write() as connection:
        return settings(connection)


def interrupt_write(database: Database) -> None:
    """Be interrupted in a write that is neither synced nor patient."""
    with database.write(synced=False, wait=False) as connection:
        assert settings(connection) == (1, 0)
        raise KeyboardInterrupt


def interrupt_broken_write(database: Database, *, synced: bool) -> None:
    """Be interrupted in a write whose connection is gone."""
    with database.write(synced=synced) as connection:
        connection.close()
        raise KeyboardInterrupt


def test_settings_are_those_of_each_write(path: str) -> None:
    """What was set for one write, interrupted or not, does not hold for the next: FULL stays FULL, waiting waiting."""
    with closing(Database(path, timeout_s=7)) as database:
        assert of_a_write(database) == (2, 7000)
        with pytest.raises(KeyboardInterrupt):
            interrupt_write(database)
        assert of_a_write(database) == (2, 7000)
        with database.write(synced=False):
            pass
        assert of_a_write(database) == (2, 7000)


def test_a_transaction_that_was_left_is_undone(path: str) -> None:
    """Whatever left a transaction open: the next write does not become a part of it."""
    with closing(Database(path)) as database, closing(sqlite3.connect(path)) as other:
        with database.alone() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO t VALUES (1)")
        with database.write() as connection:
            connection.execute("INSERT INTO t VALUES (2)")
        assert other.execute("SELECT n FROM t").fetchall() == [(2,)]


def test_tidying_up_hides_no_interruption(path: str) -> None:
    """Where not even a rollback is possible, what is raised is the interruption; a new connection takes over."""
    with closing(Database(path)) as database:
        for synced in (True, False):
            with pytest.raises(KeyboardInterrupt):
                interrupt_broken_write(database, synced=synced)
        assert of_a_write(database) == (2, 30_000)


def test_what_is_lent_and_dropped_is_given_back(path: str) -> None:
    """A loan that no ``with`` statement has ended, as one that was interrupted, is undone as it is dropped."""
    with closing(Database(path)) as database, closing(Database(path)) as other:
        lent = database.write()
        with pytest.raises(Busy):
            other.write(wait=False)
        del lent
        with other.write(wait=False) as connection:
            assert connection.execute("SELECT n FROM t").fetchall() == []


def test_writing_inside_writing(path: str) -> None:
    """A thread that writes in the middle of writing is told so, and waits neither for itself nor for ever."""
    with closing(Database(path)) as database, database.write() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(StoreUnavailable, match="in the middle of writing"):
            database.write()
        with pytest.raises(Busy):
            database.write(wait=False)
        assert connection.in_transaction
