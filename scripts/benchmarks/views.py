"""Views: rebuilding the session index, with its peak of memory, and a user's sessions among a million."""

import json
import random
import subprocess
import sys
from functools import partial
from itertools import cycle
from pathlib import Path

import turnlog
from scripts.benchmarks import raw
from scripts.benchmarks.measuring import Figure, Pair, Setting, Target, alone, compared, rate, side_by_side, timed
from scripts.benchmarks.stores import conversation, url_of, write_log
from turnlog.domain.events import SessionStarted

MESSAGES = 15
"""In each conversation, beside five other events."""
FAST = Target(100_000, at_least=True, of="ours")
SMALL = Target(150, of="ours")
THRICE = Target(3.0)
FLAT = Target(1.2)
_REBUILD = """
import json, resource, sys, time
import turnlog

with turnlog.open(sys.argv[1]) as store:
    events, began = store.position, time.perf_counter()
    store.rebuild("session_index")
    seconds = time.perf_counter() - began
try:
    with open("/proc/self/status") as status:  # ru_maxrss of a child begins at what its parent had
        peak_kb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
except OSError:
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([events / seconds, peak_kb / 1000]))
"""
_LOG = "SELECT position, originator_id, originator_version, topic, state FROM turnlog_events ORDER BY position"
_SESSIONS = (
    "SELECT session_id, user_id, agent, status, current_route, current_step, message_count, created_at, updated_at,"
    " last_message_at, completed_at, version FROM turnlog_session_index"
    " WHERE tenant = 'default' AND user_id = ? ORDER BY updated_position DESC LIMIT 50"
)


def rebuild(setting: Setting) -> list[Figure]:
    """Rebuilding the session index, in a process of its own. Raw: reading every row of the log in order.

    Conversations of 20 events, 15 of them messages. What a first rebuild imports is part of it. The peak is that of the
    whole process (VmHWM), and is compared between the two lengths of log.
    """
    figures: list[Figure] = []
    lengths: list[list[float]] = []
    sizes = setting.pick((100_000, 1_000_000), (4_000, 20_000))
    for events in sizes:
        path = setting.folder / f"{events}.db"
        write_log(url_of(path), (conversation(i, MESSAGES) for i in range(events // (MESSAGES + 5))))
        peaks: list[float] = []
        pair = side_by_side(setting.pick(3, 1), partial(rebuilt, url_of(path), peaks), partial(_read, path, events))
        what = f"rebuild the session index, {events:,} events"
        figures += [
            compared("rebuild", what, pair, against="reading the log's rows", unit="events/s", target=FAST),
            alone("rebuild", f"{what}: peak memory", peaks, unit="MB", target=SMALL),
        ]
        lengths.append(peaks)
    flat = Pair(ours=lengths[1], raw=lengths[0])
    what = f"rebuild the session index, {sizes[1]:,} events: peak memory"
    figures.append(compared("rebuild", what, flat, against="that of the shorter log", unit="MB", target=FLAT))
    return figures


def sessions(setting: Setting) -> list[Figure]:
    """A user's sessions, newest 50 of 100, among 1,000,000. Raw: the same columns by the indexed query, fetchall."""
    total, n = setting.pick(1_000_000, 5_000), setting.pick(200, 20)
    users = total // 100
    path = setting.folder / "sessions.db"
    write_log(url_of(path), ([SessionStarted(user_id=f"user-{i % users}", agent="concierge")] for i in range(total)))
    asked = cycle([f"user-{i}" for i in random.Random(0).sample(range(users), min(n, users))])  # noqa: S311 - no secret
    connection = raw.connect(path)
    with turnlog.open(url_of(path)) as store:
        store.rebuild("session_index")
        pair = side_by_side(
            setting.pick(15, 3),
            lambda: timed(n, lambda: [store.sessions(user_id=next(asked), limit=50) for _ in range(n)]),
            lambda: timed(n, lambda: [connection.execute(_SESSIONS, (next(asked),)).fetchall() for _ in range(n)]),
        )
    connection.close()
    what = f"50 sessions of a user, {total:,} sessions in the store"
    return [compared("sessions", what, pair, against="the indexed query", target=THRICE)]


def rebuilt(url: str, peaks: list[float]) -> float:
    """Rebuild in a process of its own; return events per second, and note the peak in MB."""
    done = subprocess.run([sys.executable, "-c", _REBUILD, url], stdout=subprocess.PIPE, text=True, check=True)
    speed, peak = json.loads(done.stdout)
    peaks.append(peak)
    return float(speed)


def _read(path: Path, events: int) -> float:
    connection = raw.connect(path)

    def rows() -> None:
        for _ in connection.execute(_LOG):
            pass

    try:
        return rate(events, rows)
    finally:
        connection.close()
