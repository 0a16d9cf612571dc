"""Heads kept elsewhere find what no chain alone can show: a tail cut off, a session gone, an old backup, a new log."""

import gzip
import re
import shutil
import sqlite3
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

import turnlog

Store = turnlog.ConversationStore
Row = tuple[int, bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store: session a of 6 events, b of 3, one that was deleted, and the views."""
    path = tmp_path / "store.db"
    with turnlog.open(f"sqlite:///{path}") as store:
        a, b, gone = (store.session(name, user_id="alice") for name in ("a", "b", "gone"))
        for i in range(3):
            a.add_message("user", f"I will pay {i}")
        with a.turn():
            a.add_message("user", "and")
            a.add_message("assistant", "well")
        b.add_messages([{"role": "user", "content": "one"}, {"role": "user", "content": "two"}])
        gone.delete()
        store.catch_up()
    return path


@pytest.fixture
def heads(path: Path) -> list[turnlog.Head]:
    """The heads as they were before what the test does."""
    with _opened(path) as store:
        return list(store.heads())


def test_heads_from_before_still_hold_after_more_writing_and_erasing(path: Path, heads: list[turnlog.Head]) -> None:
    """A log that only grew verifies against old heads, an erased session too."""
    with _opened(path) as store:
        store.get("a").add_message("user", "more")
        store.get("b").delete()
        assert store.verify(heads=heads).ok


def test_a_receipt_is_such_a_head(path: Path) -> None:
    """The hash of a receipt, kept, finds that its event was cut off."""
    with _opened(path) as store:
        receipt = store.get("b").add_message("user", "last")
        assert receipt.version is not None
        assert receipt.hash is not None
        kept = turnlog.Head(session_id="b", version=receipt.version, hash=receipt.hash)
        assert store.verify(heads=[kept]).ok
    _execute(path, "DELETE FROM turnlog_events WHERE originator_id = 'default/b' AND originator_version = 4")
    assert _found(path, [kept]) == [("b", 4, "the log ends at version 3, but a head was kept at version 4")]


def test_a_tail_cut_off_is_found(path: Path, heads: list[turnlog.Head]) -> None:
    """Without its last turn a session still verifies by itself, but not against its head."""
    _execute(path, "DELETE FROM turnlog_events WHERE originator_id = 'default/a' AND originator_version > 4")
    assert _found(path, None) == []
    assert _found(path, heads) == [("a", 5, "the log ends at version 4, but a head was kept at version 6")]


def test_a_missing_session_is_found(path: Path, heads: list[turnlog.Head]) -> None:
    """A session removed with everything that is kept of it is missed."""
    _execute(path, "DELETE FROM turnlog_events WHERE originator_id = 'default/b'")
    assert _found(path, None) == []
    assert _found(path, heads) == [("b", 1, "the session is missing, but a head was kept at version 3")]


def test_a_missing_tombstone_is_found(path: Path, heads: list[turnlog.Head]) -> None:
    """A deleted session that was removed entirely is missed as well."""
    _execute(path, "DELETE FROM turnlog_events WHERE originator_id = 'default/gone'")
    assert _found(path, heads) == [("gone", 1, "the session is missing, but a head was kept at version 2")]


def test_an_old_backup_is_found(path: Path, tmp_path: Path) -> None:
    """A backup put back in place of the store verifies by itself; heads from after it was made say what is lost."""
    backup = tmp_path / "backup.db"
    shutil.copy(path, backup)
    with _opened(path) as store:
        store.get("a").add_message("user", "after the backup")
        store.session("c")
        heads = list(store.heads())
    shutil.copy(backup, path)
    assert _found(path, None) == []
    assert {(name, version) for name, version, _ in _found(path, heads)} == {("a", 7), ("c", 1)}


@pytest.mark.parametrize("first", [2, 6])
def test_a_recomputed_chain_is_found(path: Path, heads: list[turnlog.Head], first: int) -> None:
    """Events rewritten with every hash made right again verify by themselves, but not against the head."""
    _rewrite(path, "default/a", first)
    assert _found(path, None) == []
    reason = "the hash is not the one that was kept: the events up to here were rewritten"
    assert _found(path, heads) == [("a", 6, reason)]


def test_a_head_of_a_version_in_the_middle_finds_what_was_rewritten_before_it_only(path: Path) -> None:
    """The last version need not be known: any kept version proves what stands up to it, and no more."""
    with _opened(path) as store:
        kept = [turnlog.Head(session_id="a", version=e.version, hash=e.hash) for e in store.get("a").events()]
    _rewrite(path, "default/a", 4)
    for head in kept:
        assert bool(_found(path, [head])) == (head.version >= 4)


@pytest.mark.parametrize("packed", [False, True])
def test_every_head_of_a_file_that_was_appended_to_counts(path: Path, tmp_path: Path, packed: bool) -> None:
    """Heads kept every day in one file, zipped or not: the older ones find what was rewritten before a newer was."""
    with _opened(path) as store:
        events = list(store.get("a").events())
        heads = [turnlog.Head(session_id="a", version=e.version, hash=e.hash) for e in events]
    file = tmp_path / "heads.jsonl"
    assert _found(path, _written(file, heads, packed)) == []
    assert _found(path, _written(file, [*heads[::-1], *heads], packed)) == []
    _rewrite(path, "default/a", 4)
    with _opened(path) as store:
        newer = [turnlog.Head(session_id="a", version=e.version, hash=e.hash) for e in store.get("a").events()]
    reason = "the hash is not the one that was kept: the events up to here were rewritten"
    assert _found(path, _written(file, newer, packed)) == []
    assert _found(path, _written(file, [*heads, *newer], packed)) == [("a", 4, reason)]
    assert _found(path, _written(file, [heads[-1], *newer], packed)) == [("a", 6, reason)]


def test_a_session_of_which_several_heads_were_kept_is_missed_once(path: Path) -> None:
    """With the newest of its heads."""
    with _opened(path) as store:
        heads = [turnlog.Head(session_id="b", version=e.version, hash=e.hash) for e in store.get("b").events()]
    _execute(path, "DELETE FROM turnlog_events WHERE originator_id = 'default/b'")
    assert _found(path, heads) == [("b", 1, "the session is missing, but a head was kept at version 3")]


def test_a_cut_file_of_heads_is_refused(path: Path, tmp_path: Path, heads: list[turnlog.Head]) -> None:
    """It is said that it cannot be unpacked."""
    file = tmp_path / "heads.jsonl"
    _written(file, heads, packed=True)
    file.write_bytes(file.read_bytes()[:-12])
    with _opened(path) as store, pytest.raises(turnlog.InvalidInput, match="heads: cannot unpack"):
        store.verify(heads=file)


def _written(file: Path, heads: Sequence[turnlog.Head], packed: bool) -> Path:
    data = b"".join(msgspec.json.encode(head) + b"\n" for head in heads)
    file.write_bytes(gzip.compress(data) if packed else data)
    return file


def _opened(path: Path) -> Store:
    return turnlog.open(f"sqlite:///{path}")


def _found(path: Path, heads: Path | Sequence[turnlog.Head] | None) -> list[tuple[str | None, int | None, str]]:
    """Return what verify finds, once the views and caches were made to fit the log as a forger would."""
    _execute(
        path,
        "DELETE FROM turnlog_snapshots",
        "DELETE FROM turnlog_keys WHERE NOT EXISTS (SELECT 1 FROM turnlog_events e WHERE"
        " e.originator_id = turnlog_keys.originator_id AND e.originator_version = version)",
        "UPDATE turnlog_views SET position = 0, revision = 0",
    )
    with _opened(path) as store:
        store.rebuild()
        report = store.verify(heads=heads)
    assert report.ok == (not report.failures)
    return [(failure.session_id, failure.version, failure.reason) for failure in report.failures]


def _execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def _rewrite(path: Path, stream: str, first: int) -> None:
    """Change the content of version ``first``, and seal it and all that follow anew."""
    with closing(sqlite3.connect(path)) as connection, connection:
        select = "SELECT position, state FROM turnlog_events WHERE originator_id = ? AND originator_version >= ?"
        rows: list[Row] = connection.execute(f"{select} ORDER BY originator_version", (stream, first)).fetchall()
        sealed = list(_sealed(rows))
        assert [state for _, state in rows] != [state for state, _ in sealed]
        connection.executemany("UPDATE turnlog_events SET state = ? WHERE position = ?", sealed)


def _sealed(rows: Sequence[Row]) -> Iterator[tuple[bytes, int]]:
    """Yield the new bytes with their position. As docs/format.md says, and without a line of turnlog's own code."""
    previous = None
    for position, old in rows:
        state = old if previous else re.sub(rb'"content":"[^"]*"', b'"content":"never"', old, count=1)
        if previous:
            state = re.sub(rb'"previous":"[^"]+"', b'"previous":"%b"' % previous, state, count=1)
        private = state[state.index(b',"private":') + len(b',"private":') : -1]
        committed = _digest(b"turnlog.private.1\n", private)
        state = re.sub(rb'"commitment":"[^"]+"', b'"commitment":"%b"' % committed, state, count=1)
        header = state[len(b'{"header":') : state.index(b',"hash":"')]
        previous = _digest(b"turnlog.event.1\n", header)
        yield re.sub(rb'"hash":"[^"]+"', b'"hash":"%b"' % previous, state, count=1), position


def _digest(prefix: bytes, data: bytes) -> bytes:
    return b64encode(sha256(prefix + data).digest())
