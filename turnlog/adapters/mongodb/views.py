"""Views in MongoDB, in the log's database. They take a replica set: their rows and checkpoints are one transaction.

On a standalone server each process has its own, in memory (connect.py). Documents of the built-in views are in
session_rows.py and message_rows.py, their queries in queries.py; which lock keeps whom out is in places.py, how one
generation takes the place of another in swapping.py, and what a projection is given in view_connection.py.
"""

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias, cast
from uuid import uuid4

from turnlog.adapters.differing import while_claimed
from turnlog.adapters.held import Held
from turnlog.adapters.mongodb.books import Books, Trials
from turnlog.adapters.mongodb.client import Client, Session
from turnlog.adapters.mongodb.comparing import differences
from turnlog.adapters.mongodb.message_rows import MessageCollections
from turnlog.adapters.mongodb.places import Bench, Claims, Home, of_the_server
from turnlog.adapters.mongodb.queries import Queries
from turnlog.adapters.mongodb.search_rows import SearchCollections, SearchQuery
from turnlog.adapters.mongodb.session_rows import SessionCollection
from turnlog.adapters.mongodb.swapping import Swaps, drop_all
from turnlog.adapters.mongodb.view_connection import ViewConnection
from turnlog.adapters.names import Names
from turnlog.adapters.registered import application_view, forget_in
from turnlog.adapters.telling import Place as RowPlace
from turnlog.projections.applying import Applied
from turnlog.projections.message_index import MessageIndex
from turnlog.projections.message_search import MessageSearch
from turnlog.projections.session_index import SessionIndex
from turnlog.projections.standing import until_it_stands
from turnlog.projections.view_store import Checkpoint, StoredView, View, ViewStore, WriteUndone

PAGE = 2_000
"""Events a transaction; while it lasts, nobody can erase."""
Place: TypeAlias = Home | Bench
BUILT_IN = (SessionCollection, MessageCollections, SearchCollections)


class MongoDBViews:
    """The views of one log. The recorder is given it too, so that what is erased is forgotten here."""

    searches = True

    def __init__(self, client: Client, names: Names | None = None, bench: Bench | None = None) -> None:
        self._client = client
        self._names = names = names or Names()
        self._own = (names.views, names.parked, names.trials)
        """What every place has besides the collections of views."""
        self._views: dict[str, Applied] = {}
        self._books = books = Books(names)
        self._swaps = Swaps(client, names, books)
        self._home = Home(client, names, self._swaps.mend)
        self._bench = bench
        self._place: Place = bench or self._home
        self._claims = Claims(client, names)
        self.read_only = client.read_only and bench is None
        self.page = PAGE
        self.checkpoints, self.record, self.release = books.checkpoints, books.record, books.release
        self.park, self.created = books.park, books.created
        held = Held(books)
        self.records, self.parked = books.parked, held.parked
        self.begin, self.hold, self.holding = held.begin, held.hold, held.holding
        trials = Trials(client, self._place.prefix + names.trials)
        self.trial, self.begin_trial, self.end_trial = trials.read, trials.begin, trials.end
        queries = Queries(client, names, self._place.prefix)
        self.select_sessions = queries.select_sessions
        self.select_session = queries.select_session
        self.select_active = queries.select_active
        self.select_messages = queries.select_messages
        self.select_users = queries.select_users
        self.counts = queries.counts
        self.select_found = SearchQuery(client, names, self._place.prefix).select_found

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def register(self, view: View) -> Applied:
        """Know a view, and give it its place: see ``ViewStore``."""
        match view:
            case SessionIndex():
                stored: Applied = SessionCollection(view, self._names)
            case MessageIndex():
                stored = MessageCollections(view, self._names)
            case MessageSearch():
                stored = SearchCollections(view, self._names)
            case _:
                stored = application_view(view)
        self._views[stored.name] = stored
        return stored

    # --- erasing ------------------------------------------------------------------------------------------------------

    def hold_still(self, session: Session) -> None:
        """Keep views from being written until the transaction of ``session`` ends; for those who erase."""
        if self._swaps.is_planned():
            with self._home.transaction():
                pass
        self._home.hold(session)

    def forget(self, session: Session, tenant: str, session_id: str) -> list[str]:
        """Delete what views hold of a session, inside the transaction that erases it.

        Returns the views that hold it until they come to the erased events themselves.
        """
        connection = ViewConnection(self._client, session=session)
        stream = f"{tenant}/{session_id}"
        self._books.forget(connection, stream)
        return forget_in(self._views, self, connection, stream)

    @until_it_stands
    def discard_builds(self) -> list[str]:
        """Drop what unfinished rebuilds and checks left behind; return the views that are being built right now."""
        if self.read_only:
            return []
        pending: list[str] = []
        with self._home.write(), self._client.translating():
            there = self._client.database.list_collection_names()
            begin = f"{self._names.views}."
            for kind, name in sorted({_claim_of(one[len(begin) :]) for one in there if one.startswith(begin)}):
                if self._claims.is_held(f" {kind} {name}"):
                    pending.append(name)
                else:
                    self._client.end_abandoned(now=True)  # a transaction of the old owner's holds the collections
                    drop_all(self._client, f"{begin}{kind}.{name}.")
        return pending

    # --- what the engine asks (ViewStore) -----------------------------------------------------------------------------

    def read(self) -> AbstractContextManager[ViewConnection]:
        """Lend a connection outside of any transaction: two reads may see two moments."""
        return self._place.read()

    def write(self, *, wait: bool = True) -> AbstractContextManager[Any]:
        """Lend a connection in a transaction under the catch-up lock: see ``ViewStore``."""
        return self._place.write(wait=wait)

    @contextmanager
    def attempt(self, connection: ViewConnection) -> Generator[None, None, None]:
        """Undo what is done inside if it raises: the transaction is begun anew, and what came before written again."""
        if connection.written is None:  # inside a transaction that erases, which goes on in any case
            with connection.at_the_end():
                yield
            return
        before = len(connection.written)
        try:
            yield
        except Exception as error:
            if not of_the_server(error):
                self._undo(connection, before)
            raise

    def _undo(self, connection: ViewConnection, before: int) -> None:
        written, held = connection.written, connection.held
        self._client.undo(cast("Session", connection.session))
        if not self._place.begin(connection) or connection.held != held:
            raise WriteUndone(f"{self._client.name}: somebody else has written the views meanwhile")
        connection.written = written
        connection.write_again(before)

    def is_failure(self, error: Exception) -> bool:
        """Return whether the server is to blame for ``error``, not the event."""
        return of_the_server(error)

    def merge(self, connection: ViewConnection) -> None:
        """Do nothing: an index lets go of words with their documents."""

    def install(self, connection: ViewConnection, view: StoredView) -> None:
        """Create a view, empty: see ``ViewStore``."""
        at = Checkpoint(view.name, view.revision)
        if self._bench is not None:
            view.create(connection)
            self._books.insert(connection, at, connection.created)
            self.renew(at_once=True)
            return
        prefix = self._prefix("new", view.name)
        drop_all(self._client, prefix)
        making = ViewConnection(self._client, prefix)
        view.create(making)
        self._swaps.perform(connection, at, making.created, prefix)

    @contextmanager
    def workshop(self, view: StoredView, *, keep: bool) -> Generator["MongoDBViews | None", None, None]:
        """Lend collections in which to build: see ``ViewStore``."""
        kind, name = ("build", view.name) if keep else ("check", f"{view.name}-{uuid4().hex[:8]}")
        if not self.read_only:
            with self._home.write():  # what was built may be what an interrupted swap was about to take
                pass
        with self._client.translating():
            owner = self._claims.take(f" {kind} {name}")
        if owner is None:
            yield None
            return
        bench = Bench(self._client, self._prefix(kind, name), self._claims, f" {kind} {name}", owner)
        done = False
        try:
            workshop = MongoDBViews(self._client, self._names, bench)
            workshop.furnish(view)
            yield workshop
            done = True
        finally:
            with self._client.translating():
                if done or not keep:
                    drop_all(self._client, bench.prefix)
                self._claims.release(f" {kind} {name}", owner)

    def furnish(self, view: StoredView) -> None:
        """Have the view in this workshop, as it was left or empty."""
        with self.read() as making:
            kept = self.checkpoints(making).get(view.name)
            there = set(self._client.database.list_collection_names())
            wanted = (*self._own, *self.created(making, view.name))
            whole = kept is not None and there.issuperset(self._place.prefix + name for name in wanted)
        if not whole:
            self.restart(view)

    def restart(self, view: StoredView) -> None:
        """Empty this workshop."""
        with self._client.translating():
            drop_all(self._client, self._place.prefix)
        with self.read() as making:
            for name in self._own:
                making.create(name)
            making.created.clear()
            self.install(making, view)

    def lay_out(self, built: ViewStore, name: str) -> None:
        """Do nothing: it is complete where it was built."""

    @contextmanager
    def adopting(
        self, connection: ViewConnection, built: ViewStore, name: str
    ) -> Generator[tuple[ViewStore, Any], None, None]:
        """Lend the generation that was built, to bring it level; then move it to the place of the one here."""
        with built.write() as building:
            yield built, building
        workshop = cast("MongoDBViews", built)
        with workshop.read() as source:
            created = workshop.created(source, name)
            at, parked = workshop.checkpoints(source)[name], workshop.records(source, name)
        old = self._books.created(connection, name)
        self._swaps.perform(connection, at, created, workshop.prefix, old=old, parked=parked)

    @property
    def prefix(self) -> str:
        """How the names of the collections begin here."""
        return self._place.prefix

    def clear_away(self, name: str) -> None:  # noqa: ARG002 - the port's
        """Forget the plan of a swap, which is done."""
        with self._home.write():
            pass

    def differences(self, connection: ViewConnection, built: ViewStore, name: str, tenant: str | None) -> Iterator[str]:
        """Say where the rows here are not those that were built."""
        workshop = cast("MongoDBViews", built)
        place = RowPlace(self._names.column("tenant"), self._names.column("session_id"), tenant)
        with workshop.read() as theirs:
            in_order = isinstance(self._views[name], BUILT_IN)
            found = (
                words
                for collection in workshop.created(theirs, name)
                for words in differences(connection, theirs, collection, place, workshop.renew, in_order=in_order)
            )
            for words in while_claimed(found, workshop.renew):
                yield f"view {name!r}, {words}"

    def renew(self, *, at_once: bool = False) -> None:
        """Renew the claim on this workshop: see ``Bench``."""
        if self._bench is not None:
            self._bench.renew(at_once=at_once)

    def _prefix(self, kind: str, name: str) -> str:
        return f"{self._names.views}.{kind}.{name}."


def _claim_of(rest: str) -> tuple[str, str]:
    """Return the kind and the name of a bench, of how a collection's name goes on."""
    kind, name, *_ = f"{rest}..".split(".")
    return kind, name
