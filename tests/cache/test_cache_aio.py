"""The awaitable cache: the same answers; tasks and threads wait for each other; cancelling takes nobody down."""

import asyncio
import inspect
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from tests.cache.conftest import ANSWER, DEADLINE_S, REQUEST, Model
from tests.cache.test_answers import eventually
from tests.cache.test_single_flight import waiting
from turnlog.cache import AsyncResponseCache, CacheStats, ResponseCache


def run(steps: Coroutine[Any, Any, None]) -> None:
    """Run a test on an event loop, within the deadline."""
    asyncio.run(asyncio.wait_for(steps, DEADLINE_S))


class AwaitableModel:
    """A model that answers when it is let."""

    def __init__(self, answer: Any = ANSWER) -> None:
        self.answer = answer
        self.reached = asyncio.Event()
        self.let = asyncio.Event()
        self.asked = 0
        self.cancelled = 0

    async def __call__(self, _: dict[str, Any]) -> Any:
        """Answer, or raise what the answer is."""
        self.asked += 1
        self.reached.set()
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


async def until(cache: ResponseCache, number: int) -> None:
    """Wait until so many wait for an answer, or make it."""
    while waiting(cache) != number:  # noqa: ASYNC110 - nothing tells when
        await asyncio.sleep(0.002)


def test_every_method_is_there(cache: ResponseCache, model: Model) -> None:
    """With the same answers, and statistics for both."""

    async def steps() -> None:
        aio = cache.aio
        assert await aio.get(REQUEST, default="nothing") == "nothing"
        assert await aio.get_or_call(REQUEST, model.awaitable) == ANSWER
        assert await aio.get_or_call(REQUEST, model.awaitable) == ANSWER
        assert await aio.put(REQUEST, "mine", scope="alice", ttl_s=None)
        assert await aio.get(REQUEST, scope="alice") == "mine"
        assert [await aio.forget("alice"), await aio.delete(REQUEST), await aio.purge_expired()] == [1, True, 0]
        assert await aio.clear() == 0
        assert aio.stats() == cache.stats() == CacheStats(hits=2, misses=2, stores=2)
        async with aio:
            pass
        assert await aio.get_or_call(REQUEST, model.awaitable) == ANSWER  # closed: a miss, no failure

    run(steps())


def test_the_names_are_the_same() -> None:
    """Every public method of the blocking cache has its awaitable counterpart, with the same parameters."""
    names = {name for name in vars(ResponseCache) if name[0] != "_"} - {"aio"}
    assert names == {name for name in vars(AsyncResponseCache) if name[0] != "_"}
    for name in names:
        blocking, awaitable = (inspect.signature(getattr(of, name)) for of in (ResponseCache, AsyncResponseCache))
        assert list(blocking.parameters) == list(awaitable.parameters)


def test_tasks_wait_for_the_one_that_calls(cache: ResponseCache) -> None:
    """All get the answer or the error, and the model was asked once."""

    async def steps(answer: Any) -> None:
        model = AwaitableModel(answer)
        tasks = [asyncio.create_task(cache.aio.get_or_call({"a": str(answer)}, model)) for _ in range(8)]
        await until(cache, 8)
        model.let.set()
        assert await asyncio.gather(*tasks, return_exceptions=True) == [answer] * 8
        assert model.asked == 1

    run(steps(ANSWER))
    run(steps(ValueError("overloaded")))


def test_a_cancelled_leader_takes_nobody_down(cache: ResponseCache) -> None:
    """Who called is cancelled; those who wait get the answer of that same call."""

    async def steps() -> None:
        model = AwaitableModel()
        leader = asyncio.create_task(cache.aio.get_or_call(REQUEST, model))
        await model.reached.wait()
        others = [asyncio.create_task(cache.aio.get_or_call(REQUEST, model)) for _ in range(2)]
        await until(cache, 3)
        leader.cancel()
        others[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        model.let.set()
        assert await others[1] == ANSWER
        assert (model.asked, model.cancelled) == (1, 0)
        assert await cache.aio.get(REQUEST) == ANSWER

    run(steps())


def test_a_call_that_nobody_waits_for_any_more_is_stopped(cache: ResponseCache) -> None:
    """Once the last is cancelled so is the call; its lease is given back, and the next one calls at once."""

    async def steps() -> None:
        model = AwaitableModel()
        tasks = [asyncio.create_task(cache.aio.get_or_call(REQUEST, model)) for _ in range(2)]
        await until(cache, 2)
        await model.reached.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while not model.cancelled:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.002)
        model.let.set()
        assert await cache.aio.get_or_call(REQUEST, model) == ANSWER
        assert (model.asked, waiting(cache)) == (2, 0)

    run(steps())


def test_threads_wait_for_tasks_and_tasks_for_threads(cache: ResponseCache, model: Model) -> None:
    """Of both together, one calls."""

    async def steps() -> None:
        answering = AwaitableModel()
        first = asyncio.create_task(cache.aio.get_or_call(REQUEST, answering))
        await answering.reached.wait()
        thread = asyncio.create_task(asyncio.to_thread(cache.get_or_call, REQUEST, model))
        await until(cache, 2)
        answering.let.set()
        assert [await first, await thread] == [ANSWER, ANSWER]

        loop = asyncio.get_running_loop()
        reached = asyncio.Event()
        model.before = lambda: (loop.call_soon_threadsafe(reached.set), eventually(lambda: waiting(cache) == 2))
        thread = asyncio.create_task(asyncio.to_thread(cache.get_or_call, {"n": 2}, model))
        await reached.wait()
        assert await cache.aio.get_or_call({"n": 2}, answering) == ANSWER
        assert await thread == ANSWER
        assert (answering.asked, len(model.asked)) == (1, 1)

    run(steps())


def test_a_loop_that_ends_leaves_the_call_to_the_next(cache: ResponseCache) -> None:
    """A thread that waited for a task of a loop that has ended, or was closed in the middle, calls itself."""
    with ThreadPoolExecutor(1) as pool:
        for properly in (True, False):
            request = {"properly": properly}
            loop = asyncio.new_event_loop()
            model = AwaitableModel()
            task = loop.create_task(cache.aio.get_or_call(request, model))
            loop.run_until_complete(model.reached.wait())
            thread = pool.submit(cache.get_or_call, request, lambda _: "the thread's")
            loop.run_until_complete(until(cache, 2))
            if properly:
                for each in asyncio.all_tasks(loop):
                    each.cancel()
                with suppress(asyncio.CancelledError):
                    loop.run_until_complete(task)
                while asyncio.all_tasks(loop):
                    loop.run_until_complete(asyncio.sleep(0))
            else:
                for each in asyncio.all_tasks(loop):
                    each._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - it is on purpose
            loop.close()
            cache.clear()  # its lease: it would be waited for
            assert thread.result(DEADLINE_S) == "the thread's"


def test_a_blocking_call_on_the_loop_that_makes_the_answer_is_told(cache: ResponseCache) -> None:
    """It would wait for ever."""

    async def steps() -> None:
        model = AwaitableModel()
        task = asyncio.create_task(cache.aio.get_or_call(REQUEST, model))
        await model.reached.wait()
        with pytest.raises(RuntimeError, match="cache.aio"):
            cache.get_or_call(REQUEST, lambda _: "never")
        model.let.set()
        assert await task == ANSWER

    run(steps())


def test_nested_calls_are_told(cache: ResponseCache) -> None:
    """As in threads: a call that asks for its own answer."""

    async def ask_again(request: dict[str, Any]) -> Any:
        return await cache.aio.get_or_call(request, ask_again)

    async def steps() -> None:
        with pytest.raises(RuntimeError, match="the answer that it is to give"):
            await cache.aio.get_or_call(REQUEST, ask_again)

    run(steps())
