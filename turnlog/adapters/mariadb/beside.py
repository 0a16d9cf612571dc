"""One connection more than the pool has: for what is asked while an application's transaction may hold up the others.

Writers wait for such a transaction with all the connections that the pool has, and it may itself be on the last one.
"""

import os
from threading import Lock
from time import monotonic
from typing import Any
from uuid import uuid4

import pymysql

from turnlog.adapters.mariadb.connection import Connection, Parameters, drop, is_cut, run
from turnlog.adapters.mariadb.pool import Pool


class Beside:
    """The connection: made when it is first asked for, and anew where it broke; threads take turns."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._connection: Connection | None = None
        self._used = 0.0
        self._begin_anew()

    def rows(self, statement: str, parameters: Parameters = ()) -> list[Any]:
        """Return what one reading statement gives, of what is committed; see ``Pool.rows``."""
        self._require_own()
        with self._lock, self._pool.translating():
            connection = self._connected()
            try:
                return list(run(connection, statement, parameters).fetchall())
            except pymysql.Error as error:
                if not is_cut(connection, error):
                    raise
            return list(run(self._connected(), statement, parameters).fetchall())

    def sign(self, *, anew: bool = False) -> tuple[str, int]:
        """Return a lock's name and the number of the connection that holds it, which this server alone can confirm.

        ``anew``: on another connection, should the server have been started since.
        """
        self._require_own()
        with self._lock, self._pool.translating():
            if anew:
                self._let_go()
            self._connected()
            return self._sign

    def close(self) -> None:
        """Close it. It is made anew where it is asked for again, unless the pool was closed."""
        self._require_own()
        with self._lock:
            self._let_go()

    def _connected(self) -> Connection:
        if self._connection is None or not self._pool.lives(self._connection, self._used):
            if self._connection is not None and self._connection.open:
                drop(self._connection)
            connection = self._pool.session(patient=False)
            name = f"turnlog:{uuid4().hex}"
            ((_, number),) = run(connection, "SELECT GET_LOCK(%s, 0), CONNECTION_ID()", (name,)).fetchall()
            self._connection, self._sign = connection, (name, number)
        self._used = monotonic()
        return self._connection

    def _let_go(self) -> None:
        if self._connection is not None and self._connection.open:
            self._connection.close()
        self._connection = None

    def _require_own(self) -> None:
        if self._pid != os.getpid():
            self._abandoned = self._connection  # the socket is the parent's, and so may be who holds the lock
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid, self._lock = os.getpid(), Lock()
        self._connection = None
        self._sign = ("", 0)
