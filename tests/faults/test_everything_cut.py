"""Every call at once over connections that are cut all the time: each is answered, or tells that the storage failed."""

import threading
from functools import partial
from random import Random
from time import monotonic, sleep

import pytest

import turnlog
from tests.faults.conftest import SEED, THOROUGH, patiently, through
from tests.faults.every_call import CALLS, verify, what_all_are_at, what_went_wrong
from tests.faults.proxy import Cut, How, Proxy, When
from turnlog import ConversationStore
from turnlog.domain.errors import ConcurrencyConflict, OutcomeUnknown, StoreUnavailable

pytestmark = pytest.mark.usefixtures("impatient")
THREADS, BUSY_S, LONG_S = 3, 6.0 * THOROUGH, 60.0
PAUSES_S = (0.05, 0.2, 0.5)
CUTS = ((When.BEFORE, How.RESET), (When.WITH, How.CLOSED), (When.AFTER, How.RESET), (When.WITHIN, How.RESET))
FAILURES = (StoreUnavailable, OutcomeUnknown, ConcurrencyConflict)
"""What a call says that did not get through in its time."""
CHUNKS = 8
"""A cut falls on one of so many that come next."""


def test_each_call_says_what_became_of_it(server_url: str, proxy: Proxy) -> None:
    """Another store, whose connections are left alone, is none the worse for it."""
    wrong: list[str] = []

    def call(n: int, store: ConversationStore, *besides: type[Exception]) -> None:
        random = Random(f"{SEED} {n}")  # noqa: S311 - not a secret
        while monotonic() < until:
            wrong.extend(what_went_wrong(random.choice(list(CALLS)), store, random, besides))

    def cut() -> None:
        while monotonic() < until:
            sleep(proxy.dice.choice(PAUSES_S))
            proxy.arm(Cut(*proxy.dice.choice(CUTS), skip=proxy.dice.randrange(CHUNKS)))
            if proxy.dice.random() < 1 / len(CUTS):
                proxy.reset()

    with (
        turnlog.open(server_url, durability="normal") as direct,
        patiently(partial(turnlog.open, through(proxy, server_url), durability="normal", timeout_s=4.0)) as store,
    ):
        until = monotonic() + BUSY_S
        planned = [(n, store, *FAILURES) for n in range(THREADS)]
        threads = [threading.Thread(target=call, args=args, daemon=True) for args in (*planned, (THREADS, direct))]
        threads.append(threading.Thread(target=cut, daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(until + LONG_S - monotonic(), 0))
        if any(thread.is_alive() for thread in threads):
            wrong.append(f"a call hangs:\n{what_all_are_at()}")
        assert not wrong, f"TURNLOG_SEED={SEED}\n" + "\n".join(wrong)
        assert proxy.cuts
        proxy.arm()
        verify(direct)
