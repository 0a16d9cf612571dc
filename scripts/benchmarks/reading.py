"""Reading: the last messages of a long session, a whole history, folding and replaying a stream."""

import json
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import cycle

import turnlog
from scripts.benchmarks import raw
from scripts.benchmarks.measuring import Figure, Setting, Target, compared, rate, side_by_side, timed
from scripts.benchmarks.stores import LONG, conversation, long_session, mixed_session, url_of, write_log
from scripts.benchmarks.views import MESSAGES
from turnlog.adapters.connect import connect
from turnlog.domain.mapper import Codec, Fact
from turnlog.domain.recorder import Recorder
from turnlog.domain.session import fold, initial

STREAM = f"default/{LONG}"
TWICE = Target(2.0)
A_THIRD = Target(1 / 3, at_least=True)
"""300,000 events/s where reading the rows gives 900,000."""
_ROWS = "SELECT position, originator_version, topic, state FROM turnlog_events WHERE originator_id = ?"
_PAGE = 2_000
NEWEST = (
    "SELECT e.position, e.originator_version, e.topic, e.state FROM (SELECT session_id, position, item, content_version"
    " FROM turnlog_message_index WHERE tenant = 'default' AND user_id = {} ORDER BY position DESC, item DESC LIMIT 20)"
    " AS m JOIN turnlog_events AS e ON e.originator_id = 'default/' || m.session_id"
    " AND e.originator_version = m.content_version ORDER BY m.position DESC, m.item DESC"
)
"""The newest 20 messages of a user, by hand: rows of the view and events, joined."""


def last(setting: Setting) -> list[Figure]:
    """The last 50 messages of a session of 100,000. Raw: the query for the last 50 rows of the same table, fetchall.

    A second comparison decodes these rows with ``json.loads``, which is the least that any reader has to do.
    """
    messages, n = setting.pick(100_000, 2_000), setting.pick(200, 20)
    path = setting.folder / "last.db"
    long_session(url_of(path), messages)
    connection = raw.connect(path)
    query = f"{_ROWS} ORDER BY originator_version DESC LIMIT 50"

    def fetched() -> list[tuple[int, int, str, bytes]]:
        return connection.execute(query, (STREAM,)).fetchall()

    with turnlog.open(url_of(path)) as store:
        session = store.get(LONG)
        ours = partial(timed, n, lambda: [session.history(last=50) for _ in range(n)])
        rounds = setting.pick(15, 3)
        rows = side_by_side(rounds, ours, lambda: timed(n, lambda: [fetched() for _ in range(n)]))
        decoded = side_by_side(
            rounds, ours, lambda: timed(n, lambda: [[json.loads(row[3]) for row in fetched()] for _ in range(n)])
        )
    connection.close()
    what = f"the last 50 messages of {messages:,}"
    return [
        compared("last", what, rows, against="the query for these rows", target=TWICE),
        compared("last", what, decoded, against="the query, and json.loads of each row"),
    ]


def newest(setting: Setting) -> list[Figure]:
    """The newest 20 messages of a user, of all sessions. Raw: rows of the view joined with the log's, and json.loads.

    100,000 events in 5,000 sessions of 1,000 users, five each. turnlog's side looks first whether the view is level.
    """
    events, n = setting.pick(100_000, 4_000), setting.pick(200, 20)
    path = setting.folder / "newest.db"
    conversations(url_of(path), events)
    connection = raw.connect(path)
    query = NEWEST.format("?")
    asked = users(events)
    with turnlog.open(url_of(path)) as store:
        pair = side_by_side(
            setting.pick(15, 3),
            lambda: timed(n, lambda: [store.messages(user_id=next(asked), limit=20) for _ in range(n)]),
            lambda: timed(
                n,
                lambda: [
                    [json.loads(row[3]) for row in connection.execute(query, (next(asked),)).fetchall()]
                    for _ in range(n)
                ],
            ),
        )
    connection.close()
    what = f"the newest 20 messages of a user, {events:,} events in the store"
    return [compared("newest", what, pair, against="the indexed join, and json.loads of each row")]


def conversations(url: str, events: int) -> None:
    """Make a store of small conversations, its message index caught up."""
    write_log(url, (conversation(i, MESSAGES) for i in range(events // (MESSAGES + 5))))
    with turnlog.open(url, durability="normal") as store:
        store.catch_up()


def users(events: int) -> Iterator[str]:
    """Name users of such a store, again and again."""
    n = min(events // (MESSAGES + 5), 1_000)
    return cycle([f"user-{i * 7 % n}" for i in range(n)])


def history(setting: Setting) -> list[Figure]:
    """The full history of 5,000 messages. Raw: one json.loads of one blob that holds the same messages.

    The blob is in memory and holds of each message its id, role, content and time, as a session row of one's own would.
    """
    messages, n = setting.pick(5_000, 500), setting.pick(5, 2)
    path = setting.folder / "history.db"
    long_session(url_of(path), messages)
    with turnlog.open(url_of(path)) as store:
        session = store.get(LONG)
        blob = json.dumps(
            [
                {
                    "message_id": message.message_id,
                    "role": message.role,
                    "content": message.content,
                    "recorded_at": message.recorded_at.isoformat(),
                }
                for message in session.history()
            ]
        )
        pair = side_by_side(
            setting.pick(15, 3),
            lambda: timed(n, lambda: [session.history() for _ in range(n)]),
            lambda: timed(n, lambda: [json.loads(blob) for _ in range(n)]),
        )
    what = f"the full history of {messages:,} messages"
    return [compared("history", what, pair, against="json.loads of one blob of them", target=TWICE)]


def replay(setting: Setting) -> list[Figure]:
    """Folding a stream of 100,000 events to its state, and ``Session.replay``. Raw: iterating over the stream's rows.

    Half of the events are messages, the others routes, steps, data and tool calls. The fold reads, decodes and evolves
    as opening a session without a snapshot does; beside it, evolving alone, of events that are decoded already.
    """
    path = setting.folder / "replay.db"
    events = mixed_session(url_of(path), setting.pick(100_000, 4_000))
    rounds = setting.pick(9, 3)
    connection = raw.connect(path)
    query = f"{_ROWS} ORDER BY originator_version"

    def rows() -> None:
        for _ in connection.execute(query, (STREAM,)):
            pass

    read = partial(rate, events, rows)
    recorder = connect(url_of(path), durability="full", engine=None, options={}).recorder
    folding = partial(rate, events, lambda: folded(facts_of(recorder)))
    folds = side_by_side(rounds, folding, read)
    with turnlog.open(url_of(path)) as store:
        session = store.get(LONG)
        replayed = side_by_side(rounds, partial(rate, events, lambda: exhaust(session.replay())), read)
    facts = list(facts_of(recorder))  # last: so many values alive slow everything else down
    evolved = side_by_side(rounds, folding, partial(rate, events, partial(folded, facts)))
    recorder.close()
    connection.close()
    what = f"fold {events:,} events of one session"
    return [
        compared(
            "replay",
            what,
            folds,
            against="reading their rows",
            unit="events/s",
            target=A_THIRD,
        ),
        compared("replay", what, evolved, against="evolving decoded events alone", unit="events/s"),
        compared(
            "replay",
            f"replay {events:,} events, each with the states around it",
            replayed,
            against="reading their rows",
            unit="events/s",
            target=A_THIRD,
        ),
    ]


def facts_of(recorder: Recorder) -> Iterator[Fact]:
    """Read and decode the stream page by page, as the store does."""
    codec, version = Codec(), 0
    while rows := recorder.select_stream(STREAM, after=version, limit=_PAGE):
        yield from codec.facts(STREAM, rows, version)
        version = rows[-1][1]


def folded(facts: Iterable[Fact]) -> None:
    """Fold facts of that stream."""
    fold(initial("default", LONG), facts)


def exhaust(items: Iterable[object]) -> None:
    """Take all of them."""
    for _ in items:
        pass
