"""Damage done to the bytes of a file, and copies of one prepared store to do it to."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import turnlog
from tests.faults.script import Run, answer, past, steps
from turnlog.domain.errors import StoreError, TurnlogError
from turnlog.domain.values import VerificationReport

PAGE = 4096
KINDS = ("cut", "zero", "overwrite", "flip")
PAGE_KINDS = (*KINDS, "swap", "stale")


class Files(NamedTuple):
    """A database as it lies on the disk. ``older`` is the main file as it was halfway."""

    main: bytes
    wal: bytes = b""
    older: bytes = b""

    def write(self, path: Path) -> None:
        """Put the files where a store will find them."""
        path.write_bytes(self.main)
        if self.wal:
            Path(f"{path}-wal").write_bytes(self.wal)


class Prepared(NamedTuple):
    """The store after all steps: with all of it in the write-ahead log, half of it, or nothing.

    ``ends`` are the lengths that the write-ahead log (of the first) must have to hold each step; ``half`` is how many
    steps the main file of the second holds.
    """

    in_wal: Files
    in_both: Files
    in_main: Files
    ends: tuple[int, ...]
    half: int


class Damage(NamedTuple):
    """What is done to a file of ``size_bytes`` bytes; ``seed`` gives the bytes that are written."""

    kind: str
    offset: int
    length: int = 0
    seed: int = 0

    def done_to(self, data: bytes, older: bytes = b"") -> bytes:
        """Return the damaged bytes."""
        start, end = self.offset, min(self.offset + self.length, len(data))
        dice = random.Random(self.seed)  # noqa: S311 - no secret
        match self.kind:
            case "cut":
                return data[:start]
            case "zero":
                new = bytes(end - start)
            case "overwrite":
                new = dice.randbytes(end - start)
            case "flip":
                new, end = bytes([data[start] ^ 1 << dice.randrange(8)]), start + 1
            case "swap":  # another page was written here
                other = dice.randrange(len(data) // PAGE) * PAGE
                start, end, new = start // PAGE * PAGE, start // PAGE * PAGE + PAGE, data[other : other + PAGE]
            case "stale":  # the last write of this page was lost
                start = start % len(older) // PAGE * PAGE
                end, new = start + PAGE, older[start : start + PAGE]
            case _:
                raise ValueError(self.kind)
        return data[:start] + new + data[end:]


class Found(NamedTuple):
    """What a store has answered, if anything, and what its verification found; ``told`` is what it said of damage.

    Without ``ours`` something was raised that is no ``StoreError``.
    """

    answer: bytes | None
    report: VerificationReport | None
    told: str = ""
    ours: bool = True

    @property
    def ok(self) -> bool:
        """Whether the store answered and its verification is green."""
        return self.answer is not None and self.report is not None and self.report.ok

    @property
    def step(self) -> int | None:
        """The step after which the store gave this answer."""
        return past().answers.index(self.answer) if self.answer in past().answers else None

    @property
    def wrong(self) -> bool:
        """Whether damage was not told although it shows."""
        green = self.report is not None and self.report.ok
        return not self.ours or (green and self.step is None)


def examine(files: Files, directory: Path) -> Found:
    """Open a store on these files, in a directory that is made for it, ask it everything and verify it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    files.write(directory / "store.db")
    try:
        store = Run().open(f"sqlite:///{directory}/store.db", durability="normal")
    except TurnlogError as error:
        return Found(None, None, repr(error))
    except Exception as error:  # noqa: BLE001 - told to the test
        return Found(None, None, repr(error), ours=False)
    with store:
        return _asked(store)


def _asked(store: turnlog.ConversationStore) -> Found:
    found = Found(None, None)
    try:
        try:
            found = found._replace(answer=answer(store, past().session_ids))
        except StoreError as error:
            found = found._replace(told=repr(error))
        report = store.verify()
    except StoreError as error:
        return found._replace(told=repr(error))
    except Exception as error:  # noqa: BLE001 - told to the test
        return found._replace(told=repr(error), ours=False)
    return found._replace(report=report, told=f"{found.told} {report.failures}")


def damages(kind: str, size_bytes: int, n: int) -> Iterator[Damage]:
    """Yield ``n`` places all over a file, the same in every run."""
    dice = random.Random(f"{kind} {n}")  # noqa: S311 - no secret
    for seed in range(n):
        yield Damage(kind, dice.randrange(size_bytes), dice.choice((1, 4, 32, 512, PAGE, 3 * PAGE)), seed)


def prepare(directory: Path) -> Prepared:
    """Play the steps and keep the files."""
    all_steps = steps()
    path, wal = directory / "wal.db", directory / "wal.db-wal"
    run = Run()
    with run.open(f"sqlite:///{path}") as store:
        starts = [wal.stat().st_size]
        run.play(store, all_steps, lambda: starts.append(wal.stat().st_size))
        in_wal = Files(path.read_bytes(), wal.read_bytes())
    assert sorted(set(starts)) == starts, "the write-ahead log was checkpointed"
    ends = [_first_commit(in_wal.wal, start) for start in starts[:-1]]
    path, wal, run = directory / "both.db", directory / "both.db-wal", Run()
    half = len(all_steps) // 2
    with run.open(f"sqlite:///{path}") as store:
        run.play(store, all_steps[:half], lambda: None)
    older = path.read_bytes()
    with run.open(f"sqlite:///{path}") as store:
        run.play(store, all_steps[half:], lambda: None)
        in_both = Files(path.read_bytes(), wal.read_bytes(), older)
    return Prepared(in_wal, in_both, Files(path.read_bytes(), b"", older), tuple(ends), half)


def _first_commit(wal: bytes, start: int) -> int:
    """Return where the first transaction above ``start`` ends: what follows in its step brings views up to date."""
    while wal[start + 4 : start + 8] == bytes(4):  # a frame's second field is the database's size, if it is a commit
        start += 24 + PAGE
    return start + 24 + PAGE
