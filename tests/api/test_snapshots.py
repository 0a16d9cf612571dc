"""Snapshots: a long session costs what a short one does; one that lies, or is damaged, is not believed."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

import turnlog
from turnlog import Backend, ConversationStore, Session
from turnlog.adapters.connect import connect
from turnlog.decider import Decider
from turnlog.domain.chain import row_seal
from turnlog.domain.mapper import Codec, StreamRow
from turnlog.domain.recorder import Batch, KeyRow, Recorder, SnapshotRow
from turnlog.domain.session import FOLD_REVISION, initial
from turnlog.ids import new_id, utc_now
from turnlog.writing import SessionWriter


class Counting:
    """A recorder that counts the rows it gives; everything is asked of the one inside."""

    def __init__(self, inside: Recorder) -> None:
        self._inside = inside
        self.rows = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inside, name)

    def select_stream(self, *args: Any, **kwargs: Any) -> list[StreamRow]:
        """Count what is read of a stream."""
        rows = self._inside.select_stream(*args, **kwargs)
        self.rows += len(rows)
        return rows

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Count what is read of keys."""
        found = self._inside.select_keys(stream, keys)
        self.rows += len(found)
        return found

    def append(self, batches: Sequence[Batch], again: Callable[[Any], Sequence[Batch]]) -> list[int]:
        """Append, and count what is read under the lock."""
        return self._inside.append(batches, lambda _: again(self))


def opened(backend: Backend, store: ConversationStore) -> tuple[Counting, Callable[[], Session]]:
    """Return a way to open the session "s-1" as the store does, and what counts the rows that costs."""
    counting = Counting(backend.recorder)
    recorder: Any = counting  # the rest of a recorder is found by __getattr__
    decider = Decider(recorder, Codec(), "default", utc_now, new_id, 1 << 20)
    return counting, lambda: Session(SessionWriter(decider, decider.load("s-1"), lambda _: None), store)


LONG = 20_000
FEW = 300


def test_opening_a_long_session_reads_few_rows(sqlite_url: str) -> None:
    """Opening, its last messages, adding to it, a repetition and a tool's return read a few hundred of 20,000 rows."""
    with turnlog.open(sqlite_url, durability="normal") as store:
        session = store.session("s-1")
        for _ in range(LONG // 10_000):
            session.add_messages([{"role": "user", "content": "hi"}] * 10_000)
        session.call_tool("find", {}, call_id="c-1")
        session.add_message("user", "last", message_id="m-1")
        backend = connect(sqlite_url, durability="normal", engine=None, options={})
        counting, opening = opened(backend, store)
        uses: dict[str, Callable[[Session], object]] = {
            "opening": lambda s: s.state,
            "adding": lambda s: s.add_message("user", "more"),
            "repeating": lambda s: s.add_message("user", "last", message_id="m-1"),
            "editing": lambda s: s.edit_message("m-1", "edited"),
            "returning": lambda s: s.return_tool("c-1", "found"),
            "popping": lambda s: s.pop_message(),
            "the last 50": lambda s: s.history(last=50),
            "the state now": lambda s: s.at(s.version),
            "a time": lambda s: s.at(time=utc_now()),
            "the last events": lambda s: list(s.events(last=5)),
            "doing nothing": lambda s: s.reopen(),
        }
        for name, use in uses.items():
            counting.rows = 0
            use(opening())
            assert 0 < counting.rows < FEW, (name, counting.rows)
        assert opening().state.message_count == LONG + 1
        backend.recorder.close()


@pytest.mark.parametrize("length", [99, 100, 101, 250])
def test_a_session_is_the_same_with_and_without_its_snapshot(sqlite_url: str, tmp_path: Path, length: int) -> None:
    """Throwing snapshots away changes nothing but the cost of opening."""
    with turnlog.open(sqlite_url, durability="normal") as store:
        session = store.session("s-1", user_id="alice", data={"x": [1.0, 2**70, None]})
        for n in range(length):
            if n % 3:
                session.collect({f"k{n % 5}": {"n": n}})
            else:
                session.enter_route(f"route-{n}")
        state = session.state
        assert store.get("s-1").state == state
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as db:
        assert db.execute("SELECT count(*) FROM turnlog_snapshots").fetchone() == (int(length >= 99),)
        db.execute("DELETE FROM turnlog_snapshots")
        db.commit()
    with turnlog.open(sqlite_url) as store:
        assert repr(store.get("s-1").state) == repr(state)


LIES: Mapping[str, dict[str, Any]] = {
    "another revision": {"revision": FOLD_REVISION + 1},
    "an older revision": {"revision": FOLD_REVISION - 1},
    "another hash": {"hash": b"x" * 32},
    "a version that is not there": {"version": 10_000},
    "another version": {"version": 150},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_snapshot_that_does_not_fit_is_ignored(sqlite_url: str, lie: str) -> None:
    """One of another revision of the fold, or that does not match the log, is as good as none."""
    with turnlog.open(sqlite_url, durability="normal") as store:
        session = store.session("s-1", user_id="alice")
        for n in range(220):
            session.collect(n=n)
        right = session.state
        backend = connect(sqlite_url, durability="normal", engine=None, options={})
        found = backend.recorder.select_snapshot("default/s-1")
        assert found is not None
        wrong = msgspec.json.encode(initial("default", "s-1"))
        lying = found._replace(state=wrong, **LIES[lie])
        backend.recorder.append((Batch("default/s-1", (), snapshot=lying),), lambda _: ())
        backend.recorder.close()
        assert store.get("s-1").state == right
        assert store.get("s-1").at(210).data == {"n": 208}


@pytest.mark.parametrize("column", ["version", "revision", "hash", "state", "seal"])
def test_a_damaged_snapshot_is_ignored(sqlite_url: str, tmp_path: Path, column: str) -> None:
    """A row that does not match its checksum is not believed; the next snapshot takes its place."""
    with turnlog.open(sqlite_url, durability="normal") as store:
        session = store.session("s-1", user_id="alice")
        for n in range(120):
            session.collect(n=n)
        right = session.state
        with closing(sqlite3.connect(tmp_path / "sessions.db")) as db:
            (version, state) = db.execute("SELECT version, state FROM turnlog_snapshots").fetchone()
            assert version == 100
            damage: dict[str, object] = {"version": 99, "revision": 2, "hash": b"", "seal": b"x" * 16}
            damage["state"] = state.replace(b"alice", b"mally")
            db.execute(f"UPDATE turnlog_snapshots SET {column} = ?", (damage[column],))
            db.commit()
        assert store.get("s-1").state == right
        for n in range(100):
            session.collect(m=n)
        assert store.get("s-1").state == session.state
        assert store.verify().ok


def test_the_seal_of_a_snapshot_is_over_all_of_it() -> None:
    """Snapshots of other sessions, versions or revisions do not have the same checksum."""
    row = SnapshotRow(1, 1, b"h", b"s")
    others = [row._replace(version=2), row._replace(revision=2), row._replace(hash=b"hs", state=b"")]
    seals = {row_seal("b", *row), *(row_seal("a", *one) for one in [row, *others])}
    assert len(seals) == 5
