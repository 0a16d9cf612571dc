"""Importing with --check: every difference is named; the real conversations have none."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import turnlog
from tests.adapters.talks import Json, Write, call, data, said, talk
from turnlog.adapters.transfer.conversations import ImportReport, import_files

WRONG: dict[str, tuple[Json, str]] = {
    "data": ({"final_state": {"data": {"a": 2}}}, "final_state.data"),
    "data of another type": ({"final_state": {"data": {"a": 1.0}}}, "final_state.data"),
    "route": ({"final_state": {"route": "other"}}, "final_state.route"),
    "no route": ({"final_state": {"route": None}}, "final_state.route"),
    "step": ({"final_state": {"step": None}}, "final_state.step"),
    "messages": ({"final_state": {"message_count": 1}}, "final_state.message_count"),
    "calls": ({"final_state": {"tool_call_count": 0}}, "final_state.tool_call_count"),
    "status": ({"final_state": {"status": "open"}}, "final_state.status"),
    "branches": ({"final_state": {"branches": [["m1", "m2"]]}}, "final_state.branches"),
    "a checkpoint's data": ({"checkpoint": {"event_count": 3, "data": {"a": 1}}}, "checkpoint.data"),
    "a checkpoint's place": ({"checkpoint": {"event_count": 2, "data": {"a": 0, "b": 0}}}, "checkpoint.data"),
    "a checkpoint beyond the end": ({"checkpoint": {"event_count": 99, "data": {"a": 1}}}, "checkpoint.event_count"),
}
RIGHT: Json = {
    "checkpoint": {"event_count": 3, "data": {"a": 0, "b": 0}},
    "final_state": {
        "data": {"a": 1},
        "route": "r",
        "step": "s",
        "message_count": 2,
        "tool_call_count": 1,
        "status": "completed",
        "branches": [["m1"], ["m2"]],
    },
}
CHECKED = talk(
    said("x", message_id="m1"),
    {"type": "step", "step": "s"},
    data(a=0, b=0),
    {"type": "route", "route": "r"},
    call("t"),
    data(a=1, b=None),
    said("y", message_id="m2"),
    {"type": "status", "status": "completed"},
)


@pytest.mark.parametrize("case", WRONG)
def test_check_names_every_difference(store: turnlog.ConversationStore, write: Write, case: str) -> None:
    """One wrong expectation is one mismatch, by file, line, conversation and name; the right ones are none."""
    wrong, what = WRONG[case]
    assert import_files(store, [write({**CHECKED, **RIGHT})], check=True).ok
    path = write({**CHECKED, **wrong}, name="wrong")
    report = import_files(store, [path], check=True)
    (mismatch,) = report.mismatches
    assert (mismatch.file, mismatch.line, mismatch.conversation_id, mismatch.what) == (str(path), 1, "c1", what)
    assert json.dumps(mismatch.expected) != json.dumps(mismatch.found)
    assert (report.already_there, report.checked, report.refused, report.ok) == (1, 1, 0, False)


def test_check_looks_at_the_end_of_the_import_not_at_what_came_after(
    store: turnlog.ConversationStore, write: Write
) -> None:
    """A session that went on since is compared as the import left it."""
    line = {**CHECKED, **RIGHT}
    import_files(store, [write(line)])
    session = store.get("c1")
    session.reopen()
    session.add_message("user", "more")
    session.collect(a=9)
    assert import_files(store, [write(line)], check=True).ok


@pytest.mark.parametrize("parent", [{"a": 1}, ["m1"], 7, None])
def test_a_parent_that_is_no_id_is_none(store: turnlog.ConversationStore, write: Write, parent: object) -> None:
    """Metadata may say anything under ``parent_id``: only text can name a message."""
    odd = said("y", message_id="m2", metadata={"parent_id": parent})
    line = talk(said("x", message_id="m1"), odd, said("z", message_id="m3", parent_id="m2"))
    line["final_state"] = {"branches": [["m2", "m3"], ["m1"]]}
    report = import_files(store, [write(line)], check=True)
    assert (report.checked, report.mismatches, report.refused) == (1, (), 0)


def test_progress_is_told(store: turnlog.ConversationStore, write: Write) -> None:
    """``progress`` is told the file, how many conversations, and how far of the file they reach."""
    path = write(*(talk(said("x"), conversation_id=f"c{i}") for i in range(120)))
    told: list[tuple[str, int, int, int | None]] = []
    import_files(
        store, [path], progress=lambda at: told.append((at.file, at.conversations, at.read_bytes, at.size_bytes))
    )
    size = path.stat().st_size
    assert [one[1] for one in told] == [50, 100, 120]  # after each commit
    assert told[-1] == (str(path), 120, size, size)


def imported_with_check(url: str, paths: Sequence[Path]) -> ImportReport:
    """Import and check files into a new store, where power loss need not be survived."""
    with turnlog.open(url, durability="normal") as store:
        report = import_files(store, paths, check=True)
        assert store.verify().ok
        assert store.stats().messages == report.messages
    return report


def test_all_real_conversations_are_as_their_data_sets_say(sqlite_url: str, data_dir: Path) -> None:
    """All 4,712 conversations import, and every final state, checkpoint and tree is as annotated."""
    report = imported_with_check(sqlite_url, sorted(data_dir.glob("*.jsonl.gz")))
    assert report.mismatches == ()
    assert report.refusals == ()
    assert (report.imported, report.checked) == (4_712, 4_712)
    assert (report.events, report.messages) == (171_937, 84_092)
