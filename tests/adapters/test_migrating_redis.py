"""Migrating sessions of confused-ai from Redis, laid out as its three stores lay them out, on a real server."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from redis import Redis

from tests.adapters import old_systems as old
from tests.adapters.exports import Store
from turnlog.adapters.migration import migrate

MESSAGES: list[old.Json] = [
    {"role": "user", "content": "hi 🙂"},
    {"role": "assistant", "content": "", "toolCalls": [{"id": "t1", "name": "find", "arguments": {"a": 1}}]},
    {"role": "tool", "content": "found", "toolCallId": "t1"},
]


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    """A connection to an empty database."""
    connecting: Any = Redis  # its types leave from_url half unknown
    with connecting.from_url(redis_url) as connected:
        yield connected


def fields(session_id: str, at: str, **more: str) -> dict[str, str]:
    """Return the hash of a session as the first store writes it."""
    given = {"id": session_id, "agentId": "helper", "userId": "", "state": "active", "metadata": '{"title":"T"}'}
    return {**given, "context": '{"k":[1]}', "createdAt": at, "updatedAt": old.UPDATED, "expiresAt": "", **more}


def test_sessions_of_the_first_store(empty: Store, client: Any, redis_url: str) -> None:
    """A hash, a list of messages and one of runs; lists whose hash has expired are named, damaged items refuse all."""
    client.hset("ca:session:s2", mapping=fields("s2", old.UPDATED, userId="bob", state="completed"))
    client.hset("ca:session:messages", mapping=fields("messages", old.CREATED))
    client.hset("ca:session:bad", mapping=fields("bad", old.CREATED))
    client.rpush("ca:session:messages:s2", *map(json.dumps, MESSAGES))
    client.rpush("ca:session:messages:bad", "{")
    client.rpush("ca:session:messages:gone", *map(json.dumps, MESSAGES))
    run = {"id": "r1", "sessionId": "s2", "agentId": "helper", "startTime": old.CREATED, "status": "failed"}
    client.rpush("ca:session:runs:s2", json.dumps({**run, "endTime": old.UPDATED, "steps": 2, "error": "boom"}))
    client.set("ca:llmcache:x", "{}")
    report = migrate(empty, redis_url)
    assert (report.source, report.sessions, report.imported) == ("confused-ai", 3, 2)
    assert [note.id for note in report.notes_refused] == ["bad"]
    assert [(note.what, note.session_id) for note in report.notes_lost] == [("messages", "gone")]
    session = empty.get("s2")
    assert (session.user_id, session.agent, session.status) == ("bob", "helper", "completed")
    assert (session.state.metadata, session.state.context) == ({"title": "T"}, {"k": [1]})
    assert [(one.role, one.content) for one in session.history()] == [
        ("user", "hi 🙂"),
        ("assistant", ""),
        ("tool", "found"),
    ]
    (found,) = session.runs()
    assert (found.status, found.error, found.details) == ("failed", "boom", {"agentId": "helper", "steps": 2})
    assert empty.get("messages").user_id is None
    assert [one.session_id for one in empty.sessions().items] == ["s2", "messages"]
    assert migrate(empty, redis_url).already_there == 2


def test_sessions_of_the_second_store_and_of_the_adapter(empty: Store, client: Any, redis_url: str) -> None:
    """One JSON string a session with times in milliseconds; a hash and a list; prefixes can be given."""
    millis = int(datetime.fromisoformat(old.CREATED).timestamp() * 1000)
    blob = {"id": "u1", "agentId": "a", "userId": "bob", "messages": MESSAGES, "createdAt": millis, "updatedAt": millis}
    client.set("confused-ai:session:u1", json.dumps(blob), ex=60)
    client.set("confused-ai:session:cut", json.dumps(blob)[:-1])
    client.hset("ca:sess:h1", mapping={"id": "h1", "userId": "bob", "metadata": "{}", "createdAt": old.CREATED})
    client.rpush("ca:sess:msgs:h1", *map(json.dumps, MESSAGES))
    client.rpush("ca:wf:events:x", "{}")
    report = migrate(empty, redis_url)
    assert (report.imported, [note.id for note in report.notes_refused]) == (2, ["cut"])
    assert (len(empty.get("u1").history()), len(empty.get("h1").history())) == (3, 3)
    assert next(empty.get("u1").events()).occurred_at == datetime.fromisoformat(old.CREATED)
    client.set("mine[1]:z1", json.dumps({**blob, "id": "z1"}))
    assert migrate(empty, redis_url, prefix="mine[1]:").imported == 1
