"""Connections to servers cut anywhere around a write: it is in the log once, or not, and the caller is told the truth.

``TURNLOG_CUTS=5000`` has so many writes cut (with ``-o faulthandler_timeout=0``); ``TURNLOG_SEED`` repeats a run.
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

import pytest

import turnlog
from tests.faults.conftest import SEED, patiently, through
from tests.faults.proxy import COMMIT, Cut, How, Proxy, When
from tests.servers import MariaDB, MongoDB
from turnlog import events as e
from turnlog.adapters.mariadb import connection, pool
from turnlog.domain.errors import ConcurrencyConflict, OutcomeUnknown, SessionGone, StoreUnavailable
from turnlog.domain.mapper import Codec

CUTS = int(os.environ.get("TURNLOG_CUTS", "60"))
pytestmark = pytest.mark.usefixtures("impatient")
BROKEN = (How.RESET, How.CLOSED)
Events = Counter[tuple[str, type[object]]]
"""How many events of a type were written under a mark."""


@pytest.fixture
def direct(server_url: str) -> Iterator[turnlog.ConversationStore]:
    """The store, not through the proxy."""
    with turnlog.open(server_url) as opened:
        yield opened


@pytest.fixture
def store(
    server_url: str,
    proxy: Proxy,
    direct: turnlog.ConversationStore,  # noqa: ARG001 - makes the tables
) -> Iterator[turnlog.ConversationStore]:
    """The store, through the proxy; it gives up soon."""
    with patiently(partial(turnlog.open, through(proxy, server_url), timeout_s=2.0)) as opened:
        yield opened


class Cutting(Protocol):
    """A proxy, or several that are one."""

    @property
    def cuts(self) -> int:
        """How many cuts have fallen."""
        ...

    def arm(self, *cuts: Cut) -> None:
        """Have these happen, one after the other."""
        ...


class Act(NamedTuple):
    """Something about to be written under a mark, which is a correlation id or a session's."""

    mark: str
    call: Callable[[], object]
    written: dict[type[object], int]
    """What it adds to the log."""
    again: bool = True
    """Whether it carries an id, so that it can be said again."""


class Acts:
    """Makes acts at random, on sessions that are made beside the proxy."""

    def __init__(self, store: turnlog.ConversationStore, direct: turnlog.ConversationStore) -> None:
        self.before: Events = Counter()
        """What was written beside the proxy."""
        self._store, self._direct = store, direct

    def any(self, dice: random.Random, n: int) -> Act:
        """Return the next one."""
        often = (self._plain, self._message, self._turn, self._overtaken, self._create, self._delete)
        make = dice.choice((*often, *often, self._reset))
        return make(f"{make.__name__}-{n}", n)

    def _session(self, name: str) -> turnlog.Session:
        if self._direct.session(name).created:
            self.before[name, e.SessionStarted] += 1
        return patiently(partial(self._store.get, name))

    def _plain(self, mark: str, n: int) -> Act:
        session = self._session(f"talk {n % 3}")
        call = lambda: session.add_message("user", f"{mark} said", correlation_id=mark)  # noqa: E731 - as below
        return Act(mark, call, {e.MessageAdded: 1}, again=False)

    def _message(self, mark: str, n: int) -> Act:
        session = self._session(f"talk {n % 3}")
        call = lambda: session.add_message("user", f"{mark} said", correlation_id=mark, message_id=mark)  # noqa: E731
        return Act(mark, call, {e.MessageAdded: 1})

    def _overtaken(self, mark: str, n: int) -> Act:
        act = self._message(mark, n)
        self._direct.get(f"talk {n % 3}").add_message("user", "first", correlation_id="first")
        self.before["first", e.MessageAdded] += 1
        return act

    def _turn(self, mark: str, n: int) -> Act:
        session = self._session(f"talk {n % 3}")

        def call() -> None:
            with session.turn(command_id=mark, correlation_id=mark):
                session.add_message("user", f"{mark} said")
                session.add_message("assistant", mark)
                session.collect({"n": f"{mark} said"})

        return Act(mark, call, {e.MessageAdded: 2, e.DataCollected: 1})

    def _create(self, mark: str, _: int) -> Act:
        first = [{"role": "user", "content": f"{mark} said"}]
        return Act(mark, lambda: self._store.session(mark, history=first), {e.SessionStarted: 1, e.MessageAdded: 1})

    def _delete(self, mark: str, _: int) -> Act:
        return Act(mark, self._session(mark).delete, {e.SessionDeleted: 1})

    def _reset(self, mark: str, _: int) -> Act:
        session = self._session(mark)
        call = lambda: session.reset(command_id=mark, correlation_id=mark)  # noqa: E731
        return Act(mark, call, {e.SessionStarted: 1, e.StatusChanged: 1})


def cuts(dice: random.Random, act: Act) -> list[Cut]:
    """Return where the act is to be cut: mostly once, sometimes a few times, or whatever is tried."""
    said = f"{act.mark} said".encode()
    (n,) = dice.choices((1, 2, 3, 4, 1_000), (12, 4, 4, 2, 1))
    if n == 1_000:
        return [Cut(dice.choice(list(When)), dice.choice(BROKEN), dice.choice((said, COMMIT)))] * n
    return [
        Cut(
            dice.choice(list(When)),
            dice.choice((*BROKEN, *BROKEN, How.LATE)),
            dice.choice((b"", b"", b"", COMMIT, said)),
            dice.choice((0, 0, 1, 2)),
        )
        for _ in range(n)
    ]


def written(store: turnlog.ConversationStore, after: int = 0) -> Events:
    """Count what is in the log. What was erased is known by its session."""
    types = {topic: type_ for type_, topic in Codec().topics.items()}
    return Counter(
        (event.correlation_id or event.session_id, types[event.topic]) for event in store.events(after=after)
    )


def test_cut_anywhere(store: turnlog.ConversationStore, direct: turnlog.ConversationStore, proxy: Proxy) -> None:
    """A receipt: it is there once. Unavailable: it is not there. Unknown: said again, it is there once."""
    cut_anywhere(store, direct, proxy, CUTS)


def cut_anywhere(
    store: turnlog.ConversationStore, direct: turnlog.ConversationStore, proxy: Cutting, wanted: int
) -> None:
    """Have so many writes cut, and see after each what is there."""
    print(f"TURNLOG_SEED={SEED}")  # noqa: T201 - shown if it fails
    dice = random.Random(SEED)  # noqa: S311 - no secret
    acts = Acts(store, direct)
    there, doubtful = Counter[tuple[str, type[object]]](), set[str]()
    outcomes: Counter[str] = Counter()
    n = 0
    while sum(outcomes.values()) < wanted:
        n += 1
        act = acts.any(dice, n)
        before, fell = direct.position, proxy.cuts
        proxy.arm(*cuts(dice, act))
        outcome = outcome_of(act)
        proxy.arm()
        found = is_there(direct, act, before)
        assert found == WRITTEN.get(outcome, found), (act, outcome)
        if outcome != "done" and act.again:
            resolve(act)
            found = is_there(direct, act, before)
            assert found, act
        elif outcome == "OutcomeUnknown":
            doubtful.add(act.mark)
        for type_, count in act.written.items():
            there[act.mark, type_] += count * found
        if proxy.cuts > fell:
            outcomes[f"{act.mark.split('-')[0]}: {outcome}"] += 1
    print(f"{n} writes, {proxy.cuts} cuts", *sorted(outcomes.items()), sep="\n")  # noqa: T201
    report = direct.verify()
    assert report.ok, report.failures
    log = written(direct)
    assert {of: n for of, n in log.items() if of[0] not in doubtful} == {
        of: n for of, n in (there + acts.before).items() if of[0] not in doubtful
    }
    assert all(log[mark, e.MessageAdded] <= 1 for mark in doubtful)


NOT_WRITTEN = (StoreUnavailable, ConcurrencyConflict)
"""These say so; the latter where a busy machine did not get through in time."""
NOT_DONE = tuple(error.__name__ for error in NOT_WRITTEN)
WRITTEN = {"done": True, **dict.fromkeys(NOT_DONE, False)}


def outcome_of(act: Act) -> str:
    """Do it; return what the caller is told."""
    try:
        act.call()
    except (*NOT_WRITTEN, OutcomeUnknown) as error:
        return type(error).__name__
    return "done"


def resolve(act: Act) -> None:
    """Say it again until there is an answer."""
    for _ in range(20):
        try:
            act.call()
        except (*NOT_WRITTEN, OutcomeUnknown):
            continue
        except SessionGone:
            assert e.SessionDeleted in act.written
        return
    raise AssertionError(f"no answer to {act}")


def is_there(store: turnlog.ConversationStore, act: Act, before: int) -> bool:
    """Return whether the act is in the log; whole, and once."""
    assert store.position >= before  # on a cluster what is half-written is finished by who asks for it
    log = written(store, before)
    found = {type_: log[act.mark, type_] for type_ in act.written}
    assert found in (act.written, dict.fromkeys(act.written, 0)), found
    return found == act.written


@pytest.mark.parametrize("what", ["delete", "fork", "reset"])
def test_cut_after_the_commit(
    server_url: str, store: turnlog.ConversationStore, direct: turnlog.ConversationStore, proxy: Proxy, what: str
) -> None:
    """Where it cannot be read any more what a write led to, it is not told as one that did not happen."""
    direct.session("s")
    direct.catch_up()
    act = Act("s", getattr(patiently(partial(store.get, "s")), what), {})
    before = direct.position
    commit = rb"\$merge" if server_url.startswith("mongodb") and what == "fork" else COMMIT  # it is one document
    outcome = "not tried"
    while outcome in ("not tried", *NOT_DONE) and not written(direct, before):  # a busy machine may not get so far
        proxy.arm(Cut(When.AFTER, How.LATE, commit), Cut(When.BEFORE, How.RESET, lasts=True))
        outcome = outcome_of(act)
        proxy.arm()
    assert outcome == "OutcomeUnknown"
    assert written(direct, before)


@pytest.mark.parametrize("when", [When.BEFORE, When.WITH])
def test_half_open(server_url: str, direct: turnlog.ConversationStore, proxy: Proxy, when: When) -> None:
    """A connection that is swallowed without a word is given up after a while; all goes on, on another.

    PyMySQL cannot be asked to look elsewhere whether the server is at work: there a call that is under way ends, and
    says so.
    """
    if server_url.startswith("mariadb"):
        pytest.skip("on MariaDB a call on a swallowed connection ends with an error: test_nothing_gets_through")
    direct.session("s", user_id="u")
    cut = partial(Cut, when, How.SILENT)
    with turnlog.open(through(proxy, server_url), timeout_s=8.0) as store:
        session = store.get("s")
        proxy.arm(cut(rb"once"))
        assert session.add_message("user", "once").version == 2
        proxy.arm(cut(COMMIT))
        session.fork("fork")
        proxy.arm(cut())
        assert [message.content for message in session.history()] == ["once"]
        assert len(store.sessions(user_id="u").items) == 2
        proxy.arm(cut())
        assert len(store.sessions(user_id="u").items) == 2
    assert len(list(direct.events())) == 4


def test_swallowed_while_idle(mariadb: MariaDB, mariadb_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On MariaDB too, one that nothing was sent on is replaced unseen: it is asked first."""
    with Proxy(mariadb.port) as proxy, turnlog.open(proxy.url(mariadb_url), timeout_s=3600.0) as store:
        session = store.session("s", user_id="u")
        monkeypatch.setattr(pool, "IDLE_S", 0.0)
        monkeypatch.setattr(connection, "ANSWER_S", 0.2)
        for call in (partial(session.add_message, "user", "x"), session.history, store.sessions):
            proxy.arm(Cut(When.BEFORE, How.SILENT))
            call()
        assert [message.content for message in session.history()] == ["x"]


def test_nothing_gets_through(
    store: turnlog.ConversationStore, direct: turnlog.ConversationStore, proxy: Proxy
) -> None:
    """Where the whole network is swallowed, every call ends by itself, and all is well when it comes back."""
    session = patiently(partial(store.session, "s"))
    assert patiently(store.sessions).items
    proxy.silence()
    for call in (partial(session.add_message, "user", "x", message_id="x"), session.history, store.sessions):
        with pytest.raises((StoreUnavailable, OutcomeUnknown)):
            call()
    proxy.reset()
    resolve(Act("x", partial(session.add_message, "user", "x", message_id="x"), {}))
    assert [message.content for message in patiently(session.history)] == ["x"]
    assert patiently(store.sessions).items[0].message_count == 1
    assert direct.verify().ok


def test_a_transaction_that_was_left_behind(mongodb: MongoDB, mongodb_url: str) -> None:
    """On MongoDB, one that lost its connection, and the word that would have ended it, is ended by the next try."""
    with Proxy(mongodb.port) as proxy, turnlog.open(proxy.url(mongodb_url)) as store:
        session = store.session("s")
        proxy.arm(Cut(When.AFTER, How.RESET, b"findAndModify"), *[Cut(When.BEFORE, How.RESET, b"abortTransaction")] * 2)
        session.delete()
        assert proxy.cuts == 3
