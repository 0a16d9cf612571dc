"""The queries on the built-in views as SQLAlchemy selects, compiled to text. Imported when a view is first queried.

Every list is a scan of one index, in its order, from where the page before ended. Which index that is, is said here
and not left to a planner without statistics: the most selective filter keeps its index, the others are marked as
not to be looked for in one.
"""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from turnlog.adapters.names import SESSION_COLUMNS, Names
from turnlog.adapters.sql import SQLITE, Dialect, compiled, table_of

_INDEXES = {"user_id": "user", "agent": "agent", "current_route": "route", "status": "status"}
"""How the names of the indexes end that filter by a column, the most selective first."""


class Selects:
    """Makes queries for one set of names. ``given`` are the parameters that a query will have, which shape it."""

    def __init__(self, names: Names, dialect: Dialect = SQLITE, schema: str | None = None) -> None:
        self._dialect = dialect
        self._names = names
        self._session_index, self._message_index, self._message_search = (
            table_of(names, dialect, schema, table) for table in ("session_index", "message_index", "message_search")
        )
        self._sessions, self._messages = self._session_index.c, self._message_index.c
        self._words = sa.table(names.search_words, sa.column("rowid"), sa.column(names.search_words))

    def sessions(self, given: Collection[str]) -> str:
        """Sessions, newest update first."""
        c = self._sessions
        statement = self._session_rows()
        filters = [column for column in _INDEXES if column in given]
        for column in filters:
            left = c[column] if column == filters[0] else self._dialect.unindexed(c[column])
            statement = statement.where(left == sa.bindparam(column))
        if "older" in given:
            statement = statement.where(c.updated_at < sa.bindparam("older"))
        if "newer" in given:
            statement = statement.where(c.updated_at > sa.bindparam("newer"))
        if "before" in given:
            statement = statement.where(c.updated_position < sa.bindparam("before"))
        if "without" in given:
            statement = statement.where(self._without(c.session_id))
        walked = _INDEXES[filters[0]] if filters else "all"
        statement = self._walking(statement, self._session_index, walked)
        return self._text(_limited(statement.order_by(c.updated_position.desc())))

    def session(self) -> str:
        """One session."""
        return self._text(self._session_rows().where(self._sessions.session_id == sa.bindparam("session_id")))

    def active(self, given: Collection[str]) -> str:
        """The newest created active session of a user."""
        c = self._sessions
        statement = (
            self._session_rows()
            .where(c.user_id == sa.bindparam("user_id"), c.status == sa.literal_column("'active'"))
            .order_by(c.created_position.desc())
        )
        if "without" in given:
            statement = statement.where(self._without(c.session_id))
        statement = self._walking(statement, self._session_index, "active")
        return self._text(_limited(statement, sa.literal_column("1")))

    def messages(self, given: Collection[str]) -> str:
        """A user's messages, newest first."""
        c = self._messages
        statement = (
            sa.select(c.session_id, c.message_id, c.position, c.item, c.version, c.content_version)
            .where(c.tenant == sa.bindparam("tenant"), c.user_id == sa.bindparam("user_id"))
            .order_by(c.position.desc(), c.item.desc())
        )
        if "position" in given:
            position, item = sa.bindparam("position", type_=sa.BigInteger), sa.bindparam("item", type_=sa.BigInteger)
            # as a pair, which MariaDB would not look for in an index
            statement = statement.where(c.position <= position, sa.or_(c.position < position, c.item < item))
        if "without" in given:
            statement = statement.where(self._without(c.session_id))
        return self._text(_limited(self._walking(statement, self._message_index, "user")))

    def found(self, given: Collection[str]) -> str:
        """Messages with certain terms, newest first. Those that have them are found first, whatever else is asked."""
        c, unindexed, has_terms = self._message_search.c, self._dialect.unindexed, self._dialect.has_terms
        statement = sa.select(c.session_id, c.message_id, c.place, c.version, c.content_version, c.user_id)
        if has_terms is None:
            place = self._words.c.rowid
            wanted = self._words.c[self._names.search_words].op("MATCH")(sa.bindparam("terms"))
            statement = statement.where(wanted, c.place == place)
        else:
            place = c.place
            statement = statement.where(has_terms(c.terms))
        statement = statement.where(unindexed(c.tenant) == sa.bindparam("tenant")).order_by(place.desc())
        for column in ("user_id", "role", "route"):
            if column in given:
                statement = statement.where(unindexed(c[column]) == sa.bindparam(column))
        if "since" in given:
            statement = statement.where(c.said_at >= sa.bindparam("since"))
        if "until" in given:
            statement = statement.where(c.said_at < sa.bindparam("until"))
        if "place" in given:
            statement = statement.where(place < sa.bindparam("place", type_=sa.BigInteger))
        if "without" in given:
            statement = statement.where(self._without(c.session_id))
        return self._text(_limited(statement))

    def users(self) -> str:
        """Users in order of their ids, with what they have."""
        c = self._sessions
        statement = (
            sa.select(c.user_id, sa.func.count(), _sum(c.message_count), sa.func.max(c.updated_at))
            .where(c.tenant == sa.bindparam("tenant"), c.user_id > sa.bindparam("after"))
            .group_by(c.user_id)
            .order_by(c.user_id)
        )
        return self._text(_limited(self._walking(statement, self._session_index, "user")))

    def statuses(self) -> str:
        """Sessions, events and messages by status."""
        c = self._sessions
        counts = sa.select(c.status, sa.func.count(), _sum(c.version), _sum(c.message_count))
        return self._text(counts.where(c.tenant == sa.bindparam("tenant")).group_by(c.status).order_by(c.status))

    def user_count(self) -> str:
        """How many users there are."""
        c = self._sessions
        return self._text(sa.select(sa.func.count(c.user_id.distinct())).where(c.tenant == sa.bindparam("tenant")))

    def _session_rows(self) -> sa.Select[Any]:
        c = self._sessions
        return sa.select(*(c[column] for column in SESSION_COLUMNS)).where(c.tenant == sa.bindparam("tenant"))

    def _without(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """Return the condition that ``column`` is none of the ids that are listed."""
        condition: sa.ColumnElement[bool] = self._dialect.outside(column, sa.bindparam("without"))
        return condition

    def _walking(self, statement: Any, table: sa.Table, index: str) -> Any:
        """Return the select with the index named that it is to walk, where that has to be said."""
        if self._dialect.hint is None:
            return statement
        return statement.with_hint(table, self._dialect.hint.format(f"`{table.name}_{index}`"))

    def _text(self, statement: Any) -> str:
        return compiled(statement, self._dialect)


def _limited(statement: Any, limit: sa.ColumnElement[Any] | None = None) -> Any:
    """Return the select with its limit; the dialect would add a parameter of its own for the offset."""
    return statement.limit(sa.bindparam("limit") if limit is None else limit).offset(sa.literal_column("0"))


def _sum(column: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """Return a sum that is a whole number everywhere: PostgreSQL's of a bigint is a numeric."""
    return sa.cast(sa.func.sum(column), sa.BigInteger)
