"""Views in Redis, beside the log, for all processes. Start with ``RedisViews.write``.

A transaction remembers what it writes and hands it to one script, which writes all of it if the writer still has his
turn (lease.py). Nobody waits for it but other writers of views and those who erase: queries and appends go on.

Each generation of a view has keys of its own, and one small table says which of them answers: a rebuilt view takes its
place by a change there, in the transaction that brings it level. How rows are kept is in session_rows.py and
message_rows.py, how they are found in queries.py; what an application's projection is given, in connection.py.
"""

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, cast
from uuid import uuid4

import msgspec
import redis

from turnlog.adapters.differing import while_claimed
from turnlog.adapters.held import Held
from turnlog.adapters.redis import books, connection, dropping, projecting
from turnlog.adapters.redis.cluster import Cluster
from turnlog.adapters.redis.comparing import differences
from turnlog.adapters.redis.connection import ANSWERING, Connection
from turnlog.adapters.redis.lease import Lease, Turn, lost
from turnlog.adapters.redis.queries import Queries
from turnlog.adapters.redis.scripts import WRITE
from turnlog.adapters.redis.server import Server
from turnlog.adapters.redis.wire import Cut, Unsent, translating
from turnlog.domain.errors import StoreUnavailable
from turnlog.projections.applying import Applied, try_to_forget
from turnlog.projections.view_store import Checkpoint, StoredView, Trial, View, ViewStore

STEP = 1_000
"""So many rows are written at a time where a view is built."""
PAGE = 500
"""Events a transaction; the server writes it in one go, which takes some milliseconds."""


class Bench(NamedTuple):
    """Where a view is built: how its bookkeeping begins, and the turn at it (``None``: in memory)."""

    books: bytes
    turn: Turn | None


class RedisViews:
    """The views of one log. The recorder is given it too, so that what is erased is forgotten here."""

    searches = False

    def __init__(self, server: Server | Cluster, bench: Bench | None = None) -> None:
        self._server = server
        self._root = root = server.keys.views
        self._bench = bench
        self._books = ANSWERING if bench is None else bench.books
        self._lease = Lease(server, server.keys.lease)
        self._memory = None
        if bench is not None and bench.turn is None:
            self._memory = connection.in_memory(root, bench.books)
        self._known: dict[str, Applied] = {}
        self.read_only = server.read_only and bench is None
        self.page = PAGE
        parking = books.Parking()
        self._parking = parking
        self.record, self.checkpoints = books.record, books.checkpoints
        self.park, self.release, self.records = parking.park, parking.release, parking.parked
        held = Held(parking)
        self.parked, self.begin, self.hold, self.holding = held.parked, held.begin, held.hold, held.holding
        queries = Queries(server, root)
        self.select_sessions = queries.select_sessions
        self.select_session = queries.select_session
        self.select_active = queries.select_active
        self.select_messages = queries.select_messages
        self.select_users = queries.select_users
        self.counts = queries.counts

    def close(self) -> None:
        """Close every connection."""
        self._server.close()

    def register(self, view: View) -> Applied:
        """Know a view, and give it its place: see ``ViewStore``."""
        placed = projecting.placed(view)
        self._known[placed.name] = placed
        return placed

    # --- transactions -------------------------------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Generator[Connection, None, None]:
        """Lend a connection that only reads; two reads may see two moments."""
        yield self._memory or connection.in_redis(self._server, self._root, self._books, None)

    @contextmanager
    def write(self, *, wait: bool = True) -> Generator[Connection | None, None, None]:
        """Lend a connection whose writes are committed together: see ``ViewStore``.

        Raises:
            StoreUnavailable: the turn was not to be had in time, or was over before the end.
        """
        if self._bench is not None:
            with self._at_bench(self._bench) as building:
                yield building
            return
        with self._turn(wait=wait) as turn:
            if turn is None:
                yield None
                return
            opened = self._opened(turn)
            yield opened
            self.commit(opened)

    @contextmanager
    def _at_bench(self, bench: Bench) -> Generator[Connection, None, None]:
        if self._memory is not None:
            with self._memory.tables.attempt():
                yield self._memory
        elif bench.turn is not None:
            bench.turn.renew()
            opened = self._opened(bench.turn)
            yield opened
            self._commit_in_steps(opened, bench.turn)

    @contextmanager
    def erasing(self, *, wait: bool = True) -> Generator[Connection | None, None, None]:
        """Keep views from being written, and lend what takes up the writes of an erasure; its append commits them.

        Without ``wait`` it lends ``None`` where somebody else is writing.
        """
        with self._turn(wait=wait) as turn:
            yield None if turn is None else self._opened(turn)

    @contextmanager
    def _turn(self, *, wait: bool) -> Generator[Turn | None, None, None]:
        self._server.require_writable()
        with self._lease.held(self._server.timeout_s if wait else 0) as turn:
            if turn is None and wait:
                words = f"the views were being written for {self._server.timeout_s:g} s"
                raise StoreUnavailable(f"{self._server.name}: {words}")
            yield turn

    def _opened(self, turn: Turn) -> Connection:
        return connection.in_redis(self._server, self._root, self._books, turn)

    def commit(self, connection: Connection) -> None:
        """Write all of it; who lost the answer writes it again, which is the same as long as his turn lasts.

        Raises:
            StoreUnavailable: the turn was over.
        """
        self._run(connection, connection.writes())

    def _commit_in_steps(self, connection: Connection, turn: Turn) -> None:
        """Write all of it where nobody reads yet: a page there is large, and the server serves others in between.

        Where that is cut off, what is there is begun anew.
        """
        if len(connection.tables) <= STEP:
            self._run(connection, connection.writes())
            return
        before = self._opened(turn)
        books.tear(before, torn=True)
        connection.list_tables(before.tables)
        self._run(before, before.writes())
        books.tear(connection, torn=False)
        for step in connection.tables.steps(self._root, STEP, self._books):
            turn.renew()
            self._run(connection, step)

    def _run(self, connection: Connection, writes: list[bytes | str | int]) -> None:
        keys, tokens = zip(*((turn.key, turn.token) for turn in connection.turns), strict=True)
        if writes != [0] and not self._server.read_script(WRITE, keys, (*tokens, *writes)):
            raise lost(self._server)

    def attempt(self, connection: Connection) -> AbstractContextManager[None]:
        """Undo what is done inside if it raises: see ``ViewStore``."""
        return connection.tables.attempt()

    def is_failure(self, error: Exception) -> bool:
        """Return whether the server is to blame for ``error``, not the event."""
        return isinstance(error, StoreUnavailable | redis.RedisError | Cut | Unsent)

    # --- erasing ------------------------------------------------------------------------------------------------------

    def forget(self, connection: Connection, tenant: str, session_id: str) -> list[str]:
        """Delete what views hold of a session, by the script that erases it.

        Returns the views that hold it until they come to the erased events themselves.
        """
        stream = f"{tenant}/{session_id}"
        holding: list[str] = []
        for at in self.checkpoints(connection).values():
            self.release(connection, at.name, stream)
            view = self._known.get(at.name)
            same = view is not None and view.revision == at.revision
            if not same or not try_to_forget(self, view, connection, stream):
                holding.append(at.name)
        return holding

    def discard_builds(self) -> list[str]:
        """Drop what unfinished rebuilds left behind; return the views that are being built right now."""
        if self.read_only:
            return []
        pending: list[str] = []
        for name in dropping.benches(self._server, self._root):
            with self._claim(name) as turn:
                if turn is None:
                    pending.append(name)
                else:
                    self._drop(turn, name)
        return pending

    # --- generations --------------------------------------------------------------------------------------------------

    def install(self, connection: Connection, view: StoredView) -> None:
        """Create a view, empty: see ``ViewStore``."""
        number = 1 if self._memory else self._server.write("INCR", self._root + b"generation")
        books.answer_with(connection, view.name, str(number).encode())
        books.record(connection, Checkpoint(view.name, view.revision))
        view.create(connection)

    @contextmanager
    def workshop(self, view: StoredView, *, keep: bool) -> Generator["RedisViews | None", None, None]:
        """Lend a place in which to build: see ``ViewStore``. Who only reads builds in memory, to check."""
        name = view.name if keep else f"{view.name} {uuid4().hex}"
        if self._server.read_only:
            yield self._furnished(Bench(dropping.books_of(name), None), view)
            return
        with self._claim(name) as turn:
            if turn is None:
                yield None
                return
            bench = Bench(dropping.books_of(name), turn)
            dropping.note_bench(self._server, self._root, name)
            try:
                yield self._furnished(bench, view)
            except BaseException:
                if not keep:
                    self._drop(turn, name)
                raise
            self._drop(turn, name)

    def restart(self, view: StoredView) -> None:
        """Empty this workshop."""
        with self._required() as connection:
            books.tear(connection, torn=False)
            self._parking.clear(connection, view.name)
            self.install(connection, view)
        dropping.drop_replaced(self._server, self._root, self, view.name)

    def lay_out(self, built: ViewStore, name: str) -> None:
        """Do nothing: what was built is where it will answer."""

    @contextmanager
    def adopting(
        self, connection: Connection, built: ViewStore, name: str
    ) -> Generator[tuple[ViewStore, Any], None, None]:
        """Have the generation that was built answer, in the caller's transaction.

        By the same step it stands on its bench no more: if this process dies at once, whoever comes there next must not
        build on with what answers, or drop it. Who has lost his turn at the bench has lost what he built.
        """
        built = cast("RedisViews", built)
        with built.read() as source:
            generation = source.generation(name)
            at, parked = built.checkpoints(source).get(name), built.records(source, name)
        if generation is None or at is None:
            raise lost(self._server)
        books.answer_with(connection, name, generation)
        books.record(connection, at)
        self._parking.clear(connection, name)
        for record in parked:
            self.park(connection, record)
        connection.turns += built.leave(connection, name)
        yield self, connection

    def leave(self, home: Connection, name: str) -> "list[Turn]":
        """Have a view stand on this bench no longer; return the turn that has to last for that."""
        books.take_away(home, self._books, name)
        return self.turns

    @property
    def turns(self) -> "list[Turn]":
        """The turn at this bench, if it is one that others see."""
        return [self._bench.turn] if self._bench is not None and self._bench.turn is not None else []

    def merge(self, connection: Connection) -> None:
        """Do nothing: there are no search indexes."""

    def clear_away(self, name: str) -> None:
        """Delete what was replaced."""
        dropping.drop_replaced(self._server, self._root, self, name)

    def differences(self, connection: Connection, built: ViewStore, name: str, tenant: str | None) -> Iterator[str]:
        """Say where the rows here are not those that were built."""
        built = cast("RedisViews", built)
        with built.read() as theirs:
            theirs.turns += connection.turns + built.turns
            for words in while_claimed(differences(self._known[name], connection, theirs, tenant), theirs.renew):
                yield f"view {name!r}, {words}"

    def _claim(self, name: str) -> AbstractContextManager[Turn | None]:
        return Lease(self._server, self._root + dropping.books_of(name) + b"lease").held(0)

    def _furnished(self, bench: Bench, view: StoredView) -> "RedisViews":
        workshop = RedisViews(self._server, bench)
        workshop._known = self._known
        with workshop._required() as connection:
            is_whole = view.name in workshop.checkpoints(connection) and not books.is_torn(connection)
        if not is_whole:
            workshop.restart(view)
        return workshop

    def _drop(self, turn: Turn, name: str) -> None:
        """Delete what is on a bench, but for a generation that answers by now; who lost his turn there leaves it."""
        try:
            turn.renew(at_once=True)
        except StoreUnavailable:
            return
        bench = RedisViews(self._server, Bench(dropping.books_of(name), turn))
        with translating(self._server.name), self.read() as home:
            dropping.drop_bench(self._server, self._root, bench, home, name)

    @contextmanager
    def _required(self) -> Generator[Connection, None, None]:
        with self.write() as connection:
            assert connection is not None  # noqa: S101 - who waits gets one, or an error
            yield connection

    # --- trials -------------------------------------------------------------------------------------------------------

    def trial(self, name: str) -> Trial | None:
        """Return the open trial."""
        if self._memory is not None:
            return None
        stored = self._server.read("HGET", self._trials, name)
        return None if stored is None else Trial(*msgspec.msgpack.decode(stored))

    def begin_trial(self, name: str, trial: Trial) -> None:
        """Note a trial."""
        if self._memory is None:
            self._server.write("HSET", self._trials, name, msgspec.msgpack.encode(tuple(trial)))

    def end_trial(self, name: str) -> None:
        """Take the note back."""
        if self._memory is None:
            self._server.write("HDEL", self._trials, name)

    @property
    def _trials(self) -> bytes:
        return self._root + self._books + b"trials"
