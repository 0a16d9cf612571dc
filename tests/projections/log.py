"""A log with its views and engine, written to without a store: what the tests of projections share."""

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pymysql
from pymongo import IndexModel

from turnlog.adapters.mariadb import MariaDBRecorder
from turnlog.adapters.mariadb.benches import Benches as MariaDBBenches
from turnlog.adapters.mariadb.pool import Pool as MariaDBPool
from turnlog.adapters.mariadb.views import MariaDBViews
from turnlog.adapters.memory import MemoryRecorder
from turnlog.adapters.mongodb.client import Client
from turnlog.adapters.mongodb.recorder import MongoDBRecorder
from turnlog.adapters.mongodb.view_connection import ViewConnection
from turnlog.adapters.mongodb.views import MongoDBViews
from turnlog.adapters.names import Names
from turnlog.adapters.postgresql import PostgreSQLRecorder
from turnlog.adapters.postgresql.benches import Benches
from turnlog.adapters.postgresql.pool import Pool
from turnlog.adapters.postgresql.views import PostgreSQLViews
from turnlog.adapters.redis.log import Log as RedisLog
from turnlog.adapters.redis.recorder import RedisRecorder
from turnlog.adapters.redis.server import Server
from turnlog.adapters.redis.views import RedisViews
from turnlog.adapters.sqlite import SQLiteRecorder
from turnlog.adapters.sqlite.database import Database
from turnlog.adapters.sqlite.views import SQLiteViews
from turnlog.domain import events as e
from turnlog.domain.envelope import NewEvent, header_of, seal
from turnlog.domain.events import Event
from turnlog.domain.mapper import Codec
from turnlog.domain.recorder import Batch, Reader, Recorder
from turnlog.domain.values import RecordedEvent
from turnlog.projections.engine import Engine
from turnlog.projections.message_index import MessageIndex
from turnlog.projections.session_index import SessionIndex, SessionRow

START = datetime(2026, 1, 1, tzinfo=UTC)
STARTED = e.SessionStarted(user_id="alice")


def at(position: int) -> datetime:
    """Return when the event at this position was recorded: a second after the one before."""
    return START + timedelta(seconds=position)


def said(message_id: str) -> e.MessageAdded:
    """Return a message."""
    return e.MessageAdded(message_id=message_id, role="user", content=f"content of {message_id}")


class Log:
    """A log in memory (without a path), in a file, or (by a URL) on a server; no view is kept until one is added."""

    database: Any
    views: Any
    recorder: Recorder

    def __init__(self, path: Path | str | None = None, *, names: Names | None = None, read_only: bool = False) -> None:
        self.place = None if path is None else str(path)
        self.url = self.place if self.place is not None and "://" in self.place else None
        self.path = None if self.place is None or self.url is not None else Path(self.place)
        self.names = names or Names()
        self.codec = Codec()
        if self.url is None:
            self._open_sqlite(self.path, read_only=read_only)
        elif self.url.startswith("redis:"):
            self._open_redis(self.url, read_only=read_only)
        elif self.is_mariadb:
            self._open_mariadb(self.url, read_only=read_only)
        elif self.is_mongodb:
            self._open_mongodb(self.url, read_only=read_only)
        else:
            self._open_postgresql(self.url, read_only=read_only)
        self.engine = Engine(self.recorder, self.views, self.codec, clock=lambda: START)

    def _open_postgresql(self, url: str, *, read_only: bool) -> None:
        self.database = Pool(url, read_only=read_only)
        self.views = PostgreSQLViews(self.database, self.names)
        self.recorder = PostgreSQLRecorder(self.database, self.names, self.views)
        self.recorder.prepare()

    def _open_redis(self, url: str, *, read_only: bool) -> None:
        self.database = Server(url, read_only=read_only)
        self.views = RedisViews(self.database)
        self.recorder = RedisRecorder(RedisLog(self.database, self.database.keys), self.views)
        self.recorder.prepare()

    @property
    def is_mariadb(self) -> bool:
        """Whether it is on MariaDB."""
        return self.url is not None and self.url.startswith("mariadb:")

    def _open_mariadb(self, url: str, *, read_only: bool) -> None:
        self.database = MariaDBPool(url, read_only=read_only)
        self.views = MariaDBViews(self.database, self.names)
        self.recorder = MariaDBRecorder(self.database, self.names, self.views)
        self.recorder.prepare()

    @property
    def is_mongodb(self) -> bool:
        """Whether it is on MongoDB."""
        return self.url is not None and self.url.startswith("mongodb:")

    def _open_mongodb(self, url: str, *, read_only: bool) -> None:
        self.database = Client(url, read_only=read_only)
        self.views = MongoDBViews(self.database, self.names)
        self.recorder = MongoDBRecorder(self.database, self.names, self.views)
        self.recorder.prepare()

    def _open_sqlite(self, path: Path | None, *, read_only: bool) -> None:
        self.database = Database(None if path is None else str(path), durability="normal", read_only=read_only)
        self.views = SQLiteViews(self.database, self.names)
        if path is None:
            self.views.prepare()
            self.recorder = MemoryRecorder(self.views)
        else:
            self.recorder = SQLiteRecorder(self.database, self.names, self.views)
            self.recorder.prepare()

    def append(self, session_id: str, *events: Event | tuple[str, bytes], tenant: str = "default") -> int:
        """Append events to a session as one turn (or a topic and bytes as they are); return the last position."""
        stream = f"{tenant}/{session_id}"
        return self.recorder.append([Batch(stream, self._rows(stream, events))], _refuse)[0]

    def delete(self, session_id: str, tenant: str = "default") -> int:
        """Delete a session and destroy its content."""
        stream = f"{tenant}/{session_id}"
        return self.recorder.append([Batch(stream, self._rows(stream, [e.SessionDeleted()]), erase=True)], _refuse)[0]

    def with_views(self) -> "Log":
        """Add the built-in views."""
        for view in (SessionIndex(), MessageIndex()):
            self.engine.add(view)
        return self

    def again(self, **options: Any) -> "Log":
        """Open the same file once more, as another process would."""
        return Log(self.place, names=self.names, **options)

    def building(self, name: str) -> AbstractContextManager[object]:
        """Claim what a rebuild claims, as another process that builds this view."""
        if self.url is None:
            claim: AbstractContextManager[object] = self.database.claim(f"rebuild-{name}")
            return claim
        if self.is_mongodb:
            elsewhere: AbstractContextManager[object] = self.again().views.workshop(_Named(name), keep=True)
            return elsewhere
        benches = MariaDBBenches if self.is_mariadb else Benches
        return benches(self.database, self.names).beside(name, keep=True)

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement on the database of the views, and commit it."""
        reads = self.url is not None or statement.startswith("SELECT")
        with self.database.read() if reads else self.database.write() as connection:
            cursor = execute(connection, statement, parameters)
            found: list[tuple[Any, ...]] = list(cursor.fetchall()) if cursor.description else []
        return found

    def row(self, session_id: str, tenant: str = "default") -> SessionRow:
        """Return a row of the session index that is there."""
        row: SessionRow | None = self.views.select_session(tenant, session_id)
        assert row is not None
        return row

    def messages(self, session_id: str) -> list[tuple[Any, ...]]:
        """Return the message index's rows of a session: (message id, version, item, content version), in order."""
        if self.is_mongodb:
            found = self.database.collection("turnlog_message_index").find(
                {"session_id": session_id}, sort=[("_id", 1)]
            )
            fields = ("message_id", "version", "item", "content_version")
            return [tuple(one[field] for field in fields) for one in found if one["tenant"] == "default"]
        columns = "message_id, version, item, content_version"
        where = "tenant = 'default' AND session_id = ? ORDER BY ordinal"
        return self.query(f"SELECT {columns} FROM turnlog_message_index WHERE {where}", session_id)

    def close(self) -> None:
        """Close both."""
        self.recorder.close()
        self.views.close()

    def _rows(self, stream: str, events: Sequence[Event | tuple[str, bytes]]) -> list[tuple[int, str, bytes]]:
        before = self.recorder.select_stream(stream, desc=True, limit=1)
        version = before[0][1] if before else 0
        previous = header_of(before[0][3]).hash if before and before[0][3].startswith(b"{") else sha256().digest()
        rows: list[tuple[int, str, bytes]] = []
        for event in events:
            version += 1
            if isinstance(event, tuple):
                rows.append((version, *event))
                continue
            topic = self.codec.registry.topic_of(event)
            new = NewEvent(
                originator_id=stream,
                originator_version=version,
                topic=topic,
                event=event,
                event_id=f"{stream} {version}",
                recorded_at=at(self.recorder.position() + len(rows) + 1),
                occurred_at=None,
                turn=(len(rows) + 1, len(events)),
                previous=previous,
                salt=b"s" * 16,
                genesis=b"g" * 16 if version == 1 else None,
            )
            state, previous = seal(new)
            rows.append((version, topic, state))
        return rows


def filled(log: Log, sessions: int = 20) -> Log:
    """Append sessions of three events each."""
    for n in range(sessions):
        log.append(f"s-{n}", STARTED, said("one"), said("two"))
    return log


class Words:
    """An application's read model: how often each word was said, and in which session last."""

    name = "words"
    revision = 1
    key = "session"
    poison: str | None = None
    """A message id that cannot be applied."""

    def create(self, connection: Any) -> None:
        """Create the tables."""
        if isinstance(connection, ViewConnection):
            connection.create("words", [IndexModel([("session_id", 1), ("word", 1)], unique=True)])
            return
        text = "VARCHAR(255) NOT NULL"
        execute(connection, f"CREATE TABLE words (session_id {text}, word {text}, said INTEGER NOT NULL)")
        execute(connection, "CREATE UNIQUE INDEX words_by_session ON words (session_id, word)")

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Count."""
        for recorded in events:
            match recorded.event:
                case e.MessageAdded(message_id=message_id):
                    self._count(connection, recorded.session_id, message_id)
                case _:
                    pass

    def forget(self, tenant: str, session_id: str, connection: Any) -> None:
        """Forget the session's words."""
        assert tenant
        if isinstance(connection, ViewConnection):
            connection.collection("words").delete_many({"session_id": session_id})
            return
        execute(connection, "DELETE FROM words WHERE session_id = ?", (session_id,))

    def _count(self, connection: Any, session_id: str, word: str) -> None:
        self._insert(connection, session_id, word)
        if word == self.poison:
            raise ValueError(f"cannot count {word}")

    def _insert(self, connection: Any, session_id: str, word: str) -> None:
        if isinstance(connection, ViewConnection):
            one = {"session_id": session_id, "word": word}
            connection.collection("words").update_one(one, {"$inc": {"said": 1}}, upsert=True)
            return
        known = "ON CONFLICT (session_id, word) DO UPDATE SET"
        if isinstance(connection, pymysql.Connection):
            known = "ON DUPLICATE KEY UPDATE"
        insert = f"INSERT INTO words VALUES (?, ?, 1) {known} said = words.said + 1"
        execute(connection, insert, (session_id, word))


class _Named(Words):
    """A view of any name."""

    def __init__(self, name: str) -> None:
        self.name = name


def execute(connection: Any, statement: str, parameters: Sequence[object] = ()) -> Any:
    """Execute a statement, its parameters written ``?``, on a connection of any driver; return the cursor."""
    if isinstance(connection, sqlite3.Connection):
        return connection.execute(statement, parameters)
    marked: Any = statement.replace("%", "%%").replace("?", "%s")
    driver: Any = connection
    if isinstance(connection, pymysql.Connection):
        cursor = driver.cursor()
        cursor.execute(marked, tuple(parameters))
        return cursor
    return driver.execute(marked, parameters)


def words(log: Log) -> list[tuple[Any, ...]]:
    """Return the rows of ``Words``, in order."""
    if log.is_mongodb:
        found = log.database.collection("words").find({}, sort=[("session_id", 1), ("word", 1)])
        return [(one["session_id"], one["word"], one["said"]) for one in found]
    return log.query("SELECT session_id, word, said FROM words ORDER BY session_id, word")


def _refuse(_: Reader) -> Sequence[Batch]:
    raise AssertionError("nobody else writes")
