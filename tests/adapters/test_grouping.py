"""Appends of several threads that share a transaction: each is whole, and has its own positions and its own error."""

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import turnlog
from turnlog.adapters.connect import connect
from turnlog.adapters.grouping import Grouping, Request, Take
from turnlog.adapters.sqlite import SQLiteRecorder
from turnlog.domain.errors import ConcurrencyConflict, SessionClosed, StoreUnavailable
from turnlog.domain.recorder import Batch
from turnlog.testing.contracts.rows import batch, grow, not_again

THREADS = 16
LONG_S = 60.0


class Watched:
    """A recorder, and how many appends its transactions had."""

    def __init__(self, recorder: SQLiteRecorder) -> None:
        self.recorder = recorder
        self.sizes: list[int] = []
        assert recorder.grouping is not None
        recorder.grouping = Grouping(self._write, recorder.database.timeout_s)
        self._together = recorder.together

    def _write(self, take: Take) -> None:
        def counted() -> list[Request]:
            requests = take()
            self.sizes.append(len(requests))
            return requests

        self._together(counted)

    @contextmanager
    def busy(self, statement: str = "SELECT 1") -> Generator[None, None, None]:
        """Have another thread write, until the end of the block; it sends a statement first."""
        begun, over = threading.Event(), threading.Event()

        def write() -> None:
            with self.recorder.database.write() as connection:
                connection.execute(statement)
                begun.set()
                over.wait()

        thread = threading.Thread(target=write)
        thread.start()
        assert begun.wait(LONG_S)
        try:
            yield
        finally:
            over.set()
            thread.join()

    def wait_for(self, n: int) -> None:
        """Wait until ``n`` appends are in the queue."""
        grouping = self.recorder.grouping
        assert grouping is not None
        while grouping.waiting < n:
            threading.Event().wait(0.001)


@pytest.fixture
def watched(sqlite_url: str) -> Iterator[Watched]:
    """A recorder on an empty log that syncs the disk."""
    backend = connect(sqlite_url, durability="full", engine=None, options={"timeout_s": 10.0})
    assert isinstance(backend.recorder, SQLiteRecorder)
    yield Watched(backend.recorder)
    backend.recorder.close()
    backend.views.close()


def at_once(watched: Watched, calls: Sequence[Callable[[], Any]], statement: str = "SELECT 1") -> list[Any]:
    """Make calls in threads of their own, all of which come together; return their results, or what they raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        with watched.busy(statement):
            jobs = [pool.submit(call) for call in calls]
            watched.wait_for(len(calls))
        return [job.exception() or job.result() for job in jobs]


def test_each_has_its_own_outcome(watched: Watched) -> None:
    """What fits is written, what does not is decided anew, what is refused concerns nobody else: in one transaction."""
    recorder = watched.recorder
    rows = {n: grow(recorder, f"t/{n}", 2) for n in range(THREADS)}

    def anew(n: int) -> Callable[[Any], Sequence[Batch]]:
        return lambda reader: (batch(f"t/{n}", 1, before=reader.select_stream(f"t/{n}"), words="anew"),)

    def refuse(_: object) -> Sequence[Batch]:
        raise LookupError("refused")

    def misjudge(_: object) -> Sequence[Batch]:
        return (batch("t/new", 1), batch("t/3", 1, before=rows[3][:1]))

    calls: list[Callable[[], Any]] = [
        lambda: recorder.append((batch("t/0", 1, before=rows[0]),), not_again),
        lambda: recorder.append((batch("t/1", 1, before=rows[1][:1]),), anew(1)),
        lambda: recorder.append((batch("t/4", 1), batch("t/2", 3, before=rows[2][:1])), refuse),
        lambda: recorder.append((), misjudge),
        lambda: recorder.append((), anew(5)),
        lambda: recorder.append((batch("t/6", 3, before=rows[6]), batch("t/7", 1, before=rows[7])), not_again),
    ]
    first, second, third, fourth, fifth, sixth = at_once(watched, calls)
    assert watched.sizes == [6]
    for (position,), n, words in ((first, 0, "said 3"), (second, 1, "anew 3"), (fifth, 5, "anew 3")):
        newest = recorder.select_stream(f"t/{n}")[-1]
        assert (newest[0], newest[1]) == (position, 3)
        assert words.encode() in newest[3]
    assert [recorder.select_stream(f"t/{n}")[-1][0] for n in (6, 7)] == sixth
    assert isinstance(third, LookupError)
    assert isinstance(fourth, ConcurrencyConflict)
    assert [len(recorder.select_stream(f"t/{n}")) for n in (2, 3, 4)] == [2, 2, 2]
    assert recorder.select_stream("t/new") == []


def test_what_the_storage_refuses_one(watched: Watched) -> None:
    """Where the disk has no room for one of them, the others are written all the same."""
    recorder = watched.recorder
    rows = grow(recorder, "t/large", 1)
    with recorder.database.alone() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 20}")
    large = batch("t/large", 1, before=rows, words="x" * 400_000)
    calls: list[Callable[[], Any]] = [
        lambda: recorder.append((batch("t/a", 1),), not_again),
        lambda: recorder.append((large,), not_again),
        lambda: recorder.append((batch("t/b", 1),), not_again),
    ]
    first, refused, last = at_once(watched, calls)
    assert isinstance(refused, StoreUnavailable)
    assert "full" in str(refused)
    assert [recorder.select_stream(stream)[-1][0] for stream in ("t/a", "t/b")] == [*first, *last]
    assert recorder.select_stream("t/large") == rows


def test_the_storage_cannot_be_written(watched: Watched) -> None:
    """Where nothing can be written, all of them hear of it, and none is written later."""
    recorder = watched.recorder
    grow(recorder, "t/s", 1)
    rows = recorder.select_stream("t/s")
    calls = [lambda n=n: recorder.append((batch(f"t/{n}", 1),), not_again) for n in range(4)]
    assert all(isinstance(error, StoreUnavailable) for error in at_once(watched, calls, "PRAGMA query_only=ON"))
    with recorder.database.alone() as connection:
        connection.execute("PRAGMA query_only=OFF")
    assert recorder.append((batch("t/s", 1, before=rows),), not_again) == [rows[-1][0] + 1]


def test_its_turn_does_not_come(sqlite_url: str) -> None:
    """Who has waited for too long is told so, and is not written afterwards."""
    backend = connect(sqlite_url, durability="full", engine=None, options={"timeout_s": 0.2})
    assert isinstance(backend.recorder, SQLiteRecorder)
    watched = Watched(backend.recorder)
    with watched.busy(), pytest.raises(StoreUnavailable, match="turn"):
        watched.recorder.append((batch("t/s", 1),), not_again)
    grow(watched.recorder, "t/other", 1)
    assert watched.recorder.select_stream("t/s") == []
    backend.recorder.close()


def test_interrupted_while_it_waits(watched: Watched) -> None:
    """Ctrl-C takes an append back that nobody has begun to write; it comes in the middle of the call."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with watched.busy(), ThreadPoolExecutor(1) as pool:
            pool.submit(watched.wait_for, 1).add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGALRM))
            with pytest.raises(KeyboardInterrupt):
                watched.recorder.append((batch("t/s", 1),), not_again)
    finally:
        signal.signal(signal.SIGALRM, before)
    grow(watched.recorder, "t/other", 1)
    assert watched.recorder.select_stream("t/s") == []


def test_closed_while_it_waits(watched: Watched, sqlite_url: str) -> None:
    """Of those who wait while a store is closed, each is written, or told that it is not."""
    with ThreadPoolExecutor(5) as pool:
        with watched.busy():
            jobs = [pool.submit(watched.recorder.append, (batch(f"t/{n}", 1),), not_again) for n in range(4)]
            watched.wait_for(4)
            closing = pool.submit(watched.recorder.close)
        closing.result()
        refused = [job.exception() for job in jobs]
    assert all(error is None or isinstance(error, StoreUnavailable) for error in refused), refused
    again = connect(sqlite_url, durability="full", engine=None, options={})
    assert [bool(again.recorder.select_stream(f"t/{n}")) for n in range(4)] == [error is None for error in refused]
    again.recorder.close()


def test_through_the_store(sqlite_url: str) -> None:
    """Many threads on their own sessions, on one for all and on a closed one: whoever is told so is in the log."""
    with turnlog.open(sqlite_url) as store:
        store.session("closed").complete()

        def talk(name: str) -> list[turnlog.Receipt]:
            own, shared = store.session(f"of {name}", user_id=name), store.session("shared")
            receipts: list[turnlog.Receipt] = []
            for n in range(20):
                receipts += [
                    own.add_message("user", f"{name} {n}"),
                    shared.add_message("user", f"{name} {n}", message_id=f"{name} {n}"),
                    shared.add_message("user", f"all {n}", message_id=f"all {n}"),
                ]
                with pytest.raises(SessionClosed):
                    store.get("closed").add_message("user", "too late")
                with pytest.raises(ConcurrencyConflict):
                    own.add_message("user", "unexpected", expected_version=1)
            return receipts

        with ThreadPoolExecutor(THREADS) as pool:
            receipts = [receipt for said in pool.map(talk, map(str, range(THREADS))) for receipt in said]
        events = {(event.session_id, event.version): event for event in store.events()}
        for receipt in receipts:
            assert receipt.version is not None
            event = events[receipt.session_id, receipt.version]
            assert (event.position, event.hash, event.event_id) == (receipt.position, receipt.hash, *receipt.event_ids)
        assert store.get("shared").state.message_count == 20 * THREADS + 20
        assert store.verify().ok
