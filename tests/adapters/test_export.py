"""Exporting the log and restoring it: the same log again, also of a part, through a pipe, while others write."""

import gzip
import io
import os
import subprocess
import sys
import threading
from base64 import b64decode
from pathlib import Path

import pytest

import turnlog
from tests.adapters.commands import ROOT
from tests.adapters.exports import Store, exported, lines_of, without_positions
from turnlog.adapters.transfer.export import export_log
from turnlog.adapters.transfer.restore import restore_log


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


def test_a_key_of_what_changed_nothing_is_as_documented(store: Store, empty: Store, tmp_path: Path) -> None:
    """A zero byte follows the 16 of its fingerprint, its version is the last event's then; it restores and verifies."""
    session = store.session("s")
    session.collect({"a": 1}, command_id="first")
    session.collect({"a": 1}, command_id="again")
    (tmp_path / "log").write_bytes(exported(store))
    keys = {key["key"]: key for line in lines_of(exported(store)) if (key := line.get("key"))}
    first, again = (b64decode(keys[name]["fingerprint"]) for name in ("first", "again"))
    assert (len(first), len(again), again[16:], keys["again"]["version"]) == (16, 17, b"\0", 2)
    restore_log(empty, io.BytesIO(exported(store)))
    assert without_positions(exported(empty)) == without_positions(exported(store))
    command = [sys.executable, str(ROOT / "scripts" / "verify_log.py"), str(tmp_path / "log")]
    assert subprocess.run(command, capture_output=True, check=False).stdout == b"ok: 1 sessions, 2 events\n"


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
