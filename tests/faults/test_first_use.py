"""A process that has just begun, and whose threads all do something at once, each for the first time."""

import threading
import traceback
from collections.abc import Callable

import pytest

import turnlog
from tests.faults.conftest import THOROUGH
from tests.faults.processes import alone

TIMES = 3 * THOROUGH
"""So many processes: what goes wrong, goes wrong at a few instants only."""
LONG_S = 60.0

Work = Callable[[turnlog.ConversationStore], object]


def fill(url: str) -> None:
    """Leave sessions with events of every kind, and views far behind."""
    with turnlog.open(url, durability="normal") as store:
        for i in range(20):
            session = store.session(f"s-{i}", user_id=f"u-{i % 3}", data={"party": i})
            session.add_message("user", "a table, please", message_id=f"m-{i}")
            session.enter_route("booking")
            session.enter_step("ask")
            session.collect({"time": "20:00"})
            session.edit_message(f"m-{i}", "a table for two, please")
            with session.turn():
                session.add_message("assistant", "done")
                session.exit_route(completed=True)
            session.set_status("completed")


def replay(store: turnlog.ConversationStore) -> object:
    """Go through a session."""
    return list(store.get("s-1").replay())


WORK: dict[str, Work] = {
    "append": lambda store: store.session("new").add_message("user", "hello"),
    "create": lambda store: store.session("new", user_id="u-1"),
    "state": lambda store: store.get("s-1").state,
    "history": lambda store: store.get("s-4").history(),
    "past": lambda store: store.get("s-4").at(version=4),
    "replay": replay,
    "events": lambda store: list(store.events()),
    "subscribe": lambda store: next(store.subscribe(after=3)),
    "sessions": lambda store: store.sessions(user_id="u-1", limit=2),
    "messages": lambda store: store.messages(user_id="u-1"),
    "search": lambda store: store.search("table"),
    "users": lambda store: store.users(),
    "stats": lambda store: store.stats(),
    "verify": lambda store: store.verify(),
    "rebuild": lambda store: store.rebuild(),
    "erase": lambda store: store.erase_user("u-2"),
    "fork": lambda store: store.get("s-3").fork(),
    "heads": lambda store: list(store.heads()),
}


def all_at_once(url: str, shared: bool) -> list[str]:
    """Do all of it at once, on one store or each on one of its own; return what went wrong."""
    wrong: list[str] = []
    start = threading.Barrier(len(WORK))
    store = turnlog.open(url, durability="normal")

    def do(name: str, work: Work) -> None:
        start.wait(LONG_S)
        try:
            if shared:
                work(store)
            else:
                with turnlog.open(url, durability="normal") as own:
                    work(own)
        except Exception:  # noqa: BLE001 - told to the test
            wrong.append(f"{name}: {traceback.format_exc()}")

    threads = [threading.Thread(target=do, args=each, daemon=True) for each in WORK.items()]
    for thread in threads:
        thread.start()
    for thread, name in zip(threads, WORK, strict=True):
        thread.join(LONG_S)
        if thread.is_alive():
            wrong.append(f"{name}: it hangs")
    store.close()
    return wrong


@pytest.mark.parametrize("shared", [True, False], ids=["one_store", "own_stores"])
def test_all_at_once(shared_url: str, shared: bool) -> None:
    """Nobody is turned away, and the process lives."""
    alone(fill, shared_url)
    for _ in range(TIMES):
        wrong = alone(all_at_once, shared_url, shared)
        assert not wrong, "\n".join(wrong)
    with turnlog.open(shared_url) as store:
        assert store.verify().ok
