"""PostgreSQL: what SQLite is measured for, one writer; reading, views, asyncio."""

import json
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from typing import Any

import psycopg
from psycopg.types.numeric import Int8

import turnlog
from scripts.benchmarks.aio import SESSIONS, on_one_loop
from scripts.benchmarks.appending import CLOSE, DURABILITIES, FLAT, say, take_turns
from scripts.benchmarks.measuring import Figure, Setting, compared, rate, side_by_side, timed
from scripts.benchmarks.reading import A_THIRD, NEWEST, STREAM, TWICE, conversations, exhaust, facts_of, folded, users
from scripts.benchmarks.server import Plain, contents, server
from scripts.benchmarks.stores import LONG, conversation, fill, long_session, mixed_session, write_log
from scripts.benchmarks.views import FAST, MESSAGES, THRICE, rebuilt
from turnlog.adapters.connect import connect
from turnlog.domain.events import SessionStarted

_ROWS = (
    "SELECT position, originator_version, topic, state FROM turnlog_events WHERE originator_id = %b"
    " AND originator_version > %b ORDER BY originator_version"
)
_LAST = (
    "SELECT position, originator_version, topic, state FROM turnlog_events WHERE originator_id = %b"
    " ORDER BY originator_version DESC LIMIT 50"
)
_LOG = "SELECT position, originator_id, originator_version, topic, state FROM turnlog_events ORDER BY position"
_SESSIONS = (
    "SELECT session_id, user_id, agent, status, current_route, current_step, message_count, created_at, updated_at,"
    " last_message_at, completed_at, version FROM turnlog_session_index"
    " WHERE tenant = 'default' AND user_id = %b ORDER BY updated_position DESC LIMIT 50"
)


def append(setting: Setting) -> list[Figure]:
    """One message, and a turn of two, own commit, one writer; and message 100,000 against message 100.

    Raw: one INSERT of the same bytes, prepared, in autocommit. turnlog's side includes both views, caught up every 512
    appends, and a snapshot every 100 events.
    """
    figures: list[Figure] = []
    n = setting.pick(1_024, 64)
    with server() as started:
        stored = contents(started.new_place())
        for durability in DURABILITIES:
            url = started.new_place()
            plain = Plain(url, stored)
            with turnlog.open(url, durability=durability) as store:
                session = store.session(user_id="user-1")
                one = side_by_side(setting.pick(9, 1), partial(say, session, n), partial(plain.each, n))
                turns = partial(timed, n, partial(take_turns, session, n))
                two = side_by_side(setting.pick(7, 1), turns, partial(plain.pairs, n))
            plain.close()
            figures += [
                compared(
                    "pg-append",
                    f"PostgreSQL: append one message, durability {durability}",
                    one,
                    against="INSERT alone, of the same bytes",
                    target=CLOSE,
                ),
                compared(
                    "pg-append",
                    f"PostgreSQL: a turn of two messages, durability {durability}",
                    two,
                    against="one INSERT of the same two rows",
                    target=CLOSE,
                ),
            ]
        messages = setting.pick(100_000, 2_000)
        url = started.new_place()
        long_session(url, messages)
        with turnlog.open(url) as store:
            short = store.session(user_id="user-1")
            fill(short, 99)
            pair = side_by_side(setting.pick(7, 1), partial(say, store.get(LONG), n), partial(say, short, n))
        what = f"PostgreSQL: message {messages:,}"
        figures.append(compared("pg-append", what, pair, against="turnlog's message 100 and after", target=FLAT))
    return figures


def read(setting: Setting) -> list[Figure]:
    """The last 50 messages of 100,000, the newest 20 of a user, the history of 5,000, and 100,000 events folded."""
    rounds = setting.pick(9, 1)
    with server() as started:
        return [
            *_last(setting, rounds, started.new_place()),
            _newest(setting, rounds, started.new_place()),
            *_fold(setting, rounds, started.new_place()),
        ]


def _last(setting: Setting, rounds: int, url: str) -> list[Figure]:
    messages, n = setting.pick(100_000, 2_000), setting.pick(100, 10)
    long_session(url, messages)
    short = setting.pick(5_000, 500)
    with turnlog.open(url) as store, psycopg.connect(url, autocommit=True) as connection:
        fill(store.session("shorter"), short)
        cursor = connection.cursor(binary=True)
        session, shorter = store.get(LONG), store.get("shorter")

        def fetched() -> Sequence[Any]:
            return cursor.execute(_LAST, (STREAM,), prepare=True).fetchall()

        last = side_by_side(
            rounds,
            lambda: timed(n, lambda: [session.history(last=50) for _ in range(n)]),
            lambda: timed(n, lambda: [fetched() for _ in range(n)]),
        )
        blob = json.dumps(
            [
                {"id": m.message_id, "role": m.role, "content": m.content, "at": str(m.recorded_at)}
                for m in shorter.history()
            ]
        )
        whole = side_by_side(
            rounds,
            lambda: timed(3, lambda: [shorter.history() for _ in range(3)]),
            lambda: timed(3, lambda: [json.loads(blob) for _ in range(3)]),
        )
    return [
        compared(
            "pg-read",
            f"PostgreSQL: the last 50 messages of {messages:,}",
            last,
            against="the query for these rows",
            target=TWICE,
        ),
        compared(
            "pg-read",
            f"PostgreSQL: the full history of {short:,} messages",
            whole,
            against="json.loads of one blob of them",
            target=TWICE,
        ),
    ]


def _newest(setting: Setting, rounds: int, url: str) -> Figure:
    events, n = setting.pick(100_000, 4_000), setting.pick(100, 10)
    conversations(url, events)
    asked, query = users(events), NEWEST.format("%b")
    with turnlog.open(url) as store, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE turnlog_events, turnlog_message_index")
        cursor = connection.cursor(binary=True)

        def fetched() -> list[object]:
            rows: Sequence[Any] = cursor.execute(query, (next(asked),), prepare=True).fetchall()
            return [json.loads(row[3]) for row in rows]

        pair = side_by_side(
            rounds,
            lambda: timed(n, lambda: [store.messages(user_id=next(asked), limit=20) for _ in range(n)]),
            lambda: timed(n, lambda: [fetched() for _ in range(n)]),
        )
    what = f"PostgreSQL: the newest 20 messages of a user, {events:,} events in the store"
    return compared("pg-read", what, pair, against="the indexed join, and json.loads of each row")


def _fold(setting: Setting, rounds: int, url: str) -> list[Figure]:
    events = mixed_session(url, setting.pick(100_000, 4_000))
    recorder = connect(url, durability="full", engine=None, options={}).recorder
    with psycopg.connect(url, autocommit=True) as connection, turnlog.open(url) as store:
        cursor = connection.cursor(binary=True)

        def pages() -> None:
            version = 0
            while rows := cursor.execute(f"{_ROWS} LIMIT 2000", (STREAM, Int8(version)), prepare=True).fetchall():
                version = rows[-1][1]

        reading = partial(rate, events, pages)
        folding = side_by_side(rounds, partial(rate, events, lambda: folded(facts_of(recorder))), reading)
        session = store.get(LONG)
        replaying = side_by_side(rounds, partial(rate, events, lambda: exhaust(session.replay())), reading)
    recorder.close()
    against = "reading their rows, 2,000 at a time"
    return [
        compared(
            "pg-read",
            f"PostgreSQL: fold {events:,} events of one session",
            folding,
            against=against,
            unit="events/s",
            target=A_THIRD,
        ),
        compared(
            "pg-read",
            f"PostgreSQL: replay {events:,} events, each with the states around it",
            replaying,
            against=against,
            unit="events/s",
            target=A_THIRD,
        ),
    ]


def views(setting: Setting) -> list[Figure]:
    """Rebuilding the session index of 100,000 events; a user's newest 50 of 100 sessions, among 100,000."""
    total = setting.pick(100_000, 2_000)
    with server() as started:
        url = started.new_place()
        write_log(url, (conversation(i, MESSAGES) for i in range(total // (MESSAGES + 5))))
        peaks: list[float] = []
        rebuilding = side_by_side(setting.pick(3, 1), partial(rebuilt, url, peaks), partial(_read_log, url, total))
        url = started.new_place()
        users = total // 100
        write_log(url, ([SessionStarted(user_id=f"user-{i % users}", agent="concierge")] for i in range(total)))
        n, asked = setting.pick(200, 20), cycle([f"user-{i * 7 % users}" for i in range(users)])
        with turnlog.open(url) as store, psycopg.connect(url, autocommit=True) as connection:
            store.rebuild("session_index")
            connection.execute("ANALYZE turnlog_session_index")
            cursor = connection.cursor(binary=True)

            def fetched() -> Sequence[Any]:
                return cursor.execute(_SESSIONS, (next(asked),), prepare=True).fetchall()

            listing = side_by_side(
                setting.pick(9, 1),
                lambda: timed(n, lambda: [store.sessions(user_id=next(asked), limit=50) for _ in range(n)]),
                lambda: timed(n, lambda: [fetched() for _ in range(n)]),
            )
    return [
        compared(
            "pg-views",
            f"PostgreSQL: rebuild the session index, {total:,} events",
            rebuilding,
            against="reading the log's rows",
            unit="events/s",
            target=FAST,
        ),
        compared(
            "pg-views",
            f"PostgreSQL: 50 sessions of a user, {total:,} sessions in the store",
            listing,
            against="the indexed query",
            target=THRICE,
        ),
    ]


def _read_log(url: str, events: int) -> float:
    def rows() -> None:
        for _ in connection.cursor("log", binary=True).execute(_LOG):
            pass

    with psycopg.connect(url) as connection:
        return rate(events, rows)


def concurrent(setting: Setting) -> list[Figure]:
    """200 sessions at once by turnlog.aio, against the blocking store on one thread and on as many as aio has."""
    with server() as started:
        urls = [started.new_place() for _ in range(3)]
        what = f"PostgreSQL: {SESSIONS} sessions on one event loop, durability full"
        return on_one_loop(setting, what, urls, "full", setting.pick(10, 1))
