"""The built-in views' rows on SQLite, in plain statements: what catching up runs, without SQLAlchemy."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias, assert_never

from msgspec.structs import astuple

from turnlog.adapters.names import MESSAGE_COLUMNS, OWNER_COLUMNS, SESSION_COLUMNS, Names, quoted
from turnlog.domain.mapper import Codec, LogRow
from turnlog.projections import message_index as m
from turnlog.projections import session_index as s
from turnlog.projections.brief import Abridged
from turnlog.projections.view_store import View

_CHUNK = 250
"""Sessions a query; SQLite's oldest limit is 999 parameters."""


class SessionTable:
    """The session index, kept in one table."""

    def __init__(self, view: View, names: Names) -> None:
        self.name = view.name
        self.revision = view.revision
        self.tables = (names.session_index,)
        self._names = names
        self._codec = Abridged(s.CLASSES)
        table = quoted(names.session_index)
        columns = [quoted(names.column(column)) for column in SESSION_COLUMNS]
        key = ", ".join(columns[:2])
        updated = ", ".join(f"{column} = excluded.{column}" for column in columns[2:] if column != columns[-2])
        self._select = _selecting(table, columns)
        self._upsert = (
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
            f" ON CONFLICT ({key}) DO UPDATE SET {updated}"
        )
        self._delete = f"DELETE FROM {table} WHERE {columns[0]} = ? AND {columns[1]} = ?"

    def under(self, names: Names) -> "SessionTable":
        """Return the view with its table under another name."""
        return SessionTable(self, names)

    def create(self, connection: sqlite3.Connection) -> None:
        """Create the table and its indexes."""
        _create(connection, self._names, "session_index")

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: sqlite3.Connection) -> None:
        """Fold a page of the log into the rows of its sessions: one query, one fold, one write.

        Raises:
            UnknownEvent, CorruptLog: an event cannot be read, or one before it is missing.
        """
        before: dict[str, s.Entry] = {}
        for row in _load(connection, self._select, rows):
            before[f"{row[0]}/{row[1]}"] = s.Entry(*row)
        after = s.fold_rows(dict(before), rows, self._codec.of(codec))
        connection.executemany(self._delete, [stream.split("/", 1) for stream in before.keys() - after.keys()])
        connection.executemany(self._upsert, [astuple(entry) for entry in after.values()])

    def forget(self, tenant: str, session_id: str, connection: sqlite3.Connection) -> None:
        """Delete the session's row."""
        connection.execute(self._delete, (tenant, session_id))


class MessageTable:
    """The message index, kept in two tables: messages, and sessions with their owners."""

    def __init__(self, view: View, names: Names) -> None:
        self.name = view.name
        self.revision = view.revision
        self.tables = (names.message_index, names.message_owners)
        self._names = names
        self._codec = Abridged(m.CLASSES)
        table, owners = quoted(names.message_index), quoted(names.message_owners)
        columns = [quoted(names.column(column)) for column in MESSAGE_COLUMNS]
        tenant, session, ordinal, user, message, _, _, _, content = columns
        owner_columns = [quoted(names.column(column)) for column in OWNER_COLUMNS]
        of_session = f"{tenant} = ? AND {session} = ?"
        latest = (
            f"rowid = (SELECT rowid FROM {table} WHERE {of_session} AND {message} = ? ORDER BY {ordinal} DESC LIMIT 1)"
        )
        kept = f"SELECT {ordinal} FROM {table} WHERE {of_session} ORDER BY {ordinal} DESC LIMIT ?"
        updated = ", ".join(f"{column} = excluded.{column}" for column in owner_columns[2:])
        self._select = _selecting(owners, owner_columns)
        self._upsert = (
            f"INSERT INTO {owners} ({', '.join(owner_columns)}) VALUES (?, ?, ?, ?, ?)"
            f" ON CONFLICT ({tenant}, {session}) DO UPDATE SET {updated}"
        )
        self._insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._reword = f"UPDATE {table} SET {content} = ? WHERE {latest}"
        self._remove = f"DELETE FROM {table} WHERE {latest}"
        self._clear = f"DELETE FROM {table} WHERE {of_session}"
        self._assign = f"UPDATE {table} SET {user} = ? WHERE {of_session}"
        self._first_kept = f"SELECT min({ordinal}) FROM ({kept})"
        self._drop_older = f"DELETE FROM {table} WHERE {of_session} AND {ordinal} < ?"
        self._disown = f"DELETE FROM {owners} WHERE {of_session}"

    def under(self, names: Names) -> "MessageTable":
        """Return the view with its tables under other names."""
        return MessageTable(self, names)

    def create(self, connection: sqlite3.Connection) -> None:
        """Create the tables and their indexes."""
        _create(connection, self._names, "message_index", "message_owners")

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: sqlite3.Connection) -> None:
        """Write what a page of the log changes; messages that are only said are inserted together.

        Raises:
            UnknownEvent, CorruptLog: an event cannot be read.
        """
        owners = {f"{row[0]}/{row[1]}": m.Owner(*row) for row in _load(connection, self._select, rows)}
        seen = {stream: owner.version for stream, owner in owners.items()}
        said: list[m.Add] = []
        for change in m.changes(owners, rows, self._codec.of(codec)):
            if isinstance(change, m.Add):
                said.append(change)
            else:
                self._insert_all(connection, said)
                said.clear()
                self._change(connection, change)
        self._insert_all(connection, said)
        changed = (owner for stream, owner in owners.items() if owner.version != seen.get(stream))
        connection.executemany(self._upsert, [astuple(owner) for owner in changed])

    def forget(self, tenant: str, session_id: str, connection: sqlite3.Connection) -> None:
        """Delete the session's rows."""
        connection.execute(self._clear, (tenant, session_id))
        connection.execute(self._disown, (tenant, session_id))

    def _change(self, connection: sqlite3.Connection, change: m.Rearrangement) -> None:
        session = (change.owner.tenant, change.owner.session_id)
        match change:
            case m.Reword(_, message_id, version):
                connection.execute(self._reword, (version, *session, message_id))
            case m.Remove(_, message_id):
                connection.execute(self._remove, (*session, message_id))
            case m.Clear():
                connection.execute(self._clear, session)
            case m.Assign(owner):
                connection.execute(self._assign, (owner.user_id, *session))
            case m.Summarise(owner, kept, ordinal, message_id, position, version):
                first = connection.execute(self._first_kept, (*session, kept)).fetchone()[0]
                before = ordinal if first is None else first - 1
                connection.execute(self._drop_older, (*session, ordinal if first is None else first))
                self._insert_all(connection, [m.Add(owner, before, message_id, position, 0, version)])
            case m.Forget():
                self.forget(*session, connection)
            case _:
                assert_never(change)

    def _insert_all(self, connection: sqlite3.Connection, said: Iterable[m.Add]) -> None:
        rows = [
            (o.tenant, o.session_id, ordinal, o.user_id, message_id, position, item, version, version)
            for o, ordinal, message_id, position, item, version in said
        ]
        connection.executemany(self._insert, rows)


BuiltIn: TypeAlias = SessionTable | MessageTable
BUILT_IN = (SessionTable, MessageTable)


def _create(connection: sqlite3.Connection, names: Names, *tables: str) -> None:
    from turnlog.adapters import sql  # SQLAlchemy: 300 ms, for a new view only

    for statement in sql.Tables(names).statements(*tables):
        connection.execute(statement)


def _selecting(table: str, columns: Sequence[str]) -> str:
    """Return a select of the rows of some sessions; left to itself, SQLite would scan the table for them."""
    found = f"FROM wanted CROSS JOIN {table} ON {columns[0]} = wanted.t AND {columns[1]} = wanted.s"
    return f"WITH wanted (t, s) AS (VALUES {{}}) SELECT {', '.join(columns)} {found}"


def _load(connection: sqlite3.Connection, select: str, rows: Sequence[LogRow]) -> Iterator[tuple[Any, ...]]:
    """Yield the stored rows of the sessions that the log's rows are of."""
    streams = list({row[1]: None for row in rows})
    for start in range(0, len(streams), _CHUNK):
        keys = [part for stream in streams[start : start + _CHUNK] for part in stream.split("/", 1)]
        yield from connection.execute(select.format(", ".join(["(?, ?)"] * (len(keys) // 2))), keys)
