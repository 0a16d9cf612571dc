"""The side of a program that keeps conversations in one package: a line of JSON asks, a line of JSON answers.

It runs in the package's own environment, so nothing but the standard library is imported here. All that is timed is
timed here, around the package's calls alone.
"""

import asyncio
import gc
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any, Protocol

TEXT = (
    "Could you please move my booking from Tuesday to Thursday afternoon, and tell me whether the window seat is still"
    " free? If it is not, then the one right behind it will do just as well. Thanks!!!"
)
"""As that of ``stores.py``, which the peers' environments cannot import."""


class Conversations(Protocol):
    """What every package is asked to do, each by the calls that its documentation shows for it."""

    async def open(self, path: str, durability: str) -> None:
        """Open the file, or make it."""
        ...

    async def close(self) -> None:
        """Let go of the file."""
        ...

    async def join(self, session_id: str) -> None:
        """Make this the session that is spoken of from now on; begin it if it is new."""
        ...

    async def refresh(self) -> None:
        """Learn what others have said, where the package does not do so by itself before it writes."""
        ...

    async def turn(self, user: str, assistant: str) -> None:
        """Add a user's and an assistant's message."""
        ...

    async def fill(self, turns: int) -> None:
        """Take so many turns as quickly as the package can, which is not measured."""
        ...

    async def last(self, n: int) -> Sequence[str]:
        """Return the texts of the last ``n`` messages, oldest first."""
        ...

    async def everything(self) -> Sequence[str]:
        """Return the texts of all messages."""
        ...

    async def settings(self) -> str:
        """Tell how durable its commits really are, as its connection says."""
        ...


def answer(conversations: Conversations) -> None:
    """Do what standard input asks for, one thing after the other in one event loop, until it ends."""
    asyncio.run(_answer(conversations))


async def _answer(conversations: Conversations) -> None:
    timed = Timed(conversations)
    known: dict[str, Callable[..., Awaitable[object]]] = {
        "open": conversations.open,
        "close": conversations.close,
        "join": conversations.join,
        "fill": conversations.fill,
        "everything": conversations.everything,
        "settings": conversations.settings,
        "turns": timed.turns,
        "last": timed.last,
        "reopen": timed.reopen,
        "race": timed.race,
    }
    answers, sys.stdout = sys.stdout, sys.stderr  # what a package prints is no answer
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(await known[name](*arguments)), file=answers, flush=True)


class Timed:
    """What is timed, and what is counted."""

    def __init__(self, conversations: Conversations) -> None:
        self._to = conversations

    async def turns(self, n: int) -> list[float]:
        """Take ``n`` turns; return the seconds of each."""
        gc.collect()
        times: list[float] = []
        for _ in range(n):
            began = perf_counter()
            await self._to.turn(TEXT, TEXT)
            times.append(perf_counter() - began)
        return times

    async def last(self, n: int) -> float:
        """Return the seconds that reading the last ``n`` messages takes."""
        gc.collect()
        began = perf_counter()
        texts = await self._to.last(n)
        took = perf_counter() - began
        _expect(texts, n)
        return took

    async def reopen(self, path: str, durability: str, session_id: str, n: int) -> float:
        """Close; return the seconds that opening and reading the last ``n`` messages of a session take."""
        await self._to.close()
        gc.collect()
        began = perf_counter()
        await self._to.open(path, durability)
        await self._to.join(session_id)
        texts = await self._to.last(n)
        took = perf_counter() - began
        _expect(texts, n)
        return took

    async def race(self, worker: str, turns: int) -> dict[str, Any]:
        """Take turns while others do; return which were told to have been kept, and what was raised how often."""
        kept: list[int] = []
        raised: dict[str, int] = {}
        for number in range(turns):
            try:
                await self._to.refresh()
                await self._to.turn(*said(worker, number))
            except Exception as error:  # noqa: BLE001 - whatever a caller of the package would see is counted
                kind = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                raised[kind] = raised.get(kind, 0) + 1
            else:
                kept.append(number)
        return {"kept": kept, "raised": raised}


def said(worker: str, number: int) -> tuple[str, str]:
    """Return the two texts of one turn in a race: no other turn says the same."""
    return f"{worker} {number} user {TEXT}", f"{worker} {number} assistant {TEXT}"


def _expect(texts: Sequence[str], n: int) -> None:
    if len(texts) != n:
        raise RuntimeError(f"asked for the last {n} messages, got {len(texts)}")
