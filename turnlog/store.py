"""ConversationStore: open, find, query, follow, rebuild, verify, erase. Start with ``open``."""

import logging
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec
from msgspec.structs import replace

from turnlog import ids, inputs, resetting
from turnlog.adapters.connect import LONGEST_TIMEOUT_S, connect
from turnlog.decider import Decider, Loaded
from turnlog.domain import commands as c
from turnlog.domain import events as e
from turnlog.domain.errors import (
    InvalidInput,
    NotOwner,
    OutcomeUnknown,
    SessionGone,
    SessionNotFound,
    StoreError,
    StoreUnavailable,
)
from turnlog.domain.events import Json
from turnlog.domain.mapper import Codec
from turnlog.domain.recorder import Batch, Reader
from turnlog.domain.values import (
    Erasure,
    ErasureReport,
    Head,
    Message,
    Page,
    RebuildProgress,
    Receipt,
    RecordedEvent,
    SearchHit,
    SessionSummary,
    Stats,
    UserSummary,
    VerificationReport,
)
from turnlog.domain.words import Query
from turnlog.erasure import erase, load_to_erase
from turnlog.forking import fork_batch
from turnlog.index import OVERLAY_EVENTS, Index
from turnlog.inputs import WriteOptions
from turnlog.projections.backend import Backend, Lender
from turnlog.projections.engine import Engine
from turnlog.projections.history import require_living
from turnlog.projections.message_index import MessageIndex
from turnlog.projections.message_search import MessageSearch, SearchFilter
from turnlog.projections.session_index import SessionFilter, SessionIndex
from turnlog.projections.view_store import Projection
from turnlog.proof import Heads, Prover
from turnlog.saying import Said, said_with
from turnlog.searching import Searcher
from turnlog.session import Session, added
from turnlog.subscription import Owners, Subscription, topics_of
from turnlog.telemetry import watch_of
from turnlog.writing import SessionWriter, told

if TYPE_CHECKING:
    from pydantic import BaseModel

    from turnlog.data_model import DataModel

CATCH_UP_EVERY = 512
"""Whoever appends past a multiple of so many positions brings the views along: no query finds a huge backlog, however
many processes there are, and however short they live."""
PAGES = 2
"""As many transactions a view: a write is not held up for longer, however far behind the views are."""
MAX_EVENT_BYTES = 32 * 1024 * 1024
_PAGE = 1_000
_log = logging.getLogger("turnlog")


def open(  # noqa: A001 - turnlog.open is the name users expect, as in gzip.open
    url: str | Backend,
    *,
    tenant: str = "default",
    durability: str = "full",
    engine: object = None,
    clock: Callable[[], datetime] = ids.utc_now,
    new_id: Callable[[], str] = ids.new_id,
    **options: Any,
) -> "ConversationStore":
    """Open a conversation store, creating it if it is not there.

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
    tenant = inputs.tenant(tenant)
    for name, function in (("clock", clock), ("new_id", new_id)):
        if not callable(function):
            raise InvalidInput(name, "expected a function without arguments")
    query_timeout_s = inputs.seconds("query_timeout_s", options.pop("query_timeout_s", 10.0), most=LONGEST_TIMEOUT_S)
    max_event_bytes = inputs.number("max_event_bytes", options.pop("max_event_bytes", MAX_EVENT_BYTES), least=1024)
    watch = watch_of(url, options)
    backend = connect(url, durability=durability, engine=engine, options=options)
    if options:
        backend.recorder.close()
        raise InvalidInput(next(iter(options)), "is not an option of this store")
    codec = Codec()
    decider = Decider(backend.recorder, codec, tenant, _in_utc(clock), new_id, max_event_bytes, watch)
    views = Engine(backend.recorder, backend.views, codec, watch=watch, is_level=backend.is_level)
    try:
        for projection in (SessionIndex(), MessageIndex()):
            views.add(projection)
        if backend.views.searches:
            views.add(MessageSearch(), late=True)
    except BaseException:
        backend.recorder.close()
        raise
    watch.follow(views.status)
    index = Index(decider, views, backend.views, query_timeout_s)
    return ConversationStore(_Parts(backend, codec, decider, views, index, _Shared()))


class _Shared:
    """What all views of one store share: who is told of commits, and whether it is closed."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[Receipt], object]] = []
        self.closed = threading.Event()


class _Parts(msgspec.Struct, frozen=True):
    backend: Backend
    codec: Codec
    decider: Decider
    engine: Engine
    index: Index
    shared: _Shared
    is_bound: bool = False
    """Whether all of it is inside a transaction that the application commits, or rolls back."""

    def inside(self, backend: Backend) -> "_Parts":
        """Return the same on another connection, which is in a transaction of the application's."""
        d = self.decider
        decider = Decider(backend.recorder, self.codec, d.tenant, d.clock, d.new_id, d.max_event_bytes, d.watch)
        engine = self.engine.elsewhere(backend.recorder, backend.views)
        index = Index(decider, engine, backend.views, 0.0)  # nothing gets better while that transaction waits
        return _Parts(backend, self.codec, decider, engine, index, _Shared(), is_bound=True)


class ConversationStore:
    """All sessions of one tenant. Made by ``turnlog.open``; a context manager; safe to share between threads.

    Every method raises ``StoreError`` where the storage fails.
    """

    def __init__(self, parts: _Parts, user_id: str | None = None) -> None:
        self._parts = parts
        self._user = user_id
        self._recorder, self._views = parts.backend.recorder, parts.backend.views
        self._codec, self._decider = parts.codec, parts.decider
        self._engine, self._index = parts.engine, parts.index
        self._searcher = Searcher(parts.index, parts.engine, parts.backend.views)
        self._prover = Prover(self._recorder, parts.codec, parts.decider.tenant)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ConversationStore tenant={self.tenant!r}{f' user_id={self._user!r}' if self._user else ''}>"

    @property
    def tenant(self) -> str:
        """The tenant whose sessions these are."""
        return self._decider.tenant

    # --- sessions -----------------------------------------------------------------------------------------------------

    def session(
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
    ) -> Session:
        """Get a session, or create it; of several callers at once one creates and the others get. No id: a new one.

        The initial values are ignored where the session exists, but for ``user_id``: an ownerless session is assigned
        to the first who names himself. ``data_model``: a pydantic class that checks the data.

        Raises:
            NotOwner: it belongs to another user. SessionGone: it was deleted.
        """
        from_id = inputs.optional(inputs.identifier, "session_id", session_id)
        owner = self._owner(inputs.optional(inputs.identifier, "user_id", user_id))
        model = _model(data_model)
        given = inputs.mapping("data", {} if data is None else data)
        command = c.StartSession(
            user_id=owner,
            agent=inputs.optional(inputs.identifier, "agent", agent),
            data=inputs.json_object("data", given if model is None else model.values("data", given)),
            context=inputs.json_object("context", {} if context is None else context),
            metadata=inputs.json_object("metadata", {} if metadata is None else metadata),
        )
        said = (Said(command, command), *self._first_messages(history))
        if from_id is None:
            loaded = self._decider.nothing(self._decider.new_id())
        else:
            loaded = self._decider.load(from_id)
            self._require_visible(loaded, or_free=True)
        try:
            plan, receipt = self._decider.write(loaded, said)
        except NotOwner:
            if self._user is None:
                raise
            raise SessionNotFound(loaded.state.id) from None  # it became another's just now
        if plan.writes:
            self._committed(receipt)
        return self._handle(plan.loaded, created=plan.batch.rows[:1] != [] and plan.batch.rows[0][0] == 1, model=model)

    def get(self, session_id: str, *, data_model: "type[BaseModel] | None" = None) -> Session:
        """Return a session that exists.

        Raises:
            SessionNotFound, SessionGone: it does not, or not any more.
        """
        loaded = self._decider.load(inputs.identifier("session_id", session_id))
        self._require_visible(loaded)
        if loaded.state.deleted:
            raise SessionGone(f"session {session_id!r} was deleted")
        return self._handle(loaded, model=_model(data_model))

    def exists(self, session_id: str) -> bool:
        """Return whether there is such a session, not deleted."""
        state = self._decider.load(inputs.identifier("session_id", session_id)).state
        return state.version > 0 and not state.deleted and self._user in (None, state.user_id)

    def active_session(
        self, user_id: str | None = None, *, data_model: "type[BaseModel] | None" = None
    ) -> Session | None:
        """Return the user's active session that was created last, if there is one."""
        owner = self._owner(inputs.optional(inputs.identifier, "user_id", user_id))
        if owner is None:
            raise InvalidInput("user_id", "expected the id of a user")
        gone: str | None = None
        while (found := self._index.active(owner)) not in (None, gone):
            try:
                return self.get(found, data_model=data_model)
            except (SessionNotFound, SessionGone):  # just now: there may be another
                gone = found
        return None

    def for_user(self, user_id: str) -> "ConversationStore":
        """Return this store as that user sees it: only his sessions, others do not exist.

        What is about the whole store is refused there: counts, proofs, views, upkeep, and to export, copy, import or
        follow it. ``position`` is the log's. A handle that was given out stays one, whoever the session is given to.
        """
        return ConversationStore(self._parts, self._owner(inputs.identifier("user_id", user_id)))

    def using(self, connection: object) -> "ConversationStore":
        """Return this store inside the transaction that an application has open on a connection of its own.

        What is appended through it is committed with the application's rows, or not at all; an append that fails is
        undone alone, and the transaction can go on. Everything can be read, what is not committed yet too (only
        ``events()`` and ``position`` leave that out: it has no settled place in the log). A receipt's ``durability`` is
        ``pending`` and its ``position`` holds if the transaction is committed. Until it ends, whoever else writes to
        the same sessions waits, and readers of the log are not shown what was written after its first append. On
        MariaDB, and with ``ordering="strict"``, **every** writer waits from its first append on, this store's own calls
        in the same thread too: they would wait for themselves. Keep it short.

        Nobody is told of the commit: ``on_committed`` is not called, and who subscribes sees the events within half a
        second. What a handle knows and was rolled back it forgets when it next writes, or with ``refresh()``. Refused
        are ``subscribe``, ``on_committed``, ``verify`` of all, whatever erases, and whatever writes views.

        Args:
            connection: a ``psycopg.Connection`` to this store's database, or a ``pymysql.Connection`` to its server,
                in a READ COMMITTED transaction. On MariaDB the session has to be set to that: it is not by default.

        Raises:
            InvalidInput: it is not such a connection, or the store is on neither.
            StoreUnavailable: the connection is closed, or its transaction has failed.
        """
        self._require_own("using")
        using = self._parts.backend.using
        if using is None:
            raise InvalidInput(
                "using", "needs a store on PostgreSQL or MariaDB; here an application's rows are somewhere else"
            )
        return ConversationStore(self._parts.inside(using(connection)), self._user)

    # --- queries ------------------------------------------------------------------------------------------------------

    def sessions(
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
        where = SessionFilter(
            tenant=self.tenant,
            user_id=self._owner(inputs.optional(inputs.identifier, "user_id", user_id)),
            agent=inputs.optional(inputs.identifier, "agent", agent),
            status=inputs.optional(inputs.status, "status", status),
            route=inputs.optional(inputs.identifier, "route", route),
            older_than=inputs.optional(inputs.when, "older_than", older_than),
            newer_than=inputs.optional(inputs.when, "newer_than", newer_than),
        )
        return self._index.sessions(where, inputs.limit(limit), cursor, consistency)

    def messages(
        self, *, user_id: str | None = None, limit: int = 50, cursor: str | None = None, consistency: str = "strong"
    ) -> Page[Message]:
        """Return a page of a user's visible messages over all his sessions, newest first."""
        owner = self._owner(inputs.optional(inputs.identifier, "user_id", user_id))
        if owner is None:
            raise InvalidInput("user_id", "expected the id of a user")
        return self._index.messages(owner, inputs.limit(limit), cursor, consistency)

    def search(
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
        query = Query.of(inputs.text("text", text))
        if not query.words:
            raise InvalidInput("text", "expected a word to look for")
        where = SearchFilter(
            tenant=self.tenant,
            terms=query.terms,
            user_id=self._owner(inputs.optional(inputs.identifier, "user_id", user_id)),
            role=inputs.optional(inputs.role, "role", role),
            route=inputs.optional(inputs.identifier, "route", route),
            since=inputs.optional(inputs.when, "since", since),
            until=inputs.optional(inputs.when, "until", until),
        )
        return self._searcher.search(query, where, inputs.limit(limit), cursor, consistency)

    def users(self, *, limit: int = 50, cursor: str | None = None) -> Page[UserSummary]:
        """Return a page of the users who own sessions, in order of their ids."""
        self._require_all("users")
        return self._index.users(inputs.limit(limit), cursor)

    def stats(self) -> Stats:
        """Return counts over this tenant."""
        self._require_all("stats")
        counts = self._index.counts()
        return Stats(
            sessions=counts.sessions,
            events=counts.events,
            messages=counts.messages,
            users=counts.users,
            position=self._recorder.position(),
            size_bytes=self._recorder.size_bytes(),
            durability=self._recorder.durability,
            statuses=counts.statuses,
            views=self._engine.status(),
        )

    # --- the log ------------------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The position of the log's newest event; 0 if there is none."""
        return self._recorder.position()

    def events(
        self, *, after: int = 0, types: Sequence[str | type] | None = None, limit: int | None = None
    ) -> Iterator[RecordedEvent]:
        """Iterate recorded events in position order, those above ``after``.

        ``types``: event classes of ``turnlog.events``, or their names.
        """
        inputs.number("after", after, least=0)
        if limit is not None:
            inputs.number("limit", limit, least=0)
        return self._events(after, topics_of(types, self._codec.registry), limit, self._recorder.position())

    def subscribe(self, *, after: int | None = None, types: Sequence[str | type] | None = None) -> Subscription:
        """Iterate events above ``after`` (none: from now on), then new ones as they come, until it is closed.

        Works within and across processes; ends when the subscription or the store is closed. A slow consumer costs no
        memory. To resume, pass the position of the last event that was dealt with.
        """
        self._require_own("subscribe")
        start = self._recorder.position() if after is None else inputs.number("after", after, least=0)
        topics = topics_of(types, self._codec.registry)

        def read(position: int, upto: int) -> Iterator[RecordedEvent]:
            return self._events(position, topics, None, upto)

        return Subscription(self._recorder, read, start, self._parts.shared.closed)

    def _events(self, after: int, topics: Sequence[str], limit: int | None, upto: int) -> Iterator[RecordedEvent]:
        owners = Owners(self._decider, self._user)
        left = limit
        while left is None or left > 0:
            rows = self._recorder.select_log(
                after=after, upto=upto, limit=_PAGE, topics=topics, prefix=f"{self.tenant}/"
            )
            for row in rows:
                if left == 0:
                    return
                if owners.sees(row[1]):
                    yield self._codec.recorded(row)
                    left = None if left is None else left - 1
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    # --- views --------------------------------------------------------------------------------------------------------

    def add_projection(
        self, projection: Projection, progress: Callable[[RebuildProgress], object] | None = None
    ) -> None:
        """Keep an application's own read model up to date.

        That is an object with ``name``, ``revision``, ``create(connection)`` and ``apply(events, connection)``.

        A revision other than the stored one rebuilds it; ``progress`` is as in ``rebuild``. It is caught up by
        ``catch_up`` and by writers.
        """
        self._require_all("add_projection")
        self._require_own("add_projection")
        self._engine.add(projection, progress)

    def catch_up(self, progress: Callable[[RebuildProgress], object] | None = None) -> None:
        """Bring every view that this store knows up to the log's head.

        ``progress`` is told after every page; what it raises interrupts.
        """
        self._require_all("catch_up")
        self._require_own("catch_up")
        self._index.level(progress=progress)

    def rebuild(self, view: str | None = None, progress: Callable[[RebuildProgress], object] | None = None) -> None:
        """Build a view (or all) anew from the log beside the one that answers, then swap in one transaction.

        Interrupted, it goes on where it was when called again. ``progress`` is told after every page; what it raises
        interrupts.

        Raises:
            InvalidInput: there is no such view. StoreError: somebody else is rebuilding it.
        """
        self._require_all("rebuild")
        self._require_own("rebuild")
        self._engine.rebuild(view, progress)

    # --- proof --------------------------------------------------------------------------------------------------------

    def heads(self) -> Iterator[Head]:
        """Iterate the last version and hash of every session: anchors to keep elsewhere, for ``verify(heads=…)``."""
        self._require_all("heads")
        return self._prover.heads()

    def verify(self, session_id: str | None = None, heads: Heads | None = None) -> VerificationReport:
        """Check every hash, every chain, every turn, the keys and the views; or one session's.

        Finds any changed, missing, reordered or inserted event inside a stream. A tail cut off, a whole stream gone, an
        old backup or a log recomputed from some event on are found against ``heads`` kept elsewhere (a file of
        ``turnlog heads``, or ``Head`` values).
        """
        self._require_all("verify")
        if session_id is None:
            self._require_own("verify")
        self.ping()
        session_id = inputs.optional(inputs.identifier, "session_id", session_id)
        others: list[str] = []
        if session_id is None:
            self._catch_up_quietly()  # views that are behind may hold what was erased, or has expired, since
            others += _found(self._recorder.check)
            late = [MessageSearch.name] if self._engine.stands(MessageSearch.name) else []
            for name in (SessionIndex.name, MessageIndex.name, *late):
                others += _found(partial(self._engine.check, name, self.tenant))
        return self._prover.verify(session_id, heads, others)

    # --- erasure ------------------------------------------------------------------------------------------------------

    def erase_user(self, user_id: str) -> ErasureReport:
        """Delete every session of a user, forks too, and destroy their content, in one transaction.

        What he begins while it runs is erased in another. A session that cannot be read is erased too, unless whose it
        is cannot be told either: then it is among what is ``pending``.
        """
        self._require_own("erase_user")
        owner = self._owner(inputs.identifier("user_id", user_id)) or user_id
        sessions = events = forks = 0
        found, unknown = self._sessions_of(owner)
        while found:
            forks += sum(loaded.state.forked_from is not None for loaded in found)
            plans = erase(self._decider, found)
            with _after_commit():
                for plan in plans:
                    self._committed(self._decider.receipts(plan.loaded.state.id).at(plan.loaded.state.version))
                sessions += len(plans)
                events += sum(plan.loaded.state.version for plan in plans)
                found, unknown = self._sessions_of(owner)
        with _after_commit():
            pending = (*unknown, *(self._pending() if sessions else ()))
        return ErasureReport(sessions=sessions, events=events, forks=forks, pending=pending)

    def scrub(self, *, vacuum: bool = True) -> Erasure:
        """Destroy erased bytes that physically linger, and name what could not be reached.

        ``vacuum=False`` does not rewrite the database file: quicker, but its pages keep copies that SQLite made when
        it moved rows. Views that cannot forget are rebuilt. Backups are out of reach and yours to deal with.
        """
        self._require_all("scrub")
        self._require_own("scrub")
        inputs.flag("vacuum", vacuum)
        self._catch_up_quietly()
        self._engine.purge()
        pending = self._unread()
        pending += [f"the rebuild of {name} that is running" for name in self._views.discard_builds()]
        pending += self._recorder.scrub(vacuum=vacuum)
        return Erasure(complete=not pending, pending=tuple(pending))

    def _sessions_of(self, user_id: str) -> tuple[list[Loaded], list[str]]:
        """Return a user's sessions that are not deleted, and in words those of which it cannot be told."""
        unsettled = self._index.unsettled("session_index")  # first: what is settled after this is in the view
        self._index.level("session_index")
        ids = [row.summary.session_id for row in self._index.rows(SessionFilter(tenant=self.tenant, user_id=user_id))]
        parked = [one.session_id for one in self._engine.parked("session_index") if one.tenant == self.tenant]
        theirs: list[Loaded] = []
        unknown: list[str] = []
        for session_id in dict.fromkeys((*ids, *parked, *unsettled)):
            loaded = load_to_erase(self._decider, session_id)
            if loaded.state.user_id == user_id and not loaded.state.deleted:
                theirs.append(loaded)
            elif loaded.state.user_id is None and session_id in parked and not loaded.state.deleted:
                which = "a session" if self._user is not None else f"session {session_id!r}"
                unknown.append(f"{which}: it cannot be read, and whose it is cannot be told")
        return theirs, unknown

    def _pending(self) -> tuple[str, ...]:
        """Name what may still hold bytes of something just erased."""
        pending = self._recorder.lingering()
        pending += [f"the rebuild of {name} that is running" for name in self._views.discard_builds()]
        return (*pending, *self._unread())

    def _unread(self) -> list[str]:
        """Bring the views along, and name those that may still hold what was erased."""
        self._catch_up_quietly()
        deleted = topics_of((e.SessionDeleted,), self._codec.registry)
        unsettled = self._recorder.visible(limit=OVERLAY_EVENTS)
        newest = (self._recorder.select_stream(stream, desc=True, limit=1)[0] for stream in unsettled or ())
        held_back = unsettled is None or any(row[2] in deleted for row in newest)
        behind = [
            f"view {view.name}, which has not read that far"
            for view in self._engine.status()
            if held_back or self._recorder.select_log(after=view.position, limit=1, topics=deleted)
        ]
        return [*behind, *(f"view {name}, which may hold it until it is rebuilt" for name in self._engine.holding())]

    # --- life ---------------------------------------------------------------------------------------------------------

    def on_committed(self, callback: Callable[[Receipt], object]) -> None:
        """Have ``callback`` told of each receipt after the commit; what it raises is logged and changes nothing."""
        self._require_own("on_committed")
        self._require_all("on_committed")
        if not callable(callback):
            raise InvalidInput("callback", "expected a callable that takes a receipt")
        self._parts.shared.callbacks.append(callback)

    def ping(self) -> None:
        """Return if the storage answers; raise ``StoreUnavailable`` if not."""
        self._recorder.position()

    def clear(self) -> None:
        """Forget everything; for tests, on memory only. Handles and subscriptions from before are of no more use.

        Raises:
            InvalidInput: the store is not in memory.
        """
        self._require_all("clear")
        clear = getattr(self._recorder, "clear", None)
        if clear is None:
            raise InvalidInput("clear", "is for memory:// only; a log is never emptied")
        clear()
        self._views.clear()

    def close(self) -> None:
        """Release everything, end subscriptions. Closing twice does nothing.

        Closing what a user sees does nothing, nor what is inside an application's transaction.
        """
        if self._user is not None or self._parts.is_bound:
            return
        self._parts.shared.closed.set()
        self._recorder.close()
        self._views.close()

    # --- what sessions ask (see session.Home) -------------------------------------------------------------------------

    def delete_session(self, writer: SessionWriter, options: WriteOptions) -> Receipt:
        """Write the tombstone and destroy the content."""
        self._require_own("delete")
        command = c.DeleteSession()
        plans = erase(self._decider, [writer.loaded], said_with(command, options))
        if not plans:
            raise SessionGone(f"session {writer.loaded.state.id!r} was deleted")
        plan = plans[0]
        writer.loaded = plan.loaded
        with _after_commit():
            pending = self._pending()
            receipt = self._decider.receipts(plan.loaded.state.id).at(plan.loaded.state.version)
        receipt = replace(receipt, erasure=Erasure(complete=not pending, pending=pending))
        self._committed(receipt)
        return receipt

    def fork_session(
        self, writer: SessionWriter, session_id: str | None, version: int, model: "DataModel | None"
    ) -> Session:
        """Copy events 1..version into a new session, unless the source is deleted meanwhile."""
        decider, source = self._decider, writer.loaded
        new_id = session_id or decider.new_id()
        batch = fork_batch(decider, source.state, new_id, version)

        def still(reader: Reader) -> Sequence[Batch]:
            require_living(reader, decider.stream(source.state.id))
            if reader.select_stream(batch.stream, limit=1):
                raise InvalidInput("session_id", f"expected a new id, but there is (or was) a session {new_id!r}")
            newest = decider.load(source.state.id, source, reader).state
            return (batch if newest.user_id == source.state.user_id else fork_batch(decider, newest, new_id, version),)

        decider.append((), still)
        with _after_commit():
            fork = decider.load(new_id)
            self._committed(decider.receipts(new_id).at(fork.state.version))
        return self._handle(fork, model=model)

    def reset_session(
        self, writer: SessionWriter, options: WriteOptions, model: "DataModel | None", *, preserve_history: bool
    ) -> Session:
        """Start the successor and archive this session, in one append; the same ``command_id`` gives the same one."""
        decider, session_id = self._decider, writer.loaded.state.id
        successor, receipt = resetting.reset(decider, session_id, options, preserve_history=preserve_history)
        with _after_commit():
            writer.loaded = decider.load(session_id, writer.loaded)
            new = decider.load(successor)
            if new.state.deleted:
                raise SessionGone(f"session {successor!r} was deleted")
            if receipt is not None:
                self._committed(receipt)
                self._committed(decider.receipts(successor).at(new.state.version))
        return self._handle(new, model=model)

    # ------------------------------------------------------------------------------------------------------------------

    def _handle(self, loaded: Loaded, *, created: bool = False, model: Any = None) -> Session:
        return Session(SessionWriter(self._decider, loaded, self._committed), self, created=created, data_model=model)

    def _committed(self, receipt: Receipt) -> None:
        parts = self._parts
        if _passed(receipt) and not parts.is_bound:
            self._catch_up_quietly()
        if parts.shared.callbacks:
            told(parts.shared.callbacks, receipt)

    def _catch_up_quietly(self) -> None:
        """Bring the views along; the write stands whatever happens here, and the next query will try again."""
        try:
            self._engine.catch_up(wait=False, pages=PAGES)
        except StoreError:
            _log.exception("the views could not be caught up")

    def _owner(self, user_id: str | None) -> str | None:
        if self._user is None or user_id in (None, self._user):
            return user_id or self._user
        raise SessionNotFound(f"of user {user_id}")

    def _require_visible(self, loaded: Loaded, *, or_free: bool = False) -> None:
        state = loaded.state
        theirs = self._user is not None and state.user_id != self._user
        if state.version == 0 and not or_free:
            raise SessionNotFound(state.id)
        if theirs and state.version and not (or_free and state.user_id is None):
            raise SessionNotFound(state.id)

    def _require_all(self, what: str) -> None:
        if self._user is not None:
            raise InvalidInput(what, "is not for one user's store; call it on the store itself")

    def _require_own(self, what: str) -> None:
        if self._parts.is_bound:
            raise InvalidInput(
                what, "is not for a store inside an application's transaction; call it on the store itself"
            )

    def _first_messages(self, history: Sequence[Mapping[str, Json] | Message] | None) -> list[Said]:
        if history is None:
            return []
        from turnlog import structures

        new_id = self._decider.new_id
        return [_first_message(message, new_id) for message in structures.messages("history", history, str)]


def decider_of(store: ConversationStore) -> Decider:
    """Return what writes to a store, its recorder and codec too; they know nothing of users or lent transactions.

    Raises:
        InvalidInput: it is only what one user, or one transaction, sees of a store.
    """
    user, parts = store._user, store._parts  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - this file's own
    if user is not None or parts.is_bound:
        raise InvalidInput("store", "expected a store itself, not what one user or one transaction sees of it")
    return parts.decider


def lender_of(store: ConversationStore, connection: object) -> Lender:
    """Return who lends an application's connection for asyncio, in turns, to what is called in threads (turnlog.aio).

    Raises:
        InvalidInput: it is not such a connection, or the store cannot use one.
    """
    backend = store._parts.backend  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - this file's own
    if backend.lender is not None:
        return backend.lender(connection)
    if backend.using is None:
        store.using(connection)  # which says why not
    raise InvalidInput(
        "using", "is not for asyncio here: the driver has no such connections; do it with turnlog.open in a thread"
    )


@contextmanager
def _after_commit() -> Generator[None, None, None]:
    """Read what a write led to; where that fails, the write is not to be taken for one that did not happen.

    Raises:
        OutcomeUnknown: it could not be read.
    """
    try:
        yield
    except StoreUnavailable as error:
        raise OutcomeUnknown(f"it was written, but what it led to cannot be read: {error}") from error


def _passed(receipt: Receipt) -> bool:
    """Return whether an append reached or passed the position at which views are next brought along."""
    position = receipt.position or 0
    return position // CATCH_UP_EVERY > (position - len(receipt.event_ids)) // CATCH_UP_EVERY


def _found(check: Callable[[], list[str]]) -> list[str]:
    """Return what a check finds; where the storage is too damaged to be checked, that.

    Raises:
        StoreUnavailable: the check itself could not be made, which says nothing of what it checks.
    """
    try:
        return check()
    except StoreUnavailable:
        raise
    except StoreError as error:
        return [str(error)]


def _in_utc(clock: Callable[[], datetime]) -> Callable[[], datetime]:
    """Return the clock, or one that checks what an application's own gives: the log's times are UTC."""
    return clock if clock is ids.utc_now else lambda: inputs.when("clock", clock())


def _model(model: "type[BaseModel] | None") -> "DataModel | None":
    if model is None:
        return None
    from turnlog.data_model import DataModel

    return DataModel(model)


def _first_message(given: e.ReplacementMessage, new_id: Callable[[], str]) -> Said:
    """Return a message that a session begins with; an id that is given counts as said."""
    command = added(given if given.message_id else replace(given, message_id=new_id()))
    options: WriteOptions = {} if given.occurred_at is None else {"occurred_at": given.occurred_at}
    return replace(said_with(command, options, message_id=given.message_id or None), first=True)
