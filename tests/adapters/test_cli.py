"""The command line: what holds for every command, its two forms, its exit codes, its times."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

import turnlog
from tests.adapters.commands import DEADLINE_S, ROOT, Cli, process
from turnlog.adapters.cli.app import COMMANDS
from turnlog.adapters.cli.moments import moment_of, past_of

EXAMPLES: dict[str, tuple[object, ...]] = {
    "import": (os.devnull,),
    "export": ("log.jsonl",),
    "sessions": (),
    "show": ("s",),
    "history": ("s",),
    "search": ("hello",),
    "replay": ("s",),
    "diff": ("s", 1, 3),
    "fork": ("s",),
    "tail": ("--after", 0, "--limit", 3),
    "project": ("tests.adapters.counting:Counted", "--once"),
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
OF_A_STORE = [name for name in COMMANDS if name not in ("copy", "migrate")]
"""Commands that need no more than a store; of the others test_cli_copying.py and the tests of migration know."""
OF_A_SESSION = ("verify", "show", "history", "replay", "diff", "fork", "delete")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_an_example_in_the_documentation(cli: Cli, command: str) -> None:
    """--help explains the command and every option of it, and the documentation shows it at work."""
    text = cli(command, "--help").out
    options = re.findall(r"--[a-z][a-z-]+", text)
    assert ({"--tenant", "--json"} if command == "copy" else {"--store", "--tenant", "--json"}) <= set(options)
    pages = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("cli.md", "existing-tools.md"))
    assert re.search(rf"^\$ turnlog {command}\b", pages, re.MULTILINE)
    assert f"**`{command}`**" in pages
    own = set(options) - {"--store", "--tenant", "--help", "--json", "--yes", "--no-vacuum", "--vacuum"}
    assert [option for option in own if f"`{option}" not in pages and f"{option} " not in pages] == []


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("command", OF_A_STORE)
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


@pytest.mark.parametrize("command", OF_A_STORE)
def test_without_a_store_it_says_how_to_name_one(cli: Cli, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No --store and no TURNLOG_STORE: exit code 2."""
    monkeypatch.delenv("TURNLOG_STORE")
    assert "TURNLOG_STORE" in cli(command, *EXAMPLES[command], code=2).err


@pytest.mark.parametrize("command", [name for name in OF_A_STORE if name != "import"])
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
        ("show", "s", "--at", "9" * 5_000),
        ("sessions", "--status", "odd"),
        ("sessions", "--limit", "0"),
        ("sessions", "--older-than", "7x"),
        ("sessions", "--newer-than", "2026-01-01"),
        ("history", "s", "--last", "-1"),
        ("diff", "s", "1"),
        ("diff", "s", "1", "9" * 5_000),
        ("verify", "--heads", "none"),
        ("import", "none"),
        ("export", "--json"),
        ("erase",),
        ("stats", "--store", "odd://x"),
        ("stats", "--tenant", "a/b"),
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
@pytest.mark.usefixtures("filled")
def test_what_is_not_understood(cli: Cli, arguments: tuple[str, ...]) -> None:
    """Is exit code 2, with words on stderr and no traceback."""
    done = cli(*arguments, code=2)
    assert done.err or not arguments
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "s", "--at", "99"),
        ("show", "s", "--at", "9" * 18),
        ("sessions", "--cursor", "odd"),
        ("history", "s", "--before", "none"),
        ("history", "s", "--last", "9" * 30),
        ("diff", "s", "1", "99"),
        ("fork", "s", "--id", "t"),
        ("fork", "s", "--at", "99"),
        ("rebuild", "none"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("filled")
def test_what_the_store_refuses(cli: Cli, arguments: tuple[str, ...]) -> None:
    """What this store does not have, or has already, is exit code 1 and one line on stderr."""
    done = cli(*arguments, code=1)
    assert (done.out, done.err[:16], done.err.count("\n")) == ("", "turnlog: error: ", 1)


FOREIGN = "CREATE TABLE notes (x); INSERT INTO notes VALUES (1);"


@pytest.mark.parametrize("command", OF_A_STORE)
@pytest.mark.parametrize("wal", [False, True])
def test_a_database_of_another_program_is_left_alone(cli: Cli, command: str, wal: bool, tmp_path: Path) -> None:
    """It is exit code 2, also for `import`, and not a byte of it and no file beside it is written."""
    path = tmp_path / "sessions.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(("PRAGMA journal_mode=WAL;" if wal else "") + FOREIGN)
    before = path.read_bytes()
    assert "is no turnlog store" in cli(command, *EXAMPLES[command], code=2).err
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (before, [path])


@pytest.mark.parametrize("command", [name for name in OF_A_STORE if name != "import"])
def test_looking_makes_no_store_of_an_empty_file(cli: Cli, command: str, tmp_path: Path) -> None:
    """An empty file is no store, and stays empty."""
    (tmp_path / "sessions.db").touch()
    assert "is no turnlog store" in cli(command, *EXAMPLES[command], code=2).err
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b""]


def test_import_makes_a_store_of_an_empty_file(cli: Cli, tmp_path: Path) -> None:
    """What holds nothing is no other program's; other tables beside turnlog's own are no hindrance."""
    (tmp_path / "sessions.db").touch()
    cli("import", os.devnull)
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
        connection.executescript(FOREIGN)
    cli("import", os.devnull)
    assert cli("stats", "--json").json["events"] == 0


def test_a_store_whose_tables_are_only_in_the_write_ahead_log_is_one(cli: Cli, tmp_path: Path) -> None:
    """A store that was just made and is open elsewhere is found."""
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        with turnlog.open(f"sqlite:///{tmp_path}/other.db"), closing(sqlite3.connect(tmp_path / "other.db")) as other:
            connection.executescript("\n".join(other.iterdump()))
        assert b"turnlog_events" not in (tmp_path / "sessions.db").read_bytes()
        assert cli("stats", "--json").json["events"] == 0


@pytest.mark.parametrize("closed", [0, 1, 2])
@pytest.mark.usefixtures("filled")
def test_a_closed_standard_stream(sqlite_url: str, closed: int) -> None:
    """`>&-` is an error in one line, as is a full disk; the other two are not missed. The database takes no harm."""
    command = f'"$0" -W error -m turnlog sessions --store "$1" {closed}<&-'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, sqlite_url], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == (1 if closed == 1 else 0), done
    if closed == 1:
        assert (done.stdout, done.stderr.count("\n"), done.stderr[:16]) == ("", 1, "turnlog: error: ")
    else:
        assert "SESSION" in done.stdout
        assert done.stderr == ""
    with turnlog.open(sqlite_url) as store:
        assert store.verify().ok


@pytest.mark.parametrize("arguments", [("--help",), ("verify", "--help"), ("--version",), ("sessions", "--limit", "x")])
def test_a_closed_pipe_is_quiet_for_help_too(arguments: tuple[str, ...]) -> None:
    """`turnlog --help | head -1` is no error."""
    with process(*arguments) as writing:
        assert writing.stdout is not None
        assert writing.stderr is not None
        writing.stdout.close()
        err = writing.stderr.read()
        assert (writing.wait(DEADLINE_S), "Traceback" in err) == (2 if "x" in arguments else 0, False)
        assert err == "" or "x" in arguments


def test_control_c_while_it_starts(tmp_path: Path) -> None:
    """Ctrl-C during the imports ends as quietly as later: exit code 130."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt", encoding="utf-8")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from turnlog.adapters.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_what_is_logged_is_said_in_one_line(cli: Cli, postgresql_url: str) -> None:
    """A server that breaks a promise is a warning on stderr like any other words, and data stays data."""
    turnlog.open(postgresql_url).close()
    done = cli("stats", "--json", "--store", postgresql_url)
    assert done.json["durability"] == "normal"
    assert done.err.startswith("turnlog: warning: 127.0.0.1:")
    assert done.err.count("\n") == done.err.count("turnlog: ") == 1


def test_no_password_is_shown(cli: Cli) -> None:
    """An error never repeats the password of a store's URL."""
    done = cli("stats", "--store", "postgresql://ann:s3cret@127.0.0.1:1/x", code=1)
    assert "s3cret" not in done.err + done.out


def test_the_version(cli: Cli) -> None:
    """--version prints one line."""
    assert len(cli("--version").out.splitlines()) == 1


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
