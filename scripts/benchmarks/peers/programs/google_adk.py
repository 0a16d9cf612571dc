"""Google ADK: ``DatabaseSessionService`` with the URL of a file; a turn is two ``append_event``.

https://google.github.io/adk-docs/sessions/session/
"""

from typing import Any
from uuid import uuid4

from google.adk.events import Event
from google.adk.sessions import DatabaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.genai.types import Content, Part
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

from scripts.benchmarks.peers.answering import TEXT, answer

_WHO = {"app_name": "bench", "user_id": "user-1"}


class Sessions:
    """See ``answering.Conversations``."""

    async def open(self, path: str, durability: str) -> None:
        if durability != "full":
            raise ValueError("DatabaseSessionService has no setting for it")
        self._url = f"sqlite+aiosqlite:///{path}"
        self._service = DatabaseSessionService(self._url)

    async def close(self) -> None:
        await self._service.close()

    async def join(self, session_id: str) -> None:
        self._id = session_id
        newest = GetSessionConfig(num_recent_events=0)
        found = await self._service.get_session(**_WHO, session_id=session_id, config=newest)
        self._session: Any = found or await self._service.create_session(**_WHO, session_id=session_id)

    async def refresh(self) -> None:
        """Load the session as its ``Runner`` does before each turn: what was loaded before may be stale."""
        self._session = await self._service.get_session(**_WHO, session_id=self._id)

    async def turn(self, user: str, assistant: str) -> None:
        turn = str(uuid4())
        for author, role, said in (("user", "user", user), ("concierge", "model", assistant)):
            content = Content(role=role, parts=[Part(text=said)])
            await self._service.append_event(self._session, Event(author=author, invocation_id=turn, content=content))

    async def fill(self, turns: int) -> None:
        kept, engine = self._service, create_async_engine(self._url)
        event.listen(engine.sync_engine, "connect", _in_a_hurry)
        self._service = DatabaseSessionService(db_engine=engine)
        for _ in range(turns):
            await self.turn(TEXT, TEXT)
        await engine.dispose()
        self._service = kept

    async def last(self, n: int) -> list[str]:
        return await self._texts(GetSessionConfig(num_recent_events=n))

    async def everything(self) -> list[str]:
        return await self._texts(None)

    async def settings(self) -> str:
        async with self._service.db_engine.connect() as connection:
            asked = [
                (await connection.execute(text(f"PRAGMA {name}"))).scalar() for name in ("journal_mode", "synchronous")
            ]
        return "journal_mode {}, synchronous {}".format(*asked)

    async def _texts(self, config: GetSessionConfig | None) -> list[str]:
        session = await self._service.get_session(**_WHO, session_id=self._id, config=config)
        return [said.content.parts[0].text for said in session.events]


def _in_a_hurry(connection: Any, _: object) -> None:
    """Wait for no disk: only the filling, which nothing measures, is done like this."""
    for setting in ("synchronous=OFF", "journal_mode=MEMORY"):
        connection.execute(f"PRAGMA {setting}").close()


if __name__ == "__main__":
    answer(Sessions())
