"""The main job: a conversation held by one process, continued by another, then audited from the shell.

    scripts/run                        on a fresh SQLite file that is gone afterwards
    scripts/run --store sqlite:///s.db on a store that stays
    scripts/run FILE…                  with your own conversation files instead

Each part is a process of its own: ``hold`` and ``resume`` (of files: the import and ``extend``), then one ``turnlog``
command after the other. Exits 0 only if everything is as it should be; a bad line of a file does not keep it from the
others.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import uuid4

import msgspec
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

import turnlog
from turnlog.adapters.transfer.lines import open_lines

USER = "alice"
CONSOLE = Console()


def main() -> int:
    """Run the part that is asked for, or all of them."""
    parser = argparse.ArgumentParser(prog="scripts/run", description="Hold a conversation, continue it, audit it.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="conversation files to take instead")
    parser.add_argument("--store", metavar="URL", help="where to keep it; without, in a file that is gone afterwards")
    parser.add_argument("--part", choices=["hold", "resume", "extend"], help=argparse.SUPPRESS)
    parser.add_argument("--session", default=str(uuid4()), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.store == "memory://":
        parser.error("--store: two processes cannot share memory://")
    for file in asked.files:
        if not file.is_file():
            parser.error(f"{file} is no file (and two processes cannot share a pipe)")
    with tempfile.TemporaryDirectory() as folder:
        url = asked.store or f"sqlite:///{folder}/sessions.db"
        try:
            match asked.part:
                case "hold":
                    return hold(url, asked.session)
                case "resume":
                    return resume(url, asked.session)
                case "extend":
                    return extend(url, asked.session, asked.files)
                case _:
                    fine = run_all(url, asked.session, asked.files)
                    conclude(asked.store, fine=fine)
                    return 0 if fine else 1
        except (turnlog.TurnlogError, OSError) as error:
            say(f"✗ {error}")
            return 1


def run_all(url: str, session_id: str, files: list[Path]) -> bool:
    """Run every part on ``url``, each in a process of its own; ``session_id`` is the session that is made."""
    if files:
        title("Your conversations, imported and compared with what they say of themselves")
        fine = command(url, "import", "--check", *map(str, files))
        return part(url, "extend", session_id, *files) and audit(url, session_id) and fine
    return part(url, "hold", session_id) and part(url, "resume", session_id) and audit(url, session_id)


def audit(url: str, session_id: str) -> bool:
    """Show, by commands of the shell, what the log tells of the session that was made."""
    with turnlog.open(url) as store:
        version = store.get(session_id).version
    middle, last = str(max(1, version // 2)), str(version)
    title(f"An audit of session {session_id}: each event with what it changed")
    fine = command(url, "replay", session_id)
    title(f"The past: as it was at version {middle} of {last}, and what changed after that")
    fine &= command(url, "show", session_id, "--at", middle)
    fine &= command(url, "diff", session_id, middle, last)
    title("The history as it stands, views rebuilt from the log, and the log verified")
    fine &= command(url, "history", session_id)
    fine &= command(url, "rebuild")
    fine &= command(url, "verify")
    fine &= command(url, "sessions", "--limit", "10")
    return fine


def conclude(store: str | None, *, fine: bool) -> None:
    """Say how it went, and how to go on."""
    title("✓ Everything is as it should be" if fine else "✗ Not everything is as it should be: see above")
    program = str(Path(sys.executable).with_name("turnlog"))
    program = program.removeprefix(f"{Path.cwd()}/")
    if store is None:
        say("The store is gone now: scripts/run --store sqlite:///s.db keeps it.")
    kept = "sqlite:///s.db" if store is None else "URL" if "@" in store else shlex.quote(store)
    say(f"Then go on: {program} sessions --store {kept}")
    say(f"All commands: {program} --help, and docs/cli.md")


def hold(url: str, session_id: str) -> int:
    """Begin a conversation, and end in the middle of it."""
    title("The first process holds a conversation")
    with turnlog.open(url) as store:
        session = store.session(session_id, user_id=USER, agent="concierge", context={"channel": "web"})
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


def resume(url: str, session_id: str) -> int:
    """Pick the conversation up, finish it, and check that all of it is as it should be."""
    title("The second process picks it up where it was")
    with turnlog.open(url) as store:
        session = store.get(session_id)
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


def extend(url: str, session_id: str, files: list[Path]) -> int:
    """Go on with the last conversation of the files, on a fork: the record of what was said stays as it is."""
    title("The second process goes on with one of them, on a fork")
    with turnlog.open(url) as store:
        there = (name for file in reversed(files) for name in reversed(sessions_in(file)) if store.exists(name))
        chosen = next(there, None)
        if chosen is None:
            say("✗ there was no conversation in these files")
            return 1
        original = store.get(chosen)
        fork = original.fork(session_id)
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


def sessions_in(file: Path) -> list[str]:
    """Return the ids of the sessions that a file of conversations, or an export, is about, in its order."""
    ids: dict[str, None] = {}
    with open_lines(file) as lines:
        for _, line in lines:
            try:
                entry = DECODE(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue  # the import has named it
            ids[entry.conversation_id or (entry.event.stream.partition("/")[2] if entry.event else "")] = None
    return [name for name in ids if name]


class OfEvent(msgspec.Struct):
    """Of an event's line in an export: whose it is."""

    stream: str


class Entry(msgspec.Struct):
    """Of a line of a file: which session it is about."""

    conversation_id: str | None = None
    event: OfEvent | None = None


DECODE = msgspec.json.Decoder(Entry).decode


def part(url: str, name: str, session_id: str, *files: Path) -> bool:
    """Run one part of this script as a process of its own."""
    options = ["--part", name, "--session", session_id, "--store", url, *map(str, files)]
    return subprocess.run([sys.executable, __file__, *options], check=False).returncode == 0


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
