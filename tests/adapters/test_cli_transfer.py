"""The commands import and export, and how commands end when their pipe or their user does."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

import turnlog
from tests.adapters.commands import DEADLINE_S, TALK, Cli, process, wait_for


def test_import_and_its_exit_codes(cli: Cli, tmp_path: Path) -> None:
    """Good lines are 0; a refused line or a mismatch is 1, named on the line; the store is made if it is not there."""
    good, bad, wrong = (tmp_path / name for name in ("good", "bad", "wrong"))
    good.write_text(TALK % 1 + TALK % 2, encoding="utf-8")
    bad.write_text(TALK % 3 + "{\n" + TALK % 4, encoding="utf-8")
    wrong.write_text((TALK % 1).replace("}\n", ', "final_state": {"message_count": 2}}\n'), encoding="utf-8")
    report = cli("import", good, "--json").json
    assert (report["ok"], report["conversations"]["imported"], report["restored"]) == (True, 2, [])
    done = cli("import", good, bad, code=1)
    assert f"{bad}, line 2: " in done.err
    assert "4 conversations from 2 files: 2 imported, 2 there already, 1 lines refused" in done.out
    done = cli("import", "--check", wrong, code=1)
    assert f"{wrong}, line 1, conversation c1: final_state.message_count is 1, expected 2" in done.out
    wrong.write_text(
        (TALK % 1).replace("}\n", ', "final_state": {"route": "", "data": {"a": "1"}}}\n'), encoding="utf-8"
    )
    out = cli("import", "--check", wrong, code=1).out
    assert 'final_state.route is null, expected ""' in out
    assert 'final_state.data is {}, expected {"a":"1"}' in out
    assert "checked 1 conversations: 1 mismatches" in done.out
    assert cli("import", "--check", wrong, "--json", code=1).json["conversations"]["mismatches"][0]["found"] == {}


def test_export_and_import_again(cli: Cli, filled: turnlog.ConversationStore, tmp_path: Path) -> None:
    """An export to a file, compressed or not, or to stdout imports into the same log; conversations beside it too."""
    plain, packed, copy = tmp_path / "log.jsonl", tmp_path / "log.jsonl.gz", f"sqlite:///{tmp_path}/copy.db"
    assert cli("export", plain, "--json").json["events"] == 10
    assert "exported 10 events of 2 sessions and 3 keys" in cli("export", packed).err
    assert cli("export").out.encode() == plain.read_bytes()
    talks = tmp_path / "talks"
    talks.write_text(TALK % 1, encoding="utf-8")
    done = cli("import", packed, talks, plain, "--store", copy, "--json").json
    restored = [(one["report"]["restored"], one["report"]["already_there"]) for one in done["restored"]]
    assert (restored, done["conversations"]["imported"]) == ([(10, 0), (0, 10)], 1)
    with turnlog.open(copy) as store:
        assert store.verify(heads=filled.heads()).ok
    assert "restored 0 of 10 events in 2 sessions, 10 were there already" in cli("import", plain, "--store", copy).out


def test_import_of_a_damaged_export(cli: Cli, filled: turnlog.ConversationStore, tmp_path: Path) -> None:
    """A cut export, or one that differs from what is there, is exit code 1, and said by name."""
    plain, copy = tmp_path / "log.jsonl", f"sqlite:///{tmp_path}/copy.db"
    cli("export", plain)
    whole = plain.read_bytes()
    plain.write_bytes(whole[:-20])
    done = cli("import", plain, "--store", copy, code=1)
    assert f"{plain}" in done.err
    plain.write_bytes(whole)
    with turnlog.open(copy) as store:
        store.session("s").add_message("user", "mine")
    assert "error: session 's', version 1: " in cli("import", plain, "--store", copy, code=1).err
    del filled


def test_import_from_standard_input(filled: turnlog.ConversationStore, sqlite_url: str, tmp_path: Path) -> None:
    """- reads conversations or an export from a pipe, told apart by the first line."""
    copy = f"sqlite:///{tmp_path}/copy.db"
    with process("export", "--store", sqlite_url) as writing:
        with process("import", "-", "--json", "--store", copy, stdin=writing.stdout) as reading:
            out, err = reading.communicate(timeout=DEADLINE_S)
        assert (reading.returncode, json.loads(out)["restored"][0]["report"]["restored"]) == (0, 10), err
    with process("import", "-", "--json", "--store", copy, stdin=subprocess.PIPE) as reading:
        out, err = reading.communicate(TALK % 7, timeout=DEADLINE_S)
    assert (reading.returncode, json.loads(out)["conversations"]["imported"]) == (0, 1), err
    with turnlog.open(copy) as store:
        assert store.exists("c7")
    del filled


def test_an_export_that_fails_leaves_no_file(cli: Cli, filled: turnlog.ConversationStore, tmp_path: Path) -> None:
    """A file of that name appears only whole: an old one stays, nothing half-written is left."""
    old = tmp_path / "log.jsonl"
    old.write_text("old", encoding="utf-8")
    files = {path.name for path in tmp_path.iterdir()}
    assert "no session 'none'" in cli("export", old, "--session", "none", code=1).err
    assert old.read_text(encoding="utf-8") == "old"
    assert {path.name for path in tmp_path.iterdir()} == files
    absent = tmp_path / "absent" / "log"
    assert cli("export", absent, code=1).err == f"turnlog: error: [Errno 2] No such file or directory: '{absent}'\n"
    assert cli("export", "--session", "none", code=1).out == ""
    del filled


def test_an_export_to_a_pipe_leaves_it_a_pipe(cli: Cli, filled: turnlog.ConversationStore, tmp_path: Path) -> None:
    """A name that is a pipe or a device is written to, never replaced by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["/bin/cat", str(pipe)], stdout=subprocess.PIPE) as reading:
        cli("export", pipe)
        out, _ = reading.communicate(timeout=DEADLINE_S)
    assert len(out.splitlines()) == filled.stats().events + 3 + 2
    assert pipe.is_fifo()


@pytest.mark.parametrize("command", ["export", "sessions", "heads"])
@pytest.mark.usefixtures("filled")
def test_a_full_disk_is_said(sqlite_url: str, command: str) -> None:
    """What could not be written is one line on stderr and exit code 1, not silence."""
    with Path("/dev/full").open("w") as full, process(command, "--store", sqlite_url, stdout=full) as writing:
        _, err = writing.communicate(timeout=DEADLINE_S)
    assert (writing.returncode, err.splitlines()[-1:]) == (1, ["turnlog: error: [Errno 28] No space left on device"])


def test_a_closed_pipe_is_quiet(sqlite_url: str) -> None:
    """`turnlog history s | head -1` shows one line and no error, however much there is."""
    with turnlog.open(sqlite_url) as store:
        store.session("s").add_messages([{"role": "user", "content": "x" * 1000}] * 3000)
    for form in ((), ("--json",)):
        with process("history", "s", *form, "--store", sqlite_url) as writing:
            assert writing.stdout is not None
            assert writing.stdout.readline()
            writing.stdout.close()
            assert writing.stderr is not None
            assert writing.stderr.read() == ""
            assert writing.wait(DEADLINE_S) == 0


def test_control_c_leaves_whole_conversations(sqlite_url: str) -> None:
    """Ctrl-C while an import waits for more is exit code 130; what was read is there, whole."""
    with turnlog.open(sqlite_url) as store:
        with process("import", "-", "--store", sqlite_url, stdin=subprocess.PIPE) as reading:
            assert reading.stdin is not None
            reading.stdin.write(TALK % 1 + TALK % 2)
            reading.stdin.flush()
            wait_for(lambda: store.position >= 4)
            reading.send_signal(signal.SIGINT)
            _, err = reading.communicate(timeout=DEADLINE_S)
        assert (reading.returncode, err) == (130, "turnlog: interrupted\n")
        assert [head.version for head in store.heads()] == [2, 2]
