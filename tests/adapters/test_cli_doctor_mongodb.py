"""What `turnlog doctor` finds on MongoDB, a standalone server included, and what that can be used for."""

from collections.abc import Iterator
from datetime import date
from uuid import uuid4

import pytest
from eventsourcing.persistence import OperationalError, StoredEvent

import turnlog
from tests import servers
from turnlog.adapters.cli import mongodb_checks as checks
from turnlog.adapters.cli.findings import Finding
from turnlog.adapters.mongodb import MongoDBApplicationRecorder
from turnlog.adapters.mongodb.client import Client
from turnlog.domain.errors import StoreUnavailable


class Log:
    """What the doctor needs of a recorder."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.durability = client.durability


@pytest.fixture(scope="module")
def alone() -> Iterator[servers.MongoDB]:
    """A standalone server."""
    with servers.MongoDB(servers.mongod_or_skip(), members=0) as server:
        yield server


def found(url: str) -> dict[str, Finding]:
    """Return the findings by name; the collection of the measurement is gone."""
    with Client(url) as client:
        findings = {finding.name: finding for finding in checks.findings(Log(client))}
        assert client.database.list_collection_names() == []
    return findings


def test_all_is_well_and_nothing_is_left(mongodb_url: str) -> None:
    """On a replica set nothing is amiss but what a server of tests is: old, and with a short oplog."""
    findings = found(mongodb_url)
    assert {name for name, finding in findings.items() if finding.level != "ok"} - {"one durable commit"} == {
        "MongoDB",
        "oplog",
    }
    assert findings["durability"].found == "full: acknowledged by a majority's journal"


def test_a_standalone_server_is_bad(alone: servers.MongoDB) -> None:
    """The doctor says what is missing, and what to do; opening a store says the same."""
    url = alone.new_place()
    finding = found(url)["replica set"]
    assert finding.level == "bad"
    assert "rs.initiate()" in finding.words
    with pytest.raises(StoreUnavailable, match="standalone server has none; run it as a replica set"):
        turnlog.open(url)


def test_a_standalone_server_records_for_the_library(alone: servers.MongoDB) -> None:
    """Programs of `eventsourcing` can append there, one originator at a time; the rest is refused whole."""
    with Client(alone.new_place()) as client:
        recorder = MongoDBApplicationRecorder(client)
        recorder.create_table()
        first, second = uuid4(), uuid4()
        for n in (1, 2):
            assert recorder.insert_events([StoredEvent(first, n, "t", b"x")]) == [n]
        both = [StoredEvent(one, 3, "t", b"x") for one in (first, second)]
        with pytest.raises(OperationalError, match="standalone"):
            recorder.insert_events(both)
        assert [event.originator_version for event in recorder.select_events(first)] == [1, 2]
        assert recorder.wait_for_news(1, 0.0)
        assert not recorder.wait_for_news(2, 0.1)


def test_judgements() -> None:
    """What cannot be had here is judged by its numbers."""
    assert checks.version("7.0.1", date(2026, 1, 1)).level == "ok"
    assert checks.version("5.0.9", date(2026, 1, 1)).level == "warning"
    assert checks.oplog(30.0).level == "ok"
    arbiters = {"setName": "x", "hosts": ["a", "b"], "arbiters": ["c"]}
    (finding,) = checks.topology(arbiters, replicated=True)
    assert finding.level == "warning"
    lost = {"storageEngine": {"name": "inMemory", "persistent": False}}
    off = {"storage": {"journal": {"enabled": False}}}
    assert [finding.level for finding in checks.engine(lost, off)] == ["bad", "bad"]
