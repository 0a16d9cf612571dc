"""What `turnlog doctor` finds on MongoDB, a standalone server included."""

from datetime import date

from turnlog.adapters.cli import mongodb_checks as checks
from turnlog.adapters.cli.findings import Finding
from turnlog.adapters.mongodb.client import Client


class Log:
    """What the doctor needs of a recorder."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.durability = client.durability


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


def test_a_standalone_server_is_less(mongodb_alone_url: str) -> None:
    """The doctor says what is missing, and what to do."""
    finding = found(mongodb_alone_url)["replica set"]
    assert finding.level == "warning"
    assert "rs.initiate()" in finding.words


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
