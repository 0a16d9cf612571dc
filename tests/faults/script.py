"""A conversation store with a known past: the steps that made it, and what it must answer after each of them.

The steps run on the store under test, and again on a memory store that is asked everything after each step. Clock and
ids are the same for both, so that the answers can be compared byte for byte.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import count
from typing import Any, NamedTuple

import msgspec

import turnlog
from turnlog.domain.errors import SessionGone

Step = Callable[[turnlog.ConversationStore], object]
USERS = ("alice", "bob")


class Run:
    """A clock and ids that depend on the step alone."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self._ids = count(1)

    def clock(self) -> datetime:
        """Return the time of the present step."""
        return self.now

    def new_id(self) -> str:
        """Return the next id."""
        return f"00000000-0000-7000-8000-{next(self._ids):012x}"

    def open(self, url: str, **options: Any) -> turnlog.ConversationStore:
        """Open a store that lives by this clock and these ids."""
        return turnlog.open(url, clock=self.clock, new_id=self.new_id, **options)

    def play(self, store: turnlog.ConversationStore, steps: Sequence[Step], then: Callable[[], object]) -> None:
        """Do the steps, a second apart, and call ``then`` after each."""
        for step in steps:
            self.now += timedelta(seconds=1)
            step(store)
            then()


def steps() -> list[Step]:
    """Return the steps: each is one commit. Every kind of event occurs, and pages of every table are filled."""
    made: list[Step] = [
        lambda s: s.session("s-0", user_id="alice", agent="host", data={"city": "Zürich"}, metadata={"a": None}),
        lambda s: s.session("s-1", user_id="bob", context={"locale": "de"}),
        lambda s: s.session("s-2"),
        lambda s: s.get("s-2").assign_owner("alice"),
    ]
    for i in range(12):
        made += [partial(_message, session_id=f"s-{i % 3}", i=i), partial(_turn, session_id=f"s-{i % 3}", i=i)]
    once: list[Step] = [
        lambda s: s.get("s-0").edit_message("m-0", "edited"),
        lambda s: s.get("s-1").remove_message("m-1"),
        lambda s: s.get("s-2").compact_history("in short", 3),
        lambda s: s.get("s-0").fork("fork"),
        lambda s: s.session("gone", user_id="bob", history=[{"role": "user", "content": "SECRET " * 50}]),
        lambda s: s.get("gone").delete(),
        lambda s: s.get("s-1").reset(preserve_history=True),
        lambda s: s.get("s-2").complete(reason="done"),
        lambda s: s.get("fork").set_history([{"role": "user", "content": "anew", "message_id": "new"}]),
        lambda s: s.get("fork").clear_data(),
    ]
    made += once
    made += [partial(_later, i=i) for i in range(110)]  # beyond the first snapshot
    for i in range(12):
        made += [partial(_start, i=i), partial(_turn, session_id=f"n-{i}", i=i)]
    made.append(lambda s: s.get("n-3").delete())
    return made


def _message(store: turnlog.ConversationStore, session_id: str, i: int) -> None:
    content = f"message {i} " * (1, 5, 200)[i % 3]
    store.get(session_id).add_message("user", content, message_id=f"m-{i}", actor="browser")


def _later(store: turnlog.ConversationStore, i: int) -> None:
    store.get("s-0").add_message("user", f"later {i}", message_id=f"later-{i}")


def _start(store: turnlog.ConversationStore, i: int) -> None:
    store.session(f"n-{i}", user_id=USERS[i % 2])


def _turn(store: turnlog.ConversationStore, session_id: str, i: int) -> None:
    session = store.get(session_id)
    with session.turn(correlation_id=f"turn {i}", command_id=f"turn-{i}"):
        session.enter_route(f"route {i % 4}", title="A route")
        session.enter_step(f"step {i}")
        session.call_tool("search", {"n": i}, call_id=f"call-{i}")
        session.return_tool(f"call-{i}", {"found": [i] * 10})
        session.start_run(f"run-{i}")
        session.finish_run(f"run-{i}", status="completed", usage={"tokens": i})
        session.collect({"last": i, f"key {i % 5}": {"deep": [i, None, 1.5, "ü"]}})
        session.add_message("assistant", f"answer {i}")
        session.plan_transition(f"route {i}")
        session.set_context({"turn": i})


class Past(NamedTuple):
    """Ids of all sessions there ever were, and the answers after 0, 1, 2, … steps."""

    session_ids: tuple[str, ...]
    answers: tuple[bytes, ...]


@cache
def past() -> Past:
    """Return what the steps make of a store, asked of a memory store."""
    run = Run()
    ids: list[str] = []
    with run.open("memory://") as store:

        def look() -> None:
            ids.extend(s.session_id for s in store.sessions(limit=1_000).items if s.session_id not in ids)

        run.play(store, steps(), look)
    run = Run()
    answers: list[bytes] = []
    with run.open("memory://") as store:

        def ask() -> None:
            answers.append(answer(store, ids))

        ask()
        run.play(store, steps(), ask)
    return Past(tuple(ids), tuple(answers))


def answer(store: turnlog.ConversationStore, session_ids: Sequence[str]) -> bytes:
    """Return everything that a store says of its sessions, as bytes to compare."""
    asked: list[Any] = [
        [_session(store, session_id) for session_id in session_ids],
        store.sessions(limit=1_000).items,
        [store.messages(user_id=user, limit=1_000).items for user in USERS],
        [_event(event) for event in store.events()],
    ]
    return msgspec.json.encode(asked, order="deterministic")


def _session(store: turnlog.ConversationStore, session_id: str) -> Any:
    if not store.exists(session_id):
        with suppress(SessionGone, turnlog.SessionNotFound):
            store.get(session_id)
        return None
    session = store.get(session_id)
    return [session.state, session.data, session.history(), session.history(last=3), session.routes(), session.runs()]


def _event(event: turnlog.RecordedEvent) -> Any:
    """Return an event without what is random in it."""
    return [
        event.session_id,
        event.version,
        event.position,
        event.topic,
        event.event_id,
        event.recorded_at,
        event.turn,
        event.correlation_id,
        msgspec.to_builtins(event.event),
    ]
