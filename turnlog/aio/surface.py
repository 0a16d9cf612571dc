"""The session and the store, awaitable. Made by scripts/derive_aio.py from the blocking ones."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack

from turnlog import ids, inputs, session, store
from turnlog.aio.iterating import Items
from turnlog.aio.subscription import News, Subscription
from turnlog.aio.threads import MAX_THREADS, Opening, Threads, to_the_end
from turnlog.aio.turn import Turn
from turnlog.domain.events import Json
from turnlog.domain.values import (
    Diff,
    Erasure,
    ErasureReport,
    Head,
    Message,
    Page,
    RebuildProgress,
    Receipt,
    RecordedEvent,
    RouteVisit,
    Run,
    SearchHit,
    SessionState,
    SessionSummary,
    Stats,
    Step,
    StepVisit,
    UserSummary,
    VerificationReport,
)
from turnlog.inputs import WriteOptions
from turnlog.projections.backend import Backend
from turnlog.projections.view_store import Projection
from turnlog.proof import Heads
from turnlog.session import Moment

if TYPE_CHECKING:
    from pydantic import BaseModel

P = ParamSpec("P")
T = TypeVar("T")


class Session:
    """One conversation. Make it with ``store.session(…)`` or ``store.get(…)``.

    What its properties return is as of the handle's last read or write (``refresh()`` reads again) and is a copy.
    Every write raises ``SessionGone`` on a deleted session, ``SessionClosed`` where the status forbids it,
    ``InvalidInput`` for a bad value, ``ConcurrencyConflict`` where ``expected_version`` does not hold, and
    ``StoreError`` where the storage fails; then nothing was written. A write that would change nothing writes no event
    and returns the receipt of what is there. The keywords every write takes are those of ``WriteOptions``.

    Calls on one handle are made one after the other, whichever tasks make them. A call that has begun is finished even
    if its task is cancelled, so that the handle knows what was written.
    """

    def __init__(self, threads: Threads, blocking: session.Session) -> None:
        self._threads = threads
        self._blocking = blocking
        self._lock = asyncio.Lock()
        self.created = blocking.created
        """Whether the call that gave this handle created the session."""

    def __repr__(self) -> str:
        return f"<aio.{repr(self._blocking)[1:]}"

    async def _run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._lock:
            return await self._threads.finish(call, *args, **kwargs)

    @property
    def id(self) -> str:
        """The session's id."""
        return self._blocking.id

    @property
    def user_id(self) -> str | None:
        """The owner."""
        return self._blocking.user_id

    @property
    def agent(self) -> str | None:
        """The agent's name, as given at the start."""
        return self._blocking.agent

    @property
    def version(self) -> int:
        """The number of committed events."""
        return self._blocking.version

    @property
    def status(self) -> str:
        """``active``, ``paused``, ``completed``, ``abandoned``, ``failed``, ``expired`` or ``archived``."""
        return self._blocking.status

    @property
    def state(self) -> SessionState:
        """Everything but the messages; a copy."""
        return self._blocking.state

    @property
    def data(self) -> dict[str, Json]:
        """The collected data; a copy."""
        return self._blocking.data

    def data_as(self) -> "BaseModel":
        """Return the data as the ``data_model`` given to ``store.session``.

        Raises:
            InvalidInput: no model was given, or required fields are missing.
        """
        return self._blocking.data_as()

    @property
    def missing(self) -> tuple[str, ...]:
        """The required fields of the ``data_model`` that are still lacking.

        Raises:
            InvalidInput: no model was given.
        """
        return self._blocking.missing

    async def refresh(self) -> "Session":
        """Read what others wrote; return this handle.

        Raises:
            SessionGone: it was deleted.
        """
        await self._run(self._blocking.refresh)
        return self

    def turn(self, **options: Unpack[WriteOptions]) -> "Turn":
        """Commit everything said inside ``async with session.turn():`` as one append, or not at all.

        Inside, this handle's reads see what was said. If somebody else writes meanwhile, all of it is decided again.
        Nested turns join; a turn belongs to the task that opened it and those started inside. The keywords hold for all
        inside; a ``command_id`` makes the whole turn idempotent.
        """
        checked = inputs.options(options)
        return Turn(self._threads, self._lock, lambda: self._blocking.turn(**checked))

    async def add_message(
        self,
        role: str,
        content: Json,
        *,
        name: str | None = None,
        tool_calls: Sequence[Mapping[str, Json]] | None = None,
        tool_call_id: str | None = None,
        message_id: str | None = None,
        metadata: Mapping[str, Json] | None = None,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Add a message. A ``message_id`` that is given makes it idempotent, at any distance in the past.

        ``role``: user, assistant, system, tool or developer. ``content``: text, a list of parts, or None.

        Raises:
            IdempotencyConflict: this ``message_id`` was used for another message.
        """
        return await self._run(
            self._blocking.add_message,
            role,
            content,
            name=name,
            tool_calls=tool_calls,
            tool_call_id=tool_call_id,
            message_id=message_id,
            metadata=metadata,
            **options,
        )

    async def add_messages(
        self, messages: Sequence[Mapping[str, Json] | Message], **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Add several messages, all or none; each a dict with the fields of ``add_message``, or a ``Message``."""
        return await self._run(self._blocking.add_messages, messages, **options)

    async def message(self, message_id: str) -> Message | None:
        """Return the visible message with this id, or None."""
        return await self._run(self._blocking.message, message_id)

    async def history(
        self,
        *,
        last: int | None = None,
        before: str | None = None,
        at: Moment | None = None,
        max_tokens: int | None = None,
        count: Callable[[Message], int] | None = None,
        include_removed: bool = False,
        exact: bool = False,
    ) -> list[Message]:
        """Return the visible messages, oldest first; always reads the store.

        ``last``: only the newest n, reaching back to the call where they would begin with a tool's result
        (``exact=True``: just n). ``max_tokens`` with ``count`` (message → tokens): as many of the newest as fit, a
        window that would begin with a tool's result begins later. ``before``: those older than this message.
        ``at``: as it was at a version or an aware time. ``include_removed``: everything ever said.

        Raises:
            InvalidInput: ``before`` names no such message, ``at`` no version.
        """
        return await self._run(
            self._blocking.history,
            last=last,
            before=before,
            at=at,
            max_tokens=max_tokens,
            count=count,
            include_removed=include_removed,
            exact=exact,
        )

    async def edit_message(self, message_id: str, content: Json, **options: Unpack[WriteOptions]) -> Receipt:
        """Give a visible message another content; the original stays in the log."""
        return await self._run(self._blocking.edit_message, message_id, content, **options)

    async def remove_message(self, message_id: str, **options: Unpack[WriteOptions]) -> Receipt:
        """Take a visible message out of the history; it stays in the log."""
        return await self._run(self._blocking.remove_message, message_id, **options)

    async def pop_message(self, **options: Unpack[WriteOptions]) -> Message | None:
        """Take the last visible message out of the history and return it, or None if there is none.

        Repeated under its ``command_id`` it returns the message that it took the first time.
        """
        return await self._run(self._blocking.pop_message, **options)

    async def clear_history(self, **options: Unpack[WriteOptions]) -> Receipt:
        """Make the history empty; the messages stay in the log."""
        return await self._run(self._blocking.clear_history, **options)

    async def set_history(
        self, messages: Sequence[Mapping[str, Json] | Message], **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Replace the visible history by these messages (dicts or ``Message``).

        A ``message_id`` that is given counts as said: ``add_message`` under it adds nothing, or is a conflict.
        """
        return await self._run(self._blocking.set_history, messages, **options)

    async def compact_history(self, summary: Json, keep_last: int, **options: Unpack[WriteOptions]) -> Receipt:
        """Let one system message, ``summary``, stand for all but the newest ``keep_last`` messages.

        Keeps more where it would otherwise part a tool's result from its call. The originals stay in the log.
        """
        return await self._run(self._blocking.compact_history, summary, keep_last, **options)

    async def collect(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> Receipt:
        """Merge values into the data, key by key (nested values are replaced).

        The keywords of a write (``actor``, ``command_id``, …) are not data here; a key of such a name is given in
        ``values``. With a ``data_model`` every field is checked on its own.
        """
        return await self._run(self._blocking.collect, values, **more)

    async def discard(self, *keys: str, **options: Unpack[WriteOptions]) -> Receipt:
        """Remove keys from the data, also from ``data_by_route``; missing ones are no error."""
        return await self._run(self._blocking.discard, *keys, **options)

    async def clear_data(self, **options: Unpack[WriteOptions]) -> Receipt:
        """Remove all data."""
        return await self._run(self._blocking.clear_data, **options)

    async def set_context(
        self, values: Mapping[str, Json] | None = None, *, unset: Sequence[str] = (), **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Set keys of the context; a key set to null stays null, ``unset`` removes."""
        return await self._run(self._blocking.set_context, values, unset=unset, **options)

    async def set_metadata(
        self, values: Mapping[str, Json] | None = None, *, unset: Sequence[str] = (), **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Set keys of the metadata; a key set to null stays null, ``unset`` removes."""
        return await self._run(self._blocking.set_metadata, values, unset=unset, **options)

    async def enter_route(
        self, route: str, *, title: str | None = None, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Enter a route: ends the visit before it, clears the step."""
        return await self._run(self._blocking.enter_route, route, title=title, reason=reason, **options)

    async def exit_route(self, *, completed: bool = False, **options: Unpack[WriteOptions]) -> Receipt:
        """Leave the current route."""
        return await self._run(self._blocking.exit_route, completed=completed, **options)

    async def enter_step(
        self, step: str, *, description: str | None = None, **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Enter a step."""
        return await self._run(self._blocking.enter_step, step, description=description, **options)

    async def plan_transition(
        self, route: str, *, condition: str | None = None, reason: str | None = None, **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Note the route to go to next; entering it takes the note away."""
        return await self._run(self._blocking.plan_transition, route, condition=condition, reason=reason, **options)

    async def cancel_transition(self, **options: Unpack[WriteOptions]) -> Receipt:
        """Drop the planned transition."""
        return await self._run(self._blocking.cancel_transition, **options)

    async def call_tool(
        self, name: str, arguments: Json, *, call_id: str | None = None, **options: Unpack[WriteOptions]
    ) -> Receipt:
        """Note that a tool is called; the receipt has the ``call_id``, which is no idempotency key."""
        return await self._run(self._blocking.call_tool, name, arguments, call_id=call_id, **options)

    async def return_tool(
        self,
        call_id: str,
        content: Json,
        *,
        name: str | None = None,
        error: str | None = None,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Note what a tool returned: it belongs to the latest earlier call with this id.

        Raises:
            InvalidInput: there is no such call.
        """
        return await self._run(self._blocking.return_tool, call_id, content, name=name, error=error, **options)

    async def start_run(self, run_id: str | None = None, **details: Any) -> Receipt:
        """Note that a run of the agent starts; the receipt has the ``run_id``. ``details`` are any JSON.

        The keywords of a write (``actor``, ``command_id``, …) are not details.

        Raises:
            RuleViolation: this run was already started with other details.
        """
        return await self._run(self._blocking.start_run, run_id, **details)

    async def finish_run(
        self,
        run_id: str,
        *,
        status: str,
        result: Json = None,
        error: str | None = None,
        usage: Mapping[str, Json] | None = None,
        **options: Unpack[WriteOptions],
    ) -> Receipt:
        """Note how a run ended: ``completed``, ``failed``, ``interrupted`` or ``cancelled``.

        Raises:
            InvalidInput: there is no such run.
            RuleViolation: it has already ended otherwise.
        """
        return await self._run(
            self._blocking.finish_run, run_id, status=status, result=result, error=error, usage=usage, **options
        )

    async def routes(self, *, at: Moment | None = None) -> list[RouteVisit]:
        """Return every visit to a route, oldest first."""
        return await self._run(self._blocking.routes, at=at)

    async def steps(self, *, at: Moment | None = None) -> list[StepVisit]:
        """Return every stay on a step, oldest first."""
        return await self._run(self._blocking.steps, at=at)

    async def runs(self, *, at: Moment | None = None) -> list[Run]:
        """Return every run, oldest first."""
        return await self._run(self._blocking.runs, at=at)

    async def set_status(self, status: str, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Set the status; ``"active"`` is ``reopen``."""
        return await self._run(self._blocking.set_status, status, reason=reason, **options)

    async def pause(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Pause; the next message makes the session active again."""
        return await self._run(self._blocking.pause, reason=reason, **options)

    async def complete(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Close as completed."""
        return await self._run(self._blocking.complete, reason=reason, **options)

    async def abandon(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Close as abandoned."""
        return await self._run(self._blocking.abandon, reason=reason, **options)

    async def fail(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Close as failed."""
        return await self._run(self._blocking.fail, reason=reason, **options)

    async def expire(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Close as expired."""
        return await self._run(self._blocking.expire, reason=reason, **options)

    async def archive(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Put away, reversibly."""
        return await self._run(self._blocking.archive, reason=reason, **options)

    async def reopen(self, *, reason: str | None = None, **options: Unpack[WriteOptions]) -> Receipt:
        """Make a closed or paused session active."""
        return await self._run(self._blocking.reopen, reason=reason, **options)

    async def assign_owner(self, user_id: str, **options: Unpack[WriteOptions]) -> Receipt:
        """Give the session to a user."""
        return await self._run(self._blocking.assign_owner, user_id, **options)

    async def delete(self, **options: Unpack[WriteOptions]) -> Receipt:
        """Delete for ever: one transaction writes the tombstone and destroys every event's content.

        ``receipt.erasure`` says what may still physically hold bytes; ``store.scrub()`` finishes.
        """
        return await self._run(self._blocking.delete, **options)

    async def reset(self, *, preserve_history: bool = False, **options: Unpack[WriteOptions]) -> "Session":
        """Archive this session and return a new one that continues it, with its owner and, if wanted, its messages."""
        return Session(
            self._threads, await self._run(self._blocking.reset, preserve_history=preserve_history, **options)
        )

    async def fork(self, session_id: str | None = None, *, at: Moment | None = None) -> "Session":
        """Return a new active session that holds copies of this one's events, all or those up to ``at``.

        It belongs to this session's owner of now, so that erasing a user reaches both. Message ids and the times things
        occurred stay; erasing either leaves the other.

        Raises:
            InvalidInput: there is no such version, or ``session_id`` is taken.
        """
        return Session(self._threads, await self._run(self._blocking.fork, session_id, at=at))

    async def at(self, version: int | None = None, time: datetime | None = None) -> SessionState:
        """Return the state as it was right after a version, or at a time (the session's own, ``recorded_at``).

        Raises:
            InvalidInput: neither or both are given, or there is no such version.
        """
        return await self._run(self._blocking.at, version, time)

    def events(self, after: int = 0, last: int | None = None) -> AsyncIterator[RecordedEvent]:
        """Iterate the recorded events, oldest first: those after a version, or of these only the last n."""
        return Items(self._run, partial(self._blocking.events, after, last))

    def replay(self) -> AsyncIterator[Step]:
        """Iterate every event with the state before and after it."""
        return Items(self._run, self._blocking.replay)

    async def diff(self, from_version: int, to_version: int) -> Diff:
        """Return what changed in the state between two versions."""
        return await self._run(self._blocking.diff, from_version, to_version)


class ConversationStore:
    """All sessions of one tenant. Made by ``turnlog.aio.open``; an asynchronous context manager; for one loop.

    Every method raises ``StoreError`` where the storage fails.

    A call that has begun is finished even if its task is cancelled; long ones (``rebuild``, ``catch_up`` and
    ``add_projection``) are interrupted at their next page then.
    """

    def __init__(self, threads: Threads, blocking: store.ConversationStore, news: News | None = None) -> None:
        self._threads = threads
        self._blocking = blocking
        self._is_part = news is not None  # what a user sees of another store
        self._news = news or News(blocking)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await to_the_end(self.close())

    def __repr__(self) -> str:
        return f"<aio.{repr(self._blocking)[1:]}"

    async def _run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._threads.finish(call, *args, **kwargs)

    @property
    def tenant(self) -> str:
        """The tenant whose sessions these are."""
        return self._blocking.tenant

    async def session(
        self,
        session_id: str | None = None,
        *,
        user_id: str | None = None,
        agent: str | None = None,
        data: Mapping[str, Json] | None = None,
        context: Mapping[str, Json] | None = None,
        metadata: Mapping[str, Json] | None = None,
        history: Sequence[Mapping[str, Json] | Message] | None = None,
        data_model: "type[BaseModel] | None" = None,
    ) -> "Session":
        """Get a session, or create it; of several callers at once one creates and the others get. No id: a new one.

        The initial values are ignored where the session exists, but for ``user_id``: an ownerless session is assigned
        to the first who names himself. ``data_model``: a pydantic class that checks the data.

        Raises:
            NotOwner: it belongs to another user. SessionGone: it was deleted.
        """
        return Session(
            self._threads,
            await self._run(
                self._blocking.session,
                session_id,
                user_id=user_id,
                agent=agent,
                data=data,
                context=context,
                metadata=metadata,
                history=history,
                data_model=data_model,
            ),
        )

    async def get(self, session_id: str, *, data_model: "type[BaseModel] | None" = None) -> "Session":
        """Return a session that exists.

        Raises:
            SessionNotFound, SessionGone: it does not, or not any more.
        """
        return Session(self._threads, await self._run(self._blocking.get, session_id, data_model=data_model))

    async def exists(self, session_id: str) -> bool:
        """Return whether there is such a session, not deleted."""
        return await self._run(self._blocking.exists, session_id)

    async def active_session(
        self, user_id: str | None = None, *, data_model: "type[BaseModel] | None" = None
    ) -> Session | None:
        """Return the user's active session that was created last, if there is one."""
        found = await self._run(self._blocking.active_session, user_id, data_model=data_model)
        return None if found is None else Session(self._threads, found)

    def for_user(self, user_id: str) -> "ConversationStore":
        """Return this store as that user sees it: only his sessions, others do not exist.

        What is about the whole store is refused there: counts, proofs, views, upkeep, and to export, copy, import or
        follow it. ``position`` is the log's. A handle that was given out stays one, whoever the session is given to.
        """
        return ConversationStore(self._threads, self._blocking.for_user(user_id), self._news)

    async def using(self, connection: object) -> "ConversationStore":
        """Return this store inside the transaction that an application has open on a connection of its own.

        What is appended through it is committed with the application's rows, or not at all; an append that fails is
        undone alone, and the transaction can go on. Everything can be read, what is not committed yet too (only
        ``events()`` and ``position`` leave that out: it has no settled place in the log). A receipt's ``durability`` is
        ``pending`` and its ``position`` holds if the transaction is committed. Until it ends, whoever else writes to
        the same sessions waits, and readers of the log are not shown what was written after its first append. With
        ``ordering="strict"``, **every** writer waits from its first append on, this store's own calls in the same task
        too: they would wait for themselves. Keep it short.

        A call has the connection to itself: others who use it wait, and are waited for.

        Nobody is told of the commit: ``on_committed`` is not called, and who subscribes sees the events within half a
        second. What a handle knows and was rolled back it forgets when it next writes, or with ``refresh()``. Refused
        are ``subscribe``, ``on_committed``, ``verify`` of all, whatever erases, and whatever writes views.

        Args:
            connection: a ``psycopg.AsyncConnection`` to this store's database, in a READ COMMITTED transaction.

        Raises:
            InvalidInput: it is not such a connection, or the store is not on PostgreSQL.
            StoreUnavailable: the connection is closed, or its transaction has failed.
        """
        lender = store.lender_of(self._blocking, connection)
        threads = self._threads.lending(lender.lent)
        bound = await threads.finish(lambda: self._blocking.using(lender.connection))
        return ConversationStore(threads, bound, self._news)

    async def sessions(
        self,
        *,
        user_id: str | None = None,
        agent: str | None = None,
        status: str | None = None,
        route: str | None = None,
        older_than: datetime | None = None,
        newer_than: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
        consistency: str = "strong",
    ) -> Page[SessionSummary]:
        """Return a page of sessions, newest update first (by position in the log, never by a clock).

        ``older_than`` and ``newer_than`` compare ``updated_at``. ``consistency="eventual"``: as the view stands.
        """
        return await self._run(
            self._blocking.sessions,
            user_id=user_id,
            agent=agent,
            status=status,
            route=route,
            older_than=older_than,
            newer_than=newer_than,
            limit=limit,
            cursor=cursor,
            consistency=consistency,
        )

    async def messages(
        self, *, user_id: str | None = None, limit: int = 50, cursor: str | None = None, consistency: str = "strong"
    ) -> Page[Message]:
        """Return a page of a user's visible messages over all his sessions, newest first."""
        return await self._run(
            self._blocking.messages, user_id=user_id, limit=limit, cursor=cursor, consistency=consistency
        )

    async def search(
        self,
        text: str,
        *,
        user_id: str | None = None,
        role: str | None = None,
        route: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 20,
        cursor: str | None = None,
        consistency: str = "strong",
    ) -> Page[SearchHit]:
        """Return a page of the visible messages in which every word of ``text`` occurs, newest first.

        Case, punctuation and order do not count; docs/search.md says what a word is. ``route`` is that on which a
        message was said; it was said (or occurred) at ``since`` or later, and before ``until``. The first search builds
        an index, which takes as long as a rebuild does, and ``rebuild("message_search")`` as well; a store without one
        (Redis) reads the messages themselves.

        Raises:
            InvalidInput: ``text`` has no word.
        """
        return await self._run(
            self._blocking.search,
            text,
            user_id=user_id,
            role=role,
            route=route,
            since=since,
            until=until,
            limit=limit,
            cursor=cursor,
            consistency=consistency,
        )

    async def users(self, *, limit: int = 50, cursor: str | None = None) -> Page[UserSummary]:
        """Return a page of the users who own sessions, in order of their ids."""
        return await self._run(self._blocking.users, limit=limit, cursor=cursor)

    async def stats(self) -> Stats:
        """Return counts over this tenant."""
        return await self._run(self._blocking.stats)

    @property
    async def position(self) -> int:
        """The position of the log's newest event; 0 if there is none."""
        return await self._run(lambda: self._blocking.position)

    def events(
        self, *, after: int = 0, types: Sequence[str | type] | None = None, limit: int | None = None
    ) -> AsyncIterator[RecordedEvent]:
        """Iterate recorded events in position order, those above ``after``.

        ``types``: event classes of ``turnlog.events``, or their names.
        """
        return Items(self._run, partial(self._blocking.events, after=after, types=types, limit=limit))

    def subscribe(self, *, after: int | None = None, types: Sequence[str | type] | None = None) -> "Subscription":
        """Iterate events above ``after`` (none: from now on), then new ones as they come, until it is closed.

        Works within and across processes; ends when the subscription or the store is closed. A slow consumer costs no
        memory. To resume, pass the position of the last event that was dealt with.
        """
        blocking = self._blocking.subscribe(after=after or 0, types=types)
        start = self._threads.begin(lambda: self._blocking.position) if after is None else None
        return Subscription(self._threads, self._news, blocking, start)

    async def add_projection(
        self, projection: Projection, progress: Callable[[RebuildProgress], object] | None = None
    ) -> None:
        """Keep an application's own read model up to date.

        That is an object with ``name``, ``revision``, ``create(connection)`` and ``apply(events, connection)``.

        A revision other than the stored one rebuilds it; ``progress`` is as in ``rebuild``. It is caught up by
        ``catch_up`` and by writers, in their threads.
        """
        await self._threads.stoppable(partial(self._blocking.add_projection, projection), progress)

    async def catch_up(self, progress: Callable[[RebuildProgress], object] | None = None) -> None:
        """Bring every view that this store knows up to the log's head.

        ``progress`` is told after every page; what it raises interrupts.
        """
        await self._threads.stoppable(self._blocking.catch_up, progress)

    async def rebuild(
        self, view: str | None = None, progress: Callable[[RebuildProgress], object] | None = None
    ) -> None:
        """Build a view (or all) anew from the log beside the one that answers, then swap in one transaction.

        Interrupted, it goes on where it was when called again. ``progress`` is told after every page; what it raises
        interrupts.

        Raises:
            InvalidInput: there is no such view. StoreError: somebody else is rebuilding it.
        """
        await self._threads.stoppable(partial(self._blocking.rebuild, view), progress)

    def heads(self) -> AsyncIterator[Head]:
        """Iterate the last version and hash of every session: anchors to keep elsewhere, for ``verify(heads=…)``."""
        return Items(self._run, self._blocking.heads)

    async def verify(self, session_id: str | None = None, heads: Heads | None = None) -> VerificationReport:
        """Check every hash, every chain, every turn, the keys and the views; or one session's.

        Finds any changed, missing, reordered or inserted event inside a stream. A tail cut off, a whole stream gone, an
        old backup or a log recomputed from some event on are found against ``heads`` kept elsewhere (a file of
        ``turnlog heads``, or ``Head`` values).
        """
        return await self._run(self._blocking.verify, session_id, heads)

    async def erase_user(self, user_id: str) -> ErasureReport:
        """Delete every session of a user, forks too, and destroy their content, in one transaction.

        What he begins while it runs is erased in another. A session that cannot be read is erased too, unless whose it
        is cannot be told either: then it is among what is ``pending``.
        """
        return await self._run(self._blocking.erase_user, user_id)

    async def scrub(self, *, vacuum: bool = True) -> Erasure:
        """Destroy erased bytes that physically linger, and name what could not be reached.

        ``vacuum=False`` does not rewrite the database file: quicker, but its pages keep copies that SQLite made when
        it moved rows. Views that cannot forget are rebuilt. Backups are out of reach and yours to deal with.
        """
        return await self._run(self._blocking.scrub, vacuum=vacuum)

    def on_committed(self, callback: Callable[[Receipt], object]) -> None:
        """Have ``callback`` told of each receipt after the commit; what it raises is logged and changes nothing.

        It is called on the event loop, and may be a coroutine function.
        """
        if callable(callback):
            callback = self._threads.telling(callback)
        self._blocking.on_committed(callback)

    async def ping(self) -> None:
        """Return if the storage answers; raise ``StoreUnavailable`` if not."""
        await self._run(self._blocking.ping)

    async def clear(self) -> None:
        """Forget everything; for tests, on memory only. Handles and subscriptions from before are of no more use.

        Raises:
            InvalidInput: the store is not in memory.
        """
        await self._run(self._blocking.clear)

    async def close(self) -> None:
        """Release everything, end subscriptions. Closing twice does nothing.

        Closing what a user sees does nothing, nor what is inside an application's transaction.
        """
        if not self._is_part:
            await self._threads.close(self._blocking.close)
            self._news.close()


def open(  # noqa: A001 - as turnlog.open
    url: str | Backend,
    *,
    tenant: str = "default",
    durability: str = "full",
    engine: object = None,
    clock: Callable[[], datetime] = ids.utc_now,
    new_id: Callable[[], str] = ids.new_id,
    max_threads: int = MAX_THREADS,
    **options: Any,
) -> Opening[ConversationStore]:
    """Open a conversation store (``await`` it, or ``async with``), creating it if it is not there.

    Args:
        url: ``memory://``, ``sqlite:///path`` (four slashes for an absolute path), ``postgresql://user@host/database``
            or ``mariadb://user@host/database`` (also ``mysql://``; MySQL itself is not tested),
            ``mongodb://user@host/database`` (a replica set), ``redis://host`` or ``redis+cluster://host``
            (docs/redis.md). Also a URL that an installed package knows, or a ``Backend`` of one's own
            (docs/adapters.md).
        tenant: everything read and written belongs to it; no slash.
        durability: ``full``: an acknowledged write survives power loss; ``normal``: the end of the process.
        engine: a connection pool of the application's: a ``psycopg_pool.ConnectionPool`` for PostgreSQL, an
            ``sqlalchemy.Engine`` by PyMySQL for MariaDB, a ``pymongo.MongoClient``.
        clock: gives the time, aware; for tests.
        new_id: gives ids; for tests.
        max_threads: as many calls are made at the same time, each in a thread.
        options: ``timeout_s`` (30: how long to wait for a foreign writer), ``query_timeout_s`` (10: how long a query
            waits for a view), ``max_event_bytes`` (32 MiB), ``read_only`` (False; not in memory), ``names`` (a dict
            that renames tables and view columns), ``slow_s`` (none: what takes longer is logged), ``tracer_provider``
            and ``meter_provider`` (OpenTelemetry's, if not the global ones). Servers: ``pool_size``. PostgreSQL only:
            ``schema``, ``ordering`` (``auto``: appends take no lock; ``strict``: one after the other), ``partitions``
            (into how many the log's tables are split, when they are made; a Redis Cluster has them too). MongoDB
            only: ``database``, if the URL names none. Redis only: ``prefix`` of all keys, ``ttl_s`` (how long a session
            lives after it was last written to).

    Raises:
        InvalidInput: an argument is not understood.
        StoreError: the storage cannot be opened, is damaged, or was made by a newer turnlog.
    """

    async def opened() -> ConversationStore:
        threads = Threads(max_threads)
        call = partial(
            store.open, url, tenant=tenant, durability=durability, engine=engine, clock=clock, new_id=new_id, **options
        )
        return ConversationStore(threads, await threads.finish_or_undo(call, undo=store.ConversationStore.close))

    return Opening(opened)
