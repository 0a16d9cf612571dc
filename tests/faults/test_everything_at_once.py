"""Every call at once, by threads of several processes: each is answered, or refused for what the caller did."""

import faulthandler
import threading
import traceback
from collections.abc import Callable, Sequence
from random import Random
from tempfile import TemporaryFile
from time import monotonic

import pytest

import turnlog
from tests.faults.conftest import THOROUGH
from tests.faults.processes import alone, together
from turnlog import ConversationStore, RuleViolation, Session, SessionNotFound

BEGINNINGS = 3 * THOROUGH
"""So many processes begin: what goes wrong then, goes wrong at a few instants only."""
PROCESSES, THREADS, CALLS_EACH = 2, 4, 40
BUSY_S = 20.0
"""After so long nothing more is begun, on a machine that is slow or busy with other things."""
LONG_S = 60.0
"""What takes longer than this after that hangs."""

Call = Callable[[ConversationStore, Random], object]


def user(random: Random) -> str:
    """Return one of few users."""
    return f"u-{random.randrange(3)}"


def session(store: ConversationStore, random: Random) -> Session:
    """Return a session, created if need be: one that others are at as well, or one of many, not all of them deleted."""
    n = random.choice((random.randrange(6), random.randrange(400)))
    return store.session(f"s-{n}", user_id=f"u-{n % 3}")


def append_turn(store: ConversationStore, random: Random) -> object:
    """Say several things at once."""
    one = session(store, random)
    with one.turn():
        one.add_message("user", "a table for two, please")
        one.enter_route("booking")
        one.collect({"party": 2})
    return one


OF_A_SESSION: dict[str, Call] = {
    "get or create": session,
    "add a message": lambda store, random: session(store, random).add_message("user", "a table, please"),
    "append a turn": append_turn,
    "collect": lambda store, random: session(store, random).collect({"party": random.randrange(9)}),
    "take back": lambda store, random: session(store, random).pop_message(),
    "compact": lambda store, random: session(store, random).compact_history("they want a table", 2),
    "fork": lambda store, random: session(store, random).fork(),
    "reset": lambda store, random: session(store, random).reset(preserve_history=True),
    "delete": lambda store, random: session(store, random).delete(),
    "state": lambda store, random: session(store, random).state,
    "history": lambda store, random: session(store, random).history(),
    "past": lambda store, random: session(store, random).at(version=1),
    "replay": lambda store, random: list(session(store, random).replay()),
}
"""These are refused where others have deleted the session."""
OF_ALL: dict[str, Call] = {
    "erase": lambda store, random: store.erase_user(user(random)),
    "events": lambda store, _: list(store.events()),
    "subscribe": lambda store, random: next(store.subscribe(after=random.randrange(3))),
    "sessions": lambda store, random: store.sessions(user_id=user(random), limit=5),
    "active": lambda store, random: store.active_session(user(random)),
    "messages": lambda store, random: store.messages(user_id=user(random), limit=5),
    "search": lambda store, _: store.search("table", limit=5),
    "users": lambda store, _: store.users(),
    "stats": lambda store, _: store.stats(),
    "heads": lambda store, _: list(store.heads()),
    "catch up": lambda store, _: store.catch_up(),
    "rebuild": lambda store, _: store.rebuild(),
    "scrub": lambda store, _: store.scrub(vacuum=False),
    "verify": lambda store, _: verify(store),
}
CALLS = OF_A_SESSION | OF_ALL


def verify(store: ConversationStore) -> None:
    """Find nothing wrong."""
    found = store.verify()
    assert found.ok, found.failures


def what_went_wrong(name: str, store: ConversationStore, random: Random) -> list[str]:
    """Do it."""
    try:
        CALLS[name](store, random)
    except Exception as error:  # noqa: BLE001 - told to the test
        is_theirs = name in OF_A_SESSION and isinstance(error, (RuleViolation, SessionNotFound))
        is_built = name == "rebuild" and "is being rebuilt by another" in str(error)
        return [] if is_theirs or is_built else [f"{name}: {traceback.format_exc()}"]
    return []


def call_at_once(url: str, shared: bool, planned: Sequence[Sequence[str]], seed: int) -> list[str]:
    """Have one thread for each of several lists of calls, on one store or each on one of its own."""
    wrong: list[str] = []
    start = threading.Barrier(len(planned))

    def call(n: int, store: ConversationStore) -> None:
        random = Random(f"{seed} {n}")  # noqa: S311 - not a secret
        start.wait(LONG_S)
        until = monotonic() + BUSY_S
        for name in planned[n]:
            if monotonic() < until:
                wrong.extend(what_went_wrong(name, store, random))

    def work(n: int) -> None:
        if shared:
            call(n, store)
        else:
            with turnlog.open(url, durability="normal") as own:
                call(n, own)

    with turnlog.open(url, durability="normal") as store:
        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(len(planned))]
        for thread in threads:
            thread.start()
        until = monotonic() + BUSY_S + LONG_S
        for thread in threads:
            thread.join(max(until - monotonic(), 0))
        if any(thread.is_alive() for thread in threads):
            wrong.append(f"a call hangs:\n{what_all_are_at()}")
    return wrong


def what_all_are_at() -> str:
    """Return where every thread of this process is."""
    with TemporaryFile() as told:
        faulthandler.dump_traceback(told)
        told.seek(0)
        return told.read().decode(errors="replace")


def fill(url: str) -> None:
    """Leave sessions, and views far behind."""
    with turnlog.open(url, durability="normal") as store:
        random = Random(0)  # noqa: S311 - as above
        for _ in range(100):
            append_turn(store, random)


@pytest.fixture(params=[True, False], ids=["one_store", "own_stores"])
def shared(request: pytest.FixtureRequest) -> bool:
    """Whether the threads of a process share a store."""
    return bool(request.param)


def test_by_a_new_process(shared_url: str, shared: bool) -> None:
    """Its threads all do something for the first time, and each something else."""
    alone(fill, shared_url)
    for n in range(BEGINNINGS):
        wrong = alone(call_at_once, shared_url, shared, [[name] for name in CALLS], n)
        assert not wrong, "\n".join(wrong)
    with turnlog.open(shared_url, durability="normal") as store:
        verify(store)


@pytest.mark.parametrize("seed", range(THOROUGH))
def test_again_and_again(shared_url: str, shared: bool, seed: int) -> None:
    """Processes that are at it for a while."""
    random = Random(seed)  # noqa: S311 - as above
    planned = [[random.choices(list(CALLS), k=CALLS_EACH) for _ in range(THREADS)] for _ in range(PROCESSES)]
    found = together(call_at_once, *((shared_url, shared, lists, n) for n, lists in enumerate(planned)))
    wrong = [words for of_one in found for words in of_one]
    assert not wrong, "\n".join(wrong)
    with turnlog.open(shared_url, durability="normal") as store:
        verify(store)
