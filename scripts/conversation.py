"""The main job: a conversation held by one process, continued by another, then audited from the shell.

    scripts/run                        on a fresh SQLite file that is gone afterwards
    scripts/run --store sqlite:///s.db on a store that stays
    scripts/run FILE…                  with your own conversation files instead

Each part is a process of its own: ``hold`` and ``resume`` (of files: the import and ``extend``), then one ``turnlog``
command after the other. Exits 0 only if everything is as it should be.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

import turnlog

USER = "alice"
CONSOLE = Console()


def main() -> int:
    """Run the part that is asked for, or all of them."""
    parser = argparse.ArgumentParser(prog="scripts/run", description="Hold a conversation, continue it, audit it.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="conversation files to take instead")
    parser.add_argument("--store", metavar="URL", help="where to keep it; without, in a file that is gone afterwards")
    parser.add_argument("--part", choices=["hold", "resume", "extend"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.store == "memory://":
        parser.error("--store: two processes cannot share memory://")
    with tempfile.TemporaryDirectory() as folder:
        url = asked.store or f"sqlite:///{folder}/sessions.db"
        try:
            match asked.part:
                case "hold":
                    return hold(url)
                case "resume":
                    return resume(url)
                case "extend":
                    return extend(url)
                case _:
                    return run_all(url, asked.files)
        except turnlog.TurnlogError as error:
            say(f"✗ {error}")
            return 1


def run_all(url: str, files: list[Path]) -> int:
    """Run every part on ``url``, each in a process of its own, until one fails."""
    if files:
        title("Your conversations, imported and compared with what they say of themselves")
        fine = command(url, "import", "--check", *map(str, files)) and part(url, "extend")
    else:
        fine = part(url, "hold") and part(url, "resume")
    return 0 if fine and audit(url) else 1


def audit(url: str) -> bool:
    """Show, by commands of the shell, what the log tells of the session that was last written to."""
    with turnlog.open(url) as store:
        newest = store.sessions(limit=1).items[0]
    chosen, middle, last = newest.session_id, str(max(1, newest.version // 2)), str(newest.version)
    title(f"An audit of session {chosen}: each event with what it changed")
    fine = command(url, "replay", chosen)
    title(f"The past: as it was at version {middle} of {last}, and what changed after that")
    fine &= command(url, "show", chosen, "--at", middle)
    fine &= command(url, "diff", chosen, middle, last)
    title("The history as it stands, views rebuilt from the log, and the log verified")
    fine &= command(url, "history", chosen)
    fine &= command(url, "rebuild")
    fine &= command(url, "verify")
    fine &= command(url, "sessions", "--limit", "10")
    return fine


def hold(url: str) -> int:
    """Begin a conversation, and end in the middle of it."""
    title("The first process holds a conversation")
    with turnlog.open(url) as store:
        session = store.session(user_id=USER, agent="concierge", context={"channel": "web"})
        with session.turn():
            session.add_message("user", "A table for two tomorrow, please")
            session.enter_route("booking", title="Book a table")
            session.enter_step("time")
            session.collect(party_size=2)
            session.add_message("assistant", "Gladly. At what time?")
        session.pause(reason="no answer for an hour")
        session.add_message("user", "Half past seven, sorry for the delay 🙂")
        session.collect(time="19:30")
        session.enter_step("availability")
        session.start_run("run-1", model="small")
        session.call_tool("find_table", {"party_size": 2, "time": "19:30"}, call_id="call-1")
        session.return_tool("call-1", {"tables": [{"name": "terrace", "seats": 2}]})
        session.finish_run("run-1", status="completed", usage={"tokens": 212})
        receipt = session.add_message("assistant", "The terrace is free at 19:30. Shall I book it?")
        say(f"session {session.id}: {receipt.version} events, durability {receipt.durability}, head {receipt.hash}")
    say("The first process ends here.")
    return 0


def resume(url: str) -> int:
    """Pick the conversation up, finish it, and check that all of it is as it should be."""
    title("The second process picks it up where it was")
    with turnlog.open(url) as store:
        session = store.active_session(USER)
        if session is None:
            say(f"✗ no active session of {USER}")
            return 1
        found = session.state
        say(f"session {session.id} at version {session.version}: {session.data}, step {found.current_step}")
        with session.turn():
            session.add_message("user", "Yes, please")
            session.enter_step("confirmation")
            session.collect(table="terrace")
            session.exit_route(completed=True)
            session.add_message("assistant", "Booked: two on the terrace at 19:30.")
        session.complete(reason="booked")
        say(f"completed at version {session.version}")
        steps = list(session.replay())
        past = session.at(version=found.version)
        changed = {change.path for change in session.diff(found.version, session.version).changes}
        before = store.sessions(user_id=USER).items
        store.rebuild()
        return check(
            {
                "what the first process said is all there": found.data == {"party_size": 2, "time": "19:30"}
                and (found.status, found.current_step) == ("active", "availability")
                and (found.message_count, found.tool_call_count) == (4, 1),
                "every event replays, and the last leads to the state": len(steps) == session.version
                and steps[-1].after == session.state,
                "the past is as it was": past == found,
                "the difference names what changed": {"data.table", "status", "message_count"} <= changed,
                "the history is whole": [message.role for message in session.history()] == ["user", "assistant"] * 3,
                "rebuilt views equal the old ones": store.sessions(user_id=USER).items == before,
                "the log verifies": store.verify().ok,
            }
        )


def extend(url: str) -> int:
    """Go on with an imported conversation, on a fork: the record of what was said stays as it is."""
    title("The second process goes on with one of them, on a fork")
    with turnlog.open(url) as store:
        page = store.sessions(limit=1)
        if not page.items:
            say("✗ there was no conversation in these files")
            return 1
        original = store.get(page.items[0].session_id)
        fork = original.fork()
        fork.add_message("user", "One more thing …")
        say(f"session {fork.id} goes on from {original.id} at version {original.version}")
        said = [(message.role, message.content) for message in fork.history()]
        return check(
            {
                "the fork begins as the original": said[:-1] == [(old.role, old.content) for old in original.history()]
                and fork.data == original.data,
                "what is new is in the fork": said[-1] == ("user", "One more thing …") and fork.status == "active",
                "the original is as it was": store.get(original.id).state == original.state,
                "the log verifies": store.verify(original.id).ok and store.verify(fork.id).ok,
            }
        )


def part(url: str, name: str) -> bool:
    """Run one part of this script as a process of its own."""
    return subprocess.run([sys.executable, __file__, "--part", name, "--store", url], check=False).returncode == 0


def command(url: str, *arguments: str) -> bool:
    """Run one turnlog command as a user would, and show it."""
    say(f"\n$ {shlex.join(['turnlog', *arguments])}")
    done = subprocess.run([sys.executable, "-m", "turnlog", *arguments, "--store", url], check=False)
    if done.returncode:
        say(f"✗ it exited with {done.returncode}")
    return done.returncode == 0


def check(facts: dict[str, bool]) -> int:
    """Show what was checked; return the exit code."""
    for fact, holds in facts.items():
        say(f"{'✓' if holds else '✗'} {fact}")
    return 0 if all(facts.values()) else 1


def title(text: str) -> None:
    """Begin a part of the output."""
    CONSOLE.print(Panel(Text(text), style="bold"))


def say(text: str) -> None:
    """Print a line as it is, however long."""
    CONSOLE.print(text, markup=False, highlight=False, soft_wrap=True)
    CONSOLE.file.flush()


if __name__ == "__main__":
    sys.exit(main())
