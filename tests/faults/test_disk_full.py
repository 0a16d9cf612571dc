"""No room left: a write fails as a whole and says so, readers go on, and when there is room again, so do writers.

A file size limit stands for a disk that is full at any chosen byte; a small file system shows the real thing.
"""

import resource
import shutil
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

import turnlog
from tests.faults.processes import alone
from turnlog.domain.errors import StoreUnavailable

BALLAST_BYTES = 5_000_000
TURN = 12
"""Events of a turn, some 60 kB in all."""


class Seen(NamedTuple):
    """What a child saw: errors of writes without room, and what was not as it must be."""

    errors: int
    wrong: list[str]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], check=False).returncode:
        pytest.skip("a file system can be mounted by root only; the tests with a file size limit have run")
    yield place
    subprocess.run([str(shutil.which("umount")), "-l", place], check=True)


def test_a_full_file_system_refuses_writes_and_nothing_else(small_disk: Path) -> None:
    """Until there is room appends raise StoreUnavailable; what was acknowledged is there, before and after."""
    seen: Seen = alone(_fill_disk, small_disk)
    assert seen.errors
    assert seen.wrong == []


def test_a_turn_is_written_whole_or_not_at_all_wherever_room_ends(tmp_path: Path) -> None:
    """With the limit at 40 places along a turn's bytes, it fails as a whole, and the next one succeeds."""
    seen: Seen = alone(_limit_turns, tmp_path / "store.db")
    assert seen.errors >= 15
    assert seen.wrong == []


def test_views_a_deletion_and_a_rebuild_without_room_leave_what_was(tmp_path: Path) -> None:
    """Catching up, erasing and rebuilding fail as a whole, and succeed with room; verify does not call it damage."""
    seen: Seen = alone(_limit_upkeep, tmp_path / "store.db")
    assert seen.errors >= 5
    assert seen.wrong == []


def _fill_disk(disk: Path) -> Seen:
    errors, acked, wrong = 0, list[str](), list[str]()
    ballast = disk / "ballast"
    with turnlog.open(f"sqlite:///{disk}/store.db") as store, turnlog.open(f"sqlite:///{disk}/store.db") as reader:
        session = store.session("s", user_id="alice")
        ballast.write_bytes(bytes(BALLAST_BYTES))
        for i in range(1_000):
            try:
                session.add_message("user", "x" * 20_000, message_id=f"{i}")
            except StoreUnavailable:
                errors += 1
                break
            acked.append(f"{i}")
        if [message.message_id for message in reader.get("s").history()] != acked:
            wrong.append("a reader of the full disk does not see what was acknowledged")
        ballast.unlink()
        session.add_message("user", "room again", message_id="room")
        acked.append("room")
        _check(store, {"s": acked}, wrong)
    with turnlog.open(f"sqlite:///{disk}/store.db") as store:
        _check(store, {"s": acked}, wrong)
    return Seen(errors, wrong)


def _limit_turns(path: Path) -> Seen:
    errors, wrong, acked = 0, list[str](), list[str]()
    with turnlog.open(f"sqlite:///{path}") as store, turnlog.open(f"sqlite:///{path}") as reader:
        session = store.session("s", user_id="alice")
        for i in range(40):
            said = [f"{i}-{n}" for n in range(TURN)]
            try:
                with _room(path, i * 2_000):
                    _turn(session, said)
                acked += said
            except StoreUnavailable:
                errors += 1
                if [message.message_id for message in reader.get("s").history()] != acked:
                    wrong.append(f"{i}: not what was acknowledged")
                _turn(session, said)
                acked += said
            if [message.message_id for message in session.history()] != acked:
                wrong.append(f"{i}: with room again, not what was acknowledged")
        _check(store, {"s": acked}, wrong)
    return Seen(errors, wrong)


def _limit_upkeep(path: Path) -> Seen:
    errors, wrong, expected = 0, list[str](), dict[str, list[str]]()
    with turnlog.open(f"sqlite:///{path}") as store:
        for i in range(15):  # few enough that the write-ahead log still grows
            expected[f"s-{i}"] = [f"{n}" for n in range(TURN)]
            _turn(store.session(f"s-{i}", user_id="alice"), expected[f"s-{i}"])
        for act in (store.catch_up, store.rebuild):
            for kilobytes in (0, 5, 50):
                with suppress(StoreUnavailable), _room(path, kilobytes * 1_000):
                    act()
                    errors -= 1
                errors += 1
            _check(store, expected, wrong)
        with suppress(StoreUnavailable), _limited(2 * 4096):
            wrong += [f"without room to check: {failure}" for failure in store.verify().failures]
            errors -= 1
        errors += 1
        for i, kilobytes in enumerate((0, 5, 50)):
            session = store.get(f"s-{i}")
            try:
                with _room(path, kilobytes * 1_000):
                    session.delete()
            except StoreUnavailable:
                errors += 1
                if len(store.get(f"s-{i}").history()) != TURN:
                    wrong.append(f"s-{i} was half deleted")
                session.delete()
            del expected[f"s-{i}"]
            _check(store, expected, wrong)
    return Seen(errors, wrong)


def _turn(session: turnlog.Session, message_ids: list[str]) -> None:
    with session.turn():
        for message_id in message_ids:
            session.add_message("user", "x" * 5_000, message_id=message_id)


@contextmanager
def _room(path: Path, size_bytes: int) -> Generator[None, None, None]:
    """Let no file of this process grow beyond so much more than the write-ahead log now is."""
    with _limited(Path(f"{path}-wal").stat().st_size + size_bytes):
        yield


@contextmanager
def _limited(size_bytes: int) -> Generator[None, None, None]:
    """Let no file of this process grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _check(store: turnlog.ConversationStore, expected: dict[str, list[str]], wrong: list[str]) -> None:
    """Note what is not as it must be: the messages of each session, the list of sessions, the proof."""
    for name, message_ids in expected.items():
        if [message.message_id for message in store.get(name).history()] != message_ids:
            wrong.append(f"{name}: not what was acknowledged")
    if {summary.session_id for summary in store.sessions(limit=1_000).items} != set(expected):
        wrong.append("not the sessions there are")
    wrong += [str(failure) for failure in store.verify().failures]
