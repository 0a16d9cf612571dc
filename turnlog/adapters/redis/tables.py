"""What views are kept in: tables, which are maps from keys to values, both bytes, in the order of the keys' bytes.

A table is two keys of Redis: a hash (``…:rows``), and a sorted set (``…:order``) whose members all have the score 0 and
so stand in the order of their bytes. An empty value is in no hash: such a table is an index, its keys say it all.

What is written is first only remembered, and seen by who wrote it; a script writes it all at once (write.lua).
"""

from bisect import bisect_left, insort
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from turnlog.adapters.redis.cluster import Cluster
from turnlog.adapters.redis.scripts import RANGE
from turnlog.adapters.redis.server import Server

Row = tuple[bytes, bytes]
"""(key, value)."""
PAGE = 1_000


class Stored(Protocol):
    """Where rows are that were written before."""

    def get(self, table: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return values; of those that are not there, or empty, ``None``."""
        ...

    def range(self, table: bytes, low: bytes, high: bytes, *, reverse: bool, limit: int) -> list[Row]:
        """Return rows with ``low <= key < high``, the first ``limit`` (-1: all) in the order that is asked for."""
        ...


class InRedis:
    """Rows under one prefix of a server."""

    def __init__(self, server: Server | Cluster, root: bytes) -> None:
        self._server = server
        self._root = root

    def get(self, table: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """See ``Stored``."""
        found: list[bytes | None] = self._server.read("HMGET", self._root + table + b":rows", *keys)
        return found

    def range(self, table: bytes, low: bytes, high: bytes, *, reverse: bool, limit: int) -> list[Row]:
        """See ``Stored``."""
        name = self._root + table
        given = (b"[" + low if low else b"-", b"(" + high if high else b"+", "REV" if reverse else "", limit)
        keys, values = self._server.read_script(RANGE, (name + b":order", name + b":rows"), given)
        return list(zip(keys, values, strict=True))


class Nowhere:
    """No rows: for what is built and compared in memory."""

    def get(self, table: bytes, keys: Sequence[bytes]) -> list[bytes | None]:  # noqa: ARG002 - the port's
        """See ``Stored``."""
        return [None] * len(keys)

    def range(self, table: bytes, low: bytes, high: bytes, *, reverse: bool, limit: int) -> list[Row]:  # noqa: ARG002 - the port's
        """See ``Stored``."""
        return []


class Tables:
    """Rows as they are, with what was written since over them."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._written: dict[bytes, dict[bytes, bytes | None]] = {}
        self._sorted: dict[bytes, list[bytes]] = {}
        self._undo: list[tuple[bytes, bytes, bool, bytes | None]] = []

    def get(self, table: bytes, key: bytes) -> bytes | None:
        """Return the value of a key, ``None`` where there is none or it is empty."""
        return self.get_all(table, (key,))[0]

    def get_all(self, table: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of keys; see ``get``."""
        written = self._written.get(table, {})
        missing = [key for key in keys if key not in written]
        found = dict(zip(missing, self._stored.get(table, missing), strict=True)) if missing else {}
        return [(written[key] or None) if key in written else found[key] for key in keys]

    def put(self, table: bytes, key: bytes, value: bytes = b"") -> None:
        """Have a key with this value from now on."""
        self._write(table, key, value)

    def delete(self, table: bytes, key: bytes) -> None:
        """Have a key no longer, if it is there."""
        self._write(table, key, None)

    def range(
        self, table: bytes, low: bytes = b"", high: bytes = b"", *, reverse: bool = False, limit: int | None = None
    ) -> list[Row]:
        """Return rows with ``low <= key < high`` (empty: no bound), in order or, with ``reverse``, from the end."""
        written, keys = self._written.get(table, {}), self._sorted.get(table, [])
        end = bisect_left(keys, high) if high else len(keys)
        ours = {key: written[key] for key in keys[bisect_left(keys, low) : end]}
        asked = -1 if limit is None else limit + len(ours)
        rows: dict[bytes, bytes | None] = dict(self._stored.range(table, low, high, reverse=reverse, limit=asked))
        if ours:
            rows.update(ours)
        there = ((key, rows[key]) for key in (sorted(rows, reverse=reverse) if ours else rows))
        return [(key, value) for key, value in there if value is not None][:limit]

    def walk(self, table: bytes) -> Iterator[Row]:
        """Yield all rows in order, in pages."""
        low = b""
        while page := self.range(table, low, limit=PAGE):
            yield from page
            low = page[-1][0] + b"\0"

    @contextmanager
    def attempt(self) -> Generator[None, None, None]:
        """Forget what is written inside if it raises."""
        mark = len(self._undo)
        try:
            yield
        except BaseException:
            for table, key, was_written, before in reversed(self._undo[mark:]):
                if was_written:
                    self._written[table][key] = before
                else:
                    del self._written[table][key]
                    keys = self._sorted[table]
                    del keys[bisect_left(keys, key)]
            del self._undo[mark:]
            raise

    def touched(self) -> list[bytes]:
        """Return the tables that were written to."""
        return [table for table, rows in self._written.items() if rows]

    def writes(self, root: bytes) -> list[bytes | str | int]:
        """Return what was written as the arguments that the scripts take; see prelude.lua."""
        return _arguments(root, self._written)

    def steps(self, root: bytes, most: int, last: bytes) -> Iterator[list[bytes | str | int]]:
        """Yield the same in steps of at most so many rows; tables whose names begin with ``last`` are the last one."""
        for table, rows in self._written.items():
            items = [] if table.startswith(last) else list(rows.items())
            for at in range(0, len(items), most):
                yield _arguments(root, {table: dict(items[at : at + most])})
        yield _arguments(root, {table: rows for table, rows in self._written.items() if table.startswith(last)})

    def __len__(self) -> int:
        return sum(map(len, self._written.values()))

    def _write(self, table: bytes, key: bytes, value: bytes | None) -> None:
        rows = self._written.setdefault(table, {})
        was_written = key in rows
        if not was_written:
            insort(self._sorted.setdefault(table, []), key)
        self._undo.append((table, key, was_written, rows.get(key)))
        rows[key] = value


def after_all(prefix: bytes) -> bytes:
    """Return what follows every key that begins with ``prefix``, whose last byte is not 255."""
    return prefix[:-1] + bytes((prefix[-1] + 1,)) if prefix else b""


def _arguments(root: bytes, written: Mapping[bytes, Mapping[bytes, bytes | None]]) -> list[bytes | str | int]:
    arguments: list[bytes | str | int] = [sum(bool(rows) for rows in written.values())]
    for table, rows in written.items():
        if rows:
            puts = [(key, value) for key, value in rows.items() if value is not None]
            deletes = [key for key, value in rows.items() if value is None]
            arguments += (root + table + b":rows", root + table + b":order", len(puts), len(deletes))
            arguments += _flat(puts)
            arguments += deletes
    return arguments


def _flat(pairs: Iterable[Row]) -> Iterator[bytes]:
    for key, value in pairs:
        yield key
        yield value
