"""The command line: every command, its two forms, its exit codes."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest
import typer

import turnlog
from turnlog.adapters.cli.app import COMMANDS, run
from turnlog.adapters.cli.moments import moment_of, past_of
from turnlog.adapters.cli.output import shown
from turnlog.adapters.cli.sqlite_checks import file_system_of

ROOT = Path(__file__).resolve().parent.parent.parent
DEADLINE_S = 60


class Done(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document that was printed."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The documents that were printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Done]


@pytest.fixture
def cli(sqlite_url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command on the test's store, in this process; ``good`` of its exit code unless another is expected."""
    monkeypatch.setenv("TURNLOG_STORE", sqlite_url)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object, code: int = 0) -> Done:
        capfd.readouterr()
        found = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        done = Done(found, captured.out, captured.err)
        assert done.code == code, done
        return done

    return call


@pytest.fixture
def filled(sqlite_url: str) -> Iterator[turnlog.ConversationStore]:
    """A store with two sessions: ``s`` of alice (8 events), and ``t`` of bob."""
    with turnlog.open(sqlite_url) as store:
        session = store.session("s", user_id="alice", agent="concierge", metadata={"k": 1})
        session.add_message("user", "A table for two, please", message_id="m-1", actor="web")
        session.enter_route("booking", title="Book")
        session.enter_step("size")
        session.collect(size=2)
        session.add_message("assistant", "Gladly", message_id="m-2")
        session.discard("size")
        session.add_message("user", None, message_id="m-3", tool_calls=[{"id": "c", "name": "find"}])
        store.session("t", user_id="bob").add_message("user", "Hello?")
        yield store


def process(*arguments: object, stdin: int | IO[str] | None = None) -> "subprocess.Popen[str]":
    """Start a command as a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "turnlog", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=stdin, stdout=pipe, stderr=pipe, text=True)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"


# --- what holds for all -----------------------------------------------------------------------------------------------

EXAMPLES: dict[str, tuple[object, ...]] = {
    "import": (os.devnull,),
    "export": ("log.jsonl",),
    "sessions": (),
    "show": ("s",),
    "history": ("s",),
    "replay": ("s",),
    "diff": ("s", 1, 3),
    "fork": ("s",),
    "users": (),
    "stats": (),
    "verify": (),
    "heads": (),
    "rebuild": (),
    "delete": ("s", "--yes"),
    "erase": ("--user", "alice", "--yes"),
    "scrub": (),
    "doctor": (),
}
OF_A_SESSION = ("verify", "show", "history", "replay", "diff", "fork", "delete")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_an_example_in_the_documentation(cli: Cli, command: str) -> None:
    """--help explains the command and every option of it, and docs/cli.md shows it at work."""
    text = cli(command, "--help").out
    options = re.findall(r"--[a-z][a-z-]+", text)
    assert {"--store", "--tenant", "--json"} <= set(options)
    pages = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert re.search(rf"^\$ turnlog {command}\b", pages, re.MULTILINE)
    assert f"**`{command}`**" in pages
    own = set(options) - {"--store", "--tenant", "--help", "--json", "--yes", "--no-vacuum", "--vacuum"}
    assert [option for option in own if f"`{option}" not in pages and f"{option} " not in pages] == []


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_prints_for_people_and_for_programs(
    cli: Cli, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --json there are words; with it, JSON and nothing else on stdout. Nothing but words is on stderr."""
    monkeypatch.chdir(tmp_path)
    done = cli(command, *EXAMPLES[command], "--json") if command not in ("delete", "erase") else None
    for line in (done.out if done else "").splitlines():
        json.loads(line)
    assert done is None or done.out
    words = cli(command, *EXAMPLES[command])
    assert words.out or words.err
    assert "Traceback" not in words.err


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("command", OF_A_SESSION)
def test_a_session_that_is_not_there(cli: Cli, command: str) -> None:
    """Is one clear line on stderr and exit code 1."""
    _, *rest = EXAMPLES[command] or ("s",)
    done = cli(command, "none", *rest, code=1)
    assert (done.out, done.err) == ("", "turnlog: error: no session 'none'\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_store_it_says_how_to_name_one(cli: Cli, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No --store and no TURNLOG_STORE: exit code 2."""
    monkeypatch.delenv("TURNLOG_STORE")
    assert "TURNLOG_STORE" in cli(command, *EXAMPLES[command], code=2).err


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "import"])
def test_a_store_that_is_not_there_is_not_made(cli: Cli, command: str, tmp_path: Path) -> None:
    """A mistyped name is exit code 2, and leaves no file behind."""
    assert "there is no store" in cli(command, *EXAMPLES[command], code=2).err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dance",),
        ("show",),
        ("show", "s", "--at", "yesterday"),
        ("show", "s", "--at", "2026-01-01T00:00:00"),
        ("show", "s", "--at", "99"),
        ("sessions", "--status", "odd"),
        ("sessions", "--limit", "0"),
        ("sessions", "--cursor", "odd"),
        ("sessions", "--older-than", "7x"),
        ("sessions", "--newer-than", "2026-01-01"),
        ("history", "s", "--before", "none"),
        ("history", "s", "--last", "-1"),
        ("diff", "s", "1"),
        ("diff", "s", "1", "99"),
        ("fork", "s", "--id", ""),
        ("rebuild", "none"),
        ("verify", "--heads", "none"),
        ("import", "none"),
        ("export", "--json"),
        ("erase",),
        ("stats", "--store", "odd://x"),
        ("stats", "--tenant", "a/b"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("filled")
def test_what_is_not_understood(cli: Cli, arguments: tuple[str, ...]) -> None:
    """Is exit code 2, with words on stderr and no traceback."""
    done = cli(*arguments, code=2)
    assert done.err or not arguments
    assert "Traceback" not in done.err


def test_no_password_is_shown(cli: Cli) -> None:
    """An error never repeats the password of a store's URL."""
    done = cli("stats", "--store", "postgresql://ann:s3cret@nowhere/x", code=2)
    assert "s3cret" not in done.err + done.out


def test_the_version(cli: Cli) -> None:
    """--version prints one line."""
    assert len(cli("--version").out.splitlines()) == 1


# --- look -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), ["t", "s"]),
        (("--user", "alice"), ["s"]),
        (("--agent", "concierge"), ["s"]),
        (("--status", "active"), ["t", "s"]),
        (("--status", "completed"), []),
        (("--route", "booking"), ["s"]),
        (("--newer-than", "1h"), ["t", "s"]),
        (("--older-than", "1h"), []),
        (("--older-than", "2999-01-01T00:00:00+01:00"), ["t", "s"]),
        (("--newer-than", "2999-01-01T00:00:00Z"), []),
    ],
)
@pytest.mark.usefixtures("filled")
def test_sessions_filters(cli: Cli, filters: tuple[str, ...], expected: list[str]) -> None:
    """Every filter of `sessions` is applied, in both forms."""
    assert [item["session_id"] for item in cli("sessions", *filters, "--json").json["items"]] == expected
    header, *rows = cli("sessions", *filters).out.splitlines()
    assert header.split()[:2] == ["SESSION", "USER"]
    assert [row.split()[0] for row in rows] == expected


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(("command", "key"), [("sessions", "session_id"), ("users", "user_id")])
def test_pages(cli: Cli, command: str, key: str) -> None:
    """--limit and --cursor walk through everything, and without --json stderr says how to go on."""
    first = cli(command, "--limit", 1, "--json").json
    second = cli(command, "--limit", 1, "--cursor", first["next_cursor"], "--json").json
    assert {page["items"][0][key] for page in (first, second)} in ({"s", "t"}, {"alice", "bob"})
    assert second["next_cursor"] is None
    assert f"--cursor {first['next_cursor']}" in cli(command, "--limit", 1).err


def test_show_and_its_past(cli: Cli, filled: turnlog.ConversationStore) -> None:
    """`show` prints the state, now or as it was at a version or time."""
    now = cli("show", "s", "--json").json
    assert (now["version"], now["data"], now["current_step"], now["metadata"]) == (8, {}, "size", {"k": 1})
    past = cli("show", "s", "--at", 5, "--json").json
    assert (past["version"], past["data"]) == (5, {"size": 2})
    started = next(iter(filled.get("s").events())).recorded_at
    assert cli("show", "s", "--at", (started - timedelta(days=1)).isoformat(), "--json").json["version"] == 0
    assert re.search(r"current route +booking\n", cli("show", "s").out)


@pytest.mark.usefixtures("filled")
def test_history_and_its_windows(cli: Cli, filled: turnlog.ConversationStore) -> None:
    """`history` prints messages, one line each with --json, cut by --last, --before, --at and --include-removed."""

    def ids(*options: object) -> list[str]:
        return [message["message_id"] for message in cli("history", "s", *options, "--json").lines]

    assert ids() == ["m-1", "m-2", "m-3"]
    assert ids("--last", 1) == ["m-3"]
    assert ids("--before", "m-2") == ["m-1"]
    assert ids("--at", 6) == ["m-1", "m-2"]
    filled.get("s").remove_message("m-1")
    assert ids() == ["m-2", "m-3"]
    assert ids("--include-removed") == ["m-1", "m-2", "m-3"]
    assert cli("history", "s").out.splitlines()[1] == "  Gladly"


def test_control_characters_are_shown_not_obeyed(cli: Cli, sqlite_url: str) -> None:
    """What people said cannot move the cursor, colour the screen or turn its direction."""
    with turnlog.open(sqlite_url) as store:
        store.session("s").add_message("user", "\x1b[31mred\x07 \u202eleft\x00[bold]\n\ttab 🙂")
    out = cli("history", "s").out
    assert "\\x1b[31mred\\x07 \\u202eleft\\x00[bold]" in out
    assert "\n  \ttab 🙂\n" in out
    assert shown("a\rb") == "a\\rb"


@pytest.mark.usefixtures("filled")
def test_stats_and_users(cli: Cli) -> None:
    """`stats` and `users` count."""
    counts = cli("stats", "--json").json
    assert (counts["sessions"], counts["events"], counts["messages"], counts["users"]) == (2, 10, 4, 2)
    assert {view["name"] for view in counts["views"]} == {"session_index", "message_index"}
    users = {user["user_id"]: (user["sessions"], user["messages"]) for user in cli("users", "--json").json["items"]}
    assert users == {"alice": (1, 3), "bob": (1, 1)}


def test_tenants_are_apart(cli: Cli, sqlite_url: str) -> None:
    """--tenant chooses whose sessions."""
    with turnlog.open(sqlite_url, tenant="blue") as store:
        store.session("b")
    assert cli("sessions", "--json").json["items"] == []
    assert [item["session_id"] for item in cli("sessions", "--tenant", "blue", "--json").json["items"]] == ["b"]


# --- the past ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("filled")
def test_replay_shows_each_event_with_its_change(cli: Cli) -> None:
    """With --json a line holds the event and the changes; --to stops after that version."""
    steps = cli("replay", "s", "--json").lines
    assert [step["event"]["version"] for step in steps] == list(range(1, 9))
    assert steps[1]["event"]["actor"] == "web"
    assert {"path": "data.size", "kind": "added", "before": None, "after": 2} in steps[4]["changes"]
    assert {"path": "data.size", "kind": "removed", "before": 2, "after": None} in steps[6]["changes"]
    assert len(cli("replay", "s", "--to", 3, "--json").lines) == 3
    out = cli("replay", "s").out
    assert "+ data.size: 2" in out
    assert "- data.size: 2" in out
    assert "~ current_route: nothing → booking" in out
    assert "content: A table for two, please" in out


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(("keys", "versions"), [("\n" * 3, 4), ("\nq\n", 2), ("", 1), ("\n" * 99, 8)])
def test_replay_waits_for_enter(sqlite_url: str, keys: str, versions: int) -> None:
    """--step goes on with each line it reads; q or the end of the input ends it."""
    with process("replay", "s", "--step", "--json", "--store", sqlite_url, stdin=subprocess.PIPE) as waiting:
        out, err = waiting.communicate(keys, timeout=DEADLINE_S)
    assert (waiting.returncode, err) == (0, "")
    assert len(out.splitlines()) == versions


@pytest.mark.usefixtures("filled")
def test_replay_waits_at_a_terminal(sqlite_url: str) -> None:
    """At a terminal nothing is shown before Enter is pressed, and the prompt is on stderr."""
    ours, theirs = pty.openpty()
    with process("replay", "s", "--step", "--json", "--store", sqlite_url, stdin=theirs) as waiting:
        assert waiting.stdout is not None
        assert waiting.stderr is not None
        for version in (1, 2):
            assert json.loads(waiting.stdout.readline())["event"]["version"] == version
            assert waiting.stderr.read(len("Enter: next event; q: end ")) == "Enter: next event; q: end "
            os.write(ours, b"\n" if version == 1 else b"q\n")
        assert waiting.wait(DEADLINE_S) == 0
        assert waiting.stdout.read() == ""
    os.close(ours)
    os.close(theirs)


@pytest.mark.usefixtures("filled")
def test_diff_between_versions(cli: Cli) -> None:
    """`diff` names what was added, removed and changed."""
    changes = {change["path"]: change["kind"] for change in cli("diff", "s", 4, 6, "--json").json["changes"]}
    assert changes["data.size"] == "added"
    assert changes["message_count"] == "changed"
    assert "+ data.size: 2" in cli("diff", "s", 4, 6).out


def test_fork_prints_the_new_id(cli: Cli, filled: turnlog.ConversationStore) -> None:
    """`fork` makes a session of the past of another, under an id that is made or chosen."""
    made = cli("fork", "s").out.strip()
    assert filled.get(made).state.message_count == 3
    forked = cli("fork", "s", "--at", 2, "--id", "again", "--json").json
    assert forked == {"session_id": "again", "version": 2, "forked_from": {"session_id": "s", "version": 2}}
    assert "'again'" in cli("fork", "s", "--id", "again", code=2).err


# --- proof and upkeep -------------------------------------------------------------------------------------------------


def test_verify_and_heads(cli: Cli, filled: turnlog.ConversationStore, tmp_path: Path) -> None:
    """`verify` is green on a good log; against heads kept elsewhere it finds a session that is missing."""
    heads = tmp_path / "heads"
    heads.write_text(cli("heads").out, encoding="utf-8")
    assert [head["session_id"] for head in cli("heads", "--json").lines] == ["s", "t"]
    assert cli("verify", "--heads", heads, "--json").json == {"ok": True, "sessions": 2, "events": 10, "failures": []}
    assert cli("verify", "s").out == "all is well: 1 sessions, 8 events\n"
    lost = {"session_id": "lost", "version": 3, "hash": filled.get("s").add_message("user", "x").hash}
    heads.write_text(json.dumps(lost) + "\n", encoding="utf-8")
    bad = cli("verify", "--heads", heads, code=1)
    assert "session 'lost'" in bad.out
    assert "FAILED, 1 failures" in bad.out
    heads.write_text("{}\n", encoding="utf-8")
    assert "heads" in cli("verify", "--heads", heads, code=2).err


def test_verify_names_a_changed_event(cli: Cli, filled: turnlog.ConversationStore, tmp_path: Path) -> None:
    """A word changed in the stored bytes is found, by session and version, and the exit code is 1."""
    import sqlite3

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


# --- erasing ----------------------------------------------------------------------------------------------------------


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
    assert cli("scrub", "--no-vacuum", code=1).err
    assert cli("verify").out.startswith("all is well: 2 sessions")


# --- in and out -------------------------------------------------------------------------------------------------------

TALK = '{"conversation_id": "c%d", "events": [{"type": "message", "role": "user", "content": "hi"}]}\n'


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
    assert "checked 1 conversations: 1 mismatches" in done.out
    assert cli("import", "--check", wrong, "--json", code=1).json["conversations"]["mismatches"][0]["found"] == 1


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
    assert cli("export", tmp_path / "absent" / "log", code=1).err
    del filled


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


# --- times ------------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "ago"), [("45s", 45), ("30m", 1_800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600), ("0s", 0)]
)
def test_durations(text: str, ago: int) -> None:
    """A number and a unit is so long before now."""
    assert past_of("--older-than", text, NOW) == NOW - timedelta(seconds=ago)


def test_moments() -> None:
    """A number is a version, anything else a time in ISO 8601 with an offset."""
    assert moment_of("--at", "12") == 12
    assert moment_of("--at", "2026-01-31T01:00:00+01:00") == NOW
    assert moment_of("--at", None) is None
    for bad in ("²", "-1", "1.5", "2026-01-31", "2026-01-31T00:00:00", "", "999999999w"):
        with pytest.raises(typer.BadParameter, match="--at"):
            moment_of("--at", bad)
    with pytest.raises(typer.BadParameter, match="too long ago"):
        past_of("--at", "999999999w")
