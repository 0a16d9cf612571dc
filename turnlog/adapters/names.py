"""What turnlog's tables and the columns of its views are called in a database. No SQLAlchemy here."""

import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from turnlog.domain.errors import InvalidInput

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)
_ABOVE_ALL = "\U0010ffff" * 512
"""A name above that of every stream: those are shorter, a tenant's and a session's with a slash between."""

SESSION_COLUMNS = (
    "tenant",
    "session_id",
    "user_id",
    "agent",
    "status",
    "current_route",
    "current_step",
    "message_count",
    "created_at",
    "updated_at",
    "last_message_at",
    "completed_at",
    "version",
    "created_position",
    "updated_position",
)
"""Columns of the session index, one row a session. Times are whole microseconds since 1970 (UTC)."""
MESSAGE_COLUMNS = (
    "tenant",
    "session_id",
    "ordinal",
    "user_id",
    "message_id",
    "position",
    "item",
    "version",
    "content_version",
)
"""Columns of the message index, one row a visible message; ``ordinal`` orders a session's history."""
OWNER_COLUMNS = ("tenant", "session_id", "user_id", "ordinal", "version")
"""Columns of the message index's second table, one row a session: its owner and the last ordinal given."""
SEARCH_COLUMNS = (
    "tenant",
    "session_id",
    "ordinal",
    "user_id",
    "message_id",
    "place",
    "version",
    "content_version",
    "role",
    "route",
    "said_at",
    "terms",
)
"""Columns of the search view, one row a visible message; its second table is as that of the message index.

``place`` is the message's place in the log as one number, see ``search_tables.place_of``; ``terms`` hold its words, in
the form that the database's index takes.
"""
_COLUMNS = frozenset(SESSION_COLUMNS + MESSAGE_COLUMNS + SEARCH_COLUMNS)


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """The names of all tables; ``columns`` renames columns of the views (its keys are the names above)."""

    events: str = "turnlog_events"
    keys: str = "turnlog_keys"
    snapshots: str = "turnlog_snapshots"
    tracking: str = "turnlog_tracking"
    views: str = "turnlog_views"
    parked: str = "turnlog_parked"
    trials: str = "turnlog_trials"
    session_index: str = "turnlog_session_index"
    message_index: str = "turnlog_message_index"
    message_owners: str = "turnlog_message_owners"
    message_search: str = "turnlog_message_search"
    search_owners: str = "turnlog_search_owners"
    search_words: str = "turnlog_search_words"
    columns: Mapping[str, str] = {}

    @classmethod
    def chosen(cls, given: object = None) -> "Names":
        """Return the default names with those ``given`` in their places.

        Raises:
            InvalidInput: a key is not known, or a name is no identifier or is used twice.
        """
        if isinstance(given, Names):
            fields: dict[str, Any] = msgspec.structs.asdict(given)
        elif given is None or isinstance(given, Mapping):
            fields = dict(cast("Mapping[str, Any]", given or {}))
        else:
            raise InvalidInput("names", f"expected a dict of names, got {type(given).__name__}")
        unknown = [field for field in fields if field not in cls.__struct_fields__]
        if unknown:
            raise InvalidInput("names", f"{unknown[0]!r} is none of {', '.join(cls.__struct_fields__)}")
        names = cls(**fields)
        names._check()
        return names

    def tables(self) -> tuple[str, ...]:
        """Return every table's name."""
        return tuple(getattr(self, field) for field in self.__struct_fields__ if field != "columns")

    def column(self, column: str) -> str:
        """Return what a column of the views is called."""
        return self.columns.get(column, column)

    def _check(self) -> None:
        for field in self.__struct_fields__[:-1]:
            identifier(f"names.{field}", getattr(self, field))
        _require_different("names", self.tables())
        columns: Any = self.columns
        if not isinstance(columns, Mapping):
            raise InvalidInput("names.columns", f"expected a dict, got {type(columns).__name__}")
        for column, chosen in self.columns.items():
            if column not in _COLUMNS:
                raise InvalidInput("names.columns", f"{column!r:.100} is no column of a view")
            identifier(f"names.columns.{column}", chosen)
        for group in (SESSION_COLUMNS, MESSAGE_COLUMNS, OWNER_COLUMNS, SEARCH_COLUMNS):
            _require_different("names.columns", tuple(self.column(column) for column in group))


def identifier(field: str, value: object) -> str:
    """Return an SQL identifier: letters, digits and ``_``, at most 63, not one that SQLite keeps for itself."""
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value) or value.lower().startswith("sqlite_"):
        raise InvalidInput(field, f"expected letters, digits and _, at most 63, not a digit first, got {value!r:.100}")
    return value


def quoted(name: str) -> str:
    """Return an identifier as SQL text, safe where it is a reserved word too."""
    return f'"{name}"'


def name_range(prefix: str) -> tuple[str, str]:
    """Return the bounds between which the names that begin with ``prefix`` (which ends in an ASCII character) lie.

    All names begin with an empty one.
    """
    return (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)) if prefix else ("", _ABOVE_ALL)


def _require_different(field: str, names: tuple[str, ...]) -> None:
    lowered = [name.lower() for name in names]
    twice = next((name for name in names if lowered.count(name.lower()) > 1), None)
    if twice is not None:
        raise InvalidInput(field, f"{twice!r} is used twice")
