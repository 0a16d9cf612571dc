"""Exporting the log and restoring it: the same log again, or nothing at all."""

import base64
import gzip
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

import turnlog
from tests.strategies import json_objects, text
from turnlog.adapters.export import export_log
from turnlog.adapters.restore import RestoreProgress, restore_log

ROOT = Path(__file__).resolve().parent.parent.parent
Store = turnlog.ConversationStore
Json = dict[str, Any]


def exported(store: Store, session_id: str | None = None) -> bytes:
    """Return the export of a store."""
    out = io.BytesIO()
    export_log(store, out, session_id=session_id)
    return out.getvalue()


def lines_of(export: bytes) -> list[Json]:
    """Return the lines of an export."""
    return [json.loads(line) for line in export.splitlines()]


def without_positions(export: bytes) -> list[Json]:
    """Return the lines of an export without their positions, which a restore gives anew."""
    lines = lines_of(export)
    for line in lines:
        (line.get("event") or line).pop("position", None)
    return lines


def packed(lines: list[Json]) -> BinaryIO:
    """Return lines as a file."""
    return io.BytesIO(b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines))


def fill(store: Store) -> None:
    """Hold a few conversations: turns, keys, a fork, sessions by turns, awkward text, one session erased."""
    one = store.session("one", user_id="alice", metadata={"channel": "web"})
    two = store.session("two/with a slash", user_id="bob")
    one.add_message("user", 'Größe 🙂 \x00 "quoted" \\ \u2028', message_id="m-1")
    with two.turn(command_id="t-1", actor="agent"):
        two.enter_route("booking")
        two.collect(n=1, x=1.5, big=10**30)
        two.add_message("assistant", None, tool_calls=[{"id": "c", "name": "find"}])
    one.collect({"a": [1, {"b": None}]}, command_id="d-1")
    store.session("gone").add_message("user", "secret", message_id="m-2")
    one.fork("three")
    store.get("gone").delete()
    two.complete()


@pytest.fixture
def full(store: Store) -> Store:
    """A store with a few conversations, on every backend."""
    fill(store)
    return store


@pytest.fixture
def empty() -> Iterator[Store]:
    """Another store, empty."""
    with turnlog.open("memory://") as opened:
        yield opened


def test_the_restored_log_is_the_same_log(full: Store, tmp_path: Path) -> None:
    """Export, restore elsewhere, export: every byte of every line but the positions is the same, and it verifies."""
    with turnlog.open(f"sqlite:///{tmp_path}/copy.db") as copy:
        report = restore_log(copy, io.BytesIO(exported(full)))
        assert (report.restored, report.already_there, report.refused) == (report.events, 0, ())
        assert without_positions(exported(copy)) == without_positions(exported(full))
        assert [*copy.heads()] == [*full.heads()]
        assert copy.verify(heads=full.heads()).ok
        assert copy.sessions(limit=9).items == full.sessions(limit=9).items


def test_the_report_counts(full: Store) -> None:
    """Sessions, events and keys of the report are those of the file."""
    out = io.BytesIO()
    report = export_log(full, out)
    lines = lines_of(out.getvalue())
    events, keys = (sum(kind in line for line in lines) for kind in ("event", "key"))
    assert (report.events, report.keys, report.position) == (events, keys, full.position)
    assert (report.sessions, keys) == (4, 4)  # a fork has the keys of what it copied
    assert lines[0] == {"turnlog": "export", "format": 1, "tenant": "default", "position": full.position}
    assert lines[-1] == {"end": {"events": events, "keys": keys}}


def test_the_independent_verifier_accepts_it(full: Store, tmp_path: Path) -> None:
    """scripts/verify_log.py, which does not use turnlog, finds an export in order."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(exported(full))
    command = [sys.executable, str(ROOT / "scripts" / "verify_log.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ok: 4 sessions, 14 events\n"), done.stderr


def test_ids_are_idempotent_after_a_restore(full: Store, empty: Store) -> None:
    """A message id and a command id that were used before the export are known after the restore."""
    restore_log(empty, io.BytesIO(exported(full)))
    session = empty.get("one")
    version = session.version
    assert session.collect({"a": [1, {"b": None}]}, command_id="d-1").version == 3
    with pytest.raises(turnlog.IdempotencyConflict):
        session.add_message("user", "another", message_id="m-1")
    assert session.refresh().version == version


def test_the_restored_session_goes_on(full: Store, empty: Store) -> None:
    """What is written after a restore continues the chain."""
    restore_log(empty, io.BytesIO(exported(full)))
    empty.get("one").add_message("user", "and on")
    assert empty.get("one").history()[-1].content == "and on"
    assert empty.verify().ok


def test_restoring_again_adds_nothing(full: Store, empty: Store) -> None:
    """The second restore of a file finds everything there."""
    export = exported(full)
    restore_log(empty, io.BytesIO(export))
    position = empty.position
    report = restore_log(empty, io.BytesIO(export))
    assert (report.restored, report.already_there, report.refused) == (0, report.events, ())
    assert empty.position == position


def test_a_restore_continues_sessions_that_went_on(full: Store, empty: Store) -> None:
    """A later export of the same log adds what is new to what an earlier one restored."""
    restore_log(empty, io.BytesIO(exported(full)))
    full.get("one").add_message("user", "later", message_id="m-3")
    full.session("four").add_message("user", "new")
    report = restore_log(empty, io.BytesIO(exported(full)))
    assert (report.restored, report.refused) == (3, ())
    assert [*empty.heads()] == [*full.heads()]
    assert empty.get("one").add_message("user", "later", message_id="m-3").version == empty.get("one").version


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
        "from turnlog.adapters.restore import restore_log\n"
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


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_file_cut_after_any_line_is_noticed_and_changes_nothing(full: Store, empty: Store) -> None:
    """However much of the end is missing, the restore fails and nothing was written."""
    lines = exported(full).splitlines(keepends=True)
    for n in range(len(lines)):
        with pytest.raises(turnlog.InvalidInput):
            restore_log(empty, io.BytesIO(b"".join(lines[:n])))
        with pytest.raises(turnlog.InvalidInput):
            restore_log(empty, io.BytesIO(b"".join(lines[:n]) + lines[n][: len(lines[n]) // 2]))
    assert empty.position == 0


Damage = Callable[[list[Json]], object]


def first(lines: list[Json], kind: str) -> Json:
    """Return the first line of a kind."""
    found: Json = next(line[kind] for line in lines if kind in line)
    return found


def reseal(event: Json, old: str, new: str) -> None:
    """Change the text of an event, as somebody would who does not know of the hashes."""
    assert old in event["state"]
    event["state"] = event["state"].replace(old, new)


def swap(lines: list[Json], i: int, j: int) -> None:
    """Exchange two lines but not their positions."""
    a, b = lines[i]["event"], lines[j]["event"]
    a["position"], b["position"] = b["position"], a["position"]
    lines[i], lines[j] = lines[j], lines[i]


DAMAGES: dict[str, tuple[Damage, type[Exception], str]] = {
    "another word in a message": (
        lambda lines: reseal(lines[3]["event"], "Größe", "Gruß"),
        turnlog.CorruptLog,
        "session 'one', version 2: the content does not match",
    ),
    "an event left out": (lambda lines: lines.pop(3), turnlog.CorruptLog, "session 'one'"),
    "the last event of a session left out": (
        lambda lines: [lines.pop(7), lines[-1]["end"].update(events=13)],
        turnlog.InvalidInput,
        "a key names an event",
    ),
    "two events exchanged": (lambda lines: swap(lines, 1, 3), turnlog.CorruptLog, "session 'one'"),
    "an event of a turn left out": (lambda lines: lines.pop(5), turnlog.CorruptLog, "session 'two/with a slash'"),
    "a turn without its end": (lambda lines: lines.pop(6), turnlog.InvalidInput, "is not whole"),
    "a session of another name": (
        lambda lines: [
            line["event"].update(stream="default/x")
            for line in lines
            if line.get("event", {}).get("stream") == "default/one"
        ],
        turnlog.CorruptLog,
        "session 'x', version 1: version 1 is not bound",
    ),
    "an event that is not known": (
        lambda lines: lines[1]["event"].update(topic="Smelled.v1"),
        turnlog.CorruptLog,
        "session 'one', version 1",
    ),
    "a state that is none": (lambda lines: lines[1]["event"].update(state="{}"), turnlog.CorruptLog, "session"),
    "a stream of another tenant": (
        lambda lines: lines[1]["event"].update(stream="other/one"),
        turnlog.InvalidInput,
        "line 2: the session",
    ),
    "a position twice": (
        lambda lines: lines[2]["event"].update(position=1),
        turnlog.InvalidInput,
        "line 3: position 1",
    ),
    "a position after the end": (
        lambda lines: lines[0].update(position=3),
        turnlog.InvalidInput,
        "position 4 is not above 3 and up to 3",
    ),
    "another tenant": (lambda lines: lines[0].update(tenant="x"), turnlog.InvalidInput, "of tenant 'x'"),
    "a newer format": (lambda lines: lines[0].update(format=2), turnlog.InvalidInput, "format 2"),
    "another file": (lambda lines: lines[0].update(turnlog="import"), turnlog.InvalidInput, "line 1: this is not"),
    "no first line": (lambda lines: lines.pop(0), turnlog.InvalidInput, "line 1: this is not"),
    "a line of another kind": (lambda lines: lines.insert(2, {"what": 1}), turnlog.InvalidInput, "line 3: it is not"),
    "a line of no kind": (lambda lines: lines.insert(2, {}), turnlog.InvalidInput, "line 3: expected exactly one"),
    "an event after the keys": (
        lambda lines: lines.insert(-1, {"event": {**lines[1]["event"], "position": lines[0]["position"]}}),
        turnlog.InvalidInput,
        "",
    ),
    "something after the end": (
        lambda lines: lines.append({"end": {"events": 0, "keys": 0}}),
        turnlog.InvalidInput,
        "follows the end",
    ),
    "another count of events": (
        lambda lines: lines[-1]["end"].update(events=1),
        turnlog.InvalidInput,
        "it says 1 events",
    ),
    "another count of keys": (lambda lines: lines[-1]["end"].update(keys=1), turnlog.InvalidInput, "1 keys"),
    "a key of no session": (
        lambda lines: first(lines, "key").update(stream="default/none"),
        turnlog.InvalidInput,
        "is not here",
    ),
    "a key of no version": (lambda lines: first(lines, "key").update(version=99), turnlog.InvalidInput, "is not here"),
    "a key of another kind": (lambda lines: first(lines, "key").update(kind="door"), turnlog.InvalidInput, "'door'"),
    "a short fingerprint": (
        lambda lines: first(lines, "key").update(fingerprint=base64.b64encode(b"short").decode()),
        turnlog.InvalidInput,
        "fingerprint",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_file_is_refused_by_place_and_changes_nothing(full: Store, empty: Store, case: str) -> None:
    """Whatever was changed in a file, the restore names it and writes nothing."""
    damage, error, words = DAMAGES[case]
    lines = lines_of(exported(full))
    damage(lines)
    with pytest.raises(error) as caught:
        restore_log(empty, packed(lines))
    assert words in str(caught.value)
    assert empty.position == 0


def test_content_that_is_missing_without_an_erasure_is_refused(full: Store, empty: Store) -> None:
    """An export in which content is null, of a session that was never deleted, does not verify."""
    lines = lines_of(exported(full))
    state = lines[3]["event"]["state"]
    lines[3]["event"]["state"] = state[: state.index(',"private":')] + ',"private":null}'
    with pytest.raises(turnlog.CorruptLog):
        restore_log(empty, packed(lines))
    assert empty.position == 0


# --- parts, pipes, and what happens meanwhile -------------------------------------------------------------------------


def test_one_session_alone(full: Store, empty: Store) -> None:
    """An export of one session holds its events and keys and nothing else, and restores."""
    export = exported(full, "one")
    assert {line[kind]["stream"] for line in lines_of(export) for kind in ("event", "key") if kind in line} == {
        "default/one"
    }
    report = restore_log(empty, io.BytesIO(export))
    assert (report.sessions, report.events, report.keys) == (1, 3, 2)
    assert empty.get("one").data == {"a": [1, {"b": None}]}
    with pytest.raises(turnlog.SessionNotFound):
        exported(full, "none")


def test_an_empty_log(empty: Store) -> None:
    """A log without events exports to two lines and restores to nothing."""
    export = exported(empty)
    assert len(export.splitlines()) == 2
    assert restore_log(empty, io.BytesIO(export)).events == 0


def test_a_compressed_export_through_a_pipe(full: Store, empty: Store) -> None:
    """What cannot be read twice is kept meanwhile; gzip is told by its content."""
    export = gzip.compress(exported(full))
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb") as pipe:
            pipe.write(export)

    feeding = threading.Thread(target=feed)
    feeding.start()
    with os.fdopen(read, "rb") as pipe:
        report = restore_log(empty, pipe)
    feeding.join()
    assert report.restored == 14
    with pytest.raises(turnlog.InvalidInput, match="cut or damaged"):
        restore_log(empty, io.BytesIO(export[:-20]))


def test_what_is_appended_meanwhile_stays_out(full: Store, empty: Store) -> None:
    """An export is of the log at its beginning: events and keys that come later are not half in it."""
    out = io.BytesIO()
    before = [*full.heads()]

    def meanwhile(_position: int, _target: int) -> None:
        full.get("one").add_message("user", "meanwhile", message_id="m-9")
        full.session("new").add_message("user", "meanwhile", message_id="m-9")

    export_log(full, out, progress=meanwhile)
    assert b"meanwhile" not in out.getvalue()
    assert b"m-9" not in out.getvalue()
    restore_log(empty, io.BytesIO(out.getvalue()))
    assert [*empty.heads()] == before


def test_an_erasure_meanwhile_fails_the_export(full: Store) -> None:
    """Half a session from before its erasure would not verify: the export says so instead of ending well."""
    out = io.BytesIO()

    def meanwhile(_position: int, _target: int) -> None:
        full.get("one").delete()

    with pytest.raises(turnlog.StoreError, match="deleted while it was being exported"):
        export_log(full, out, progress=meanwhile)
    assert b'{"end"' not in out.getvalue()


def test_an_export_is_of_one_tenant(tmp_path: Path) -> None:
    """Tenants of one database are exported apart, and restore into one database again."""
    url, copy = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    for tenant in ("red", "blue"):
        with turnlog.open(url, tenant=tenant) as store:
            store.session("s").add_message("user", tenant)
    for tenant in ("blue", "red"):
        with turnlog.open(url, tenant=tenant) as store, turnlog.open(copy, tenant=tenant) as other:
            restore_log(other, io.BytesIO(exported(store)))
            assert [message.content for message in other.get("s").history()] == [tenant]
            assert other.verify(heads=store.heads()).ok


# --- any history ------------------------------------------------------------------------------------------------------

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
