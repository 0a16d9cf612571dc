"""The tables on MariaDB: made once by many, names and contents byte by byte, events of any size, what is promised."""

import json
import logging
from collections.abc import Iterator

import pytest

from tests.faults.processes import together
from tests.servers import MariaDB, mariadbd_or_skip
from turnlog.adapters.connect import connect
from turnlog.adapters.mariadb import tables
from turnlog.adapters.mariadb.connection import run
from turnlog.adapters.mariadb.pool import Pool
from turnlog.domain.errors import InvalidInput, StoreError
from turnlog.domain.recorder import Batch, Recorder
from turnlog.testing.contracts.rows import batch, grow, key, write

S = "default/s"
ALIKE = ("s", "S", "s ", "s  ", "ß", "ss", "s\0", "\u017f", "é", "e\u0301", "\U0001f600", "\U0001f601")
"""Names that one collation or another takes for equal."""


@pytest.fixture
def recorder(mariadb_url: str) -> Iterator[Recorder]:
    """A recorder on an empty log."""
    made = connect(mariadb_url, durability="full", engine=None, options={}).recorder
    yield made
    made.close()


def begin(url: str, name: str) -> list[int]:
    """Open a log that may not be there yet, and write to it."""
    recorder = connect(url, durability="full", engine=None, options={}).recorder
    grow(recorder, f"default/{name}", 2)
    recorder.close()
    return [row[1] for row in recorder_of(url, name)]


def recorder_of(url: str, name: str) -> list[tuple[int, int, str, bytes]]:
    """Return what a new recorder reads of a session."""
    recorder = connect(url, durability="full", engine=None, options={"read_only": True}).recorder
    rows = recorder.select_stream(f"default/{name}")
    recorder.close()
    return rows


def test_many_processes_start_at_once(mariadb_url: str) -> None:
    """Whoever comes first makes the tables; nobody fails."""
    assert together(begin, *((mariadb_url, f"s{i}") for i in range(8))) == [[1, 2]] * 8


def test_a_newer_schema_is_refused(recorder: Recorder, mariadb_url: str) -> None:
    """Tables of a newer turnlog are left alone, and the error says so."""
    assert recorder.position() == 0
    with Pool(mariadb_url) as pool, pool.write() as connection:
        run(connection, "UPDATE turnlog_tracking SET notification_id = notification_id + 1")
    with pytest.raises(StoreError, match="schema 2, this turnlog knows 1"):
        connect(mariadb_url, durability="full", engine=None, options={})


def test_tables_that_are_missing_are_not_made_by_readers(mariadb_url: str) -> None:
    """Opened read-only, an empty database is an error."""
    with pytest.raises(StoreError, match="no tables"):
        connect(mariadb_url, durability="full", engine=None, options={"read_only": True})


@pytest.mark.parametrize("n", range(len(tables.MIGRATIONS[0]) + 1))
def test_half_made_tables_are_completed(mariadb_url: str, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """Who makes the tables may be killed between any two statements: the next one goes on."""
    with monkeypatch.context() as patch:
        patch.setattr(tables, "MIGRATIONS", ((*tables.MIGRATIONS[0][:n], "KILL CONNECTION_ID()"),))
        with pytest.raises(StoreError):
            connect(mariadb_url, durability="full", engine=None, options={})
    assert begin(mariadb_url, "s") == [1, 2]


def test_a_new_migration_runs_once(mariadb_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an upgrade adds is added to tables that are there, by whoever opens them first."""
    begin(mariadb_url, "s")
    added = ("CREATE TABLE IF NOT EXISTS added (i int)", "INSERT INTO added VALUES (1)")
    monkeypatch.setattr(tables, "MIGRATIONS", (*tables.MIGRATIONS, added))
    for _ in range(2):
        begin(mariadb_url, "t")
    with Pool(mariadb_url) as pool:
        assert pool.rows("SELECT i FROM added") == [(1,)]


def test_a_name_of_the_events_that_is_too_long(mariadb_url: str) -> None:
    """Two names are made from it, so it is refused before anything is made."""
    with pytest.raises(InvalidInput, match="59"):
        connect(mariadb_url, durability="full", engine=None, options={"names": {"events": "e" * 60}})


def test_names_differ_by_bytes(recorder: Recorder) -> None:
    """Case, accents, trailing blanks and how a character is composed make another session, and another key."""
    for n, name in enumerate(ALIKE, 1):
        keys = [key(each, 1) for each in ALIKE[:n]]
        write(recorder, Batch(f"default/{name}", [(1, name, name.encode())], keys))
    for n, name in enumerate(ALIKE, 1):
        assert recorder.select_stream(f"default/{name}") == [(n, 1, name, name.encode())]
        assert [one.key for one in recorder.select_all_keys(f"default/{name}")] == sorted(ALIKE[:n])
        assert recorder.select_log(limit=99, topics=[name]) == [(n, f"default/{name}", 1, name, name.encode())]
    assert recorder.streams(prefix="default/", limit=99) == sorted(f"default/{name}" for name in ALIKE)


def test_the_longest_names(recorder: Recorder) -> None:
    """A tenant, a session and a message of 255 characters each, of four bytes each, fit; so do two that end alike."""
    for last in "ab":
        long = "\U0001f600" * 254 + last
        stream = f"{long}/{long}"
        write(recorder, Batch(stream, [(1, "t", b"{}")], [key(long, 1)]))
        assert recorder.select_keys(stream, [("message", long)]) == [key(long, 1)]
        assert len(recorder.select_stream(stream)) == 1


def test_an_event_larger_than_the_server_takes(recorder: Recorder) -> None:
    """It is refused with the name of the setting, and nothing is written; what fits is, however much it is."""
    with pytest.raises(InvalidInput, match="max_allowed_packet"):
        write(recorder, batch("default/other", 1), Batch(S, [(1, "t", b"x" * (16 << 20))]))
    assert recorder.position() == 0
    state = b"'" + b"x" * (12 << 20)
    assert write(recorder, batch("default/other", 1), Batch(S, [(1, "t", state)])) == [1, 2]
    assert recorder.select_stream(S) == [(2, 1, "t", state)]
    several = [(n, "t", b"y" * (3 << 20)) for n in range(2, 10)]
    assert write(recorder, Batch(S, several)) == [10]
    assert [row[1:] for row in recorder.select_stream(S, after=1)] == several


def test_events_can_be_read_as_json(recorder: Recorder, mariadb_url: str) -> None:
    """A view shows header and content, also of what was said with awkward characters."""
    write(recorder, batch(S, 2, words="quote ' \" back \\ nul \0 \U0001f600"))
    with Pool(mariadb_url) as pool:
        rows = pool.rows("SELECT position, JSON_VALUE(header, '$.topic'), private FROM turnlog_events_json")
    assert [row[:2] for row in rows] == [(1, "SessionStarted.v1"), (2, "MessageAdded.v1")]
    assert json.loads(rows[1][2])["body"]["content"] == "quote ' \" back \\ nul \0 \U0001f600 2"


@pytest.mark.parametrize(
    ("settings", "promised"),
    [
        ({"innodb-flush-log-at-trx-commit": "1"}, "full"),
        ({"innodb-flush-log-at-trx-commit": "2"}, "normal"),
        ({"innodb-flush-log-at-trx-commit": "1", "log-bin": "bin", "sync-binlog": "1"}, "full"),
        ({"innodb-flush-log-at-trx-commit": "1", "log-bin": "bin", "sync-binlog": "0"}, "normal"),
    ],
)
def test_what_the_server_promises(settings: dict[str, str], promised: str, caplog: pytest.LogCaptureFixture) -> None:
    """Receipts say ``full`` only where the server syncs its logs at every commit; otherwise the log says why not."""
    with MariaDB(mariadbd_or_skip(), settings) as server:
        url = server.new_place()
        recorder = connect(url, durability="full", engine=None, options={}).recorder
        assert recorder.durability == promised
        warned = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert bool(warned) == (promised == "normal")
        assert connect(url, durability="normal", engine=None, options={}).recorder.durability == "normal"
        grow(recorder, S, 2)
        recorder.close()
