"""Which of the other systems made the tables of a database, told by their columns; and the sessions in them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from turnlog.adapters.migration import confused, falai, openai_agents
from turnlog.adapters.migration.database import Database
from turnlog.adapters.migration.session import Found, Note, Unreadable
from turnlog.domain.errors import InvalidInput

FALAI, CONFUSED, OPENAI = "falai", "confused-ai", "openai-agents"
_FALAI = {"id", "collected_data", "status", "created_at", "updated_at"}
_FALAI_MESSAGES = {"id", "session_id", "role", "content", "created_at"}
_SQL_STORE = {"id", "agent_id", "state", "messages", "metadata", "context", "expires_at"}
_RUNS = {"id", "session_id", "agent_id", "start_time", "status", "result"}
_SQLITE_STORE = {"id", "agent_id", "messages", "created_at", "updated_at"}
_AGENT_DB = {"session_id", "session_type", "session_data", "created_at"}
_OPENAI = {"session_id", "created_at", "updated_at"}
_OPENAI_ITEMS = {"id", "session_id", "message_data"}


class Layout(NamedTuple):
    """Tables of one system: which, the sessions' table, and how it is read."""

    kind: str
    table: str
    read: Callable[[Database, str], Iterator[Found]]


def layout_of(db: Database, kind: str | None, table: str | None) -> Layout:
    """Return the one layout that the tables have, of this kind and sessions' table if those are given.

    Raises:
        InvalidInput: none of the tables is of a known system, or several are.
    """
    found = [
        layout
        for name, columns in db.tables.items()
        if table in (None, name)
        and (layout := _layout(db, name, set(columns))) is not None
        and kind in (None, layout.kind)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        named = ", ".join(f"{one.table} ({one.kind})" for one in found)
        raise InvalidInput("source", f"expected sessions of one system, found {named}: name the table")
    of = f" of {kind}" if kind else ""
    raise InvalidInput("source", f"no table of sessions{of} among {', '.join(sorted(db.tables)) or 'none'}")


def _layout(db: Database, table: str, columns: set[str]) -> Layout | None:
    if columns >= _FALAI:
        return Layout(FALAI, table, _falai)
    if columns >= _SQL_STORE:
        return Layout(CONFUSED, table, _sql_store)
    if columns >= _AGENT_DB:
        return Layout(CONFUSED, table, _agent_db)
    if columns >= _SQLITE_STORE:
        return Layout(CONFUSED, table, _sqlite_store)
    if columns >= _OPENAI and db.referring(table, _OPENAI_ITEMS) is not None:
        return Layout(OPENAI, table, _openai)
    return None


def _falai(db: Database, table: str) -> Iterator[Found]:
    messages = db.referring(table, _FALAI_MESSAGES)
    for row in db.in_order(table, "id", ("created_at", "id")):
        rows = [] if messages is None else db.of_session(messages, row["id"], ("created_at", "id"))
        yield falai.session_of(row, rows)
    yield from _nameless(db, table, "id")
    if messages is not None:
        yield from _astray(db, messages, table, "id", "message")


def _sql_store(db: Database, table: str) -> Iterator[Found]:
    runs = db.referring(table, _RUNS)
    for row in db.in_order(table, "id", ("created_at", "id")):
        yield confused.from_row(row, [] if runs is None else db.of_session(runs, row["id"], ("start_time", "id")))
    yield from _nameless(db, table, "id")
    if runs is not None:
        yield from _astray(db, runs, table, "id", "run")


def _sqlite_store(db: Database, table: str) -> Iterator[Found]:
    yield from map(confused.from_row, db.in_order(table, "id", ("created_at", "id")))
    yield from _nameless(db, table, "id")


def _agent_db(db: Database, table: str) -> Iterator[Found]:
    yield from map(confused.from_agent_db, db.in_order(table, "session_id", ("created_at", "session_id")))
    yield from _nameless(db, table, "session_id")


def _openai(db: Database, table: str) -> Iterator[Found]:
    items = db.referring(table, _OPENAI_ITEMS) or ""
    for row in db.in_order(table, "session_id", ("created_at", "session_id")):
        yield openai_agents.session_of(row, db.of_session(items, row["session_id"], ("id",)))
    yield from _nameless(db, table, "session_id")
    yield from _astray(db, items, table, "session_id", "item")


def _nameless(db: Database, table: str, key: str) -> Iterator[Found]:
    """Yield the sessions that have no id."""
    note = Note(what="session", id="", session_id=None, reason=f"its {key} is null")
    yield from [Unreadable(note=note)] * db.nameless(table, key)


def _astray(db: Database, table: str, sessions: str, key: str, what: str) -> Iterator[Found]:
    for id_, session_id in db.astray(table, sessions, key):
        reason = "it names no session" if session_id is None else "there is no such session"
        of = None if session_id is None else str(session_id)
        yield Unreadable(note=Note(what=what, id=str(id_), session_id=of, reason=reason), whole=False)
