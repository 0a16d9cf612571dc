"""What follows a store, awaitable. Made by scripts/derive_aio.py from the blocking one."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from turnlog import followed
from turnlog.aio.surface import ConversationStore
from turnlog.aio.threads import MAX_THREADS, Opening, Threads, to_the_end
from turnlog.domain.analytics import DayCount, FoundMessage, ResponseTimes, SessionCount, StepOutcome
from turnlog.domain.values import Page, RebuildProgress, SessionSummary, ViewStatus
from turnlog.followed import Lag, Stop
from turnlog.projections.view_store import Parked

P = ParamSpec("P")
T = TypeVar("T")


def follow(store: ConversationStore, url: str, **options: Any) -> Opening["Followed"]:
    """Have a search engine follow a store, which stays the record; ``await`` it, or ``async with``.

    Nothing is read of the log yet: ``catch_up`` does it once, ``run`` for as long as is wanted.

    Args:
        store: all of a store, not what one user sees. Its tenant is the one that is searched; all tenants are followed.
        url: ``opensearch://user:password@host:9200``, or ``opensearch+https://…``; several hosts with commas.
        options: ``prefix`` of all names (``turnlog``), ``names`` (a dict of those of ``sessions``, ``messages`` and
            ``checkpoint``), ``language`` (an analyser of the cluster's, as ``german``, ``cjk``; ``standard``; another
            than before rebuilds the view), ``shards`` (1) and ``replicas`` (one, as soon as there is a second node) of
            new indices, ``timeout_s`` (30), ``ca_certs`` (a file), ``verify`` (True: certificates are).

    Raises:
        InvalidInput: an argument is not understood.
        StoreUnavailable: it cannot be reached.
        StoreError: it has followed another log, or a newer turnlog's view is there.
    """
    blocking = store._blocking  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what it is made of

    async def opened() -> Followed:
        threads = Threads(MAX_THREADS)
        call = partial(followed.follow, blocking, url, **options)
        return Followed(threads, await threads.finish_or_undo(call, undo=followed.Followed.close))

    return Opening(opened)


class Followed:
    """What follows a store. Made by ``turnlog.aio.follow``; an asynchronous context manager; for one loop.

    Every method raises ``StoreUnavailable`` where the search engine cannot be reached. Its answers are of the tenant
    whose store is followed, and as of the last ``catch_up`` or, while ``run`` runs, a second ago.

    It has threads of its own. A call that has begun is finished even if its task is cancelled; long ones (``run``,
    ``rebuild`` and ``catch_up``) are interrupted at their next page then.
    """

    def __init__(self, threads: Threads, blocking: followed.Followed) -> None:
        self._threads = threads
        self._blocking = blocking

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await to_the_end(self.close())

    async def _run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._threads.finish(call, *args, **kwargs)

    async def catch_up(self, progress: Callable[[RebuildProgress], object] | None = None) -> None:
        """Apply what the log has by now, and have searches see it. ``progress`` is told after every page."""
        await self._threads.stoppable(self._blocking.catch_up, progress)

    async def run(self, stop: Stop | None = None, told: Callable[[Lag], object] | None = None) -> None:
        """Go on applying what is written, until stopped or cancelled; wait for a search engine that is away.

        ``told`` is told after every page, and after every attempt that failed: then ``trouble`` says why. What it
        raises ends it.
        """
        await self._threads.until(self._blocking.run, stop, told)

    async def status(self) -> ViewStatus:
        """Return how far it is, how far behind the log, and how many sessions are parked."""
        return await self._run(self._blocking.status)

    async def parked(self) -> Sequence[Parked]:
        """Return the sessions of which an event could not be applied, and why; the others go on."""
        return await self._run(self._blocking.parked)

    async def retry(self) -> bool:
        """Try parked sessions again; return whether none is left."""
        return await self._run(self._blocking.retry)

    async def rebuild(self, progress: Callable[[RebuildProgress], object] | None = None) -> None:
        """Build new indices from the log, while the old ones answer, and have the aliases name the new ones.

        Interrupted, it goes on where it was when called again; after a day what was begun is deleted.
        """
        await self._threads.stoppable(self._blocking.rebuild, progress)

    async def discard_builds(self) -> None:
        """Delete what was begun to be rebuilt and is not finished: it may hold what has been erased since."""
        await self._run(self._blocking.discard_builds)

    async def scrub(self) -> None:
        """Catch up, and have the indices let go of the bytes of what was deleted (it may take long)."""
        await self._run(self._blocking.scrub)

    async def close(self) -> None:
        """Close the connections; the store stays open."""
        await self._threads.close(self._blocking.close)

    async def search(
        self,
        text: str,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        agent: str | None = None,
        role: str | None = None,
        route: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        order: str = "relevance",
        limit: int = 20,
        cursor: str | None = None,
    ) -> Page[FoundMessage]:
        """Return a page of visible messages that have all the words, the best first (or ``order="newest"``).

        Words are those of the index's language. ``"a phrase"``, ``-not``, ``one | other`` and ``begin*`` count.
        ``since <= occurred_at < until``.
        """
        return await self._run(
            self._blocking.search,
            text,
            user_id=user_id,
            session_id=session_id,
            agent=agent,
            role=role,
            route=route,
            since=since,
            until=until,
            order=order,
            limit=limit,
            cursor=cursor,
        )

    async def sessions(
        self,
        *,
        user_id: str | None = None,
        agent: str | None = None,
        status: str | None = None,
        route: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[SessionSummary]:
        """Return a page of sessions, newest update first, as ``store.sessions`` would."""
        return await self._run(
            self._blocking.sessions,
            user_id=user_id,
            agent=agent,
            status=status,
            route=route,
            limit=limit,
            cursor=cursor,
        )

    async def counts(self) -> tuple[int, int]:
        """Return how many sessions and visible messages there are."""
        return await self._run(self._blocking.counts)

    async def messages_per_day(
        self,
        *,
        user_id: str | None = None,
        agent: str | None = None,
        role: str | None = None,
        route: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        time_zone: str = "UTC",
    ) -> Sequence[DayCount]:
        """Return how many messages each day has, by ``occurred_at``; days begin at midnight in ``time_zone``."""
        return await self._run(
            self._blocking.messages_per_day,
            user_id=user_id,
            agent=agent,
            role=role,
            route=route,
            since=since,
            until=until,
            time_zone=time_zone,
        )

    async def sessions_by_status(
        self, *, user_id: str | None = None, agent: str | None = None, route: str | None = None
    ) -> Sequence[SessionCount]:
        """Return how many sessions have each status on each route, the most first."""
        return await self._run(self._blocking.sessions_by_status, user_id=user_id, agent=agent, route=route)

    async def step_outcomes(
        self, route: str | None = None, *, user_id: str | None = None, agent: str | None = None
    ) -> Sequence[StepOutcome]:
        """Return what became of the sessions that entered each step (of one route), the most visited first."""
        return await self._run(self._blocking.step_outcomes, route, user_id=user_id, agent=agent)

    async def response_times(
        self,
        *,
        user_id: str | None = None,
        agent: str | None = None,
        route: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> ResponseTimes:
        """Return how long users waited for answers: from the first message not answered yet, by ``occurred_at``."""
        return await self._run(
            self._blocking.response_times, user_id=user_id, agent=agent, route=route, since=since, until=until
        )
