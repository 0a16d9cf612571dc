"""What type checkers are told: mypy and pyright check this file, and it runs."""

import asyncio
from collections.abc import AsyncIterator
from typing import assert_type

import turnlog.aio
from turnlog import Message, Page, Receipt, RecordedEvent, RouteVisit, SessionState, SessionSummary, Step
from turnlog.aio import ConversationStore, Session, Subscription, Turn


async def use(url: str) -> None:
    """Use everything that is typed in a way of its own."""
    assert_type(await turnlog.aio.open("memory://"), ConversationStore)
    async with turnlog.aio.open(url, tenant="t", max_threads=4, max_event_bytes=4096) as store:
        assert_type(store, ConversationStore)
        session = await store.session("s", user_id="alice")
        assert_type(session, Session)
        assert_type(session.created, bool)
        assert_type(session.user_id, str | None)
        assert_type(session.state, SessionState)
        assert_type(await session.add_message("user", "hi", message_id="m", actor="web"), Receipt)
        async with session.turn(actor="bot") as turn:
            assert_type(turn, Turn)
            assert_type(await session.collect(size=2), Receipt)
        assert_type(turn.receipt, Receipt)
        assert_type(await session.history(last=2), list[Message])
        assert_type(await session.message("m"), Message | None)
        assert_type(await session.pop_message(), Message | None)
        assert_type(await session.routes(), list[RouteVisit])
        assert_type(await session.refresh(), Session)
        assert_type(await session.fork("f"), Session)
        assert_type(await session.reset(preserve_history=True), Session)
        assert_type(session.replay(), AsyncIterator[Step])
        async for step in session.replay():
            assert_type(step, Step)
        async for event in session.events(last=1):
            assert_type(event, RecordedEvent)
        assert_type(await store.active_session("alice"), Session | None)
        assert_type(await store.sessions(limit=1), Page[SessionSummary])
        assert_type(store.for_user("alice"), ConversationStore)
        assert_type(await store.position, int)
        async with store.subscribe(after=0) as subscription:
            assert_type(subscription, Subscription)
            assert_type(subscription.position, int)
            async for event in subscription:
                assert_type(event, RecordedEvent)
                break


def test_the_types_are_what_is_there(url: str) -> None:
    """What the checkers were told is true."""
    asyncio.run(use(url))
