"""One SQLite database: its connections, its write lock, its errors.

SQLite has one writer at a time. ``BEGIN IMMEDIATE`` is that lock; the ``flock`` on a file beside the database is
fairness only: its queue is first come, first served, where SQLite's own waiting is not (measured: DESIGN.md section 6).
Whoever waits for it waits as long as the holder lives; the kernel frees it when a process dies.

Checkpoints are made only under the lock, which keeps clear of the WAL-reset bug of SQLite up to 3.51.2. A forked child
opens its own connections and its own lock file: both would be shared with the parent otherwise. POSIX only (flock).
"""

import fcntl
import os
import sqlite3
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from urllib.parse import quote

from turnlog.domain.errors import CorruptLog, StoreUnavailable, TurnlogError

SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL"}
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Busy(Exception):
    """Somebody else is writing, and the caller did not want to wait."""


class Database:
    """A database file, or (``path=None``) a private one in memory.

    Args:
        path: where it is; the directory must exist.
        durability: ``full`` (an acknowledged commit survives power loss) or ``normal`` (the end of the process).
        timeout_s: how long a write waits for a writer that does not use the lock file.
        read_only: refuse to write; nothing is created.
    """

    def __init__(
        self, path: str | None, *, durability: str = "full", timeout_s: float = 30.0, read_only: bool = False
    ) -> None:
        self.path = path
        self.durability = durability if path else "none"
        self.read_only = read_only
        self.timeout_s = timeout_s
        self._closed = False
        self._open()

    def _open(self) -> None:
        self._pid = os.getpid()
        self._mutex = threading.RLock() if self.path is None else threading.Lock()
        self._connections = _Connections()
        self._finalizer = weakref.finalize(self, _close_all, self._connections, self._pid)
        self._writer: sqlite3.Connection | None = None

    @contextmanager
    def read(self) -> Generator[sqlite3.Connection, None, None]:
        """Lend a connection in autocommit mode. Keep it short: an open read keeps the write-ahead log from shrinking.

        Raises:
            StoreUnavailable, CorruptLog: SQLite's errors, translated.
        """
        if self.path is None:
            with self._mutex, self.translating():
                yield self._writing_connection()
            return
        self._check()
        idle = self._connections.idle
        try:
            connection = idle.pop()
        except IndexError:
            with self.translating():
                connection = self._connect(writer=False)
        try:
            with self.translating():
                yield connection
        finally:
            if connection.in_transaction:
                connection.rollback()
            idle.append(connection)
            if self._closed:
                _close_idle(idle)

    @contextmanager
    def write(self, *, wait: bool = True, synced: bool = True) -> Generator[sqlite3.Connection, None, None]:
        """Lend the writing connection inside a transaction that is committed at the end, or rolled back.

        Without ``synced`` the commit is not yet durable, but it is never there without those before it: for what can be
        made again.

        Raises:
            Busy: somebody else is writing and ``wait`` is false.
            StoreUnavailable, CorruptLog: SQLite's errors, translated.
        """
        self.acquire(wait=wait)
        try:
            with self.translating(), nullcontext() if synced or self.durability != "full" else self._unsynced():
                connection = self._begin(wait=wait)
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    self.undo(connection)
                    raise
        finally:
            self.release()

    def acquire(self, *, wait: bool = True) -> sqlite3.Connection:
        """Take the write lock (no transaction yet) and return the writing connection; ``release`` must follow.

        Raises:
            Busy: somebody else holds it and ``wait`` is false.
            StoreUnavailable: the store is closed or read-only.
        """
        self._check()
        if self.read_only:
            raise StoreUnavailable(f"{self.name} was opened read-only")
        if not self._mutex.acquire(blocking=wait):
            raise Busy
        try:
            connection = self._writing_connection(wait=wait)
            self._lock_file(wait=wait)
        except BaseException:
            self._mutex.release()
            raise
        return connection

    def release(self) -> None:
        """Give the write lock back."""
        try:
            lock = self._connections.lock
            if lock is not None:
                fcntl.flock(lock, fcntl.LOCK_UN)
        finally:
            self._mutex.release()

    def undo(self, connection: sqlite3.Connection) -> None:
        """Roll back; a connection that cannot even do that is thrown away, never trusted again."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._writer = None
            with suppress(sqlite3.Error):
                connection.close()

    @contextmanager
    def translating(self) -> Generator[None, None, None]:
        """Turn SQLite's errors into turnlog's."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # it may quote damaged bytes that are no text
            raise self.translated(error) from error

    def translated(self, error: sqlite3.Error | UnicodeDecodeError) -> TurnlogError:
        """Return the error of turnlog that says what SQLite's means."""
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if isinstance(code, int) else None
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreUnavailable(f"{self.name}: another program held the database for {self.timeout_s:g} s")
        if primary in _CORRUPT or (primary == sqlite3.SQLITE_ERROR and "no such" in str(error)):
            return CorruptLog(f"{self.name}: {error}")
        if "decode" in str(error):
            return CorruptLog(f"{self.name}: {error}")
        if self._closed:
            return StoreUnavailable(f"{self.name} is closed")
        return StoreUnavailable(f"{self.name}: {error}")

    @property
    def name(self) -> str:
        """What to call this database in a message."""
        return self.path or "memory"

    def beside(self, name: str) -> "Database":
        """Open (and create, if absent) a scratch database next to this one. It is not durable: it can be made again."""
        return Database(None if self.path is None else f"{self.path}-{name}", durability="normal")

    def discard(self, name: str) -> None:
        """Delete that scratch database."""
        if self.path is not None:
            for suffix in ("", "-wal", "-shm", ".lock"):
                Path(f"{self.path}-{name}{suffix}").unlink(missing_ok=True)

    @contextmanager
    def claim(self, name: str) -> Generator[bool, None, None]:
        """Hold ``name`` alone among all processes and threads, without waiting; yield whether it was got."""
        if self.path is None:
            lock = self._connections.claims.setdefault(name, threading.Lock())
            got = lock.acquire(blocking=False)
            try:
                yield got
            finally:
                if got:
                    lock.release()
            return
        descriptor = os.open(f"{self.path}-{name}.claim", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            yield _try_flock(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close every connection, without waiting for anybody.

        The last of all processes to close checkpoints; SQLite makes sure that it is alone then. A connection with which
        another thread is reading is closed by that thread when it is done: SQLite's Python module crashes where a
        connection is closed beside a running statement.
        """
        if self._closed:
            return
        self._closed = True
        with self._mutex:
            if self._pid == os.getpid():
                self._finalizer()
            self._writer = None

    def _check(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self.name} is closed")
        if self._pid != os.getpid():
            self._finalizer.detach()
            self._abandoned = self._connections  # never closed here: that would touch the parent's locks
            self._open()

    def _writing_connection(self, *, wait: bool = True) -> sqlite3.Connection:
        if self._writer is None:
            if self._closed:
                raise StoreUnavailable(f"{self.name} is closed")
            with self.translating():
                self._writer = self._connect(writer=True, wait=wait)
        return self._writer

    @contextmanager
    def _unsynced(self) -> Generator[None, None, None]:
        connection = self._writing_connection()
        connection.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            if self._writer is connection:
                connection.execute("PRAGMA synchronous=FULL")

    def _begin(self, *, wait: bool) -> sqlite3.Connection:
        connection = self._writing_connection()
        if wait:
            connection.execute("BEGIN IMMEDIATE")
            return connection
        connection.execute("PRAGMA busy_timeout=0")
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise Busy from error
            raise
        finally:
            connection.execute(f"PRAGMA busy_timeout={int(self.timeout_s * 1000)}")
        return connection

    def _lock_file(self, *, wait: bool) -> None:
        lock = self._connections.lock
        if lock is None:
            return
        if wait:
            fcntl.flock(lock, fcntl.LOCK_EX)
        elif not _try_flock(lock):
            raise Busy

    def _connect(self, *, writer: bool, wait: bool = True) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._uri(),
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=128,
            timeout=self.timeout_s,
        )
        try:
            connection.execute("PRAGMA temp_store=MEMORY")
            connection.execute("PRAGMA secure_delete=ON")
            if writer:
                self._set_up_writer(connection, wait=wait)
            elif self.path is not None and not self.read_only:
                connection.execute("PRAGMA wal_autocheckpoint=0")
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up_writer(self, connection: sqlite3.Connection, *, wait: bool) -> None:
        if self.path is not None and not self.read_only:
            self._connections.open_lock(f"{self.path}.lock")
            self._lock_file(wait=wait)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            finally:
                if self._connections.lock is not None:
                    fcntl.flock(self._connections.lock, fcntl.LOCK_UN)
            connection.execute(f"PRAGMA synchronous={SYNCHRONOUS[self.durability]}")
        self._connections.writers.append(connection)

    def _uri(self) -> str:
        if self.path is None:
            return "file::memory:"
        return f"file:{quote(str(Path(self.path).absolute()))}?mode={'ro' if self.read_only else 'rwc'}"


class _Connections:
    """What a database holds open, apart from it so that it can be closed when the database is forgotten."""

    def __init__(self) -> None:
        self.writers: list[sqlite3.Connection] = []
        self.idle: list[sqlite3.Connection] = []
        self.lock: int | None = None
        self.claims: dict[str, threading.Lock] = {}

    def open_lock(self, path: str) -> None:
        if self.lock is None:
            self.lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _close_all(connections: _Connections, pid: int) -> None:
    if pid != os.getpid():
        return
    _close_idle(connections.idle)
    _close_idle(connections.writers)
    if connections.lock is not None:
        os.close(connections.lock)
        connections.lock = None


def _close_idle(connections: list[sqlite3.Connection]) -> None:
    """Close what nobody is using; several threads may do so at once."""
    while connections:
        with suppress(IndexError, sqlite3.Error):
            connections.pop().close()


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
