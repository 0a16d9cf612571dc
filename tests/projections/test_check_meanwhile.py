"""Checking views on SQLite while somebody clears away what checks that died have left."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.projections.log import Log, filled
from turnlog.adapters.sqlite import locking, scratch
from turnlog.adapters.sqlite.database import Database

Between: TypeAlias = Callable[[Callable[[str], object]], None]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A database."""
    return str(tmp_path / "log.db")


@pytest.fixture
def between(path: str, monkeypatch: pytest.MonkeyPatch) -> Between:
    """Have something done, once, when a check has made the file of its claim and not yet locked it."""

    def plan(do: Callable[[str], object]) -> None:
        opened = locking.opened

        def opening(file: str, words: str = "") -> int:
            descriptor = opened(file, words)
            if "-check-" in file:
                monkeypatch.undo()
                do(file.removeprefix(f"{path}-").removesuffix(".claim"))
            return descriptor

        monkeypatch.setattr(locking, "opened", opening)

    return plan


def test_its_claim_is_cleared_away(path: str, between: Between) -> None:
    """It claims the name anew: what it builds after that is nobody's to clear away."""
    name = f"check-session_index-{'0' * 32}"
    with closing(Log(path)) as log, closing(Database(path)) as database:
        between(lambda _: log.views.discard_builds())
        with database.claim(name) as got:
            assert got
            assert scratch.left_beside(path) == [name]
            assert log.views.discard_builds() == ["session_index"]


def test_its_claim_is_being_cleared_away(path: str, between: Between) -> None:
    """It takes another place, rather than say that there is none."""
    with closing(Log(path)) as log, closing(Database(path)) as clearing, ExitStack() as held:
        filled(log).with_views().engine.catch_up()
        between(lambda name: held.enter_context(clearing.claim(name)))
        assert log.engine.check("session_index") == []
