"""Several processes on one SQLite file, and how long a process takes to start."""

import os
import subprocess
import sys
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import turnlog
from scripts.benchmarks.measuring import Figure, Setting, Target, alone, compared, side_by_side, timed
from scripts.benchmarks.stores import LONG, TEXT, fill, url_of

PROCESSES = 8
HALF = Target(0.5, at_least=True)
PROMPT = Target(0.2, of="ours")
NONE = Target(0, of="ours")
SOON = Target(1.3)
_FIRST_READ = """
import sys
import turnlog

with turnlog.open(sys.argv[1]) as store:
    store.get(sys.argv[2]).history(last=10)
"""
_IMPORTS = "import pydantic, eventsourcing.persistence, msgspec"
_SPAWN = get_context("spawn")
_READY_S = 60


class Writer(NamedTuple):
    """What one process did: when it began and ended (the system's monotonic clock), its longest call, what failed."""

    began: float
    ended: float
    worst_s: float
    errors: tuple[str, ...]


def processes(setting: Setting) -> list[Figure]:
    """8 processes appending to one session of one file, durable, against one process; both sides are turnlog's.

    Each side appends the same number of messages, one commit each. A wait is the time one ``add_message`` took; the
    worst of all rounds counts, and every error that reached a caller.
    """
    writes = setting.pick(4_096, 512)
    path = setting.folder / "shared.db"
    with turnlog.open(url_of(path)) as store:
        store.session(LONG)
    several: list[Writer] = []
    single: list[Writer] = []
    pair = side_by_side(
        setting.pick(5, 1),
        partial(_append_at_once, path, PROCESSES, writes, several),
        partial(_append_at_once, path, 1, writes, single),
    )
    with turnlog.open(url_of(path)) as store:
        lost = writes * (len(pair.ours) + 1) * 2 - store.get(LONG).state.message_count
    what = f"{PROCESSES} processes appending to one session"
    errors = [error for writer in several for error in writer.errors] + ["lost"] * lost
    return [
        compared("processes", what, pair, against="one process", unit="writes/s", target=HALF),
        alone(
            "processes",
            f"{what}: worst wait",
            [max(writer.worst_s for writer in several[i : i + PROCESSES]) for i in range(0, len(several), PROCESSES)],
            unit="s",
            target=PROMPT,
            note=f"median of the processes' worst {median(writer.worst_s for writer in several) * 1000:.0f} ms,"
            f" of one process alone {max(writer.worst_s for writer in single) * 1000:.0f} ms",
        ),
        alone(
            "processes",
            f"{what}: errors and lost messages",
            [len(errors)],
            unit="errors",
            target=NONE,
            note="; ".join(sorted(set(errors))),
        ),
    ]


def start(setting: Setting) -> list[Figure]:
    """A process that imports turnlog, opens a store that is there and reads a history. Raw: one with three imports.

    Both are whole processes of ``python -c``, from bytecode, as installed packages are run; the interpreter's own start
    is part of both. Beside it, without that.
    """
    path = setting.folder / "start.db"
    with turnlog.open(url_of(path)) as store:
        fill(store.session(LONG, user_id="user-1"), 20)
    rounds = setting.pick(21, 3)
    ours = partial(_python, _FIRST_READ, url_of(path), LONG)
    whole = side_by_side(rounds, ours, partial(_python, _IMPORTS))
    bare = median(_python("pass") for _ in range(rounds))
    net = side_by_side(rounds, lambda: ours() - bare, lambda: _python(_IMPORTS) - bare)
    what = "cold start: import, open, first read"
    return [
        compared("start", what, whole, against=_IMPORTS, target=SOON),
        compared(
            "start",
            f"{what}, less the interpreter's own start",
            net,
            against="the same imports",
            note=f"the interpreter's own start takes {bare * 1000:.0f} ms",
        ),
    ]


def _append_at_once(path: Path, n: int, writes: int, writers: list[Writer]) -> float:
    """Have ``n`` processes append at the same time; return all their writes per second."""
    barrier = _SPAWN.Barrier(n)
    started: list[tuple[SpawnProcess, Connection]] = []
    for _ in range(n):
        reading, writing = _SPAWN.Pipe(duplex=False)
        process = _SPAWN.Process(target=_append, args=(path, writes // n, barrier, writing))
        process.start()
        writing.close()  # so that the end of the process is the end of the pipe
        started.append((process, reading))
    done = [Writer(*reading.recv()) for _, reading in started]
    for process, _ in started:
        process.join()
    writers += done
    return writes / (max(writer.ended for writer in done) - min(writer.began for writer in done))


def _append(path: Path, writes: int, barrier: Barrier, results: Connection) -> None:
    """Append when all are ready; runs in a process of its own."""
    worst, errors = 0.0, list[str]()
    with turnlog.open(url_of(path)) as store:
        session = store.get(LONG)
        barrier.wait(_READY_S)
        began = now = perf_counter()
        for _ in range(writes):
            try:
                session.add_message("user", TEXT)
            except turnlog.TurnlogError as error:
                errors.append(f"{type(error).__name__}: {error}")
            before, now = now, perf_counter()
            worst = max(worst, now - before)
    results.send(Writer(began, now, worst, tuple(errors)))


def _python(code: str, *arguments: str) -> float:
    """Run a program that may keep bytecode; return the seconds it took from start to end."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code, *arguments]
    return timed(1, lambda: subprocess.run(command, env=environment, check=True))
