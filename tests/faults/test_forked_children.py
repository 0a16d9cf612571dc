"""``os.fork()`` with an open store: children write and read, and nobody loses anything or hangs."""

import os
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

import pytest

import turnlog
from tests.faults.conftest import THOROUGH
from tests.faults.processes import Victim, alone
from turnlog.adapters.sqlite import database as databases
from turnlog.adapters.sqlite.database import Database
from turnlog.domain.errors import StoreUnavailable

LONG_S = 60.0
"""How long a child may take."""
FORKS = 40 * THOROUGH
"""So many children are made beside busy threads: what goes wrong, goes wrong at a few instants only."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store that does not exist yet."""
    return f"sqlite:///{tmp_path}/sessions.db"


def forked(work: Callable[[], object]) -> int:
    """Do ``work`` in a forked child; return its process id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the child of a test must not go on as the test
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def ended(child: int) -> int | str:
    """Wait for a child; return its exit status, or say that it hangs."""
    deadline = monotonic() + LONG_S
    while monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "it hangs"


def parent_closes_first(url: str) -> int | str:
    """Have a child write before and after its parent has closed the store."""
    closed_out, closed_in = os.pipe()
    said_out, said_in = os.pipe()
    store = turnlog.open(url)
    store.session("s").add_message("user", "of the parent")

    def write() -> None:
        session = store.get("s")
        session.add_message("user", "of the child")
        os.write(said_in, b"x")
        os.read(closed_out, 1)
        for _ in range(10):
            session.add_message("user", "of the child")

    child = forked(write)
    os.read(said_out, 1)
    store.close()
    os.write(closed_in, b"x")
    return ended(child)


def test_the_parent_closes_first(url: str) -> None:
    """What a child is acknowledged after its parent has closed the store is there: the parent deletes no log in use."""
    assert alone(parent_closes_first, url) == 0
    with turnlog.open(url) as store:
        assert store.get("s").version == 2 + 1 + 10
        assert store.verify().ok


def fork_beside_threads(url: str, reading: bool) -> list[int | str]:
    """Fork again and again while other threads append, or wait for news; each child appends."""
    with turnlog.open(url, durability="normal", timeout_s=10) as store:
        store.session("s")
        done = threading.Event()

        def append() -> None:
            session = store.get("s")
            while not done.is_set():
                session.add_message("user", "of a thread")

        def follow() -> None:
            for _ in store.subscribe():
                pass

        threads = [threading.Thread(target=follow if reading else append, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        results: list[int | str] = []
        for _ in range(FORKS):
            results.append(ended(forked(lambda: store.get("s").add_message("user", "of a child"))))
            sleep(0.001)
        done.set()
        if not reading:
            for thread in threads:
                thread.join(LONG_S)
    return results


@pytest.mark.parametrize("reading", [False, True])
def test_forked_beside_busy_threads(url: str, reading: bool) -> None:
    """Children write, whatever other threads of their parent were doing when they were made."""
    assert alone(fork_beside_threads, url, reading) == [0] * FORKS
    with turnlog.open(url) as store:
        said = [message.content for message in store.get("s").history()]
        assert said.count("of a child") == FORKS
        assert store.verify().ok


def hold_with_a_child(report: object, path: str) -> None:
    """Fork a child that does nothing, then take the writers' lock and a claim, and keep them."""
    database = Database(path)
    with database.write() as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")
    with database.claim("early"):
        child = forked(lambda: sleep(LONG_S))
        with database.alone(), database.claim("late"):
            getattr(report, "send")(child)  # noqa: B009 - a Connection
            threading.Event().wait()


def test_a_killed_holder_with_a_child(tmp_path: Path) -> None:
    """Locks and claims of a process that was killed are free, though children that it had forked live on."""
    path = f"{tmp_path}/t.db"
    holder = Victim(hold_with_a_child, path)
    child = holder.first()
    holder.kill()
    with closing(Database(path, timeout_s=5)) as database:
        with database.write() as connection:
            connection.execute("INSERT INTO t VALUES (1)")
        with database.claim("early") as early, database.claim("late") as late:
            assert (early, late) == (True, True)
    os.kill(child, signal.SIGKILL)


def claim_across_forks(path: str) -> list[bool]:
    """Hold a claim while a child is made and ends, and let go of it while another lives; return who got it when."""
    got: list[bool] = []
    with closing(Database(path)) as database, closing(Database(path)) as other:
        with database.claim("a") as first:
            got.append(first)
            ended(forked(lambda: None))
            with other.claim("a") as second:
                got.append(second)
            child = forked(lambda: sleep(LONG_S))
        with other.claim("a") as third:
            got.append(third)
        os.kill(child, signal.SIGKILL)
    return got


def test_a_claim_is_its_process_own(tmp_path: Path) -> None:
    """A child that ends does not give up its parent's claim, and one that lives does not keep it."""
    assert alone(claim_across_forks, f"{tmp_path}/t.db") == [True, False, True]


def unwind_in_a_child(path: str) -> list[int | str | bool]:
    """Fork inside a claim and have the child leave it too; return how it ended, and whether the claim is held still."""
    with closing(Database(path)) as database, closing(Database(path)) as other:
        claim = database.claim("a")
        assert claim.__enter__()
        status = ended(forked(lambda: claim.__exit__(None, None, None)))
        with other.claim("a") as got:
            return [status, got]


def test_a_child_that_leaves_its_parents_claim(tmp_path: Path) -> None:
    """A child that goes on from where its parent held a claim does not give it back for him."""
    assert alone(unwind_in_a_child, f"{tmp_path}/t.db") == [0, False]


def fork_in_the_middle(path: str, doing: str) -> list[int | str]:
    """Fork in the middle of reading or writing; the child uses the database, and opens it anew."""
    databases.FORK_WAIT_S = 0.1
    database = Database(path)
    with database.write() as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")

    def use(used: Database) -> None:
        with pytest.raises(StoreUnavailable, match="forked while"), used.read():
            pass
        with pytest.raises(StoreUnavailable, match="forked while"):
            used.write()

    def work() -> None:
        use(database)
        use(Database(path))

    with database.read() if doing == "reading" else database.write() as connection:
        connection.execute("SELECT * FROM t").fetchall()
        status = ended(forked(work))
    with database.write() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    with database.read() as connection:
        return [status, connection.execute("SELECT count(*) FROM t").fetchone()[0]]


@pytest.mark.parametrize("doing", ["reading", "writing"])
def test_forked_in_the_middle(tmp_path: Path, doing: str) -> None:
    """A child made in the middle of it is refused the file, which it could only harm; its parent goes on."""
    assert alone(fork_in_the_middle, f"{tmp_path}/t.db", doing) == [0, 1]


def fork_memory() -> int | str:
    """Fork with a store in memory; the child reads, lists and writes its own copy."""
    with turnlog.open("memory://") as store:
        store.session("s", user_id="u").add_message("user", "before")

        def work() -> None:
            session = store.get("s")
            session.add_message("user", "of the child")
            assert [message.content for message in session.history()] == ["before", "of the child"]
            assert [item.message_count for item in store.sessions(user_id="u").items] == [2]
            assert store.verify().ok

        status = ended(forked(work))
        assert [item.message_count for item in store.sessions(user_id="u").items] == [1]
        return status


def test_memory_is_copied() -> None:
    """A child has its own copy of a store in memory, its views included."""
    assert alone(fork_memory) == 0
