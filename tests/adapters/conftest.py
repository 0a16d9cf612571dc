"""Fixtures for the command line and for files of conversations."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import turnlog
from tests import servers
from tests.adapters.commands import Cli, Done
from tests.adapters.exports import Store, fill
from tests.adapters.opensearch_indices import Indices
from tests.adapters.talks import Json, Write
from turnlog.adapters.cli.app import run


@pytest.fixture
def cli(sqlite_url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command on the test's store, in this process; ``good`` of its exit code unless another is expected."""
    monkeypatch.setenv("TURNLOG_STORE", sqlite_url)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object, code: int = 0) -> Done:
        capfd.readouterr()
        found = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        done = Done(found, captured.out, captured.err)
        assert done.code == code, done
        return done

    return call


@pytest.fixture
def filled(sqlite_url: str) -> Iterator[turnlog.ConversationStore]:
    """A store with two sessions: ``s`` of alice (8 events), and ``t`` of bob."""
    with turnlog.open(sqlite_url) as store:
        session = store.session("s", user_id="alice", agent="concierge", metadata={"k": 1})
        session.add_message("user", "A table for two, please", message_id="m-1", actor="web")
        session.enter_route("booking", title="Book")
        session.enter_step("size")
        session.collect(size=2)
        session.add_message("assistant", "Gladly", message_id="m-2")
        session.discard("size")
        session.add_message("user", None, message_id="m-3", tool_calls=[{"id": "c", "name": "find"}])
        store.session("t", user_id="bob").add_message("user", "Hello?")
        yield store


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write conversations (or lines as they are) to a file, one a line."""

    def to_file(*lines: Json | str, name: str = "talks.jsonl") -> Path:
        path = tmp_path / name
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
        return path

    return to_file


@pytest.fixture
def full(store: Store) -> Store:
    """A store with a few conversations, on every backend."""
    fill(store)
    return store


@pytest.fixture
def empty() -> Iterator[Store]:
    """Another store, empty."""
    with turnlog.open("memory://") as opened:
        yield opened


@pytest.fixture
def indices(opensearch: servers.OpenSearch) -> Iterator[Indices]:
    """Indices of this test's own, none of them there yet."""
    made = Indices(opensearch)
    yield made
    opensearch.drop(made.prefix)
