"""What the tables and their columns are called, and what they are made of on each database."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from turnlog.adapters.names import identifier
from turnlog.domain.errors import InvalidInput

SESSION_COLUMNS: tuple[str, ...] = (
    "id",
    "user_id",
    "agent_name",
    "status",
    "current_route",
    "current_step",
    "collected_data",
    "message_count",
    "last_message_at",
    "completed_at",
    "created_at",
    "updated_at",
)
"""Of @falai/agent 1.x."""
FLOW_COLUMNS = ("pending_directive", "signals", "version")
"""What 2.x adds."""
MESSAGE_COLUMNS: tuple[str, ...] = (
    "id",
    "session_id",
    "user_id",
    "role",
    "content",
    "route",
    "step",
    "tool_calls",
    "event",
    "created_at",
)
_FLOWS = {"current_route": "current_flow", "route": "flow"}
"""What 2.x calls them."""
_JSON = frozenset({"collected_data", "tool_calls", "event", "pending_directive", "signals"})
_INDEXED = (("user_id", "status"), ("session_id", "user_id"))


class Types(NamedTuple):
    """Column types of a database: what the other system's adapter makes there, or would."""

    id: str
    word: str
    text: str
    json: str
    number: str
    time: str
    serial: str
    end: str = ""


SQLITE = Types("TEXT", "TEXT", "TEXT", "TEXT", "INTEGER", "TEXT", "INTEGER")
POSTGRESQL = Types("VARCHAR(255)", "VARCHAR(50)", "TEXT", "JSONB", "INTEGER", "TIMESTAMP", "BIGINT")
MARIADB = Types(
    "VARCHAR(255)",
    "VARCHAR(50)",
    "LONGTEXT",
    "JSON",
    "INTEGER",
    "DATETIME(6)",
    "BIGINT",
    " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
)


class Layout:
    """The chosen names: two tables that others read, and beside each one that only turnlog reads.

    Raises:
        InvalidInput: a name is no identifier, or is used twice; a column that is renamed is none.
    """

    def __init__(
        self,
        sessions: str,
        messages: str,
        session_columns: Mapping[str, str],
        message_columns: Mapping[str, str],
        *,
        flows: bool,
    ) -> None:
        self.sessions = identifier("sessions", sessions)
        self.messages = identifier("messages", messages)
        self.state = identifier("sessions", f"{sessions}_state")
        self.order = identifier("messages", f"{messages}_order")
        tables = [self.sessions, self.messages, self.state, self.order]
        if len({table.lower() for table in tables}) < len(tables):
            raise InvalidInput("messages", f"expected another name than {sessions!r}")
        self.session_fields = SESSION_COLUMNS + (FLOW_COLUMNS if flows else ())
        self.session_columns = _chosen("session_columns", self.session_fields, session_columns, flows=flows)
        self.message_columns = _chosen("message_columns", MESSAGE_COLUMNS, message_columns, flows=flows)

    def session_column(self, field: str) -> str:
        """Return what a column of the sessions' table is called."""
        return self.session_columns[self.session_fields.index(field)]

    def message_column(self, field: str) -> str:
        """Return what a column of the messages' table is called."""
        return self.message_columns[MESSAGE_COLUMNS.index(field)]

    def creating(self, types: Types, quote: str) -> list[str]:
        """Return the statements that create the tables and their indexes."""
        tables = (
            (self.sessions, self.session_fields, self.session_columns, ("id",)),
            (self.messages, MESSAGE_COLUMNS, self.message_columns, ("session_id", "id")),
        )
        statements: list[str] = []
        for (table, fields, columns, key), indexed in zip(tables, _INDEXED, strict=True):
            named = dict(zip(fields, columns, strict=True))
            parts = [f"{quote}{named[field]}{quote} {_type(field, types)}" for field in fields]
            listed = ", ".join(f"{quote}{named[field]}{quote}" for field in key)
            statements.append(
                f"CREATE TABLE {quote}{table}{quote} ({', '.join(parts)}, PRIMARY KEY ({listed})){types.end}"
            )
            statements += [
                f"CREATE INDEX {quote}idx_{table}_{named[field]}{quote} ON {quote}{table}{quote}"
                f" ({quote}{named[field]}{quote})"
                for field in indexed
            ]
        return [*statements, *self._own(types, quote)]

    def _own(self, types: Types, quote: str) -> Sequence[str]:
        id_, number = f"{types.id} NOT NULL", f"{types.serial} NOT NULL"
        order = f"session_id {id_}, ordinal {number}, message_id {id_}, told_at {number}, item {types.text}"
        state = f"session_id {id_} PRIMARY KEY, state {types.text} NOT NULL"
        return (
            f"CREATE TABLE {quote}{self.state}{quote} ({state}){types.end}",
            f"CREATE TABLE {quote}{self.order}{quote} ({order}, PRIMARY KEY (session_id, ordinal)){types.end}",
        )


def _type(field: str, types: Types) -> str:
    special = {
        "id": f"{types.id} NOT NULL",
        "session_id": f"{types.id} NOT NULL",
        "role": f"{types.word} NOT NULL",
        "status": f"{types.word} DEFAULT 'active'",
        "content": f"{types.text} NOT NULL",
        "message_count": f"{types.number} DEFAULT 0",
        "version": types.number,
        "created_at": f"{types.time} NOT NULL",
        "updated_at": f"{types.time} NOT NULL",
        "last_message_at": types.time,
        "completed_at": types.time,
    }
    return special.get(field) or (types.json if field in _JSON else types.id)


def _chosen(name: str, fields: Sequence[str], given: Mapping[str, str], *, flows: bool) -> tuple[str, ...]:
    unknown = [field for field in given if field not in fields]
    if unknown:
        raise InvalidInput(name, f"{unknown[0]!r:.100} is none of {', '.join(fields)}")
    by_default = _FLOWS if flows else {}
    columns = tuple(identifier(f"{name}.{field}", given.get(field, by_default.get(field, field))) for field in fields)
    if len({column.lower() for column in columns}) < len(columns):
        raise InvalidInput(name, "expected every name once")
    return columns
