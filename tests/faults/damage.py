"""Damage done to the bytes of a file, and copies of one prepared store to do it to."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.faults.script import Run, steps

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

    ``ends`` are the lengths of the write-ahead log (of the first) after each step.
    """

    in_wal: Files
    in_both: Files
    in_main: Files
    ends: tuple[int, ...]


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


def damages(kind: str, size_bytes: int, n: int) -> Iterator[Damage]:
    """Yield ``n`` places all over a file, the same in every run."""
    dice = random.Random(f"{kind} {n}")  # noqa: S311 - no secret
    for seed in range(n):
        yield Damage(kind, dice.randrange(size_bytes), dice.choice((1, 4, 32, 512, PAGE, 3 * PAGE)), seed)


def prepare(directory: Path) -> Prepared:
    """Play the steps and keep the files."""
    all_steps = steps()
    path, wal = directory / "wal.db", directory / "wal.db-wal"
    run, ends = Run(), list[int]()
    with run.open(f"sqlite:///{path}") as store:
        run.play(store, all_steps, lambda: ends.append(wal.stat().st_size))
        in_wal = Files(path.read_bytes(), wal.read_bytes())
    assert sorted(set(ends)) == ends, "the write-ahead log was checkpointed"
    path, wal, run = directory / "both.db", directory / "both.db-wal", Run()
    half = len(all_steps) // 2
    with run.open(f"sqlite:///{path}") as store:
        run.play(store, all_steps[:half], lambda: None)
    older = path.read_bytes()
    with run.open(f"sqlite:///{path}") as store:
        run.play(store, all_steps[half:], lambda: None)
        in_both = Files(path.read_bytes(), wal.read_bytes(), older)
    return Prepared(in_wal, in_both, Files(path.read_bytes(), b"", older), tuple(ends))
