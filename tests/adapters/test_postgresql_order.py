"""No reader in position order is overtaken on PostgreSQL: every committed event once, in order, whatever writers do.

``TURNLOG_ORDER_S=3`` runs all of it, each load for so many seconds. Without it only the undisturbed load runs: how the
others go depends on how a busy machine gives out its time.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from time import monotonic, sleep
from typing import Self

import psycopg
import pytest

from tests.conftest import ROOT
from tests.servers import PostgreSQL, binaries_or_skip, hostile
from turnlog.adapters.connect import connect
from turnlog.domain.errors import StoreUnavailable
from turnlog.domain.recorder import Recorder

SECONDS = float(os.environ.get("TURNLOG_ORDER_S", "3"))
WRITERS = 8
LONG_S = 60.0
Read = Callable[[int], list[int]]
"""Return the positions of the next events above this one."""
Disturbance = Callable[[PostgreSQL, str, threading.Event], None]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """A server that survives a crash: it syncs its files."""
    with PostgreSQL(binaries_or_skip(), {"max_prepared_transactions": "60"}) as started:
        yield started


def nothing(_: PostgreSQL, __: str, ___: threading.Event) -> None:
    """Leave the writers alone."""


def kills(_: PostgreSQL, url: str, over: threading.Event) -> None:
    """End a writer's connection every 50 ms."""
    statement = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND application_name = 'load' ORDER BY random() LIMIT 1"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        while not over.wait(0.05):
            connection.execute(statement)


def idle_elsewhere(server: PostgreSQL, url: str, over: threading.Event) -> None:
    """Keep transactions open that have written, but not to the log: in this database and in another one."""
    with psycopg.connect(server.url.replace("/postgres", "/template1")) as other, psycopg.connect(url) as here:
        other.execute("CREATE TABLE IF NOT EXISTS junk (i int)")
        here.execute("INSERT INTO other VALUES (1)")
        over.wait()
        other.rollback()


def crash(server: PostgreSQL, _: str, over: threading.Event) -> None:
    """End the server at once in the middle, and start it again."""
    over.wait(SECONDS / 2)
    server.crash()
    server.start()


@pytest.mark.parametrize("partitions", [1, 8])
@pytest.mark.parametrize(
    "disturbance", [nothing, *(pytest.param(d, marks=hostile) for d in (kills, idle_elsewhere, crash))]
)
def test_every_event_once_and_in_order(server: PostgreSQL, disturbance: Disturbance, partitions: int) -> None:
    """Eight processes that sleep before their commits, roll back, and worse: nothing is missed, repeated or late."""
    with _Run(server, disturbance, partitions) as run:
        seen, there = run.read(_settled(run.recorder))
    figures = _figures(seen, there)
    print(disturbance.__name__, partitions, figures)  # noqa: T201 - what a long run is for; -rP shows it
    assert len(there) > WRITERS
    assert (figures["missed"], figures["twice"], figures["late"]) == (0, 0, 0)
    assert seen == there


def _figures(seen: list[int], there: list[int]) -> dict[str, int]:
    return {
        "events": len(there),
        "holes": max(there, default=0) - len(there),
        "missed": len(set(there) - set(seen)),
        "twice": len(seen) - len(set(seen)),
        "late": sum(position <= before for before, position in pairwise(seen)),
        "never there": len(set(seen) - set(there)),
    }


@hostile
def test_the_test_can_fail(server: PostgreSQL) -> None:
    """A reader that believes what it sees misses events under the same load."""
    with _Run(server, nothing, 1) as run, psycopg.connect(run.url, autocommit=True) as connection:

        def believe(after: int) -> list[int]:
            select = "SELECT position FROM turnlog_events WHERE position > %s ORDER BY position LIMIT 500"
            return [row[0] for row in connection.execute(select, (after,)).fetchall()]

        seen, there = run.read(believe)
    assert len(set(there) - set(seen)) > len(there) / 20


def _settled(recorder: Recorder) -> Read:
    def read(after: int) -> list[int]:
        with suppress(StoreUnavailable):  # while the server is down
            if recorder.wait_for_news(after, 0.1):
                return [row[0] for row in recorder.select_log(after=after, limit=500)]
        return []

    return read


class _Run:
    """Writers, a disturbance, and a reader."""

    def __init__(self, server: PostgreSQL, disturbance: Disturbance, partitions: int) -> None:
        self.server = server
        self._options = {"timeout_s": 5.0, "partitions": partitions}
        self.url = server.new_place()
        self._disturbance = disturbance
        self._over = threading.Event()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        backend = connect(self.url, durability="full", engine=None, options=self._options)
        self.recorder = backend.recorder
        self._stack.callback(backend.views.close)
        self._stack.callback(self.recorder.close)
        with psycopg.connect(self.url) as connection:
            connection.execute("CREATE TABLE other (i int)")
        url = f"{self.url}&application_name=load"
        command = [sys.executable, "-m", "tests.adapters.postgresql_load", url]
        self.writers = [
            subprocess.Popen(
                [*command, f"w{i}", str(SECONDS)], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for i in range(WRITERS)
        ]
        self._stack.callback(self._end)
        assert all(writer.stdout is not None and writer.stdout.readline() == "ready\n" for writer in self.writers)
        return self

    def read(self, read: Read) -> tuple[list[int], list[int]]:
        """Let the writers write; return the positions that were read, and those that are there in the end."""
        for writer in self.writers:
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        seen: list[int] = []
        reading = threading.Thread(target=self._read_all, args=(read, seen))
        reading.start()
        self._disturbance(self.server, self.url, self._over)  # here: a server ends with the thread that started it
        reading.join(LONG_S + 2 * SECONDS)
        assert all(writer.returncode == 0 for writer in self.writers)
        return seen, self._there()

    def _read_all(self, read: Read, seen: list[int]) -> None:
        deadline = monotonic() + LONG_S + SECONDS
        while any(writer.poll() is None for writer in self.writers) and monotonic() < deadline:
            seen += read(seen[-1] if seen else 0)
        self._over.set()
        there = self._there()
        while len(seen) < len(there) and monotonic() < deadline and (more := self._more(read, seen)):
            seen += more

    def _more(self, read: Read, seen: list[int]) -> list[int]:
        """Look a few times more."""
        for _ in range(100):
            if more := read(seen[-1] if seen else 0):
                return more
            sleep(0.01)
        return []

    def _there(self) -> list[int]:
        with psycopg.connect(self.url) as connection:
            assert connection.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone() == (0,)
            rows = connection.execute("SELECT position FROM turnlog_events ORDER BY position").fetchall()
        return [row[0] for row in rows]

    def _end(self) -> None:
        self._over.set()
        for writer in self.writers:
            if writer.poll() is None:
                writer.kill()
            writer.communicate()

    def __exit__(self, *_: object) -> None:
        self._stack.close()
