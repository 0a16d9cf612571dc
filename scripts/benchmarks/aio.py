"""asyncio: many sessions on one event loop, and whether the loop goes on meanwhile."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from time import perf_counter

import turnlog
import turnlog.aio
from scripts.benchmarks.measuring import Figure, Setting, Side, Target, alone, compared, percentile, rate, side_by_side
from scripts.benchmarks.stores import ROLES, TEXT, url_of
from turnlog.aio.threads import MAX_THREADS

SESSIONS = 200
TICK_S = 0.001
PROMPT = Target(0.05, of="ours")
PARTS = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))


def concurrent(setting: Setting) -> list[Figure]:
    """200 sessions at once, each saying one message after the other, by turnlog.aio. Raw: the same, blocking.

    Two counterparts: one thread that takes the sessions in turn, and as many threads as turnlog.aio has. The loop's lag
    is how much later than asked for a task wakes up that sleeps 1 ms over and over meanwhile; of each round its
    percentiles, of which the worst round counts. The note has the same of a loop on which nothing else runs.
    """
    figures: list[Figure] = []
    for durability, messages in (("full", setting.pick(10, 1)), ("normal", setting.pick(40, 2))):
        urls = [url_of(setting.folder / f"{durability}-{n}.db") for n in range(3)]
        what = f"{SESSIONS} sessions on one event loop, durability {durability}"
        figures += on_one_loop(setting, what, urls, durability, messages)
    return figures


def on_one_loop(setting: Setting, what: str, urls: Sequence[str], durability: str, messages: int) -> list[Figure]:
    """Compare on three new stores, in each of which every session says so many messages a round."""
    lags: list[list[float]] = []
    ours = partial(_asyncio, urls[0], durability, messages, lags)
    counterparts: Sequence[tuple[str, Side]] = (
        ("turnlog, one thread", partial(_blocking, urls[1], durability, messages)),
        (f"turnlog, {MAX_THREADS} threads", partial(_threads, urls[2], durability, messages)),
    )
    figures: list[Figure] = []
    for against, raw in counterparts:
        pair = side_by_side(setting.pick(7, 1), ours, raw)
        figures.append(compared("asyncio", what, pair, against=against, unit="writes/s"))
    idle = asyncio.run(_idle(setting.pick(1.0, 0.1)))
    for name, part in PARTS:
        figures.append(
            alone(
                "asyncio",
                f"{what}: the loop's lag, {name}",
                [percentile(found, part) for found in lags],
                unit="s",
                target=PROMPT if name == "p99" else None,
                note=f"median of the rounds {median(percentile(found, part) for found in lags) * 1000:.2f} ms,"
                f" of an idle loop {percentile(idle, part) * 1000:.2f} ms",
            )
        )
    return figures


def _asyncio(url: str, durability: str, messages: int, lags: list[list[float]]) -> float:
    return asyncio.run(_say_on_a_loop(url, durability, messages, lags))


async def _say_on_a_loop(url: str, durability: str, messages: int, lags: list[list[float]]) -> float:
    """Say all messages; return how many a second, and note the loop's lag meanwhile."""
    async with turnlog.aio.open(url, durability=durability) as store:
        sessions = await asyncio.gather(*(store.session() for _ in range(SESSIONS)))

        async def say(session: turnlog.aio.Session) -> None:
            for i in range(messages):
                await session.add_message(ROLES[i % 2], TEXT)

        found: list[float] = []
        watch = asyncio.create_task(_watch(found))
        began = perf_counter()
        await asyncio.gather(*map(say, sessions))
        took = perf_counter() - began
        watch.cancel()
    lags.append(found)
    return SESSIONS * messages / took


async def _watch(found: list[float]) -> None:
    """Note by how much each sleep is too long."""
    while True:
        began = perf_counter()
        await asyncio.sleep(TICK_S)
        found.append(perf_counter() - began - TICK_S)


async def _idle(seconds: float) -> list[float]:
    found: list[float] = []
    watch = asyncio.create_task(_watch(found))
    await asyncio.sleep(seconds)
    watch.cancel()
    return found


def _blocking(url: str, durability: str, messages: int) -> float:
    with turnlog.open(url, durability=durability) as store:
        sessions = [store.session() for _ in range(SESSIONS)]

        def say() -> None:
            for i in range(messages):
                for session in sessions:
                    session.add_message(ROLES[i % 2], TEXT)

        return rate(SESSIONS * messages, say)


def _threads(url: str, durability: str, messages: int) -> float:
    with turnlog.open(url, durability=durability) as store, ThreadPoolExecutor(MAX_THREADS) as pool:
        sessions = [store.session() for _ in range(SESSIONS)]

        def say(session: turnlog.Session) -> None:
            for i in range(messages):
                session.add_message(ROLES[i % 2], TEXT)

        return rate(SESSIONS * messages, lambda: list(pool.map(say, sessions)))
