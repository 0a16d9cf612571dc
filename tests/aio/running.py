"""What the tests of `turnlog.aio` share."""

import asyncio
import threading
from collections.abc import Callable, Collection

from turnlog import aio

DEADLINE_S = 60
_OF_THE_ADAPTER = ("turnlog-scheduler", "turnlog-worker", "turnlog news", "turnlog group")
"""A pool of connections has them, who waits for news, and who commits for others, however many calls there are."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, with a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - of a condition in a thread no event is set
            await asyncio.sleep(0.001)


async def contents(session: aio.Session) -> list[object]:
    """Return what the visible messages say."""
    return [message.content for message in await session.history()]


async def turns(session: aio.Session) -> list[tuple[int, int]]:
    """Return the place of every event in its turn, but for the first."""
    return [event.turn async for event in session.events(after=1)]


def threads(but: Collection[threading.Thread] = ()) -> int:
    """Return how many threads stores have, but for those that were there before and those of PostgreSQL's adapter."""
    names = [thread.name for thread in threading.enumerate() if thread not in but]
    return sum(name.startswith("turnlog") and not name.startswith(_OF_THE_ADAPTER) for name in names)
