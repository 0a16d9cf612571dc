"""The order of a log on MariaDB: one row says which position was given last, and whoever appends holds it.

An append begins by raising that row by as many positions as it has events. The row stays locked until the commit, so
appends are committed one after the other, in the order of their positions, and a rolled-back one leaves no gap. While
it is held nobody else appends or erases: what is read then, on the same connection, is how the log is.

Where the connection takes several statements at a time, the whole transaction is one packet and one round trip: the
lock is never held while a client thinks or a packet travels.
"""

from collections.abc import Iterable, Sequence

import pymysql

from turnlog.adapters.library import Row
from turnlog.adapters.mariadb.connection import Asking, Connection, number, rendered, run, several
from turnlog.adapters.mariadb.pool import Pool
from turnlog.domain.errors import CorruptLog, InvalidInput

LARGEST_PACKET_BYTES = 8 << 20
"""What is larger is sent in several packets, however much the server takes: it is held in memory on both sides."""
_SPARE_BYTES = 1024
_NO_POSITION = frozenset({1690, 3819, 4025})
"""Numbers of the errors that a position below 1 gives: out of range, and a CHECK in MySQL and in MariaDB."""
_RAISE = "UPDATE {head} SET position = LAST_INSERT_ID(position + %s) WHERE id = 1"
_HOLD = "SELECT position FROM {head} WHERE id = 1 FOR UPDATE"
_SET = "UPDATE {head} SET position = %s WHERE id = 1"
_INSERT = b"INSERT INTO %s (position, originator_id, originator_version, topic, state) VALUES "
_VALUES = "({first} + %s, %s, %s, %s, %s)"


class Head:
    """Gives positions to the rows of one table of events; ``events`` is its name."""

    def __init__(self, pool: Pool, events: str) -> None:
        self._pool = pool
        self.events = pool.table(events)
        self.table = pool.table(head_name(events))
        self._insert = _INSERT % self.events.encode()
        self._select = f"SELECT position FROM {self.table} WHERE id = 1"
        self._hold, self._set = _HOLD.format(head=self.table), _SET.format(head=self.table)
        # Should the row not be there, 0 keeps a number of another append from being taken for one: it is refused.
        self._begin = f"START TRANSACTION; DO LAST_INSERT_ID(0); {_RAISE.format(head=self.table)}"

    def position(self, source: Asking | None = None) -> int:
        """Return the position that was given last, 0 if there was none."""
        return self._one((source or self._pool).rows(self._select))

    def seen(self, connection: Connection) -> int:
        """Return the position that was given last, as a connection sees it."""
        return self._one(list(run(connection, self._select).fetchall()))

    def commit(self, connection: Connection, rows: Sequence[Row], also: Sequence[bytes] = ()) -> int | None:
        """Commit rows, and the statements that follow them, in one round trip; return the last row's position.

        ``None``, with nothing done: that needs a transaction of several (``hold`` and ``insert``).
        """
        if not several(connection):
            return None
        statements = self._inserts(f"LAST_INSERT_ID() - {len(rows)}", rows) if rows else []
        packet = b"; ".join((rendered(self._begin, (len(rows),)), *statements, *also, b"COMMIT"))
        if len(packet) > self._largest:
            return None
        position = 0
        try:
            cursor = run(connection, packet)
            while cursor.nextset():
                position = cursor.lastrowid or position
        except pymysql.Error as error:
            if number(error) in _NO_POSITION:
                raise self._missing() from error
            raise
        return position

    def hold(self, connection: Connection) -> int:
        """Keep other writers out until the transaction ends; return the position that was given last."""
        return self._one(list(run(connection, self._hold).fetchall()))

    def insert(self, connection: Connection, after: int, rows: Sequence[Row], also: Sequence[bytes] = ()) -> int:
        """Insert rows above the position ``after``, which ``hold`` gave, and execute what follows; return the last."""
        position = after + len(rows)
        statements = [rendered(self._set, (position,)), *self._inserts(str(after), rows)] if rows else []
        self.send(connection, [*statements, *also])
        return position

    def send(self, connection: Connection, statements: Sequence[bytes]) -> None:
        """Execute statements that return nothing, in few round trips."""
        for packet in self._packets(connection, statements):
            cursor = run(connection, packet)
            while cursor.nextset():
                pass

    def _inserts(self, first: str, rows: Sequence[Row]) -> list[bytes]:
        one = _VALUES.format(first=first)
        return self.statements(self._insert, (rendered(one, (n, *row)) for n, row in enumerate(rows, 1)))

    def statements(self, begin: bytes, values: Iterable[bytes]) -> list[bytes]:
        """Return statements that begin so and have values after it, each small enough to be sent.

        Raises:
            InvalidInput: one of the values is too large for the server.
        """
        made: list[bytes] = []
        held: list[bytes] = []
        size = 0
        for value in values:
            self._require_small(len(value))
            if held and size + len(value) > self._largest // 2:
                made.append(begin + b", ".join(held))
                held, size = [], 0
            held.append(value)
            size += len(value) + 2
        return [*made, begin + b", ".join(held)] if held else made

    def _packets(self, connection: Connection, statements: Sequence[bytes]) -> list[bytes]:
        if not several(connection):
            return list(statements)
        packets: list[bytes] = []
        for statement in statements:
            if packets and len(packets[-1]) + len(statement) < self._largest:
                packets[-1] += b"; " + statement
            else:
                packets.append(statement)
        return packets

    @property
    def _largest(self) -> int:
        return min(self._pool.server.packet_bytes - _SPARE_BYTES, LARGEST_PACKET_BYTES)

    def _require_small(self, size: int) -> None:
        most = self._pool.server.packet_bytes - _SPARE_BYTES
        if size > most:
            raise InvalidInput("event", f"it takes {size} bytes; max_allowed_packet is {most + _SPARE_BYTES}")

    def _one(self, rows: Sequence[tuple[int]]) -> int:
        if not rows:
            raise self._missing()
        return rows[0][0]

    def _missing(self) -> CorruptLog:
        return CorruptLog(f"{self._pool.name}: {self.table} has no row: it is not known which position comes next")


def head_name(events: str) -> str:
    """Return the name of the table with the row that belongs to a table of events."""
    return f"{events}_head"
