"""Processes killed (SIGKILL) at random instants: what was acknowledged is there, what is there is whole."""

import random
from collections import defaultdict
from contextlib import suppress
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any, NamedTuple

import pytest

import turnlog
from tests.faults.conftest import SERVERS, THOROUGH
from tests.faults.processes import DEADLINE_S, Victim
from turnlog.domain.errors import RuleViolation, SessionNotFound, StoreError

pytestmark = pytest.mark.slow
STORES = 3 * THOROUGH
ROUNDS = 6
"""Rounds a store; in each, two processes are killed."""
LONGEST_S = 0.2
"""From the first report to the kill."""


class Try(NamedTuple):
    """A message about to be written."""

    session_id: str
    message_id: str
    content: str


class Done(NamedTuple):
    """An acknowledged write: its events are those up to ``version``. ``try_`` is the message that it was."""

    session_id: str
    version: int
    event_ids: tuple[str, ...]
    try_: Try | None = None
    deleted: bool = False
    forked: bool = False


class Writer:
    """Writes at random to a few sessions and reports every acknowledged write; goes on after errors ``also``."""

    def __init__(self, report: Connection, store: turnlog.ConversationStore, seed: int, *also: type[Exception]) -> None:
        self._also = also
        self._report = report
        self._store = store
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._seed = seed
        self._n = 0

    def write_on(self) -> None:
        """Write until killed."""
        acts = [self.say] * 10 + [self.turn] * 6 + [self.fork, self.delete, self.reset, self.views, self.erase_user]
        while True:
            self._n += 1
            with suppress(SessionNotFound, RuleViolation, *self._also):  # another writer has deleted or closed it
                self._random.choice(acts)()

    def session(self) -> turnlog.Session:
        """Return one of a few sessions, often a new one."""
        name = f"s-{self._random.randrange(8)}"
        with suppress(RuleViolation):
            session = self._store.session(name, user_id=f"user {self._random.randrange(3)}")
            if session.status == "active":
                return session
        return self._store.session(f"{name}-{self._seed}-{self._n}")

    def say(self) -> None:
        """Write a message under an id of its own."""
        session = self.session()
        said = Try(session.id, f"{self._seed}-{self._n}", "words " * self._random.choice((1, 1, 50, 50, 2_000)))
        self._report.send(said)
        self._done(session.add_message("user", said.content, message_id=said.message_id), said)

    def turn(self) -> None:
        """Write several events that belong together and say how many they are."""
        session = self.session()
        n = self._random.randrange(2, 13)
        with session.turn(correlation_id=f"{self._seed}-{self._n}/{n}") as turn:
            for i in range(n):
                session.add_message("assistant", f"{i} of {n}") if i % 2 else session.collect(
                    {f"{self._seed}-{self._n}": i}
                )
        self._done(turn.receipt)

    def fork(self) -> None:
        """Copy a session."""
        made = self.session().fork()
        self._report.send(Done(made.id, made.version, (), forked=True))

    def delete(self) -> None:
        """Erase a session."""
        self._done(self.session().delete(), deleted=True)

    def reset(self) -> None:
        """Archive a session and start its successor."""
        session = self.session()
        session.reset(preserve_history=True)
        self._report.send(Done(session.id, session.version, ()))

    def views(self) -> None:
        """Bring the views along, or build them anew."""
        if self._random.random() < 0.5:
            self._store.sessions()
        else:
            with suppress(StoreError):  # the other one is rebuilding it
                self._store.rebuild()

    def erase_user(self) -> None:
        """Erase several sessions at once."""
        self._store.erase_user(f"user {self._random.randrange(3)}")

    def _done(self, receipt: turnlog.Receipt, try_: Try | None = None, *, deleted: bool = False) -> None:
        assert receipt.version is not None
        self._report.send(Done(receipt.session_id, receipt.version, receipt.event_ids, try_, deleted))


def write_on(report: Connection, url: str, seed: int) -> None:
    """Be the victim."""
    with turnlog.open(url, durability="normal") as store:
        Writer(report, store, seed).write_on()


@pytest.mark.parametrize(
    ("shared_url", "seed"),
    [*(("sqlite", seed) for seed in range(STORES)), *((name, seed) for name in SERVERS for seed in range(THOROUGH))],
    indirect=["shared_url"],
)
def test_killed_at_any_instant(shared_url: str, seed: int) -> None:
    """Every acknowledged event is there, every turn is whole, verify is green; a retry writes nothing twice."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    reports: list[Any] = []
    for number in range(ROUNDS):
        victims = [Victim(write_on, shared_url, seed * 1_000 + number * 2 + i) for i in range(2)]
        for victim in victims:
            reports.append(victim.first())
            reports += victim.reports(dice.uniform(0, LONGEST_S) / 2)
        if not any(map(is_done, reports)):
            reports += victims[0].reports_until(is_done)  # else there were nothing to look for
        for victim in victims:
            reports += victim.kill()
        check(shared_url, reports)


def is_done(report: Any) -> bool:
    """Return whether a report is of something acknowledged."""
    return isinstance(report, Done)


def check(url: str, reports: list[Any]) -> None:
    """Compare the store with all that was reported so far."""
    done: list[Done] = [report for report in reports if is_done(report)]
    assert done
    with turnlog.open(url, durability="normal") as store:
        found = store.verify()
        assert found.ok, found.failures
        recorded = {(event.session_id, event.version): event for event in whole_log(store)}
        for one in done:
            expected = range(one.version - len(one.event_ids) + 1, one.version + 1)
            ids = tuple(recorded[one.session_id, version].event_id for version in expected)
            assert ids == one.event_ids, one
            assert (one.session_id, one.version) in recorded, one
        assert_turns_whole(list(recorded.values()))
        gone = {one.session_id for one in done if one.deleted}
        for session_id in gone:
            assert not store.exists(session_id)
        acknowledged = {one.try_ for one in done}
        tried = [report for report in reports if isinstance(report, Try)]
        assert_said_once(store, [said for said in tried if said not in acknowledged] + tried[-30:])


def whole_log(store: turnlog.ConversationStore) -> list[turnlog.RecordedEvent]:
    """Return every event, once no transaction of somebody who was killed holds back the log's head any more."""
    writer = store.session()
    writer.delete()
    last = (writer.id, writer.version)
    deadline = monotonic() + DEADLINE_S
    while monotonic() < deadline:
        events = list(store.events())
        if last in [(event.session_id, event.version) for event in events[-20:]]:
            return events
    raise AssertionError("the log's head stood still")


def assert_turns_whole(recorded: list[turnlog.RecordedEvent]) -> None:
    """Count the events of each turn by what the writer said of it."""
    counted: dict[tuple[str, str], int] = defaultdict(int)
    for event in recorded:
        if event.correlation_id is not None:
            counted[event.session_id, event.correlation_id] += 1
    for (_, turn), n in counted.items():
        assert n == int(turn.partition("/")[2]), turn


def assert_said_once(store: turnlog.ConversationStore, tried: list[Try]) -> None:
    """Say everything that was tried again, acknowledged or not: each message is there exactly once, as it was said."""
    sessions: dict[str, list[Try]] = defaultdict(list)
    for said in tried:
        sessions[said.session_id].append(said)
    for session_id, all_said in sessions.items():
        if not store.exists(session_id):
            continue
        session = store.get(session_id)
        for said in all_said:
            with suppress(RuleViolation):  # closed by a reset, and the message never came to be
                session.add_message("user", said.content, message_id=said.message_id)
        contents = defaultdict[str, list[Any]](list)
        for message in session.history():
            contents[message.message_id].append(message.content)
        for said in all_said:
            assert contents[said.message_id] in ([said.content], []), said
            assert contents[said.message_id] or session.status == "archived", said
