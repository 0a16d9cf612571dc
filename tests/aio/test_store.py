"""The store on an event loop: threads, callbacks, contexts, closing."""

import asyncio
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.aio.running import DEADLINE_S, threads, until
from turnlog import InvalidInput, RebuildProgress, Receipt, RecordedEvent, StoreUnavailable, aio
from turnlog.adapters.connect import connect
from turnlog.aio.threads import MAX_THREADS
from turnlog.domain.recorder import Recorder

REQUEST: ContextVar[str] = ContextVar("request", default="none")


class Counted:
    """A projection that counts events, and knows the thread it was asked in."""

    name = "counted"
    revision = 1

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.n = 0

    def create(self, connection: Any) -> None:
        """Create nothing: what it counts, it keeps."""

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:  # noqa: ARG002 - the port's
        """Count."""
        self.threads.add(threading.get_ident())
        self.n += len(events)


def test_it_is_awaited_or_entered(url: str) -> None:
    """`await open(…)` gives a store to be closed by hand; `async with` closes it; closing twice does nothing."""

    async def main() -> None:
        store = await aio.open(url)
        await store.ping()
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.session("s")
        async with aio.open(url) as store, store:
            assert repr(await store.session("s")) == "<aio.Session 's' active version=1>"
            assert repr(store) == "<aio.ConversationStore tenant='default'>"
        with pytest.raises(StoreUnavailable):
            await store.ping()
        wrong: dict[str, Any]
        for wrong in ({"max_threads": 0}, {"durability": "none at all"}, {"unknown": 1}):
            with pytest.raises(InvalidInput):
                await aio.open(url, **wrong)

    asyncio.run(main())


def test_of_several_racing_callers_one_creates(url: str) -> None:
    """`session` from many tasks at once: one creates, the others get."""

    async def main() -> None:
        async with aio.open(url) as store:
            found = await asyncio.gather(*(store.session("s") for _ in range(50)))
            assert sum(session.created for session in found) == 1
            await asyncio.gather(*(session.add_message("user", "hi") for session in found))
            assert (await store.get("s")).version == 51
            assert (await store.verify()).ok

    asyncio.run(main())


def test_tasks_share_a_handle(url: str) -> None:
    """Calls on one handle are made one after the other: it never goes back, and knows everything at the end."""

    async def main() -> None:
        async with aio.open(url) as store:
            session = await store.session("s")
            receipts = await asyncio.gather(*(session.collect({f"k-{i}": i}) for i in range(50)))
            assert [receipt.version for receipt in receipts] == list(range(2, 52))
            assert len(session.data) == 50

    asyncio.run(main())


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_threads_than_were_allowed(url: str, most: int) -> None:
    """Whatever is asked at once is done by that many threads."""

    async def main() -> None:
        before = threading.enumerate()
        async with aio.open(url, max_threads=most) as store:
            sessions = await asyncio.gather(*(store.session() for _ in range(30)))
            await asyncio.gather(*(session.add_message("user", "hi") for session in sessions))
            assert threads(before) <= most < MAX_THREADS

    asyncio.run(main())


def test_the_loop_goes_on_meanwhile(url: str) -> None:
    """While a call takes long, the event loop does other things."""
    go_on = threading.Event()

    def clock() -> datetime:
        assert go_on.wait(DEADLINE_S)
        return datetime.now(UTC)

    async def main() -> None:
        async with aio.open(url, clock=clock) as store:
            task = asyncio.create_task(store.session("s"))
            await asyncio.sleep(0.02)
            assert not task.done()
            go_on.set()
            assert (await task).created

    asyncio.run(main())


def test_on_committed_is_told_on_the_loop(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of every receipt, in order, before the writer goes on; coroutine functions, too; a failure changes nothing."""

    async def main() -> None:
        told: list[tuple[int | None, int]] = []
        later: list[Receipt] = []

        def tell(receipt: Receipt) -> None:
            told.append((receipt.version, threading.get_ident()))

        async def tell_later(receipt: Receipt) -> None:
            await asyncio.sleep(0)
            later.append(receipt)

        def fail(receipt: Receipt) -> None:
            raise RuntimeError(f"no room for {receipt.version}")

        async with aio.open(url) as store:
            for callback in (tell, tell_later, fail):
                store.on_committed(callback)
            with pytest.raises(InvalidInput, match="callback"):
                store.on_committed("nothing")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            session = await store.session("s")
            for version in (2, 3):
                await session.collect(n=version)
                assert told[-1] == (version, threading.get_ident())
            await until(lambda: len(later) == 3)
            assert [receipt.version for receipt in later] == [1, 2, 3]
        assert "no room for 2" in caplog.text

    asyncio.run(main())


def test_progress_is_told_on_the_loop_and_interrupts(url: str) -> None:
    """`rebuild` and `catch_up` tell it there; what it raises interrupts them. Projections run in the threads."""

    async def main() -> None:
        told: list[tuple[RebuildProgress, int]] = []

        def tell(progress: RebuildProgress) -> None:
            told.append((progress, threading.get_ident()))

        def stop(progress: RebuildProgress) -> None:
            raise KeyError(progress.view)

        async with aio.open(url) as store:
            session = await store.session("s")
            await session.add_messages([{"role": "user", "content": "hi"}] * 1200)
            counted = Counted()
            await store.add_projection(counted)
            with pytest.raises(KeyError):
                await store.catch_up(stop)
            await store.catch_up(tell)
            await store.rebuild("counted", tell)
            assert {thread for _, thread in told} == {threading.get_ident()}
            assert counted.threads
            assert threading.get_ident() not in counted.threads
            assert {progress.position for progress, _ in told} > {1201}
            with pytest.raises(KeyError):
                await store.rebuild("counted", stop)
            assert (await store.stats()).events == 1201

    asyncio.run(main())


def test_a_call_sees_the_context_of_its_task(url: str) -> None:
    """Context variables hold in the threads, too: for tracing."""
    seen: list[str] = []

    def new_id() -> str:
        seen.append(REQUEST.get())
        return f"id-{len(seen)}"

    async def main() -> None:
        async with aio.open(url, new_id=new_id) as store:
            session = await store.session("s")
            seen.clear()
            REQUEST.set("r-1")
            await session.add_message("user", "hi")
            assert set(seen) == {"r-1"}

    asyncio.run(main())


def test_nobody_who_was_cancelled_leaves_a_store_open(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose opener was cancelled meanwhile is closed."""
    opened, go_on = threading.Event(), threading.Event()
    recorders: list[Recorder] = []

    def slowly(*args: Any, **kwargs: Any) -> Any:
        opened.set()
        assert go_on.wait(DEADLINE_S)
        backend = connect(*args, **kwargs)
        recorders.append(backend.recorder)
        return backend

    async def opening() -> None:
        await aio.open(url)

    async def main() -> None:
        monkeypatch.setattr("turnlog.store.connect", slowly)
        task = asyncio.create_task(opening())
        await until(opened.is_set)
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(StoreUnavailable):
            recorders[0].position()

    asyncio.run(main())


@pytest.mark.parametrize("debug", [False, True])
def test_a_program_may_end_while_tasks_wait(url: str, *, debug: bool) -> None:
    """Subscribers, turns and calls that are left when the loop ends are ended with it, without a word."""

    async def main() -> aio.ConversationStore:
        store = await aio.open(url)
        session = await store.session("s")

        async def follow() -> None:
            async for _ in store.subscribe():
                pass

        async def turn() -> None:
            async with session.turn():
                await session.collect(a=1)
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(work()) for work in (follow, turn, follow)]
        await asyncio.sleep(0.02)
        await session.collect(b=1)
        assert not any(task.done() for task in tasks)
        assert session.data == {"b": 1}
        return store

    store = asyncio.run(main(), debug=debug)
    asyncio.run(store.close())  # else MongoDB's driver says of it, some time, that it was not
