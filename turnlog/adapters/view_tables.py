"""The built-in views' rows on every SQL database: what catching up runs, without SQLAlchemy.

Folds and statements are the same everywhere; how many rows at a time are read and written is each database's own.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias, assert_never

import msgspec

from turnlog.adapters.names import MESSAGE_COLUMNS, OWNER_COLUMNS, SESSION_COLUMNS, Names
from turnlog.adapters.view_ddl import Ddl
from turnlog.adapters.wording import Table, Wording
from turnlog.domain.mapper import Codec, LogRow
from turnlog.projections import message_index as m
from turnlog.projections import session_index as s
from turnlog.projections.brief import Abridged
from turnlog.projections.view_store import View


class Rows(Protocol):
    """Rows of one table on one database, those of many sessions at a time. Sessions are given as streams."""

    def load(self, connection: Any, streams: Collection[str]) -> Iterable[tuple[Any, ...]]:
        """Return the rows of sessions."""
        ...

    def insert(self, connection: Any, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows that are new."""
        ...

    def replace(self, connection: Any, rows: Sequence[msgspec.Struct]) -> None:
        """Insert rows, or take the places of those of the same sessions."""
        ...

    def delete(self, connection: Any, streams: Collection[str]) -> None:
        """Delete the rows of sessions."""
        ...


RowsOf: TypeAlias = Callable[[Table], Rows]


class SessionTable:
    """The session index, kept in one table."""

    def __init__(self, view: View, names: Names, wording: Wording, rows_of: RowsOf) -> None:
        self.name = view.name
        self.revision = view.revision
        self.tables = (names.session_index,)
        self._ddl = Ddl(names, wording, "session_index")
        self.create, self.create_tables, self.create_indexes = self._ddl.all, self._ddl.tables, self._ddl.indexes
        self._parts = wording, rows_of
        self._codec = Abridged(s.CLASSES)
        self._run = wording.run
        table = Table.named(names.session_index, names, SESSION_COLUMNS, wording)
        self._rows = rows_of(table)
        self._forget = f"DELETE FROM {table.name} WHERE {of_session(table, wording)}"

    def under(self, names: Names) -> "SessionTable":
        """Return the view with its table under another name."""
        return SessionTable(self, names, *self._parts)

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: Any) -> None:
        """Fold a page of the log into the rows of its sessions: one query, one fold, one write.

        Raises:
            UnknownEvent, CorruptLog: an event cannot be read, or one before it is missing.
        """
        before: dict[str, s.Entry] = {}
        for row in self._rows.load(connection, streams_of(rows)):
            before[f"{row[0]}/{row[1]}"] = s.Entry(*row)
        after = s.fold_rows(dict(before), rows, self._codec.of(codec))
        if gone := before.keys() - after.keys():
            self._rows.delete(connection, gone)
        if after:
            self._rows.replace(connection, list(after.values()))

    def forget(self, tenant: str, session_id: str, connection: Any) -> None:
        """Delete the session's row."""
        self._run(connection, self._forget, (tenant, session_id))


class MessageTable:
    """The message index, kept in two tables: messages, and sessions with their owners."""

    def __init__(self, view: View, names: Names, wording: Wording, rows_of: RowsOf) -> None:
        self.name = view.name
        self.revision = view.revision
        self.tables = (names.message_index, names.message_owners)
        self._ddl = Ddl(names, wording, "message_index", "message_owners")
        self.create, self.create_tables, self.create_indexes = self._ddl.all, self._ddl.tables, self._ddl.indexes
        self._parts = wording, rows_of
        self._codec = Abridged(m.CLASSES)
        self._run, self._shown = wording.run, wording.shown
        messages = Table.named(names.message_index, names, MESSAGE_COLUMNS, wording)
        owners = Table.named(names.message_owners, names, OWNER_COLUMNS, wording)
        self._messages, self._owners = rows_of(messages), Owners(rows_of(owners))
        table, mark = messages.name, wording.mark
        _, _, ordinal, user, message, _, _, _, content = map(wording.quoted, messages.columns)
        session = of_session(messages, wording)
        latest = latest_of(messages, wording, session, ordinal, message)
        kept = f"SELECT {ordinal} FROM {table} WHERE {session} ORDER BY {ordinal} DESC LIMIT {mark}"
        self._reword = f"UPDATE {table} SET {content} = {mark} WHERE {latest}"
        self._remove = f"DELETE FROM {table} WHERE {latest}"
        self._clear = f"DELETE FROM {table} WHERE {session}"
        self._assign = f"UPDATE {table} SET {user} = {mark} WHERE {session}"
        self._first_kept = f"SELECT min({ordinal}) FROM ({kept}) AS kept"
        self._drop_older = f"DELETE FROM {table} WHERE {session} AND {ordinal} < {mark}"
        self._disown = f"DELETE FROM {owners.name} WHERE {session}"

    def under(self, names: Names) -> "MessageTable":
        """Return the view with its tables under other names."""
        return MessageTable(self, names, *self._parts)

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: Any) -> None:
        """Write what a page of the log changes; messages that are only said are inserted together.

        Raises:
            UnknownEvent, CorruptLog: an event cannot be read.
        """
        said: list[m.Add] = []
        with self._owners.of(connection, rows) as owners:
            for change in m.changes(owners, rows, self._codec.of(codec)):
                if isinstance(change, m.Add):
                    said.append(change)
                else:
                    self._insert_all(connection, said)
                    said.clear()
                    self._change(connection, change)
            self._insert_all(connection, said)

    def forget(self, tenant: str, session_id: str, connection: Any) -> None:
        """Delete the session's rows."""
        self._run(connection, self._clear, (tenant, session_id))
        self._run(connection, self._disown, (tenant, session_id))

    def _change(self, connection: Any, change: m.Rearrangement) -> None:
        session = (change.owner.tenant, change.owner.session_id)
        match change:
            case m.Reword(_, message_id, version):
                self._run(connection, self._reword, (version, *session, self._shown(message_id)))
            case m.Remove(_, message_id):
                self._run(connection, self._remove, (*session, self._shown(message_id)))
            case m.Clear():
                self._run(connection, self._clear, session)
            case m.Assign(owner):
                self._run(connection, self._assign, (self._shown(owner.user_id), *session))
            case m.Summarise(owner, kept, ordinal, message_id, position, version):
                first = self._run(connection, self._first_kept, (*session, kept)).fetchone()[0]
                before = ordinal if first is None else first - 1
                self._run(connection, self._drop_older, (*session, ordinal if first is None else first))
                self._insert_all(connection, [m.Add(owner, before, message_id, position, 0, version)])
            case m.Forget():
                self.forget(*session, connection)
            case _:
                assert_never(change)

    def _insert_all(self, connection: Any, said: Iterable[m.Add]) -> None:
        shown = self._shown
        rows = [
            (o.tenant, o.session_id, ordinal, shown(o.user_id), shown(message_id), position, item, version, version)
            for o, ordinal, message_id, position, item, version in said
        ]
        if rows:
            self._messages.insert(connection, rows)


class Owners:
    """What views of messages keep of sessions, in a table of its own."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @contextmanager
    def of(self, connection: Any, page: Sequence[LogRow]) -> Generator[dict[str, m.Owner], None, None]:
        """Lend those of a page's sessions, by stream; in the end what changed of them is written."""
        owners = {f"{row[0]}/{row[1]}": m.Owner(*row) for row in self._rows.load(connection, streams_of(page))}
        seen = {stream: owner.version for stream, owner in owners.items()}
        yield owners
        changed = [owner for stream, owner in owners.items() if owner.version != seen.get(stream)]
        if changed:
            self._rows.replace(connection, changed)


def streams_of(rows: Sequence[LogRow]) -> Collection[str]:
    """Return the streams of a page of the log."""
    return {row[1]: None for row in rows}


def of_session(table: Table, wording: Wording) -> str:
    """Return the condition on the rows of a session."""
    return " AND ".join(f"{wording.quoted(column)} = {wording.mark}" for column in table.key)


def latest_of(table: Table, wording: Wording, session: str, ordinal: str, message: str) -> str:
    """Return the condition on the last row of a session that has a message id."""
    last = f"{session} AND {message} = {wording.mark} ORDER BY {ordinal} DESC LIMIT 1"
    if wording.limits_changes:
        return last
    key = f"{wording.listing(table.key)}, {ordinal}"
    return f"({key}) = (SELECT {key} FROM {table.name} WHERE {last})"
