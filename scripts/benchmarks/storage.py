"""What reaches the disk: bytes written per message, and what a session kept as one JSON blob costs beside it."""

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import turnlog
from scripts.benchmarks import raw
from scripts.benchmarks.appending import EVERY, say
from scripts.benchmarks.measuring import Figure, Setting, Target, compared, side_by_side, timed
from scripts.benchmarks.stores import LONG, ROLES, TEXT, long_session, url_of
from turnlog import ids

TWICE = Target(2.0)
REWRITES = 20
"""Messages a round where each rewrites the session: few, for they make it longer."""
_IO = Path("/proc/self/io")
_MESSAGES = (
    "CREATE TABLE messages (id INTEGER PRIMARY KEY, session_id TEXT NOT NULL, number INTEGER NOT NULL,"
    " message_id TEXT NOT NULL, role TEXT NOT NULL, content TEXT NOT NULL, created_at TEXT NOT NULL,"
    " UNIQUE (session_id, number))"
)
_SAY = "INSERT INTO messages (session_id, number, message_id, role, content, created_at) VALUES (?, ?, ?, ?, ?, ?)"


def written(setting: Setting) -> list[Figure]:
    """Bytes passed to write calls per message of 200 characters, at message 100 and at message 100,000.

    Raw: a row of the same message (session, number, message id, role, content, time) in a table with the same kinds of
    key, in a session of the same length. Both sides commit each message, and their closing checkpoint is counted.
    """
    figures: list[Figure] = []
    if not _counts():
        return figures
    for before in (100, setting.pick(100_000, 2_000)):
        ours, plain = (setting.folder / f"{before}-{which}.db" for which in ("ours", "raw"))
        long_session(url_of(ours), before)
        _plain_session(plain, before)
        pair = side_by_side(setting.pick(5, 2), partial(_bytes, _say_and_close, ours), partial(_bytes, _insert, plain))
        what = f"bytes written per message, at message {before:,}"
        figures.append(compared("written", what, pair, against="a raw row of the message", unit="B", target=TWICE))
    return figures


def blob(setting: Setting) -> list[Figure]:
    """A message in a session of 100, 1,000 and 5,000, against a session kept as one JSON blob in one row.

    Raw here is what a table of sessions does: BEGIN IMMEDIATE, SELECT, json.loads, append, json.dumps, UPDATE, COMMIT.
    """
    figures: list[Figure] = []
    for before in setting.pick((100, 1_000, 5_000), (100, 1_000)):
        path = setting.folder / f"{before}.db"
        long_session(url_of(path), before)
        blobs = setting.folder / f"{before}-blob.db"
        _blob_session(blobs, before)
        with turnlog.open(url_of(path)) as store, closing(raw.connect(blobs)) as connection:
            rewrite = partial(timed, REWRITES, partial(_rewrite, connection))
            pair = side_by_side(setting.pick(7, 2), partial(say, store.get(LONG), EVERY), rewrite)
        what = f"message {before:,}"
        figures.append(compared("blob", what, pair, against="rewriting one JSON blob per session"))
        if not _counts():
            continue
        pair = side_by_side(
            setting.pick(3, 1), partial(_bytes, _say_and_close, path), partial(_bytes, _rewrite_and_close, blobs)
        )
        what = f"bytes written for message {before:,}"
        figures.append(compared("blob", what, pair, against="rewriting one JSON blob per session", unit="B"))
    return figures


def _counts() -> bool:
    """Tell whether this system counts what a process writes; say so if not."""
    if not _IO.exists():
        print(f"bytes written: LEFT OUT, there is no {_IO} here", file=sys.stderr)
    return _IO.exists()


def _bytes(action: Callable[[Path], int], path: Path) -> float:
    """Return the bytes that this process passed to write calls per thing that ``action`` says it did."""
    before = _passed_to_write()
    n = action(path)
    return (_passed_to_write() - before) / n


def _passed_to_write() -> int:
    fields = dict(line.split(": ") for line in _IO.read_text(encoding="ascii").splitlines())
    return int(fields["wchar"])


def _say_and_close(path: Path) -> int:
    with turnlog.open(url_of(path)) as store:
        say(store.get(LONG), EVERY)
    return EVERY


def _plain_session(path: Path, messages: int) -> None:
    with closing(raw.connect(path)) as connection:
        connection.execute(_MESSAGES)
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_SAY, (_message(number) for number in range(1, messages + 1)))
        connection.execute("COMMIT")


def _insert(path: Path) -> int:
    with closing(raw.connect(path)) as connection:
        first = _newest(connection) + 1
        for number in range(first, first + EVERY):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SAY, _message(number))
            connection.execute("COMMIT")
    return EVERY


def _newest(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT max(number) FROM messages").fetchone()[0])


def _message(number: int) -> tuple[str, int, str, str, str, str]:
    return raw.STREAM, number, ids.new_id(), ROLES[number % 2], TEXT, ids.utc_now().isoformat()


def _blob_session(path: Path, messages: int) -> None:
    with closing(raw.connect(path)) as connection:
        connection.execute("CREATE TABLE sessions (id TEXT PRIMARY KEY, messages TEXT NOT NULL)")
        connection.execute("INSERT INTO sessions VALUES (?, ?)", (LONG, json.dumps([_item() for _ in range(messages)])))


def _rewrite(connection: sqlite3.Connection) -> None:
    """Add messages to the session that is one row."""
    execute = connection.execute
    for _ in range(REWRITES):
        execute("BEGIN IMMEDIATE")
        messages = json.loads(execute("SELECT messages FROM sessions WHERE id = ?", (LONG,)).fetchone()[0])
        messages.append(_item())
        execute("UPDATE sessions SET messages = ? WHERE id = ?", (json.dumps(messages), LONG))
        execute("COMMIT")


def _rewrite_and_close(path: Path) -> int:
    with closing(raw.connect(path)) as connection:
        _rewrite(connection)
    return REWRITES


def _item() -> dict[str, str]:
    return {"id": ids.new_id(), "role": "user", "content": TEXT, "timestamp": ids.utc_now().isoformat()}
