"""The tables of a log in SQLite, and of what is kept of views beside their rows, under their chosen names.

Positions are the rowid: no row of the log is ever deleted, so none is given twice (docs/decisions/0001).
"""

from turnlog.adapters.names import Names, quoted

_EVENTS = """CREATE TABLE IF NOT EXISTS {events} (
    position INTEGER NOT NULL PRIMARY KEY,
    originator_id TEXT NOT NULL,
    originator_version INTEGER NOT NULL,
    topic TEXT NOT NULL,
    state BLOB NOT NULL,
    UNIQUE (originator_id, originator_version))"""
_KEYS = """CREATE TABLE IF NOT EXISTS {keys} (
    originator_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    "key" TEXT NOT NULL,
    version INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    seal BLOB NOT NULL,
    UNIQUE (originator_id, kind, "key"))"""
_SNAPSHOTS = """CREATE TABLE IF NOT EXISTS {snapshots} (
    originator_id TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    hash BLOB NOT NULL,
    state BLOB NOT NULL,
    seal BLOB NOT NULL)"""
_TRACKING = """CREATE TABLE IF NOT EXISTS {tracking} (
    application_name TEXT NOT NULL PRIMARY KEY,
    notification_id INTEGER NOT NULL)"""
_VIEWS = """CREATE TABLE IF NOT EXISTS {views} (
    name TEXT NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    position INTEGER NOT NULL,
    mark BLOB NOT NULL,
    tables TEXT NOT NULL)"""
_PARKED = """CREATE TABLE IF NOT EXISTS {parked} (
    "view" TEXT NOT NULL,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    error TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    parked_at INTEGER NOT NULL,
    UNIQUE ("view", stream))"""


def bookkeeping(names: Names) -> list[str]:
    """Return the statements that create the views' bookkeeping."""
    return [_VIEWS.format(views=quoted(names.views)), _PARKED.format(parked=quoted(names.parked))]


def statements(names: Names) -> list[str]:
    """Return the statements that create all of them."""
    log = {table: quoted(getattr(names, table)) for table in ("events", "keys", "snapshots", "tracking")}
    return [
        *(statement.format(**log) for statement in (_EVENTS, _KEYS, _SNAPSHOTS, _TRACKING)),
        *bookkeeping(names),
    ]
