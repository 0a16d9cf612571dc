"""Answers in an SQLite file, which the processes of one machine may share. It may be that of a store.

Each method is one transaction, and takes its turn with other writers as a store does (adapters/sqlite/database.py).
What is stored survives the end of the process, not a power failure, which a cache need not; what is deleted survives
both, is overwritten with zeros, and is gone from the write-ahead log as well unless somebody is just reading.

A lease ends when its time is over by the machine's clock. The oldest answers go first where there are too many; that is
looked at every 64th time that a process writes.
"""

import sqlite3
from collections.abc import Sequence
from threading import Lock
from typing import Any

from turnlog.adapters.sqlite.database import Database
from turnlog.cache.keys import Key
from turnlog.cache.storage import Claim, Clock, Lease, Missing

_ANSWERS, _LEASES = "turnlog_cache_1", "turnlog_cache_leases_1"
_TABLES = (  # with rowids: tables without them keep copies of what was deleted
    f"""CREATE TABLE IF NOT EXISTS {_ANSWERS} (
        digest BLOB NOT NULL PRIMARY KEY, scope TEXT NOT NULL, expires_at REAL, entry BLOB NOT NULL)""",
    f"CREATE INDEX IF NOT EXISTS {_ANSWERS}_scope ON {_ANSWERS} (scope)",
    f"CREATE INDEX IF NOT EXISTS {_ANSWERS}_expiry ON {_ANSWERS} (expires_at)",
    f"""CREATE TABLE IF NOT EXISTS {_LEASES} (
        digest BLOB NOT NULL PRIMARY KEY, scope TEXT NOT NULL, expires_at REAL NOT NULL, token TEXT NOT NULL)""",
)
_READ = f"SELECT entry, expires_at FROM {_ANSWERS} WHERE digest = ?"
_WRITE = f"INSERT OR REPLACE INTO {_ANSWERS} VALUES (?, ?, ?, ?)"
_HOLDER = f"SELECT token FROM {_LEASES} WHERE digest = ? AND expires_at > ?"
_CLAIM = f"INSERT OR REPLACE INTO {_LEASES} VALUES (?, ?, ?, ?)"
_RENEW = f"UPDATE {_LEASES} SET expires_at = ? WHERE digest = ? AND token = ? AND expires_at > ?"
_KEEP = f"DELETE FROM {_LEASES} WHERE digest = ? AND token = ? AND expires_at > ?"
_RELEASE = f"DELETE FROM {_LEASES} WHERE digest = ? AND token = ?"
_DROP = f"DELETE FROM {_ANSWERS} WHERE digest = ? AND (entry = ? OR ? = x'')"
_DELETE = "DELETE FROM {} WHERE digest = ?"
_FORGET = "DELETE FROM {} WHERE scope >= ? AND scope < ?"
_CLEAR = "DELETE FROM {}"
_PURGE = "DELETE FROM {} WHERE expires_at <= ?"
_TRIM = f"""DELETE FROM {_ANSWERS} WHERE rowid IN (
    SELECT rowid FROM {_ANSWERS} ORDER BY rowid LIMIT max(0, (SELECT count(*) FROM {_ANSWERS}) - ?))"""
_TRIM_EVERY = 64


class SQLiteStorage:
    """See ``Storage``; of about so many entries at most."""

    answers_at_once = False

    def __init__(self, database: Database, *, clock: Clock, max_entries: int) -> None:
        self.name = f"sqlite:///{database.name}"
        self._database = database
        self._clock = clock
        self._max_entries = max_entries
        self._preparing = Lock()
        self._prepared = False
        self._writes = 0

    def read(self, key: Key) -> bytes | Missing:
        """See ``Storage``."""
        self._prepare()
        with self._database.read() as connection:
            return self._read(connection, key)

    def write(self, key: Key, entry: bytes, ttl_s: float | None) -> None:
        """See ``Storage``."""
        self._prepare()
        with self._database.write(synced=False) as connection:
            self._write(connection, key, entry, ttl_s)

    def claim(self, lease: Lease, lease_s: float) -> bytes | Claim:
        """See ``Storage``. Who has to wait does not write."""
        self._prepare()
        with self._database.read() as connection:
            found = self._look(connection, lease)
        if found is not Claim.HELD:
            return found
        with self._database.write(synced=False) as connection:
            found = self._look(connection, lease)
            if found is Claim.HELD:
                connection.execute(_CLAIM, (*lease.key, self._clock() + lease_s, lease.token))
        return found

    def renew(self, leases: Sequence[Lease], lease_s: float) -> None:
        """See ``Storage``."""
        now = self._clock()
        rows = [(now + lease_s, lease.key.digest, lease.token, now) for lease in leases]
        with self._database.write(synced=False) as connection:
            connection.executemany(_RENEW, rows)

    def keep(self, lease: Lease, entry: bytes, ttl_s: float | None) -> bool:
        """See ``Storage``."""
        with self._database.write(synced=False) as connection:
            held = connection.execute(_KEEP, (lease.key.digest, lease.token, self._clock())).rowcount == 1
            if held:
                self._write(connection, lease.key, entry, ttl_s)
        return held

    def release(self, lease: Lease) -> None:
        """See ``Storage``."""
        with self._database.write(synced=False) as connection:
            connection.execute(_RELEASE, (lease.key.digest, lease.token))

    def drop(self, key: Key, entry: bytes) -> None:
        """See ``Storage``."""
        with self._database.write(synced=False) as connection:
            connection.execute(_DROP, (key.digest, entry, entry))

    def delete(self, key: Key) -> bool:
        """See ``Storage``."""
        return self._deleted(_DELETE, (key.digest,)) == 1

    def forget(self, path: str) -> int:
        """See ``Storage``. Every path below begins with this one, which ends in a full stop; what follows is ``/``."""
        return self._deleted(_FORGET, (path, f"{path[:-1]}/"))

    def clear(self) -> int:
        """See ``Storage``."""
        return self._deleted(_CLEAR, ())

    def purge(self) -> int:
        """See ``Storage``."""
        return self._deleted(_PURGE, (self._clock(),))

    def close(self) -> None:
        """See ``Storage``."""
        self._database.close()

    def _prepare(self) -> None:
        if self._prepared:
            return
        with self._preparing:
            with self._database.read() as connection:
                statement = "SELECT count(*) FROM sqlite_master WHERE name IN (?, ?)"
                found: int = connection.execute(statement, (_ANSWERS, _LEASES)).fetchone()[0]
            if found < len((_ANSWERS, _LEASES)):
                with self._database.write() as connection:
                    for statement in _TABLES:
                        connection.execute(statement)
            self._prepared = True

    def _look(self, connection: sqlite3.Connection, lease: Lease) -> bytes | Claim:
        """Return the entry; or whether the lease can be had."""
        found = self._read(connection, lease.key)
        if not isinstance(found, Missing):
            return found
        holder = connection.execute(_HOLDER, (lease.key.digest, self._clock())).fetchone()
        return Claim.HELD if holder is None or holder[0] == lease.token else Claim.BUSY

    def _read(self, connection: sqlite3.Connection, key: Key) -> bytes | Missing:
        row = connection.execute(_READ, (key.digest,)).fetchone()
        if row is None:
            return Missing.ABSENT
        entry, expires_at = row
        if type(entry) is not bytes or not isinstance(expires_at, float | None):
            return b""  # which no entry is: the row is damaged
        return Missing.EXPIRED if expires_at is not None and expires_at <= self._clock() else entry

    def _write(self, connection: sqlite3.Connection, key: Key, entry: bytes, ttl_s: float | None) -> None:
        now = self._clock()
        connection.execute(_WRITE, (*key, None if ttl_s is None else now + ttl_s, entry))
        self._writes += 1
        if self._writes % _TRIM_EVERY == 0:
            for table in (_ANSWERS, _LEASES):
                connection.execute(_PURGE.format(table), (now,))
            connection.execute(_TRIM, (self._max_entries,))

    def _deleted(self, statement: str, values: tuple[Any, ...]) -> int:
        """Delete from both tables and return how many entries that were."""
        self._prepare()
        with self._database.write() as connection:
            connection.execute(statement.format(_LEASES), values)
            deleted = connection.execute(statement.format(_ANSWERS), values).rowcount
        with self._database.alone(patient=False) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return deleted
