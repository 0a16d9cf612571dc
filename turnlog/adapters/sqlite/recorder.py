"""The log in an SQLite file (3.35 or newer, WAL).

Atomicity: an append is one transaction; one or a few rows are one statement, which SQLite commits by itself.
Order: SQLite has one writer at a time, so positions are committed in the order they are given; no row of the log is
ever deleted (erasing nulls content), so none is given twice.
Durability: ``full`` syncs the write-ahead log at every commit, ``normal`` only at checkpoints.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from time import sleep
from typing import Any, Protocol

from turnlog.adapters.grouping import Grouping, Take
from turnlog.adapters.library_factory import DatabaseFactory, Kinds
from turnlog.adapters.names import Names, name_range, quoted
from turnlog.adapters.reading import Inside
from turnlog.adapters.sealed import sealed_key, sealed_snapshot
from turnlog.adapters.sqlite import tables
from turnlog.adapters.sqlite.database import Database
from turnlog.adapters.sqlite.group import write_together
from turnlog.adapters.sqlite.recorders import (
    ALL,
    FEW,
    SQLiteAggregateRecorder,
    SQLiteApplicationRecorder,
    SQLiteProcessRecorder,
    SQLiteTrackingRecorder,
)
from turnlog.domain.chain import row_seal
from turnlog.domain.envelope import erase
from turnlog.domain.errors import ConcurrencyConflict, CorruptLog, StoreError
from turnlog.domain.mapper import LogRow, StreamRow
from turnlog.domain.recorder import Again, Batch, KeyRow, SnapshotRow, StreamVersion

SCHEMA_VERSION = 1
_SCHEMA = "turnlog.schema"
"""Where the tracking table keeps the version of the tables."""
_SCRUB_PAUSES_S = (0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Before each try to empty the write-ahead log beside readers."""


class Forgetting(Protocol):
    """What the views do when a session is erased, inside the erasing transaction (adapters/sqlite/views.py)."""

    def forget(self, connection: sqlite3.Connection, tenant: str, session_id: str) -> list[str]:
        """Delete the session's rows; return the views that forget only when they catch up."""
        ...


class SQLiteRecorder(SQLiteProcessRecorder):
    """turnlog's recorder: adds keys, snapshots, deciding again under the lock, and erasing."""

    expires = False

    def __init__(self, database: Database, names: Names, views: Forgetting | None = None) -> None:
        super().__init__(
            database,
            events_table=quoted(names.events),
            tracking_table=quoted(names.tracking),
            originator_id_type="text",
        )
        self.durability = database.durability
        self._names = names
        self._keys_table, self._snapshots_table = quoted(names.keys), quoted(names.snapshots)
        self._views = views
        synced = database.path is not None and database.durability == "full"
        self.grouping = Grouping(self.together, database.timeout_s) if synced else None
        """Whoever would wait for another thread joins; measured, it gains only where a commit syncs the disk."""
        self._upsert_snapshot = f"INSERT OR REPLACE INTO {self._snapshots_table} VALUES (?, ?, ?, ?, ?, ?)"
        self._select_snapshot = (
            f"SELECT version, revision, hash, state, seal FROM {self._snapshots_table} WHERE originator_id = ?"
        )
        self._select_keys = (
            f"SELECT kind, key, version, fingerprint, seal FROM {self._keys_table} WHERE originator_id = ?"
        )

    def prepare(self) -> None:
        """Create the tables if they are not there; several processes may do so at once.

        Raises:
            StoreError: a newer turnlog made them.
        """
        version = self._schema_version()
        if version is None:
            with self.database.write() as connection:
                for statement in (self._tracking_statement(), *tables.statements(self._names)):
                    connection.execute(statement)
                connection.execute(
                    f"INSERT OR IGNORE INTO {self.tracking_table} VALUES (?, ?)", (_SCHEMA, SCHEMA_VERSION)
                )
            version = self._schema_version()
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{self.database.name}: its tables have schema {version}, this turnlog knows {SCHEMA_VERSION}; upgrade"
            )

    def _schema_version(self) -> int | None:
        try:
            return self._max_tracking_id(_SCHEMA)
        except CorruptLog as error:
            if "no such table" in str(error):
                return None
            raise

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Commit ``batches``, see ``Recorder``: decided again under the lock, a conflict cannot come twice.

        While another thread writes, what comes together shares a transaction: where that syncs the disk, it gains.
        """
        database = self.database
        if database.holder is None:
            return self.append_alone(batches, again)
        since = database.turn()
        if self.grouping is None or any(batch.erase for batch in batches):
            return self.append_alone(batches, again, since)
        return self.grouping.append(batches, again)

    def append_alone(self, batches: Sequence[Batch], again: Again, since: float | None = None) -> list[int]:
        """Commit ``batches`` in a transaction of their own; what has been waited for counts from ``since``."""
        database = self.database
        with database.mutex:  # as `Database.write` does it, without the time that lending takes
            try:
                connection = database.take(since)
                try:
                    positions = self._append(connection, batches)
                    if positions is None:
                        positions = self._append_again(connection, again)
                except BaseException:
                    try:
                        connection.rollback()
                    except sqlite3.Error:
                        database.throw_away(connection)
                    raise
            except (sqlite3.Error, UnicodeDecodeError) as error:
                raise database.translated(error) from error
            finally:
                database.holder = None
                database.free()
        if self._news.awaited:
            self._news.tell()
        return positions

    def together(self, take: Take) -> None:
        """Commit appends of several threads in one transaction."""
        write_together(self, take)
        if self._news.awaited:
            self._news.tell()

    def _append(self, connection: sqlite3.Connection, batches: Sequence[Batch]) -> list[int] | None:
        if not batches:
            return None
        first = batches[0]
        simple = len(batches) == 1 and len(first.rows) <= FEW and not (first.keys or first.snapshot or first.erase)
        try:
            if simple:
                return [self._insert_batch(connection, first)]
            connection.execute("BEGIN IMMEDIATE")
            positions = self.write(connection, batches)
            connection.execute("COMMIT")
        except sqlite3.IntegrityError:
            connection.rollback()
            return None
        return positions

    def _append_again(self, connection: sqlite3.Connection, again: Again) -> list[int]:
        connection.execute("BEGIN IMMEDIATE")
        batches = again(Inside(self, connection))
        try:
            positions = self.write(connection, batches)
        except sqlite3.IntegrityError as error:
            words = "what was decided again does not fit the log"
            raise ConcurrencyConflict(f"{self.database.name}: {words}: {error}") from error
        connection.execute("COMMIT")
        return positions

    def write(self, connection: sqlite3.Connection, batches: Sequence[Batch]) -> list[int]:
        """Write batches in the transaction that is open, and return the position of the last row of each."""
        return [self._write_batch(connection, batch) for batch in batches]

    def _insert_batch(self, connection: sqlite3.Connection, batch: Batch) -> int:
        stream = batch.stream
        return self._insert_rows(connection, [(stream, version, topic, state) for version, topic, state in batch.rows])

    def _write_batch(self, connection: sqlite3.Connection, batch: Batch) -> int:
        position = self._insert_batch(connection, batch)
        stream = batch.stream
        for key in batch.keys:
            seal = row_seal(stream, *key)
            connection.execute(f"INSERT INTO {self._keys_table} VALUES (?, ?, ?, ?, ?, ?)", (stream, *key, seal))
        if batch.snapshot is not None:
            seal = row_seal(stream, *batch.snapshot)
            connection.execute(self._upsert_snapshot, (stream, *batch.snapshot, seal))
        if batch.erase:
            self._erase(connection, stream)
        return position

    def _erase(self, connection: sqlite3.Connection, stream: str) -> None:
        after = 0
        while rows := self.stream_rows(connection, stream, after, None, desc=False, limit=1000):
            connection.executemany(
                f"UPDATE {self.events_table} SET state = ? WHERE position = ?",
                [(erase(state), position) for position, _, _, state in rows],
            )
            after = rows[-1][1]
        for table in (self._keys_table, self._snapshots_table):
            connection.execute(f"DELETE FROM {table} WHERE originator_id = ?", (stream,))
        if self._views is not None:
            tenant, _, session_id = stream.partition("/")
            self._views.forget(connection, tenant, session_id)

    def stream_rows(
        self,
        connection: sqlite3.Connection,
        stream: str,
        after: int,
        upto: int | None,
        *,
        desc: bool,
        limit: int | None,
    ) -> list[StreamRow]:
        """Return a stream's rows, read on ``connection``."""
        return _typed(super().stream_rows(connection, stream, after, upto, desc=desc, limit=limit))

    def select_versions(self, wanted: Sequence[StreamVersion]) -> dict[StreamVersion, StreamRow]:
        """Return events of any streams, see ``Recorder``.

        Each is a look into the index by a prepared statement: measured, as quick as a join with a list of 500, while
        SQLite scans the whole table for ``(originator_id, originator_version) IN (VALUES …)``.
        """
        if not wanted:
            return {}
        with self.database.read() as connection:
            return {
                (stream, version): row
                for stream, version in wanted
                for row in self.stream_rows(connection, stream, version - 1, version, desc=False, limit=1)
            }

    def select_log(
        self, *, after: int = 0, upto: int | None = None, limit: int, topics: Sequence[str] = (), prefix: str = ""
    ) -> list[LogRow]:
        """Return events in position order, see ``Recorder``."""
        rows = _typed(super().select_log(after=after, upto=upto, limit=limit, topics=topics, prefix=prefix))
        for row in rows:
            if type(row[1]) is not str:
                raise CorruptLog(f"position {row[0]}: the name of the session is damaged")
        return rows

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``."""
        with self.database.read() as connection:
            return self.key_rows(connection, stream, keys)

    def key_rows(self, connection: sqlite3.Connection, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, read on ``connection``."""
        found: list[tuple[str, str, int, bytes, bytes]] = []
        for kind, key in keys:
            found += connection.execute(self._select_keys + " AND kind = ? AND key = ?", (stream, kind, key)).fetchall()
        return [sealed_key(stream, row) for row in found]

    def select_all_keys(self, stream: str) -> list[KeyRow]:
        """Return every key of a stream, see ``Recorder``."""
        with self.database.read() as connection:
            rows = connection.execute(self._select_keys + " ORDER BY version, kind, key", (stream,)).fetchall()
        return [sealed_key(stream, row) for row in rows]

    def select_snapshot(self, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot, see ``Reader``."""
        with self.database.read() as connection:
            return self.snapshot_row(connection, stream)

    def snapshot_row(self, connection: sqlite3.Connection, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot, read on ``connection``."""
        return sealed_snapshot(stream, connection.execute(self._select_snapshot, (stream,)).fetchone())

    def streams(self, *, prefix: str, after: str = "", limit: int) -> list[str]:
        """Return names of streams, see ``Recorder``: each is one step in the index, however long it is."""
        low, high = name_range(prefix)
        statement = f"SELECT min(originator_id) FROM {self.events_table} WHERE originator_id > ? AND originator_id < ?"
        found: list[str] = []
        last = max(after, low)
        with self.database.read() as connection:
            while len(found) < limit:
                name = connection.execute(statement, (last, high)).fetchone()[0]
                if name is None:
                    break
                found.append(name)
                last = name
        return found

    def visible(self, *, limit: int) -> list[str] | None:  # noqa: ARG002 - the port's
        """Return nothing: positions are committed in order."""
        return []

    def check(self) -> list[str]:
        """Return what SQLite's own integrity check finds, and how many events and keys are of no session."""
        astray = (
            f"SELECT count(*) FROM {self.events_table} WHERE typeof(originator_id) <> 'text'"
            " OR instr(originator_id, '/') < 2 OR typeof(originator_version) <> 'integer'"
            f" OR originator_version NOT BETWEEN 1 AND {ALL}"
        )
        lost = (
            f"SELECT count(*) FROM {self._keys_table} k WHERE NOT EXISTS (SELECT 1 FROM"
            f" {self.events_table} e WHERE e.originator_id = k.originator_id)"
        )
        with self.database.read() as connection:
            rows = connection.execute("PRAGMA integrity_check").fetchall()
            counts = [("events", astray), ("keys", lost)]
            found = [(what, connection.execute(statement).fetchone()[0]) for what, statement in counts]
        damage = [] if rows == [("ok",)] else [str(row[0]) for row in rows]
        return [*damage, *(f"there are {n} {what} of no session" for what, n in found if n)]

    def size_bytes(self) -> int | None:
        """Return the size of the database file and its write-ahead log."""
        path = self.database.path
        if path is None:
            return None
        files = [Path(path), Path(f"{path}-wal")]
        return sum(file.stat().st_size for file in files if file.exists())

    def lingering(self) -> list[str]:
        """Return where erased bytes may linger: SQLite reuses pages later."""
        places = f"write-ahead log, free space and full-text search of {self.database.name}"
        return [f"old bytes in the {places}, until store.scrub()"]

    def scrub(self, *, vacuum: bool) -> list[str]:
        """Rewrite the file without free space, and empty the write-ahead log; see ``Recorder``."""
        database = self.database
        if vacuum:
            with database.alone() as connection:
                connection.execute("VACUUM")
        busy = True
        for pause_s in _SCRUB_PAUSES_S:  # writers go first; waiting under the lock would keep them out
            sleep(pause_s)
            with database.alone(patient=False) as connection:
                busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if not busy:
                break
        pending = (
            [] if vacuum else ["free space inside the pages of the database file (scrub(vacuum=True) rewrites it)"]
        )
        if busy:
            pending.append("an open reader keeps old pages in the write-ahead log; end it and scrub again")
        return pending

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def _are_sound(rows: Sequence[tuple[Any, ...]]) -> bool:
    """Return whether versions, topics and states are of their types; asked of columns, that is a third of the time."""
    *_, versions, topics, states = zip(*rows, strict=True)
    return {*map(type, versions)} == {int} and {*map(type, topics)} == {str} and {*map(type, states)} == {bytes}


def _typed(rows: list[Any]) -> list[Any]:
    """Return the rows; one with a value of a wrong type, which only a damaged file gives, as one that is no event."""
    if not rows or _are_sound(rows):
        return rows
    damaged = [i for i, row in enumerate(rows) if not _are_sound((row,))]
    for i in damaged:
        position, *stream, version, topic, _ = rows[i]
        rows[i] = (position, *stream, version if type(version) is int else 0, topic if type(topic) is str else "", b"")
    return rows


class SQLiteFactory(DatabaseFactory[SQLiteTrackingRecorder]):
    """``PERSISTENCE_MODULE=turnlog.adapters.sqlite``, with ``SQLITE_DBNAME``, the database file's path.

    Optional: ``ORIGINATOR_ID_TYPE`` (``uuid`` or ``text``), ``SQLITE_DURABILITY`` (``full`` or ``normal``),
    ``CREATE_TABLE``.
    """

    kinds = Kinds(SQLiteAggregateRecorder, SQLiteApplicationRecorder, SQLiteTrackingRecorder, SQLiteProcessRecorder)

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        path = self._given("SQLITE_DBNAME")
        durability = self._one_of("SQLITE_DURABILITY", ("full", "normal"))
        self.database = Database(None if path == ":memory:" else path.removeprefix("file:"), durability=durability)

    @property
    def storage(self) -> Database:
        """The database."""
        return self.database
