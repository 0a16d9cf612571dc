"""The commands for the past: replay, diff, fork."""

import json
import os
import pty
import subprocess

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


def test_fork_prints_the_new_id(cli: Cli, filled: turnlog.ConversationStore) -> None:
    """`fork` makes a session of the past of another, under an id that is made or chosen."""
    made = cli("fork", "s").out.strip()
    assert filled.get(made).state.message_count == 3
    forked = cli("fork", "s", "--at", 2, "--id", "again", "--json").json
    assert forked == {"session_id": "again", "version": 2, "forked_from": {"session_id": "s", "version": 2}}
    assert "'again'" in cli("fork", "s", "--id", "again", code=2).err
