"""Leases: one caller at a time, of all processes; who has lost his stores nothing any more."""

import pytest

import turnlog.cache
from tests.cache.conftest import opened
from tests.cache.test_answers import eventually
from tests.cache.test_single_flight import answers_of
from turnlog.cache.keys import Key
from turnlog.cache.storage import Claim, Lease, Missing

KEY = Key(bytes(32), "")
LONG_S = 3600.0


@pytest.mark.parametrize("backend", ["sqlite", "redis"])
def test_a_lease_that_ran_out_is_the_next_ones(backend: str, request: pytest.FixtureRequest) -> None:
    """A process that was stopped for too long neither renews, nor ends, nor uses what is another's by then."""
    with opened(request.getfixturevalue(f"{backend}_url")) as cache:
        storage = answers_of(cache).storage
        stopped, next_one = Lease(KEY, "stopped"), Lease(KEY, "next one")
        assert storage.claim(stopped, 0.02) is Claim.HELD
        assert eventually(lambda: storage.claim(next_one, LONG_S) is Claim.HELD)
        storage.renew([stopped], LONG_S)
        storage.release(stopped)
        assert storage.claim(stopped, LONG_S) is Claim.BUSY
        assert storage.keep(stopped, b"stopped", None) is False
        assert storage.read(KEY) is Missing.ABSENT
        assert storage.claim(next_one, LONG_S) is Claim.HELD, "said again, as after a lost reply"
        assert storage.keep(next_one, b"next one", None) is True
        assert storage.claim(stopped, LONG_S) == b"next one"


def test_a_lease_in_memory_ends_with_its_holder() -> None:
    """It needs no time: nobody refers to it any more."""
    with turnlog.cache.open("memory://") as cache:
        storage = answers_of(cache).storage
        interrupted, next_one = Lease(KEY, "interrupted"), Lease(KEY, "next one")
        assert storage.claim(interrupted, LONG_S) is Claim.HELD
        assert storage.claim(next_one, LONG_S) is Claim.BUSY
        del interrupted
        assert storage.claim(next_one, LONG_S) is Claim.HELD
