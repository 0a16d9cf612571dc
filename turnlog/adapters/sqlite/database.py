"""One SQLite database: its connections, its write lock, its errors.

SQLite has one writer at a time. ``BEGIN IMMEDIATE`` is that lock; the lock file beside the database (locking.py) is
fairness only. Checkpoints are made only under it, which keeps clear of the WAL-reset bug of SQLite up to 3.51.2.

A signal's exception (Ctrl-C) may be raised between any two steps of Python. So the mutex is taken by ``with``, and a
transaction and the lock file are given back by calls of C functions, where it finds no gap (lending.py does that for
those who borrow). What an interruption may leave behind is put right by whoever takes the lock next (``take``).

SQLite's connections cannot be carried across a fork, not even unused (process_fork.py says why). They are closed before
it and opened again afterwards, by parent and child on their own. What is lent just then is waited for.
"""

import sqlite3
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from os.path import realpath
from time import monotonic

from turnlog.adapters import process_fork
from turnlog.adapters.sqlite.connections import Connection, Connections, connect
from turnlog.adapters.sqlite.lending import lend
from turnlog.adapters.sqlite.locking import Claims, LockFile
from turnlog.domain.errors import CorruptLog, StoreUnavailable, TurnlogError

SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL"}
FORK_WAIT_S = 2.0
"""How long a fork waits for what this process is doing with a database."""
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Busy(Exception):
    """Somebody else is writing, and the caller did not want to wait."""


class Database:
    """A database file, or (``path=None``) a private one in memory.

    Args:
        path: where it is; the directory must exist. What lies beside it lies beside the file itself, not beside a link.
        durability: ``full`` (an acknowledged commit survives power loss) or ``normal`` (the end of the process).
        timeout_s: how long a write waits for other programs: for its turn, and for one that does not take turns.
        read_only: refuse to write; nothing is created.

    ``append`` (recorder.py) uses what ``write`` is made of: ``turn``, ``mutex``, ``take``, ``free``.
    """

    def __init__(
        self, path: str | None, *, durability: str = "full", timeout_s: float = 30.0, read_only: bool = False
    ) -> None:
        self.name = path or "memory"
        """What to call this database in a message."""
        self.path = None if path is None else realpath(path)
        self.durability = durability if path else "none"
        self.read_only = read_only
        self.timeout_s = timeout_s
        self.holder: int | None = None
        """The thread that has the mutex."""
        self._closed = self._quiet = self._stopped = False
        self._inherited: Connections | None = None
        """What was open when the process was forked."""
        self._claims = Claims(self.path)
        self.claim = self._claims.claim
        self._new_locks()
        self._new_connections()
        process_fork.watch(self)

    def _new_locks(self) -> None:
        self.mutex = threading.RLock() if self.path is None else threading.Lock()
        """Held by the thread that writes; in memory, by every one."""
        self._opening = threading.Lock()

    def _new_connections(self) -> None:
        self._connections = Connections()
        self._finalizer = weakref.finalize(self, _end, weakref.ref(self), self._connections)
        self._forget_writer()

    def _forget_writer(self) -> None:
        self._writer: Connection | None = None
        self._settings: tuple[bool, bool] | None = None
        self._lock: LockFile | None = None
        self.free: Callable[[], object] = _nothing
        """Give the lock file back, if it is held."""

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self) -> AbstractContextManager[sqlite3.Connection]:
        """Lend a connection in autocommit mode. Keep it short: an open read keeps the write-ahead log from shrinking.

        Raises:
            StoreUnavailable, CorruptLog: SQLite's errors, translated.
        """
        return lend(self._reading_memory()) if self.path is None else self._reading()

    def _reading_memory(self) -> Generator[Connection, None, None]:
        with self.mutex:
            try:
                yield self._writer or self._open_writer()
            except (sqlite3.Error, UnicodeDecodeError) as error:
                raise self.translated(error) from error

    @contextmanager
    def _reading(self) -> Generator[Connection, None, None]:
        self._require_open()
        connections = self._connections
        connection = connections.borrow()
        if connection is None:
            connections, connection = self._open_reader()
        try:
            yield connection
            if not connection.is_valid:
                raise StoreUnavailable(f"{self.name} was written while it was read without a lock; try again")
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self.translated(error) from error
        finally:
            connections.take_back(connection)

    def _open_reader(self) -> tuple[Connections, Connection]:
        with self._opening, self.translating():
            connections = self._connections
            connection = self._connect()
            connections.add_reader(connection)
            if self.path is not None and not self.read_only:
                connection.execute("PRAGMA wal_autocheckpoint=0")
            return connections, connection

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, *, wait: bool = True, synced: bool = True) -> AbstractContextManager[sqlite3.Connection]:
        """Lend the writing connection inside a transaction that is committed at the end, or rolled back.

        Without ``synced`` the commit is not yet durable, but it is never there without those before it: for what can be
        made again. The transaction begins with this call.

        Raises:
            Busy: somebody else is writing and ``wait`` is false.
            StoreUnavailable, CorruptLog: SQLite's errors, translated.
        """
        return lend(self._lending(wait=wait, synced=synced))

    def alone(self, *, patient: bool = True) -> AbstractContextManager[sqlite3.Connection]:
        """Lend the writing connection, in autocommit mode, while nobody else who takes turns is writing.

        Without ``patient`` SQLite waits for nobody.

        Raises:
            StoreUnavailable, CorruptLog: SQLite's errors, translated.
        """
        return lend(self._lending(patient=patient, transaction=False))

    def _lending(
        self, *, wait: bool = True, patient: bool = True, synced: bool = True, transaction: bool = True
    ) -> Generator[Connection, None, None]:
        since = self.turn(wait=wait)
        with self.mutex:
            try:
                connection = self.take(since, wait=wait, patient=patient and wait, synced=synced)
                try:
                    if transaction:
                        _begin(connection, wait=wait)
                    yield connection
                    if transaction:
                        connection.execute("COMMIT")
                except BaseException:
                    try:
                        connection.rollback()
                    except sqlite3.Error:
                        self.throw_away(connection)
                    raise
            except (sqlite3.Error, UnicodeDecodeError) as error:
                raise self.translated(error) from error
            finally:
                self.holder = None
                self.free()
                if self._closed:
                    self._retire()

    def turn(self, *, wait: bool = True) -> float:
        """Return the time from which waiting for the mutex and the lock file counts; to be called without them.

        Raises:
            Busy: another thread is writing and ``wait`` is false.
            StoreUnavailable: this thread is writing.
        """
        if self.holder is not None:
            if not wait:
                raise Busy
            if self.holder == threading.get_ident():
                raise StoreUnavailable(f"{self.name}: this thread is in the middle of writing to it")
        return monotonic()

    def take(
        self, since: float | None = None, *, wait: bool = True, patient: bool = True, synced: bool = True
    ) -> Connection:
        """Take the lock file and return the writing connection, as it has to be.

        The mutex is held, and then, whatever happens: ``holder`` becomes None, and ``free`` is called.

        Raises:
            Busy: another process holds the lock file and ``wait`` is false.
            StoreUnavailable: it did not come free; the store is closed or read-only.
        """
        self.holder = threading.get_ident()
        if self._writer is None:
            self._prepare()
        lock = self._lock
        if lock is not None and not lock.take(self._left(since) if wait else 0):
            if not wait:
                raise Busy
            raise StoreUnavailable(f"{self.name}: its turn to write did not come for {self.timeout_s:g} s")
        connection = self._writer or self._open_writer()
        if connection.in_transaction:  # whoever had it was interrupted
            connection = self._undone(connection)
        if self._settings != (patient, synced):
            self._set(connection, patient, synced)
        return connection

    def _left(self, since: float | None) -> float:
        return self.timeout_s if since is None else since + self.timeout_s - monotonic()

    def _prepare(self) -> None:
        self._require_open()
        self._require_whole()
        if self.read_only:
            raise StoreUnavailable(f"{self.name} was opened read-only")
        if self.path is not None and self._lock is None:
            self._connections.lock = self._lock = LockFile(f"{self.path}.lock")
            self.free = self._lock.free

    def _open_writer(self) -> Connection:
        self._require_open()
        with self.translating():
            connection = self._connect()
            self._connections.writers.append(connection)
            if self.path is not None and not self.read_only:
                connection.execute("PRAGMA journal_mode=WAL")
        self._writer, self._settings = connection, None
        return connection

    def _connect(self) -> Connection:
        self._require_whole()
        return connect(self.path, timeout_s=self.timeout_s, read_only=self.read_only)

    def _undone(self, connection: Connection) -> Connection:
        try:
            connection.rollback()
        except sqlite3.Error:
            self.throw_away(connection)
            return self._open_writer()
        return connection

    def _set(self, connection: sqlite3.Connection, patient: bool, synced: bool) -> None:  # noqa: FBT001 - as `take`
        self._settings = None  # not known, until it is done
        connection.execute(f"PRAGMA busy_timeout={int(self.timeout_s * 1000) if patient else 0}")
        if self.path is not None:
            connection.execute(f"PRAGMA synchronous={SYNCHRONOUS[self.durability if synced else 'normal']}")
        self._settings = (patient, synced)

    def throw_away(self, connection: sqlite3.Connection) -> None:
        """Close a writing connection that cannot even roll back; it is never trusted again."""
        self._writer = None
        with suppress(sqlite3.Error):
            connection.close()

    # --- errors -------------------------------------------------------------------------------------------------------

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

    # --- beside it ----------------------------------------------------------------------------------------------------

    def beside(self, name: str) -> "Database":
        """Open (and create, if absent) a scratch database next to this one. It is not durable: it can be made again."""
        return Database(None if self.path is None else f"{self.path}-{name}", durability="normal")

    # --- life ---------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection.

        The last of all processes to close checkpoints; SQLite makes sure that it is alone then. A connection that is
        lent is closed when it comes back: SQLite's Python module crashes where a connection is closed beside a running
        statement.
        """
        self._closed = True
        if self.holder == threading.get_ident():  # interrupted in the middle of writing, which has not ended yet
            return
        with self.mutex:
            self._retire()

    def _retire(self) -> None:
        self._forget_writer()
        self._finalizer.detach()
        self._connections.retire()

    def end(self) -> None:
        """Close what no thread is using, the process being about to end; who writes after this opens it anew.

        Daemon threads go on until then: to close what one is using would crash.
        """
        if self.path is not None and self.mutex.acquire(timeout=FORK_WAIT_S):
            try:
                ending, self._connections = self._connections, Connections()
                self._forget_writer()
                ending.retire()
            finally:
                self.mutex.release()

    def before_fork(self) -> None:
        """Close every connection, so that none is carried across; see ``Forking``."""
        until = monotonic() + FORK_WAIT_S
        self._quiet = self._stopped = False
        if self.path is not None and self.holder == threading.get_ident():
            return
        if not self.mutex.acquire(timeout=FORK_WAIT_S):
            return
        if not self._opening.acquire(timeout=FORK_WAIT_S):
            self.mutex.release()
            return
        self._stopped = True
        if self.path is None:  # a copy of memory is as good as the original
            self._quiet = True
            return
        self._inherited, _ = self._connections, self._finalizer.detach()
        self._new_connections()
        self._quiet = self._inherited.retire(until)

    def after_fork(self, *, child: bool) -> None:
        """Open again what is needed, when it is needed; see ``Forking``."""
        if not child:
            if self._stopped:
                self._opening.release()
                self.mutex.release()
            return
        self.holder = None
        self._new_locks()
        self._claims.disown()
        if not self._quiet:
            self._finalizer.detach()
            self._connections.disown()
            process_fork.spoil(self._place, (self._connections, self._inherited))
            self._new_connections()

    @property
    def _place(self) -> str:
        return self.path or f"memory {id(self)}"

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self.name} is closed")

    def _require_whole(self) -> None:
        if process_fork.is_spoilt(self._place):
            words = "this process was forked while its parent was using it; fork at another time, or spawn"
            raise StoreUnavailable(f"{self.name}: {words}")


def _begin(connection: Connection, *, wait: bool) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if not wait and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            raise Busy from error
        raise


def _end(database: "weakref.ref[Database]", connections: Connections) -> None:
    used = database()
    if used is None:  # it was forgotten: nobody is using any
        connections.retire()
    else:
        used.end()


def _nothing() -> None:
    """Do nothing: there is no lock file."""
