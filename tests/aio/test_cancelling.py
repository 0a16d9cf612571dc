"""Cancelling at any instant: what was begun is finished and known; turns are there whole or not at all."""

import asyncio
import random
import threading
from contextlib import suppress
from time import perf_counter

import pytest

from tests.aio.running import turns, until
from turnlog import RebuildProgress, aio
from turnlog.projections import building

TASKS = 300
SLOWEST_S = 0.004


async def say(session: aio.Session, n: int) -> None:
    """Say something in one of several ways; what belongs together says so by its number."""
    match n % 4:
        case 0:
            await session.add_message("user", f"{n}:1/1", message_id=f"m-{n}")
        case 1:
            async with session.turn():
                await session.add_message("user", f"{n}:1/2")
                await session.add_message("assistant", f"{n}:2/2")
        case 2:
            await session.add_messages([{"role": "user", "content": f"{n}:{i}/3"} for i in (1, 2, 3)])
        case _:
            async with session.turn(command_id=f"c-{n}"):
                await session.add_message("user", f"{n}:1/3")
                async with session.turn():
                    await asyncio.gather(*(session.add_message("user", f"{n}:{i}/3") for i in (2, 3)))


async def cancelled_after(seconds: float, session: aio.Session, n: int) -> bool:
    """Begin to say something and cancel it after a while; return whether it was cancelled."""
    task = asyncio.create_task(say(session, n))
    await asyncio.sleep(seconds)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return task.cancelled()


@pytest.mark.parametrize("handles", [1, 7])
def test_cancelled_at_any_instant(url: str, handles: int) -> None:
    """After hundreds of cancellations the log holds whole turns and verifies, and each handle equals a fresh read."""

    async def main() -> None:
        chance = random.Random(handles)  # noqa: S311 - no secret
        async with aio.open(url, max_threads=3) as store:
            sessions = [await store.session(f"s-{i}") for i in range(handles)]
            began = perf_counter()
            await say(sessions[0], TASKS)
            longest = max(SLOWEST_S, 4 * (perf_counter() - began))
            together = 5
            cancelled: list[bool] = []
            for first in range(0, TASKS, together):
                delays = [chance.choice((0, chance.uniform(0, longest))) for _ in range(together)]
                told = (cancelled_after(s, chance.choice(sessions), n) for n, s in enumerate(delays, first))
                cancelled += await asyncio.gather(*told)
                if all(cancelled):
                    longest *= 1.5  # so that some come to their end, however busy it has become
                for session in sessions:
                    fresh = await store.get(session.id)
                    assert (session.version, session.state) == (fresh.version, fresh.state)
            assert 0 < sum(cancelled) < TASKS
            said: list[str] = []
            for session in sessions:
                said += [str(message.content) for message in await session.history()]
                places = await turns(session)
                assert all(place == (1, 1) or place[0] <= place[1] for place in places)
            numbers = {one.partition(":")[0] for one in said}
            assert len(said) == len(set(said))
            for number in numbers:
                of_one = sorted(one for one in said if one.startswith(f"{number}:"))
                assert len(of_one) == int(of_one[0].rpartition("/")[2])
            finished = {str(n) for n, was in enumerate(cancelled) if not was}
            assert finished <= numbers
            assert (await store.verify()).ok

    asyncio.run(main())


def test_what_has_begun_is_finished_first(url: str) -> None:
    """A task that is cancelled in the midst of an append gets its CancelledError when that is done, and it is known."""
    begun, go_on = threading.Event(), threading.Event()
    slow = False

    def new_id() -> str:
        if slow:
            begun.set()
            assert go_on.wait(30)
        return random.randbytes(16).hex()  # noqa: S311 - no secret

    async def main() -> None:
        nonlocal slow
        async with aio.open(url, new_id=new_id) as store:
            session = await store.session("s")
            slow = True
            task = asyncio.create_task(session.add_message("user", "hi"))
            await until(begun.is_set)
            for _ in range(3):
                task.cancel()
                await asyncio.sleep(0.01)
                assert not task.done()
            slow = False
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (session.version, session.state.message_count) == (2, 1)
            assert session.state == (await store.get("s")).state

    asyncio.run(main())


def test_what_has_not_begun_is_not_done(url: str) -> None:
    """A call that waits for a thread, or for another call on its handle, leaves at once and does nothing."""
    begun, go_on = threading.Event(), threading.Event()

    def block(_: object) -> int:
        begun.set()
        assert go_on.wait(30)
        return 1

    async def main() -> None:
        async with aio.open(url, max_threads=1) as store:
            one, two = await store.session("1"), await store.session("2")
            await one.add_message("user", "hi")
            busy = asyncio.create_task(one.history(max_tokens=5, count=block))
            await until(begun.is_set)
            waiting = [asyncio.create_task(session.collect(a=1)) for session in (one, two)]
            await asyncio.sleep(0.01)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting, timeout=30)
            assert [task.cancelled() for task in waiting] == [True, True]
            go_on.set()
            assert len(await busy) == 1
            assert [(await session.refresh()).version for session in (one, two)] == [2, 1]

    asyncio.run(main())


def test_a_timeout_inside_a_turn_drops_it(url: str) -> None:
    """As any exception does; the task that set the timeout goes on."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02), session.turn():
                    await session.collect(a=1)
                    await asyncio.Event().wait()
            assert (session.version, session.data) == (1, {})

    asyncio.run(main())


def test_a_long_call_is_interrupted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebuild whose task is cancelled stops at a page soon after that, and goes on when it is called again."""
    monkeypatch.setattr(building, "PAGE", 10)

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            await session.add_messages([{"role": "user", "content": "hi"}] * 210)
            told: list[RebuildProgress] = []

            def tell(progress: RebuildProgress) -> None:
                told.append(progress)
                task.cancel()

            task = asyncio.create_task(store.rebuild("message_index", tell))
            with pytest.raises(asyncio.CancelledError):
                await task
            assert told[-1].position < told[-1].target
            await store.rebuild("message_index")
            assert (await store.verify()).ok

    asyncio.run(main())
