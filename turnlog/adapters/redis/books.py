"""What is kept of views besides their rows: checkpoints, the generation that answers, what is parked, or replaced."""

import msgspec

from turnlog.adapters.redis.connection import GENERATIONS, Connection
from turnlog.adapters.redis.tables import after_all
from turnlog.projections.session_index import microseconds, moment
from turnlog.projections.view_store import Checkpoint, Parked

CHECKPOINTS, PARKED, REPLACED, TORN = b"checkpoints", b"parked", b"replaced", b"torn"


def checkpoints(connection: Connection) -> dict[str, Checkpoint]:
    """Return every view's checkpoint."""
    found = (msgspec.msgpack.decode(value) for _, value in connection.books.range(CHECKPOINTS))
    return {row[0]: Checkpoint(*row) for row in found}


def record(connection: Connection, checkpoint: Checkpoint) -> None:
    """Set a view's checkpoint."""
    connection.books.put(CHECKPOINTS, checkpoint.name.encode(), msgspec.msgpack.encode(tuple(checkpoint)))


def answer_with(connection: Connection, view: str, generation: bytes) -> None:
    """Have this generation of a view answer, and note the one before as replaced."""
    books = connection.books
    before = books.get(GENERATIONS, view.encode())
    if before is not None:
        books.put(REPLACED, view.encode() + b"\0" + before)
    books.put(GENERATIONS, view.encode(), generation)


def take_away(connection: Connection, bench: bytes, view: str) -> None:
    """Have a view stand no longer on a bench whose tables begin so."""
    for table in (CHECKPOINTS, GENERATIONS):
        connection.tables.delete(bench + table, view.encode())


def replaced(connection: Connection, view: str) -> list[bytes]:
    """Return the generations of a view that answer no longer."""
    prefix = view.encode() + b"\0"
    return [key[len(prefix) :] for key, _ in connection.books.range(REPLACED, prefix, after_all(prefix))]


def gone(connection: Connection, view: str, generation: bytes) -> None:
    """Note that a generation was deleted."""
    connection.books.delete(REPLACED, view.encode() + b"\0" + generation)


def tear(connection: Connection, *, torn: bool) -> None:
    """Note that a page is about to be written in several steps, or that all of it is."""
    if torn:
        connection.books.put(TORN, TORN, b"1")
    else:
        connection.books.delete(TORN, TORN)


def is_torn(connection: Connection) -> bool:
    """Return whether a page was not written to its end."""
    return connection.books.get(TORN, TORN) is not None


class Parking:
    """The parked sessions of all views, in the form that ``Held`` asks for."""

    def checkpoints(self, connection: Connection) -> dict[str, Checkpoint]:
        """Return every view's checkpoint."""
        return checkpoints(connection)

    def parked(self, connection: Connection, name: str) -> list[Parked]:
        """Return a view's parked sessions, in the order of their positions."""
        prefix = name.encode() + b"\0"
        rows = [msgspec.msgpack.decode(value) for _, value in connection.books.range(PARKED, prefix, after_all(prefix))]
        return sorted((Parked._make((*row[:-1], moment(row[-1]))) for row in rows), key=lambda parked: parked.position)

    def park(self, connection: Connection, parked: Parked) -> None:
        """Park a session, or take the place of its record."""
        words = parked.error.encode(errors="replace").decode()
        row = (*parked._replace(error=words)[:-1], microseconds(parked.parked_at))
        connection.books.put(PARKED, _key(parked.view, parked.stream), msgspec.msgpack.encode(row))

    def release(self, connection: Connection, name: str, stream: str) -> None:
        """Delete a parked session's record."""
        connection.books.delete(PARKED, _key(name, stream))

    def clear(self, connection: Connection, name: str) -> None:
        """Delete all records of a view."""
        for parked in self.parked(connection, name):
            self.release(connection, name, parked.stream)


def _key(view: str, stream: str) -> bytes:
    return f"{view}\0{stream}".encode()
