"""Following from an event loop."""

import asyncio

import turnlog
from tests.adapters.opensearch_indices import Indices
from tests.aio.running import DEADLINE_S
from turnlog import aio
from turnlog.aio.threads import Threads
from turnlog.followed import Stop


def test_it_is_followed(sqlite_url: str, indices: Indices) -> None:
    """Everything is awaited; `run` goes on until its task is cancelled, tells on the loop, and leaves it free."""

    async def main() -> None:
        async with (
            aio.open(sqlite_url) as store,
            aio.follow(store, indices.server.url, prefix=indices.prefix) as followed,
        ):
            session = await store.session("s", user_id="alice")
            await session.add_message("user", "a table")
            await followed.catch_up()
            assert [hit.session_id for hit in (await followed.search("table")).items] == ["s"]
            level = asyncio.Event()

            def told(lag: turnlog.Lag) -> None:
                if lag.position == 3:
                    level.set()  # an asyncio.Event: it is told on the loop

            running = asyncio.create_task(followed.run(told=told))
            await session.add_message("user", "another table")
            async with asyncio.timeout(DEADLINE_S):
                await level.wait()
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            assert running.cancelled()
            assert (await followed.status()).lag == 0
            await followed.catch_up()  # it was stopped before answers had to show it
            assert await followed.counts() == (1, 2)

    asyncio.run(main())


def test_what_goes_on_ends_by_either() -> None:
    """A flag of the application's ends it, and so does cancelling, while it waits too; what is told may end it."""

    def call(stop: Stop, told: object) -> None:
        del told
        while not stop.is_set():
            stop.wait(60)

    async def main() -> None:
        import threading

        threads, flag = Threads(1), threading.Event()
        flag.set()
        await threads.until(call, flag, None)
        running = asyncio.create_task(threads.until(call, None, None))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()
        await threads.close(lambda: None)

    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))
