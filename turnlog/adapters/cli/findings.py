"""What ``doctor`` finds, one fact at a time, and the judgements that all servers share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from time import perf_counter
from typing import Literal, NamedTuple

import msgspec

from turnlog.domain.values import ViewStatus
from turnlog.index import OVERLAY_EVENTS

SYNCS = 9
TOO_FAST_S = 20e-6
"""No disk and no flash answers a sync that fast: something in between says it is written when it is not."""
CLOCKS_APART_S = 1.0
LOOKS = 5
LONG_S = 300.0
"""A transaction that has been open for so long keeps old rows that nobody needs."""
FULL = 0.8
"""Of the connections that a server allows."""
KIB = 1024


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """``ok``; a ``warning``: it works, but not as one may think; or ``bad``: what is promised does not hold.

    What is not ok may say what was ``expected``, ``why`` that matters and what to ``do``.
    """

    level: Literal["ok", "warning", "bad"]
    name: str
    found: str
    expected: str = ""
    why: str = ""
    do: str = ""

    @property
    def words(self) -> str:
        """All of it in one line."""
        expected = f"; expected {self.expected}" if self.expected else ""
        why = f": {self.why}" if self.why else ""
        return f"{self.found}{expected}{why}" + (f". {self.do}" if self.do else "")


def judged(name: str, found: str, *, good: bool) -> Finding:
    """Return a finding that is ``ok`` or ``bad``."""
    return Finding("ok" if good else "bad", name, found)


def unless(good: object, worse: Finding) -> Finding:
    """Return ``worse``, or where all is ``good`` only what was found."""
    return Finding("ok", worse.name, worse.found) if good else worse


def views(found: Iterable[ViewStatus]) -> Iterator[Finding]:
    """Judge how the views stand."""
    for view in found:
        words = f"{view.lag} {'position' if view.lag == 1 else 'positions'} behind, {view.parked} sessions parked"
        if view.parked:
            why = "a parked session shows its old rows: an event of it raised"
            yield Finding("warning", f"view {view.name}", words, why=why, do="Mend the view and raise its revision")
        else:
            why = f"beyond {OVERLAY_EVENTS} events a query waits for its view"
            worse = Finding("warning", f"view {view.name}", words, why=why, do="Have it followed: turnlog project")
            yield unless(view.lag <= OVERLAY_EVENTS, worse)


class Look(NamedTuple):
    """One look at a server's clock: by how much it is ahead, and by how much that may be wrong."""

    ahead_s: float
    uncertain_s: float


def clock(server_time: Callable[[], datetime]) -> Finding:
    """Compare a server's clock with this machine's; of several looks the one that took least is believed."""
    looks: list[Look] = []
    for _ in range(LOOKS):
        before, began = datetime.now(UTC), perf_counter()
        there = server_time()
        took_s = perf_counter() - began
        ahead = there - (before + timedelta(seconds=took_s / 2))
        looks.append(Look(ahead.total_seconds(), took_s / 2))
    return clocks_apart(min(looks, key=lambda look: look.uncertain_s))


def clocks_apart(look: Look) -> Finding:
    """Judge the difference of two clocks."""
    where = "ahead of" if look.ahead_s > 0 else "behind"
    words = (
        f"the server's is {abs(look.ahead_s) * 1000:.1f} ms {where} this machine's (± {look.uncertain_s * 1000:.1f} ms)"
    )
    worse = Finding(
        "warning",
        "clock",
        words,
        f"at most {CLOCKS_APART_S:g} s",
        "times in the log are those of the machine that wrote; their order is not what happened (positions are right)",
        "Have both machines keep time (NTP)",
    )
    return unless(abs(look.ahead_s) - look.uncertain_s <= CLOCKS_APART_S, worse)


def timed(commit: Callable[[], object]) -> float:
    """Return how long one commit takes: the median of several."""

    def once() -> float:
        began = perf_counter()
        commit()
        return perf_counter() - began

    once()  # the first also prepares
    return median(once() for _ in range(SYNCS))


def commits(durable_s: float, unsynced_s: float, *, synced: bool) -> Finding:
    """Judge how long a durable commit takes beside one that does not wait; ``synced``: the server says it syncs."""
    waited_s = durable_s - unsynced_s
    words = (
        f"{durable_s * 1000:.3f} ms (median of {SYNCS}); {unsynced_s * 1000:.3f} ms without waiting for it to be stored"
    )
    worse = Finding(
        "warning",
        "one durable commit",
        words,
        "a longer wait",
        "no disk stores that fast; what answers may lose it with the power",
        "Ask whoever runs the storage whether its cache survives power loss",
    )
    return unless(not synced or waited_s >= TOO_FAST_S, worse)


class Transaction(NamedTuple):
    """One that is open: whose, for how long (``None``: not shown to this user), and how it is ended."""

    who: str
    age_s: float | None
    end: str

    @property
    def words(self) -> str:
        """Whose, and for how long."""
        return self.who if self.age_s is None else f"{self.who}, open for {self.age_s:.0f} s"


def too_long(transactions: Sequence[Transaction]) -> Iterator[Finding]:
    """Judge open transactions: those that read keep old rows too."""
    old = [one for one in transactions if (one.age_s or 0) > LONG_S]
    for one in old:
        why = "the server cannot clear away rows that were deleted since, erased content among them"
        yield Finding("warning", "open transaction", one.words, f"at most {LONG_S:g} s", why, one.end)
    if not old:
        yield Finding("ok", "open transactions", f"none for more than {LONG_S:g} s")


def connections(used: int, most: int) -> Finding:
    """Judge how many of a server's connections are used."""
    worse = Finding(
        "warning",
        "connections",
        f"{used} of {most} in use",
        f"at most {FULL:.0%}",
        "a process that gets none cannot read or write",
        "Make pools smaller (pool_size=) or allow more",
    )
    return unless(used <= FULL * most, worse)


def size(n: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n < KIB:
            return f"{n:.0f} {unit}" if unit == "bytes" else f"{n:.1f} {unit}"
        n /= KIB
    return f"{n:.1f} TiB"
