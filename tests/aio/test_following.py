"""Subscriptions: an asynchronous iterator that waits without a thread of its own, resumes, and ends when closed."""

import asyncio
import subprocess
import sys
import threading
from itertools import count

import pytest

import turnlog
from tests.aio.running import DEADLINE_S, threads, until
from turnlog import InvalidInput, aio
from turnlog.aio.subscription import PAGE


def test_past_events_then_new_ones(url: str) -> None:
    """Every event above `after` comes once, in order; `position` is that of the last one given out."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            await session.add_messages([{"role": "user", "content": "hi"}] * (2 * PAGE))
            found: list[int] = []
            async with asyncio.timeout(DEADLINE_S), store.subscribe(after=1) as subscription:
                async for event in subscription:
                    found.append(event.position)
                    assert subscription.position == event.position
                    if event.position == 2 * PAGE + 1:
                        await session.collect(a=1)
                    if event.position == 2 * PAGE + 2:
                        break
            assert found == list(range(2, 2 * PAGE + 3))

    asyncio.run(main())


def test_from_now_on_is_from_the_call_on(url: str) -> None:
    """Without `after`, what this program writes after the call is seen, and nothing before it, though nobody waited."""

    async def main() -> None:
        async with aio.open(url) as store:
            for n in range(50):
                session = await store.session(f"s-{n}")
                subscription = store.subscribe()
                await session.collect(n=n)
                event = await anext(subscription)
                assert (event.session_id, event.version) == (f"s-{n}", 2)

    asyncio.run(main())


def test_a_cancelled_wait_loses_nothing(url: str) -> None:
    """Waiting with a timeout, over and over, at the head and while events come, gives every event once."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            subscription = store.subscribe(after=0)
            found: list[int] = []

            async def write() -> None:
                for i in range(60):
                    await session.collect(i=i)
                    await asyncio.sleep(0.002 if i % 3 else 0)

            writing = asyncio.create_task(write())
            async with asyncio.timeout(DEADLINE_S):
                for i in count():
                    try:
                        async with asyncio.timeout(0.0002 * (i % 8)):
                            found.append((await anext(subscription)).position)
                    except TimeoutError:
                        await asyncio.sleep(0)
                    if len(found) == 61:
                        break
            await writing
            assert found == list(range(1, 62))

    asyncio.run(main())


def test_some_types_of_one_user(url: str) -> None:
    """Events of other types and other users' sessions are passed over; `position` goes on."""

    async def main() -> None:
        async with aio.open(url) as store:
            alice, bob = await store.session("a", user_id="alice"), await store.session("b", user_id="bob")
            async with store.for_user("alice").subscribe(after=0, types=["MessageAdded"]) as subscription:
                await bob.add_message("user", "no")
                await alice.collect(a=1)
                await alice.add_message("user", "yes")
                assert (await anext(subscription)).session_id == "a"
                reading = asyncio.ensure_future(anext(subscription))
                await bob.add_message("user", "no")
                await until(lambda: subscription.position == 6)
                await alice.add_message("user", "again")
                assert (await reading).position == 7
            with pytest.raises(InvalidInput, match="types"):
                store.subscribe(types=["Nothing"])

    asyncio.run(main())


@pytest.mark.parametrize("end", ["subscription", "store"])
def test_it_ends_when_closed(url: str, end: str) -> None:
    """Closing the subscription, or the store, ends all waiting iterations, though nothing is written any more."""

    async def main() -> None:
        store = await aio.open(url)
        await store.session("s")
        subscriptions = [store.subscribe() for _ in range(5)]

        async def read(subscription: aio.Subscription) -> int:
            return len([event async for event in subscription])

        tasks = [asyncio.create_task(read(one)) for one in subscriptions]
        await asyncio.sleep(0.05)
        if end == "store":
            await store.close()
        else:
            for one in subscriptions:
                one.close()
        async with asyncio.timeout(DEADLINE_S):
            assert await asyncio.gather(*tasks) == [0] * 5
        assert [event async for event in subscriptions[0]] == []
        await store.close()

    asyncio.run(main())


def test_who_waits_holds_no_thread(url: str) -> None:
    """However many wait, one thread waits for all of them; the store's own are free, and none is left at the end."""

    async def main() -> None:
        before = threading.enumerate()
        async with aio.open(url, max_threads=2) as store:
            session = await store.session("s")
            got = 0

            async def read(subscription: aio.Subscription) -> None:
                nonlocal got
                await anext(subscription)
                got += 1

            tasks = [asyncio.create_task(read(store.subscribe(after=1))) for _ in range(100)]
            await asyncio.sleep(0.1)
            assert threads(before) <= 2 + 1
            await session.collect(a=1)
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.gather(*tasks)
            assert got == 100
        await until(lambda: threads(before) == 0)

    asyncio.run(main())


def test_a_slow_consumer_costs_no_memory(url: str) -> None:
    """It is read ahead by a page at most."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            await session.add_messages([{"role": "user", "content": "hi"}] * (4 * PAGE))
            subscription = store.subscribe(after=0)
            assert (await anext(subscription)).position == 1
            assert len(subscription._ready) < PAGE  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    asyncio.run(main())


def test_it_is_told_of_what_other_processes_write(sqlite_url: str) -> None:
    """A waiting subscription gets what another process writes to the same file."""

    async def main() -> None:
        async with aio.open(sqlite_url) as store, store.subscribe() as subscription:
            waiting = asyncio.ensure_future(anext(subscription))
            await asyncio.sleep(0.05)
            program = "import sys, turnlog; turnlog.open(sys.argv[1]).session('afar')"
            done = await asyncio.create_subprocess_exec(sys.executable, "-c", program, sqlite_url)
            assert await done.wait() == 0
            async with asyncio.timeout(DEADLINE_S):
                assert (await waiting).session_id == "afar"

    asyncio.run(main())


def test_events_are_iterated_in_pages(url: str) -> None:
    """All of them, those of a session, heads and replays, however long; an iteration may be given up."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            for _ in range(2):
                await session.add_messages([{"role": "user", "content": "hi"}] * PAGE)
            n = 2 * PAGE + 1
            assert [event.position async for event in store.events()] == list(range(1, n + 1))
            assert [event.position async for event in store.events(after=3, limit=PAGE)] == list(range(4, PAGE + 4))
            assert [event.version async for event in session.events(last=2)] == [n - 1, n]
            assert [step.after.version async for step in session.replay()] == list(range(1, n + 1))
            assert [head.version async for head in store.heads()] == [n]
            async for event in store.events():
                assert event.position == 1
                break
            with pytest.raises(InvalidInput, match="after"):
                await anext(store.events(after=-1))

    asyncio.run(main())


def test_what_stands_before_damage_is_given_out(sqlite_url: str) -> None:
    """An event that cannot be read is an error when its turn comes, again and again, and not before."""
    with turnlog.open(sqlite_url) as store:
        session = store.session("s")
        session.add_message("user", "hi")
        session.add_message("user", "hi")
    damage = "UPDATE turnlog_events SET state = CAST('{' AS BLOB) WHERE position = 2"
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit()"
    subprocess.run([sys.executable, "-c", program, sqlite_url.removeprefix("sqlite:///"), damage], check=True)

    async def main() -> None:
        async with aio.open(sqlite_url) as store:
            subscription, events = store.subscribe(after=0), store.events()
            for iterated in (subscription, events):
                assert (await anext(iterated)).position == 1
                with pytest.raises(turnlog.CorruptLog):
                    await anext(iterated)
            assert subscription.position == 1
            with pytest.raises(turnlog.CorruptLog):
                await anext(subscription)

    asyncio.run(main())
