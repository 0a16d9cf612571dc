"""The session index in Redis: one row a session, indexes that queries walk, and sums that are kept up to date.

Keys are made of names with a NUL after each, and of positions as eight bytes, so that their order is that of what they
mean. In the indexes the stream's name comes last, which is the key of its row.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import astuple

from turnlog.adapters.redis.connection import Connection, ViewTables
from turnlog.adapters.redis.tables import after_all
from turnlog.domain.mapper import Codec, LogRow
from turnlog.projections import session_index as s
from turnlog.projections.brief import Abridged
from turnlog.projections.session_index import Entry
from turnlog.projections.view_store import View

ROWS, USERS, COUNTS = b"rows", b"users", b"counts"
"""``users``: one row a user. ``counts``: one row a tenant and status, and one a tenant for its users."""
ALL, BY_USER, BY_AGENT, BY_ROUTE, BY_STATUS, ACTIVE = (
    b"all",
    b"by_user",
    b"by_agent",
    b"by_route",
    b"by_status",
    b"active",
)
NUMBER_BYTES = 8


class UserSums(NamedTuple):
    """What is kept of a user; ``updated_at`` is the latest of his sessions'."""

    sessions: int = 0
    messages: int = 0
    updated_at: int = 0


class StatusSums(NamedTuple):
    """What is kept of a status."""

    sessions: int = 0
    events: int = 0
    messages: int = 0


class SessionRows:
    """The view in its place."""

    def __init__(self, view: View) -> None:
        self.name = view.name
        self.revision = view.revision
        self._codec = Abridged(s.CLASSES)

    def create(self, connection: Connection) -> None:
        """Do nothing: tables are there when they are written to."""

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: Connection) -> None:
        """Fold a page of the log into the rows of its sessions.

        Raises:
            UnknownEvent, CorruptLog: an event cannot be read, or one before it is missing.
        """
        tables = connection.of(self.name)
        streams = list({row[1]: None for row in rows})
        stored = tables.get_all(ROWS, [stream.encode() for stream in streams])
        before = {stream: entry(row) for stream, row in zip(streams, stored, strict=True) if row is not None}
        folded = {stream: entry(row) for stream, row in zip(streams, stored, strict=True) if row is not None}
        after = s.fold_rows(folded, rows, self._codec.of(codec))
        changed = [stream for stream in streams if before.get(stream) != after.get(stream)]
        _replace(tables, ((stream, before.get(stream), after.get(stream)) for stream in changed))

    def forget(self, tenant: str, session_id: str, connection: Connection) -> None:
        """Delete the session's row."""
        tables = connection.of(self.name)
        stream = f"{tenant}/{session_id}"
        row = tables.get(ROWS, stream.encode())
        if row is not None:
            _replace(tables, ((stream, entry(row), None),))

    def stream_of(self, table: bytes, key: bytes) -> str | None:
        """Return whose a row is."""
        if table == ROWS:
            return key.decode()
        return None if table in (USERS, COUNTS) else key[_index_start(key, table) :].decode()


def entry(row: bytes) -> Entry:
    """Return a stored row."""
    return Entry(*msgspec.msgpack.decode(row))


def part(*names: str) -> bytes:
    """Return names as part of a key."""
    return b"".join(name.encode().replace(b"\0", b"\xef\xbf\xbd") + b"\0" for name in names)


def place(position: int) -> bytes:
    """Return a position as part of a key."""
    return position.to_bytes(NUMBER_BYTES, "big")


def _index_start(key: bytes, table: bytes) -> int:
    """Return where in a key of an index the name of the stream begins."""
    names = 1 if table == ALL else 2
    at = 0
    for _ in range(names):
        at = key.index(b"\0", at) + 1
    return at + NUMBER_BYTES


def _indexed(one: Entry | None) -> Iterable[tuple[bytes, bytes]]:
    """Yield the keys of a row, if there is one, in the indexes, each with its table."""
    if one is None:
        return
    end = f"{one.tenant}/{one.session_id}".encode()
    updated = place(one.updated_position) + end
    yield ALL, part(one.tenant) + updated
    yield BY_STATUS, part(one.tenant, one.status) + updated
    for table, value in ((BY_USER, one.user_id), (BY_AGENT, one.agent), (BY_ROUTE, one.current_route)):
        if value is not None:
            yield table, part(one.tenant, value) + updated
    if one.user_id is not None and one.status == "active":
        yield ACTIVE, part(one.tenant, one.user_id) + place(one.created_position) + end


def _replace(tables: ViewTables, changes: Iterable[tuple[str, Entry | None, Entry | None]]) -> None:
    """Put rows in the places of others, with their keys in the indexes and the sums."""
    sums = _Sums(tables)
    for stream, old, new in changes:
        gone, come = set(_indexed(old)), set(_indexed(new))
        for table, key in gone - come:
            tables.delete(table, key)
        for table, key in come - gone:
            tables.put(table, key)
        if new is None:
            tables.delete(ROWS, stream.encode())
        else:
            tables.put(ROWS, stream.encode(), msgspec.msgpack.encode(astuple(new)))
        sums.change(old, new)
    sums.write()


class _Sums:
    """Sums while rows change: read once, written once."""

    def __init__(self, tables: ViewTables) -> None:
        self._tables = tables
        self._users: dict[bytes, UserSums] = {}
        self._owned: dict[bytes, int] = {}
        self._statuses: dict[bytes, StatusSums] = {}
        self._lowered: set[bytes] = set()
        self._tenants: dict[bytes, int] = {}

    def change(self, old: Entry | None, new: Entry | None) -> None:
        """Take a row out and another in."""
        for one, sign in ((old, -1), (new, 1)):
            if one is None:
                continue
            key = part(one.tenant) + b"s" + one.status.encode()
            known = self._status(key)
            self._statuses[key] = StatusSums(
                known.sessions + sign, known.events + sign * one.version, known.messages + sign * one.message_count
            )
            if one.user_id is not None:
                self._change_user(one, sign)

    def _change_user(self, one: Entry, sign: int) -> None:
        key = user_key(one.tenant, one.user_id or "")
        known = self._user(key)
        if one.updated_at >= known.updated_at:  # taken out, the latest has to be looked for, unless a later one comes
            (self._lowered.add if sign < 0 else self._lowered.discard)(key)
        latest = max(known.updated_at, one.updated_at) if sign > 0 else known.updated_at
        self._users[key] = UserSums(known.sessions + sign, known.messages + sign * one.message_count, latest)

    def _status(self, key: bytes) -> StatusSums:
        if key not in self._statuses:
            row = self._tables.get(COUNTS, key)
            self._statuses[key] = StatusSums() if row is None else StatusSums(*msgspec.msgpack.decode(row))
        return self._statuses[key]

    def _user(self, key: bytes) -> UserSums:
        if key not in self._users:
            row = self._tables.get(USERS, key)
            self._users[key] = known = UserSums() if row is None else UserSums(*msgspec.msgpack.decode(row))
            self._owned[key] = known.sessions
        return self._users[key]

    def write(self) -> None:
        """Write what they have become; a user without sessions is none."""
        for key, sums in self._statuses.items():
            _put(self._tables, COUNTS, key, sums, there=sums.sessions > 0)
        for key, user in self._users.items():
            tenant = key.partition(b"\0")[0] + b"\0"
            difference = (user.sessions > 0) - (self._owned[key] > 0)
            self._tenants[tenant] = self._tenants.get(tenant, 0) + difference
            latest = self._latest(key) if key in self._lowered and user.sessions else user.updated_at
            _put(self._tables, USERS, key, user._replace(updated_at=latest), there=user.sessions > 0)
        for tenant, difference in self._tenants.items():
            row = self._tables.get(COUNTS, tenant + b"u")
            users = difference + (0 if row is None else msgspec.msgpack.decode(row)[0])
            _put(self._tables, COUNTS, tenant + b"u", (users,), there=users > 0)

    def _latest(self, user: bytes) -> int:
        """Return the latest time of the rows of a user's sessions."""
        prefix = user + b"\0"
        keys = [key[len(prefix) + NUMBER_BYTES :] for key, _ in self._tables.range(BY_USER, prefix, after_all(prefix))]
        rows = self._tables.get_all(ROWS, keys)
        return max((entry(row).updated_at for row in rows if row is not None), default=0)


def user_key(tenant: str, user_id: str) -> bytes:
    """Return the key of a user's row."""
    return part(tenant, user_id)[:-1]


def _put(tables: ViewTables, table: bytes, key: bytes, value: Collection[int], *, there: bool) -> None:
    if there:
        tables.put(table, key, msgspec.msgpack.encode(tuple(value)))
    else:
        tables.delete(table, key)


def counted(rows: Iterable[tuple[bytes, bytes]], tenant: str) -> s.Counts:
    """Return a tenant's sums."""
    begins = part(tenant)
    statuses: dict[str, int] = {}
    total, users = StatusSums(), 0
    for key, value in rows:
        found: Any = msgspec.msgpack.decode(value)
        what = key[len(begins) :]
        if what == b"u":
            users = found[0]
        else:
            statuses[what[1:].decode()] = found[0]
            total = StatusSums(*(a + b for a, b in zip(total, found, strict=True)))
    return s.Counts(total.sessions, total.events, total.messages, users, statuses)
