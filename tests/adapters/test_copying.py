"""Copying a log to another store: the same log, whatever the two backends; stopped, killed, followed, refused."""

import io
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec
import pytest

import turnlog
from tests.adapters.commands import ROOT, Cli, process, wait_for
from tests.adapters.exports import Store, exported, fill, lines_of, packed, without_positions
from turnlog.adapters.inside import decider_of
from turnlog.adapters.transfer.copying import CopyProgress, copy_log
from turnlog.adapters.transfer.restore import restore_log


def assert_same(one: Store, other: Store) -> None:
    """Check that two stores hold the same log, and that it verifies in both."""
    assert without_positions(exported(one)) == without_positions(exported(other))
    assert [*one.heads()] == [*other.heads()]
    for store in (one, other):
        assert store.verify(heads=one.heads()).ok
    assert one.sessions(limit=100).items == other.sessions(limit=100).items


@pytest.fixture
def memory() -> Iterator[Store]:
    """A store in memory with a few conversations."""
    with turnlog.open("memory://") as opened:
        fill(opened)
        yield opened


def test_what_is_copied_from_a_backend_is_the_same_log(full: Store, empty: Store) -> None:
    """Every byte of every event and key is the same, both verify, and a second copy finds nothing to do."""
    report = copy_log(full, empty)
    assert (report.sessions, report.events, report.copied, report.keys) == (4, 14, 14, 4)
    assert report.copied_keys == 4
    assert_same(full, empty)
    again = copy_log(full, empty)
    assert (again.sessions, again.events, again.keys) == (4, 14, 4)
    assert (again.copied, again.copied_keys, again.position) == (0, 0, report.position)


def test_what_is_copied_to_a_backend_is_the_same_log(memory: Store, store: Store) -> None:
    """As above, the other way; both ways make every pair of backends."""
    copy_log(memory, store)
    assert_same(memory, store)
    session = store.get("one")
    session.add_message("user", 'Größe 🙂 \x00 "quoted" \\ \u2028', message_id="m-1")
    assert session.version == 3
    session.add_message("user", "and on")
    assert store.verify().ok


def test_a_copy_goes_on_with_what_is_new(full: Store, empty: Store) -> None:
    """Events, keys of commands that changed nothing, and erasures of the source come with the next copy."""
    copy_log(full, empty)
    full.get("three").add_message("user", "more", message_id="m-9")
    full.get("three").collect({}, command_id="nothing")
    full.session("new").add_message("user", "new")
    full.get("one").delete()
    report = copy_log(full, empty)
    assert (report.copied, report.copied_keys) == (4, 2)
    assert_same(full, empty)
    assert not empty.exists("one")
    assert "Größe".encode() not in exported(empty, "one")


def test_a_target_that_holds_something_else_is_refused(memory: Store, empty: Store) -> None:
    """A session of its own, one of the same name, one that went on or was erased: each is named, nothing is copied."""
    copy_log(memory, empty)
    empty.session("its own")
    with pytest.raises(turnlog.InvalidInput, match="'its own' is not in the source"):
        copy_log(memory, empty)
    with turnlog.open("memory://") as other:
        other.session("one").add_message("user", "mine")
        with pytest.raises(turnlog.InvalidInput, match="'one' is another one"):
            copy_log(memory, other)
        assert other.position == 2
    with turnlog.open("memory://") as other:
        copy_log(memory, other)
        other.get("one").delete()
        with pytest.raises(turnlog.InvalidInput, match="'one' goes on"):
            copy_log(memory, other)
    with turnlog.open("memory://", tenant="b") as other, pytest.raises(turnlog.InvalidInput, match="tenant 'b'"):
        copy_log(memory, other)


def test_every_tenant_is_copied(sqlite_url: str, empty: Store) -> None:
    """All of a log goes over at once, in its order, and again nothing; of one tenant, asked for alone, nothing else."""
    with turnlog.open(sqlite_url) as source, turnlog.open(sqlite_url, tenant="ünder") as beside:
        source.session("s", user_id="alice").add_message("user", "one")
        beside.session("t").add_message("user", "two", message_id="m")
        source.get("s").add_message("user", "three")
        with turnlog.open("memory://", tenant="ünder") as alone:
            assert (copy_log(beside, alone).sessions, copy_log(beside, alone, every_tenant=True).copied) == (1, 3)
        report = copy_log(beside, empty, every_tenant=True)
        assert (report.sessions, report.events, report.keys) == (2, 5, 1)
        assert copy_log(source, empty, every_tenant=True).copied == 0
        rows = [decider_of(store).recorder.select_log(limit=9) for store in (source, empty)]
        assert [row[1:] for row in rows[0]] == [row[1:] for row in rows[1]]
        with turnlog.open("memory://", tenant="other") as other:
            other.session("s")
            with pytest.raises(turnlog.InvalidInput, match="'other/s' is not in the source"):
                copy_log(source, other, every_tenant=True)


def test_a_source_that_was_damaged_is_not_copied(sqlite_url: str, filled: Store, empty: Store) -> None:
    """An event that does not match its hash is named; what was copied before is whole."""
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as database, database:
        words = "UPDATE turnlog_events SET state = CAST(replace(state, 'Gladly', 'Sadly') AS BLOB) WHERE position = 6"
        assert database.execute(words).rowcount == 1
    with pytest.raises(turnlog.CorruptLog, match="'default/s', version 6"):
        copy_log(filled, empty)
    assert empty.verify().ok


def test_a_part_that_was_there_is_completed(memory: Store, empty: Store) -> None:
    """Where an export of the newest session was imported first, the older ones are copied all the same."""
    restore_log(empty, io.BytesIO(exported(memory, "three")))
    assert copy_log(memory, empty).copied == 11
    assert [*empty.heads()] == [*memory.heads()]
    assert empty.verify(heads=memory.heads()).ok


def test_a_copy_follows(memory: Store, empty: Store) -> None:
    """While it is told to go on, what is written to the source is copied, with its keys."""
    asked = 0

    def go_on() -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            memory.get("three").add_message("user", "more", message_id="m-9")
        if asked == 4:
            assert empty.get("three").history()[-1].message_id == "m-9"
            assert empty.get("three").add_message("user", "more", message_id="m-9").version == 4
        return asked < 5

    report = copy_log(memory, empty, follow=go_on)
    assert (report.events, report.keys, report.position) == (15, 5, memory.position)
    assert_same(memory, empty)


def long_conversations(store: Store) -> None:
    """Hold conversations whose turns take turns, longer than what is committed at once."""
    handles = [store.session(f"s{i}") for i in range(20)]
    for k in range(120):
        for handle in handles:
            with handle.turn():
                handle.add_message("user", f"{k}", message_id=f"m{k}" if k % 20 == 0 else None)
                handle.add_message("assistant", "yes")


def test_snapshots_come_along(empty: Store) -> None:
    """A long session opens as quickly in the target: its newest snapshot is there."""
    with turnlog.open("memory://") as source:
        long_conversations(source)
        copy_log(source, empty)
        one, other = (decider_of(store).recorder.select_snapshot("default/s3") for store in (source, empty))
        assert one is not None
        assert one == other
        assert empty.get("s3").state == source.get("s3").state


def test_a_copy_that_was_stopped_or_killed_goes_on(sqlite_url: str, tmp_path: Path) -> None:
    """After any page and after kill -9 the target holds whole turns and verifies; the next copy doubles nothing."""
    target = f"sqlite:///{tmp_path}/copy.db"
    killing = (
        "import os, sys, turnlog\n"
        "from turnlog.adapters.transfer.copying import copy_log\n"
        "def kill(progress):\n"
        "    if progress.copied > 2000: os.kill(os.getpid(), 9)\n"
        "with turnlog.open(sys.argv[1]) as one, turnlog.open(sys.argv[2], durability='normal') as other:\n"
        "    copy_log(one, other, progress=kill)\n"
    )

    def interrupt(_: CopyProgress) -> None:
        raise KeyboardInterrupt

    with turnlog.open(sqlite_url, durability="normal") as source:
        long_conversations(source)
        with turnlog.open(target) as copy, pytest.raises(KeyboardInterrupt):
            copy_log(source, copy, progress=interrupt)
        command = [sys.executable, "-W", "error", "-c", killing, sqlite_url, target]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
        with turnlog.open(target) as copy:
            there = sum(head.version for head in copy.heads())
            assert 3000 < there < 20 * 241
            assert copy.verify().ok
            report = copy_log(source, copy)
            assert report.copied == 20 * 241 - there
            assert_same(source, copy)


def test_turns_that_were_written_at_the_same_time_are_restored(empty: Store, tmp_path: Path) -> None:
    """Where appends take no lock, events of one turn stand between those of another: both are whole."""
    with turnlog.open("memory://") as source:
        for name in "ab":
            session = source.session(name)
            with session.turn():
                session.add_message("user", "1")
                session.add_message("user", "2")
        first, *events, end = lines_of(exported(source))
    a, b = events[:3], events[3:]
    mixed = [a[0], b[0], a[1], b[1], b[2], a[2]]
    for position, line in enumerate(mixed, 1):
        line["event"]["position"] = position
    report = restore_log(empty, packed([first, *mixed, end]))
    assert (report.restored, report.refused) == (6, ())
    assert empty.verify().ok
    (tmp_path / "log").write_bytes(packed([first, *mixed, end]).read())
    command = [sys.executable, str(ROOT / "scripts" / "verify_log.py"), str(tmp_path / "log")]
    assert subprocess.run(command, capture_output=True, check=False).stdout == b"ok: 2 sessions, 6 events\n"


def test_copying_from_the_shell(cli: Cli, filled: Store, sqlite_url: str, tmp_path: Path) -> None:
    """`turnlog copy FROM TO` makes the target, and says what is in both."""
    target = f"sqlite:///{tmp_path}/copy.db"
    with turnlog.open(sqlite_url, tenant="b") as beside:
        beside.session("theirs")
    assert cli("copy", sqlite_url, f"sqlite:///{tmp_path}/b.db", "--tenant", "b", "--json").json["sessions"] == 1
    done = cli("copy", sqlite_url, target)
    assert done.out == "11 events of 3 sessions and 3 keys are in both, up to position 11 of the source\n"
    assert cli("copy", sqlite_url, target, "--json").json["copied"] == 0
    filled.get("t").add_message("user", "more")
    cli("copy", sqlite_url, target)
    with turnlog.open(target) as copy:
        assert_same(filled, copy)
    assert "the same store" in cli("copy", target, target, code=2).err
    assert "there is no store" in cli("copy", f"{sqlite_url}x", target, code=2).err


def test_following_from_the_shell(filled: Store, sqlite_url: str, tmp_path: Path) -> None:
    """`turnlog copy --follow` copies what is written from then on, and ends well at SIGTERM."""
    target = f"sqlite:///{tmp_path}/copy.db"
    running = process("copy", sqlite_url, target, "--follow", "--json")
    with turnlog.open(target) as copy:
        wait_for(lambda: copy.position == 10)
        for n in (11, 12, 13):  # by the last of them both have been level: stopped before that, it is interrupted
            filled.get("t").add_message("user", "more", message_id=f"m-{n}")
            wait_for(partial(_is_at, copy, n))
            time.sleep(0.5)
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=60)
        assert (running.returncode, msgspec.json.decode(out)["copied"]) == (0, 13), err
        assert_same(filled, copy)


def _is_at(store: Store, position: int) -> bool:
    return store.position == position
