"""Writing: one message, a turn of two, and the same in a session that is already long."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean

import turnlog
from scripts.benchmarks import raw
from scripts.benchmarks.measuring import Figure, Setting, Target, compared, side_by_side, timed, typically
from scripts.benchmarks.stores import LONG, ROLES, TEXT, fill, long_session, url_of

EVERY = 256
"""Appends after which a writer brings the views up to date."""
DURABILITIES = ("full", "normal")
CLOSE = Target(1.5)
FLAT = Target(1.2)


def append(setting: Setting) -> list[Figure]:
    """One message, its own commit. Raw: BEGIN IMMEDIATE, INSERT, COMMIT of the same stored bytes, in a table like it.

    turnlog's side includes all it does besides: deciding, ids, hashes, a snapshot every 100 events, both views caught
    up every 256 appends. Both include SQLite's checkpoints. Beside it, without a target: the median of single appends,
    which sees none of these, and the INSERT alone, whose transaction SQLite makes by itself.
    """
    figures: list[Figure] = []
    for durability in DURABILITIES:
        n = _appends(setting, durability)
        with _opened(setting, durability) as (store, log):
            session = store.session(user_id="user-1")
            ours = partial(say, session, n)
            pair = side_by_side(setting.pick(15, 3), ours, partial(log.round, raw.append_each, n))
            bare = side_by_side(setting.pick(9, 3), ours, partial(log.round, raw.append_bare, n))
            typical = side_by_side(
                setting.pick(9, 3),
                partial(typically, n, partial(session.add_message, "user", TEXT)),
                partial(log.typically, raw.append_each, n),
            )
        what = f"append one message, durability {durability}"
        plain = "BEGIN IMMEDIATE, INSERT, COMMIT of the same bytes"
        figures += [
            compared("append", what, pair, against=plain, target=CLOSE),
            compared("append", f"{what}, the median of single ones", typical, against=plain),
            compared("append", what, bare, against="INSERT alone, of the same bytes"),
        ]
    return figures


def turn(setting: Setting) -> list[Figure]:
    """A user's and an assistant's message, one commit. Raw: BEGIN IMMEDIATE, two INSERTs, COMMIT of the same bytes."""
    figures: list[Figure] = []
    for durability in DURABILITIES:
        n = _appends(setting, durability)
        with _opened(setting, durability) as (store, log):
            session = store.session(user_id="user-1")
            pair = side_by_side(
                setting.pick(15, 3),
                partial(timed, n, partial(take_turns, session, n)),
                partial(log.round, raw.append_pairs, n, 2),
            )
            typical = side_by_side(
                setting.pick(9, 3),
                partial(typically, n, partial(take_turns, session, 1)),
                partial(log.typically, raw.append_pairs, n, 2),
            )
        what = f"a turn of two messages, durability {durability}"
        plain = "BEGIN IMMEDIATE, two INSERTs, COMMIT of the same bytes"
        figures += [
            compared("turn", what, pair, against=plain, target=CLOSE),
            compared("turn", f"{what}, the median of single ones", typical, against=plain),
        ]
    return figures


def late(setting: Setting) -> list[Figure]:
    """Message 100,000 against message 100, each in a file of its own; both sides are turnlog's.

    Beside it, the same of the plain driver: how much of the difference is SQLite's own.
    """
    figures: list[Figure] = []
    messages = setting.pick(100_000, 2_000)
    for durability in DURABILITIES:
        n = _appends(setting, durability)
        long, short = (setting.folder / f"{durability}-{which}.db" for which in ("long", "short"))
        long_session(url_of(long), messages)
        with (
            turnlog.open(url_of(long), durability=durability) as longer,
            turnlog.open(url_of(short), durability=durability) as shorter,
        ):
            pair = side_by_side(
                setting.pick(15, 3),
                partial(say, longer.get(LONG), n),
                partial(_say_in_new, shorter, n),
            )
        what = f"message {messages:,}, durability {durability}"
        figures.append(compared("late", what, pair, against="turnlog's message 100", target=FLAT))
        figures.append(_late_raw(setting, durability, messages))
    return figures


def opened(setting: Setting) -> list[Figure]:
    """Opening a session of 100,000 messages against one of 100, in one file: a snapshot, and 50 events after it."""
    messages, n = setting.pick(100_000, 2_000), 50
    path = setting.folder / "open.db"
    long_session(url_of(path), messages)
    with turnlog.open(url_of(path)) as store:
        short = store.session(user_id="user-1")
        fill(short, 100)
        for session in (short, store.get(LONG)):
            fill(session, 50)

        def open_often(session_id: str) -> float:
            return timed(n, lambda: [store.get(session_id) for _ in range(n)])

        pair = side_by_side(setting.pick(25, 3), partial(open_often, LONG), partial(open_often, short.id))
    what = f"open a session of {messages:,} messages"
    return [compared("open", what, pair, against="open one of 100", target=FLAT)]


def say(session: turnlog.Session, n: int) -> float:
    """Add ``n`` messages, a commit each; return the seconds one took."""

    def messages() -> None:
        for i in range(n):
            session.add_message(ROLES[i % 2], TEXT)

    return timed(n, messages)


def take_turns(session: turnlog.Session, n: int) -> None:
    """Say ``n`` turns of two messages, a commit each."""
    for _ in range(n):
        with session.turn():
            session.add_message("user", TEXT)
            session.add_message("assistant", TEXT)


def _appends(setting: Setting, durability: str) -> int:
    """Return how many appends a round has: so many that every round has its share of views and checkpoints.

    Where each waits for the disk, checkpoints weigh little.
    """
    return EVERY * setting.pick(8 if durability == "normal" else 2, 1)


@contextmanager
def _opened(setting: Setting, durability: str) -> Generator[tuple[turnlog.ConversationStore, raw.Log]]:
    """Open a new store, and a raw log that is fed the same bytes."""
    contents = _contents(setting.folder / f"{durability}-sample.db")
    url = url_of(setting.folder / f"{durability}.db")
    with (
        turnlog.open(url, durability=durability) as store,
        raw.Log(setting.folder / f"{durability}-raw.db", durability, contents) as log,
    ):
        yield store, log


def _say_in_new(store: turnlog.ConversationStore, n: int) -> float:
    """Add ``n`` messages to new sessions that have 99; return the seconds one took."""
    times: list[float] = []
    for _ in range(n // EVERY):
        session = store.session(user_id="user-1")
        fill(session, 99)
        times.append(say(session, EVERY))
    return fmean(times)


def _late_raw(setting: Setting, durability: str, messages: int) -> Figure:
    contents = _contents(setting.folder / f"{durability}-sample.db")
    with (
        raw.Log(setting.folder / f"{durability}-raw-long.db", durability, contents) as long,
        raw.Log(setting.folder / f"{durability}-raw-short.db", durability, contents) as short,
    ):
        long.fill(messages)
        short.fill(99)
        n = _appends(setting, durability)
        pair = side_by_side(
            setting.pick(15, 3), partial(long.round, raw.append_each, n), partial(short.round, raw.append_each, n)
        )
    what = f"message {messages:,} by the plain driver, durability {durability}"
    return compared("late", what, pair, against="its message 100")


def _contents(path: Path) -> list[tuple[str, bytes]]:
    """Return what turnlog stores of messages, each in a commit of its own."""
    with turnlog.open(url_of(path), durability="normal") as store:
        say(store.session(user_id="user-1"), EVERY)
    return raw.stored_messages(path)
