"""Trials: notes beside a database that must outlive the process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import turnlog
from turnlog.adapters.bookkeeping import Trials
from turnlog.domain.errors import StoreUnavailable
from turnlog.projections.view_store import Trial
from turnlog.store import CATCH_UP_EVERY


def test_a_trial_is_there_until_it_ends(tmp_path: Path) -> None:
    """What was noted is read, also by another process; a note that was cut is none."""
    trials, others = (Trials(f"{tmp_path}/t.db") for _ in range(2))
    assert trials.read("v") is None
    trials.begin("v", Trial(1, 2, 3))
    assert others.read("v") == Trial(1, 2, 3)
    (tmp_path / "t.db.trial-v").write_text("[1, 2")
    assert others.read("v") is None
    trials.end("v")
    trials.end("v")
    assert list(tmp_path.iterdir()) == []


def test_where_no_note_can_be_made(tmp_path: Path) -> None:
    """Where the file system fails, the storage is not available; no error of the system's comes out."""
    trials = Trials(f"{tmp_path}/t.db")
    (tmp_path / "t.db.trial-v").mkdir()
    uses: list[Callable[[], object]] = [
        lambda: trials.read("v"),
        lambda: trials.begin("v", Trial(1, 2, 3)),
        lambda: trials.end("v"),
    ]
    for use in uses:
        with pytest.raises(StoreUnavailable, match="view 'v'") as caught:
            use()
        assert isinstance(caught.value.__cause__, OSError)


class Positions:
    """A view of positions."""

    name = "positions"
    revision = 1

    def create(self, connection: Any) -> None:
        """Create the table."""
        connection.execute("CREATE TABLE positions (position INTEGER)")

    def apply(self, events: object, connection: object) -> None:
        """Note nothing."""


def test_a_write_stands_where_no_note_can_be_made(tmp_path: Path) -> None:
    """A writer that brings the views along, and cannot, goes on: what it wrote is written."""
    with turnlog.open(f"sqlite:///{tmp_path}/s.db", durability="normal") as store:
        store.add_projection(Positions())
        (tmp_path / "s.db.trial-positions").mkdir()
        session = store.session("s")
        for n in range(CATCH_UP_EVERY + 1):
            assert session.add_message("user", "hello").version == n + 2
        with pytest.raises(StoreUnavailable, match="positions"):
            store.catch_up()
