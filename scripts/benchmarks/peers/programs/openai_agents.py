"""OpenAI Agents SDK: ``SQLiteSession``, one object for the session's life, ``add_items`` with a turn's two items.

https://openai.github.io/openai-agents-python/sessions/
"""

from typing import Any

from agents import SQLiteSession

from scripts.benchmarks.peers.answering import TEXT, answer


class Sessions:
    """See ``answering.Conversations``."""

    async def open(self, path: str, durability: str) -> None:
        if durability != "full":
            raise ValueError("SQLiteSession has no setting for it")
        self._path = path
        self._session: Any = None

    async def close(self) -> None:
        if self._session is not None:
            self._session.close()

    async def join(self, session_id: str) -> None:
        await self.close()
        self._session = SQLiteSession(session_id, self._path)

    async def refresh(self) -> None:
        """Do nothing: it adds rows and needs to know none."""

    async def turn(self, user: str, assistant: str) -> None:
        await self._session.add_items(_items(user, assistant))

    async def fill(self, turns: int) -> None:
        await self._session.add_items(_items(TEXT, TEXT) * turns)

    async def last(self, n: int) -> list[str]:
        return [item["content"] for item in await self._session.get_items(limit=n)]

    async def everything(self) -> list[str]:
        return [item["content"] for item in await self._session.get_items()]

    async def settings(self) -> str:
        with self._session._locked_connection() as connection:  # noqa: SLF001 - only its own connection knows
            asked = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
        return "journal_mode {}, synchronous {}".format(*asked)


def _items(user: str, assistant: str) -> Any:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


if __name__ == "__main__":
    answer(Sessions())
