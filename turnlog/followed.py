"""Followed: a search engine that follows a store's log, to be searched and counted. Start with ``follow``.

It is never part of a write, and can be away: it catches up. What it shows is what it has caught up with.
"""

import logging
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import Event
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from turnlog import inputs
from turnlog.adapters.connect import follower
from turnlog.domain.analytics import DayCount, FoundMessage, ResponseTimes, SessionCount, StepOutcome
from turnlog.domain.errors import InvalidInput, StoreError, StoreUnavailable
from turnlog.domain.recorder import Recorder
from turnlog.domain.values import Page, RebuildProgress, SessionSummary, ViewStatus
from turnlog.projections.applying import mark
from turnlog.projections.conversation_index import Followable, MessagesWanted, SessionsWanted
from turnlog.projections.engine import Engine
from turnlog.projections.view_store import Parked
from turnlog.store import ConversationStore, decider_of

WAIT_S = 0.25
"""How long one wait for news lasts before it is looked whether to stop."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Pauses between attempts while it is away: each twice the one before."""
MOST_FOUND = 1_000
"""The largest page."""
ORDERS = ("relevance", "newest")
_log = logging.getLogger("turnlog")


class Stop(Protocol):
    """What ends ``run``: a ``threading.Event``, or what behaves like one."""

    def is_set(self) -> bool:
        """Return whether to stop."""
        ...

    def wait(self, timeout: float) -> object:
        """Return when it is set, or the seconds are over."""
        ...


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """How far a follower is: it has applied the log up to ``position``, and the log ends at ``head``.

    ``trouble`` says why it does not get on, where the search engine is away.
    """

    position: int
    head: int
    trouble: str | None = None

    @property
    def behind(self) -> int:
        """How many positions are missing."""
        return max(self.head - self.position, 0)


def follow(store: ConversationStore, url: str, **options: Any) -> "Followed":
    """Have a search engine follow a store, making its indices if they are not there; the store stays the record.

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
    decider = decider_of(store)
    recorder = decider.recorder
    found = follower(url, recorder, options)
    try:
        engine = Engine(recorder, found.views, decider.codec, watch=decider.watch)
        return Followed(found, engine, recorder, store.tenant)
    except BaseException:
        found.asked.close()
        raise


class Followed:
    """What follows a store. Made by ``turnlog.follow``; a context manager; safe to share between threads.

    Every method raises ``StoreUnavailable`` where the search engine cannot be reached. Its answers are of the tenant
    whose store is followed, and as of the last ``catch_up`` or, while ``run`` runs, a second ago.
    """

    def __init__(self, found: Followable, engine: Engine, recorder: Recorder, tenant: str) -> None:
        self._index, self._views, self._view = found.asked, found.views, found.view
        self._engine = engine
        self._recorder = recorder
        self._tenant = tenant
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        with self._views.read() as connection:
            at = self._views.checkpoints(connection).get(self._view.name)
        if at is not None and at.position:
            rows = self._recorder.select_log(after=at.position - 1, upto=at.position, limit=1)
            if not rows or mark(rows[0]) != at.mark:
                words = f"the indices have followed another log (position {at.position} is another event here)"
                raise StoreError(f"{words}: choose another prefix, or delete them")
        self._views.remove_abandoned()
        self._engine.add(self._view)
        if not self._views.is_as_wanted():
            self._engine.rebuild(self._view.name)

    # --- following ----------------------------------------------------------------------------------------------------

    def catch_up(self, progress: Callable[[RebuildProgress], object] | None = None) -> None:
        """Apply what the log has by now, and have searches see it. ``progress`` is told after every page."""
        head = self._recorder.position()
        while not (self._engine.catch_up(progress=progress) and self._engine.checkpoint(self._view.name) >= head):
            pass  # another follower, or a rebuild, was first: what is left is less each time
        self._index.refresh()

    def run(self, stop: Stop | None = None, told: Callable[[Lag], object] | None = None) -> None:
        """Go on applying what is written, until ``stop`` is set; wait for a search engine that is away.

        ``told`` is told after every page, and after every attempt that failed: then ``trouble`` says why. What it
        raises ends it.
        """
        stop, tell = stop or Event(), told or _tell_nobody
        pause_s = FIRST_PAUSE_S
        position = 0

        def progress(reached: RebuildProgress) -> None:
            nonlocal position
            position = reached.position
            tell(Lag(position=position, head=max(reached.target, position)))
            if stop.is_set():
                raise _Stopped

        while not stop.is_set():
            try:
                head = self._recorder.position()
                self.catch_up(progress)
                position, pause_s = max(head, position), FIRST_PAUSE_S
                tell(Lag(position=position, head=head))
            except _Stopped:
                return
            except StoreUnavailable as error:
                _log.warning("following pauses for %.1f s: %s", pause_s, error)
                tell(Lag(position=position, head=self._head_or(position), trouble=str(error)))
                stop.wait(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                while not stop.is_set() and not self._recorder.wait_for_news(head, WAIT_S):
                    pass

    def status(self) -> ViewStatus:
        """Return how far it is, how far behind the log, and how many sessions are parked."""
        found = self._engine.status()
        if not found:
            raise StoreUnavailable("the indices are gone; catch_up() makes them anew")
        return found[0]

    def parked(self) -> Sequence[Parked]:
        """Return the sessions of which an event could not be applied, and why; the others go on."""
        return self._engine.parked(self._view.name)

    def retry(self) -> bool:
        """Try parked sessions again; return whether none is left."""
        self._engine.retry(self._view.name)
        self._index.refresh()
        return not self.parked()

    def rebuild(self, progress: Callable[[RebuildProgress], object] | None = None) -> None:
        """Build new indices from the log, while the old ones answer, and have the aliases name the new ones.

        Interrupted, it goes on where it was when called again; after a day what was begun is deleted.
        """
        self._engine.rebuild(self._view.name, progress)

    def discard_builds(self) -> None:
        """Delete what was begun to be rebuilt and is not finished: it may hold what has been erased since."""
        self._views.discard_builds()

    def scrub(self) -> None:
        """Catch up, and have the indices let go of the bytes of what was deleted (it may take long)."""
        self.catch_up()
        with self._views.write() as connection:
            self._views.merge(connection)

    def close(self) -> None:
        """Close the connections; the store stays open."""
        self._index.close()

    # --- questions ----------------------------------------------------------------------------------------------------

    def search(
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
        if order not in ORDERS:
            raise InvalidInput("order", f"expected one of {', '.join(ORDERS)}, got {order!r:.50}")
        wanted = self._messages(user_id, session_id, agent, role, route, since, until)
        return self._index.find(
            inputs.text("text", text),
            wanted,
            order="newest" if order == "newest" else "relevance",
            limit=inputs.number("limit", limit, least=1, most=MOST_FOUND),
            cursor=inputs.optional(inputs.text, "cursor", cursor),
        )

    def sessions(
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
        limit = inputs.number("limit", limit, least=1, most=MOST_FOUND)
        at = inputs.optional(inputs.text, "cursor", cursor)
        return self._index.sessions(self._sessions(user_id, agent, status, route), limit=limit, cursor=at)

    def counts(self) -> tuple[int, int]:
        """Return how many sessions and visible messages there are."""
        return self._index.counts(self._tenant)

    def messages_per_day(
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
        wanted = self._messages(user_id, None, agent, role, route, since, until)
        return self._index.messages_per_day(wanted, inputs.text("time_zone", time_zone))

    def sessions_by_status(
        self, *, user_id: str | None = None, agent: str | None = None, route: str | None = None
    ) -> Sequence[SessionCount]:
        """Return how many sessions have each status on each route, the most first."""
        return self._index.sessions_by_status(self._sessions(user_id, agent, None, route))

    def step_outcomes(
        self, route: str | None = None, *, user_id: str | None = None, agent: str | None = None
    ) -> Sequence[StepOutcome]:
        """Return what became of the sessions that entered each step (of one route), the most visited first."""
        on = inputs.optional(inputs.identifier, "route", route)
        return self._index.step_outcomes(self._sessions(user_id, agent, None, None), on)

    def response_times(
        self,
        *,
        user_id: str | None = None,
        agent: str | None = None,
        route: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> ResponseTimes:
        """Return how long users waited for answers: from the first message not answered yet, by ``occurred_at``."""
        return self._index.response_times(self._messages(user_id, None, agent, None, route, since, until))

    def _messages(
        self,
        user_id: str | None,
        session_id: str | None,
        agent: str | None,
        role: str | None,
        route: str | None,
        since: datetime | None,
        until: datetime | None,
    ) -> MessagesWanted:
        return MessagesWanted(
            tenant=self._tenant,
            user_id=inputs.optional(inputs.identifier, "user_id", user_id),
            session_id=inputs.optional(inputs.identifier, "session_id", session_id),
            agent=inputs.optional(inputs.identifier, "agent", agent),
            role=inputs.optional(inputs.role, "role", role),
            route=inputs.optional(inputs.identifier, "route", route),
            since=inputs.optional(inputs.when, "since", since),
            until=inputs.optional(inputs.when, "until", until),
        )

    def _sessions(
        self, user_id: str | None, agent: str | None, status: str | None, route: str | None
    ) -> SessionsWanted:
        return SessionsWanted(
            tenant=self._tenant,
            user_id=inputs.optional(inputs.identifier, "user_id", user_id),
            agent=inputs.optional(inputs.identifier, "agent", agent),
            status=inputs.optional(inputs.status, "status", status),
            route=inputs.optional(inputs.identifier, "route", route),
        )

    def _head_or(self, position: int) -> int:
        """Return the log's head; where that cannot be reached either, the position."""
        try:
            return max(self._recorder.position(), position)
        except StoreUnavailable:
            return position


class _Stopped(BaseException):
    """Interrupts catching up between two pages."""


def _tell_nobody(lag: Lag) -> None:
    del lag
