"""An application lends a connection for asyncio (`store.using`): tasks take turns on it, cancelled and cut too.

What is the same for blocking code is in tests/aio/lent.
"""

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

import turnlog
from tests import servers
from tests.aio.running import DEADLINE_S, contents
from turnlog import InvalidInput, StoreUnavailable, aio

Connection = psycopg.AsyncConnection[Any]


@pytest.fixture(scope="module")
def url(postgresql: servers.PostgreSQL) -> Iterator[str]:
    """A store on a server, and a table of the application's beside it; tests take sessions of their own."""
    made = postgresql.new_place()
    with psycopg.connect(made) as owner:
        owner.execute("CREATE TABLE orders (dish text)")
    turnlog.open(made).close()
    yield made
    postgresql.drop_place(made)


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Connection, None]:
    """Connect as an application does, in autocommit mode: it says where transactions begin and end."""
    connection: Connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    try:
        yield connection
    finally:
        await connection.close()


class Scene:
    """A session that somebody else's transaction holds, and an application inside a transaction of its own.

    ``call``, which writes to the session, waits for the other transaction, until ``let_go``.
    """

    def __init__(self, store: aio.ConversationStore, app: Connection, other: Connection) -> None:
        self.store, self.app, self._other = store, app, other

    async def begin(self) -> None:
        """Have the call wait."""
        self.id = uuid4().hex
        await self.store.session(self.id)
        await self._other.execute("BEGIN")
        holding = await self.store.using(self._other)
        await (await holding.get(self.id)).add_message("user", "first")
        self.bound = await self.store.using(self.app)
        self.session = await self.bound.get(self.id)
        self.call = asyncio.create_task(self.session.add_message("user", "second"))
        await self._until_it_waits()

    async def _until_it_waits(self) -> None:
        statement = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"
        async with asyncio.timeout(DEADLINE_S):
            while True:
                cursor = await self._other.execute(statement, (self.app.info.backend_pid,))
                if await cursor.fetchone() != (0,):
                    return

    async def let_go(self) -> None:
        """Commit the other transaction."""
        await self._other.execute("COMMIT")

    async def kill(self) -> None:
        """Have the server end the application's connection."""
        await self._other.execute("SELECT pg_terminate_backend(%s)", (self.app.info.backend_pid,))


def waiting(url: str, play: Callable[[Scene], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Play a scene."""

    async def main() -> None:
        async with aio.open(url, **options) as store, connected(url) as app, connected(url) as other:
            await app.execute("BEGIN")
            scene = Scene(store, app, other)
            await scene.begin()
            await play(scene)

    asyncio.run(main())


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_tasks_take_turns(url: str) -> None:
    """While one waits for a row the loop goes on, and what others do on the connection queues behind it."""

    async def play(scene: Scene) -> None:
        said: list[str] = []

        async def other_task() -> None:
            await scene.app.execute("INSERT INTO orders VALUES ('in between')")
            said.append("order")

        async def bound_call(n: int) -> None:
            await scene.session.collect(**{f"n{n}": n})
            said.append(f"call {n}")

        scene.call.add_done_callback(lambda _: said.append("call"))
        tasks = [asyncio.create_task(one) for one in (other_task(), bound_call(1), bound_call(2))]
        for _ in range(20):
            await scene.store.session(uuid4().hex)
        assert said == []
        await scene.let_go()
        await asyncio.gather(scene.call, *tasks)
        assert said[0] == "call"
        assert sorted(said[1:]) == ["call 1", "call 2", "order"]
        await scene.app.execute("COMMIT")
        session = await scene.store.get(scene.id)
        assert await contents(session) == ["first", "second"]
        assert session.data == {"n1": 1, "n2": 2}

    waiting(url, play)


def test_a_transaction_goes_on_however_many_wait_for_it(url: str) -> None:
    """Its calls have a thread even where all of the store's are taken by calls that wait for its end."""

    async def main() -> None:
        async with aio.open(url, max_threads=1) as store, connected(url) as app:
            async with app.transaction():
                bound = await store.using(app)
                session = await bound.session(uuid4().hex)
                late = asyncio.create_task(store.session(session.id))
                await asyncio.sleep(0)
                async with asyncio.timeout(DEADLINE_S / 2):
                    await session.add_message("user", "hello")
                assert not late.done()
            assert (await late).version == 2

    asyncio.run(main())


def test_a_cancelled_call_is_finished(url: str) -> None:
    """Its task is cancelled when it is over; it is known, and in the log if the application commits."""

    async def play(scene: Scene) -> None:
        queued = asyncio.create_task(scene.session.collect(never=True))
        for _ in range(3):
            scene.call.cancel()
            queued.cancel()
            await asyncio.sleep(0.01)
        assert (scene.call.done(), queued.cancelled()) == (False, True)
        await scene.let_go()
        with pytest.raises(asyncio.CancelledError):
            await scene.call
        assert not scene.app.lock.locked()
        assert scene.session.version == 3
        async with scene.session.turn():
            await scene.session.add_message("user", "third")
        await scene.app.execute("COMMIT")
        session = await scene.store.get(scene.id)
        assert await contents(session) == ["first", "second", "third"]
        assert (await scene.store.verify(scene.id)).ok

    waiting(url, play)


def test_a_connection_cut_in_the_middle(url: str) -> None:
    """It is said, nobody is left waiting for the connection, and nothing was written."""

    async def play(scene: Scene) -> None:
        queued = asyncio.create_task(scene.session.collect(n=1))
        await scene.kill()
        with pytest.raises(StoreUnavailable):
            await scene.call
        with pytest.raises(StoreUnavailable, match="the connection is closed"):
            await queued
        assert scene.app.closed
        assert not scene.app.lock.locked()
        await scene.let_go()
        assert await contents(await scene.store.get(scene.id)) == ["first"]

    waiting(url, play)


def test_a_turn_is_dropped_with_what_was_said_in_it(url: str) -> None:
    """A timeout inside leaves the transaction usable, and what came before and after it in it."""

    async def main() -> None:
        async with aio.open(url) as store, connected(url) as app:
            async with app.transaction():
                session = await (await store.using(app)).session(uuid4().hex)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02), session.turn():
                        await asyncio.gather(*(session.collect(**{f"n{n}": n}) for n in range(3)))
                        await asyncio.Event().wait()
                await session.collect(kept=True)
            session = await store.get(session.id)
            assert (session.version, session.data) == (2, {"kept": True})

    asyncio.run(main())


# --- which will do, and that it is left as it was ---------------------------------------------------------------------


def test_it_is_a_connection_for_asyncio(url: str, sqlite_url: str) -> None:
    """Each of the two stores refuses what is the other's, by name; without a server there is nothing to lend to."""

    async def main() -> None:
        async with aio.open(url) as store, connected(url) as app:
            with psycopg.connect(url) as blocking:
                for given, hint in ((None, "NoneType"), (blocking, "Connection; that is for a store of turnlog.open")):
                    with pytest.raises(InvalidInput, match=f"expected a psycopg.AsyncConnection, got {hint}$"):
                        await store.using(given)
            with (
                turnlog.open(url) as other,
                pytest.raises(InvalidInput, match="got AsyncConnection; that is for a store of turnlog.aio"),
            ):
                other.using(app)
            for elsewhere in ("memory://", sqlite_url):
                async with aio.open(elsewhere) as other:
                    with pytest.raises(InvalidInput, match="using: needs a store on PostgreSQL"):
                        await other.using(app)

    asyncio.run(main())


def test_mariadb_has_no_such_connections(mariadb_url: str) -> None:
    """There it is refused, and said what to do."""

    async def main() -> None:
        async with aio.open(mariadb_url) as store:
            with pytest.raises(InvalidInput, match="using: is not for asyncio here"):
                await store.using(object())

    asyncio.run(main())


def test_a_connection_to_another_database(url: str, postgresql: servers.PostgreSQL) -> None:
    """It does not lead to the store's log, and that is said without a password."""
    elsewhere = postgresql.url.replace("tester@", "tester:secret@").replace("/postgres", "/template1")

    async def main() -> None:
        async with aio.open(url) as store, connected(elsewhere) as app, app.transaction():
            with pytest.raises(InvalidInput, match="got one to .*/template1") as told:
                await store.using(app)
            assert "secret" not in str(told.value)
            assert await (await app.execute("SELECT 1")).fetchall() == [(1,)]

    asyncio.run(main())


def test_a_connection_that_is_busy_or_over(url: str) -> None:
    """In the middle of something else it is refused; closed, it is said; and so is that the store is closed."""

    async def main() -> None:
        async with (
            AsyncExitStack() as stack,
            aio.open(url) as store,
            connected(url) as app,
            app.transaction(),
        ):
            bound, impatient = await store.using(app), await bound_impatiently(stack, url, app)
            async with app.pipeline():
                with pytest.raises(InvalidInput, match="in the middle of something else"):
                    await bound.exists("s")
            async with app.cursor() as cursor, cursor.copy("COPY (SELECT 1) TO STDOUT") as copy:
                with pytest.raises(StoreUnavailable, match="a COPY or a stream around this call, used"):
                    await impatient.exists("s")
                assert [one async for one in copy]
            assert not await bound.exists("s")
            await store.close()
            with pytest.raises(StoreUnavailable, match="the store is closed"):
                await bound.exists("s")

    asyncio.run(main())


async def bound_impatiently(stack: AsyncExitStack, url: str, app: Connection) -> aio.ConversationStore:
    """Bind a store that waits for 0.05 s only, as soon as its own connections come about in that time."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with suppress(StoreUnavailable):
                store = await stack.enter_async_context(aio.open(url, timeout_s=0.05))
                return await store.using(app)


def test_what_a_connection_is_set_to_does_not_matter_and_stays(url: str) -> None:
    """Rows, prepared statements and settings stay; what the server says unasked comes to the application's loop."""
    told: list[tuple[str | None, asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        async with aio.open(url) as store, connected(url) as app:
            app.row_factory = dict_row
            app.prepare_threshold = 0
            app.add_notice_handler(lambda said: told.append((said.message_primary, asyncio.get_running_loop())))
            app.add_notify_handler(lambda said: told.append((said.payload, asyncio.get_running_loop())))
            await app.execute("LISTEN news")
            await app.execute("SET lock_timeout = '7s'")
            async with app.transaction():
                await app.execute(_LOUD)
                bound = await store.using(app)
                session = await bound.session(f"loud {uuid4().hex}")
                assert await prepared(app) == {"LISTEN news", "SET lock_timeout = '7s'", _LOUD}
                await app.execute("DROP TRIGGER loud ON turnlog_events")
                await session.add_message("user", "hello")
                await app.execute("NOTIFY news, 'by the application'")
            assert [words for words, _ in told] == ["loud", "by the application"]
            assert {loop for _, loop in told} == {asyncio.get_running_loop()}
            assert await (await app.execute("SHOW lock_timeout")).fetchall() == [{"lock_timeout": "7s"}]
        del app, bound, session
        gc.collect()  # a warning would be an error: nothing is said to have been left open

    asyncio.run(main())


async def prepared(connection: Connection) -> set[str]:
    """Return the statements that are prepared on a connection."""
    cursor = await connection.execute("SELECT statement FROM pg_prepared_statements", prepare=False)
    return {row["statement"] for row in await cursor.fetchall()}


_LOUD = """DO $$ BEGIN
    CREATE FUNCTION pg_temp.loud() RETURNS trigger LANGUAGE plpgsql
        AS $f$ BEGIN RAISE NOTICE 'loud'; RETURN NEW; END $f$;
    CREATE TRIGGER loud BEFORE INSERT ON turnlog_events FOR EACH ROW
        WHEN (position('loud' IN NEW.originator_id) > 0) EXECUTE FUNCTION pg_temp.loud();
END $$"""


def test_iterating_lets_others_in(url: str) -> None:
    """Between two pages of events the application uses the connection as it likes."""

    async def main() -> None:
        async with aio.open(url) as store, connected(url) as app, app.transaction(force_rollback=True):
            session = await (await store.using(app)).session(uuid4().hex)
            await session.add_messages([{"role": "user", "content": str(n)} for n in range(600)])
            found = 0
            async for step in session.replay():
                found += step.event.version > 0
                if found % 100 == 0:
                    await app.execute("SELECT 1")
            assert found == 601
            assert len([event async for event in session.events()]) == 601

    asyncio.run(main())


def test_a_connection_of_a_pool_goes_back_clean(url: str) -> None:
    """A connection in no autocommit mode that comes from a pool serves one transaction after the other."""

    async def main() -> None:
        async with (
            aio.open(url) as store,
            AsyncConnectionPool[Connection](url, min_size=1, max_size=1, open=False) as pool,
        ):
            names = [uuid4().hex for _ in range(3)]
            for name in names:
                async with pool.connection(DEADLINE_S) as app:
                    await (await store.using(app)).session(name)
                    if name == names[1]:
                        await app.rollback()
            assert [await store.exists(name) for name in names] == [True, False, True]
            assert pool.get_stats().get("connections_num") == 1

    asyncio.run(main())
