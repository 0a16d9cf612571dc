"""``turnlog project --to``: OpenSearch follows a store as a service."""

import json
import signal
from collections.abc import Callable

import pytest

import turnlog
from tests.adapters.commands import DEADLINE_S, Cli, process, wait_for
from tests.adapters.opensearch_indices import Indices
from tests.faults.proxy import Proxy
from tests.servers import OpenSearch


def test_once(cli: Cli, filled: turnlog.ConversationStore, indices: Indices) -> None:
    """--once applies what is there; --rebuild builds the indices anew; --language is the messages'."""
    to = ("project", "--to", indices.server.url, "--prefix", indices.prefix, "--once")
    level = {"view": "conversations", "position": 10, "head": 10, "lag": 0, "trouble": None}
    assert cli(*to, "--json").lines[-1] == level
    assert cli(*to).err == "turnlog: conversations: at 10 of 10, 0 behind\n"
    cli(*to, "--rebuild", "--language", "english")
    with indices.follow(filled) as followed:
        assert len(followed.search("tables").items) == 1


@pytest.mark.usefixtures("filled")
def test_what_is_not_understood(cli: Cli, indices: Indices) -> None:
    """Neither projections nor --to, or a wrong option, is a usage error; a cluster that is away is one line."""
    assert "--to" in cli("project", code=2).err
    assert "--to" in cli("project", "m:C", "--language", "german", code=2).err
    projection = ("project", "turnlog.tables:AgentTables", "--to", indices.server.url)
    assert "keeps no projections" in cli(*projection, code=2).err
    assert "prefix" in cli("project", "--to", indices.server.url, "--prefix", "A", code=2).err
    away = cli("project", "--to", "opensearch://joe:secret@127.0.0.1:9", code=1).err
    assert away.startswith("turnlog: error: OpenSearch at 127.0.0.1:9: ")
    assert "secret" not in away


def test_the_service(
    filled: turnlog.ConversationStore, sqlite_url: str, indices: Indices, opensearch: OpenSearch
) -> None:
    """It applies what is written, says when the cluster is away and when it is back, and ends well."""
    proxy = Proxy(opensearch.port)
    to = ("--to", proxy.url(indices.server.url), "--prefix", indices.prefix)
    with process("project", *to, "--every", "0.1", "--json", "--store", sqlite_url) as service:
        assert service.stdout is not None

        def line() -> dict[str, object]:
            assert service.stdout is not None
            said: dict[str, object] = json.loads(service.stdout.readline())
            return said

        try:
            while line()["position"] != 10:
                pass
            proxy.close()
            filled.get("s").add_message("user", "new")
            assert "127.0.0.1" in str(trouble(line)["trouble"])
            service.send_signal(signal.SIGTERM)
            _, err = service.communicate(timeout=DEADLINE_S)
            assert service.returncode == 1  # it cannot say where it has come to
            assert "Traceback" not in err
        finally:
            service.kill()
    with process("project", "--to", indices.server.url, *to[2:], "--store", sqlite_url) as service:
        try:
            with indices.follow(filled) as followed:
                wait_for(lambda: followed.status().position == 11)
                service.send_signal(signal.SIGINT)
                out, err = service.communicate(timeout=DEADLINE_S)
                assert (service.returncode, out) == (0, "")
                assert err.endswith("turnlog: conversations: at 11 of 11, 0 behind\n")
                indices.assert_same(filled, followed)
        finally:
            service.kill()


def trouble(line: Callable[[], dict[str, object]]) -> dict[str, object]:
    """Return the first line that tells of trouble."""
    while not (said := line())["trouble"]:
        pass
    return said
