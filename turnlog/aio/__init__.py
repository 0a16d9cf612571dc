"""turnlog for asyncio: the same names with the same meaning, awaitable.

async with turnlog.aio.open("sqlite:///sessions.db") as store:
    session = await store.session("user-alice", user_id="alice")
    await session.add_message("user", "A table for two, please")

There is one implementation, the blocking one; its calls are made in threads (threads.py). surface.py and followed.py
are derived from it by scripts/derive_aio.py.
Errors, values and events are those of ``turnlog``.
"""

from turnlog.aio.followed import Followed, follow
from turnlog.aio.subscription import Subscription
from turnlog.aio.surface import ConversationStore, Session, open  # noqa: A004 - as turnlog.open
from turnlog.aio.turn import Turn

__all__ = ["ConversationStore", "Followed", "Session", "Subscription", "Turn", "follow", "open"]
