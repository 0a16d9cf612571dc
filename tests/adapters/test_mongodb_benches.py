"""Where a view is built on MongoDB: the claim on it, and what a transaction there sees."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from threading import Event
from typing import cast

import pytest

from tests.faults.processes import Victim
from tests.projections.log import Log, filled
from turnlog.adapters.mongodb.client import Client
from turnlog.adapters.mongodb.views import MongoDBViews
from turnlog.domain.errors import StoreUnavailable
from turnlog.projections.session_index import SessionIndex

CLAIM = " build session_index"
LONG_S = 60.0
SHORT_S = 0.3


@pytest.fixture
def log(mongodb_url: str) -> Iterator[Log]:
    """A log with events."""
    opened = filled(Log(mongodb_url)).with_views()
    yield opened
    opened.close()


@pytest.fixture
def bench(log: Log) -> Iterator[MongoDBViews]:
    """A place to build a view in."""
    view = log.views.register(SessionIndex())
    with log.views.workshop(view, keep=True) as lent:
        yield cast("MongoDBViews", lent)


def test_who_changes_its_claim_is_waited_for(mongodb_url: str, log: Log, bench: MongoDBViews) -> None:
    """Another one's transaction has changed it, or has and is not seen yet: MongoDB calls both a conflict."""

    def write() -> int:
        with bench.write() as connection:
            return bench.checkpoints(connection)["session_index"].position

    with Client(mongodb_url) as client, ThreadPoolExecutor(1) as pool, client.client.start_session() as session:
        client.begin(session)
        changed = client.collection(log.names.views).update_one({"_id": CLAIM}, {"$inc": {"n": 1}}, session=session)
        assert changed.matched_count == 1
        writing = pool.submit(write)
        with pytest.raises(TimeoutError):
            writing.result(SHORT_S)
        client.commit(session)
        assert writing.result(LONG_S) == 0


@pytest.mark.parametrize("by", [{"owner": "another"}, None], ids=["another", "nobody"])
def test_who_lost_his_claim_says_so(mongodb_url: str, log: Log, bench: MongoDBViews, by: dict[str, str] | None) -> None:
    """He writes nothing, nor takes it back."""
    with Client(mongodb_url) as client:
        claims = client.collection(log.names.views)
        before = claims.find_one_and_delete({"_id": CLAIM})
        if by is not None:
            claims.insert_one({**(before or {}), **by})
        with pytest.raises(StoreUnavailable, match="another process has taken over"), bench.write():
            pass
        with pytest.raises(StoreUnavailable, match="another process has taken over"):
            bench.restart(bench.register(SessionIndex()))
        left = claims.find_one({"_id": CLAIM})
        assert (left or {}).get("owner") == (by or {}).get("owner")


@pytest.mark.parametrize("dropped", [True, False])
def test_a_check_that_lost_its_claim_finds_no_difference(mongodb_url: str, log: Log, dropped: bool) -> None:
    """It took too long, and what it had built is, or will be, dropped: it says neither that views differ nor not."""
    view = log.views.register(SessionIndex())
    assert log.engine.catch_up()
    with log.views.workshop(view, keep=False) as lent, log.views.read() as home, Client(mongodb_url) as client:
        late = {"$set": {"until": 0}}
        claims = client.collection(log.names.views)
        assert claims.update_many({"_id": {"$gt": " check ", "$lt": " check ~"}}, late).matched_count == 1
        if dropped:  # else the rows that are not built yet are all differences
            assert MongoDBViews(client, log.names).discard_builds() == []
        claims.delete_many({"_id": {"$gt": " check ", "$lt": " check ~"}})
        with pytest.raises(StoreUnavailable, match="another process has taken over"):
            next(log.views.differences(home, lent, "session_index", None))


def check_on(report: Connection, url: str) -> None:
    """Begin a check, and write where it builds, in a transaction that does not end."""
    log = Log(url).with_views()
    view = log.views.register(SessionIndex())
    with log.views.workshop(view, keep=False) as lent, lent.write() as connection:
        connection.collection(log.names.parked).insert_one({"_id": "written"})
        report.send(lent.prefix)
        Event().wait()


def test_what_a_killed_check_left_is_dropped_at_once(mongodb_url: str, log: Log) -> None:
    """Its transaction is ended first: the server would have everybody wait for it, up to a minute."""
    checking = Victim(check_on, mongodb_url)
    prefix = checking.first()
    checking.kill()
    with Client(mongodb_url, timeout_s=LONG_S / 4) as client:
        assert MongoDBViews(client, log.names).discard_builds() == []
        assert not [name for name in client.database.list_collection_names() if name.startswith(prefix)]
