"""Power loss, simulated below SQLite: what was not synced is lost in any part, and torn.

What was acknowledged survives with durability ``full``; with ``normal`` the newest may be missing, and what is there is
a whole prefix all the same.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from tests.faults.conftest import THOROUGH
from tests.faults.disk import Crash, Disk, Operation, crashes
from tests.faults.script import Run, answer, past, steps

pytestmark = pytest.mark.slow
STATES = 60 * THOROUGH
"""Crash states of each durability."""


@pytest.fixture
def fast() -> Iterator[Path]:
    """A directory in memory, where there is one: the disk is simulated."""
    memory = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        yield Path(directory)


class Outcome(NamedTuple):
    """What a store holds after a crash: everything up to ``step``, where ``noted`` steps had been acknowledged."""

    noted: int
    step: int

    @property
    def lost(self) -> bool:
        """Whether something acknowledged is missing."""
        return self.step < self.noted


def record(directory: Path, durability: str) -> list[Operation]:
    """Play the steps with queries, a checkpoint and a restart between them; return what that did to the disk."""
    path, run, all_steps = directory / "sessions.db", Run(), steps()
    with Disk(directory) as disk:
        done = 0
        for begin, end in ((0, 70), (70, 120), (120, len(all_steps))):
            with run.open(f"sqlite:///{path}", durability=durability) as store:
                for step in all_steps[begin:end]:
                    run.play(store, [step], lambda: None)
                    done += 1
                    disk.mark(done)
                    if done % 9 == 0:
                        store.sessions()
                    if done % 50 == 0:
                        store.scrub(vacuum=False)
    return disk.operations


def outcome(crash: Crash, directory: Path) -> Outcome:
    """Open what the crash has left, and compare it with what was known."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for path, data in crash.files.items():
        (directory / Path(path).name).write_bytes(data)
    with Run().open(f"sqlite:///{directory}/sessions.db") as store:
        given = answer(store, past().session_ids)
        report = store.verify()
    assert report.ok, (crash.noted, report.failures)
    assert given in past().answers, crash.noted
    return Outcome(crash.noted, past().answers.index(given))


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_power_loss(fast: Path, durability: str) -> None:
    """Whatever the power failure leaves, the store opens, verifies and is a whole prefix; ``full`` loses nothing."""
    (fast / "before").mkdir()
    operations = record(fast / "before", durability)
    outcomes = [outcome(crash, fast / "after") for crash in crashes(operations, {}, STATES, seed=1)]
    assert all(found.step <= found.noted + 1 for found in outcomes)
    assert len({found.step for found in outcomes}) > 12
    assert any(found.lost for found in outcomes) == (durability == "normal")
