"""A writer that makes order hard: ``python -m tests.adapters.postgresql_load URL NAME SECONDS``.

It appends to the events table as its own statements please (several a transaction, COPY, savepoints rolled back before
and after the first append, two-phase commit), sleeps before it ends a transaction, rolls one in ten back, and goes on
when its connection is killed or the server is gone. Every second one of them writes through turnlog's recorder as well.
"""

import random
import sys
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import psycopg
from psycopg import errors, sql

Connection = psycopg.Connection[tuple[Any, ...]]
INSERT = "INSERT INTO turnlog_events (originator_id, originator_version, topic, state) VALUES (%s, %s, 't', %s)"
LONGEST_OUTAGE_S = 30.0
_BUSY = (errors.UniqueViolation, errors.DeadlockDetected)


class Load:
    """One writer; its streams are its own but for five that all share."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self.random = random.Random(name)  # noqa: S311 - not a secret
        self.version = 0
        self.pending: str | None = None
        self.connection = self.connected()

    def connected(self) -> Connection:
        """Connect, as soon as the server can be reached; settle what was left prepared."""
        deadline = monotonic() + LONGEST_OUTAGE_S
        while True:
            try:
                connection = psycopg.connect(self.url)
                if self.pending is not None:
                    self.settle(connection, self.pending)
                    self.pending = None
            except psycopg.OperationalError:
                if monotonic() > deadline:
                    raise
                sleep(0.02)
            else:
                return connection

    def settle(self, connection: Connection, name: str) -> None:
        """Commit a transaction whose preparing may have worked, as a coordinator would."""
        connection.autocommit = True
        for _ in range(200):
            if not connection.execute("SELECT 1 FROM pg_prepared_xacts WHERE gid = %s", (name,)).fetchone():
                break
            try:
                connection.execute(sql.SQL("COMMIT PREPARED {}").format(sql.Literal(name)))
            except errors.ObjectInUse:
                sleep(0.02)
        connection.autocommit = False

    def nap(self, seconds: float) -> None:
        """Sleep for a time by chance."""
        sleep(self.random.random() * seconds)

    def put(self) -> None:
        """Append one event, to its own stream or a shared one."""
        stream, version = f"load/{self.name}", self.version + 1
        if self.random.random() < 0.3:
            stream = f"load/shared{self.random.randint(1, 5)}"
            select = "SELECT coalesce(max(originator_version), 0) + 1 FROM turnlog_events WHERE originator_id = %s"
            ((version,),) = self.connection.execute(select, (stream,)).fetchall()
        else:
            self.version = version
        self.connection.execute(INSERT, (stream, version, b"x" * 200))

    def several(self) -> None:
        """One to three appends, with pauses."""
        for _ in range(self.random.randint(1, 3)):
            self.put()
            self.nap(0.004)

    def late(self) -> None:
        """Write elsewhere first: an old transaction appends."""
        self.connection.execute("INSERT INTO other VALUES (1)")
        self.nap(0.01)
        self.put()

    def savepoint_first(self) -> None:
        """The first append is rolled back to a savepoint, which lets go of the table's lock."""
        self.connection.execute("SAVEPOINT a")
        self.put()
        self.nap(0.005)
        self.connection.execute("ROLLBACK TO SAVEPOINT a")
        self.nap(0.005)
        self.put()

    def savepoint_later(self) -> None:
        """A later append is rolled back to a savepoint."""
        self.put()
        self.connection.execute("SAVEPOINT a")
        self.put()
        self.connection.execute("ROLLBACK TO SAVEPOINT a")
        self.put()

    def copied(self) -> None:
        """COPY draws positions row by row."""
        statement = "COPY turnlog_events (originator_id, originator_version, topic, state) FROM STDIN"
        with self.connection.cursor().copy(statement) as copy:
            for _ in range(self.random.randint(1, 3)):
                self.version += 1
                copy.write_row((f"load/{self.name}", self.version, "t", b"y"))
                self.nap(0.004)

    def end(self, *, good: bool, two_phases: bool) -> None:
        """Commit or roll back, after a pause; in two phases there is another one between them."""
        self.nap(0.03)
        if not two_phases:
            self.connection.commit() if good else self.connection.rollback()
            return
        self.pending = name = f"{self.name}-{self.random.random()}"
        self.connection.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(name)))
        self.connection.commit()
        self.nap(0.03)
        self.connection.autocommit = True
        how = sql.SQL("COMMIT PREPARED {}" if good else "ROLLBACK PREPARED {}")
        self.connection.execute(how.format(sql.Literal(name)))
        self.pending, self.connection.autocommit = None, False

    def run(self, seconds: float, also: Callable[[], object]) -> None:
        """Write for so long."""
        end = monotonic() + seconds
        while monotonic() < end:
            try:
                self.once()
            except psycopg.OperationalError:
                self.connection.close()
                self.connection = self.connected()
            also()

    def once(self) -> None:
        """Write in one of the ways; where another was first, roll back (which may find the connection killed)."""
        ways = (self.several, self.late, self.savepoint_first, self.savepoint_later, self.copied)
        try:
            self.random.choices(ways, (50, 10, 10, 10, 10))[0]()
            self.end(good=self.random.random() >= 0.1, two_phases=self.random.random() < 0.1)
        except _BUSY:
            self.connection.rollback()


def through_turnlog(url: str, name: str) -> Callable[[], object]:
    """Return what appends one event as turnlog does."""
    from turnlog.adapters.connect import connect
    from turnlog.domain.errors import StoreError
    from turnlog.domain.recorder import Batch, Reader

    recorder = connect(url, durability="full", engine=None, options={"timeout_s": 5}).recorder

    def next_one(reader: Reader) -> list[Batch]:
        rows = reader.select_stream("load/turnlog", desc=True, limit=1)
        return [Batch("load/turnlog", [(rows[0][1] + 1 if rows else 1, name, b"z")])]

    def append() -> None:
        try:
            recorder.append((), next_one)
        except StoreError as error:
            print(error, file=sys.stderr)  # noqa: T201 - the server is gone for a while

    return append


def main(url: str, name: str, seconds: str) -> None:
    """Write until the time is over."""
    also = through_turnlog(url, name) if int(name[1:]) % 2 else lambda: None
    load = Load(url, name)
    print("ready", flush=True)  # noqa: T201 - the test waits for it
    sys.stdin.readline()
    load.run(float(seconds), also)


if __name__ == "__main__":
    main(*sys.argv[1:])
