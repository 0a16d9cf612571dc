"""Where views are in MongoDB: at home, under their own names, or on a bench, where a new generation is built.

The catch-up lock is a document that every transaction which writes views, or erases, changes first: of two, MongoDB
undoes the second at once. It ends with the transaction; that of a process that died the server ends within a minute.
It does not keep appenders out.

A bench is claimed by a document that names the process. Who finds its owner dead (on this machine at once, else when it
has not been renewed for a while) takes it over; the old owner, should it live after all, cannot commit any more.
"""

import os
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic, sleep, time
from typing import Any
from uuid import uuid4

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError

from turnlog.adapters.between_threads import Mutex
from turnlog.adapters.mongodb.abandoned import lives
from turnlog.adapters.mongodb.client import Client, Session
from turnlog.adapters.mongodb.outcomes import is_duplicate
from turnlog.adapters.mongodb.view_connection import ViewConnection
from turnlog.adapters.names import Names
from turnlog.domain.errors import StoreUnavailable

LOCK = " lock"
LEASE_S = 60.0
"""A claim that was not renewed for so long is free."""
_PAUSE_S = 0.01


class Home:
    """The views that answer, under their own names.

    Args:
        mend: ends what somebody did not live to end; returns whether the transaction has to begin anew.
    """

    prefix = ""

    def __init__(self, client: Client, names: Names, mend: Callable[[ViewConnection], bool]) -> None:
        self._client = client
        self._views = names.views
        self._mend = mend
        self._mutex = Mutex()

    @contextmanager
    def read(self) -> Generator[ViewConnection, None, None]:
        """Lend a connection outside of any transaction."""
        with self._client.translating():
            yield ViewConnection(self._client)

    @contextmanager
    def write(self, *, wait: bool = True) -> Generator[ViewConnection | None, None, None]:
        """Lend a connection in a transaction under the catch-up lock; ``None`` if that would take waiting for.

        Raises:
            StoreUnavailable: the lock was not to be had in time.
        """
        with self._client.ending(), self.transaction(wait=wait) as connection:
            yield connection

    @contextmanager
    def transaction(self, *, wait: bool = True) -> Generator[ViewConnection | None, None, None]:
        """As ``write``, for those who try again: what the transaction came to is not translated."""
        self._client.require_writable()
        deadline = monotonic() + (self._client.timeout_s if wait else 0)
        with self._mutex.held(self._client.timeout_s if wait else 0) as ours:
            if not ours:
                self._refuse(wait=wait)
                yield None
                return
            with self._client.client.start_session() as session:
                connection = ViewConnection(self._client, session=session)
                while not self._begun(connection):
                    if self._client.end_abandoned():
                        continue
                    if monotonic() >= deadline:
                        self._refuse(wait=wait)
                        yield None
                        return
                    sleep(_PAUSE_S)
                with self._client.committing(session):
                    yield connection

    def _begun(self, connection: ViewConnection) -> bool:
        """Begin a transaction under the lock, in which nothing is left to be mended; return whether it was free."""
        session = _session_of(connection)

        def mend() -> None:
            if self._mend(connection):
                self._client.commit(session)

        while self.begin(connection, mend):
            if session.in_transaction:
                return True
        return False

    def begin(self, connection: ViewConnection, then: Callable[[], object] = lambda: None) -> bool:
        """Begin a transaction under the lock and do ``then``; return whether nobody else was at it."""
        session = _session_of(connection)
        connection.written = []

        def hold() -> None:
            connection.held = self.hold(session)
            then()

        return self._client.has_begun(session, hold)

    def hold(self, session: Session) -> int:
        """Keep everybody else from writing views until the transaction ends; the driver's error if they are at it.

        Returns how often the lock was held, this time included.
        """
        done: Any = self._client.collection(self._views).find_one_and_update(
            {"_id": LOCK},
            {"$inc": {"held": 1}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        return int(done["held"])

    def _refuse(self, *, wait: bool) -> None:
        if wait:
            words = f"the views were being written for {self._client.timeout_s:g} s"
            raise StoreUnavailable(f"{self._client.name}: {words}")


class Bench:
    """Collections whose names begin with ``prefix``: one process builds there, nobody else looks."""

    def __init__(self, client: Client, prefix: str, claims: "Claims", claim: str, owner: str) -> None:
        self._client = client
        self.prefix = prefix
        self._claims, self._claim, self._owner = claims, claim, owner
        self._renewed = monotonic()

    @contextmanager
    def read(self) -> Generator[ViewConnection, None, None]:
        """Lend a connection outside of any transaction."""
        with self._client.translating():
            yield ViewConnection(self._client, self.prefix)

    @contextmanager
    def write(self, *, wait: bool = True) -> Generator[ViewConnection | None, None, None]:  # noqa: ARG002 - the port's
        """Lend a connection in a transaction that commits only if the bench is still ours."""
        with self._client.ending(), self._client.client.start_session() as session:
            connection = ViewConnection(self._client, self.prefix, session)
            self.begin(connection)
            with self._client.committing(session):
                yield connection

    def begin(self, connection: ViewConnection) -> bool:
        """Begin a transaction that holds the claim, and sees all that was written here before it was last renewed."""
        session = _session_of(connection)
        connection.written = []
        deadline = monotonic() + self._client.timeout_s
        while not self._client.has_begun(session, lambda: self._claims.renew(self._claim, self._owner, session)):
            if monotonic() >= deadline:
                raise StoreUnavailable(f"{self._client.name}: what was built was not to be had in time")
            sleep(_PAUSE_S)
        return True

    def renew(self, *, at_once: bool = False) -> None:
        """Renew the claim; without ``at_once`` only where that was not done for a while.

        It is done at once after something was written outside of a transaction: see ``begin``.

        Raises:
            StoreUnavailable: somebody else has taken it over.
        """
        if at_once or monotonic() - self._renewed > LEASE_S / 4:
            self._claims.renew(self._claim, self._owner)
            self._renewed = monotonic()


class Claims:
    """Claims on benches, kept beside the views' records."""

    def __init__(self, client: Client, names: Names) -> None:
        self._client = client
        self._views = names.views

    def take(self, claim: str) -> str | None:
        """Claim a bench; return the owner's mark, or ``None`` where somebody else builds there."""
        owner = uuid4().hex
        place = {"owner": owner, "host": socket.gethostname()[:80], "pid": os.getpid(), "until": time() + LEASE_S}
        claims = self._client.collection(self._views)
        try:
            claims.insert_one({"_id": claim, **place})
        except DuplicateKeyError:
            held = claims.find_one({"_id": claim})
            if held is None:
                return self.take(claim)
            if not _is_free(held["until"], held["host"], held["pid"]):
                return None
            self._client.end_abandoned(now=True)  # a transaction of the old owner's holds the claim
            taken = claims.replace_one({"_id": claim, "owner": held["owner"]}, place)
            return owner if taken.matched_count else None
        return owner

    def renew(self, claim: str, owner: str, session: Session | None = None) -> None:
        """Renew a claim, in a transaction if one is given.

        What a transaction sees can be older than what was acknowledged before it began. It would not find a claim that
        is new; what it then inserts the server refuses, as it refuses to change what was changed since.

        Raises:
            StoreUnavailable: somebody else has taken it over.
        """
        change = {"$set": {"until": time() + LEASE_S}}
        claims = self._client.collection(self._views)
        try:
            done: Any = claims.update_one(
                {"_id": claim, "owner": owner}, change, upsert=session is not None, session=session
            )
            is_ours = done.matched_count == 1
        except DuplicateKeyError:
            is_ours = False
        if not is_ours:
            raise StoreUnavailable(f"{self._client.name}: another process has taken over what was built here")

    def release(self, claim: str, owner: str) -> None:
        """Give it up."""
        self._client.collection(self._views).delete_one({"_id": claim, "owner": owner})

    def is_held(self, claim: str) -> bool:
        """Return whether somebody builds there."""
        held = self._client.collection(self._views).find_one({"_id": claim})
        return held is not None and not _is_free(held["until"], held["host"], held["pid"])


def of_the_server(error: Exception) -> bool:
    """Return whether the server is to blame for ``error``, or a lost connection; not what the statement said."""
    if isinstance(error, OperationFailure) and not error.has_error_label("TransientTransactionError"):
        return not is_duplicate(error) and (error.code or 0) in _FAILURES
    return isinstance(error, (PyMongoError, StoreUnavailable))


_FAILURES = frozenset({6, 7, 89, 91, 189, 216, 251, 256, 9001, 10107, 11600, 11602, 13388, 13435, 13436})
"""Codes of errors that say the trouble is the server's: the network, its end, its role, a transaction that is gone."""


def _session_of(connection: ViewConnection) -> Session:
    if connection.session is None:
        raise StoreUnavailable("this connection has no transaction")
    return connection.session


def _is_free(until: float, host: str, pid: int) -> bool:
    """Return whether a claim has run out, or its process on this machine is no more."""
    return until < time() or not lives(host, pid)
