"""Many writers: processes on PostgreSQL, how soon a subscriber hears of an append, and threads that share a commit."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from time import perf_counter, sleep
from typing import Any, TypeAlias

import psycopg

import turnlog
from scripts.benchmarks.measuring import Figure, Pair, Setting, Target, alone, compared, percentile, side_by_side
from scripts.benchmarks.raw import Row
from scripts.benchmarks.server import Plain, contents, server
from scripts.benchmarks.stores import TEXT, url_of
from turnlog.adapters.connect import connect
from turnlog.adapters.grouping import Grouping
from turnlog.domain.recorder import Batch, Reader

Contents: TypeAlias = Sequence[tuple[str, bytes]]
Work: TypeAlias = Callable[[str, str, int, Contents, Barrier, Connection], None]
NEARLY = Target(0.8, at_least=True)
WRITERS = (1, 4, 16)
THREADS = (1, 4, 16, 64)
_SPAWN = get_context("spawn")
_READY_S = 120
_FREE = 1_000


def writers(setting: Setting) -> list[Figure]:
    """1, 4 and 16 processes that write to PostgreSQL, each to its own session, durable. Raw: INSERTs of the same bytes.

    Beside the whole of ``add_message`` its append alone, of bytes that are ready: ids, decisions and views left out.
    Then 16 on one session, against one process on it, and the longest that any of them waited for a write.
    """
    figures: list[Figure] = []
    with server() as started:
        url = started.new_place()
        stored = contents(started.new_place())
        plain = Plain(url, stored)
        turnlog.open(url).close()
        for n in WRITERS:
            writes = setting.pick(2_048, 64) // n * n
            sides = [partial(_at_once, work, url, n, writes, stored) for work in (_say, _append, _insert)]
            what = f"PostgreSQL: {n} process{'es' if n > 1 else ''}, each writing to its own session"
            against = "INSERT alone, of the same bytes"
            for name, side in ((what, sides[0]), (f"{what}, the append alone", sides[1])):
                pair = side_by_side(setting.pick(7, 1), side, sides[2])
                figures.append(compared("pg-writers", name, pair, against=against, unit="writes/s", target=NEARLY))
        plain.close()
        waits: list[float] = []
        writes = setting.pick(1_024, 64)
        pair = side_by_side(
            setting.pick(3, 1),
            partial(_at_once, partial(_say, session_id="shared"), url, WRITERS[-1], writes, stored, waits),
            partial(_at_once, partial(_say, session_id="shared"), url, 1, writes, stored),
        )
    what = f"PostgreSQL: {WRITERS[-1]} processes appending to one session"
    return [
        *figures,
        compared("pg-writers", what, pair, against="one process", unit="writes/s"),
        alone("pg-writers", f"{what}: worst wait", waits, unit="s", target=None),
    ]


def latency(setting: Setting) -> list[Figure]:
    """From before an append until a subscriber in another process has it. Raw: INSERT, NOTIFY; LISTEN, SELECT."""
    n = setting.pick(300, 20)
    ours: list[list[float]] = []
    raw: list[list[float]] = []
    with server() as started:
        url = started.new_place()
        stored = contents(started.new_place())
        Plain(url, stored).close()
        turnlog.open(url).close()
        for _ in range(setting.pick(5, 1)):
            ours.append(_delays(_subscribe, partial(_sender, url), url, n))
            raw.append(_delays(_listen, partial(_notifier, url, stored), url, n))
    return [
        compared(
            "pg-latency",
            f"PostgreSQL: append to subscriber, {name}",
            Pair([percentile(found, part) for found in ours], [percentile(found, part) for found in raw]),
            against="INSERT with NOTIFY to LISTEN and SELECT",
        )
        for name, part in (("p50", 0.5), ("p99", 0.99))
    ]


def threads(setting: Setting) -> list[Figure]:
    """Threads of one process that append, each to its own session, durable, sharing commits. Raw: each in its own."""
    figures: list[Figure] = []
    with server() as started:
        stored = contents(started.new_place())
        for name, new_url in (("SQLite", _files(setting)), ("PostgreSQL", started.new_place)):
            for n in THREADS:
                writes = setting.pick(2_048, 128) // n * n
                pair = side_by_side(
                    setting.pick(5, 1),
                    partial(_by_threads, new_url, n, writes, stored, group=True),
                    partial(_by_threads, new_url, n, writes, stored, group=False),
                )
                what = f"{name}: {n} thread{'s' if n > 1 else ''} appending, durability full"
                figures.append(compared("threads", what, pair, against="each in a commit of its own", unit="writes/s"))
    return figures


# --- processes --------------------------------------------------------------------------------------------------------


def _at_once(
    work: Callable[..., None], url: str, n: int, writes: int, stored: Contents, waits: list[float] | None = None
) -> float:
    """Have ``n`` processes write at the same time; return all their writes per second, and note the longest wait."""
    barrier = _SPAWN.Barrier(n)
    started: list[tuple[Any, Connection]] = []
    for i in range(n):
        reading, writing = _SPAWN.Pipe(duplex=False)
        process = _SPAWN.Process(
            target=work, args=(url, f"{perf_counter()}-{i}", writes // n, stored, barrier, writing)
        )
        process.start()
        writing.close()
        started.append((process, reading))
    done: list[tuple[float, float, float]] = [reading.recv() for _, reading in started]
    for process, _ in started:
        process.join()
    if waits is not None:
        waits.append(max(worst for _, _, worst in done))
    return writes / (max(ended for _, ended, _ in done) - min(began for began, _, _ in done))


def _say(
    url: str, name: str, writes: int, _: Contents, barrier: Barrier, results: Connection, session_id: str | None = None
) -> None:
    with turnlog.open(url) as store:
        session = store.session(session_id or name, user_id="user-1")
        session.add_message("user", TEXT)
        _measured(writes, partial(session.add_message, "user", TEXT), barrier, results)


def _append(url: str, name: str, writes: int, stored: Contents, barrier: Barrier, results: Connection) -> None:
    recorder = connect(url, durability="full", engine=None, options={}).recorder
    versions = count(1)

    def append() -> None:
        version = next(versions)
        recorder.append((Batch(f"plain/{name}", [(version, *stored[version % len(stored)])]),), _refuse)

    append()
    _measured(writes, append, barrier, results)
    recorder.close()


def _insert(url: str, name: str, writes: int, stored: Contents, barrier: Barrier, results: Connection) -> None:
    plain = Plain(url, stored, f"plain/{name}")
    plain.insert(plain.next_row())
    _measured(writes, lambda: plain.insert(plain.next_row()), barrier, results)
    plain.close()


def _measured(writes: int, write: Callable[[], object], barrier: Barrier, results: Connection) -> None:
    """Write when all are ready, and send when that began and ended, and the longest time that one took."""
    barrier.wait(_READY_S)
    worst, began = 0.0, perf_counter()
    now = began
    for _ in range(writes):
        write()
        before, now = now, perf_counter()
        worst = max(worst, now - before)
    results.send((began, now, worst))


def _refuse(_: Reader) -> Sequence[Batch]:
    raise RuntimeError("a stream of this benchmark's is there already")


# --- latency ----------------------------------------------------------------------------------------------------------


def _delays(receive: Callable[..., None], sender: Callable[[], Callable[[], float]], url: str, n: int) -> list[float]:
    """Send ``n`` times, a little apart; return how long each took to be received (both clocks are the system's)."""
    reading, writing = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=receive, args=(url, n, writing))
    process.start()
    send = sender()
    reading.recv()
    sent: list[float] = []
    for _ in range(n):
        sent.append(send())
        sleep(0.01)
    received: list[float] = reading.recv()
    process.join()
    return [at - since for at, since in zip(received, sent, strict=True)]


def _sender(url: str) -> Callable[[], float]:
    store = turnlog.open(url)
    session = store.session()

    def send() -> float:
        began = perf_counter()
        session.add_message("user", TEXT)
        return began

    return send


def _notifier(url: str, stored: Contents) -> Callable[[], float]:
    plain = Plain(url, stored)

    def send() -> float:
        row: Row = plain.next_row()
        began = perf_counter()
        with plain.connection.transaction():
            plain.insert(row)
            plain.connection.execute("NOTIFY plain")
        return began

    return send


def _subscribe(url: str, n: int, results: Connection) -> None:
    received: list[float] = []
    with turnlog.open(url) as store, store.subscribe(types=["MessageAdded"]) as events:
        results.send("ready")
        for _ in events:
            received.append(perf_counter())
            if len(received) == n:
                break
    results.send(received)


def _listen(url: str, n: int, results: Connection) -> None:
    received: list[float] = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("LISTEN plain")
        after = connection.execute("SELECT coalesce(max(position), 0) FROM plain").fetchall()[0][0]
        results.send("ready")
        statement = "SELECT position, state FROM plain WHERE position > %s ORDER BY position"
        while len(received) < n:
            for _ in connection.notifies(stop_after=1):
                pass
            for position, _ in connection.execute(statement, (after,)).fetchall():
                after = position
                received.append(perf_counter())
    results.send(received)


# --- threads ----------------------------------------------------------------------------------------------------------


def _files(setting: Setting) -> Callable[[], str]:
    numbers = count()
    return lambda: url_of(setting.folder / f"{next(numbers)}.db")


def _by_threads(new_url: Callable[[], str], n: int, writes: int, stored: Contents, *, group: bool) -> float:
    """Append by ``n`` threads to a new store; return all their writes per second."""
    url = new_url()
    backend = connect(url, durability="full", engine=None, options={})
    recorder: Any = backend.recorder
    if not group and url.startswith("sqlite"):
        recorder.grouping = None
    elif not group:
        recorder.appends.grouping = Grouping(recorder.appends.together, 30.0, ways=_FREE)

    def append(stream: str) -> None:
        for i in range(writes // n):
            recorder.append((Batch(stream, [(i + 1, *stored[i % len(stored)])]),), _refuse)

    with ThreadPoolExecutor(n) as pool:
        began = perf_counter()
        for job in [pool.submit(append, f"plain/{i}") for i in range(n)]:
            job.result()
        took = perf_counter() - began
    backend.recorder.close()
    backend.views.close()
    return writes / took
