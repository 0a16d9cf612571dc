"""SQLite connections: how one is opened, and what a database holds open."""

import os
import sqlite3
from contextlib import suppress
from time import monotonic, sleep
from typing import NamedTuple
from urllib.parse import quote
from weakref import ref

from turnlog.adapters.sqlite.locking import LockFile

_POLL_S = 0.001
_NO_WAL_INDEX = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
"""What SQLite says where it cannot create the files beside a database that is in WAL mode."""


class Connection(sqlite3.Connection):
    """A connection that can be referred to weakly, and may rely on nobody changing the file."""

    relies_on: "tuple[str, _State] | None" = None
    """The file's path and how it was, where no lock could be had on it."""
    is_open = True

    @property
    def is_valid(self) -> bool:
        """Whether the file is still what this connection takes it for."""
        return self.relies_on is None or _state(self.relies_on[0]) == self.relies_on[1]


class _State(NamedTuple):
    """By what to tell that a database file was changed; that begins with a write-ahead log beside it."""

    inode: int
    size_bytes: int
    modified_ns: int
    has_log: bool


def _state(path: str) -> _State | None:
    try:
        stat = os.stat(path)  # noqa: PTH116 - SQLite takes no Path either
    except OSError:
        return None
    return _State(stat.st_ino, stat.st_size, stat.st_mtime_ns, os.path.exists(f"{path}-wal"))  # noqa: PTH110 - as above


def connect(path: str | None, *, timeout_s: float, read_only: bool) -> Connection:
    """Open a connection in autocommit mode. What it deletes, it overwrites with zeros."""
    if path is None:
        return _connect("file::memory:", timeout_s)
    file = f"file:{quote(path)}?mode="
    if not read_only:
        return _connect(f"{file}rwc", timeout_s)
    connection = _connect(f"{file}ro", timeout_s)
    try:
        connection.execute("PRAGMA schema_version")
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in _NO_WAL_INDEX:
            return _connect_at_rest(path, file, timeout_s, error)
        raise
    return connection


def _connect_at_rest(path: str, file: str, timeout_s: float, error: sqlite3.OperationalError) -> Connection:
    """Open what nobody else has open, where no lock can be had because the directory is not ours to write."""
    state = _state(path)
    if state is None:
        raise error
    if state.has_log:
        raise sqlite3.OperationalError(f"{error}; open it once where its directory may be written") from error
    connection = _connect(f"{file}ro&immutable=1", timeout_s)
    connection.relies_on = (path, state)
    return connection


def _connect(uri: str, timeout_s: float) -> Connection:
    connection = sqlite3.connect(
        uri,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=128,
        timeout=timeout_s,
        factory=Connection,
    )
    try:
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA secure_delete=ON")
    except BaseException:
        connection.close()
        raise
    return connection


class Connections:
    """What a database holds open, apart from it so that it can be closed when the database is forgotten."""

    def __init__(self) -> None:
        self._readers: list[ref[Connection]] = []  # weak: one that its borrower lost in an interruption is gone
        self.idle: list[Connection] = []
        self.writers: list[Connection] = []
        self.lock: LockFile | None = None
        self._retired = False

    def add_reader(self, connection: Connection) -> None:
        """Know a connection, which is lent now."""
        self._readers = [*self._open_readers(), ref(connection)]

    def borrow(self) -> Connection | None:
        """Return a connection that nobody is using."""
        while self.idle:
            try:
                connection = self.idle.pop()
            except IndexError:  # another thread was quicker
                break
            if connection.is_valid:
                return connection
            self._close(connection)
        return None

    def take_back(self, connection: Connection) -> None:
        """Take back what was lent, in a state to be lent again."""
        try:
            if connection.in_transaction:
                connection.rollback()
        except sqlite3.Error:
            self._close(connection)
            return
        self.idle.append(connection)
        if self._retired:
            self._close_idle()

    def retire(self, until: float = 0) -> bool:
        """Close everything, what is lent when it comes back; wait for that, and return whether it has."""
        self._retired = True
        self._close_idle()
        while self.writers:
            self._close(self.writers.pop())
        if self.lock is not None:
            self.lock.close(join_s=max(until - monotonic(), 0))
            self.lock = None
        while self._open_readers() and monotonic() < until:
            sleep(_POLL_S)
        return not self._open_readers()

    def disown(self) -> None:
        """Close the lock file in a forked child: the lock stays the parent's."""
        if self.lock is not None:
            self.lock.disown()

    def _close_idle(self) -> None:
        with suppress(IndexError):  # several threads may do so at once
            while self.idle:
                self._close(self.idle.pop())

    def _close(self, connection: Connection) -> None:
        with suppress(sqlite3.Error):
            connection.close()
        connection.is_open = False  # only now: a fork waits for it

    def _open_readers(self) -> "list[ref[Connection]]":
        return [one for one in self._readers if (connection := one()) is not None and connection.is_open]
