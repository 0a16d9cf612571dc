"""Every call there is, by chance, as tests of faults have threads make them."""

import faulthandler
import traceback
from collections.abc import Callable
from random import Random
from tempfile import TemporaryFile

from turnlog import ConversationStore, RuleViolation, Session, SessionNotFound

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


def what_went_wrong(
    name: str, store: ConversationStore, random: Random, besides: tuple[type[Exception], ...] = ()
) -> list[str]:
    """Do it; errors of the types ``besides`` are to be expected too."""
    try:
        CALLS[name](store, random)
    except besides:
        pass
    except Exception as error:  # noqa: BLE001 - told to the test
        is_theirs = name in OF_A_SESSION and isinstance(error, (RuleViolation, SessionNotFound))
        is_built = name == "rebuild" and "is being rebuilt by another" in str(error)
        return [] if is_theirs or is_built else [f"{name}: {traceback.format_exc()}"]
    return []


def what_all_are_at() -> str:
    """Return where every thread of this process is."""
    with TemporaryFile() as told:
        faulthandler.dump_traceback(told)
        told.seek(0)
        return told.read().decode(errors="replace")
