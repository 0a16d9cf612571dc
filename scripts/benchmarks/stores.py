"""Stores to measure on: through the public API where that is quick enough, else sealed and appended in bulk.

What is written in bulk is the same to the byte as what the API would have written: it verifies.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from os import urandom
from pathlib import Path

import turnlog
from turnlog import ids
from turnlog.adapters.connect import connect
from turnlog.domain import events as e
from turnlog.domain.chain import genesis
from turnlog.domain.envelope import NewEvent, seal
from turnlog.domain.recorder import Batch, Reader
from turnlog.domain.upcasting import REGISTRY

TEXT = (
    "Could you please move my booking from Tuesday to Thursday afternoon, and tell me whether the window seat is still"
    " free? If it is not, then the one right behind it will do just as well. Thanks!!!"
)
"""A message of 200 characters."""
ROLES = ("user", "assistant")
LONG = "long"
"""The id of the session that ``long_session`` makes."""
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_TOGETHER = 500


def url_of(path: Path) -> str:
    """Return the URL of a store in this file."""
    return f"sqlite:///{path}"


def fill(session: turnlog.Session, messages: int) -> None:
    """Add messages quickly, many in one turn."""
    for first in range(0, messages, _TOGETHER):
        with session.turn():
            for i in range(first, min(first + _TOGETHER, messages)):
                session.add_message(ROLES[i % 2], TEXT)


def long_session(url: str, messages: int) -> None:
    """Make a store that holds one session of so many messages, its views caught up and its snapshot recent."""
    with turnlog.open(url, durability="normal") as store:
        fill(store.session(LONG, user_id="user-1"), messages)
        store.catch_up()


def mixed_session(url: str, events: int) -> int:
    """Make a store that holds one session of about so many events of several kinds, half of them messages.

    Returns:
        How many events it has.
    """
    with turnlog.open(url, durability="normal") as store:
        session = store.session(LONG, user_id="user-1")
        while session.version < events:
            with session.turn():
                for i in range(40):
                    session.enter_route(f"route-{i % 5}", title="Book a table")
                    session.add_message("user", TEXT)
                    session.enter_step(f"step-{i % 4}")
                    session.collect(party_size=i, note="by the window")
                    session.add_message("assistant", TEXT)
                    session.call_tool("find_table", {"party_size": i, "time": "19:30"}, call_id=f"call-{i}")
                    session.return_tool(f"call-{i}", {"tables": [{"name": "terrace", "seats": 2}]})
                    session.add_message("user", TEXT)
                    session.add_message("assistant", TEXT)
                    session.add_message("user", TEXT)
        return session.version


def conversation(number: int, messages: int) -> tuple[e.Event, ...]:
    """Return the events of a small conversation: ``messages`` and five others."""
    said = (e.MessageAdded(message_id=ids.new_id(), role=ROLES[i % 2], content=TEXT) for i in range(messages))
    return (
        e.SessionStarted(user_id=f"user-{number % 1_000}", agent="concierge"),
        e.RouteEntered(route="booking", title="Book a table"),
        *said,
        e.StepEntered(step="party-size"),
        e.DataCollected(values={"party_size": 2}),
        e.StatusChanged(status="completed"),
    )


def write_log(url: str, sessions: Iterable[Sequence[e.Event]]) -> None:
    """Append sessions in bulk to a store that may be new; its views have read nothing of them afterwards."""
    turnlog.open(url).close()
    recorder = connect(url, durability="normal", engine=None, options={}).recorder
    try:
        batches = (_sealed(number, events) for number, events in enumerate(sessions))
        while some := tuple(islice(batches, _TOGETHER)):
            recorder.append(some, _refuse)
    finally:
        recorder.close()


def _sealed(number: int, events: Sequence[e.Event]) -> Batch:
    """Seal a whole session, each event a turn of its own."""
    stream = f"default/{ids.new_id()}"
    salt = urandom(16)
    previous = genesis(salt, stream)
    rows: list[tuple[int, str, bytes]] = []
    for version, (event, at) in enumerate(zip(events, _clock(number), strict=False), 1):
        topic = _TOPICS[type(event)]
        state, previous = seal(
            NewEvent(
                originator_id=stream,
                originator_version=version,
                topic=topic,
                event=event,
                event_id=ids.new_id(),
                recorded_at=at,
                occurred_at=None,
                turn=(1, 1),
                previous=previous,
                salt=urandom(16),
                genesis=salt if version == 1 else None,
            )
        )
        rows.append((version, topic, state))
    return Batch(stream, rows)


def _clock(number: int) -> Iterator[datetime]:
    """Tell a session's times: it begins a second after the one before, and says something every second."""
    at = _BEGAN + timedelta(seconds=number)
    while True:
        yield at
        at += timedelta(seconds=1)


def _refuse(_: Reader) -> Sequence[Batch]:
    raise RuntimeError("a session to be written in bulk is there already")


_TOPICS = REGISTRY.topics
