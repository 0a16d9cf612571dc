"""A disk that fails: every write, truncation and sync of a scenario in turn, in several ways."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

import turnlog
from tests.faults.conftest import THOROUGH
from tests.faults.disk import FULL, IOERR_FSYNC, IOERR_WRITE, Disk, Operation
from turnlog.domain.errors import StoreUnavailable

pytestmark = pytest.mark.slow
TURN = 12


class Way(NamedTuple):
    """A way to fail: which operations, with which of SQLite's codes, and whether half of a write is done.

    It is tried on the ``first`` of them, and on ``every`` so many more.
    """

    kinds: tuple[str, ...]
    code: int
    torn: bool = False
    first: int = 1
    every: int = 27


WAYS = {
    "no room": Way(("write",), FULL, first=1),
    "a write fails": Way(("write", "truncate"), IOERR_WRITE, first=2),
    "half a write": Way(("write",), IOERR_WRITE, torn=True, first=3),
    "a sync fails": Way(("sync",), IOERR_FSYNC, every=3),
}


@pytest.fixture
def fast() -> Iterator[Path]:
    """A directory in memory, where there is one: the disk is simulated."""
    memory = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory)


class Scenario:
    """Everything that writes, each with what it must have done if it did not raise."""

    def __init__(self, store: turnlog.ConversationStore) -> None:
        self._store = store
        self.said = ["before"]
        self.attempted = ["before"]
        self.errors: list[StoreUnavailable] = []
        self._session = store.get("s")
        self._run = 0

    def run(self) -> None:
        """Do it all, once."""
        self._run += 1
        self._try(self._say, f"plain {self._run}")
        self._try(self._say, "with an id", message_id="id")
        self._try(self._turn)
        self._try(self._store.sessions)
        self._try(lambda: self._store.session("new", user_id="u"))
        self._try(self._delete)
        self._try(lambda: self._store.scrub(vacuum=False))
        self._try(self._store.rebuild)
        self._try(self._say, f"last {self._run}")

    def _say(self, words: str, **given: str) -> None:
        self.attempted.append(words)
        self._session.add_message("user", words, message_id=given.get("message_id"))
        self._acknowledged(words)

    def _turn(self) -> None:
        words = [f"turn {i} ".ljust(3_000, "x") for i in range(TURN)]
        self.attempted += words
        with self._session.turn(command_id="turn"):
            for word in words:
                self._session.add_message("user", word)
        self._acknowledged(*words)

    def _delete(self) -> None:
        if self._store.exists("doomed"):
            self._store.get("doomed").delete()

    def _acknowledged(self, *words: str) -> None:
        self.said += [word for word in words if word not in self.said]

    def _try(self, act: Callable[..., object], *given: str, **more: str) -> None:
        try:
            act(*given, **more)
        except StoreUnavailable as error:
            self.errors.append(error)
        except turnlog.TurnlogError as error:  # "there is no session": its step has failed
            if not self.errors:
                raise AssertionError("it was told by a step without a fault") from error


@pytest.mark.parametrize("way", WAYS)
def test_every_call_fails_once(fast: Path, way: str) -> None:
    """The error is told, what was acknowledged is there, turns are whole, and the store works on at once."""
    number, told, calls = WAYS[way].first, 0, WAYS[way].first
    while number <= calls:
        calls, errors = fail_at(fast / f"{number}", WAYS[way], number)
        told += bool(errors)
        number += max(WAYS[way].every // THOROUGH, 1)
    assert told > 2


def fail_at(directory: Path, way: Way, number: int) -> tuple[int, int]:
    """Run the scenario with its ``number``-th call failing; return how many calls there were, and errors."""
    directory.mkdir()
    url = f"sqlite:///{directory}/sessions.db"
    calls = 0

    def fault(operation: Operation) -> int:
        nonlocal calls
        calls += operation.kind in way.kinds
        return way.code if operation.kind in way.kinds and calls == number else 0

    with Disk(directory) as disk:
        with turnlog.open(url) as store:
            store.session("s", user_id="u").add_message("user", "before")
            store.session("doomed", user_id="u").add_message("user", "SECRET")
            scenario = Scenario(store)
            disk.torn, disk.fault = way.torn, fault
            scenario.run()
            disk.fault = lambda _: 0
            check(store, scenario)
            scenario.run()
            check(store, scenario)
            assert len(scenario.errors) <= 2, scenario.errors
        with turnlog.open(url) as store:
            check(store, scenario)
    return calls, len(scenario.errors)


def check(store: turnlog.ConversationStore, scenario: Scenario) -> None:
    """Require that all that was acknowledged is there, in order, and nothing that was not tried."""
    report = store.verify()
    assert report.ok, (report.failures, scenario.errors)
    found = [str(message.content) for message in store.get("s").history()]
    assert [words for words in found if words in scenario.said] == scenario.said
    assert set(found) <= set(scenario.attempted)
    assert sum(words.startswith("turn") for words in found) in (0, TURN)
    names = {summary.session_id for summary in store.sessions().items}
    assert names >= {"s"}
    assert all(store.exists(name) for name in names)
