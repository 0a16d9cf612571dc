"""Rows that somebody put beside the events of a session, made with every checksum right: verify finds them."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import turnlog
from turnlog.adapters.memory import MemoryRecorder
from turnlog.domain.chain import row_seal
from turnlog.domain.errors import StoreUnavailable
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import KeyRow
from turnlog.domain.values import Failure

Found = list[tuple[str | None, int | None, str]]
MESSAGES = 250


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store: session a, long enough for a snapshot, its fork, session b, and one that was deleted."""
    path = tmp_path / "store.db"
    with turnlog.open(f"sqlite:///{path}", durability="normal") as store:
        a = store.session(
            "a", user_id="alice", data={"vip": "false", "seats": 2, "when": {"b": 1.0, "a": [None, True]}}
        )
        for i in range(MESSAGES):
            a.add_message("user", f"message {i}")
        a.fork("fork")
        store.session("b", user_id="bob").add_message("user", "hello", message_id="m")
        store.session("gone", user_id="alice").delete()
        store.catch_up()
    return path


def test_snapshots_as_they_are_written_are_right(path: Path) -> None:
    """Of a session, and of its fork; what they are compared with is the fold of the events."""
    assert _rows(path, "SELECT originator_id, version FROM turnlog_snapshots ORDER BY 1") == [
        ("default/a", 200),
        ("default/fork", MESSAGES + 1),
    ]
    assert _found(path) == []


@pytest.mark.parametrize("stream", ["a", "fork"])
@pytest.mark.parametrize(
    ("old", "new"), [(b'"vip":"false"', b'"vip":"true"'), (b'"seats":2', b'"seats":2.0'), (b'"tenant"', b'"tenet"')]
)
def test_a_forged_snapshot_is_found(path: Path, stream: str, old: bytes, new: bytes) -> None:
    """The state it holds is not what the events say, although its checksum is right; also if it is no state."""
    (row,) = _rows(path, f"SELECT * FROM turnlog_snapshots WHERE originator_id = 'default/{stream}'")
    name, version, revision, digest, state, _ = row
    assert old in state
    forged = (name, version, revision, digest, state.replace(old, new))
    _execute(path, "REPLACE INTO turnlog_snapshots VALUES (?, ?, ?, ?, ?, ?)", *forged, row_seal(*forged))
    reason = "the snapshot of this version is not what the events up to here say"
    assert _found(path) == [(stream, version, reason)]
    assert _found(path, session_id=stream) == [(stream, version, reason)]


@pytest.mark.parametrize("changed", [{"revision": 99}, {"hash": b"x" * 32}, {"version": 900}, {"version": 0}])
def test_a_snapshot_that_nobody_would_use_is_no_failure(path: Path, changed: dict[str, Any]) -> None:
    """Of another fold, of another event, or of none: the store does not read it either."""
    (row,) = _rows(path, "SELECT * FROM turnlog_snapshots WHERE originator_id = 'default/a'")
    fields = dict(zip(("originator_id", "version", "revision", "hash"), row[:4], strict=True)) | changed
    forged = (*fields.values(), b'{"id":"a","tenant":"default"}')
    _execute(path, "REPLACE INTO turnlog_snapshots VALUES (?, ?, ?, ?, ?, ?)", *forged, row_seal(*forged))
    assert _found(path) == []
    with turnlog.open(f"sqlite:///{path}") as store:
        assert store.get("a").data["seats"] == 2


@pytest.mark.parametrize("version", [0, -1, -(2**61)])
@pytest.mark.parametrize("session_id", ["b", "gone", "a"])
def test_a_row_below_version_1_is_found(path: Path, session_id: str, version: int) -> None:
    """An event inserted before the first one is as good as one in between."""
    _insert(path, f"default/{session_id}", version)
    assert _found(path) == [(session_id, version, f"expected version 1, found {version}")]
    assert _found(path, session_id=session_id) == [(session_id, version, f"expected version 1, found {version}")]


def test_a_session_without_an_id_is_found(path: Path) -> None:
    """No session can be called so; not even with events that are right in themselves."""
    _execute(path, "UPDATE turnlog_events SET originator_id = 'default/' WHERE originator_id = 'default/gone'")
    assert _found(path) == [("", 1, "no session has an empty id")]
    with turnlog.open(f"sqlite:///{path}") as store:
        assert store.verify().sessions == 4


@pytest.mark.parametrize(("stream", "version"), [("noslash", 1), ("/a", 1), ("default/a", "'one'"), (7, 1)])
def test_a_row_that_is_of_no_session_is_found(path: Path, stream: str | int, version: int | str) -> None:
    """Whatever it is called, and though no session's own check comes to it."""
    _execute(path, f"INSERT INTO turnlog_events VALUES (NULL, ?, {version}, 'Mystery.v1', X'00')", stream)
    assert (None, None, "there are 1 events of no session") in _found(path)


def test_keys_of_a_deleted_session_are_found(path: Path) -> None:
    """A key may hold anything an application took for an id: a deletion must have destroyed it."""
    key = ("default/gone", "command", "alice@example.org", 2, b"0" * 16)
    _execute(path, "INSERT INTO turnlog_keys VALUES (?, ?, ?, ?, ?, ?)", *key, row_seal(*key))
    assert _found(path) == [("gone", 2, "the session was deleted, but a key of it is still there")]


def test_a_snapshot_of_a_deleted_session_is_found(path: Path) -> None:
    """It holds what was collected."""
    snapshot = ("default/gone", 1, 1, b"x" * 32, b"{}")
    _execute(path, "INSERT INTO turnlog_snapshots VALUES (?, ?, ?, ?, ?, ?)", *snapshot, row_seal(*snapshot))
    assert _found(path) == [("gone", 2, "the session was deleted, but its snapshot is still there")]


def test_another_tenant_is_not_told_of_it(path: Path) -> None:
    """Where a row of a view is wrong, only the tenant whose it is learns which session it is of."""
    _execute(path, "UPDATE turnlog_session_index SET agent = 'x' WHERE session_id = 'b'")
    reasons = [reason for _, _, reason in _found(path, tenant="other")]
    assert reasons == [
        "view 'session_index', table 'turnlog_session_index': a row of another tenant differs in agent",
    ]
    assert "the row of session 'b'" in _found(path)[0][2]


@pytest.mark.parametrize("what", ["select_stream", "select_all_keys", "select_snapshot", "streams"])
def test_a_storage_that_fails_is_no_damage(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """What could not be read was not checked: verify raises, and calls nothing wrong."""

    def fail(*_: object, **__: object) -> object:
        raise StoreUnavailable("disk I/O error")

    with turnlog.open("memory://") as store:
        store.session("a").add_message("user", "hello")
        assert store.verify().ok
        monkeypatch.setattr(MemoryRecorder, what, fail)
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            store.verify()


def _meanwhile(act: Callable[[], object]) -> Callable[..., list[StreamRow]]:
    """Return ``select_stream`` with something done by somebody else once the first page of a stream was read."""
    select, done = MemoryRecorder.select_stream, list[bool]()

    def select_stream(recorder: MemoryRecorder, stream: str, **options: Any) -> list[StreamRow]:
        rows = select(recorder, stream, **options)
        if stream == "default/a" and options.get("limit") == 1_000 and not done:
            done.append(True)
            act()
        return rows

    return select_stream


@pytest.mark.parametrize("act", ["deleted", "written to"])
def test_what_happens_during_the_check_is_no_failure(monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    """A session that is deleted between two pages, or gets a message with an id: both are sound."""
    with turnlog.open("memory://") as store:
        session = store.session("a", history=[{"role": "user", "content": "x"}] * 1_500)
        session.collect(a=1)
        acts = {"deleted": session.delete, "written to": lambda: session.add_message("user", "x", message_id="late")}
        monkeypatch.setattr(MemoryRecorder, "select_stream", _meanwhile(acts[act]))
        assert store.verify("a").failures == ()


def test_a_key_is_read_before_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy a session is: no key can be newer than the events that are then read."""
    with turnlog.open("memory://") as store:
        session = store.session("a")
        select, n = MemoryRecorder.select_all_keys, iter(range(100))

        def select_all_keys(recorder: MemoryRecorder, stream: str) -> list[KeyRow]:
            session.add_message("user", "x", message_id=f"m-{next(n)}")
            keys = select(recorder, stream)
            session.add_message("user", "x", message_id=f"m-{next(n)}")
            return keys

        monkeypatch.setattr(MemoryRecorder, "select_all_keys", select_all_keys)
        assert store.verify("a").failures == ()


def _found(path: Path, *, session_id: str | None = None, tenant: str = "default") -> Found:
    """Return what verify finds in the log, and in the views where nothing is wrong with it."""
    with turnlog.open(f"sqlite:///{path}", tenant=tenant) as store:
        report = store.verify(session_id)
    assert report.ok == (not report.failures)
    return [_told(failure) for failure in _of_sessions(report.failures) or report.failures]


def _of_sessions(failures: Sequence[Failure]) -> list[Failure]:
    return [failure for failure in failures if failure.session_id is not None]


def _told(failure: Failure) -> tuple[str | None, int | None, str]:
    return failure.session_id, failure.version, failure.reason


def _rows(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def _execute(path: Path, statement: str, *parameters: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, parameters)


def _insert(path: Path, stream: str, version: int) -> None:
    columns = "originator_id, originator_version, topic, state"
    _execute(path, f"INSERT INTO turnlog_events ({columns}) VALUES (?, ?, 'Junk.v1', x'00')", stream, version)
