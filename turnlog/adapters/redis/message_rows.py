"""The message index in Redis: a row for each visible message, one for each session's owner, and two indexes.

How keys are made is said in session_rows.py. A message's row has the stream and its ordinal for a key; the index of a
user's messages has that last, after position and item.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, assert_never

import msgspec
from msgspec.structs import astuple

from turnlog.adapters.redis.connection import Connection, ViewTables
from turnlog.adapters.redis.session_rows import NUMBER_BYTES, part, place
from turnlog.adapters.redis.tables import after_all
from turnlog.domain.mapper import Codec, LogRow
from turnlog.projections import message_index as m
from turnlog.projections.brief import Abridged
from turnlog.projections.view_store import View

MESSAGES, OWNERS, OF_USER, BY_ID = b"messages", b"owners", b"of_user", b"by_id"
PLACES_BYTES = 2 * NUMBER_BYTES
"""Position and item, in a key of ``OF_USER``."""


class Stored(NamedTuple):
    """A message's row; see ``MessageRow``."""

    user_id: str | None
    message_id: str
    position: int
    item: int
    version: int
    content_version: int


class MessageRows:
    """The view in its place."""

    def __init__(self, view: View) -> None:
        self.name = view.name
        self.revision = view.revision
        self._codec = Abridged(m.CLASSES)

    def create(self, connection: Connection) -> None:
        """Do nothing: tables are there when they are written to."""

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: Connection) -> None:
        """Write what a page of the log changes.

        Raises:
            UnknownEvent, CorruptLog: an event cannot be read.
        """
        tables = connection.of(self.name)
        streams = list({row[1]: None for row in rows})
        stored = tables.get_all(OWNERS, [stream.encode() for stream in streams])
        found = zip(streams, stored, strict=True)
        owners = {stream: m.Owner(*msgspec.msgpack.decode(row)) for stream, row in found if row is not None}
        seen = {stream: owner.version for stream, owner in owners.items()}
        for change in m.changes(owners, rows, self._codec.of(codec)):
            _change(tables, change)
        for stream, owner in owners.items():
            if owner.version != seen.get(stream):
                tables.put(OWNERS, stream.encode(), msgspec.msgpack.encode(astuple(owner)))

    def forget(self, tenant: str, session_id: str, connection: Connection) -> None:
        """Delete the session's rows."""
        _forget(connection.of(self.name), f"{tenant}/{session_id}".encode(), tenant)

    def stream_of(self, table: bytes, key: bytes) -> str | None:
        """Return whose a row is."""
        if table == OWNERS:
            return key.decode()
        if table == OF_USER:
            key = key[key.index(b"\0", key.index(b"\0") + 1) + 1 + PLACES_BYTES :]
        return key.partition(b"\0")[0].decode()


def stored(row: bytes) -> Stored:
    """Return a stored row."""
    return Stored(*msgspec.msgpack.decode(row))


def _change(tables: ViewTables, change: m.Change) -> None:
    owner = change.owner
    stream = f"{owner.tenant}/{owner.session_id}".encode()
    match change:
        case m.Add(_, ordinal, message_id, position, item, version):
            row = Stored(owner.user_id, message_id, position, item, version, version)
            _put(tables, owner.tenant, _key(stream, ordinal), row)
        case m.Reword(_, message_id, version):
            for key in _latest(tables, stream, message_id):
                row = stored(tables.get(MESSAGES, key) or b"")._replace(content_version=version)
                tables.put(MESSAGES, key, msgspec.msgpack.encode(tuple(row)))
        case m.Remove(_, message_id):
            for key in _latest(tables, stream, message_id):
                _delete(tables, owner.tenant, key, stored(tables.get(MESSAGES, key) or b""))
        case m.Clear():
            _delete_all(tables, owner.tenant, _of(tables, stream))
        case m.Assign():
            for key, row in list(_of(tables, stream)):
                _delete(tables, owner.tenant, key, row)
                _put(tables, owner.tenant, key, row._replace(user_id=owner.user_id))
        case m.Summarise():
            _summarise(tables, stream, change)
        case m.Forget():
            _forget(tables, stream, owner.tenant)
        case _:
            assert_never(change)


def _summarise(tables: ViewTables, stream: bytes, change: m.Summarise) -> None:
    rows = list(_of(tables, stream))
    kept = rows[max(0, len(rows) - change.kept) :]
    _delete_all(tables, change.owner.tenant, rows[: len(rows) - len(kept)])
    ordinal = _ordinal(kept[0][0]) - 1 if kept else change.ordinal
    row = Stored(change.owner.user_id, change.message_id, change.position, 0, change.version, change.version)
    _put(tables, change.owner.tenant, _key(stream, ordinal), row)


def _forget(tables: ViewTables, stream: bytes, tenant: str) -> None:
    _delete_all(tables, tenant, _of(tables, stream))
    tables.delete(OWNERS, stream)


def _key(stream: bytes, ordinal: int) -> bytes:
    return stream + b"\0" + place(ordinal)


def _ordinal(key: bytes) -> int:
    return int.from_bytes(key[-NUMBER_BYTES:], "big")


def _of(tables: ViewTables, stream: bytes) -> Iterator[tuple[bytes, Stored]]:
    """Yield a session's rows, in order."""
    prefix = stream + b"\0"
    for key, value in tables.range(MESSAGES, prefix, after_all(prefix)):
        yield key, stored(value)


def _latest(tables: ViewTables, stream: bytes, message_id: str) -> list[bytes]:
    """Return the key of the last of a session's rows that have a message id, if there is one."""
    prefix = stream + b"\0" + part(message_id)
    rows = tables.range(BY_ID, prefix, after_all(prefix), reverse=True, limit=1)
    return [_key(stream, _ordinal(key)) for key, _ in rows]


def _indexed(tenant: str, key: bytes, row: Stored) -> Iterator[tuple[bytes, bytes]]:
    stream, ordinal = key[: -NUMBER_BYTES - 1], key[-NUMBER_BYTES:]
    yield BY_ID, stream + b"\0" + part(row.message_id) + ordinal
    if row.user_id is not None:
        yield OF_USER, part(tenant, row.user_id) + place(row.position) + place(row.item) + key


def _put(tables: ViewTables, tenant: str, key: bytes, row: Stored) -> None:
    tables.put(MESSAGES, key, msgspec.msgpack.encode(tuple(row)))
    for table, index_key in _indexed(tenant, key, row):
        tables.put(table, index_key)


def _delete(tables: ViewTables, tenant: str, key: bytes, row: Stored) -> None:
    tables.delete(MESSAGES, key)
    for table, index_key in _indexed(tenant, key, row):
        tables.delete(table, index_key)


def _delete_all(tables: ViewTables, tenant: str, rows: Iterable[tuple[bytes, Stored]]) -> None:
    for key, row in list(rows):
        _delete(tables, tenant, key, row)
