"""The built-in views' rows on PostgreSQL: what catching up runs, without SQLAlchemy.

The folds are SQLite's. New messages are copied (``COPY``: 10 µs a row, 20 as parameters). Rows that may be there
already go to the server as one JSON parameter: 500 sessions take 5 ms against 7 as arrays of values.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, assert_never

import msgspec

from turnlog.adapters.names import MESSAGE_COLUMNS, OWNER_COLUMNS, SESSION_COLUMNS, Names, quoted
from turnlog.domain.mapper import Codec, LogRow
from turnlog.projections import message_index as m
from turnlog.projections import session_index as s
from turnlog.projections.brief import Abridged

_TEXTS = frozenset(
    {"tenant", "session_id", "user_id", "agent", "status", "current_route", "current_step", "message_id"}
)
_encode = msgspec.json.Encoder().encode


class SessionTable:
    """The session index, kept in one table."""

    def __init__(self, view: s.SessionIndex, names: Names) -> None:
        self.name = view.name
        self.revision = view.revision
        self.tables = (names.session_index,)
        self._names = names
        self._codec = Abridged(s.CLASSES)
        table = quoted(names.session_index)
        self._select = _selecting(table, names, SESSION_COLUMNS)
        self._upsert = _upserting(table, names, SESSION_COLUMNS)
        of_session = _of_session(names)
        self._forget = f"DELETE FROM {table} WHERE {of_session}"
        self._delete = f"DELETE FROM {table} WHERE ({_key(names)}) IN ({_WANTED})"

    def create(self, connection: Any) -> None:
        """Create the table and its indexes."""
        self.create_tables(connection)
        self.create_indexes(connection)

    def create_tables(self, connection: Any) -> None:
        """Create the table."""
        _create(connection, self._names, "session_index", indexes=False)

    def create_indexes(self, connection: Any) -> None:
        """Create the indexes that only queries need, those that are missing."""
        _create(connection, self._names, "session_index", indexes=True)

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: Any) -> None:
        """Fold a page of the log into the rows of its sessions: one query, one fold, one write.

        Raises:
            UnknownEvent, CorruptLog: an event cannot be read, or one before it is missing.
        """
        before: dict[str, s.Entry] = {}
        for row in _load(connection, self._select, rows):
            before[f"{row[0]}/{row[1]}"] = s.Entry(*row)
        after = s.fold_rows(dict(before), rows, self._codec.of(codec))
        if gone := before.keys() - after.keys():
            connection.execute(self._delete, _pairs(gone))
        if after:
            _write(connection, self._upsert, list(after.values()))

    def forget(self, tenant: str, session_id: str, connection: Any) -> None:
        """Delete the session's row."""
        connection.execute(self._forget, (tenant, session_id))


class MessageTable:
    """The message index, kept in two tables: messages, and sessions with their owners."""

    def __init__(self, view: m.MessageIndex, names: Names) -> None:
        self.name = view.name
        self.revision = view.revision
        self.tables = (names.message_index, names.message_owners)
        self._names = names
        self._codec = Abridged(m.CLASSES)
        table, owners = quoted(names.message_index), quoted(names.message_owners)
        columns = [quoted(names.column(column)) for column in MESSAGE_COLUMNS]
        _, _, ordinal, user, message, _, _, _, content = columns
        of_session = _of_session(names)
        newest = f"ORDER BY {ordinal} DESC LIMIT"
        latest = (
            f"{of_session} AND {ordinal} ="
            f" (SELECT {ordinal} FROM {table} WHERE {of_session} AND {message} = %s {newest} 1)"
        )
        self._select = _selecting(owners, names, OWNER_COLUMNS)
        self._upsert = _upserting(owners, names, OWNER_COLUMNS)
        self._copy = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
        self._reword = f"UPDATE {table} SET {content} = %s WHERE {latest}"
        self._remove = f"DELETE FROM {table} WHERE {latest}"
        self._clear = f"DELETE FROM {table} WHERE {of_session}"
        self._assign = f"UPDATE {table} SET {user} = %s WHERE {of_session}"
        kept = f"SELECT {ordinal} FROM {table} WHERE {of_session} {newest} %s"
        self._first_kept = f"SELECT min({ordinal}) FROM ({kept}) AS kept"
        self._drop_older = f"DELETE FROM {table} WHERE {of_session} AND {ordinal} < %s"
        self._disown = f"DELETE FROM {owners} WHERE {of_session}"

    def create(self, connection: Any) -> None:
        """Create the tables and their indexes."""
        self.create_tables(connection)
        self.create_indexes(connection)

    def create_tables(self, connection: Any) -> None:
        """Create the tables."""
        _create(connection, self._names, "message_index", "message_owners", indexes=False)

    def create_indexes(self, connection: Any) -> None:
        """Create the indexes that only queries need, those that are missing."""
        _create(connection, self._names, "message_index", "message_owners", indexes=True)

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: Any) -> None:
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
        changed = [owner for stream, owner in owners.items() if owner.version != seen.get(stream)]
        if changed:
            _write(connection, self._upsert, changed)

    def forget(self, tenant: str, session_id: str, connection: Any) -> None:
        """Delete the session's rows."""
        connection.execute(self._clear, (tenant, session_id))
        connection.execute(self._disown, (tenant, session_id))

    def _change(self, connection: Any, change: m.Rearrangement) -> None:
        session = (change.owner.tenant, change.owner.session_id)
        match change:
            case m.Reword(_, message_id, version):
                connection.execute(self._reword, (version, *session, *session, _shown(message_id)))
            case m.Remove(_, message_id):
                connection.execute(self._remove, (*session, *session, _shown(message_id)))
            case m.Clear():
                connection.execute(self._clear, session)
            case m.Assign(owner):
                connection.execute(self._assign, (_shown(owner.user_id), *session))
            case m.Summarise(owner, kept, ordinal, message_id, position, version):
                row = connection.execute(self._first_kept, (*session, kept)).fetchone()
                first = None if row is None else row[0]
                before = ordinal if first is None else first - 1
                connection.execute(self._drop_older, (*session, ordinal if first is None else first))
                self._insert_all(connection, [m.Add(owner, before, message_id, position, 0, version)])
            case m.Forget():
                self.forget(*session, connection)
            case _:
                assert_never(change)

    def _insert_all(self, connection: Any, said: Iterable[m.Add]) -> None:
        rows = [
            (o.tenant, o.session_id, ordinal, _shown(o.user_id), _shown(message_id), position, item, version, version)
            for o, ordinal, message_id, position, item, version in said
        ]
        if rows:
            with connection.cursor().copy(self._copy) as copy:
                for row in rows:
                    copy.write_row(row)


def _create(connection: Any, names: Names, *tables: str, indexes: bool) -> None:
    from turnlog.adapters import sql  # SQLAlchemy: 300 ms, for a new view only

    for statement in sql.Tables(names, sql.POSTGRESQL).statements(*tables, if_missing=indexes):
        if statement.startswith("CREATE INDEX") == indexes:
            connection.execute(statement.encode())


# --- statements -------------------------------------------------------------------------------------------------------


_WANTED = "SELECT * FROM unnest(%s::text[], %s::text[])"
"""The keys of sessions, given as two arrays."""


def _key(names: Names) -> str:
    return ", ".join(quoted(names.column(column)) for column in ("tenant", "session_id"))


def _of_session(names: Names) -> str:
    return " AND ".join(f"{quoted(names.column(column))} = %s" for column in ("tenant", "session_id"))


def _selecting(table: str, names: Names, columns: Sequence[str]) -> str:
    """Return a select of the rows of some sessions."""
    listed = ", ".join(quoted(names.column(column)) for column in columns)
    return f"SELECT {listed} FROM {table} WHERE ({_key(names)}) IN ({_WANTED})"


def _inserting(table: str, names: Names, columns: Sequence[str]) -> str:
    """Return an insert of rows that come as a JSON list of objects."""
    listed = ", ".join(quoted(names.column(column)) for column in columns)
    typed = ", ".join(f"{quoted(column)} {'text' if column in _TEXTS else 'bigint'}" for column in columns)
    return f"INSERT INTO {table} ({listed}) SELECT * FROM json_to_recordset(%s::json) AS given ({typed})"


def _upserting(table: str, names: Names, columns: Sequence[str]) -> str:
    """Return an insert that takes the place of the session's row; what never changes is left alone."""
    changing = [quoted(names.column(column)) for column in columns[2:] if not column.startswith("created_")]
    updated = ", ".join(f"{column} = excluded.{column}" for column in changing)
    return f"{_inserting(table, names, columns)} ON CONFLICT ({_key(names)}) DO UPDATE SET {updated}"


def _load(connection: Any, select: str, rows: Sequence[LogRow]) -> Iterator[tuple[Any, ...]]:
    """Return the stored rows of the sessions that the log's rows are of."""
    return iter(connection.execute(select, _pairs({row[1]: None for row in rows})).fetchall())


def _pairs(streams: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the tenants and the session ids of streams."""
    parts = [stream.partition("/") for stream in streams]
    return [part[0] for part in parts], [part[2] for part in parts]


def _write(connection: Any, statement: str, rows: Sequence[Any]) -> None:
    text = _encode(rows)
    if rb"\u0000" in text:
        given: list[dict[str, Any]] = msgspec.json.decode(text)
        text = _encode([{column: _shown(value) for column, value in row.items()} for row in given])
    connection.execute(statement, (text.decode(),))


def _shown(value: Any) -> Any:
    """Return a value as a column of PostgreSQL can hold it: no text there has a NUL."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
