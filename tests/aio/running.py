"""What the tests of `turnlog.aio` share."""

import asyncio
import threading
from collections.abc import Callable, Collection

from turnlog import aio

DEADLINE_S = 30


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
    """Return how many threads stores have, but for those that were there before."""
    return sum(thread.name.startswith("turnlog") and thread not in but for thread in threading.enumerate())
