"""Importing conversations in the neutral form: every rule of docs/import-format.md, and all the real ones."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import turnlog
from turnlog.adapters.conversations import ImportReport, import_files
from turnlog.domain import events as e

ROOT = Path(__file__).resolve().parent.parent.parent
Json = dict[str, Any]
DEADLINE_S = 60


def said(content: Any, role: str = "user", **more: Any) -> Json:
    """One message event of the neutral form."""
    return {"type": "message", "role": role, "content": content, **more}


def talk(*events: Json, conversation_id: str = "c1", **more: Any) -> Json:
    """One conversation of the neutral form."""
    return {"conversation_id": conversation_id, "events": list(events), **more}


def call(id_: str, name: str = "find", **arguments: Any) -> Json:
    """One tool_call event."""
    return {"type": "tool_call", "id": id_, "name": name, "arguments": arguments}


def result(id_: str, content: Any, name: str = "find") -> Json:
    """One tool_result event."""
    return {"type": "tool_result", "id": id_, "name": name, "content": content}


def data(**values: Any) -> Json:
    """One data event."""
    return {"type": "data", "values": values}


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write conversations (or lines as they are) to a file, one a line."""

    def to_file(*lines: Json | str, name: str = "talks.jsonl") -> Path:
        path = tmp_path / name
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
        return path

    return to_file


def recorded(store: turnlog.ConversationStore, session_id: str = "c1") -> list[Any]:
    """Return a session's events, message ids made for them left out."""
    found: list[Any] = [event.event for event in store.get(session_id).events()]
    return [replace(one, message_id="") if isinstance(one, e.MessageAdded) else one for one in found]


def test_every_kind_of_event_becomes_its_event(store: turnlog.ConversationStore, write: Write) -> None:
    """message, data, route, step, tool_call, tool_result and status are stored as what they are, in order."""
    calls = [{"id": "t1", "name": "find", "arguments": {"n": 2}}]
    path = write(
        talk(
            said("Hi", "system"),
            {"type": "route", "route": "booking"},
            {"type": "step", "step": "size"},
            data(n=2, gone=None, kept="x"),
            said(None, "assistant", tool_calls=calls),
            call("t1", n=2),
            result("t1", ["a", {"b": None}]),
            said("two", "tool", name="find", tool_call_id="t1", metadata={"k": 1}),
            {"type": "status", "status": "completed"},
            user_id="alice",
            agent="concierge",
            source="here",
            licence="MIT",
            meta={"channel": "web"},
        )
    )
    assert import_files(store, [path]).ok
    where: Json = {"message_id": "", "route": "booking", "step": "size"}
    assert recorded(store) == [
        e.SessionStarted(
            user_id="alice",
            agent="concierge",
            metadata={"source": "here", "licence": "MIT", "meta": {"channel": "web"}},
        ),
        e.MessageAdded(message_id="", role="system", content="Hi"),
        e.RouteEntered(route="booking"),
        e.StepEntered(step="size"),
        e.DataCollected(values={"n": 2, "kept": "x"}),
        e.MessageAdded(role="assistant", content=None, tool_calls=calls, **where),
        e.ToolCalled(call_id="t1", name="find", arguments={"n": 2}),
        e.ToolReturned(call_id="t1", name="find", content=["a", {"b": None}]),
        e.MessageAdded(role="tool", content="two", name="find", tool_call_id="t1", metadata={"k": 1}, **where),
        e.StatusChanged(status="completed"),
    ]


EDGE_CASES: dict[str, tuple[list[Json], Json]] = {
    "a removed slot": ([data(a=1, b=2), data(a=None)], {"data": {"b": 2}}),
    "a removed slot that comes back": ([data(a=1), data(a=None), data(a=1)], {"data": {"a": 1}}),
    "a slot changed and another removed at once": ([data(a=1, b=2), data(a=3, b=None)], {"data": {"a": 3}}),
    "a slot changed several times": ([data(a=1), data(a=2), data(a=2), data(a=3)], {"data": {"a": 3}}),
    "numbers that are equal and differ": ([data(a=1), data(a=1.0), data(a=True)], {"data": {"a": True}}),
    "list values": ([data(a=["x", "y"]), data(a=["y", "x"])], {"data": {"a": ["y", "x"]}}),
    "no values": ([data(), said("x")], {"data": {}, "message_count": 1}),
    "Chinese keys": ([data(**{"1.餐馆.推荐菜": ["烤鸭"]})], {"data": {"1.餐馆.推荐菜": ["烤鸭"]}}),
    "data before any route": ([data(a=1), {"type": "route", "route": "r"}], {"data": {"a": 1}, "route": "r"}),
    "a step before a route": (
        [{"type": "step", "step": "s"}, {"type": "route", "route": "r"}],
        {"route": "r", "step": "s"},
    ),
    "a route entered twice in a row": (
        [{"type": "route", "route": "r"}, {"type": "step", "step": "s"}, {"type": "route", "route": "r"}],
        {"route": "r", "step": "s"},
    ),
    "empty and absent content": ([said(""), said(None, "assistant")], {"message_count": 2}),
    "blanks and line breaks": ([said("  a\n\tb \r\n ")], {"message_count": 1}),
    "beyond the basic plane, and NUL": ([said("𝄞 🙂 \x00")], {"message_count": 1}),
    "a run of one role": ([said("a"), said("b"), said("c")], {"message_count": 3}),
    "content in parts": ([said([{"type": "text", "text": "a"}])], {"message_count": 1}),
    "an id of several calls": (
        [call("t"), result("t", 1), call("t", "other"), result("t", 2)],
        {"tool_call_count": 2},
    ),
    "no status": ([said("a")], {"status": "open"}),
    "abandoned": ([said("a"), {"type": "status", "status": "abandoned"}], {"status": "abandoned"}),
    "opened again": (
        [{"type": "status", "status": "completed"}, {"type": "status", "status": "open"}, said("a")],
        {"status": "open"},
    ),
    "nothing at all": ([], {"data": {}, "route": None, "step": None, "message_count": 0, "status": "open"}),
}


@pytest.mark.parametrize("case", EDGE_CASES)
def test_edge_cases_of_real_conversations_fold_to_their_final_state(
    store: turnlog.ConversationStore, write: Write, case: str
) -> None:
    """What occurs in real data is imported and reaches the state that its line names."""
    events, final = EDGE_CASES[case]
    report = import_files(store, [write(talk(*events, final_state=final))], check=True)
    assert (report.refusals, report.mismatches, report.checked) == ((), (), 1)
    contents = [event["content"] for event in events if event["type"] == "message"]
    assert [message.content for message in store.get("c1").history()] == contents


def test_a_result_belongs_to_the_latest_earlier_call(store: turnlog.ConversationStore, write: Write) -> None:
    """Of several calls with one id the result takes the name of the latest, where it has none of its own."""
    nameless = {"type": "tool_result", "id": "t", "content": 1}
    assert import_files(store, [write(talk(call("t", "first"), call("t", "second"), nameless))]).ok
    assert recorded(store)[-1] == e.ToolReturned(call_id="t", name="second", content=1)


def test_times_are_kept_as_occurred_at(store: turnlog.ConversationStore, write: Write) -> None:
    """``ts`` becomes ``occurred_at``, to the microsecond; an event without one occurred when it was recorded."""
    events = [{**data(a=1, b=None), "ts": 1767225600}, {**data(b=1), "ts": 1767225600.25}, data(c=1)]
    assert import_files(store, [write(talk(*events))]).ok
    _, first, second, third = store.get("c1").events()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert (first.occurred_at, second.occurred_at) == (start, start.replace(microsecond=250_000))
    assert third.occurred_at == third.recorded_at


def test_trees_keep_their_parents_and_can_be_made_again(store: turnlog.ConversationStore, write: Write) -> None:
    """``parent_id`` and ``rank`` are in the message's metadata, and the branches follow from them."""
    tree = talk(
        said("root", message_id="r"),
        said("b", "assistant", message_id="b", parent_id="r", rank=1),
        said("a", "assistant", message_id="a", parent_id="r", rank=0),
        said("c", message_id="c", parent_id="a", metadata={"k": "v"}),
        final_state={"branches": [["r", "a", "c"], ["r", "b"]], "message_count": 4},
    )
    report = import_files(store, [write(tree)], check=True)
    assert (report.ok, report.checked) == (True, 1)
    found = {message.message_id: message.metadata for message in store.get("c1").history()}
    expected = {"b": {"parent_id": "r", "rank": 1}, "a": {"parent_id": "r", "rank": 0}}
    assert found == {"r": None, **expected, "c": {"k": "v", "parent_id": "a"}}


def test_a_given_message_id_stays_idempotent(store: turnlog.ConversationStore, write: Write) -> None:
    """Saying an imported message again through the API, with its id, adds nothing."""
    assert import_files(store, [write(talk(said("root", message_id="r")))]).ok
    session = store.get("c1")
    before = session.version
    assert session.add_message("user", "root", message_id="r").version == before
    with pytest.raises(turnlog.IdempotencyConflict):
        session.add_message("user", "something else", message_id="r")


def test_importing_again_adds_nothing(store: turnlog.ConversationStore, write: Write) -> None:
    """The same conversation, also written another way or with its outcome added, is there already."""
    line = talk(said("a"), said("b", "assistant"), {"type": "status", "status": "completed"}, user_id="alice")
    first = import_files(store, [write(line)])
    position = store.position
    turned = json.dumps(dict(reversed(line.items())), indent=None, separators=(" ,  ", ":  "))
    again = import_files(
        store, [write(line), write(turned, {**line, "final_state": {"message_count": 2}}, name="2")], check=True
    )
    assert (first.imported, first.already_there) == (1, 0)
    assert (again.imported, again.already_there, again.conversations, again.checked, again.ok) == (0, 3, 3, 1, True)
    assert store.position == position


def test_the_report_counts(store: turnlog.ConversationStore, write: Write) -> None:
    """Files, conversations, events and messages are counted; without --check nothing is checked."""
    one = write(talk(said("a"), data(a=1)), talk(said("b"), conversation_id="c2", final_state={"message_count": 7}))
    report = import_files(store, [one, write(talk(said("d"), said("e"), conversation_id="c3"), name="2")])
    assert (report.files, report.conversations, report.imported) == (2, 3, 3)
    assert (report.events, report.messages, report.checked, report.mismatches) == (5, 4, 0, ())
    assert report.seconds > 0


BAD_LINES: dict[str, tuple[Json | str, str]] = {
    "not JSON": ("{", "truncated"),
    "not an object": ("[1]", "object"),
    "not UTF-8 inside": ('{"conversation_id": "\\ud800", "events": []}', ""),
    "no events": ({"conversation_id": "bad"}, "events"),
    "no id": ({"events": []}, "conversation_id"),
    "an empty id": (talk(conversation_id=""), "conversation_id"),
    "a control character in the id": (talk(conversation_id="a\nb"), "conversation_id"),
    "a field that is not known": (talk(conversation_id="bad", colour="red"), "colour"),
    "an event that is not known": (talk({"type": "smell"}, conversation_id="bad"), "smell"),
    "a field of an event that is not known": (talk(said("x", mood="good"), conversation_id="bad"), "mood"),
    "a role that is not known": (talk(said("x", "king"), conversation_id="bad"), "events[0].role"),
    "a content that is none": (talk(said(7), conversation_id="bad"), "events[0].content"),
    "a content that is missing": (talk({"type": "message", "role": "user"}, conversation_id="bad"), "content"),
    "a result without a call": (talk(call("t"), result("u", 1), conversation_id="bad"), "call_id"),
    "a message after the end": (
        talk({"type": "status", "status": "completed"}, said("x"), conversation_id="bad"),
        "completed",
    ),
    "a status that is not known": (talk({"type": "status", "status": "odd"}, conversation_id="bad"), "odd"),
    "a message id twice": (
        talk(said("x", message_id="m"), said("y", message_id="m"), conversation_id="bad"),
        "events[1].message_id",
    ),
    "a time out of range": (talk(said("x", ts=1e30), conversation_id="bad"), "events[0].ts"),
    "a number JSON has not": ('{"conversation_id": "bad", "events": [], "meta": {"a": NaN}}', ""),
    "too deep": (
        '{"conversation_id": "bad", "events": [{"type": "data", "values": {"a": ' + "[" * 70 + "]" * 70 + "}}]}",
        "events[0].values",
    ),
    "far too deep": ('{"conversation_id": "bad", "events": [], "meta": {"a": ' + "[" * 9999 + "]" * 9999 + "}}", ""),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_refused_by_file_and_line_and_the_others_are_imported(
    store: turnlog.ConversationStore, write: Write, case: str
) -> None:
    """Nothing of a bad line is written, it is named with the reason, and the lines around it are imported."""
    line, reason = BAD_LINES[case]
    path = write(talk(said("a")), line, talk(said("b"), conversation_id="c2"))
    report = import_files(store, [path], check=True)
    assert (report.imported, report.refused, report.ok) == (2, 1, False)
    ((file, number, why),) = [(one.file, one.line, one.reason) for one in report.refusals]
    assert (file, number) == (str(path), 2)
    assert reason in why
    assert {session.session_id for session in store.sessions().items} == {"c1", "c2"}


def test_an_id_that_is_taken_is_refused(store: turnlog.ConversationStore, write: Write) -> None:
    """Another conversation of the same id adds nothing to the one that is there, imported or not."""
    store.session("mine").add_message("user", "mine")
    path = write(talk(said("a")), talk(said("b")), talk(said("c"), conversation_id="mine"))
    report = import_files(store, [path])
    assert [(one.line, one.reason) for one in report.refusals] == [
        (2, "session 'c1' is there already, and is not this conversation"),
        (3, "session 'mine' is there already, and is not this conversation"),
    ]
    assert [message.content for message in store.get("c1").history()] == ["a"]
    assert [message.content for message in store.get("mine").history()] == ["mine"]


def test_what_was_erased_does_not_come_back(store: turnlog.ConversationStore, write: Write) -> None:
    """Importing a conversation whose session was deleted since is refused."""
    path = write(talk(said("a")))
    import_files(store, [path])
    store.get("c1").delete()
    report = import_files(store, [path])
    assert [one.reason for one in report.refusals] == ["session 'c1' was deleted"]
    assert not store.exists("c1")


def test_compressed_files_are_told_by_their_content(store: turnlog.ConversationStore, tmp_path: Path) -> None:
    """Under any name gzip is read, and a byte order mark, blank lines and a missing last line break are too."""
    lines = [json.dumps(talk(said("x"), conversation_id=f"c{i}")) for i in range(3)]
    (tmp_path / "plain.gz").write_text(f"\ufeff{lines[0]}\n\n  \n{lines[1]}", encoding="utf-8")
    (tmp_path / "packed.txt").write_bytes(gzip.compress(lines[2].encode()))
    (tmp_path / "empty").write_bytes(b"")
    report = import_files(store, [tmp_path / name for name in ("plain.gz", "packed.txt", "empty")])
    assert (report.files, report.imported, report.ok) == (3, 3, True)


def test_a_cut_compressed_file_says_where(store: turnlog.ConversationStore, tmp_path: Path) -> None:
    """What could be read is imported; the rest is named, and the next file is read."""
    lines = "".join(json.dumps(talk(said(os.urandom(2000).hex()), conversation_id=f"c{i}")) + "\n" for i in range(50))
    packed = gzip.compress(lines.encode())
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "next").write_text(json.dumps(talk(said("x"), conversation_id="next")), encoding="utf-8")
    report = import_files(store, [tmp_path / "cut.gz", tmp_path / "next"])
    ((file, line, reason),) = [(one.file, one.line, one.reason) for one in report.refusals]
    assert file == str(tmp_path / "cut.gz")
    assert 0 < line == report.imported - 1 < 50
    assert "cut or damaged" in reason
    assert store.exists("next")


def test_a_file_that_is_not_there_is_named(store: turnlog.ConversationStore, tmp_path: Path, write: Write) -> None:
    """A file that cannot be opened is refused as line 0, and the next one is imported."""
    report = import_files(store, [tmp_path / "absent", write(talk(said("x")))])
    assert [(one.file, one.line) for one in report.refusals] == [(str(tmp_path / "absent"), 0)]
    assert report.imported == 1


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


# --- processes --------------------------------------------------------------------------------------------------------


def start_import(url: str, *paths: Path) -> subprocess.Popen[str]:
    """Start ``turnlog import --json`` as a process."""
    command = [sys.executable, "-W", "error", "-m", "turnlog", "import", "--json", "--store", url, *map(str, paths)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def long_talks(n: int) -> list[Json]:
    """Return conversations of 41 events each, with what they lead to."""
    return [
        talk(
            *(said(f"{i}.{k}") for k in range(40)),
            data(number=i),
            conversation_id=f"c{i}",
            user_id=f"u{i % 7}",
            final_state={"data": {"number": i}, "message_count": 40, "status": "open"},
        )
        for i in range(n)
    ]


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"


def test_an_import_that_was_killed_leaves_whole_conversations_and_is_finished_by_the_next(
    sqlite_url: str, write: Write
) -> None:
    """After kill -9 in the middle every session that is there is whole; importing again adds the rest."""
    n = 1_500
    path = write(*long_talks(n))
    with turnlog.open(sqlite_url) as store:
        with start_import(sqlite_url, path) as process:
            wait_for(lambda: store.position > 42 * 20)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        there = list(store.heads())
        assert 20 < len(there) < n
        assert {head.version for head in there} == {42}
        assert store.verify().ok
        report = import_files(store, [path], check=True)
        assert (report.already_there, report.imported, report.checked) == (len(there), n - len(there), n)
        assert report.ok
        assert store.stats().events == 42 * n


def test_two_imports_at_once_store_everything_once(sqlite_url: str, write: Write) -> None:
    """Two processes import the same file at the same time: each conversation is imported by one of them."""
    n = 300
    path = write(*long_talks(n))
    processes = [start_import(sqlite_url, path) for _ in range(2)]
    outputs = [process.communicate(timeout=DEADLINE_S) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    reports = [json.loads(out)["conversations"] for out, _ in outputs]
    assert sum(report["imported"] for report in reports) == n
    assert all(report["conversations"] == n for report in reports)
    with turnlog.open(sqlite_url) as store:
        assert store.stats().events == 42 * n
        assert store.verify().ok


# --- the real ones ----------------------------------------------------------------------------------------------------


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
