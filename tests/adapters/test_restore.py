"""Restoring beside what is there: stopped and gone on, sessions that differ, sessions erased; and any history."""

import io
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import turnlog
from tests.adapters.commands import ROOT
from tests.adapters.exports import Store, exported, lines_of, without_positions
from turnlog.adapters.transfer.restore import RestoreProgress, restore_log
from turnlog.testing.strategies import json_objects, text


@cache
def long_log() -> bytes:
    """Return the export of a log that is longer than what is committed at once."""
    with turnlog.open("memory://") as store:
        handles = [store.session(f"s{i}") for i in range(40)]
        for k in range(60):
            for handle in handles:
                with handle.turn():
                    handle.add_message("user", f"{k}", message_id=f"m{k}" if k % 20 == 0 else None)
                    handle.add_message("assistant", "yes")
        return exported(store)


@pytest.mark.parametrize("stop", [1, 2, 5, 9])
def test_a_restore_that_was_stopped_has_left_whole_turns_and_goes_on(sqlite_url: str, stop: int) -> None:
    """Stopped between any two commits, what is there is a prefix of whole turns; the next restore completes it."""
    export = long_log()
    calls = 0

    def interrupt(progress: RestoreProgress) -> None:
        nonlocal calls
        calls += progress.total is not None
        if calls == stop:
            raise KeyboardInterrupt

    with turnlog.open(sqlite_url, durability="normal") as store:
        with pytest.raises(KeyboardInterrupt):
            restore_log(store, io.BytesIO(export), progress=interrupt)
        there = [line["event"] for line in lines_of(exported(store)) if "event" in line]
        whole = [line["event"] for line in lines_of(export) if "event" in line]
        assert 0 < len(there) < len(whole)
        assert [event["state"] for event in there] == [event["state"] for event in whole[: len(there)]]
        assert store.verify().ok
        report = restore_log(store, io.BytesIO(export))
        assert (report.already_there, report.restored) == (len(there), len(whole) - len(there))
        assert without_positions(exported(store)) == without_positions(export)


def test_a_restore_that_was_killed_goes_on(sqlite_url: str, tmp_path: Path) -> None:
    """After kill -9 in the middle the log verifies, and `turnlog import` again completes it."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(long_log())
    killing = (
        "import os, sys, turnlog\n"
        "from turnlog.adapters.transfer.restore import restore_log\n"
        "def kill(progress):\n"
        "    if progress.restored > 2000: os.kill(os.getpid(), 9)\n"
        "with turnlog.open(sys.argv[1]) as store, open(sys.argv[2], 'rb') as file:\n"
        "    restore_log(store, file, progress=kill)\n"
    )
    command = [sys.executable, "-W", "error", "-c", killing, sqlite_url, str(path)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
    with turnlog.open(sqlite_url) as store:
        assert store.verify().ok
        with path.open("rb") as file:
            report = restore_log(store, file)
        assert report.already_there > 2000
        assert without_positions(exported(store)) == without_positions(path.read_bytes())


def test_a_session_that_differs_is_refused_by_name_and_the_others_are_restored(full: Store, empty: Store) -> None:
    """A session that is there with other events is left as it is, with its keys; the rest of the file is restored."""
    empty.session("one").add_message("user", "mine", message_id="mine")
    report = restore_log(empty, io.BytesIO(exported(full)))
    assert [(one.session_id, one.version) for one in report.refused] == [("one", 1)]
    assert [message.content for message in empty.get("one").history()] == ["mine"]
    assert empty.get("one").add_message("user", "x", message_id="m-1").version == 3
    assert empty.get("three").history()[0].message_id == "m-1"
    assert (report.restored, report.already_there) == (report.events - 3, 0)
    assert empty.verify().ok


def test_a_session_that_parted_later_is_refused_at_that_version(full: Store, empty: Store) -> None:
    """Two logs that went on differently from one beginning are told apart at the first event that differs."""
    restore_log(empty, io.BytesIO(exported(full)))
    for store, words in ((full, "here"), (empty, "there")):
        store.get("one").add_message("user", words)
    report = restore_log(empty, io.BytesIO(exported(full)))
    assert [(one.session_id, one.version) for one in report.refused] == [("one", 4)]
    assert empty.get("one").history()[-1].content == "there"


def test_what_was_erased_is_not_in_the_export(full: Store) -> None:
    """Of an erased session the skeleton is exported, not a byte of its content, and no key."""
    export = exported(full)
    assert b"secret" not in export
    assert not any(line["key"]["stream"] == "default/gone" for line in lines_of(export) if "key" in line)
    assert sum(line["event"]["stream"] == "default/gone" for line in lines_of(export) if "event" in line) == 3


def test_two_erased_sessions_of_one_name_are_told_apart(full: Store, empty: Store) -> None:
    """Of erased sessions only the skeleton is left, but that shows whether they were the same."""
    empty.session("gone").add_message("user", "another secret")
    empty.get("gone").delete()
    report = restore_log(empty, io.BytesIO(exported(full)))
    assert [(one.session_id, one.version) for one in report.refused] == [("gone", 1)]
    assert empty.verify().ok


def test_what_was_erased_stays_erased(full: Store, empty: Store) -> None:
    """A session that was erased here does not come back, content or keys, from an export that has it."""
    export = exported(full)
    restore_log(empty, io.BytesIO(export))
    empty.get("one").delete()
    report = restore_log(empty, io.BytesIO(export))
    assert (report.restored, report.refused) == (0, ())
    assert not empty.exists("one")
    assert "Größe".encode() not in exported(empty, "one")
    assert empty.verify().ok


def test_an_erasure_is_restored_as_one(full: Store, empty: Store) -> None:
    """A session that is there and was erased in the export is erased here."""
    restore_log(empty, io.BytesIO(exported(full)))
    full.get("one").delete()
    report = restore_log(empty, io.BytesIO(exported(full)))
    assert (report.restored, report.refused) == (1, ())
    with pytest.raises(turnlog.SessionGone):
        empty.get("one")
    assert "Größe".encode() not in exported(empty, "one")
    assert empty.verify().ok
    assert without_positions(exported(empty)) == without_positions(exported(full))


Operation = tuple[Any, ...]
names = st.sampled_from(["a", "b", "c"])
keys = st.none() | names
statuses = st.sampled_from(["active", "paused", "completed", "archived"])
single: st.SearchStrategy[Operation] = st.one_of(
    st.tuples(st.just("message"), text, keys),
    st.tuples(st.just("collect"), json_objects, keys),
    st.tuples(st.just("context"), json_objects),
    st.tuples(st.just("discard"), names),
    st.tuples(st.just("route"), names),
    st.tuples(st.just("step"), names),
    st.tuples(st.just("call"), names, json_objects),
    st.tuples(st.just("return"), names, text),
    st.tuples(st.just("edit"), names, text),
    st.tuples(st.just("status"), statuses),
    st.tuples(st.sampled_from(["pop", "clear"])),
)
turn: st.SearchStrategy[Operation] = st.tuples(st.just("turn"), st.lists(single, max_size=4))
rare: st.SearchStrategy[Operation] = st.tuples(st.sampled_from(["fork", "reset", "delete"]))
histories = st.lists(st.tuples(names, single | single | turn | rare), max_size=25)


def do(session: turnlog.Session, operation: Operation) -> None:  # noqa: C901, PLR0912 - a flat table
    """Do one thing to a session."""
    match operation:
        case ("message", words, key):
            session.add_message("user", words, message_id=key)
        case ("collect", values, key):
            session.collect(values, command_id=key)
        case ("context", values):
            session.set_context(values)
        case ("discard", name):
            session.discard(name)
        case ("route", name):
            session.enter_route(name, actor=name)
        case ("step", name):
            session.enter_step(name)
        case ("call", name, given):
            session.call_tool(name, given, call_id=name)
        case ("return", name, words):
            session.return_tool(name, words)
        case ("edit", name, words):
            session.edit_message(name, words)
        case ("status", status):
            session.set_status(status)
        case ("turn", operations):
            with session.turn():
                for one in operations:
                    do(session, one)
        case _:
            others: dict[str, Callable[[], object]] = {
                "pop": session.pop_message,
                "clear": session.clear_history,
                "fork": session.fork,
            }
            others |= {"reset": session.reset, "delete": session.delete}
            others[operation[0]]()


@settings(max_examples=25)
@given(histories)
def test_restoring_an_export_is_the_identity(history: list[tuple[str, Operation]]) -> None:
    """Whatever was done to some sessions, the restored log has the same events, keys, heads and states."""
    with turnlog.open("memory://") as store, turnlog.open("memory://") as copy:
        for session_id, operation in history:
            with suppress(turnlog.InvalidInput, turnlog.RuleViolation):
                do(store.session(session_id, user_id=session_id), operation)
        export = exported(store)
        assert restore_log(copy, io.BytesIO(export)).refused == ()
        assert exported(copy) == export
        assert copy.verify(heads=store.heads()).ok
        for summary in store.sessions(limit=100).items:
            assert copy.get(summary.session_id).state == store.get(summary.session_id).state
            assert copy.get(summary.session_id).history() == store.get(summary.session_id).history()
