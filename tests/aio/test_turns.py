"""Turns of tasks: whose they are, and what becomes of what is said in tasks that are started inside."""

import asyncio

import pytest

from tests.aio.running import contents, turns
from turnlog import InvalidInput, SessionClosed, aio


class Interrupted(Exception):
    """Raised inside a turn."""


def test_it_belongs_to_the_task_and_those_started_inside(url: str) -> None:
    """`gather`, `wait_for` and task groups inside a turn say their part of it: all is one append."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            async with session.turn(actor="outer") as turn:
                await asyncio.gather(session.collect(a=1), session.collect(b=2))
                await asyncio.wait_for(session.add_message("user", "hi"), 30)
                async with asyncio.TaskGroup() as group:
                    group.create_task(session.collect(c=3))
                assert session.data == {"a": 1, "b": 2, "c": 3}
                assert await contents(session) == ["hi"]
                assert (await store.get("s")).data == {}
            assert turn.receipt.version == session.version == 5
            assert await turns(session) == [(1, 4), (2, 4), (3, 4), (4, 4)]
            assert {event.actor async for event in session.events(after=1)} == {"outer"}

    asyncio.run(main())


def test_another_task_writes_for_itself(url: str) -> None:
    """What a task says that was not started inside is its own write, at once, on the same handle too."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            inside, said = asyncio.Event(), asyncio.Event()

            async def other() -> None:
                await inside.wait()
                await session.collect(theirs=1)
                said.set()

            task = asyncio.create_task(other())
            async with session.turn():
                await session.collect(mine=1)
                inside.set()
                await said.wait()
                assert session.data == {"mine": 1}
            await task
            assert session.data == {"mine": 1, "theirs": 1}
            assert await turns(session) == [(1, 1), (1, 1)]

    asyncio.run(main())


def test_two_handles_have_two_turns(url: str) -> None:
    """Turns on different sessions, one inside the other, are two appends; the inner one's failure is its own."""

    async def main() -> None:
        async with aio.open(url) as store:
            one, two = await store.session("1"), await store.session("2")
            async with one.turn():
                await one.collect(a=1)
                with pytest.raises(Interrupted):
                    async with two.turn():
                        await two.collect(b=1)
                        await one.collect(b=1)
                        raise Interrupted
                await two.collect(c=1)
            assert (one.data, two.data) == ({"a": 1, "b": 1}, {"c": 1})

    asyncio.run(main())


def test_nested_turns_join(url: str) -> None:
    """An inner turn, of a method that makes one too, is part of the outer; its keywords hold inside it only."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            async with session.turn(actor="outer") as outer:
                async with session.turn(actor="inner") as inner:
                    await session.collect(a=1)
                said = await session.add_messages([{"role": "user", "content": "hi"}], actor="many")
                await session.collect(b=1)
                assert said.version is None
                with pytest.raises(InvalidInput, match="command_id"):
                    async with session.turn(command_id="k"):
                        pass
            assert inner.receipt == outer.receipt
            assert [event.actor async for event in session.events(after=1)] == ["inner", "many", "outer"]
            await session.collect(c=1)
            assert await turns(session) == [(1, 3), (2, 3), (3, 3), (1, 1)]

    asyncio.run(main())


def test_an_inner_turn_can_be_dropped(url: str) -> None:
    """An exception that the outer turn catches, a timeout too, drops what was said since the inner one began."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            async with session.turn():
                await session.collect(a=1)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05), session.turn():
                        await session.collect(b=1)
                        await asyncio.Event().wait()
                assert session.data == {"a": 1}
                await session.collect(c=1)
            assert (await store.get("s")).data == {"a": 1, "c": 1}

    asyncio.run(main())


def test_an_exception_leaves_nothing(url: str) -> None:
    """Nothing of the turn was written, the handle shows what is there, and goes on."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            turn = session.turn()
            with pytest.raises(InvalidInput, match="receipt"):
                _ = turn.receipt
            with pytest.raises(Interrupted):
                async with turn:
                    await session.collect(a=1)
                    raise Interrupted
            with pytest.raises(InvalidInput, match="receipt"):
                _ = turn.receipt
            assert (session.data, session.version, await store.position) == ({}, 1, 1)
            await session.collect(b=1)
            assert session.data == {"b": 1}

    asyncio.run(main())


def test_a_turn_that_the_rules_forbid_at_the_end_is_dropped(url: str) -> None:
    """If somebody closed the session meanwhile, leaving raises, and nothing was written."""

    async def main() -> None:
        async with aio.open(url) as store:
            session, other = await store.session("s"), await store.get("s")
            with pytest.raises(SessionClosed):
                async with session.turn():
                    await session.collect(a=1)
                    await other.complete()
            assert (await session.refresh()).data == {}

    asyncio.run(main())


def test_what_a_task_says_after_its_turn_was_dropped_is_refused(url: str) -> None:
    """It was meant to be written together with the rest or not at all; its reads go on."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            over = asyncio.Event()

            async def late() -> None:
                await over.wait()
                assert (session.data, await contents(session)) == ({}, [])
                with pytest.raises(InvalidInput, match="dropped"):
                    await session.collect(late=1)
                with pytest.raises(InvalidInput, match="dropped"):
                    async with session.turn():
                        pass

            task: asyncio.Task[None] | None = None
            with pytest.raises(Interrupted):
                async with session.turn():
                    task = asyncio.create_task(late())
                    await session.collect(a=1)
                    raise Interrupted
            over.set()
            assert task is not None
            await task
            await session.collect(b=1)
            assert (session.version, session.data) == (2, {"b": 1})

    asyncio.run(main())


def test_what_a_task_says_after_its_turn_was_committed_is_its_own(url: str) -> None:
    """A task that goes on in the background writes for itself then; an inner turn that it has open is refused."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            inside, over = asyncio.Event(), asyncio.Event()

            async def late() -> None:
                await over.wait()
                await session.collect(late=1)

            async def open_inside() -> None:
                async with session.turn():
                    inside.set()
                    await over.wait()
                    with pytest.raises(InvalidInput, match="dropped"):
                        await session.collect(lost=1)

            async with session.turn():
                tasks = [asyncio.create_task(late()), asyncio.create_task(open_inside())]
                await session.collect(a=1)
                await inside.wait()
            over.set()
            await asyncio.gather(*tasks)
            assert session.data == {"a": 1, "late": 1}
            assert await turns(session) == [(1, 1), (1, 1)]

    asyncio.run(main())


def test_a_turn_is_used_once(url: str) -> None:
    """A turn that was committed is not entered again."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            async with session.turn() as turn:
                await session.collect(a=1)
            with pytest.raises(InvalidInput, match="turn"):
                async with turn:
                    pass

    asyncio.run(main())
