"""Trying a projection inside a transaction of MariaDB's, and whom to blame for what it raises."""

from collections.abc import Generator
from contextlib import contextmanager

import pymysql

from turnlog.adapters.mariadb.connection import HUNG_UP, Connection, number, run
from turnlog.domain.errors import StoreUnavailable

_FAILURES = HUNG_UP | {
    1020,  # a record has changed since it was read
    1021,  # the disk is full
    1028,  # sorting was ended
    1030,  # the storage engine's own trouble
    1034,  # a damaged index
    1036,  # a table is read-only
    1037,  # no memory left
    1038,  # as 1037, for sorting
    1040,  # too many connections
    1041,  # as 1037
    1114,  # a table is full
    1135,  # no thread to be had
    1158,  # the network: reading, its time, writing, its time
    1159,
    1160,
    1161,
    1180,  # a commit failed
    1194,  # a damaged table, and one that could not be repaired
    1195,
    1203,  # too many connections of one user
    1205,  # a lock was waited for too long
    1206,  # too many locks
    1213,  # a deadlock: all of the transaction is undone
    1290,  # the server is read-only
    1297,  # temporary trouble, so it says
    1402,  # a rollback failed
    1613,  # as 1213, in a distributed transaction
    1614,
    1712,  # a damaged index
    1792,  # the transaction is read-only
    1836,  # as 1290
    1877,  # a damaged table
    1969,  # the statement took too long
    3024,  # as 1969, on MySQL
    3572,  # a lock is held, on MySQL
}
"""Numbers of errors which say that the trouble is the server's, or another transaction's."""
NO_SAVEPOINT = 1305
"""The number of the error that a savepoint gives which is not there: the transaction it was in is over."""


@contextmanager
def savepoint(connection: Connection) -> Generator[None, None, None]:
    """Undo what is done inside if it raises; the transaction goes on, unless the server is to blame.

    Raises:
        StoreUnavailable: what was done inside ended the transaction.
    """
    run(connection, "SAVEPOINT turnlog_attempt")
    try:
        yield
    except Exception as error:
        if connection.open and not of_the_server(error):
            _end(connection, "ROLLBACK TO turnlog_attempt")
        raise
    _end(connection)


def _end(connection: Connection, *statements: str) -> None:
    try:
        for statement in (*statements, "RELEASE SAVEPOINT turnlog_attempt"):
            run(connection, statement)
    except pymysql.Error as error:
        if number(error) != NO_SAVEPOINT:
            raise
        words = (
            "the transaction of a view's rows was ended inside;"
            " a projection must not commit or roll back, nor create, alter or drop what is not temporary"
        )
        raise StoreUnavailable(words) from error


def of_the_server(error: Exception) -> bool:
    """Return whether the server is to blame for ``error``, or a lost connection; not what the statement said."""
    if not isinstance(error, pymysql.Error):
        return isinstance(error, StoreUnavailable)
    return isinstance(error, pymysql.InterfaceError) or number(error) in _FAILURES
