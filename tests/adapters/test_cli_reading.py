"""The commands that look: sessions, show, history, search, users, stats."""

import fcntl
import os
import pty
import re
import struct
import termios
from datetime import timedelta

import pytest

import turnlog
from tests.adapters.commands import DEADLINE_S, Cli, process
from turnlog.adapters.cli.output import shown
from turnlog.adapters.cli.searching import excerpt
from turnlog.domain.words import Query


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


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("TWO table",), ["m-1"]),
        (("gladly", "--role", "assistant", "--user", "alice"), ["m-2"]),
        (("gladly", "--role", "user"), []),
        (("table", "--since", "1h", "--until", "2999-01-01T00:00:00Z"), ["m-1"]),
        (("table", "--until", "1h"), []),
        (("table", "--route", "support"), []),
    ],
)
@pytest.mark.usefixtures("filled")
def test_search(cli: Cli, asked: tuple[str, ...], expected: list[str]) -> None:
    """Every filter of `search` is applied, in both forms."""
    found = [hit["message"]["message_id"] for hit in cli("search", *asked, "--json").json["items"]]
    assert found == expected
    printed = cli("search", *asked).out.splitlines()
    assert [line.split()[-1] for line in printed[::2]] == expected


def test_what_search_shows_of_a_long_message() -> None:
    """A piece of it, on one line, in which a word stands that was found."""
    text = f"{'before ' * 50}the needle\n{'after ' * 50}"
    piece = excerpt(text, Query.of("NEEDLE nothing"))
    assert piece.startswith("…")
    assert piece.endswith("…")
    assert "the needle after" in piece
    assert excerpt("short", Query.of("other")) == "short"


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
    assert shown("a\rb\n\t\u2028\x85\u200f") == "a\\rb\\n\\t\\u2028\\x85\\u200f"


def test_json_sends_no_control_character_to_the_terminal(cli: Cli, sqlite_url: str) -> None:
    """With --json what a terminal would obey is escaped, as JSON allows; the value is the same."""
    text = "\x1b\x7f\x80\x9b31m\x9f \u2028\u2029 \u200e\u200f\u061c\u202a\u202e\u2066\u2069 é🙂"
    with turnlog.open(sqlite_url) as store:
        store.session("s").add_message("user", text)
    done = cli("history", "s", "--json")
    assert done.out.rstrip("\n").replace("é🙂", "").isascii()
    assert done.out.rstrip("\n").isprintable()
    assert done.json["content"] == text


def test_a_name_cannot_begin_a_line(cli: Cli, sqlite_url: str) -> None:
    """A line break in a name or a route is shown on its line, in `history` and in tables."""
    with turnlog.open(sqlite_url) as store:
        session = store.session("s")
        session.enter_route("r", title="a\nb")
        session.add_message("user", "x", name="ann\nuser  forged\u2028")
    assert cli("history", "s").out.splitlines()[0].startswith("user  ann\\nuser  forged\\u2028  2")
    assert "a\\nb" in cli("show", "s").out.splitlines()[-1]


def test_ids_are_whole_in_a_narrow_terminal(sqlite_url: str) -> None:
    """`sessions` leaves columns out rather than folding ids: what is shown can be copied."""
    ids = [f"{i}{'0123456789' * 6}" for i in range(2)]
    with turnlog.open(sqlite_url) as store:
        for session_id in ids:
            store.session(session_id, user_id="alice", agent="concierge").enter_route("a-rather-long-route")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with process("sessions", "--store", sqlite_url, stdout=theirs) as listing:
        assert listing.wait(DEADLINE_S) == 0
    os.close(theirs)
    text = re.sub(r"\x1b\[[0-9;]*m", "", os.read(ours, 10_000).decode())
    os.close(ours)
    assert text.splitlines()[0].split() == ["SESSION", "USER", "STATUS"]
    assert [line.split() for line in text.splitlines()[1:]] == [
        [session_id, "alice", "active"] for session_id in ids[::-1]
    ]


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
