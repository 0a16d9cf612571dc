"""One database of MongoDB (5.0 or newer; 6.0 is tested): connecting, transactions, what is promised, errors.

The client is turnlog's own, by pymongo, or one that the application already has. It finds the primary of a replica set
by itself, and replaces dead connections. A forked child opens its own. No message tells a password.

What is promised: with ``full``, a majority of a replica set has it in its journal, and only what is so is read; a
standalone server has it in its journal. With ``normal``, the server that is written to has it: what it acknowledged
last may be lost with the power, or in a failover, and so may what was read.
"""

import os
import re
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, NamedTuple, Self, TypeAlias

import pymongo
from pymongo.client_session import ClientSession
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import (
    ConfigurationError,
    DocumentTooLarge,
    InvalidOperation,
    InvalidURI,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from turnlog.adapters.attempt import Broken, Lost, Taken, Undone
from turnlog.adapters.mongodb.abandoned import Abandoned, application_name
from turnlog.adapters.mongodb.documents import Document
from turnlog.adapters.mongodb.outcomes import UNKNOWN, told
from turnlog.domain.errors import CorruptLog, InvalidInput, OutcomeUnknown, StoreUnavailable, TurnlogError
from turnlog.projections.view_store import WriteUndone

Documents: TypeAlias = Collection[Document]
Session: TypeAlias = ClientSession

OLDEST_WIRE = 13
"""What MongoDB 5.0 speaks."""
DATABASE = "turnlog"
QUICK = WriteConcern(w=1, j=False)
SILENCES = 2
"""As many times ``timeout_s`` an answer is waited for: the server may wait for that long itself."""
_DATABASE_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)
_TOO_LARGE = frozenset({10334, 17280, 17419, 17420})


class Server(NamedTuple):
    """What a server says of itself: whether it knows transactions, being of a replica set (or several)."""

    version: str
    replicated: bool


class Client:
    """The database that ``url`` names, or that of an application's ``engine``, a ``pymongo.MongoClient``.

    Args:
        database: its name, if the URL names none.
        durability: ``full`` or ``normal``.
        timeout_s: how long a server, a connection, or a majority is waited for.
        size: the most connections at one time to each server.
        read_only: refuse to write.

    Raises:
        InvalidInput: the URL or an option is not understood.
        StoreUnavailable: no server can be reached, or it is too old.
    """

    def __init__(
        self,
        url: str,
        *,
        engine: object = None,
        database: str | None = None,
        durability: str = "full",
        timeout_s: float = 30.0,
        size: int = 10,
        read_only: bool = False,
    ) -> None:
        self._url = url
        self._given: Any = engine
        if engine is not None and not isinstance(engine, pymongo.MongoClient):
            raise InvalidInput("engine", f"expected a pymongo.MongoClient, got {type(engine).__name__}")
        hosts, named = _parsed(url)
        self.database_name = _database(database if database is not None else named or DATABASE)
        self.name = f"{hosts}/{self.database_name}"
        self.durability = durability
        self.timeout_s = timeout_s
        self.read_only = read_only
        self._size = size
        self._closed = False
        self._inherited: list[Any] = []
        """Clients of the parent process: they are never touched again, nor collected."""
        self._open()
        try:
            self.server = self._look_around()
        except BaseException:
            self.close()
            raise
        full = durability == "full"
        replicated = self.server.replicated
        wait_ms = int(timeout_s * 1000) or 1
        self.write_concern = WriteConcern(w="majority" if replicated and full else 1, j=full, wtimeout=wait_ms)
        self.read_concern = ReadConcern("majority" if replicated and full else "local")

    def _open(self) -> None:
        self._pid = os.getpid()
        self._databases: dict[str, Database[Document]] = {}
        self._abandoned = Abandoned()
        if self._given is not None:
            self._client: pymongo.MongoClient[Document] = self._given
            return
        wait_ms = max(int(self.timeout_s * 1000), 1)
        try:
            self._client = pymongo.MongoClient(
                self._url,
                appname=application_name(),
                maxPoolSize=self._size,
                serverSelectionTimeoutMS=wait_ms,
                connectTimeoutMS=wait_ms,
                socketTimeoutMS=SILENCES * max(wait_ms, 1000),
                waitQueueTimeoutMS=wait_ms,
                retryReads=True,
                retryWrites=True,
                uuidRepresentation="standard",
            )
        except (ConfigurationError, InvalidURI, ValueError, TypeError) as error:
            raise InvalidInput("url", "expected mongodb://host/database with options that pymongo knows") from error
        self._forgotten = weakref.finalize(self, _close_forgotten, self._client, self._pid)
        self._forgotten.atexit = False

    def __repr__(self) -> str:
        return f"<Client {self.name}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- lending ------------------------------------------------------------------------------------------------------

    @property
    def client(self) -> "pymongo.MongoClient[Document]":
        """The driver's client, of this process.

        Raises:
            StoreUnavailable: it is closed.
        """
        if self._closed:
            raise StoreUnavailable(f"{self.name} is closed")
        if self._pid != os.getpid():
            self._inherited.append(self._client)
            self._open()
        return self._client

    def collection(self, name: str, *, local: bool = False) -> Documents:
        """Return a collection, read and written as is promised; ``local``: without waiting for that."""
        level = "local" if local else ""
        client = self.client
        database = self._databases.get(level)
        if database is None:
            database = self._databases[level] = client.get_database(
                self.database_name,
                read_preference=ReadPreference.PRIMARY,
                write_concern=QUICK if local else self.write_concern,
                read_concern=ReadConcern("local") if local else self.read_concern,
            )
        return database[name]

    @property
    def database(self) -> Database[Document]:
        """The database, read and written as is promised."""
        return self.collection("any").database

    @contextmanager
    def transaction(self) -> Generator[Session, None, None]:
        """Lend a session in a transaction that is committed at the end, or undone; nothing is translated.

        Raises:
            Undone, Broken: it was undone, by no fault of its own. Lost: it is not known whether it was committed.
        """
        self.require_writable()
        self.require_transactions()
        with self.client.start_session() as session:
            self.begin(session)
            with self.committing(session):
                yield session

    @contextmanager
    def committing(self, session: Session) -> Generator[None, None, None]:
        """Commit the transaction at the end, or undo it if that raises; see ``transaction``."""
        try:
            yield
            self.commit(session)
        except BaseException as error:
            meant = self.undone(session, error)
            if isinstance(meant, Undone):
                self.end_abandoned()
            if meant is error:
                raise
            raise meant from error

    @contextmanager
    def reading(self) -> Generator[Session | None, None, None]:
        """Lend a session in which all that is read is of one moment, and lasts; ``None`` where there is none such."""
        if not self.server.replicated or self.durability != "full":
            yield None
            return
        with self.client.start_session(snapshot=True) as session:
            yield session

    def begin(self, session: Session) -> None:
        """Begin a transaction in which everything read is of one moment."""
        self._abandoned.begun(session)
        self.end_what_broke()
        session.start_transaction(
            read_concern=ReadConcern("snapshot"),
            write_concern=self.write_concern,
            read_preference=ReadPreference.PRIMARY,
        )

    def has_begun(self, session: Session, first: Callable[[], object]) -> bool:
        """Begin a transaction with what others may be at just then; return whether none was, undone if one was."""
        self.begin(session)
        try:
            first()
        except BaseException as error:
            meant = self.undone(session, error)
            if isinstance(meant, Undone | Taken):
                return False
            if meant is error:
                raise
            raise meant from error
        return True

    def commit(self, session: Session) -> None:
        """Commit, asking again for as long as the answer is lost.

        Raises:
            Lost: there was none in time.
        """
        deadline = monotonic() + self.timeout_s
        while True:
            try:
                session.commit_transaction()
            except PyMongoError as error:
                if not error.has_error_label(UNKNOWN):
                    raise
                if monotonic() > deadline:
                    self._abandoned.left(session)
                    raise Lost from error
            else:
                return

    def undo(self, session: Session) -> None:
        """End a transaction without effect, if there is one; the server does so by itself, later."""
        if session.in_transaction:
            with suppress(PyMongoError):
                session.abort_transaction()
            self._abandoned.left(session)

    def undone(self, session: Session, error: BaseException) -> BaseException:
        """Undo a transaction in which ``error`` was raised; return what that means, see ``told``."""
        self.undo(session)
        meant = told(error)
        if isinstance(meant, Broken | Lost):
            self._abandoned.is_due = True
            self.end_what_broke()
        return meant

    def end_abandoned(self, *, now: bool = False) -> int:
        """End transactions that nobody will end, and return how many; without ``now`` it is not looked too often."""
        if now:
            return self._abandoned.end(self.client)
        return self._abandoned.end_now_and_then(self.client)

    def end_what_broke(self) -> None:
        """The same at once, if a connection broke in the midst of one."""
        if self._abandoned.is_due:
            self._abandoned.end(self.client)

    # --- what the server is -------------------------------------------------------------------------------------------

    def _look_around(self) -> Server:
        with self.translating():
            said = self.client.admin.command("hello")
            version = str(self.client.server_info()["version"])
        if said.get("maxWireVersion", 0) < OLDEST_WIRE:
            raise StoreUnavailable(f"{self.name}: expected MongoDB 5.0 or newer; it is {version}")
        return Server(version, "setName" in said or said.get("msg") == "isdbgrid")

    def require_writable(self) -> None:
        """Return if it may be written.

        Raises:
            StoreUnavailable: it was opened read-only.
        """
        if self.read_only:
            raise StoreUnavailable(f"{self.name} was opened read-only")

    def require_transactions(self, what: str = "this") -> None:
        """Return if the server knows transactions.

        Raises:
            StoreUnavailable: it does not.
        """
        if not self.server.replicated:
            words = f"{what} takes a transaction, and a standalone server has none"
            do = "start mongod with --replSet NAME and call rs.initiate() once: one member is enough"
            raise StoreUnavailable(f"{self.name}: {words}; {do}")

    # --- errors, end --------------------------------------------------------------------------------------------------

    @contextmanager
    def translating(self) -> Generator[None, None, None]:
        """Turn the driver's errors into turnlog's."""
        try:
            yield
        except PyMongoError as error:
            raise self.translated(error) from error

    @contextmanager
    def ending(self) -> Generator[None, None, None]:
        """As ``translating``, and what a transaction came to, for those who do not try again."""
        try:
            with self.translating():
                yield
        except Lost as error:
            raise OutcomeUnknown(f"{self.name}: the connection broke during a commit") from error.__cause__
        except Undone as error:
            raise WriteUndone(str(self.translated(error.__cause__ or error))) from error.__cause__
        except (Broken, Taken) as error:
            raise self.translated(error.__cause__ or error) from error.__cause__

    def translated(self, error: BaseException) -> TurnlogError:
        """Return the error of turnlog that says what the driver's means."""
        if self._closed or (isinstance(error, InvalidOperation) and "close" in str(error)):
            return StoreUnavailable(f"{self.name} is closed")
        if isinstance(error, DocumentTooLarge) or getattr(error, "code", None) in _TOO_LARGE:
            return InvalidInput("event", "it takes more than the 16 MiB that a document of MongoDB's holds")
        if isinstance(error, ServerSelectionTimeoutError):
            return StoreUnavailable(f"{self.name}: no server could be reached that can be written")
        words = " ".join(str(error).split())[:500] or type(error).__name__
        return (CorruptLog if type(error).__name__ == "InvalidBSON" else StoreUnavailable)(f"{self.name}: {words}")

    def close(self) -> None:
        """Close the client, if it is turnlog's own. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._pid == os.getpid() and self._given is None:
            self._forgotten.detach()
            with suppress(PyMongoError):
                self._client.close()


def _close_forgotten(client: "pymongo.MongoClient[Document]", pid: int) -> None:
    """Close a driver's client whose store was dropped without being closed: by itself it would only warn.

    In a thread, since nobody knows where, and under which locks, the interpreter collects what it collects.
    """
    if pid == os.getpid():
        threading.Thread(target=client.close, name="turnlog closing", daemon=True).start()


def _parsed(url: str) -> tuple[str, str | None]:
    """Return the hosts of a URL, as messages name them, and its database."""
    hosts = url.partition("://")[2].rpartition("@")[2].partition("/")[0].partition("?")[0]
    if url.startswith("mongodb+srv://"):
        return hosts, url.partition("://")[2].partition("/")[2].partition("?")[0] or None
    try:
        found = parse_uri(url, warn=False)
    except (ConfigurationError, InvalidURI, ValueError) as error:
        raise InvalidInput("url", "expected mongodb://user:password@host:port/database") from error
    return hosts, found.get("database")


def _database(name: object) -> str:
    if not isinstance(name, str) or not _DATABASE_NAME.fullmatch(name):
        raise InvalidInput("database", f"expected letters, digits, _ and -, at most 63, got {name!r:.100}")
    return name
