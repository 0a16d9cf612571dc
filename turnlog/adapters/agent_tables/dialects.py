"""How the tables are written on each database, told by the driver of the connection that a projection is given."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

import msgspec

from turnlog.adapters.agent_tables import layout, values
from turnlog.adapters.wording import POSTGRESQL, SQLITE, Wording
from turnlog.domain.errors import InvalidInput
from turnlog.domain.events import Json
from turnlog.inputs import MAX_ID_LENGTH


def _run(connection: Any, statement: str, parameters: Sequence[object] = ()) -> Any:
    cursor = connection.cursor()
    cursor.execute(statement, parameters)
    return cursor


MARIADB = Wording("MARIADB", "%s", quote="`", conflict="ON DUPLICATE KEY UPDATE", given="VALUES({})", run=_run)


class Dialect(NamedTuple):
    """What one database is told otherwise than others."""

    wording: Wording
    types: layout.Types
    time: Callable[[datetime | None], object]
    """Makes a time one that its column can hold."""
    holds_nul: bool = True
    """Whether text may have a NUL in it; JSON columns may not have one anywhere then."""

    def run(self, connection: Any, statement: str, parameters: Sequence[object] = ()) -> Any:
        """Execute a statement and return its cursor."""
        return self.wording.run(connection, statement, parameters)

    def run_all(self, connection: Any, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Execute a statement for many rows."""
        if rows:
            connection.cursor().executemany(statement, rows)

    def shown(self, text: str | None) -> str | None:
        """Return text as a column can hold it."""
        return text if text is None or self.holds_nul else text.replace("\0", "\ufffd")

    def short(self, text: str | None) -> str | None:
        """Return text as a column of ids can hold it, which a message that was given with its place may not fit."""
        shown = self.shown(text)
        return shown if shown is None else shown[:MAX_ID_LENGTH]

    def json(self, text: str | None) -> str | None:
        """Return JSON as a column can hold it."""
        if text is None or self.holds_nul or "\\u0000" not in text:
            return text
        return values.json_of(_without_nul(msgspec.json.decode(text)))


_DIALECTS = {
    "sqlite3": Dialect(SQLITE, layout.SQLITE, values.iso),
    "psycopg": Dialect(POSTGRESQL, layout.POSTGRESQL, values.naive, holds_nul=False),
    "pymysql": Dialect(MARIADB, layout.MARIADB, values.naive),
}


def dialect_of(connection: object) -> Dialect:
    """Return the dialect of a connection.

    Raises:
        InvalidInput: it is of no SQL database that turnlog knows.
    """
    for cls in type(connection).__mro__:
        found = _DIALECTS.get(cls.__module__.partition(".")[0])
        if found is not None:
            return found
    raise InvalidInput("projection", "AgentTables needs SQLite, PostgreSQL or MariaDB: elsewhere there are no tables")


def _without_nul(value: Json) -> Json:
    match value:
        case str():
            return value.replace("\0", "\ufffd")
        case list():
            return [_without_nul(one) for one in cast("Sequence[Json]", value)]
        case dict():
            members = cast("dict[str, Json]", value)
            return {key.replace("\0", "\ufffd"): _without_nul(one) for key, one in members.items()}
        case _:
            return value
