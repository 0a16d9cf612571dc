"""The tables for tools of @falai/agent: kept up to date as a view, on every SQL database."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

import turnlog
from tests.adapters import old_systems as old
from tests.adapters.commands import Cli
from tests.adapters.exports import Store
from turnlog.adapters.migration import migrate
from turnlog.tables import AgentTables
from turnlog.testing import Clock

Row = dict[str, Any]
Select = Callable[..., list[Row]]
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    """A store that does not exist yet, on every backend that has tables which others can read."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def select(url: str, store: Store) -> Iterator[Select]:
    """Bring the views up to date, and read a table as a tool would that knows nothing of turnlog."""
    parsed = make_url(url)
    drivers = {"postgresql": "postgresql+psycopg", "mariadb": "mariadb+pymysql"}
    engine = create_engine(parsed.set(drivername=drivers.get(parsed.drivername, parsed.drivername)))

    def rows(table: str, order: str = "created_at") -> list[Row]:
        store.catch_up()
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY {order}")).mappings()]

    yield rows
    engine.dispose()


def decoded(value: Any) -> Any:
    """Return a JSON column's value."""
    return json.loads(value) if isinstance(value, str) else value


def time_of(value: Any) -> datetime | None:
    """Return a time column's value."""
    if isinstance(value, str):
        return datetime.fromisoformat(value)
    return value if value is None else value.replace(tzinfo=UTC)


def talk(store: Store, clock: Clock) -> turnlog.Session:
    """Hold a conversation."""
    session = store.session("s1", user_id="alice", agent="concierge", metadata={"channel": "web"})
    session.add_message("user", "A table\0 for two", message_id="m-1", name="Alice")
    clock.advance()
    with session.turn():
        session.enter_route("booking", title="Book a table")
        session.enter_step("size", description="How many?")
        session.collect(party_size=2)
        session.add_message(
            "assistant", None, message_id="m-2", tool_calls=[{"id": "c", "name": "find", "arguments": {}}]
        )
        session.add_message("tool", "terrace", message_id="m-3", tool_call_id="c", name="find")
    session.add_message("assistant", [{"type": "text", "text": "The terrace"}], message_id="m-4")
    return session


def test_the_tables_hold_what_their_readers_expect(store: Store, select: Select, clock: Clock) -> None:
    """Every column of both tables, and the blob with data, history, routes, titles and metadata."""
    store.add_projection(AgentTables())
    talk(store, clock)
    (row,) = select("agent_sessions")
    at = START + timedelta(seconds=1)
    times = [time_of(row[f"{name}_at"]) for name in ("created", "updated", "last_message", "completed")]
    assert times == [START, at, at, None]
    assert [row[name] for name in ("id", "user_id", "agent_name", "status")] == ["s1", "alice", "concierge", "active"]
    assert [row[name] for name in ("current_route", "current_step", "message_count")] == ["booking", "size", 4]
    nul = "\ufffd" if not isinstance(row["collected_data"], str) else "\0"
    assert decoded(row["collected_data"]) == {
        "data": {"party_size": 2},
        "routeHistory": [{"routeId": "booking", "enteredAt": "2026-01-01T00:00:01.000000Z", "completed": False}],
        "history": [
            {"role": "user", "content": f"A table{nul} for two", "name": "Alice"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "name": "find", "arguments": {}}]},
            {"role": "tool", "tool_call_id": "c", "name": "find", "content": "terrace"},
            {"role": "assistant", "content": "The terrace"},
        ],
        "currentRouteTitle": "Book a table",
        "currentStepDescription": "How many?",
        "metadata": {
            "channel": "web",
            "createdAt": "2026-01-01T00:00:00.000000Z",
            "lastUpdatedAt": "2026-01-01T00:00:01.000000Z",
        },
    }
    first, call, result, last = select("agent_messages")
    assert [one["id"] for one in (first, call, result, last)] == ["m-1", "m-2", "m-3", "m-4"]
    assert [one["role"] for one in (first, call, result, last)] == ["user", "assistant", "agent", "assistant"]
    assert (first["session_id"], first["user_id"], first["route"], first["event"]) == ("s1", "alice", None, None)
    assert (call["route"], call["step"], call["content"]) == ("booking", "size", "")
    assert decoded(call["tool_calls"]) == [{"toolName": "find", "arguments": {}}]
    assert last["content"] == "The terrace"
    assert [time_of(one["created_at"]) for one in (call, result)] == [at, at + timedelta(microseconds=1)]


def test_they_follow_edits_removals_owners_and_ends(store: Store, select: Select, clock: Clock) -> None:
    """What is edited, removed, cleared, replaced or compacted is so in rows and blob; statuses are known ones."""
    store.add_projection(AgentTables())
    session = talk(store, clock)
    session.edit_message("m-1", "For three")
    session.remove_message("m-4")
    store.session("s2").add_message("user", "hi", message_id="m-1")
    store.session("s2", user_id="bob")
    store.get("s2").pause()
    assert [(row["content"], row["user_id"]) for row in select("agent_messages", "session_id, created_at")] == [
        ("For three", "alice"),
        ("", "alice"),
        ("terrace", "alice"),
        ("hi", "bob"),
    ]
    one, two = select("agent_sessions", "id")
    history = decoded(one["collected_data"])["history"]
    assert [item["content"] for item in history] == ["For three", None, "terrace"]
    assert (two["status"], two["user_id"]) == ("active", "bob")
    session.compact_history("They talked", keep_last=1)
    clock.advance()
    session.add_message("user", "and on")
    words = [row["content"] for row in select("agent_messages") if row["session_id"] == "s1"]
    assert words == [message.content or "" for message in session.history()]
    assert words[0] == "They talked"
    session.set_history([{"role": "user", "content": "anew"}])
    session.exit_route(completed=True)
    session.fail()
    one = select("agent_sessions", "id")[0]
    assert (one["status"], one["current_route"], one["message_count"]) == ("abandoned", None, 1)
    state = decoded(one["collected_data"])
    assert state["routeHistory"][0]["completed"] is True
    assert [item["content"] for item in state["history"]] == ["anew"]
    session.reopen()
    session.clear_history()
    assert decoded(select("agent_sessions", "id")[0]["collected_data"])["history"] == []
    session.complete()
    assert time_of(select("agent_sessions", "id")[0]["completed_at"]) == clock()


def test_an_erased_session_vanishes_and_a_rebuild_gives_the_same(store: Store, select: Select, clock: Clock) -> None:
    """Erasing deletes its rows in all four tables at once; building anew from the log makes the same rows."""
    store.add_projection(AgentTables())
    talk(store, clock)
    gone = store.session("gone", user_id="bob")
    gone.add_message("user", "secret")
    select("agent_messages")
    gone.add_message("user", "secret, unread")
    gone.delete()
    tables = ("agent_sessions", "agent_messages", "agent_sessions_state", "agent_messages_order")
    before = {table: select(table, "1, 2") for table in tables}
    assert "secret" not in str(before)
    assert "gone" not in str(before)
    store.rebuild("agent_tables")
    assert {table: select(table, "1, 2") for table in tables} == before
    store.get("s1").add_message("user", "and on")
    assert len(select("agent_messages")) == 5


def test_names_and_words_can_be_chosen(store: Store, select: Select) -> None:
    """Other tables and columns, the words of 2.x, no history in the blob, other statuses."""
    tables = AgentTables(
        sessions="chats",
        messages="utterances",
        session_columns={"agent_name": "bot"},
        message_columns={"content": "words"},
        flows=True,
        history=False,
        statuses={"paused": "waiting"},
    )
    store.add_projection(tables)
    session = store.session("s1", agent="concierge")
    session.enter_route("booking", title="Book")
    session.add_message("user", "hi")
    session.pause()
    (row,) = select("chats")
    assert (row["bot"], row["current_flow"], row["status"], row["version"]) == ("concierge", "booking", "waiting", 4)
    state = decoded(row["collected_data"])
    assert "history" not in state
    assert (state["flowHistory"][0]["flowId"], state["currentFlowTitle"]) == ("booking", "Book")
    assert [(row["words"], row["flow"]) for row in select("utterances")] == [("hi", "booking")]


def test_tables_that_are_somebody_elses_are_left_alone(sqlite_url: str) -> None:
    """Where there are tables of these names already, the view is refused, and they keep their rows."""
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    old.made(path, old.FALAI_1, ("agent_sessions", [old.falai_session("mine")]))
    with turnlog.open(sqlite_url) as store:
        with pytest.raises(turnlog.InvalidInput, match="'agent_sessions' is there already and is not its own"):
            store.add_projection(AgentTables())
        store.add_projection(AgentTables(sessions="ours", messages="our_messages"))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT id FROM agent_sessions").fetchall() == [("mine",)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"sessions": "x; DROP TABLE y"},
        {"messages": "agent_sessions"},
        {"session_columns": {"nothing": "x"}},
        {"message_columns": {"role": "content"}},
        {"statuses": {"sleeping": "x"}},
    ],
)
def test_names_are_checked(wrong: Row) -> None:
    """What is no identifier, or stands for two things, is refused."""
    with pytest.raises(turnlog.InvalidInput):
        AgentTables(**wrong)


def test_there_and_back(empty: Store, tmp_path: Path, sqlite_url: str) -> None:
    """What was migrated from such tables stands in such tables again; those can be migrated from, too."""
    source = old.made(tmp_path / "a.db", old.FALAI_1, ("agent_sessions", [old.falai_session("s1")]))
    with turnlog.open(sqlite_url) as store:
        store.add_projection(AgentTables())
        migrate(store, source)
        store.catch_up()
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as database:
            row = database.execute(
                "SELECT collected_data, created_at, updated_at, user_id FROM agent_sessions"
            ).fetchone()
        state = json.loads(row[0])
        assert row[1:] == ("2025-03-01T10:00:00.000000Z", "2025-03-01T10:20:00.000000Z", "alice")
        assert (state["data"], state["currentRouteTitle"]) == (old.BLOB["data"], "Book a table")
        assert [visit["routeId"] for visit in state["routeHistory"]] == ["greeting", "booking"]
        report = migrate(empty, sqlite_url)
        assert (report.source, report.imported, report.ok) == ("falai", 1, True)
        one, other = store.get("s1"), empty.get("s1")
        assert (one.data, one.state.current_route, one.state.current_step) == (other.data, "booking", "size")
        assert [message.content for message in one.history()] == [message.content for message in other.history()]


@pytest.mark.usefixtures("filled")
def test_as_a_service(cli: Cli, sqlite_url: str) -> None:
    """`turnlog project turnlog.tables:AgentTables` keeps them, and with `--to` in another database."""
    cli("project", "turnlog.tables:AgentTables", "--once")
    other = f"{sqlite_url}-other"
    done = cli("project", "turnlog.tables:AgentTables", "--once", "--to", other, "--json")
    assert done.json == {"view": "agent_tables", "position": 10, "head": 10, "lag": 0}
    assert "a database with tables" in cli("project", "turnlog.tables:AgentTables", "--to", "redis://x", code=2).err
    for url in (sqlite_url, other):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
            rows = database.execute("SELECT id, message_count FROM agent_sessions ORDER BY id").fetchall()
            assert rows == [("s", 3), ("t", 1)]
