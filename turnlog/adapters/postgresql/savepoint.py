"""Trying a projection inside a transaction of PostgreSQL's, and whom to blame for what it raises."""

from collections.abc import Generator
from contextlib import contextmanager

import psycopg
from psycopg import errors, pq

from turnlog.adapters.postgresql.connection import Connection, run
from turnlog.domain.errors import StoreUnavailable

_FAILURES = frozenset({"08", "25", "28", "40", "53", "55", "57", "58", "XX"})
"""Classes of SQLSTATE that say the trouble is the server's, or another transaction's."""
_INSIDE = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)


@contextmanager
def savepoint(connection: Connection) -> Generator[None, None, None]:
    """Undo what is done inside if it raises, or if a statement failed there; the transaction goes on.

    Raises:
        StoreUnavailable: what was done inside ended the transaction.
    """
    run(connection, "SAVEPOINT turnlog_attempt", prepare=False)
    try:
        yield
        if connection.info.transaction_status == pq.TransactionStatus.INERROR:
            raise errors.InFailedSqlTransaction("a statement failed, and its error was not let out")
    except BaseException as error:
        if not connection.closed and isinstance(error, Exception):
            _end(connection, "ROLLBACK TO turnlog_attempt")
        raise
    _end(connection)


def _end(connection: Connection, *statements: str) -> None:
    words = "the transaction of a view's rows was ended inside; a projection must not commit or roll back"
    if connection.info.transaction_status not in _INSIDE:
        raise StoreUnavailable(words)
    try:
        for statement in (*statements, "RELEASE turnlog_attempt"):
            run(connection, statement, prepare=False)
    except errors.InvalidSavepointSpecification as error:
        raise StoreUnavailable(words) from error


def of_the_server(error: Exception) -> bool:
    """Return whether the server is to blame for ``error``, or a lost connection; not what the statement said."""
    if not isinstance(error, psycopg.Error):
        return isinstance(error, StoreUnavailable)
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate[:2] in _FAILURES and not isinstance(error, errors.InFailedSqlTransaction)
