"""How everything here is measured: two sides in turn, in rounds, and what one such comparison is written down as.

Machines are noisy and speeds are not comparable between them, so a figure is a ratio: each round measures both sides
one right after the other, the first of the two taking turns. ``ratio`` is the median of the rounds' ratios, which is
what targets are held against; ``ratio_best`` is that of both sides' best rounds.
"""

import gc
from collections.abc import Callable, Sequence
from math import floor, log10
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")
Unit: TypeAlias = Literal["s", "B", "events/s", "writes/s", "MB", "errors", "messages"]
Side: TypeAlias = Callable[[], float]
"""One round of one side; it returns its cost in the figure's unit."""

_SCALES = {"s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")), "B": ((1e6, "MB"), (1e3, "kB"), (1.0, "B"))}


class Setting(NamedTuple):
    """What a benchmark is given: a folder of its own that is gone afterwards, and whether only to see that it works."""

    folder: Path
    quick: bool

    def pick(self, full: T, quick: T) -> T:
        """Return the size for this run."""
        return quick if self.quick else full


class Target(msgspec.Struct, frozen=True):
    """What DESIGN asks for; ``of`` says what is held against it."""

    limit: float
    at_least: bool = False
    of: Literal["ratio", "ours"] = "ratio"

    def met(self, value: float) -> bool:
        """Tell whether ``value`` is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit


class Pair(NamedTuple):
    """What several rounds of two sides gave, in order."""

    ours: Sequence[float]
    raw: Sequence[float]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return median(ours / raw for ours, raw in zip(self.ours, self.raw, strict=True))


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. Medians over ``rounds``; the best is the smallest, of a rate the largest."""

    name: str
    what: str
    unit: Unit
    ours: float
    ours_best: float
    against: str = ""
    raw: float | None = None
    raw_best: float | None = None
    ratio: float | None = None
    ratio_best: float | None = None
    target: Target | None = None
    met: bool | None = None
    rounds: int
    note: str = ""


def timed(n: int, action: Callable[[], object]) -> float:
    """Return the seconds that one of the ``n`` things took that ``action`` does."""
    gc.collect()
    began = perf_counter()
    action()
    return (perf_counter() - began) / n


def typically(n: int, one: Callable[[], object]) -> float:
    """Do ``one`` thing ``n`` times; return the median of the seconds it took."""
    gc.collect()
    times: list[float] = []
    for _ in range(n):
        began = perf_counter()
        one()
        times.append(perf_counter() - began)
    return median(times)


def rate(n: int, action: Callable[[], object]) -> float:
    """Return how many of the ``n`` things that ``action`` does it did in a second."""
    return 1 / timed(n, action)


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which that part of them lies."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


def side_by_side(rounds: int, ours: Side, raw: Side) -> Pair:
    """Run both sides in turn, once unmeasured, then ``rounds`` times."""
    costs: tuple[list[float], list[float]] = ([], [])
    sides = ((0, ours), (1, raw))
    for i in range(rounds + 1):
        for which, side in sides if i % 2 else sides[::-1]:
            cost = side()
            if i:
                costs[which].append(cost)
    return Pair(*costs)


def compared(
    name: str, what: str, pair: Pair, *, against: str, unit: Unit = "s", target: Target | None = None, note: str = ""
) -> Figure:
    """Write down a comparison."""
    best = max if unit.endswith("/s") else min
    ours, raw = median(pair.ours), median(pair.raw)
    return Figure(
        name=name,
        what=what,
        unit=unit,
        ours=ours,
        ours_best=best(pair.ours),
        against=against,
        raw=raw,
        raw_best=best(pair.raw),
        ratio=pair.ratio,
        ratio_best=best(pair.ours) / best(pair.raw),
        target=target,
        met=None if target is None else target.met(pair.ratio if target.of == "ratio" else ours),
        rounds=len(pair.ours),
        note=note,
    )


def alone(
    name: str, what: str, values: Sequence[float], *, unit: Unit, target: Target | None, note: str = ""
) -> Figure:
    """Write down something that has no counterpart; its worst round is held against the target."""
    worst, best = (min, max) if unit.endswith("/s") else (max, min)
    return Figure(
        name=name,
        what=what,
        unit=unit,
        ours=worst(values),
        ours_best=best(values),
        target=target,
        met=None if target is None else target.met(worst(values)),
        rounds=len(values),
        note=note,
    )


def shown(value: float | None, unit: Unit) -> str:
    """Return a value as people read it."""
    if value is None:
        return ""
    if unit not in _SCALES:
        return f"{value:,.0f} {unit}"
    scales = _SCALES[unit]
    scale, name = next(((scale, name) for scale, name in scales if abs(value) >= scale), scales[-1])
    digits = max(0, 2 - floor(log10(abs(value / scale)))) if value else 0
    return f"{value / scale:,.{digits}f} {name}"


def shown_target(target: Target | None, unit: Unit) -> str:
    """Return a target as people read it."""
    if target is None:
        return ""
    limit = f"{target.limit:.3g}" if target.of == "ratio" else shown(target.limit, unit)
    return f"{'≥' if target.at_least else '≤'} {limit}"
