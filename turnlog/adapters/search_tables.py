"""The search view's rows on every SQL database: as those of the message index, with terms that an index finds.

How terms are written, and which index has them, is each database's own (``Terms``): FTS5 beside the rows, a
``tsvector``, a ``FULLTEXT`` index. All of them are given terms, never text: none has to know what a word is.
"""

from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import Any, Protocol, TypeAlias, assert_never

from turnlog.adapters.names import OWNER_COLUMNS, SEARCH_COLUMNS, Names
from turnlog.adapters.view_ddl import Ddl
from turnlog.adapters.view_tables import Owners, RowsOf, latest_of, of_session
from turnlog.adapters.wording import Table, Wording
from turnlog.domain.mapper import Codec, LogRow
from turnlog.projections import message_index as m
from turnlog.projections import message_search as s
from turnlog.projections.brief import Abridged
from turnlog.projections.session_index import microseconds
from turnlog.projections.view_store import View

ITEM_BITS = 22
"""Of a place, the bits for a message's place among those that one event brought."""
SCOPE_SIZE = 17
"""Characters of the term that tells whose a message is."""
LONGEST_ROUTE = 255
"""More of it is not kept; what is found is compared with the message itself."""


class Beside(Protocol):
    """An index in a table of its own, which has to be told of every change of rows."""

    tables: tuple[str, ...]

    def create(self, connection: Any) -> None:
        """Create the table."""
        ...

    def added(self, connection: Any, rows: Sequence[tuple[int, str]]) -> None:
        """Take note of rows that were added: their places, and what their columns hold."""
        ...

    def adding(self, connection: Any, condition: str, parameters: tuple[Any, ...]) -> None:
        """Take note of the rows for which the condition holds: they were changed."""
        ...

    def removing(self, connection: Any, condition: str, parameters: tuple[Any, ...]) -> None:
        """Let go of the rows for which the condition holds: they will go, or be changed."""
        ...


class Terms(Protocol):
    """How one database keeps terms."""

    assigning: str
    """What becomes of the column when a session is assigned to a user, as SQL text; nothing if it does not tell users.

    It has one parameter, the user's term, and ``{}`` for the column.
    """

    @property
    def beside(self) -> Beside | None:
        """The index, if it is not one of the rows."""
        ...

    def kept(self, tenant: str, user_id: str | None, terms: Collection[str]) -> str:
        """Return what the column holds."""
        ...

    def wanted(self, where: s.SearchFilter) -> dict[str, object]:
        """Return what the index is asked, as parameters of ``Dialect.has_terms``."""
        ...


class TermsOf(Protocol):
    """Makes them for tables of certain names."""

    def __call__(self, names: Names) -> Terms:
        """Return how terms are kept there."""
        ...


Parameters: TypeAlias = tuple[Any, ...]


class SearchTable:
    """The search view, kept in two tables: messages, and sessions with their owners; and in what is beside."""

    def __init__(self, view: View, names: Names, wording: Wording, rows_of: RowsOf, terms_of: TermsOf) -> None:
        self.name = view.name
        self.revision = view.revision
        self._terms = terms_of(names)
        self.beside = beside = self._terms.beside
        self.tables = (names.message_search, names.search_owners, *(beside.tables if beside else ()))
        self._ddl = Ddl(names, wording, "message_search", "search_owners")
        self.create_tables, self.create_indexes = self._ddl.tables, self._ddl.indexes
        self._parts = wording, rows_of, terms_of
        self._codec = Abridged(s.CLASSES)
        self._run, self._shown = wording.run, wording.shown
        rows = Table.named(names.message_search, names, SEARCH_COLUMNS, wording)
        owners = Table.named(names.search_owners, names, OWNER_COLUMNS, wording)
        self._rows, self._owners = rows_of(rows), Owners(rows_of(owners))
        self._table, mark = rows.name, wording.mark
        _, _, ordinal, user, message, _, _, content, _, _, _, terms = map(wording.quoted, rows.columns)
        self._session = session = of_session(rows, wording)
        self._latest = latest_of(rows, wording, session, ordinal, message)
        self._older = f"{session} AND {ordinal} < {mark}"
        kept = f"SELECT {ordinal} FROM {self._table} WHERE {session} ORDER BY {ordinal} DESC LIMIT {mark}"
        self._first_kept = f"SELECT min({ordinal}) FROM ({kept}) AS kept"
        self._reword = f"UPDATE {self._table} SET {content} = {mark}, {terms} = {mark} WHERE {self._latest}"
        told = f", {terms} = {self._terms.assigning.format(terms)}" if self._terms.assigning else ""
        self._assign = f"UPDATE {self._table} SET {user} = {mark}{told} WHERE {session}"
        self._disown = f"DELETE FROM {owners.name} WHERE {of_session(owners, wording)}"

    def under(self, names: Names) -> "SearchTable":
        """Return the view with its tables under other names."""
        return SearchTable(self, names, *self._parts)

    def create(self, connection: Any) -> None:
        """Create the tables and their indexes."""
        self._ddl.all(connection)
        if self.beside is not None:
            self.beside.create(connection)

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: Any) -> None:
        """Write what a page of the log changes; messages that are only said are inserted together.

        Raises:
            UnknownEvent, CorruptLog: an event cannot be read.
        """
        said: list[tuple[m.Add, s.Wording]] = []
        with self._owners.of(connection, rows) as owners:
            for change in s.changes(owners, rows, self._codec.of(codec)):
                match change:
                    case s.Worded(m.Add() as add, wording):
                        said.append((add, wording))
                    case _:
                        self._insert_all(connection, said)
                        said.clear()
                        self._change(connection, change)
            self._insert_all(connection, said)

    def forget(self, tenant: str, session_id: str, connection: Any) -> None:
        """Delete the session's rows."""
        self._delete(connection, self._session, (tenant, session_id))
        self._run(connection, self._disown, (tenant, session_id))

    def _change(self, connection: Any, change: s.Change) -> None:
        match change:
            case s.Worded(m.Reword(owner, message_id, version), wording):
                where = (*_session(owner), self._shown(message_id))
                kept = self._terms.kept(owner.tenant, owner.user_id, wording.terms)
                self._update(connection, self._latest, where, self._reword, (version, kept))
            case s.Worded(m.Summarise() as summarise, wording):
                self._summarise(connection, summarise, wording)
            case m.Remove(owner, message_id):
                self._delete(connection, self._latest, (*_session(owner), self._shown(message_id)))
            case m.Clear(owner):
                self._delete(connection, self._session, _session(owner))
            case m.Assign(owner):
                told = (user_term(owner.tenant, owner.user_id),) if self._terms.assigning else ()
                values = (self._shown(owner.user_id), *told)
                self._update(connection, self._session, _session(owner), self._assign, values)
            case m.Forget(owner):
                self.forget(*_session(owner), connection)
            case s.Worded() | m.Add() | m.Summarise() | m.Reword():
                raise AssertionError(change)  # those are worded, and added above
            case _:
                assert_never(change)

    def _summarise(self, connection: Any, change: m.Summarise, wording: s.Wording) -> None:
        owner, kept, ordinal, message_id, position, version = change
        first = self._run(connection, self._first_kept, (*_session(owner), kept)).fetchone()[0]
        self._delete(connection, self._older, (*_session(owner), ordinal if first is None else first))
        before = ordinal if first is None else first - 1
        self._insert_all(connection, [(m.Add(owner, before, message_id, position, 0, version), wording)])

    def _update(self, connection: Any, condition: str, where: Parameters, statement: str, values: Parameters) -> None:
        if self.beside is not None:
            self.beside.removing(connection, condition, where)
        self._run(connection, statement, (*values, *where))
        if self.beside is not None:
            self.beside.adding(connection, condition, where)

    def _delete(self, connection: Any, condition: str, where: Parameters) -> None:
        if self.beside is not None:
            self.beside.removing(connection, condition, where)
        self._run(connection, f"DELETE FROM {self._table} WHERE {condition}", where)

    def _insert_all(self, connection: Any, said: Sequence[tuple[m.Add, s.Wording]]) -> None:
        rows = [self._row(add, wording) for add, wording in said]
        if rows:
            self._rows.insert(connection, rows)
            if self.beside is not None:
                self.beside.added(connection, [(row[5], row[-1]) for row in rows])

    def _row(self, add: m.Add, wording: s.Wording) -> tuple[Any, ...]:
        """Return a row as ``SEARCH_COLUMNS`` has it."""
        owner, ordinal, message_id, position, item, version = add
        shown, route = self._shown, wording.route
        return (
            *_session(owner),
            ordinal,
            shown(owner.user_id),
            shown(message_id),
            place_of(position, item),
            version,
            version,
            wording.role,
            shown(None if route is None else route[:LONGEST_ROUTE]),
            microseconds(wording.at),
            self._terms.kept(owner.tenant, owner.user_id, wording.terms),
        )


def _session(owner: m.Owner) -> tuple[str, str]:
    return owner.tenant, owner.session_id


def place_of(position: int, item: int) -> int:
    """Return a message's place in the log as one number, in the same order; at most 2^63 - 1.

    Raises:
        OverflowError: the event brought more messages than there are places.
    """
    if item >> ITEM_BITS:
        raise OverflowError(f"an event brought more than {1 << ITEM_BITS} messages")
    return min(position << ITEM_BITS | item, 2**63 - 1)


def position_of(place: int) -> tuple[int, int]:
    """Return the position and the item that make a place."""
    return place >> ITEM_BITS, place & ((1 << ITEM_BITS) - 1)


def user_term(tenant: str, user_id: str | None) -> str:
    """Return the term of a user's messages, or of those that are nobody's: ``SCOPE_SIZE`` characters."""
    return "u" + hashed(f"{tenant}/{user_id or ''}")


def tenant_term(tenant: str) -> str:
    """Return the term of a tenant's messages."""
    return "t" + hashed(tenant)


def hashed(text: str) -> str:
    """Return 16 letters and digits for a text; others may have the same."""
    return blake2b(text.encode(), digest_size=8).hexdigest()
