"""Deleting generations of views that answer no longer, and what unfinished rebuilds left behind."""

from contextlib import AbstractContextManager
from typing import Protocol

from turnlog.adapters.redis import books
from turnlog.adapters.redis.cluster import Cluster
from turnlog.adapters.redis.connection import GENERATIONS, TABLES, Connection, base
from turnlog.adapters.redis.server import Server
from turnlog.adapters.redis.tables import InRedis, Tables

BENCHES = b"benches"
BOOKS = (books.CHECKPOINTS, books.PARKED, books.REPLACED, books.TORN, GENERATIONS)


class Store(Protocol):
    """A store of views."""

    def read(self) -> AbstractContextManager[Connection]:
        """Lend a connection that only reads."""
        ...

    def write(self) -> AbstractContextManager[Connection | None]:
        """Lend a connection whose writes are committed together."""
        ...


def benches(server: Server | Cluster, root: bytes) -> list[str]:
    """Return the names of the places where views were, or are, being built."""
    return sorted(name.decode() for name in server.read("SMEMBERS", root + BENCHES))


def note_bench(server: Server | Cluster, root: bytes, name: str) -> None:
    """Note that something is going to be built there."""
    server.write("SADD", root + BENCHES, name)


def drop_replaced(server: Server | Cluster, root: bytes, store: Store, view: str) -> None:
    """Delete the generations of a view that answer no longer."""
    with store.read() as connection:
        generations = books.replaced(connection, view)
    for generation in generations:
        _drop_generation(server, root, view, generation)
        with store.write() as connection:
            if connection is not None:
                books.gone(connection, view, generation)


def drop_bench(server: Server | Cluster, root: bytes, store: Store, home: Connection, name: str) -> None:
    """Delete what was built there, but for a generation that answers at home."""
    with store.read() as connection:
        built = [(key.decode(), generation) for key, generation in connection.books.range(GENERATIONS)]
        replaced = [(view, each) for view, _ in built for each in books.replaced(connection, view)]
    for view, generation in (*built, *replaced):
        if home.generation(view) != generation:
            _drop_generation(server, root, view, generation)
    for table in BOOKS:
        server.write("UNLINK", *(root + books_of(name) + table + end for end in (b":rows", b":order")))
    server.write("UNLINK", root + books_of(name) + b"trials")
    server.write("SREM", root + BENCHES, name)


def books_of(bench: str) -> bytes:
    """Return how the bookkeeping of a bench begins."""
    return f"build.{bench}:".encode()


def _drop_generation(server: Server | Cluster, root: bytes, view: str, generation: bytes) -> None:
    """Delete the tables of a generation; the server frees their memory beside its work."""
    begins = base(view, generation)
    listing = begins[:-1] + TABLES
    for table, _ in Tables(InRedis(server, root)).walk(listing):
        server.write("UNLINK", root + table + b":rows", root + table + b":order")
    server.write("UNLINK", root + listing + b":order")
