"""Order on MariaDB: what a reader follows while others write slowly, roll back, are killed, and the server crashes.

``TURNLOG_ORDER_S=60`` lets the writers write for so many seconds.
"""

import os
import random
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from time import monotonic, sleep

from tests.faults.processes import Victim, together
from tests.servers import MariaDB, mariadbd_or_skip
from turnlog.adapters.connect import connect
from turnlog.adapters.mariadb import MariaDBRecorder
from turnlog.domain.errors import StoreError
from turnlog.domain.recorder import Batch, Reader, Recorder
from turnlog.testing.contracts.rows import not_again

SECONDS = float(os.environ.get("TURNLOG_ORDER_S", "2"))
WRITERS = 8


def opened(url: str) -> MariaDBRecorder:
    """Return a recorder."""
    recorder = connect(url, durability="full", engine=None, options={"timeout_s": 60.0}).recorder
    assert isinstance(recorder, MariaDBRecorder)
    return recorder


class Writer:
    """Writes to a stream of its own and to one that all share."""

    def __init__(self, url: str, name: str) -> None:
        self.recorder = opened(url)
        self.name = name
        self.version = 0
        self.random = random.Random(name)  # noqa: S311 - not a secret

    def write(self) -> int:
        """Append in one way or another; return how many events were committed."""
        how = self.random.random()
        if how < 0.4:
            self.recorder.append((), self.decide)
            return 1
        n = self.random.randint(1, 3)
        rows = [(self.version + i, "t", b"x" * 200) for i in range(1, n + 1)]
        if how < 0.7:
            self.recorder.append((Batch(f"load/{self.name}", rows),), not_again)
            self.version += n
            return n
        with suppress(RolledBack), self.recorder.pool.transaction() as connection:
            self.nap()
            last = self.recorder.head.hold(connection)
            self.recorder.head.insert(connection, last, [(f"load/{self.name}", *row) for row in rows])
            self.nap()
            if how > 0.85:
                raise RolledBack
            self.version += n
            return n
        return 0

    def decide(self, reader: Reader) -> Sequence[Batch]:
        """Decide on one more event of the shared stream, slowly."""
        rows = reader.select_stream("load/shared", desc=True, limit=1)
        self.nap()
        return (Batch("load/shared", [(rows[0][1] + 1 if rows else 1, "t", b"{}")]),)

    def nap(self) -> None:
        """Sleep for a time by chance."""
        sleep(self.random.random() * 0.01)


class RolledBack(Exception):
    """Thrown to end a transaction without a commit."""


def write_for(url: str, name: str, seconds: float) -> int:
    """Write for some time, and once at least; return how many events were committed."""
    writer = Writer(url, name)
    deadline = monotonic() + seconds
    n = 0
    while n == 0 or monotonic() < deadline:
        n += writer.write()
    writer.recorder.close()
    return n


def test_a_reader_gets_each_event_once_and_in_order(mariadb_url: str) -> None:
    """While eight processes write, some slowly, some in vain, one who follows misses nothing and is never overtaken."""
    reader = opened(mariadb_url)
    over = threading.Event()
    seen: list[int] = []

    def follow() -> None:
        while not over.is_set() or reader.position() > len(seen):
            reader.wait_for_news(seen[-1] if seen else 0, 0.1)
            seen.extend(row[0] for row in reader.select_log(after=seen[-1] if seen else 0, limit=50))

    following = threading.Thread(target=follow)
    following.start()
    written = together(write_for, *((mariadb_url, f"w{i}", SECONDS) for i in range(WRITERS)))
    over.set()
    following.join()
    assert min(written) > 0
    assert seen == list(range(1, sum(written) + 1))
    reader.close()


def write_until_killed(report: Connection, url: str, name: str) -> None:
    """Append one event after the other, and report each position that was acknowledged."""
    recorder = opened(url)
    n = 0
    while True:
        n += 1
        with suppress(StoreError):  # the server is gone; which events are there is looked up afterwards
            report.send(recorder.append((Batch(f"load/{name}", [(n, "t", b"%d" % n)]),), not_again)[0])


def test_nothing_acknowledged_is_lost_in_a_crash() -> None:
    """After the server was killed while four processes wrote, every event that was acknowledged is there."""
    with MariaDB(mariadbd_or_skip(), {"innodb-flush-log-at-trx-commit": "1"}) as server:
        url = server.new_place()
        opened(url).close()
        for round_ in range(3):
            victims = [Victim(write_until_killed, url, f"w{round_}-{i}") for i in range(4)]
            acknowledged = [position for victim in victims for position in [victim.first(), *victim.reports(0.2)]]
            server.crash()
            acknowledged += [position for victim in victims for position in victim.kill()]
            server.start()
            recorder = opened(url)
            assert recorder.durability == "full"
            there = everything(recorder)
            assert set(acknowledged) <= set(there)
            assert there == list(range(1, len(there) + 1))
            assert recorder.check() == []
            recorder.close()


def everything(recorder: Recorder) -> list[int]:
    """Return every position of the log."""
    return [row[0] for row in recorder.select_log(limit=1_000_000)]
