"""The tables of a log on MariaDB or MySQL, as numbered migrations that run once.

``MIGRATIONS`` are never edited once released: a change is a new one. Of many processes that start at once, one runs
them, holding a lock of the server's; the others wait. The number of the last one is kept in the tracking table. DDL
commits by itself there, so whoever is killed leaves a migration half done: every statement can be repeated.

Texts are compared byte by byte, blanks at their end included. A session id has 255 characters, a tenant's too, and a
character up to four bytes: with the key of a message that makes 3,071 of the 3,072 bytes that an index takes.
"""

from hashlib import sha256
from typing import Any

from turnlog.adapters.mariadb.connection import Connection, run
from turnlog.adapters.mariadb.head import head_name
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.names import Names
from turnlog.domain.errors import CorruptLog, InvalidInput, StoreError, StoreUnavailable

LONGEST_EVENTS_NAME = 59
"""A name has 64 characters at most; two more are made from that of the events."""
TEXT = "CHARACTER SET utf8mb4 COLLATE {collation}"
_INNODB = "ENGINE=InnoDB ROW_FORMAT=DYNAMIC"
EVENTS = f"""CREATE TABLE IF NOT EXISTS {{events}} (
    position bigint unsigned NOT NULL PRIMARY KEY CHECK (position > 0),
    originator_id varchar(511) {TEXT} NOT NULL,
    originator_version bigint NOT NULL,
    topic varchar(1024) {TEXT} NOT NULL,
    state longblob NOT NULL,
    UNIQUE KEY stream (originator_id, originator_version)) {_INNODB}"""
HEAD = f"""CREATE TABLE IF NOT EXISTS {{head}} (
    id tinyint NOT NULL PRIMARY KEY CHECK (id = 1),
    position bigint unsigned NOT NULL) {_INNODB}"""
# Where events are there already, of a log whose head was lost, the head is where they end.
HEAD_ROW = "INSERT IGNORE INTO {head} SELECT 1, COALESCE(MAX(position), 0) FROM {events}"
TRACKING = f"""CREATE TABLE IF NOT EXISTS {{tracking}} (
    application_name varchar(255) {TEXT} NOT NULL PRIMARY KEY,
    notification_id bigint NOT NULL) {_INNODB}"""
KEYS = f"""CREATE TABLE IF NOT EXISTS {{keys}} (
    originator_id varchar(511) {TEXT} NOT NULL,
    kind varchar(7) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    `key` varchar(255) {TEXT} NOT NULL,
    version bigint NOT NULL,
    fingerprint varbinary(64) NOT NULL,
    seal varbinary(64) NOT NULL,
    PRIMARY KEY (originator_id, kind, `key`)) {_INNODB}"""
SNAPSHOTS = f"""CREATE TABLE IF NOT EXISTS {{snapshots}} (
    originator_id varchar(511) {TEXT} NOT NULL PRIMARY KEY,
    version bigint NOT NULL,
    revision bigint NOT NULL,
    hash varbinary(64) NOT NULL,
    state longblob NOT NULL,
    seal varbinary(64) NOT NULL) {_INNODB}"""
VIEWS = f"""CREATE TABLE IF NOT EXISTS {{views}} (
    name varchar(255) {TEXT} NOT NULL PRIMARY KEY,
    revision bigint NOT NULL,
    position bigint NOT NULL,
    mark longblob NOT NULL,
    tables longtext {TEXT} NOT NULL) {_INNODB}"""
PARKED = f"""CREATE TABLE IF NOT EXISTS {{parked}} (
    view varchar(255) {TEXT} NOT NULL,
    stream varchar(511) {TEXT} NOT NULL,
    version bigint NOT NULL,
    position bigint NOT NULL,
    error longtext {TEXT} NOT NULL,
    attempts bigint NOT NULL,
    parked_at bigint NOT NULL,
    PRIMARY KEY (view, stream)) {_INNODB}"""
TRIALS = f"""CREATE TABLE IF NOT EXISTS {{trials}} (
    view varchar(255) {TEXT} NOT NULL PRIMARY KEY,
    position bigint NOT NULL,
    last bigint NOT NULL,
    tries bigint NOT NULL) {_INNODB}"""
JSON = """CREATE OR REPLACE VIEW {json} AS
    SELECT position, originator_id, originator_version, topic,
           JSON_EXTRACT(CONVERT(state USING utf8mb4), '$.header') AS header,
           JSON_EXTRACT(CONVERT(state USING utf8mb4), '$.private') AS private
      FROM {events}"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (TRACKING, EVENTS, HEAD, HEAD_ROW, KEYS, SNAPSHOTS, VIEWS, PARKED, TRIALS, JSON),
)
BOOKKEEPING = (VIEWS, PARKED, TRIALS)
"""What a place has in which views are built."""
_SCHEMA = "turnlog.schema"


def lock_name(*parts: str) -> str:
    """Return the name of the server's lock on what ``parts`` name; it has at most 64 characters."""
    return "turnlog:" + sha256("\n".join(parts).encode()).hexdigest()[:40]


def prepare(pool: Pool, names: Names) -> None:
    """Bring the tables to this turnlog's schema; many processes may do so at once.

    Raises:
        StoreError: a newer turnlog made them, or they are not there and may not be made.
    """
    if len(names.events) > LONGEST_EVENTS_NAME:
        raise InvalidInput("names.events", f"expected at most {LONGEST_EVENTS_NAME} characters")
    version = _version(pool, names)
    if version < len(MIGRATIONS) and not pool.read_only:
        create(pool, [], names)
        version = _version(pool, names)
    if version != len(MIGRATIONS):
        found = "there are no tables of turnlog" if version == 0 else f"its tables have schema {version}"
        raise StoreError(f"{pool.name}: {found}, this turnlog knows {len(MIGRATIONS)}; upgrade")


def create(pool: Pool, statements: list[str], names: Names | None = None) -> None:
    """Execute DDL, and the migrations of ``names``, alone among all who do so in this database."""
    pool.require_writable()
    name = lock_name("schema", pool.schema)
    with pool.read() as connection:
        if run(connection, "SELECT GET_LOCK(%s, %s)", (name, pool.timeout_s)).fetchall() != ((1,),):
            raise StoreUnavailable(f"{pool.name}: another process was making tables for {pool.timeout_s:g} s")
        try:
            for statement in statements:
                run(connection, statement)
            if names is not None:
                _migrate(connection, pool, names)
        finally:
            if connection.open:
                run(connection, "DO RELEASE_LOCK(%s)", (name,))


def _version(pool: Pool, names: Names) -> int:
    try:
        rows = pool.rows(_select_version(pool, names), (_SCHEMA,))
    except CorruptLog:  # the table is not there
        return 0
    return rows[0][0] if rows else 0


def _select_version(pool: Pool, names: Names) -> str:
    return f"SELECT notification_id FROM {pool.table(names.tracking)} WHERE application_name = %s"


def _migrate(connection: Connection, pool: Pool, names: Names) -> None:
    tables = named(pool, names)
    run(connection, TRACKING.format(**tables))
    rows = run(connection, _select_version(pool, names), (_SCHEMA,)).fetchall()
    done = rows[0][0] if rows else 0
    for n, migration in enumerate(MIGRATIONS[done:], done + 1):
        for statement in migration:
            run(connection, statement.format(**tables))
        run(connection, f"REPLACE INTO {tables['tracking']} VALUES (%s, %s)", (_SCHEMA, n))


def named(pool: Pool, names: Names) -> dict[str, Any]:
    """Return what the statements here are formatted with."""
    tables = {field: pool.table(getattr(names, field)) for field in names.__struct_fields__ if field != "columns"}
    tables["head"] = pool.table(head_name(names.events))
    return {**tables, "json": pool.table(f"{names.events}_json"), "collation": pool.collation}
