"""Torn files: the write-ahead log or the database itself cut, zeroed, overwritten, its pages swapped or stale.

What is left of the log is a whole prefix of whole turns. Damage to the main file is told, or has changed nothing: a
store that verifies gives the answers it gave after some step. The damages are the same in every run; one that is not
survived is told as a value for ``KNOWN``.
"""

from bisect import bisect_right
from pathlib import Path

import pytest

from tests.faults.conftest import THOROUGH
from tests.faults.damage import KINDS, PAGE_KINDS, Damage, Files, Prepared, damages, examine, prepare
from tests.faults.script import past

WAL_DAMAGES = 16 * THOROUGH
"""Of each kind, to each of two logs."""
MAIN_DAMAGES = 10 * THOROUGH
"""Of each kind, to each of two files."""
KNOWN = {
    "a topic became NULL": Damage("zero", 217505, 32, 1),
    "a topic became a number": Damage("swap", 176183, 12288, 15),
    "a state became text": Damage("swap", 346350, 4096, 2),
    "an index lost an event": Damage("flip", 249790, 4096, 15),
    "the schema is no text": Damage("overwrite", 97945, 1, 81),
}
"""What was once not survived."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """One store with a known past."""
    return prepare(tmp_path_factory.mktemp("prepared"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_before_the_damage_of_a_write_ahead_log_is_kept_and_whole(
    prepared: Prepared, tmp_path: Path, kind: str
) -> None:
    """The store is exactly as after the last step whose bytes all lie before the damage, and verifies."""
    files, wrong, steps = prepared.in_wal, list[tuple[Damage, str]](), set[int]()
    for damage in damages(kind, len(files.wal), WAL_DAMAGES):
        torn = files._replace(wal=damage.done_to(files.wal))
        found = examine(torn, tmp_path / "store")
        step = bisect_right(prepared.ends, _first_difference(files.wal, torn.wal))
        steps.add(step)
        if not (found.ok and found.answer == past().answers[step]):
            wrong.append((damage, found.told))
    assert not wrong
    assert len(steps) > WAL_DAMAGES // 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_write_ahead_log_over_a_checkpointed_file_leaves_a_prefix(
    prepared: Prepared, tmp_path: Path, kind: str
) -> None:
    """With half of the past in the main file the store is as after some later step, and verifies."""
    files, wrong, steps = prepared.in_both, list[tuple[Damage, str]](), set[int]()
    for damage in damages(kind, len(files.wal), WAL_DAMAGES):
        found = examine(files._replace(wal=damage.done_to(files.wal)), tmp_path / "store")
        if not (found.ok and found.step is not None and found.step >= prepared.half):
            wrong.append((damage, found.told))
        steps.add(found.step or 0)
    assert not wrong
    assert len(steps) > WAL_DAMAGES // 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", PAGE_KINDS)
@pytest.mark.parametrize("place", ["in_main", "in_both"])
def test_a_damaged_main_file_is_told_or_has_changed_nothing(
    prepared: Prepared, tmp_path: Path, place: str, kind: str
) -> None:
    """Never a wrong answer with a green verify, and no error but the store's own."""
    files: Files = getattr(prepared, place)
    wrong, told = list[tuple[str, Damage, str]](), 0
    for damage in damages(kind, len(files.main), MAIN_DAMAGES):
        found = examine(files._replace(main=damage.done_to(files.main, files.older)), tmp_path / "store")
        told += not found.ok
        if found.wrong:
            wrong.append((place, damage, found.told))
    assert not wrong
    assert told or (place, kind) == ("in_both", "stale")  # there the older page is the very page


@pytest.mark.parametrize("name", KNOWN)
def test_damage_that_was_once_not_survived(prepared: Prepared, tmp_path: Path, name: str) -> None:
    """What has failed before stays right."""
    for files in (prepared.in_main, prepared.in_both):
        found = examine(files._replace(main=KNOWN[name].done_to(files.main, files.older)), tmp_path / "store")
        assert not found.wrong, found.told


def test_the_undamaged_files_hold_everything(prepared: Prepared, tmp_path: Path) -> None:
    """Without damage all three copies verify and answer as after the last step."""
    for files in (prepared.in_wal, prepared.in_both, prepared.in_main):
        found = examine(files, tmp_path / "store")
        assert (found.ok, found.step) == (True, len(past().answers) - 1), found.told


def test_a_wrong_answer_is_noticed(prepared: Prepared, tmp_path: Path) -> None:
    """The measure of these tests: a store that verifies but was never so is called wrong."""
    found = examine(prepared.in_main, tmp_path / "store")
    assert not found.wrong
    assert found._replace(answer=b"[]").wrong
    assert found._replace(answer=None, told="IndexError", ours=False).wrong


def _first_difference(before: bytes, after: bytes) -> int:
    return next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after))
