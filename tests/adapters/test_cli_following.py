"""The commands that go on until they are stopped: tail, project."""

import json
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

import turnlog
from tests.adapters.commands import DEADLINE_S, Cli, process, wait_for

VIEWS = """
class Counted:
    name = "counted"
    revision = {revision}

    def create(self, connection):
        connection.execute("CREATE TABLE counted (position INTEGER)")

    def apply(self, events, connection):
        connection.executemany("INSERT INTO counted VALUES (?)", [(event.position,) for event in events])

    class Nested:
        pass
"""


@pytest.fixture
def views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of projections, to be found by the processes that a test starts; its class."""
    (tmp_path / "counting.py").write_text(VIEWS.format(revision=1), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "counting", raising=False)
    return "counting:Counted"


@contextmanager
def running(*arguments: object) -> Generator["subprocess.Popen[str]", None, None]:
    """A command as a process that is killed at the end, should it still be there."""
    with process(*arguments) as started:
        try:
            yield started
        finally:
            started.kill()


def line(started: "subprocess.Popen[str]") -> str:
    """Read a line of what it prints."""
    assert started.stdout is not None
    return started.stdout.readline()


def stopped(started: "subprocess.Popen[str]", number: signal.Signals) -> tuple[int, str, str]:
    """Stop a command; return its exit code and what else it printed."""
    started.send_signal(number)
    out, err = started.communicate(timeout=DEADLINE_S)
    return started.returncode, out, err


@pytest.mark.usefixtures("filled")
def test_tail_of_what_is_there(cli: Cli) -> None:
    """--after says where to begin, --types and --session which events, --limit how many; JSON is one event a line."""
    assert [event["position"] for event in cli("tail", "--after", 3, "--limit", 4, "--json").lines] == [4, 5, 6, 7]
    only = ("tail", "--after", 0, "--types", "MessageAdded,RouteEntered", "--json")
    assert [event["position"] for event in cli(*only, "--limit", 3).lines] == [2, 3, 6]
    assert [event["session_id"] for event in cli(*only, "--session", "t", "--limit", 1).lines] == ["t"]
    words = cli("tail", "--after", 1, "--limit", 1).out
    assert "s  v2  MessageAdded" in words
    assert "content=A table for two, please" in words
    assert "types" in cli("tail", "--types", "Nothing", code=1).err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tail_follows_until_it_is_stopped(
    filled: turnlog.ConversationStore, sqlite_url: str, number: signal.Signals
) -> None:
    """What is written meanwhile is printed at once; Ctrl-C and SIGTERM end it well."""
    with running("tail", "--after", 9, "--json", "--store", sqlite_url) as tail:
        assert json.loads(line(tail))["position"] == 10
        filled.get("s").add_message("user", "new")
        assert json.loads(line(tail))["event"]["content"] == "new"
        filled.get("s").delete()
        assert json.loads(line(tail))["topic"] == "SessionDeleted.v1"
        assert stopped(tail, number) == (0, "", "")


@pytest.mark.usefixtures("filled")
def test_tail_ends_when_nobody_reads(sqlite_url: str) -> None:
    """A closed pipe ends it without a word, though nothing is written any more."""
    with running("tail", "--after", 0, "--store", sqlite_url) as tail:
        assert "SessionStarted" in line(tail)
        assert tail.stdout is not None
        tail.stdout.close()
        assert tail.wait(DEADLINE_S) == 0
        assert tail.stderr is not None
        assert tail.stderr.read() == ""


def test_project_catches_up_and_ends(cli: Cli, filled: turnlog.ConversationStore, views: str) -> None:
    """--once applies what is there; again it goes on where it was. How far it is, is said."""
    assert cli("project", views, "--once", "--json").lines == [
        {"view": "counted", "position": 10, "head": 10, "lag": 0}
    ]
    filled.get("s").add_message("user", "new")
    assert cli("project", views, "--once").err == "turnlog: counted: at 11 of 11, 0 behind\n"


@pytest.mark.parametrize("wrong", ["counting", "counting:", ":Counted", "nowhere:Counted", "counting:Nothing"])
@pytest.mark.usefixtures("filled", "views")
def test_project_says_what_it_cannot_import(cli: Cli, wrong: str) -> None:
    """What is not MODULE:CLASS, or not there, is a usage error; what is no projection is refused."""
    assert wrong in cli("project", wrong, "--once", code=2).err
    assert "projection" in cli("project", "counting:Counted.Nested", "--once", code=1).err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_project_goes_on_until_it_is_stopped(
    filled: turnlog.ConversationStore, sqlite_url: str, views: str, number: signal.Signals
) -> None:
    """It applies what is written meanwhile, reports regularly, ends well, and resumes: each event is applied once."""

    def position() -> int:
        return next((view.position for view in filled.stats().views if view.name == "counted"), 0)

    for _ in range(2):
        with running("project", views, "--every", "0.1", "--store", sqlite_url) as service:
            for _ in range(3):
                filled.get("s").add_message("user", "new")
                wait_for(lambda: position() == filled.position)
            assert service.stderr is not None
            assert service.stderr.readline().startswith("turnlog: counted: at ")
            code, out, err = stopped(service, number)
            head = filled.position
            assert (code, out) == (0, "")
            assert err.endswith(f"counted: at {head} of {head}, 0 behind\n")
        filled.get("s").add_message("user", "while nobody runs")
    path = sqlite_url.removeprefix("sqlite:///")
    assert applied(path) == list(range(1, filled.position))


def test_project_is_stopped_in_the_midst(
    filled: turnlog.ConversationStore, sqlite_url: str, views: str, tmp_path: Path
) -> None:
    """A long way to go is left between two pages; the next start goes on from there, and nothing is applied twice."""
    for _ in range(4):
        filled.get("s").add_messages([{"role": "user", "content": "hi"}] * 5_000)
    with running("project", views, "--every", "0.1", "--store", sqlite_url) as service:
        wait_for(lambda: bool(applied(str(tmp_path / "sessions.db"))))
        code, _, err = stopped(service, signal.SIGTERM)
    assert code == 0
    assert "Traceback" not in err
    with running("project", views, "--once", "--store", sqlite_url) as service:
        assert service.wait(DEADLINE_S) == 0
    assert applied(str(tmp_path / "sessions.db")) == list(range(1, 20_011))


def applied(path: str) -> list[int]:
    """Return the positions that the view holds."""
    import sqlite3

    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT position FROM counted ORDER BY position")]
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()
