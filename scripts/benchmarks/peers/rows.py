"""turnlog beside what people keep conversations in today; docs/benchmarks.md says how, and what it does not show."""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import NamedTuple

from scripts.benchmarks.measuring import Figure, Setting, Side, Unit, compared, side_by_side
from scripts.benchmarks.peers import environment
from scripts.benchmarks.peers.answering import said
from scripts.benchmarks.peers.asking import Package, Program, size_bytes

_PEERS = (
    ("OpenAI Agents SQLiteSession", ("openai_agents",)),
    ("LangGraph SqliteSaver", ("langgraph_saver",)),
    ("LangGraph SqliteSaver, DeltaChannel (beta)", ("langgraph_saver", "delta")),
    ("Google ADK DatabaseSessionService", ("google_adk",)),
)
_LENIENT = _PEERS[1][0]
"""The one that takes a connection, so that its durability can be set: turnlog's ``normal`` is measured beside it."""
_OURS = ("turnlog_sessions",)
_WORKERS = ("a", "b")
_LAST = 20
_LONG = "long"


class _File(NamedTuple):
    """A package's program, and a file that it has open."""

    program: Program
    path: Path
    durability: str

    def size_bytes(self) -> int:
        """Return the file's size; it is closed for that."""
        self.program.ask("close")
        size = size_bytes(self.path)
        self.open()
        return size

    def open(self) -> None:
        """Have the program open it."""
        self.program.ask("open", self.path, self.durability)

    def join(self, session_id: str) -> None:
        """Have the program turn to this session."""
        self.program.ask("join", session_id)

    def turns(self, n: int) -> list[float]:
        """Return the seconds that each of ``n`` turns took."""
        seconds: list[float] = self.program.ask("turns", n)
        return seconds


def peers(setting: Setting) -> list[Figure]:
    """A chat kept by turnlog beside the OpenAI Agents SDK, LangGraph, Google ADK: turns, bytes, reading, two writers.

    Each side is a process of its own that keeps its file open and is asked the same through the same lines. The peers
    are installed, as pinned, into .venv-peers; where they cannot be, this measures nothing and says so.
    """
    python = environment.python()
    if python is None:
        return []
    figures: list[Figure] = []
    for number, (name, program) in enumerate(_PEERS):
        folder = setting.folder / str(number)
        folder.mkdir()
        with ExitStack() as stack:
            peer = Package(name, python, program)
            sides = [
                [stack.enter_context(Program(package, folder / f"{side}-{worker}.log")) for worker in _WORKERS]
                for side, package in (("ours", Package("turnlog", Path(sys.executable), _OURS)), ("theirs", peer))
            ]
            own = setting._replace(folder=folder)
            firsts = [workers[0] for workers in sides]
            figures += _beside(own, peer, firsts, "full")
            figures += _raced(own, peer, sides)
            if name == _LENIENT:
                figures += _beside(own, peer, firsts, "normal")
    return figures


def _beside(setting: Setting, peer: Package, programs: Sequence[Program], durability: str) -> list[Figure]:
    """Measure what one process does: turns, what they add to the file, reading, and opening."""
    files = [_File(program, setting.folder / f"{i}-{durability}.db", durability) for i, program in enumerate(programs)]
    for file in files:
        file.open()
    figures = _short(setting, peer, files)
    rounds, n, there = setting.pick(5, 1) + 1, setting.pick(10, 3), 0
    for length in setting.pick((1_000, 5_000), (50, 100)):
        for file in files:
            file.join(_LONG)
            file.program.ask("fill", (length - there) // 2)
        sides = [partial(_median_of_turns, file, n) for file in files]
        figures += _turns_and_bytes(setting, peer, files, sides, length, messages=2 * rounds * n)
        there = length + 2 * rounds * n
    figures += _reads(setting, peer, files, there)
    settings = " beside ".join(str(file.program.ask("settings")) for file in files)
    print(f"    {peer.name}: {settings}", file=sys.stderr)
    for file in files:
        file.program.ask("close")
        file.path.unlink()
    return figures


def _short(setting: Setting, peer: Package, files: Sequence[_File]) -> list[Figure]:
    """The fifth turn, messages 9 and 10, of new sessions."""
    ids, rounds, n = count(), setting.pick(5, 1) + 1, setting.pick(10, 2)

    def fifth_turns(file: _File) -> float:
        times: list[float] = []
        for _ in range(n):
            file.join(f"short-{next(ids)}")
            times.append(file.turns(5)[-1])
        return median(times)

    sides = [partial(fifth_turns, file) for file in files]
    return _turns_and_bytes(setting, peer, files, sides, 10, messages=10 * rounds * n)


def _turns_and_bytes(
    setting: Setting, peer: Package, files: Sequence[_File], sides: Sequence[Side], length: int, *, messages: int
) -> list[Figure]:
    before = [file.size_bytes() for file in files]
    for file in files:
        file.join(_LONG)
    pair = side_by_side(setting.pick(5, 1), *sides)
    ours, theirs = ((file.size_bytes() - size) / messages for file, size in zip(files, before, strict=True))
    for file in files:
        file.join(_LONG)
    what = f"durability {files[0].durability}"
    return [
        compared("peers", f"a turn at message {length:,}, {what}", pair, against=peer.name),
        _once(f"bytes that a message adds to the file at message {length:,}, {what}", ours, theirs, peer, unit="B"),
    ]


def _median_of_turns(file: _File, n: int) -> float:
    return median(file.turns(n))


def _reads(setting: Setting, peer: Package, files: Sequence[_File], length: int) -> list[Figure]:
    def last(file: _File) -> float:
        return float(file.program.ask("last", _LAST))

    def reopened(file: _File) -> float:
        return float(file.program.ask("reopen", file.path, file.durability, _LONG, _LAST))

    reads = side_by_side(setting.pick(9, 1), *(partial(last, file) for file in files))
    opens = side_by_side(setting.pick(5, 1), *(partial(reopened, file) for file in files))
    of = f"the last {_LAST} messages of {length:,}, durability {files[0].durability}"
    return [
        compared("peers", f"read {of}", reads, against=peer.name),
        compared("peers", f"open and read {of}", opens, against=peer.name),
    ]


class _Race(NamedTuple):
    """What became of the messages of two writers."""

    there: int
    lost: int
    raised: Counter[str]


def _raced(setting: Setting, peer: Package, sides: Sequence[Sequence[Program]]) -> list[Figure]:
    """Two processes, 250 turns each to one session at the same time: what is there, what is not, who was told."""
    turns = setting.pick(250, 10)
    ours, theirs = (_race(programs, setting.folder / f"{i}-race.db", turns) for i, programs in enumerate(sides))
    of = f"two processes, {2 * turns:,} messages each to one session"
    note = "; ".join(f"{n} times {kind}" for race in (ours, theirs) for kind, n in sorted(race.raised.items()))
    return [
        _once(f"{of}: there afterwards", ours.there, theirs.there, peer, unit="messages"),
        _once(f"{of}: turns that raised", ours.raised.total(), theirs.raised.total(), peer, unit="errors", note=note),
        _once(f"{of}: gone without an error", ours.lost, theirs.lost, peer, unit="messages"),
    ]


def _race(programs: Sequence[Program], path: Path, turns: int) -> _Race:
    files = [_File(program, path, "full") for program in programs]
    for file in files:
        file.open()
        file.join(_LONG)
    for worker, file in zip(_WORKERS, files, strict=True):
        file.program.tell("race", worker, turns)
    answers = [file.program.answer() for file in files]
    for file in files:
        file.program.ask("close")
    files[0].open()
    files[0].join(_LONG)
    there = set[str](programs[0].ask("everything"))
    programs[0].ask("close")
    kept = {
        text for worker, told in zip(_WORKERS, answers, strict=True) for i in told["kept"] for text in said(worker, i)
    }
    raised = Counter[str]()
    for told in answers:
        raised.update(told["raised"])
    return _Race(there=len(there), lost=len(kept - there), raised=raised)


def _once(what: str, ours: float, theirs: float, peer: Package, *, unit: Unit, note: str = "") -> Figure:
    """Write down what was counted once on both sides."""
    ratio = ours / theirs if unit == "B" and theirs else None
    return Figure(
        name="peers",
        what=what,
        unit=unit,
        ours=ours,
        ours_best=ours,
        against=peer.name,
        raw=theirs,
        raw_best=theirs,
        ratio=ratio,
        ratio_best=ratio,
        rounds=1,
        note=note,
    )
