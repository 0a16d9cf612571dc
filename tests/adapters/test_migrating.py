"""Migrating sessions of other systems, from databases laid out as those systems lay them out."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

import turnlog
from tests.adapters import old_systems as old
from tests.adapters.commands import Cli
from tests.adapters.exports import Store
from turnlog.adapters.migration import MigrationReport, migrate

CREATED, UPDATED = (datetime.fromisoformat(text) for text in (old.CREATED, old.UPDATED))


def told(store: Store, session_id: str) -> list[tuple[str, Any]]:
    """Return the messages of a session: role and content."""
    return [(message.role, message.content) for message in store.get(session_id).history()]


def notes(report: MigrationReport) -> list[tuple[str, str, str | None]]:
    """Return what was lost or refused: what, id, session."""
    return [(note.what, note.id, note.session_id) for note in (*report.notes_refused, *report.notes_lost)]


def again(store: Store, url: str) -> None:
    """Check that migrating once more adds nothing."""
    position = store.position
    report = migrate(store, url)
    assert (report.imported, store.position) == (0, position)


def test_a_session_of_falai_is_carried_over_whole(empty: Store, tmp_path: Path) -> None:
    """Data, routes with their times, step, metadata, owner, and the whole history with its tool calls."""
    url = old.made(
        tmp_path / "a.db", old.FALAI_1, ("agent_sessions", [old.falai_session("s1", agent_name="concierge")])
    )
    report = migrate(empty, url)
    assert (report.source, report.sessions, report.imported, report.messages) == ("falai", 1, 1, 4)
    assert report.ok
    assert report.changed == {"message": 1}  # the tool's result was no text
    state = empty.get("s1").state
    assert (state.user_id, state.agent, state.status) == ("alice", "concierge", "active")
    assert (state.data, state.metadata["channel"]) == ({"party_size": 2, "smoking": None}, "web")
    assert (state.current_route, state.current_step) == ("booking", "size")
    visits = [(visit.route, visit.title) for visit in empty.get("s1").routes()]
    assert visits == [("greeting", None), ("booking", "Book a table")]
    first, call, result, last = empty.get("s1").history()
    assert (first.role, first.content, first.name) == ("user", "A table for two, please", "Alice")
    assert call.tool_calls == old.HISTORY[1]["tool_calls"]
    assert (result.role, result.tool_call_id, result.name) == ("tool", "call_9", "find_table")
    assert json.loads(result.content) == {"tables": ["terrace"]}
    assert last.content == "The terrace is free."
    started, *_ = empty.get("s1").events()
    assert (started.occurred_at, started.actor) == (CREATED, "turnlog migrate")
    entered = [event.occurred_at for event in empty.events(types=["RouteEntered"])]
    assert entered == [CREATED, datetime(2025, 3, 1, 10, 1, tzinfo=UTC)]
    assert empty.verify().ok
    again(empty, url)


def test_rows_of_messages_keep_their_ids_times_and_places(empty: Store, tmp_path: Path) -> None:
    """A conversation saved message by message, without a history in the blob."""
    at = [f"2025-03-01T10:0{i}:00.000Z" for i in range(5)]
    calls = json.dumps([{"toolName": "find_table", "arguments": {"size": 2}}])
    rows: list[old.Json] = [
        old.falai_message("msg_1", "s1", "user", "hello", at[0]),
        old.falai_message("msg_2", "s1", "assistant", "looking", at[1], route="booking", tool_calls=calls),
        old.falai_message(
            "msg_3", "s1", "agent", "found", at[2], route="booking", step="size", event='{"kind":"tool"}'
        ),
        old.falai_message("lost", "nowhere", "user", "hello?", at[3]),
    ]
    session = old.falai_session("s1", {}, current_route="booking", current_step="size")
    url = old.made(tmp_path / "a.db", old.FALAI_1, ("agent_sessions", [session]), ("agent_messages", rows))
    report = migrate(empty, url)
    assert notes(report) == [("message", "lost", "nowhere")]
    one, two, three = empty.get("s1").history()
    assert [one.message_id, two.message_id, three.message_id] == ["msg_1", "msg_2", "msg_3"]
    assert [one.route, two.route, three.route, three.step] == [None, "booking", "booking", "size"]
    assert (one.occurred_at.isoformat(), three.role) == ("2025-03-01T10:00:00+00:00", "tool")
    assert two.tool_calls == [{"id": "call_0", "name": "find_table", "arguments": {"size": 2}}]
    assert three.metadata == {"event": {"kind": "tool"}}
    again(empty, url)


def test_what_stands_in_the_blob_and_in_rows_is_kept_once(empty: Store, tmp_path: Path) -> None:
    """Messages that were both remembered and saved are one; those of one side only stand between them."""
    rows: list[old.Json] = [
        old.falai_message("msg_1", "s1", "user", "A table for two, please", old.CREATED),
        old.falai_message("msg_x", "s1", "user", "only saved", "2025-03-01T10:05:00.000Z"),
        old.falai_message("msg_4", "s1", "assistant", "The terrace is free.", old.UPDATED, route="booking"),
    ]
    url = old.made(
        tmp_path / "a.db", old.FALAI_1, ("agent_sessions", [old.falai_session("s1")]), ("agent_messages", rows)
    )
    migrate(empty, url)
    history = empty.get("s1").history()
    assert [message.role for message in history] == ["user", "assistant", "tool", "user", "assistant"]
    assert [history[0].message_id, history[3].message_id, history[4].message_id] == ["msg_1", "msg_x", "msg_4"]
    assert (history[0].name, history[4].metadata) == ("Alice", {"route": "booking"})


def test_the_bugs_of_falai_are_in_the_data_and_are_mended(empty: Store, tmp_path: Path) -> None:
    """Quoted owners, routes that were left, blobs overwritten by data, sessions reopened: mended, and told."""
    left = {**old.BLOB, "routeHistory": [{"routeId": "booking", "exitedAt": old.UPDATED, "completed": True}]}
    unsaved = {**old.BLOB, "routeHistory": [{"routeId": "greeting", "enteredAt": old.CREATED, "completed": False}]}
    sessions: list[old.Json] = [
        old.falai_session("quoted", user_id='"bob"'),
        old.falai_session("left", left),
        old.falai_session("unsaved", unsaved, current_route=None, current_step=None),
        old.falai_session("flat", {"preferences": {"smoking": False}}),
        old.falai_session("reopened", completed_at=old.UPDATED),
        old.falai_session("done", status="completed", completed_at=old.UPDATED),
        old.falai_session("strange", status="sleeping"),
    ]
    url = old.made(tmp_path / "a.db", old.FALAI_1, ("agent_sessions", sessions))
    report = migrate(empty, url)
    assert (report.imported, report.refused) == (7, 0)
    assert empty.get("quoted").user_id == "bob"
    assert (empty.get("left").state.current_route, empty.get("left").routes()[0].completed) == (None, True)
    assert empty.get("unsaved").state.current_route == "greeting"
    assert empty.get("flat").data == {"preferences": {"smoking": False}}
    assert empty.get("reopened").status == "active"
    assert (empty.get("done").status, next(empty.get("done").events(last=1)).occurred_at) == ("completed", UPDATED)
    assert empty.get("strange").status == "active"
    assert report.changed == {"owner": 1, "route": 1, "data": 1, "status": 1, "message": 6}
    assert notes(report) == [("time", "completed_at", "reopened")]
    again(empty, url)


def test_what_cannot_be_read_is_named_and_never_taken_for_empty(empty: Store, tmp_path: Path) -> None:
    """A session whose row is damaged is not imported; the others are; mended, it is imported by the next run."""
    rows = [old.falai_message("m", "calls", "assistant", "x", old.CREATED, tool_calls="[{")]
    sessions: list[old.Json] = [
        old.falai_session("good"),
        old.falai_session("cut", json.dumps(old.BLOB)[:-9]),
        old.falai_session("list", "[1]"),
        old.falai_session("history", {**old.BLOB, "history": "none"}),
        old.falai_session("calls", {}),
    ]
    path = tmp_path / "a.db"
    url = old.made(path, old.FALAI_1, ("agent_sessions", sessions), ("agent_messages", rows))
    report = migrate(empty, url)
    assert (report.sessions, report.imported, report.refused, report.ok) == (5, 1, 4, False)
    assert {note.id for note in report.notes_refused} == {"cut", "list", "history", "calls"}
    assert [session.session_id for session in empty.sessions().items] == ["good"]
    old.made(path, "DELETE FROM agent_sessions WHERE id = 'cut'", ("agent_sessions", [old.falai_session("cut")]))
    assert (migrate(empty, url).imported, len(told(empty, "cut"))) == (1, 4)


def test_rows_that_no_key_keeps_in_order(empty: Store, tmp_path: Path) -> None:
    """Ids that are null or there twice, messages of nobody, of strange roles and other users: each is named, once."""
    keyless = old.FALAI_1.replace("PRIMARY KEY", "").replace("session_id TEXT NOT NULL", "session_id TEXT")
    sessions: list[old.Json] = [
        old.falai_session("twice", {}, user_id="a"),
        old.falai_session("twice", {}, user_id="b"),
        {**old.falai_session("", {}), "id": None},
        old.falai_session("half", '{"data": {"said": "\\ud83d"}}'),
    ]
    rows: list[old.Json] = [
        old.falai_message("m", "twice", "user", "one", old.CREATED, user_id='"a"'),
        old.falai_message("n", "twice", "user", "two", old.CREATED, user_id="c"),
        {**old.falai_message("", "twice", "user", "three", old.UPDATED), "id": None},
        old.falai_message("narrated", "twice", "narrator", "once upon", old.CREATED),
        {**old.falai_message("astray", "", "user", "hello?", old.CREATED), "session_id": None},
    ]
    url = old.made(tmp_path / "a.db", keyless, ("agent_sessions", sessions), ("agent_messages", rows))
    report = migrate(empty, url)
    assert (report.sessions, report.imported, report.refused) == (4, 2, 2)
    assert notes(report) == [
        ("session", "", None),
        ("session", "twice", "twice"),
        ("message", "narrated", "twice"),
        ("message", "astray", None),
    ]
    assert [message.content for message in empty.get("twice").history()] == ["one", "two", "three"]
    assert [message.metadata for message in empty.get("twice").history()] == [None, {"user_id": "c"}, None]
    assert (empty.get("half").data, report.changed["text"]) == ({"said": "\ufffd"}, 1)
    assert migrate(empty, url).imported == 0


def test_a_session_that_went_on_is_named_and_left_as_it_is(empty: Store, tmp_path: Path) -> None:
    """Neither here nor there is anything overwritten."""
    path = tmp_path / "a.db"
    url = old.made(path, old.FALAI_1, ("agent_sessions", [old.falai_session("s1"), old.falai_session("s2")]))
    migrate(empty, url)
    empty.get("s2").add_message("user", "on here")
    more = json.dumps({**old.BLOB, "history": [*old.HISTORY, {"role": "user", "content": "on there"}]})
    old.made(path, f"UPDATE agent_sessions SET collected_data = '{more}' WHERE id = 's1'")
    report = migrate(empty, url)
    assert (report.already_there, notes(report)) == (1, [("session", "s1", "s1")])
    assert len(told(empty, "s1")) == 4


def test_sessions_of_falai_2(empty: Store, tmp_path: Path) -> None:
    """Flows are routes; what turnlog has no place for is kept in the metadata."""
    blob = {key.replace("route", "flow").replace("Route", "Flow"): value for key, value in old.BLOB.items()}
    blob["flowHistory"] = [{"flowId": "booking", "enteredAt": old.CREATED, "completed": False}]
    blob["pendingDirective"] = {"goTo": "payment"}
    row = old.falai_session("s1", blob, version=7)
    row["current_flow"] = row.pop("current_route")
    url = old.made(tmp_path / "a.db", old.FALAI_2, ("agent_sessions", [row]))
    assert migrate(empty, url).ok
    state = empty.get("s1").state
    assert (state.current_route, state.route_history[0].title) == ("booking", "Book a table")
    assert state.metadata["falai"] == {"pendingDirective": {"goTo": "payment"}, "version": 7}


def test_sessions_of_falai_before_1_keep_data_by_route(empty: Store, tmp_path: Path) -> None:
    """What was collected on a route is collected on it."""
    blob = {**old.BLOB, "dataByRoute": {"greeting": {"name": "Al"}, "booking": {"party_size": 2}}}
    url = old.made(tmp_path / "a.db", old.FALAI_1, ("agent_sessions", [old.falai_session("s1", blob)]))
    migrate(empty, url)
    state = empty.get("s1").state
    assert state.data_by_route == {"greeting": {"name": "Al"}, "booking": {"party_size": 2}}
    assert state.data == {"party_size": 2, "smoking": None, "name": "Al"}


def test_sessions_of_falai_in_postgresql(empty: Store, postgresql_url: str) -> None:
    """Columns of JSON and of times without a zone, as its adapter makes them."""
    with psycopg.connect(postgresql_url) as connection:
        connection.execute(old.FALAI_POSTGRESQL)
        for row in (old.falai_session("s1"), old.falai_session("s2", {})):
            connection.execute(
                "INSERT INTO agent_sessions (id, user_id, collected_data, created_at, updated_at)"
                " VALUES (%(id)s, %(user_id)s, %(collected_data)s, %(created_at)s, %(updated_at)s)",
                row,
            )
        words = "INSERT INTO agent_messages VALUES ('m1', 's2', 'alice', 'user', 'hi', NULL, NULL, 'null', 'null', %s)"
        connection.execute(words, (CREATED.replace(tzinfo=None),))
    report = migrate(empty, postgresql_url)
    assert (report.source, report.imported, report.refused) == ("falai", 2, 0)
    assert len(told(empty, "s1")) == 4
    assert empty.get("s2").history()[0].occurred_at == CREATED
    again(empty, postgresql_url)


def test_an_agent_db_in_mariadb(empty: Store, mariadb_url: str) -> None:
    """A server of MariaDB is read like the others; what an AgentDb makes there has the same columns."""
    ddl = old.AGENT_DB.partition(";")[0].replace("TEXT PRIMARY KEY", "VARCHAR(255) PRIMARY KEY")
    url = make_url(mariadb_url).set(drivername="mariadb+pymysql")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(ddl.replace(" INTEGER", " BIGINT")))
        words = (
            "INSERT INTO agent_sessions (session_id, session_data, created_at, updated_at) VALUES ('d1', :data, 1, 2)"
        )
        connection.execute(text(words), {"data": json.dumps({"messages": B_MESSAGES})})
    engine.dispose()
    report = migrate(empty, mariadb_url)
    assert (report.imported, len(told(empty, "d1"))) == (1, 4)


B_MESSAGES: list[old.Json] = [
    {"role": "system", "content": "Be kind"},
    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    {"role": "assistant", "content": "", "toolCalls": [{"id": "t1", "name": "find", "arguments": {"a": 1}}]},
    {"role": "tool", "content": "found", "toolCallId": "t1"},
]


def test_sessions_of_the_sql_store(empty: Store, tmp_path: Path) -> None:
    """Messages, context, metadata, expiry, state and runs of confused-ai's first store."""
    base = {"agent_id": "helper", "created_at": old.CREATED, "updated_at": old.UPDATED}
    sessions: list[old.Json] = [
        {"id": "s1", **base, "user_id": "bob", "state": "paused", "messages": json.dumps(B_MESSAGES)}
        | {"metadata": '{"title":"T"}', "context": '{"k":[1]}', "expires_at": old.UPDATED},
        {"id": "bad", **base, "state": "active", "messages": "[{"},
        {"id": "odd", **base, "state": "active", "messages": '["text",{"role":"wizard","content":"x"}]'},
    ]
    run = {"session_id": "s1", "agent_id": "helper", "start_time": old.CREATED, "steps": 3}
    runs: list[old.Json] = [
        {"id": "r1", **run, "status": "completed", "end_time": old.UPDATED, "result": '{"ok":true}'},
        {"id": "r2", **run, "status": "running"},
        {"id": "r3", **run, "session_id": "gone", "status": "failed"},
    ]
    url = old.made(tmp_path / "b.db", old.SQL_STORE, ("agent_sessions", sessions), ("agent_session_runs", runs))
    report = migrate(empty, url)
    assert report.source == "confused-ai"
    assert notes(report) == [
        ("session", "bad", "bad"),
        ("run", "r3", "gone"),
        ("message", "number 0", "odd"),
        ("message", "number 1", "odd"),
    ]
    session = empty.get("s1")
    assert (session.user_id, session.agent, session.status) == ("bob", "helper", "paused")
    assert (session.state.context, session.state.metadata["title"]) == ({"k": [1]}, "T")
    assert session.state.metadata["confused-ai"] == {"expiresAt": old.UPDATED}
    _, _, call, result = session.history()
    assert (call.tool_calls, result.tool_call_id) == (B_MESSAGES[2]["toolCalls"], "t1")
    first, second = session.runs()
    assert (first.status, first.result, second.status) == ("completed", {"ok": True}, "running")
    assert first.details == {"agentId": "helper", "steps": 3}
    again(empty, url)


def test_sessions_of_the_sqlite_store_and_of_an_agent_db(empty: Store, tmp_path: Path) -> None:
    """Times in milliseconds and in seconds; what an AgentDb holds besides is kept in the metadata."""
    millis = int(CREATED.timestamp() * 1000)
    row = {"id": "s1", "agent_id": "a", "user_id": "bob", "messages": json.dumps(B_MESSAGES)}
    url = old.made(
        tmp_path / "b.db",
        old.SQLITE_STORE,
        ("sessions", [{**row, "created_at": millis, "updated_at": millis}]),
    )
    assert migrate(empty, url).ok
    assert (len(told(empty, "s1")), next(empty.get("s1").events()).occurred_at) == (4, CREATED)
    data = {"messages": B_MESSAGES, "session_name": "N", "metadata": {"m": 1}}
    rows: list[old.Json] = [
        {
            "session_id": "d1",
            "agent_id": "a",
            "session_data": json.dumps(data),
            "runs": '[{"run_id":"r"}]',
            "summary": "S",
        }
        | {"created_at": millis // 1000, "updated_at": millis // 1000},
        {"session_id": "d2", "session_data": "{", "created_at": 1, "updated_at": 1},
    ]
    url = old.made(tmp_path / "c.db", old.AGENT_DB, ("agent_sessions", rows))
    report = migrate(empty, url)
    assert notes(report) == [("session", "d2", "d2")]
    metadata = empty.get("d1").state.metadata
    kept = {"session_data": {"session_name": "N"}, "session_type": "agent", "runs": [{"run_id": "r"}], "summary": "S"}
    assert metadata == {"m": 1, "confused-ai": kept}
    assert next(empty.get("d1").events()).occurred_at == CREATED


def test_sessions_of_the_openai_agents_sdk(empty: Store, tmp_path: Path) -> None:
    """Messages and function calls become messages; other items, and what cannot be read, are named."""
    items: list[Any] = [
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "id": "fc", "call_id": "c1", "name": "weather", "arguments": '{"city":"Wien"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed"}
        | {"content": [{"type": "output_text", "text": "Sunny.", "annotations": []}]},
        {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
    ]
    sessions: list[old.Json] = [{"session_id": name, "created_at": "2025-03-01 10:00:00"} for name in ("chat", "cut")]
    rows: list[old.Json] = [
        {"session_id": "chat", "message_data": json.dumps(item), "created_at": "2025-03-01 10:00:00"} for item in items
    ]
    rows += [{"session_id": "cut", "message_data": "{"}, {"session_id": "gone", "message_data": "{}"}]
    url = old.made(tmp_path / "o.db", old.OPENAI, ("agent_sessions", sessions), ("agent_messages", rows))
    report = migrate(empty, url)
    assert report.source == "openai-agents"
    assert notes(report) == [("session", "cut", "cut"), ("item", "8", "gone"), ("item of type reasoning", "2", "chat")]
    user, call, result, said, image = empty.get("chat").history()
    assert (user.content, user.occurred_at) == ("Weather?", CREATED)
    assert call.tool_calls == [{"id": "c1", "name": "weather", "arguments": {"city": "Wien"}}]
    assert (result.role, result.content, result.tool_call_id) == ("tool", "sunny", "c1")
    assert (said.content, said.metadata) == ("Sunny.", {"id": "msg_1", "status": "completed"})
    assert image.content == items[5]["content"]
    again(empty, url)


def test_a_database_of_nothing_known_or_of_several_is_refused(empty: Store, tmp_path: Path) -> None:
    """The message says what was found; a table can be named."""
    with pytest.raises(turnlog.InvalidInput, match="no table of sessions among t"):
        migrate(empty, old.made(tmp_path / "n.db", "CREATE TABLE t (id)"))
    with pytest.raises(turnlog.InvalidInput, match="there is no file"):
        migrate(empty, f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(turnlog.InvalidInput, match="expected one of sqlite"):
        migrate(empty, "mongodb://localhost")
    (tmp_path / "x.db").write_bytes(b"no database at all" * 99)
    with pytest.raises(turnlog.StoreUnavailable, match="file is not a database"):
        migrate(empty, f"sqlite:///{tmp_path}/x.db")
    for url in ("postgresql://u:hush@127.0.0.1:1/d?connect_timeout=2", "redis://:hush@127.0.0.1:1/0"):
        with pytest.raises(turnlog.StoreUnavailable, match="127.0.0.1") as caught:
            migrate(empty, url)
        assert "hush" not in str(caught.value)
    for url in ("postgresql://u:hush@host:port/d", "redis://:hush@host:port/0"):
        with pytest.raises(turnlog.InvalidInput, match="expected") as refused:
            migrate(empty, url)
        assert "hush" not in str(refused.value)
    two = old.SQLITE_STORE + old.FALAI_1
    url = old.made(tmp_path / "t.db", two, ("agent_sessions", [old.falai_session("s1")]))
    with pytest.raises(turnlog.InvalidInput, match="of one system, found"):
        migrate(empty, url)
    assert migrate(empty, url, table="agent_sessions").imported == 1
    assert migrate(empty, url, kind="confused-ai").sessions == 0
    renamed = old.FALAI_1.replace("agent_sessions", "chats").replace("agent_messages", "lines")
    rows = [old.falai_message("m", "s9", "user", "hi", old.CREATED)]
    url = old.made(tmp_path / "r.db", renamed, ("chats", [old.falai_session("s9", {})]), ("lines", rows))
    migrate(empty, url)
    assert told(empty, "s9") == [("user", "hi")]


def test_migrating_from_the_shell(cli: Cli, sqlite_url: str, tmp_path: Path) -> None:
    """A dry run makes nothing; the run says what was imported, changed and lost, and the exit code tells."""
    sessions = [old.falai_session("s1", user_id='"bob"'), old.falai_session("cut", "{")]
    url = old.made(tmp_path / "a.db", old.FALAI_1, ("agent_sessions", sessions))
    dry = cli("migrate", url, "--dry-run", code=1)
    assert "2 sessions of falai: 1 would be imported with 4 messages, 0 there already, 1 refused" in dry.out
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()
    done = cli("migrate", url, "--from", "falai", code=1)
    assert "not imported: session cut: collected_data is no JSON" in done.err
    assert "carried over otherwise: message (1), owner (1)" in done.out
    report = cli("migrate", url, "--dry-run", "--json", code=1).json
    assert (report["imported"], report["already_there"], report["refused"]) == (0, 1, 1)
    with turnlog.open(sqlite_url) as store:
        assert [one.session_id for one in store.sessions(user_id="bob").items] == ["s1"]
