"""What `turnlog doctor --to` finds on OpenSearch; the cluster is not changed by looking."""

import pytest

import turnlog
from tests.adapters.commands import Cli
from tests.adapters.opensearch_indices import Indices
from turnlog.adapters.cli import opensearch_checks as checks
from turnlog.adapters.cli.findings import Finding
from turnlog.adapters.opensearch.client import address


def found(cli: Cli, indices: Indices, code: int = 0) -> dict[str, dict[str, str]]:
    """Return the findings by name."""
    done = cli("doctor", "--to", indices.server.url, "--prefix", indices.prefix, "--json", code=code)
    return {one["name"]: one for one in done.json["findings"]}


def test_what_is_not_there_is_not_made(cli: Cli, filled: turnlog.ConversationStore, indices: Indices) -> None:
    """Before anything has followed the store the doctor says how to begin, and makes no index."""
    del filled
    assert found(cli, indices)["view conversations"]["found"] == "not there"
    assert indices.generations() == []


def test_how_it_stands(cli: Cli, filled: turnlog.ConversationStore, indices: Indices) -> None:
    """Level and healthy all is well; then lag, a slow refresh, a block and an unfinished rebuild are named."""
    with indices.follow(filled) as followed:
        followed.catch_up()
        well = found(cli, indices)
        assert {name for name, one in well.items() if one["level"] != "ok"} <= {"disks"}  # which are this machine's
        assert well["OpenSearch"]["found"].startswith("opensearch 2.")
        with pytest.raises(KeyboardInterrupt):
            followed.rebuild(_interrupt)
    settings = {"index": {"refresh_interval": "-1", "blocks": {"read_only_allow_delete": True}}}
    indices.put(f"{indices.prefix}-messages/_settings", settings)
    filled.get("t").add_message("user", "new")
    worse = found(cli, indices, code=1)
    assert worse["view conversations"]["found"] == "1 position behind, 0 sessions parked"
    assert (worse["refresh"]["level"], worse["refresh"]["found"]) == ("warning", "never")
    assert worse["indices"]["level"] == "bad"
    assert f"{indices.prefix}-messages-000001 (read_only_allow_delete)" in worse["indices"]["found"]
    assert "generation 2" in worse["unfinished rebuild"]["found"]
    indices.put(f"{indices.prefix}-messages/_settings", {"index.blocks.read_only_allow_delete": None})


def _interrupt(_: turnlog.RebuildProgress) -> None:
    raise KeyboardInterrupt


def test_another_log(cli: Cli, filled: turnlog.ConversationStore, indices: Indices) -> None:
    """Indices that have followed another store are bad, and named so."""
    del filled
    with turnlog.open("memory://") as other:
        other.session("s").add_message("user", "hi")
        with indices.follow(other) as followed:
            followed.catch_up()
    assert found(cli, indices, code=1)["view conversations"]["found"] == "it has followed another log"


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (checks.version({"version": {"number": "7.10.2"}}), "warning"),
        (checks.version({"version": {"number": "3.0.0", "distribution": "opensearch"}}), "ok"),
        (checks.secrecy(address("opensearch://joe:secret@search:9200")), "warning"),
        (checks.health({"status": "yellow", "number_of_data_nodes": 2, "unassigned_shards": 3}), "warning"),
        (checks.health({"status": "red", "number_of_data_nodes": 2, "unassigned_shards": 3}), "bad"),
        (checks.replicas({"i": {"index.number_of_replicas": "0"}}, 3), "warning"),
        (checks.replicas({"i": {"index.number_of_replicas": "0"}}, 1), "ok"),
        (checks.refreshing({"i": {"index.refresh_interval": "2m"}, "j": {}}), "warning"),
        (checks.refreshing({"i": {"index.refresh_interval": "500ms"}, "j": {}}), "ok"),
    ],
)
def test_judgements(finding: Finding, level: str) -> None:
    """What one node cannot show is judged right."""
    assert finding.level == level
    assert "secret" not in finding.words


def test_what_is_not_understood(cli: Cli, filled: turnlog.ConversationStore) -> None:
    """A URL of nothing that follows, and a prefix without one, are usage errors."""
    del filled
    assert "opensearch://" in cli("doctor", "--to", "redis://localhost", code=2).err
    assert "--to" in cli("doctor", "--prefix", "x", code=2).err
