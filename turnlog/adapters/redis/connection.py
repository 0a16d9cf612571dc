"""What a store of views in Redis lends: one for all views, and to an application's projection one of its own.

An application's projection is given ``Records``: tables by name, rows by text, values that are JSON. It reads what is
there and what it has written itself; all that is written is committed with the checkpoint, or not at all.
"""

from typing import Any

import msgspec

from turnlog.adapters.redis.lease import Turn
from turnlog.adapters.redis.tables import InRedis, Nowhere, Row, Stored, Tables, after_all
from turnlog.domain.errors import InvalidInput

GENERATIONS = b"generations"
"""The table of bookkeeping that says which generation of a view answers."""
ANSWERING = b"books:"
"""How the tables of bookkeeping begin of those views that answer; those of a workshop begin otherwise."""


class ViewTables:
    """The tables of one generation of a view, under their own names."""

    def __init__(self, tables: Tables, base: bytes) -> None:
        self._tables = tables
        self._base = base

    def get(self, table: bytes, key: bytes) -> bytes | None:
        """See ``Tables``."""
        return self._tables.get(self._base + table, key)

    def get_all(self, table: bytes, keys: list[bytes]) -> list[bytes | None]:
        """See ``Tables``."""
        return self._tables.get_all(self._base + table, keys)

    def put(self, table: bytes, key: bytes, value: bytes = b"") -> None:
        """See ``Tables``."""
        self._tables.put(self._base + table, key, value)

    def delete(self, table: bytes, key: bytes) -> None:
        """See ``Tables``."""
        self._tables.delete(self._base + table, key)

    def range(
        self, table: bytes, low: bytes = b"", high: bytes = b"", *, reverse: bool = False, limit: int | None = None
    ) -> list[Row]:
        """See ``Tables``."""
        return self._tables.range(self._base + table, low, high, reverse=reverse, limit=limit)


class Connection:
    """Reads and, in a transaction, remembers what is to be written.

    Args:
        stored: where rows are.
        books: how the tables of bookkeeping begin.
        turn: under which is written; ``None``: only read.
    """

    def __init__(self, stored: Stored, root: bytes, books: bytes, turn: Turn | None = None) -> None:
        self.tables = Tables(stored)
        self.turns = [] if turn is None else [turn]
        """What is written is written only if all of these last."""
        self._root = root
        self._books = books
        self._generations: set[bytes] = set()

    @property
    def lease(self) -> bytes:
        """The token of the turn at the views that answer."""
        return self.turns[0].token

    @property
    def books(self) -> ViewTables:
        """The tables of bookkeeping."""
        return ViewTables(self.tables, self._books)

    def generation(self, view: str) -> bytes | None:
        """Return which generation of a view answers."""
        return self.books.get(GENERATIONS, view.encode())

    def of(self, view: str) -> ViewTables:
        """Return a view's tables, of the generation that answers (of a workshop: that is being built).

        Raises:
            InvalidInput: the view is not there.
        """
        self.renew()
        generation = self.generation(view)
        if generation is None:
            raise InvalidInput("view", f"there is no view {view!r}")
        begins = base(view, generation)
        self._generations.add(begins[:-1])
        return ViewTables(self.tables, begins)

    def renew(self, *, at_once: bool = False) -> None:
        """Make all turns last: see ``Turn``."""
        for turn in self.turns:
            turn.renew(at_once=at_once)

    def writes(self) -> list[bytes | str | int]:
        """Return what was written, as arguments of a script; the tables of each generation are noted with it."""
        self.list_tables(self.tables)
        return self.tables.writes(self._root)

    def list_tables(self, among: Tables) -> None:
        """Note the tables of each generation that was written to, so that they can be found to be deleted."""
        for table in self.tables.touched():
            generation = table.partition(b":")[0]
            if generation in self._generations:
                among.put(generation + TABLES, table)


TABLES = b":tables"
"""How the name of the table ends that lists the tables of a generation."""


def base(view: str, generation: bytes) -> bytes:
    """Return how the names of the tables of a generation begin."""
    return f"{view}.".encode() + generation + b":"


def in_memory(root: bytes, books: bytes) -> Connection:
    """Return a connection to nowhere: what is written stays in it."""
    return Connection(Nowhere(), root, books)


def in_redis(server: Any, root: bytes, books: bytes, turn: Turn | None) -> Connection:
    """Return a connection to a server."""
    return Connection(InRedis(server, root), root, books, turn)


class Records:
    """What an application's projection reads and writes: tables, by name, of rows with a text for a key.

    Rows of a table are in the order of their keys' UTF-8 bytes. Values are what JSON can hold, but no ``None``.
    """

    def __init__(self, tables: ViewTables) -> None:
        self._tables = tables

    def get(self, table: str, key: str) -> Any:
        """Return the value of a key, ``None`` where there is none."""
        value = self._tables.get(_table(table), key.encode())
        return None if value is None else msgspec.json.decode(value)

    def put(self, table: str, key: str, value: Any) -> None:
        """Have a key with this value."""
        self._tables.put(_table(table), key.encode(), msgspec.json.encode(value))

    def delete(self, table: str, key: str) -> None:
        """Have a key no longer, if it is there."""
        self._tables.delete(_table(table), key.encode())

    def range(
        self, table: str, *, prefix: str = "", after: str = "", reverse: bool = False, limit: int | None = None
    ) -> list[tuple[str, Any]]:
        """Return the rows (key, value) whose keys begin with ``prefix`` and are above ``after``, in order."""
        low = max(prefix.encode(), after.encode() + b"\0" if after else b"")
        rows = self._tables.range(_table(table), low, after_all(prefix.encode()), reverse=reverse, limit=limit)
        return [(key.decode(), msgspec.json.decode(value)) for key, value in rows]


def _table(name: str) -> bytes:
    if not name.isidentifier() or not name.isascii() or name == TABLES[1:].decode():
        raise InvalidInput("table", f"expected letters, digits and _, not 'tables', got {name!r:.100}")
    return name.encode()
