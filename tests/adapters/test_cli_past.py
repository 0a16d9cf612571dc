"""The commands for the past: replay, diff, fork."""

import json
import os
import pty
import subprocess
from datetime import UTC, datetime

import pytest

import turnlog
from tests.adapters.commands import DEADLINE_S, Cli, process


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


def test_values_of_the_application_are_shown_as_json(cli: Cli, sqlite_url: str) -> None:
    """1 and "1", "" and null, a key with a dot and one inside another look different; so do paths in --json."""
    with turnlog.open(sqlite_url) as store:
        session = store.session("s", data={"n": 1, "text": "", "a.b": 1, "a": {"b": 1}, "": 0, "x\ny": 1})
        session.collect({"n": "1", "text": None, "a.b": 2, "a": {"b": 3}, "": 4, "x\ny": 2})
    assert cli("diff", "s", 1, 2).out.splitlines() == [
        '~ data.n: 1 → "1"',
        '~ data.text: "" → null',
        '~ data."a.b": 1 → 2',
        "~ data.a.b: 1 → 3",
        '~ data."": 0 → 4',
        '~ data."x\\ny": 1 → 2',
    ]
    assert 'data."a.b"' in [change["path"] for change in cli("diff", "s", 1, 2, "--json").json["changes"]]


def test_times_that_would_look_alike_are_shown_in_full(cli: Cli, sqlite_url: str) -> None:
    """Times of the same second are shown to the millisecond or, if they must be, to the microsecond."""
    second = datetime(2026, 1, 31, 12, tzinfo=UTC)
    now = [second]
    with turnlog.open(sqlite_url, clock=lambda: now[-1]) as store:
        session = store.session("s")
        for microsecond in (0, 7, 5_000):
            now.append(second.replace(microsecond=microsecond))
            session.add_message("user", "x")
    assert "last_message_at: 2026-01-31 12:00:00.000000Z → 2026-01-31 12:00:00.000007Z" in cli("diff", "s", 2, 3).out
    assert "last_message_at: 2026-01-31 12:00:00.000Z → 2026-01-31 12:00:00.005Z" in cli("diff", "s", 2, 4).out
    assert "last_message_at: nothing → 2026-01-31 12:00:00Z" in cli("diff", "s", 1, 2).out


def test_content_cannot_pass_for_an_event(cli: Cli, sqlite_url: str) -> None:
    """What stands in a message, a reason or a name is further in than what `replay` says itself, or on its line."""
    forged = "x\n   9  2026-01-31 12:00:00Z  SessionDeleted\n      + status: gone\u2028   8  also"
    with turnlog.open(sqlite_url) as store:
        session = store.session("s", metadata={forged: forged})
        session.add_message("user", forged, name=forged)
        session.enter_route("r", title=forged)
    lines = cli("replay", "s").out.split("\n")
    heads = [line for line in lines if line and not line.startswith(" " * 6)]
    assert [line.split()[0] for line in heads] == ["1", "2", "3"]
    shown = [line for line in lines if "SessionDeleted" in line and not line.startswith(" " * 10)]
    assert [line.split(":")[0] for line in shown] == ["        metadata", '      + metadata."x\\n   9  2026-01-31 12']
    assert not [line for line in lines if line.startswith("      + status")]
    for command in (("replay", "s"), ("history", "s"), ("show", "s"), ("diff", "s", 0, 3)):
        assert len(cli(*command).out.splitlines()) == cli(*command).out.count("\n")


def test_fork_prints_the_new_id(cli: Cli, filled: turnlog.ConversationStore) -> None:
    """`fork` makes a session of the past of another, under an id that is made or chosen."""
    made = cli("fork", "s").out.strip()
    assert filled.get(made).state.message_count == 3
    forked = cli("fork", "s", "--at", 2, "--id", "again", "--json").json
    assert forked == {"session_id": "again", "version": 2, "forked_from": {"session_id": "s", "version": 2}}
    assert "'again'" in cli("fork", "s", "--id", "again", code=1).err
