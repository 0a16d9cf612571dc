"""The session index: its rows against the session's own fold, and its queries."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.projections.histories import History, histories
from tests.projections.log import STARTED, Log, at, said
from turnlog.adapters.names import Names
from turnlog.domain import events as e
from turnlog.domain.errors import CorruptLog, InvalidInput
from turnlog.domain.session import fold, initial
from turnlog.domain.values import SessionSummary
from turnlog.projections.applying import Applier
from turnlog.projections.brief import Abridged
from turnlog.projections.session_index import CLASSES, SessionFilter, SessionIndex, fold_rows


def interleaved(log: Log, several: list[History]) -> None:
    """Append the histories event by event, in turns."""
    for n in range(max(len(history.events) for history in several)):
        for history in several:
            for event in history.events[n : n + 1]:
                log.append(history.state.id, event)


@given(several=st.tuples(histories("s-0"), histories("s-1"), histories("s-2")), limit=st.integers(1, 40))
def test_rows_agree_with_the_fold_of_the_session(several: tuple[History, ...], limit: int) -> None:
    """For every history that the rules allow, cut into pages anywhere, a row is the summary of the session's state."""
    log = Log()
    view = log.views.register(SessionIndex())
    log.engine.add(SessionIndex())
    interleaved(log, list(several))
    applier = Applier(log.recorder, log.codec, lambda: at(0))
    while log.engine.checkpoint("session_index") < log.recorder.position():
        applier.advance(log.views, view, limit=limit)
    for history in several:
        rows = log.recorder.select_stream(f"default/{history.state.id}")
        state = fold(initial("default", history.state.id), log.codec.facts("", rows))
        row = log.row(history.state.id)
        fields = {name: getattr(state, name) for name in SessionSummary.__struct_fields__ if name != "session_id"}
        assert row.summary == SessionSummary(session_id=history.state.id, **fields)
        assert (row.created_position, row.updated_position) == (rows[0][0], rows[-1][0])
    assert log.engine.check("session_index") == []
    log.close()


@given(history=histories())
def test_folding_again_changes_nothing(history: History) -> None:
    """Rows that have seen a version skip it."""
    log = Log()
    log.append("s", *history.events)
    codec = Abridged(CLASSES).of(log.codec)
    rows = log.recorder.select_log(limit=1000)
    entries = fold_rows({}, rows, codec)
    once = repr(entries)
    assert repr(fold_rows(entries, rows, codec)) == once
    log.close()


def test_a_gap_is_refused() -> None:
    """An event whose predecessor was not seen is damage, not an update."""
    log = Log()
    log.append("s", STARTED, said("1"), said("2"))
    codec = Abridged(CLASSES).of(log.codec)
    first, _, third = log.recorder.select_log(limit=3)
    with pytest.raises(CorruptLog, match=r"version 2 is missing, found 3"):
        fold_rows({}, [first, third], codec)
    with pytest.raises(CorruptLog, match="nothing before it"):
        fold_rows({}, [third], codec)
    log.close()


@pytest.fixture
def five(log: Log) -> Log:
    """Five sessions of alice and bob in two tenants; the log's positions are their seconds."""
    log.append("s-1", e.SessionStarted(user_id="alice", agent="waiter"))
    log.append("s-2", e.SessionStarted(user_id="bob", agent="cook"), e.RouteEntered(route="kitchen"))
    log.append("s-3", e.SessionStarted(user_id="alice"), said("1"), e.StatusChanged(status="completed"))
    log.append("s-4", e.SessionStarted(user_id="alice", agent="waiter"))
    log.append("s-1", said("2"), said("3"))
    log.append("s-1", e.SessionStarted(user_id="alice"), tenant="other")
    log.append("s-5", e.SessionStarted())
    log.with_views().engine.catch_up()
    return log


def found(log: Log, *, before: int | None = None, limit: int = 10, **wanted: Any) -> list[str]:
    """Return the ids of the sessions that a filter selects."""
    rows = log.views.select_sessions(SessionFilter(tenant="default", **wanted), before=before, limit=limit)
    return [row.summary.session_id for row in rows]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, "s-5 s-1 s-4 s-3 s-2"),
        ({"user_id": "alice"}, "s-1 s-4 s-3"),
        ({"user_id": "nobody"}, ""),
        ({"agent": "waiter"}, "s-1 s-4"),
        ({"status": "completed"}, "s-3"),
        ({"route": "kitchen"}, "s-2"),
        ({"user_id": "alice", "status": "active"}, "s-1 s-4"),
        ({"user_id": "bob", "agent": "cook", "status": "active", "route": "kitchen"}, "s-2"),
        ({"older_than": at(7)}, "s-3 s-2"),
        ({"newer_than": at(7)}, "s-5 s-1"),
        ({"older_than": at(9), "newer_than": at(3)}, "s-4 s-3"),
        ({"user_id": "alice", "without": ("s-1", "s-3")}, "s-4"),
        ({"without": frozenset({"s-5", "s-2", "s-3"})}, "s-1 s-4"),
    ],
)
def test_filters(five: Log, wanted: dict[str, Any], expected: str) -> None:
    """Filters select together, newest update first, in one tenant; times are compared strictly."""
    assert found(five, **wanted) == expected.split()


def test_pages(five: Log) -> None:
    """The position that a page ends with leads to the next page."""
    first = five.views.select_sessions(SessionFilter("default", user_id="alice"), limit=2)
    assert [row.summary.session_id for row in first] == ["s-1", "s-4"]
    assert found(five, user_id="alice", before=first[-1].updated_position) == ["s-3"]


def test_the_active_session_is_the_one_created_last(five: Log) -> None:
    """Neither a later update of another, nor a later one that is closed, counts."""
    five.append("s-6", STARTED, e.StatusChanged(status="paused"))
    five.engine.catch_up()
    active = five.views.select_active("default", "alice")
    assert active is not None
    assert active.summary.session_id == "s-4"
    without = five.views.select_active("default", "alice", without_sessions=["s-4"])
    assert without is not None
    assert without.summary.session_id == "s-1"
    assert five.views.select_active("default", "carol") is None


def test_users_and_counts(five: Log) -> None:
    """Users come in order of their ids with what they have; counts are of one tenant."""
    alice, bob = five.views.select_users("default", limit=5)
    assert (alice.user_id, alice.sessions, alice.messages, alice.updated_at) == ("alice", 3, 3, at(9))
    assert five.views.select_users("default", after="alice", limit=5) == [bob]
    counts = five.views.counts("default")
    assert (counts.sessions, counts.events, counts.messages, counts.users) == (5, 10, 3, 2)
    assert counts.statuses == {"active": 4, "completed": 1}
    assert five.views.counts("nobody").sessions == 0


def test_times_are_exact(log: Log) -> None:
    """A time comes back to the microsecond."""
    log.with_views().append("s", STARTED)
    log.engine.catch_up()
    assert log.row("s").summary.created_at == at(1)
    log.query("UPDATE turnlog_session_index SET created_at = created_at + 1")
    assert log.row("s").summary.created_at == at(1) + timedelta(microseconds=1)


def test_a_deleted_session_has_no_row(log: Log) -> None:
    """Not when it was there before, not when it is read for the first time, and not in another store's fold."""
    log.with_views()
    log.append("seen", STARTED, said("1"))
    log.append("unseen", STARTED, said("2"))
    log.engine.catch_up()
    log.delete("seen")
    log.append("later", STARTED)
    log.delete("later")
    assert log.views.select_session("default", "seen") is None
    assert log.engine.catch_up()
    assert found(log) == ["unseen"]
    assert log.query("SELECT session_id FROM turnlog_message_owners") == [("unseen",)]
    assert log.engine.check("session_index") == []


SHAPES: list[Callable[[Log], object]] = [
    found,
    lambda log: found(log, user_id="alice"),
    lambda log: found(log, user_id="alice", status="active"),
    lambda log: found(log, user_id="alice", status="active", agent="waiter", route="kitchen", before=5),
    lambda log: found(log, agent="waiter", status="active"),
    lambda log: found(log, status="completed"),
    lambda log: found(log, route="kitchen", status="active"),
    lambda log: found(log, user_id="alice", older_than=at(9), before=7, without=["s-1"]),
    lambda log: log.views.select_session("default", "s-1"),
    lambda log: log.views.select_active("default", "alice"),
    lambda log: log.views.select_users("default", after="a", limit=5),
    lambda log: log.views.select_messages("default", "alice", limit=5),
    lambda log: log.views.select_messages("default", "alice", before=(4, 0), limit=5, without_sessions=["s-1"]),
]
INDEXES = (
    "all",
    "user",
    "user",
    "user",
    "agent",
    "status",
    "route",
    "user",
    "autoindex",
    "active",
    "user",
    "user",
    "user",
)


@pytest.mark.parametrize("log", ["memory", "file"], indirect=True)
@pytest.mark.parametrize(("query", "index"), list(zip(SHAPES, INDEXES, strict=True)))
def test_every_list_is_the_scan_of_one_index(five: Log, query: Callable[[Log], object], index: str) -> None:
    """No query sorts, none reads a table from end to end, and the most selective filter chooses the index."""
    statements: list[str] = []
    with five.database.read() as connection:
        connection.set_trace_callback(statements.append)
    query(five)
    with five.database.read() as connection:
        connection.set_trace_callback(None)
        plans = [
            str(step[3])
            for text in statements
            if text.startswith("SELECT")
            for step in connection.execute(f"EXPLAIN QUERY PLAN {text}")
        ]
    about = [plan for plan in plans if not any(word in plan for word in ("VIRTUAL", "SUBQUERY", "BLOOM"))]
    assert len(about) == 1, plans
    assert about[0].startswith("SEARCH"), plans
    assert index in about[0].split("INDEX ")[1].split(" ")[0], plans


@pytest.mark.parametrize("log", ["memory", "file"], indirect=True)
def test_catching_up_scans_no_table(five: Log) -> None:
    """However many sessions there are, a page costs what it holds."""
    statements: list[str] = []
    replaced = e.HistoryReplaced(messages=(e.ReplacementMessage(message_id="8", role="user", content=""),))
    edit, remove = e.MessageEdited(message_id="3", content=""), e.MessageRemoved(message_id="3")
    compacted = e.HistoryCompacted(message_id="9", summary="", kept=1)
    five.append("s-1", edit, remove, compacted, replaced, e.HistoryCleared(), e.OwnerAssigned(user_id="bob"))
    five.delete("s-3")
    with five.database.write() as connection:
        connection.set_trace_callback(statements.append)
    assert five.engine.catch_up()
    with five.database.write() as connection:
        connection.set_trace_callback(None)
        about = [text for text in statements if "_index" in text or "_owners" in text]
        steps = [str(step[3]) for text in about for step in connection.execute(f"EXPLAIN QUERY PLAN {text}")]
    assert len(about) > 8
    assert any("SEARCH turnlog_message_index" in step for step in steps)
    assert [step for step in steps if step.startswith("SCAN turnlog")] == []


def test_tables_and_columns_under_other_names(tmp_path: Any) -> None:
    """Chosen names, reserved words too, are used everywhere; the queries give the same."""
    columns = {"user_id": "order", "tenant": "group", "session_id": "where", "position": "select"}
    names = Names.chosen({"session_index": "my_sessions", "views": "table", "parked": "Index", "columns": columns})
    log = Log(tmp_path / "log.db", names=names).with_views()
    log.append("s", STARTED, said("1"))
    assert log.engine.catch_up()
    assert found(log, user_id="alice") == ["s"]
    assert [row.message_id for row in log.views.select_messages("default", "alice", limit=5)] == ["1"]
    assert log.query('SELECT "group", "where", "order" FROM my_sessions') == [("default", "s", "alice")]
    log.engine.rebuild()
    log.query('UPDATE my_sessions SET "order" = 1')
    (difference,) = log.engine.check("session_index")
    assert "session 's' of tenant 'default'" in difference
    assert difference.endswith("differs in order")
    log.close()


@pytest.mark.parametrize(
    "given_names",
    [
        {"events": "a b"},
        {"events": "1a"},
        {"events": ""},
        {"events": "x" * 64},
        {"events": 'x"; DROP TABLE y'},
        {"events": "sqlite_x"},
        {"events": None},
        {"events": "turnlog_KEYS"},
        {"nothing": "x"},
        {"columns": {"user_id": "a-b"}},
        {"columns": {"nothing": "x"}},
        {"columns": {"user_id": "agent"}},
        {"columns": 1},
        "x",
    ],
)
def test_names_that_are_refused(given_names: Any) -> None:
    """A name that is no identifier, is not known or is used twice is refused, naming it."""
    with pytest.raises(InvalidInput, match=r"^names"):
        Names.chosen(given_names)
