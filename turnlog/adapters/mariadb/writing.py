"""What an append writes to MariaDB: rows, keys and snapshots of all its batches in one transaction; and erasing."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

import pymysql

from turnlog.adapters.attempt import Taken, Undone
from turnlog.adapters.library import Row
from turnlog.adapters.mariadb.connection import TAKEN, Connection, number, rendered, run
from turnlog.adapters.mariadb.head import Head
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.reading import Inside, Reading
from turnlog.domain.chain import row_seal
from turnlog.domain.envelope import erase
from turnlog.domain.errors import ConcurrencyConflict
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Again, Batch, KeyRow

_DEADLOCKS = frozenset({1205, 1213})
"""Numbers of errors: a lock was waited for too long, and two waited for each other. All of it is rolled back then."""
_PAGE = 1_000
_SIX = "(%s, %s, %s, %s, %s, %s)"


class Forgetting(Protocol):
    """What the views do when a session is erased, inside the erasing transaction."""

    def hold_still(self, connection: Connection) -> None:
        """Keep views from being written, by a lock of the connection's: it is let go after the transaction."""
        ...

    def forget(self, connection: Connection, tenant: str, session_id: str) -> list[str]:
        """Delete the session's rows; return the views that forget only when they catch up."""
        ...


class Recording(Reading[Connection], Protocol):
    """What an append needs of its recorder."""

    pool: Pool
    head: Head

    def select_stream(self, stream: str, *, after: int = 0, upto: int | None = None) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        ...

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``."""
        ...


class Appending:
    """What an append does to its recorder's tables; ``keys`` and ``snapshots`` are SQL text."""

    def __init__(self, recorder: Recording, keys: str, snapshots: str, views: Forgetting | None) -> None:
        self._recorder = recorder
        self._pool, self._head, self._views = recorder.pool, recorder.head, views
        self._keys, self._snapshots = keys, snapshots
        self._insert_keys = f"INSERT INTO {keys} VALUES ".encode()
        self._replace_snapshots = f"REPLACE INTO {snapshots} VALUES ".encode()
        self.name = self._pool.name
        self.translating = self._pool.translating
        self.select_stream = recorder.select_stream
        self.select_keys = recorder.select_keys

    def write(self, batches: Sequence[Batch]) -> list[int]:
        """Commit ``batches``, in one round trip unless they are large or erase."""
        with _told():
            if not any(batch.erase for batch in batches):
                with self._pool.autocommit() as connection:
                    last = self._head.commit(connection, _rows(batches), self._also(batches))
                if last is not None:
                    return _positions(last, batches)
            with self._writing(batches) as (connection, after):
                return self.insert(connection, after, batches)

    def queues(self, batches: Sequence[Batch]) -> bool:  # noqa: ARG002 - the port's
        """Return that they do not: whoever asks keeps everybody else out."""
        return False

    def ask(self, again: Again, before: Sequence[Batch], losses: int) -> list[int]:
        """Commit what ``again`` returns: it reads, and is committed, while everybody else is kept out."""
        try:
            with _told(), self._writing(before) as (connection, after):
                batches = again(Inside(self._recorder, connection))
                if any(batch.erase for batch in batches) and not any(batch.erase for batch in before):
                    raise Undone  # first the views are held, whenever that is possible; then writers, who do not wait
                return self.insert(connection, after, batches)
        except Taken as error:
            words = f"what was decided again ({losses} races lost) does not fit the log"
            raise ConcurrencyConflict(f"{self.name}: {words}: {error.__cause__}") from error.__cause__

    @contextmanager
    def _writing(self, batches: Sequence[Batch]) -> Generator[tuple[Connection, int], None, None]:
        """Lend a connection that keeps other writers out, and the position that was given last."""
        erasing = self._views is not None and any(batch.erase for batch in batches)
        with self._pool.transaction(lets_go=erasing) as connection:
            if erasing and self._views is not None:
                self._views.hold_still(connection)
            yield connection, self._head.hold(connection)

    def insert(self, connection: Connection, after: int, batches: Sequence[Batch]) -> list[int]:
        """Write ``batches`` above the position ``after``, which was given last; nobody else writes meanwhile."""
        last = self._head.insert(connection, after, _rows(batches), self._also(batches))
        for batch in batches:
            if batch.erase:
                self._erase(connection, batch.stream)
        return _positions(last, batches)

    def _also(self, batches: Sequence[Batch]) -> list[bytes]:
        """Return the statements that write keys and snapshots."""
        keys = [(batch.stream, *key, row_seal(batch.stream, *key)) for batch in batches for key in batch.keys]
        snapshots = [
            (batch.stream, *batch.snapshot, row_seal(batch.stream, *batch.snapshot))
            for batch in batches
            if batch.snapshot is not None
        ]
        if not keys and not snapshots:
            return []
        return [
            *self._head.statements(self._insert_keys, (rendered(_SIX, key) for key in keys)),
            *self._head.statements(self._replace_snapshots, (rendered(_SIX, snapshot) for snapshot in snapshots)),
        ]

    def _erase(self, connection: Connection, stream: str) -> None:
        """Destroy the content of every event of a stream, with its keys, snapshot and view rows."""
        after = 0
        update = f"UPDATE {self._head.events} SET state = %s WHERE position = %s"
        while rows := self._recorder.stream_rows(connection, stream, after, None, desc=False, limit=_PAGE):
            self._head.send(connection, [rendered(update, (erase(row[3]), row[0])) for row in rows])
            after = rows[-1][1]
        for table in (self._keys, self._snapshots):
            run(connection, f"DELETE FROM {table} WHERE originator_id = %s", (stream,))
        if self._views is not None:
            tenant, _, session_id = stream.partition("/")
            self._views.forget(connection, tenant, session_id)


@contextmanager
def _told() -> Generator[None, None, None]:
    """Say what an error of the driver's means to an append."""
    try:
        yield
    except pymysql.Error as error:
        if number(error) == TAKEN:
            raise Taken from error
        if number(error) in _DEADLOCKS:
            raise Undone from error
        raise


def _rows(batches: Sequence[Batch]) -> list[Row]:
    return [(batch.stream, *row) for batch in batches for row in batch.rows]


def _positions(last: int, batches: Sequence[Batch]) -> list[int]:
    """Return the position of the last row of each batch, 0 where it has none."""
    left = last - sum(len(batch.rows) for batch in batches)
    positions: list[int] = []
    for batch in batches:
        left += len(batch.rows)
        positions.append(left if batch.rows else 0)
    return positions
