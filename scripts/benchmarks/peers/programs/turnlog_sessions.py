"""turnlog, asked the same through the same lines: a turn is one ``with session.turn()``."""

from pathlib import Path
from typing import Any, cast

import turnlog
from scripts.benchmarks.peers.answering import answer
from scripts.benchmarks.stores import fill, url_of


class Sessions:
    """See ``answering.Conversations``."""

    async def open(self, path: str, durability: str) -> None:
        self._store = turnlog.open(url_of(Path(path)), durability=cast("Any", durability))

    async def close(self) -> None:
        self._store.catch_up()  # so that the file's size has all that its messages cost
        self._store.close()

    async def join(self, session_id: str) -> None:
        self._session = self._store.session(session_id, user_id="user-1")

    async def refresh(self) -> None:
        """Do nothing: whoever writes loads what he missed."""

    async def turn(self, user: str, assistant: str) -> None:
        with self._session.turn():
            self._session.add_message("user", user)
            self._session.add_message("assistant", assistant)

    async def fill(self, turns: int) -> None:
        fill(self._session, 2 * turns)

    async def last(self, n: int) -> list[str]:
        return [cast("str", message.content) for message in self._session.history(last=n)]

    async def everything(self) -> list[str]:
        return [cast("str", message.content) for message in self._session.history()]

    async def settings(self) -> str:
        return f"durability {self._session.add_message('user', 'How durable?').durability}"


if __name__ == "__main__":
    answer(Sessions())
