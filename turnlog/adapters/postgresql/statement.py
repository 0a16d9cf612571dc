"""A statement prepared once a connection and sent as bytes: an append's parameters are bytes already, or nearly.

What psycopg's cursors do besides, for parameters and rows of any type, is most of a small statement's client time
(measured: docs/decisions/0013).
"""

from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from struct import Struct
from typing import Final
from weakref import WeakSet

from psycopg import errors, generators, pq

from turnlog.adapters.postgresql.connection import Connection

TEXT, INT8, BYTEA = 25, 20, 17
"""Object ids of types, the same on every server."""
int8: Final = Struct("!q").pack
"""Encode a bigint."""
_BINARY = pq.Format.BINARY
_GOOD = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)


class Statement:
    """One statement; parameters are ``$1``, ``$2``, …, of the types given, in PostgreSQL's binary form."""

    def __init__(self, text: str, types: Sequence[int]) -> None:
        self.text = text
        self._text = text.encode()
        self._types = types
        self._formats = [_BINARY] * len(types)
        self._name = b"turnlog_" + sha256(self._text).hexdigest()[:24].encode()
        self._prepared: WeakSet[Connection] = WeakSet()

    def run(self, connection: Connection, parameters: Sequence[bytes]) -> pq.abc.PGresult:
        """Send it on a connection in autocommit mode, and return the result.

        Where the connection must not prepare statements (``prepare_threshold=None``), it is sent whole.

        Raises:
            psycopg.Error: as a cursor would.
        """
        server = connection.pgconn
        if connection.prepare_threshold is None:
            server.send_query_params(self._text, parameters, self._types, self._formats, _BINARY)
            return _result(connection)
        if connection not in self._prepared:
            self._prepare(connection)
        server.send_query_prepared(self._name, parameters, self._formats, _BINARY)
        try:
            return _result(connection)
        except errors.InvalidSqlStatementName:  # an application's pool discarded it; nothing was done
            self._prepare(connection)
            server.send_query_prepared(self._name, parameters, self._formats, _BINARY)
            return _result(connection)

    def _prepare(self, connection: Connection) -> None:
        connection.pgconn.send_prepare(self._name, self._text, self._types)
        with suppress(errors.DuplicatePreparedStatement):  # by another store, on the same connection
            _result(connection)
        self._prepared.add(connection)


def _result(connection: Connection) -> pq.abc.PGresult:
    result: pq.abc.PGresult = connection.wait(generators.execute(connection.pgconn))[-1]
    if result.status not in _GOOD:
        raise errors.error_from_result(result)
    return result
