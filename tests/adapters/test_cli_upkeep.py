"""The commands for proof, upkeep and erasing: verify, heads, rebuild, doctor, delete, erase, scrub."""

import gzip
import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import turnlog
from tests.adapters.commands import DEADLINE_S, Cli, process
from turnlog.adapters.cli.findings import Finding
from turnlog.adapters.cli.sqlite_checks import file_system_of, on_file_system, synced_in, wal_reset_bug


def test_verify_and_heads(cli: Cli, filled: turnlog.ConversationStore, tmp_path: Path) -> None:
    """`verify` is green on a good log; against heads kept elsewhere it finds a session that is missing."""
    heads = tmp_path / "heads"
    heads.write_text(cli("heads").out, encoding="utf-8")
    assert [head["session_id"] for head in cli("heads", "--json").lines] == ["s", "t"]
    good: dict[str, object] = {"ok": True, "sessions": 2, "events": 10, "failures": []}
    assert cli("verify", "--json").json == good
    compared = {"heads": 2, "sessions_without_head": 0}
    assert cli("verify", "--heads", heads, "--json").json == {**good, **compared}
    assert cli("verify", "s").out == "all is well: 1 sessions, 8 events\n"
    lost = {"session_id": "lost", "version": 3, "hash": filled.get("s").add_message("user", "x").hash}
    heads.write_text(json.dumps(lost) + "\n", encoding="utf-8")
    bad = cli("verify", "--heads", heads, code=1)
    assert "session 'lost'" in bad.out
    assert "FAILED, 1 failures" in bad.out
    heads.write_text("{}\n", encoding="utf-8")
    assert f"{heads}, line 1: is not a head" in cli("verify", "--heads", heads, code=1).err


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_heads_may_be_compressed_piped_and_end_in_blank_lines(
    cli: Cli, sqlite_url: str, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    """They are as docs/format.md says, from a file or standard input, and what was compared is said."""
    first = cli("heads").out.splitlines(keepends=True)[0]
    (tmp_path / "heads").write_bytes(compress(f"{first}\n \n".encode()))
    words = "all is well: 2 sessions, 10 events, 1 heads; 1 sessions have none\n"
    assert cli("verify", "--heads", tmp_path / "heads").out == words
    assert cli("verify", "t", "--heads", tmp_path / "heads").out.endswith("0 heads; 1 sessions have none\n")
    with (
        (tmp_path / "heads").open() as piped,
        process("verify", "--heads", "-", "--store", sqlite_url, stdin=piped) as at,
    ):
        assert at.communicate(timeout=DEADLINE_S) == (words, "")
    (tmp_path / "heads").write_bytes(compress(first.replace("{", '{"more": 1, ').encode()))
    assert "more" in cli("verify", "--heads", tmp_path / "heads", code=1).err


def test_verify_names_a_changed_event(cli: Cli, filled: turnlog.ConversationStore, tmp_path: Path) -> None:
    """A word changed in the stored bytes is found, by session and version, and the exit code is 1."""
    filled.close()
    with sqlite3.connect(tmp_path / "sessions.db") as connection:
        connection.execute(
            "UPDATE turnlog_events SET state = CAST(replace(CAST(state AS TEXT), 'Gladly', 'Sadly!') AS BLOB)"
        )
    connection.close()
    (failure,) = cli("verify", "--json", code=1).json["failures"]
    assert (failure["session_id"], failure["version"]) == ("s", 6)
    assert "session 's', version 6" in cli("verify", code=1).out


@pytest.mark.usefixtures("filled")
def test_rebuild_all_or_one(cli: Cli) -> None:
    """`rebuild` makes the views again and says how far they are."""
    assert [view["name"] for view in cli("rebuild", "session_index", "--json").json] == ["session_index"]
    assert {view["position"] for view in cli("rebuild", "--json").json} == {10}


@pytest.mark.usefixtures("filled")
def test_doctor_says_what_is_under_the_store(cli: Cli, tmp_path: Path) -> None:
    """`doctor` names library, hazard, journal, durability, sync time, lock, file system, space, log and integrity."""
    diagnosis = cli("doctor", "--json").json
    found = {finding["name"]: finding for finding in diagnosis["findings"]}
    assert diagnosis["ok"]
    assert {
        "turnlog",
        "SQLite",
        "WAL-reset bug",
        "journal mode",
        "durability",
        "file system",
        "one synced write",
        "lock file",
        "free disk space",
        "write-ahead log",
        "free space in the file",
        "integrity",
        "view session_index",
    } <= set(found)
    assert found["journal mode"]["found"] == "wal"
    assert found["durability"]["found"].startswith("full (synchronous=FULL)")
    assert found["integrity"]["found"] == "ok"
    assert re.match(r"[0-9.]+ ms \(median of 9\)", found["one synced write"]["found"])
    assert not [path for path in tmp_path.iterdir() if "doctor" in path.name]


def test_doctor_knows_network_file_systems(tmp_path: Path) -> None:
    """The file system is that of the deepest mount above the file, blanks in its name and all."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"20 1 0:1 / / rw - ext4 /dev/root rw\n21 20 0:2 / {tmp_path} rw shared:1 - nfs4 host:/x rw\n"
        f"22 21 0:3 / {tmp_path}/a\\040b rw - tmpfs none rw\n",
        encoding="utf-8",
    )
    assert file_system_of(str(tmp_path / "x.db"), mounts) == "nfs4"
    assert file_system_of(str(tmp_path / "a b" / "x.db"), mounts) == "tmpfs"
    assert file_system_of("/x.db", mounts) == "ext4"
    assert file_system_of("/x.db", tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (on_file_system("ext4"), "ok"),
        (on_file_system(None), "ok"),
        (on_file_system("tmpfs"), "warning"),
        (on_file_system("nfs4"), "bad"),
        (on_file_system("fuse.sshfs"), "bad"),
        (synced_in(0.004), "ok"),
        (synced_in(0.000_002), "warning"),
        (wal_reset_bug((3, 51, 2)), "warning"),
        (wal_reset_bug((3, 51, 3)), "ok"),
        (wal_reset_bug((3, 44, 5)), "warning"),
        (wal_reset_bug((3, 44, 6)), "ok"),
        (wal_reset_bug((3, 50, 7)), "ok"),
        (wal_reset_bug((3, 45, 9)), "warning"),
        (wal_reset_bug((4, 0, 0)), "ok"),
    ],
)
def test_doctor_judges(finding: Finding, level: str) -> None:
    """Network file systems are bad; memory, a sync that is none, and a SQLite with the WAL-reset bug are warnings."""
    assert finding.level == level


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("name", ["file", "directory"])
def test_doctor_says_what_cannot_be_written_to(
    cli: Cli, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file or directory that is read-only is bad, and named."""
    place = {"file": tmp_path / "sessions.db", "directory": tmp_path}[name]

    def access(path: Path, _mode: int) -> bool:  # to root nothing is read-only
        return path != place

    monkeypatch.setattr(os, "access", access)
    diagnosis = cli("doctor", "--json", code=1).json
    (found,) = [finding["found"] for finding in diagnosis["findings"] if finding["name"] == name]
    assert found.startswith(f"{place} is read-only")


def test_doctor_of_a_store_in_memory(cli: Cli) -> None:
    """What is in memory ends with the process, and `doctor` says so."""
    (_, durability) = cli("doctor", "--store", "memory://", "--json").json["findings"]
    assert (durability["level"], durability["name"]) == ("warning", "durability")


def test_doctor_finds_a_damaged_file(cli: Cli, filled: turnlog.ConversationStore, tmp_path: Path) -> None:
    """A damaged page is `bad`, or the store does not open at all: exit code 1 either way."""
    for i in range(200):
        filled.session(f"more{i}").add_message("user", "x" * 500)
    filled.close()
    path = tmp_path / "sessions.db"
    content = bytearray(path.read_bytes())
    for page in range(4, len(content) // 4096 - 1, 3):
        content[page * 4096 : page * 4096 + 100] = bytes(range(100))
    path.write_bytes(content)
    done = cli("doctor", code=1)
    assert "bad" in done.out or "error" in done.err


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("yes\n", 0), ("\n", 1), ("n\n", 1), ("", 1)])
@pytest.mark.parametrize("command", [("delete", "s"), ("erase", "--user", "alice")], ids=" ".join)
def test_erasing_asks_first(
    filled: turnlog.ConversationStore, sqlite_url: str, command: tuple[str, ...], answer: str, code: int
) -> None:
    """Only y or yes erases; anything else, or nothing at all, changes nothing and is exit code 1."""
    with process(*command, "--store", sqlite_url, stdin=subprocess.PIPE) as asking:
        _, err = asking.communicate(answer, timeout=DEADLINE_S)
    assert asking.returncode == code
    assert "for ever? [y/N]" in err
    assert filled.exists("s") == (code == 1)


def test_what_is_pending_is_said_in_the_words_of_the_shell(cli: Cli, filled: turnlog.ConversationStore) -> None:
    """`delete` names the command that finishes, not the method."""
    err = cli("delete", "s", "--yes").err
    assert "until `turnlog scrub`" in err
    assert "()" not in err
    del filled


def test_delete_erase_and_scrub(cli: Cli, filled: turnlog.ConversationStore, tmp_path: Path) -> None:
    """--yes does not ask; afterwards the session is gone, and after `scrub` no byte of it is in the file."""
    receipt = cli("delete", "s", "--yes", "--json").json
    assert (receipt["session_id"], receipt["version"]) == ("s", 9)
    assert cli("show", "s", code=1).err.startswith("turnlog: error: session 's' was deleted")
    assert cli("erase", "--user", "bob", "--yes", "--json").json["sessions"] == 1
    assert cli("erase", "--user", "bob", "--yes").out.startswith("erased 0 sessions of user bob")
    filled.close()
    assert cli("scrub", "--json").json == {"complete": True, "pending": []}
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not [word for word in (b"A table for two", b"Gladly", b"Hello?", b"concierge") if word in content]
    assert "store." not in cli("scrub", "--no-vacuum", code=1).err
    assert cli("verify").out.startswith("all is well: 2 sessions")
